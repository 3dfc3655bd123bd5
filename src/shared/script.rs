//! An atomic step at the server, on keys of one hash tag.
//!
//! Every key is passed as a key, so that a cluster can tell where the script runs; that all have one tag is checked here,
//! since a cluster of one node would not notice.

use redis::aio::ConnectionLike;
use redis::{FromRedisValue, RedisResult, ToRedisArgs};

/// A script.
pub struct Script(redis::Script);

/// A script with its keys and arguments.
pub struct Step<'a> {
    invocation: redis::ScriptInvocation<'a>,
    tag: Option<String>,
    slots: bool,
}

impl Script {
    /// A script in Lua.
    pub fn new(code: &str) -> Self {
        Self(redis::Script::new(code))
    }

    /// The script on its first key.
    pub fn on(&self, key: &str) -> Step<'_> {
        let mut invocation = self.0.prepare_invoke();
        invocation.key(key);
        Step { invocation, tag: tag(key).map(str::to_owned), slots: true }
    }
}

impl Step<'_> {
    /// One key more.
    pub fn key(mut self, key: &str) -> Self {
        self.slots &= tag(key) == self.tag.as_deref();
        self.invocation.key(key);
        self
    }

    /// One argument more.
    pub fn arg(mut self, argument: impl ToRedisArgs) -> Self {
        self.invocation.arg(argument);
        self
    }

    pub(super) fn one_slot(&self) -> Result<(), &'static str> {
        if self.slots && self.tag.is_some() { Ok(()) } else { Err("a script's keys have no common hash tag") }
    }

    pub(super) async fn invoke<T: FromRedisValue>(
        &self,
        connection: &mut (impl ConnectionLike + Send),
    ) -> RedisResult<T> {
        self.invocation.invoke_async(connection).await
    }
}

/// What decides a key's slot: the text between its first `{` and the next `}`.
fn tag(key: &str) -> Option<&str> {
    let (_, rest) = key.split_once('{')?;
    rest.split_once('}').map(|(tag, _)| tag).filter(|tag| !tag.is_empty())
}

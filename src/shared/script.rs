//! An atomic step at the server, on keys of one hash tag.
//!
//! Every key is passed as a key, so that a cluster can tell where the script runs; that all have one tag is checked here,
//! since a cluster of one node would not notice.
//!
//! A [`Script`] is run from top to bottom in each call. A [`Function`] is loaded once, with all that it is made of, which is
//! worth it where there is much of that and it is called all the time (Redis 7, `FUNCTION LOAD` and `FCALL`).

use redis::aio::ConnectionLike;
use redis::{Cmd, FromRedisValue, RedisError, RedisResult, ToRedisArgs};

/// A script.
pub struct Script(redis::Script);

/// A function, in a library of its own under the same name. Code of another version has another name, so that workers of
/// several versions share a server; what the code keeps there it must itself tell apart.
pub struct Function {
    name: String,
    library: String,
}

/// A script or function with its keys and arguments.
pub struct Step<'a> {
    call: Call<'a>,
    tag: Option<String>,
    slots: bool,
}

enum Call<'a> {
    Script(redis::ScriptInvocation<'a>),
    Function { function: &'a Function, keys: Vec<String>, arguments: Vec<Vec<u8>> },
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
        Step { call: Call::Script(invocation), tag: tag(key).map(str::to_owned), slots: true }
    }
}

impl Function {
    /// The local function `entry` of `code`, in Lua; its name at the server begins with `name`.
    pub fn new(name: &str, code: &str, entry: &str) -> Self {
        let name = format!("{name}_{}", &blake3::hash(code.as_bytes()).to_hex()[..16]);
        let library = format!("#!lua name={name}\n{code}\nredis.register_function('{name}', {entry})\n");
        Self { name, library }
    }

    /// The function on its first key.
    pub fn on(&self, key: &str) -> Step<'_> {
        let call = Call::Function { function: self, keys: vec![key.to_owned()], arguments: Vec::new() };
        Step { call, tag: tag(key).map(str::to_owned), slots: true }
    }

    /// The server keeps it in its file; one that has lost it is given it again.
    async fn call<T: FromRedisValue>(
        &self,
        call: &Cmd,
        connection: &mut (impl ConnectionLike + Send),
    ) -> RedisResult<T> {
        match call.query_async(connection).await {
            Err(error) if is_unknown(&error) => {
                self.load(connection).await?;
                call.query_async(connection).await
            }
            answer => answer,
        }
    }

    /// Gives it to the server, or to all of a cluster.
    pub(super) async fn load(&self, connection: &mut (impl ConnectionLike + Send)) -> RedisResult<()> {
        redis::cmd("FUNCTION").arg("LOAD").arg("REPLACE").arg(&self.library).query_async(connection).await
    }
}

fn is_unknown(error: &RedisError) -> bool {
    error.detail() == Some("Function not found")
}

impl Step<'_> {
    /// One key more.
    pub fn key(mut self, key: &str) -> Self {
        self.slots &= tag(key) == self.tag.as_deref();
        match &mut self.call {
            Call::Script(invocation) => _ = invocation.key(key),
            Call::Function { keys, .. } => keys.push(key.to_owned()),
        }
        self
    }

    /// One argument more.
    pub fn arg(mut self, argument: impl ToRedisArgs) -> Self {
        match &mut self.call {
            Call::Script(invocation) => _ = invocation.arg(argument),
            Call::Function { arguments, .. } => arguments.extend(argument.to_redis_args()),
        }
        self
    }

    pub(super) fn one_slot(&self) -> Result<(), &'static str> {
        if self.slots && self.tag.is_some() { Ok(()) } else { Err("a script's keys have no common hash tag") }
    }

    pub(super) async fn invoke<T: FromRedisValue>(
        &self,
        connection: &mut (impl ConnectionLike + Send),
    ) -> RedisResult<T> {
        match &self.call {
            Call::Script(invocation) => invocation.invoke_async(connection).await,
            Call::Function { function, keys, arguments } => {
                let mut call = redis::cmd("FCALL");
                call.arg(&function.name).arg(keys.len()).arg(keys).arg(arguments);
                function.call(&call, connection).await
            }
        }
    }
}

/// What decides a key's slot: the text between its first `{` and the next `}`.
fn tag(key: &str) -> Option<&str> {
    let (_, rest) = key.split_once('{')?;
    rest.split_once('}').map(|(tag, _)| tag).filter(|tag| !tag.is_empty())
}

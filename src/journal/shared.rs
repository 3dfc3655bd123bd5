//! The journal of a fleet: replies in Redis, compressed, and the fleet's claims.
//!
//! Reply and claim of one key lie under one hash tag, so a look is one atomic step: the reply, else the claim, else somebody
//! else's. Who waits for another process looks again and again: each process does so once for a key, however many of its jobs
//! need it.
//!
//! Requests are not kept: they follow from the job and its recipe, and would take more room than their replies.

use std::cell::RefCell;
use std::sync::LazyLock;

use redis::Value;

use super::{Key, Redirect, Stored, unreadable};
use crate::shared::claims::{Claims, Held, Patience};
use crate::shared::{Redis, Script};
use crate::state::StateError;

/// Compression of replies: 20 us each, and less than half the room (`zstd`'s own default).
const LEVEL: i32 = 3;

/// Replies and claims in Redis. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    redis: Redis,
    claims: Claims,
}

/// What a look found.
pub(super) enum Found {
    Reply(Box<Stored>),
    Claimed(Held),
}

static LOOK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local reply = redis.call('GET', KEYS[1])
         if reply then return reply end
         local claim = redis.call('GET', KEYS[2])
         if claim and string.sub(claim, 1, #ARGV[2]) ~= ARGV[2] then return 1 end
         redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[3])
         return 0",
    )
});
static STORE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GET', KEYS[2]) == ARGV[2] then redis.call('DEL', KEYS[2]) end
         local first = redis.call('GET', KEYS[1])
         if first then return first end
         redis.call('SET', KEYS[1], ARGV[1])
         return 0",
    )
});
static REDIRECT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('EXISTS', KEYS[2]) == 1 then return 1 end
         if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
         redis.call('SET', KEYS[2], ARGV[1])
         return 1",
    )
});

impl Shared {
    pub(super) fn new(redis: Redis, claims: Claims) -> Self {
        Self { redis, claims }
    }

    /// The reply, or the claim, once nobody else has it.
    pub(super) async fn look(&self, key: Key) -> Result<Found, StateError> {
        let (reply, claim) = self.names(key);
        let held = self.claims.wish(&claim);
        let mut patience = Patience::new();
        loop {
            let step = LOOK.on(&reply).key(&claim).arg(held.token()).arg(self.claims.process()).arg(Claims::life());
            match self.redis.run(&step).await? {
                Value::Int(0) => return Ok(Found::Claimed(held)),
                Value::Int(_) => patience.rest().await,
                other => {
                    held.is_over();
                    return Ok(Found::Reply(Box::new(stored(&other)?)));
                }
            }
        }
    }

    pub(super) async fn read(&self, key: Key) -> Result<Option<Stored>, StateError> {
        match self.redis.command(redis::cmd("GET").arg(self.names(key).0)).await? {
            Value::Nil => Ok(None),
            value => stored(&value).map(Some),
        }
    }

    pub(super) async fn store(&self, key: Key, held: Option<&Held>, reply: &Stored) -> Result<Stored, StateError> {
        let (name, claim) = self.names(key);
        let token = held.map_or("", Held::token);
        let first = self.redis.run(&STORE.on(&name).key(&claim).arg(packed(reply)?).arg(token)).await?;
        if let Some(held) = held {
            held.is_over();
        }
        match first {
            Value::Int(_) => Ok(reply.clone()),
            first => stored(&first),
        }
    }

    pub(super) async fn is_redirected(&self, redirect: &Redirect) -> Result<bool, StateError> {
        self.redis.command(redis::cmd("EXISTS").arg(self.name_of(redirect))).await
    }

    pub(super) async fn redirect(&self, redirect: &Redirect) -> Result<bool, StateError> {
        let (reply, _) = self.names(redirect.from);
        self.redis.run(&REDIRECT.on(&reply).key(&self.name_of(redirect)).arg(packed(redirect)?)).await
    }

    /// Beside the reply that it stands for, in one slot.
    fn name_of(&self, redirect: &Redirect) -> String {
        self.redis.key(&redirect.from.to_string(), &redirect.to.to_string())
    }

    /// Of the reply and of its claim.
    fn names(&self, key: Key) -> (String, String) {
        let tag = key.to_string();
        (self.redis.key(&tag, "r"), self.redis.key(&tag, "c"))
    }
}

fn packed(entry: &impl serde::Serialize) -> Result<Vec<u8>, StateError> {
    thread_local! {
        // Making one takes longer than using it.
        static COMPRESSOR: RefCell<std::io::Result<zstd::bulk::Compressor<'static>>> =
            RefCell::new(zstd::bulk::Compressor::new(LEVEL));
    }
    let json = serde_json::to_vec(entry).map_err(|e| unreadable(&e.to_string()))?;
    COMPRESSOR.with_borrow_mut(|compressor| match compressor {
        Ok(compressor) => compressor.compress(&json).map_err(|e| unreadable(&e.to_string())),
        Err(error) => Err(unreadable(&error.to_string())),
    })
}

fn stored(value: &Value) -> Result<Stored, StateError> {
    let Value::BulkString(bytes) = value else { return Err(unreadable("an entry is no text")) };
    let json = zstd::stream::decode_all(bytes.as_slice()).map_err(|e| unreadable(&e.to_string()))?;
    serde_json::from_slice(&json).map_err(|e| unreadable(&e.to_string()))
}

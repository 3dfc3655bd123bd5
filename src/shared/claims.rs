//! Claims: of all processes of a fleet one does a thing, and the others wait for it.
//!
//! A claim lives for [`LIFE`] and is renewed while it is held, so one whose holder died is free soon. One that was lost with
//! the server's memory is taken again by its holder's next renewal. Two holders at once are possible after that (a holder
//! that was cut off for long), so what is claimed must be harmless to do twice.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, Weak};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio::time::{sleep, timeout};

use super::{Redis, Script, unique};
use crate::lock::lock;
use crate::retry::jitter;
use crate::state::StateError;

/// How long a claim lives without its holder: less than a job waits that was under way when its worker died.
const LIFE: Duration = Duration::from_secs(8);
/// Renewals at once, and how long one may take.
const RENEWED_AT_ONCE: usize = 64;
const RENEWAL_ANSWER: Duration = Duration::from_secs(1);
/// Between two renewals.
const RENEW: Duration = Duration::from_secs(2);
/// The first and the longest pause between two looks at somebody else's claim.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(40), Duration::from_millis(500));

/// The claims of one process. Clones share them.
#[derive(Debug, Clone)]
pub struct Claims {
    redis: Redis,
    holder: Arc<Holder>,
}

#[derive(Debug)]
struct Holder {
    /// What its claims begin with: nobody else's do.
    process: String,
    count: AtomicU64,
    held: Mutex<HashMap<String, String>>,
}

/// A claim, or the wish for one. Dropped, it is given up.
#[derive(Debug)]
pub struct Held {
    claims: Claims,
    name: String,
    token: String,
    /// There is nothing to give up.
    over: AtomicBool,
}

/// Looks at somebody else's claim, at growing distances.
pub(crate) struct Patience(Duration);

static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local claim = redis.call('GET', KEYS[1])
         if claim and string.sub(claim, 1, #ARGV[2]) ~= ARGV[2] then return 0 end
         redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
         return 1",
    )
});
static RENEWAL: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local claim = redis.call('GET', KEYS[1])
         if claim and claim ~= ARGV[1] then return 0 end
         redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
         return 1",
    )
});
static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new("if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0")
});

impl Claims {
    /// Claims kept in `redis`, renewed while anybody uses them. Within a tokio runtime.
    pub fn new(redis: Redis) -> Self {
        let holder = Arc::new(Holder { process: unique(), count: AtomicU64::new(0), held: Mutex::default() });
        redis.in_passing(renew(redis.clone(), Arc::downgrade(&holder)));
        Self { redis, holder }
    }

    /// Waits until nobody else has the claim of this key, and takes it. Cancel safe.
    pub async fn take(&self, key: &str) -> Result<Held, StateError> {
        let held = self.wish(key);
        let mut patience = Patience::new();
        loop {
            let step = TAKE.on(key).arg(&held.token).arg(self.process()).arg(Self::life());
            if self.redis.run::<u64>(&step).await? == 1 {
                return Ok(held);
            }
            patience.rest().await;
        }
    }

    /// What a script that takes the claim itself needs: the token, from before it is asked for, since the answer may be lost.
    pub(crate) fn wish(&self, key: &str) -> Held {
        let count = self.holder.count.fetch_add(1, Ordering::Relaxed);
        let (name, token) = (key.to_owned(), format!("{}:{count}", self.holder.process));
        lock(&self.holder.held).insert(name.clone(), token.clone());
        Held { claims: self.clone(), name, token, over: AtomicBool::new(false) }
    }

    /// What all claims of this process begin with.
    pub(crate) fn process(&self) -> &str {
        &self.holder.process
    }

    /// How long a claim lives, in milliseconds.
    pub(crate) fn life() -> u64 {
        u64::try_from(LIFE.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Held {
    /// What stands at the server.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// It does not stand there, or no more.
    pub(crate) fn is_over(&self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        {
            let mut held = lock(&self.claims.holder.held);
            if held.get(&self.name) == Some(&self.token) {
                held.remove(&self.name);
            }
        }
        if self.over.load(Ordering::Relaxed) {
            return;
        }
        let (redis, name, token) = (self.claims.redis.clone(), self.name.clone(), self.token.clone());
        self.claims.redis.in_passing(async move {
            if let Err(error) = redis.run::<u64>(&RELEASE.on(&name).arg(&token)).await {
                tracing::debug!(%error, "a claim was not given up, and ends by itself");
            }
        });
    }
}

impl Patience {
    pub(crate) fn new() -> Self {
        Self(LOOK_AGAIN.0)
    }

    pub(crate) async fn rest(&mut self) {
        sleep(self.0.mul_f64(0.5 + jitter())).await;
        self.0 = (self.0 * 2).min(LOOK_AGAIN.1);
    }
}

async fn renew(redis: Redis, holder: Weak<Holder>) {
    loop {
        sleep(RENEW.mul_f64(0.75 + jitter() / 2.0)).await;
        let Some(holder) = holder.upgrade() else { return };
        let held: Vec<(String, String)> =
            lock(&holder.held).iter().map(|(name, token)| (name.clone(), token.clone())).collect();
        drop(holder);
        let renewals = held.into_iter().map(|(name, token)| {
            let redis = redis.clone();
            async move {
                let step = RENEWAL.on(&name).arg(&token).arg(Claims::life());
                // A late answer must not keep the others from theirs.
                match timeout(RENEWAL_ANSWER, redis.run::<u64>(&step)).await {
                    Ok(Ok(1)) => {}
                    Ok(Ok(_)) => tracing::debug!("a claim is somebody else's"),
                    Ok(Err(error)) => tracing::debug!(%error, "a claim cannot be renewed"),
                    Err(_) => tracing::debug!("a claim may not be renewed"),
                }
            }
        });
        stream::iter(renewals).buffer_unordered(RENEWED_AT_ONCE).for_each(|()| std::future::ready(())).await;
    }
}

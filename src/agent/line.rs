//! One model of one provider with its keys, and what a call to it may take of limits and money.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use super::breaker::Breaker;
use crate::fault::Halt;
use crate::lock::lock;
use crate::price::{Nano, Price};
use crate::provider::credentials::Credential;
use crate::provider::{CallError, Endpoint, Protocol, Request, Usage};
use crate::quota::gate::AccountSpec;

/// One model of one provider, with all that is needed to ask it.
#[derive(Debug)]
pub struct Line {
    /// Where it is.
    pub endpoint: Endpoint,
    /// The model's price.
    pub price: Price,
    /// One account per credential.
    pub accounts: Vec<Account>,
    next: AtomicUsize,
    /// Until when its outage has been told.
    told_until: Mutex<Option<Instant>>,
    /// Until when it has been told that others are asked in its place.
    gave_way_until: Mutex<Option<Instant>>,
    /// Since when every call of this process has failed.
    down_since: Mutex<Option<Instant>>,
}

/// A credential and the limits it has for one model.
#[derive(Debug)]
pub struct Account {
    /// The key.
    pub credential: Credential,
    /// Its limits.
    pub spec: AccountSpec,
    pub(super) refused: OnceLock<String>,
    pub(super) breaker: Breaker,
}

impl Line {
    /// A model with its accounts.
    pub fn new(endpoint: Endpoint, price: Price, accounts: Vec<(Credential, AccountSpec)>) -> Self {
        let account =
            |(credential, spec)| Account { credential, spec, refused: OnceLock::new(), breaker: Breaker::default() };
        let accounts = accounts.into_iter().map(account).collect();
        Self {
            endpoint,
            price,
            accounts,
            next: AtomicUsize::new(0),
            told_until: Mutex::default(),
            gave_way_until: Mutex::default(),
            down_since: Mutex::default(),
        }
    }

    /// The credentials that are not refused, in turn: each call begins with another one; else why they were.
    pub(super) fn accounts_in_turn(&self) -> Result<Vec<&Account>, Halt> {
        let start = self.next.fetch_add(1, Ordering::Relaxed) % self.accounts.len().max(1);
        let (before, from) = self.accounts.split_at(start);
        let live: Vec<_> = from.iter().chain(before).filter(|account| account.refused.get().is_none()).collect();
        if live.is_empty() {
            let why = self.accounts.iter().find_map(|account| account.refused.get());
            return Err(Halt::Setup(
                why.cloned().unwrap_or_else(|| format!("provider {} has no key", self.endpoint.name)),
            ));
        }
        Ok(live)
    }

    /// Those of `accounts` that are not broken; else how long all are left alone.
    pub(super) fn unbroken(accounts: Vec<&Account>, now: Instant) -> Result<Vec<&Account>, Duration> {
        let mut alone = Duration::MAX;
        let mut may =
            |account: &&Account| account.breaker.enter(now).inspect_err(|pause| alone = alone.min(*pause)).is_ok();
        let unbroken: Vec<_> = accounts.into_iter().filter(&mut may).collect();
        if unbroken.is_empty() { Err(alone) } else { Ok(unbroken) }
    }

    /// Uses a key that the provider refuses no more, and says what to do.
    pub(super) fn refuse(&self, account: &Account, error: &CallError) {
        let label = &account.credential.label;
        let advice = if account.credential.expose().is_empty() {
            format!("set api_key_env or api_key_file in providers.{}", self.endpoint.name)
        } else {
            format!("set a valid key in {label}")
        };
        if account.refused.set(format!("key {label} is refused: {}; {advice}", error.message)).is_ok() {
            tracing::warn!(key = %label, %error, "a key is refused and not used any more; {advice}");
        }
    }

    /// A call failed, since the provider is away.
    pub(super) fn fails(&self, now: Instant) {
        lock(&self.down_since).get_or_insert(now);
    }

    /// A call was answered.
    pub(super) fn answers(&self) {
        *lock(&self.down_since) = None;
    }

    /// How long the provider has answered nobody; zero: it does.
    pub(super) fn down_for(&self, now: Instant) -> Duration {
        lock(&self.down_since).map_or(Duration::ZERO, |since| now.duration_since(since))
    }

    /// Whether a back-off of `pause` is news: one call tells for all that wait meanwhile.
    pub(super) fn first_to_back_off(&self, pause: Duration) -> bool {
        is_news(&self.told_until, pause)
    }

    /// Whether it is news that its fallback is asked: told once in `pause`.
    pub(super) fn first_to_give_way(&self, pause: Duration) -> bool {
        is_news(&self.gave_way_until, pause)
    }

    /// The sentence for an address at which nothing has ever answered.
    pub(super) fn nothing_answers(&self, error: &CallError) -> String {
        let Endpoint { name, base_url, .. } = &self.endpoint;
        let cause = error.message.strip_prefix(&format!("{name}: ")).unwrap_or(&error.message);
        format!("{name}: nothing answers at {base_url} ({cause}); check providers.{name}.base_url")
    }
}

fn is_news(told_until: &Mutex<Option<Instant>>, pause: Duration) -> bool {
    let now = Instant::now();
    let mut until = lock(told_until);
    let news = until.is_none_or(|until| now >= until);
    if news {
        *until = Some(now + pause);
    }
    news
}

/// What a call may take of limits and money.
pub(super) struct Cost {
    /// Of the account's tokens per minute.
    pub(super) tokens: u64,
    /// Money at most.
    pub(super) bound: Nano,
    max_output: u32,
}

impl Cost {
    pub(super) fn of(line: &Line, request: &Request) -> Self {
        let max_output = line.endpoint.protocol.max_billed_output(request);
        let input = line.price.expected_tokens(request);
        let tokens = match line.endpoint.protocol {
            Protocol::Gemini => input,
            // OpenAI counts what was asked for, and never gives it back.
            Protocol::Openai => input.saturating_add(u64::from(max_output)),
        };
        Self { tokens, bound: line.price.upper_bound(request, max_output), max_output }
    }

    /// The account's tokens, once the usage is known.
    pub(super) fn settled_tokens(&self, protocol: Protocol, usage: &Usage) -> u64 {
        match protocol {
            _ if usage.input_tokens == 0 => self.tokens,
            Protocol::Gemini => usage.input_tokens,
            Protocol::Openai => usage.input_tokens.saturating_add(u64::from(self.max_output)),
        }
    }
}

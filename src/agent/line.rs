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
use crate::quota::Cut;
use crate::quota::gate::AccountSpec;

/// A call fails at least once in so long while somebody asks: twice the longest pause between two rounds of attempts.
const SILENCE: Duration = Duration::from_mins(20);

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
    /// From when to when every call of this process has failed.
    down: Mutex<Option<(Instant, Instant)>>,
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
    /// Until when it has been told that the provider allows less than was known.
    told_cut: Mutex<Option<Instant>>,
}

/// So long one cut of a limit speaks for those after it, with which the limit is looked for.
const CUTS_TOLD: Duration = Duration::from_hours(1);

impl Account {
    /// Says that the provider allows less than was known, where that is news.
    pub(super) fn tell_of(&self, cut: Cut) {
        if is_news(&self.told_cut, CUTS_TOLD) {
            let (account, per_minute, of) = (&self.spec.name, cut.per_minute, cut.of.name());
            tracing::warn!(%account, per_minute, "calls are refused: fewer {of} per minute are used, and bit by bit more; see [[limits]]");
        }
    }
}

impl Line {
    /// A model with its accounts.
    pub fn new(endpoint: Endpoint, price: Price, accounts: Vec<(Credential, AccountSpec)>) -> Self {
        let account = |(credential, spec)| Account {
            credential,
            spec,
            refused: OnceLock::new(),
            breaker: Breaker::default(),
            told_cut: Mutex::default(),
        };
        let accounts = accounts.into_iter().map(account).collect();
        Self {
            endpoint,
            price,
            accounts,
            next: AtomicUsize::new(0),
            told_until: Mutex::default(),
            gave_way_until: Mutex::default(),
            down: Mutex::default(),
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

    /// A call failed, since the provider is away. A time in which nobody asked is no outage: it begins anew.
    pub(super) fn fails(&self, now: Instant) {
        let mut down = lock(&self.down);
        let since = down.filter(|&(_, last)| now < last + SILENCE).map_or(now, |(since, _)| since);
        *down = Some((since, now));
    }

    /// A call was answered, if only with a refusal.
    pub(super) fn answers(&self) {
        *lock(&self.down) = None;
    }

    /// How long the provider has answered nobody; zero: it does, or nobody asks.
    pub(super) fn down_for(&self, now: Instant) -> Duration {
        let down = lock(&self.down).filter(|&(_, last)| now < last + SILENCE);
        down.map_or(Duration::ZERO, |(since, _)| now.duration_since(since))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn an_outage_ends_with_any_answer_and_with_a_time_in_which_nobody_asked() {
        let config = config::load(&[], &[]).unwrap().config;
        let price = config.prices.find(Protocol::Gemini, "gemini-2.5-flash").unwrap().clone();
        let line = Line::new(config.providers["gemini"].endpoint.clone(), price, Vec::new());
        let (start, minute) = (Instant::now(), Duration::from_mins(1));
        assert_eq!(line.down_for(start), Duration::ZERO);
        line.fails(start);
        line.fails(start + 10 * minute);
        assert_eq!(line.down_for(start + 12 * minute), 12 * minute);
        assert_eq!(line.down_for(start + 60 * minute), Duration::ZERO, "nobody asks");
        line.fails(start + 60 * minute);
        assert_eq!(line.down_for(start + 61 * minute), minute);
        line.answers();
        assert_eq!(line.down_for(start + 61 * minute), Duration::ZERO);
    }
}

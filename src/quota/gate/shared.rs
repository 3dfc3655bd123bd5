//! The gate of a fleet: quota and money in Redis, reserved together in one atomic step.
//!
//! The arithmetic is that of [`Account`], written again in Lua ([`shared.lua`](self)) as a function of the server's; a test holds
//! the two together over random histories. All of it lies under one hash tag. The clock is the server's: what comes back is a delay, so a worker's
//! own clock may be wrong. A reservation is a lease: a holder that dies gives back its place in the concurrency, and its call
//! counts at its worst case, as unconfirmed.
//!
//! Callers of one process ask in the order they came, gathered by a [clerk](clerk::Clerk) for each account; callers of several
//! processes in the order in which the server hears them.

mod clerk;
pub mod step;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use clerk::Clerk;
use step::{Answer, Books, Ceilings, Scope, Step};

use super::{AccountSpec, NoReservation, state_pause};
use crate::fault::Halt;
use crate::lock::lock;
use crate::price::Nano;
use crate::quota::clock::micros;
use crate::quota::desk::Hall;
use crate::quota::ledger::{End, Totals};
use crate::quota::{Account, Cut, Refusal, Why};
use crate::retry::jitter;
use crate::shared::{Redis, unique};
use crate::state::StateError;

/// The first pause between two looks whether a place in the concurrency, or money, has come free; it grows to 16 times that.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The accounts that one process calls with, for all its runs. Clones share them.
#[derive(Debug, Clone)]
pub struct Clerks {
    redis: Redis,
    by_account: Arc<Mutex<HashMap<String, Arc<Clerk>>>>,
    /// Begins the ids of this process's calls.
    process: Arc<str>,
    count: Arc<AtomicU64>,
}

impl Clerks {
    /// Of a process that keeps its quota and money in `redis`.
    pub fn new(redis: Redis) -> Self {
        Self { redis, by_account: Arc::default(), process: unique().into(), count: Arc::default() }
    }

    fn of(&self, spec: &AccountSpec) -> Arc<Clerk> {
        let mut clerks = lock(&self.by_account);
        if let Some(clerk) = clerks.get(&spec.name) {
            return Arc::clone(clerk);
        }
        let (redis, limits) = (self.redis.clone(), Account::new(spec.limits.clone()));
        let books = Books::new(redis.clone());
        let clerk = Arc::new(Clerk::new(redis, books, spec.name.clone(), limits, spec.concurrency.unwrap_or(0)));
        clerks.insert(spec.name.clone(), Arc::clone(&clerk));
        clerk
    }

    fn id(&self) -> String {
        format!("{}:{}", self.process, self.count.fetch_add(1, Ordering::Relaxed))
    }
}

/// What calls under way hold.
const PLACES: &str = "quota";
const BUDGET: &str = "budget";
/// How long a job is sent away that would have kept its slot for money that others hold.
const HELD: Duration = Duration::from_mins(10);

/// One run's part of a fleet's quota and money.
#[derive(Debug)]
pub struct Shared {
    clerks: Clerks,
    run: Arc<str>,
    ceilings: Ceilings,
    /// How long a call may take, with its appointment.
    lease: Duration,
    /// Since when calls of the run were told that what is left is reserved, and the cheapest of them.
    held: Mutex<Option<(Instant, Nano)>>,
    seen: Mutex<Totals>,
}

/// The right to make one attempt.
#[derive(Debug)]
pub(super) struct Taken {
    id: String,
    clerk: Arc<Clerk>,
}

/// What became of asking one account once.
enum Asked {
    Taken(Taken),
    Later(u64, Why),
    /// Places, or money, are held by calls under way.
    Busy(&'static str),
    Stopped,
}

impl Shared {
    /// The part of `run`; `lease` is the longest that one call takes.
    pub fn new(clerks: Clerks, run: &str, ceilings: Ceilings, lease: Duration) -> Self {
        Self { clerks, run: run.into(), ceilings, lease, held: Mutex::default(), seen: Mutex::default() }
    }

    pub(super) fn totals(&self) -> Totals {
        *lock(&self.seen)
    }

    /// See [`super::Gate::reserve_within`].
    pub(super) async fn reserve(
        &self,
        hall: &Hall,
        accounts: &[&AccountSpec],
        tokens: u64,
        bound: Nano,
        longest: Duration,
        stop: &CancellationToken,
    ) -> Result<(usize, Taken), NoReservation> {
        let mut rounds = 0;
        loop {
            hall.none_held(stop).await?;
            let mut earliest: Option<(u64, Why)> = None;
            let mut busy = None;
            // The one that is free first, as far as was heard; those that are free now stay in turn.
            let now = hall.clock.now();
            let mut clerks: Vec<_> = accounts.iter().map(|spec| self.clerks.of(spec)).enumerate().collect();
            clerks.sort_by_key(|(_, clerk)| clerk.free_at().max(now));
            for (index, clerk) in clerks {
                if let Some(why) = clerk.limits.refuses(tokens) {
                    return Err(NoReservation::Never(why));
                }
                match self.ask(hall, &clerk, (tokens, bound), stop).await? {
                    Asked::Taken(taken) => {
                        lock(&self.held).take_if(|(_, least)| bound >= *least);
                        return Ok((index, taken));
                    }
                    Asked::Later(at, why) if earliest.is_none_or(|(first, _)| at < first) => earliest = Some((at, why)),
                    Asked::Later(..) => {}
                    Asked::Busy(reason) => busy = Some(reason),
                    Asked::Stopped => return Err(Halt::Stopped.into()),
                }
            }
            if let Some(reason) = busy {
                // Some money may be held by the dead, whose leases are long: nobody keeps a slot for that.
                if reason == BUDGET {
                    let since = {
                        let mut held = lock(&self.held);
                        let (since, least) = held.unwrap_or_else(|| (Instant::now(), bound));
                        *held = Some((since, least.min(bound)));
                        since
                    };
                    if hall.max_wait.is_some_and(|longest| since.elapsed() > longest) {
                        return Err(held_by_others().into());
                    }
                }
                let pause = LOOK_AGAIN * (1 << rounds.min(4));
                hall.sleep_until(hall.clock.now() + micros(pause.mul_f64(0.5 + jitter())), stop).await?;
                rounds += 1;
                continue;
            }
            let Some((at, why)) = earliest else {
                return Err(Halt::Setup("a call has no account to be made with".to_owned()).into());
            };
            // Another account has no more money.
            if why != Why::DayBudget && hall.until(at) > longest {
                return Err(NoReservation::Away);
            }
            hall.wait(at, why, stop).await?;
        }
    }

    /// Asks one account until it gives an appointment that can be kept, or says when to come back.
    async fn ask(
        &self,
        hall: &Hall,
        clerk: &Arc<Clerk>,
        (tokens, bound): (u64, Nano),
        stop: &CancellationToken,
    ) -> Result<Asked, NoReservation> {
        loop {
            let (id, run, lease, ceilings) = (self.clerks.id(), Arc::clone(&self.run), self.lease, self.ceilings);
            let step = Step::Reserve { id: id.clone(), run, tokens, bound, lease, ceilings };
            // Asked under one id until there is an answer: a lost answer takes nothing twice.
            let (said, asked) = loop {
                let said = tokio::select! {
                    () = stop.cancelled() => return Ok(Asked::Stopped),
                    said = clerk.take(step.clone()) => said,
                };
                match said {
                    Ok(said) => break said,
                    Err(error) => state_pause(&error, stop).await?,
                }
            };
            let now = hall.clock.now();
            let at = match said.reserved() {
                Answer::Go { delay } => now + micros(delay),
                Answer::Later { delay, why } => {
                    clerk.is_free_at(now + micros(delay));
                    return Ok(Asked::Later(now + micros(delay), why));
                }
                Answer::Busy => return Ok(Asked::Busy(PLACES)),
                Answer::Reserved => return Ok(Asked::Busy(BUDGET)),
                Answer::Spent { scope: Scope::Day(rest), .. } => {
                    return Ok(Asked::Later(now + micros(rest), Why::DayBudget));
                }
                Answer::Spent { scope, spent } => return Err(Halt::Budget(self.too_little(scope, spent, bound)).into()),
            };
            clerk.is_free_at(at);
            let taken = Taken { id, clerk: Arc::clone(clerk) };
            // The delay counts from when the server answered. An answer that was long on its way may be late already.
            let tolerance = clerk.limits.tolerance();
            let late = is_limited(&clerk.limits) && micros(asked.elapsed()) > tolerance;
            let stopped = !late && hall.sleep_until(at, stop).await.is_err();
            let late = late || hall.clock.now() > at + tolerance;
            if !stopped && !late && *hall.held.borrow() == 0 {
                return Ok(Asked::Taken(taken));
            }
            self.give_back(taken, stop).await;
            if stopped {
                return Ok(Asked::Stopped);
            }
            hall.none_held(stop).await?;
        }
    }

    pub(super) async fn settle(&self, taken: Taken, tokens: u64, cost: Nano, end: End, stop: &CancellationToken) {
        while let Err(error) = self.settle_once(&taken, tokens, cost, end).await {
            if state_pause(&error, stop).await.is_err() {
                // The lease ends, and the call counts at its worst case: the ceiling holds.
                tracing::warn!(%error, "a call could not be settled and counts at its worst case");
                self.see(cost, end);
                return;
            }
        }
    }

    /// See [`super::Gate::settle_beside`].
    pub(super) async fn settle_once(&self, taken: &Taken, tokens: u64, cost: Nano, end: End) -> Result<(), StateError> {
        let (id, run) = (taken.id.clone(), Arc::clone(&self.run));
        taken.clerk.take(Step::Settle { id, run, tokens, cost, end }).await?;
        self.see(cost, end);
        Ok(())
    }

    fn see(&self, cost: Nano, end: End) {
        let mut seen = lock(&self.seen);
        seen.calls += 1;
        seen.spent = seen.spent.saturating_add(cost);
        if end == End::Unconfirmed {
            seen.unconfirmed = seen.unconfirmed.saturating_add(cost);
        }
    }

    pub(super) async fn give_back(&self, taken: Taken, stop: &CancellationToken) {
        let back = Step::Back { id: taken.id, run: Arc::clone(&self.run) };
        while let Err(error) = taken.clerk.take(back.clone()).await {
            if state_pause(&error, stop).await.is_err() {
                tracing::warn!(%error, "a call that was not sent could not be taken back and counts at its worst case");
                return;
            }
        }
    }

    pub(super) async fn pause(&self, spec: &AccountSpec, pause: Duration) {
        told(self.clerks.of(spec).take(Step::Pause(pause)).await);
    }

    pub(super) async fn refused(&self, spec: &AccountSpec, pause: Duration, refusal: Refusal) -> Option<Cut> {
        told(self.clerks.of(spec).take(Step::Refused(pause, refusal)).await)?.cut()
    }

    pub(super) async fn park(&self, spec: &AccountSpec, hint: Option<Duration>) {
        // The provider knows its own day best.
        let step = hint.map_or(Step::Park, Step::Pause);
        told(self.clerks.of(spec).take(step).await);
    }

    pub(super) async fn absence(&self, spec: &AccountSpec, stop: &CancellationToken) -> Result<Duration, Halt> {
        loop {
            match self.clerks.of(spec).take(Step::Away).await {
                Ok((said, _)) => return Ok(said.absence()),
                Err(error) => state_pause(&error, stop).await?,
            }
        }
    }

    fn too_little(&self, scope: Scope, spent: Nano, bound: Nano) -> String {
        let (whose, ceiling, out) = match scope {
            Scope::Run => (format!("of run {:?}", self.run), self.ceilings.run, "--budget-usd of aurelia-producer"),
            _ => ("of all runs together".to_owned(), self.ceilings.all, "budget.total_usd"),
        };
        let ceiling = ceiling.unwrap_or_default();
        format!(
            "the budget {whose} does not allow the next call: {spent} of {ceiling} are used and it may cost up to {bound}; \
             raise {out} to {} or more",
            spent.saturating_add(bound)
        )
    }
}

/// What is left is reserved for calls under way, of which some may be dead.
fn held_by_others() -> Halt {
    let until = jiff::Timestamp::now().saturating_add(HELD).unwrap_or(jiff::Timestamp::MAX);
    let why = "all money that is left is reserved for calls under way".to_owned();
    Halt::Wait { reason: BUDGET, until, why }
}

/// Whether when a call leaves matters to anybody.
fn is_limited(account: &Account) -> bool {
    let limits = account.limits();
    limits.requests_per_minute.is_some() || limits.tokens_per_minute.is_some() || limits.requests_per_day.is_some()
}

/// What cannot be told to the fleet is found out again by the next one who asks the provider.
fn told(told: Result<clerk::Heard, StateError>) -> Option<step::Said> {
    let told = told.inspect_err(|error| tracing::warn!(%error, "the fleet could not be told that an account is away"));
    Some(told.ok()?.0)
}

//! The gate of a fleet: quota and money in Redis, reserved together in one atomic step.
//!
//! The arithmetic is that of [`Account`], written again in a script ([`shared.lua`](self)); a test holds the two together over
//! random histories. All of it lies under one hash tag. The clock is the server's: what comes back is a delay, so a worker's
//! own clock may be wrong. A reservation is a lease: a holder that dies gives back its place in the concurrency, and its call
//! counts at its worst case, as unconfirmed.
//!
//! Callers of one process ask in the order they came, a few at a time; callers of several processes in the order in which
//! the server hears them.

pub mod step;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use step::{Answer, Books, Call, Scope};

use super::{AccountSpec, NoReservation, state_pause};
use crate::fault::Halt;
use crate::lock::lock;
use crate::price::Nano;
use crate::quota::clock::micros;
use crate::quota::desk::Hall;
use crate::quota::ledger::{End, Totals};
use crate::quota::{Account, Why};
use crate::retry::jitter;
use crate::shared::unique;
use crate::state::StateError;

/// Callers of one account that ask at once: enough to use a server that takes milliseconds to write.
const ASK_AT_ONCE: usize = 16;
/// The first pause between two looks whether a place in the concurrency, or money, has come free; it grows to 16 times that.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// One run's part of a fleet's quota and money.
#[derive(Debug)]
pub struct Shared {
    books: Books,
    run: String,
    /// The run's ceiling, and that of all runs together.
    ceilings: Mutex<(Option<Nano>, Option<Nano>)>,
    /// How long a call may take, with its appointment.
    lease: Duration,
    desks: Mutex<HashMap<String, Arc<Desk>>>,
    seen: Mutex<Totals>,
    /// Begins the ids of this gate's calls.
    process: String,
    count: AtomicU64,
}

/// One account as this process sees it.
#[derive(Debug)]
struct Desk {
    name: String,
    limits: Account,
    concurrency: u32,
    turn: Semaphore,
}

impl Desk {
    /// Whether when a call leaves matters to anybody.
    fn is_limited(&self) -> bool {
        let limits = self.limits.limits();
        limits.requests_per_minute.is_some() || limits.tokens_per_minute.is_some() || limits.requests_per_day.is_some()
    }
}

/// The right to make one attempt.
#[derive(Debug)]
pub(super) struct Taken {
    id: String,
    desk: Arc<Desk>,
}

/// What became of asking one account once.
enum Asked {
    Taken(Taken),
    Later(u64, Why),
    Stopped,
}

impl Shared {
    /// The part of `run`; `lease` is the longest that one call takes.
    pub fn new(books: Books, run: impl Into<String>, ceilings: (Option<Nano>, Option<Nano>), lease: Duration) -> Self {
        Self {
            books,
            run: run.into(),
            ceilings: Mutex::new(ceilings),
            lease,
            desks: Mutex::default(),
            seen: Mutex::default(),
            process: unique(),
            count: AtomicU64::new(0),
        }
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
        let mut busy = 0;
        loop {
            hall.none_held(stop).await?;
            let mut earliest: Option<(u64, Why)> = None;
            for (index, spec) in accounts.iter().enumerate() {
                let desk = self.desk(spec);
                if let Some(why) = desk.limits.refuses(tokens) {
                    return Err(NoReservation::Never(why));
                }
                match self.ask(hall, &desk, (tokens, bound), busy, stop).await? {
                    Asked::Taken(taken) => return Ok((index, taken)),
                    Asked::Later(at, why) if earliest.is_none_or(|(first, _)| at < first) => earliest = Some((at, why)),
                    Asked::Later(..) => {}
                    Asked::Stopped => return Err(Halt::Stopped.into()),
                }
            }
            let Some((at, why)) = earliest else {
                return Err(Halt::Setup("a call has no account to be made with".to_owned()).into());
            };
            if hall.until(at) > longest {
                return Err(NoReservation::Away);
            }
            hall.wait(at, why, stop).await?;
            busy += 1;
        }
    }

    /// Asks one account until it gives an appointment that can be kept, or says when to come back.
    async fn ask(
        &self,
        hall: &Hall,
        desk: &Arc<Desk>,
        (tokens, bound): (u64, Nano),
        busy: u32,
        stop: &CancellationToken,
    ) -> Result<Asked, NoReservation> {
        loop {
            let number = self.count.fetch_add(1, Ordering::Relaxed);
            let id = format!("{}:{number}", self.process);
            let ceilings = *lock(&self.ceilings);
            let call =
                Call { id: &id, run: &self.run, account: &desk.name, tokens, bound, lease: self.lease, ceilings };
            let (asked, answer) = {
                let turn = tokio::select! {
                    () = stop.cancelled() => return Ok(Asked::Stopped),
                    turn = desk.turn.acquire() => turn,
                };
                let asked = hall.clock.now();
                // Asked under one id until there is an answer: a lost answer takes nothing twice.
                let answer = loop {
                    match self.books.reserve(&desk.limits, desk.concurrency, &call).await {
                        Ok(answer) => break answer,
                        Err(error) => state_pause(&error, stop).await?,
                    }
                };
                drop(turn);
                (asked, answer)
            };
            let now = hall.clock.now();
            let at = match answer {
                Answer::Go { delay } => now + micros(delay),
                Answer::Later { delay, why } => return Ok(Asked::Later(now + micros(delay), why)),
                Answer::Busy => {
                    let pause = LOOK_AGAIN * (1 << busy.min(4));
                    return Ok(Asked::Later(now + micros(pause.mul_f64(0.5 + jitter())), Why::Horizon));
                }
                Answer::Spent { scope, spent } => return Err(Halt::Budget(self.too_little(scope, spent, bound)).into()),
            };
            let taken = Taken { id, desk: Arc::clone(desk) };
            // The delay counts from when the server answered. An answer that was long on its way may be late already.
            let late = desk.is_limited() && now > asked + desk.limits.tolerance();
            let stopped = !late && hall.sleep_until(at, stop).await.is_err();
            let late = late || hall.clock.now() > at + desk.limits.tolerance();
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
        {
            let mut seen = lock(&self.seen);
            seen.calls += 1;
            seen.spent = seen.spent.saturating_add(cost);
            if end == End::Unconfirmed {
                seen.unconfirmed = seen.unconfirmed.saturating_add(cost);
            }
        }
        while let Err(error) =
            self.books.settle(&taken.desk.limits, &taken.desk.name, &taken.id, tokens, cost, end).await
        {
            if state_pause(&error, stop).await.is_err() {
                // The lease ends, and the call counts at its worst case: the ceiling holds.
                tracing::warn!(%error, "a call could not be settled and counts at its worst case");
                return;
            }
        }
    }

    pub(super) async fn give_back(&self, taken: Taken, stop: &CancellationToken) {
        while let Err(error) = self.books.give_back(&taken.desk.limits, &taken.desk.name, &taken.id).await {
            if state_pause(&error, stop).await.is_err() {
                tracing::warn!(%error, "a call that was not sent could not be taken back and counts at its worst case");
                return;
            }
        }
    }

    pub(super) async fn pause(&self, spec: &AccountSpec, pause: Duration) {
        let desk = self.desk(spec);
        told(self.books.pause(&desk.limits, &desk.name, pause).await);
    }

    pub(super) async fn park(&self, spec: &AccountSpec, hint: Option<Duration>) {
        let desk = self.desk(spec);
        let outcome = match hint {
            // The provider knows its own day best.
            Some(hint) => self.books.pause(&desk.limits, &desk.name, hint).await,
            None => self.books.park(&desk.limits, &desk.name).await,
        };
        told(outcome);
    }

    pub(super) async fn absence(&self, spec: &AccountSpec, stop: &CancellationToken) -> Result<Duration, Halt> {
        let desk = self.desk(spec);
        loop {
            match self.books.absence(&desk.limits, &desk.name).await {
                Ok(absence) => return Ok(absence),
                Err(error) => state_pause(&error, stop).await?,
            }
        }
    }

    fn too_little(&self, scope: Scope, spent: Nano, bound: Nano) -> String {
        let ceilings = lock(&self.ceilings);
        let (whose, ceiling, out) = match scope {
            Scope::Run => (format!("of run {:?}", self.run), ceilings.0, "--budget-usd of aurelia-producer"),
            Scope::All => ("of all runs together".to_owned(), ceilings.1, "budget.total_usd"),
        };
        let ceiling = ceiling.unwrap_or_default();
        format!(
            "the budget {whose} does not allow the next call: {spent} of {ceiling} are used and it may cost up to {bound}; \
             raise {out} to {} or more",
            spent.saturating_add(bound)
        )
    }

    fn desk(&self, spec: &AccountSpec) -> Arc<Desk> {
        let mut desks = lock(&self.desks);
        let desk = desks.entry(spec.name.clone()).or_insert_with(|| {
            Arc::new(Desk {
                name: spec.name.clone(),
                limits: Account::new(spec.limits.clone()),
                concurrency: spec.concurrency.unwrap_or(0),
                turn: Semaphore::new(ASK_AT_ONCE),
            })
        });
        Arc::clone(desk)
    }
}

/// What cannot be told to the fleet is found out again by the next one who asks the provider.
fn told(told: Result<(), StateError>) {
    if let Err(error) = told {
        tracing::warn!(%error, "the fleet could not be told that an account is away");
    }
}

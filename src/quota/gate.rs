//! The gate every attempt of every call passes: money, then an appointment under all limits, all or nothing.
//!
//! ```text
//! Gate       what is common: who waits for what, and that nothing starts while a paid reply is not stored
//! embedded   one machine: purse and accounts in memory, the ledger in its state
//! shared     a fleet: all of it in one atomic step at Redis
//! ```
//!
//! Money is reserved at the call's upper bound, so that what is in flight can never pass the ceiling. Of several accounts that
//! may make a call the first that is not away for long is taken, so that one whose day is used up holds nobody back while
//! another is free. When the store cannot be asked there is no reservation and so no call: quota and budget fail closed.

mod embedded;
#[cfg(feature = "fleet")]
pub mod shared;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use embedded::Embedded;

pub use super::desk::{Hall, Wait};
use super::ledger::{End, Ledger, Settlement, Totals};
pub use super::purse::Ceilings;
use super::{Cut, Limits, Refusal};
use crate::fault::Halt;
use crate::price::Nano;
use crate::state::StateError;

/// Between attempts to write a state that fails.
const STATE_RETRY: Duration = Duration::from_secs(1);

/// Who is asked with which key for which model: what a provider's limits apply to.
#[derive(Debug, Clone, PartialEq)]
pub struct AccountSpec {
    /// `PROVIDER/CREDENTIAL/MODEL`.
    pub name: String,
    /// What the configuration says of it.
    pub limits: Limits,
    /// Calls in flight at once.
    pub concurrency: Option<u32>,
}

/// The gate of one run.
#[derive(Debug)]
pub struct Gate {
    hall: Arc<Hall>,
    books: Books,
}

#[derive(Debug)]
enum Books {
    Embedded(Embedded),
    #[cfg(feature = "fleet")]
    Shared(shared::Shared),
}

/// The right to make one attempt. To be settled; dropped, it counts at its worst case.
#[derive(Debug)]
pub struct Reservation(Taken);

#[derive(Debug)]
enum Taken {
    Embedded(embedded::Taken),
    #[cfg(feature = "fleet")]
    Shared(shared::Taken),
}

/// Why there is no reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoReservation {
    /// The run ends.
    Halt(Halt),
    /// The request is larger than the limit itself: the item fails.
    Never(String),
    /// All accounts are away for longer than the caller would wait.
    Away,
}

impl From<Halt> for NoReservation {
    fn from(halt: Halt) -> Self {
        Self::Halt(halt)
    }
}

impl Reservation {
    /// What the journal writes of its end together with its reply, where both are in one store.
    pub fn settlement(&self, tokens: u64, cost: Nano, end: End) -> Option<Settlement> {
        match &self.0 {
            Taken::Embedded(taken) => Some(taken.settlement(tokens, cost, end)),
            #[cfg(feature = "fleet")]
            Taken::Shared(_) => None,
        }
    }
}

impl Gate {
    /// A gate over a ledger; `ceilings` are the run's over all its restarts.
    pub async fn open(ledger: Ledger, ceilings: Ceilings, max_wait: Option<Duration>) -> Result<Self, StateError> {
        let hall = Arc::new(Hall::new(max_wait));
        let books = Books::Embedded(Embedded::open(ledger, ceilings, Arc::clone(&hall)).await?);
        Ok(Self { hall, books })
    }

    /// A fleet's gate for one run. All gates of a process share a hall.
    #[cfg(feature = "fleet")]
    pub fn shared(books: shared::Shared, hall: Arc<Hall>) -> Self {
        Self { hall, books: Books::Shared(books) }
    }

    /// What the run has cost, calls in flight left out; what this process has seen of it, in a fleet.
    pub fn totals(&self) -> Totals {
        match &self.books {
            Books::Embedded(books) => books.totals(),
            #[cfg(feature = "fleet")]
            Books::Shared(books) => books.totals(),
        }
    }

    /// The longest wait under way, for those who show it.
    pub fn waiting(&self) -> watch::Receiver<Option<Wait>> {
        self.hall.waiting.subscribe()
    }

    /// Waits until one attempt of `tokens`, costing at most `bound`, may leave, which is now when it returns. Any of
    /// `accounts` may make it: the first one that is not away for long; only when all are, it waits for the earliest.
    /// Returns which one with its reservation.
    ///
    /// Cancel safety: dropped before it returns, it may count at its worst case.
    pub async fn reserve(
        &self,
        accounts: &[&AccountSpec],
        tokens: u64,
        bound: Nano,
        stop: &CancellationToken,
    ) -> Result<(usize, Reservation), NoReservation> {
        self.reserve_within(accounts, tokens, bound, Duration::MAX, stop).await
    }

    /// The same for a caller that can do something else where all `accounts` are away for more than `longest`: it is told so
    /// ([`NoReservation::Away`]), also when that turns out while it waits.
    pub async fn reserve_within(
        &self,
        accounts: &[&AccountSpec],
        tokens: u64,
        bound: Nano,
        longest: Duration,
        stop: &CancellationToken,
    ) -> Result<(usize, Reservation), NoReservation> {
        Ok(match &self.books {
            Books::Embedded(books) => {
                let (chosen, taken) = books.reserve(accounts, tokens, bound, longest, stop).await?;
                (chosen, Reservation(Taken::Embedded(taken)))
            }
            #[cfg(feature = "fleet")]
            Books::Shared(books) => {
                let (chosen, taken) = books.reserve(&self.hall, accounts, tokens, bound, longest, stop).await?;
                (chosen, Reservation(Taken::Shared(taken)))
            }
        })
    }

    /// The end of an attempt that brought no reply. `cost` counts as `unconfirmed` where `end` says so. Returns when it is
    /// written, or the run stops.
    pub async fn settle(&self, reservation: Reservation, tokens: u64, cost: Nano, end: End, stop: &CancellationToken) {
        match (&self.books, reservation.0) {
            (Books::Embedded(books), Taken::Embedded(taken)) => books.settle(taken, tokens, cost, end, stop).await,
            #[cfg(feature = "fleet")]
            (Books::Shared(books), Taken::Shared(taken)) => books.settle(taken, tokens, cost, end, stop).await,
            #[cfg(feature = "fleet")]
            (_, reservation) => drop(reservation),
        }
    }

    /// Settles an attempt while its reply is being stored, once: a fleet's two steps need not wait for each other. Whether it is
    /// settled; where journal and ledger are one store it is settled with the reply.
    #[cfg_attr(not(feature = "fleet"), expect(clippy::unused_async, reason = "a fleet's is told to Redis"))]
    pub async fn settle_beside(&self, reservation: &Reservation, tokens: u64, cost: Nano, end: End) -> bool {
        match (&self.books, &reservation.0) {
            #[cfg(feature = "fleet")]
            (Books::Shared(books), Taken::Shared(taken)) => books.settle_once(taken, tokens, cost, end).await.is_ok(),
            _ => {
                let _ = (tokens, cost, end);
                false
            }
        }
    }

    /// The end of an attempt whose reply is stored, with what [`Reservation::settlement`] gave.
    #[cfg_attr(not(feature = "fleet"), expect(clippy::unused_async, reason = "a fleet's is told to Redis"))]
    pub async fn close(&self, reservation: Reservation, tokens: u64, cost: Nano, end: End, stop: &CancellationToken) {
        match reservation.0 {
            Taken::Embedded(taken) => taken.close(tokens, cost, end),
            #[cfg(feature = "fleet")]
            shared => self.settle(Reservation(shared), tokens, cost, end, stop).await,
        }
        #[cfg(not(feature = "fleet"))]
        let _ = stop;
    }

    /// Gives back a reservation with which nothing was sent. Returns when it is written, or the run stops.
    pub async fn give_back(&self, reservation: Reservation, stop: &CancellationToken) {
        match (&self.books, reservation.0) {
            (Books::Embedded(books), Taken::Embedded(taken)) => books.give_back(taken, stop).await,
            #[cfg(feature = "fleet")]
            (Books::Shared(books), Taken::Shared(taken)) => books.give_back(taken, stop).await,
            #[cfg(feature = "fleet")]
            (_, reservation) => drop(reservation),
        }
    }

    /// Keeps new calls from starting while a paid reply is not stored; ends when dropped.
    pub fn holding(&self) -> Holding<'_> {
        self.hall.held.send_modify(|held| *held += 1);
        Holding(self)
    }

    /// How many paid replies are not stored.
    pub fn held(&self) -> usize {
        *self.hall.held.borrow()
    }

    /// The provider asks this account to wait.
    pub async fn pause(&self, spec: &AccountSpec, pause: Duration) {
        match &self.books {
            Books::Embedded(books) => books.pause(spec, pause).await,
            #[cfg(feature = "fleet")]
            Books::Shared(books) => books.pause(spec, pause).await,
        }
    }

    /// The provider refuses a call as too fast: the account waits, and what that says of its limits is learned. Says which
    /// limit that cuts.
    pub async fn refused(&self, spec: &AccountSpec, pause: Duration, refusal: Refusal) -> Option<Cut> {
        match &self.books {
            Books::Embedded(books) => books.refused(spec, pause, refusal).await,
            #[cfg(feature = "fleet")]
            Books::Shared(books) => books.refused(spec, pause, refusal).await,
        }
    }

    /// The provider says that the day's requests are used up.
    pub async fn park(&self, spec: &AccountSpec, hint: Option<Duration>) {
        match &self.books {
            Books::Embedded(books) => books.park(spec, hint).await,
            #[cfg(feature = "fleet")]
            Books::Shared(books) => books.park(spec, hint).await,
        }
    }

    /// How long an account is away from now on, as far as is known; zero when it takes calls, or a queue for them.
    pub async fn absence(&self, spec: &AccountSpec, stop: &CancellationToken) -> Result<Duration, Halt> {
        match &self.books {
            Books::Embedded(books) => books.absence(spec, stop).await,
            #[cfg(feature = "fleet")]
            Books::Shared(books) => books.absence(spec, stop).await,
        }
    }

    /// The longest wait that the user allows; none: any.
    pub fn max_wait(&self) -> Option<Duration> {
        self.hall.max_wait
    }
}

/// See [`Gate::holding`].
#[derive(Debug)]
pub struct Holding<'a>(&'a Gate);

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        self.0.hall.held.send_modify(|held| *held -= 1);
    }
}

async fn state_pause(error: &StateError, stop: &CancellationToken) -> Result<(), Halt> {
    tracing::warn!(%error, "the state cannot be used; no call is made until it can");
    tokio::select! {
        () = stop.cancelled() => Err(Halt::Stopped),
        () = tokio::time::sleep(STATE_RETRY) => Ok(()),
    }
}

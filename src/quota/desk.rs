//! One account's queue, and what all queues share.
//!
//! One caller at a time asks an account, in the order of arrival (a fair lock), and waits at the front until there is an
//! appointment: nobody polls and nobody overtakes. An appointment that was missed is given back and asked for again. When
//! the account turns out to be away for long, nobody waits here: the caller is sent back to choose again, and holds
//! neither a slot nor money meanwhile.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::clock::{Clock, timestamp};
use super::{Account, Answer, Appointment, LONGEST_ABSENCE, Why};
use crate::fault::Halt;
use crate::lock::lock;

/// Waits shorter than this are not worth telling anybody.
const WORTH_TELLING: Duration = Duration::from_secs(5);

/// A wait long enough to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// Until when.
    pub until: jiff::Timestamp,
    /// For what, in one sentence.
    pub why: String,
}

/// What all queues share: the clock, and who waits for what.
#[derive(Debug)]
pub struct Hall {
    pub(super) clock: Clock,
    pub(super) max_wait: Option<Duration>,
    pub(super) waiting: watch::Sender<Option<Wait>>,
    /// Replies that were paid for and are not stored yet: while there are any, no call starts.
    pub(super) held: watch::Sender<usize>,
}

/// One account's queue.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) account: Mutex<Account>,
    turn: tokio::sync::Mutex<()>,
    /// Calls in flight at once.
    pub(super) slots: Option<Arc<Semaphore>>,
}

/// Why there is no appointment.
pub(super) enum NoAppointment {
    Never(String),
    Halt(Halt),
    /// The account is away for long.
    Away,
}

impl From<Halt> for NoAppointment {
    fn from(halt: Halt) -> Self {
        Self::Halt(halt)
    }
}

impl Desk {
    pub(super) fn new(account: Account, concurrency: Option<u32>) -> Self {
        let slots = concurrency.map(|n| Arc::new(Semaphore::new(n as usize)));
        Self { account: Mutex::new(account), turn: tokio::sync::Mutex::default(), slots }
    }

    /// Waits for an appointment and its time.
    pub(super) async fn appoint(
        &self,
        hall: &Hall,
        tokens: u64,
        stop: &CancellationToken,
    ) -> Result<Appointment, NoAppointment> {
        loop {
            let appointment = {
                let _turn = tokio::select! {
                    () = stop.cancelled() => return Err(NoAppointment::Halt(Halt::Stopped)),
                    turn = self.turn.lock() => turn,
                };
                self.first_in_line(hall, tokens, stop).await?
            };
            let stopped = hall.sleep_until(appointment.at, stop).await;
            {
                let mut account = lock(&self.account);
                let held = *hall.held.borrow() > 0;
                if stopped.is_ok() && !held && !account.missed(&appointment, hall.clock.now()) {
                    return Ok(appointment);
                }
                account.give_back(&appointment);
            }
            stopped?;
            hall.none_held(stop).await?;
        }
    }

    async fn first_in_line(
        &self,
        hall: &Hall,
        tokens: u64,
        stop: &CancellationToken,
    ) -> Result<Appointment, NoAppointment> {
        loop {
            let now = hall.clock.now();
            let answer = lock(&self.account).appoint(now, tokens);
            match answer {
                Answer::Go(appointment) => return Ok(appointment),
                Answer::Never { why } => return Err(NoAppointment::Never(why)),
                Answer::Later { at, why: Why::Horizon } if at <= now + LONGEST_ABSENCE => {
                    hall.wait(at, Why::Horizon, stop).await?;
                }
                Answer::Later { .. } => return Err(NoAppointment::Away),
            }
        }
    }
}

impl Hall {
    /// With nobody in it; `max_wait`: the longest wait that the user allows.
    pub fn new(max_wait: Option<Duration>) -> Self {
        Self { clock: Clock::start(), max_wait, waiting: watch::channel(None).0, held: watch::channel(0).0 }
    }

    /// Waits until `at`; tells of it when it is long, and refuses when it is longer than the user wants.
    pub(super) async fn wait(&self, at: u64, why: Why, stop: &CancellationToken) -> Result<(), Halt> {
        let (reason, text) = match why {
            Why::DayQuota => ("quota", "the day's quota is used up"),
            Why::DayBudget => ("budget", "the day's money is spent (budget.per_day_usd)"),
            Why::Paused => ("quota", "the provider asks for a pause"),
            Why::Horizon => ("quota", "the account's limits are used up"),
        };
        // The queue of a busy account is no wait to speak of.
        let queues = why == Why::Horizon && self.until(at) < WORTH_TELLING;
        if !queues {
            self.tell(at, reason, text)?;
        }
        self.sleep_until(at, stop).await
    }

    /// Waits until every reply that was paid for is stored.
    pub(super) async fn none_held(&self, stop: &CancellationToken) -> Result<(), Halt> {
        let mut held = self.held.subscribe();
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(Halt::Stopped),
            // The sender is the gate's own: there is no error to meet.
            _ = held.wait_for(|held| *held == 0) => Ok(()),
        }
    }

    /// Tells of a long wait, or refuses one longer than the user wants.
    fn tell(&self, at: u64, reason: &'static str, why: &str) -> Result<(), Halt> {
        let (wait, until) = (self.until(at), timestamp(at));
        if self.max_wait.is_some_and(|max| wait > max) {
            let why = format!(
                "{why} until {until:.0}, which is later than --max-wait allows; run the same command again then"
            );
            return Err(Halt::Wait { reason, until, why });
        }
        if wait >= WORTH_TELLING {
            self.waiting.send_if_modified(|told| {
                let news = told.as_ref().is_none_or(|told| until.duration_since(told.until).as_secs() > 1);
                if news {
                    *told = Some(Wait { until, why: why.to_owned() });
                }
                news
            });
        }
        Ok(())
    }

    /// From now until `at`.
    pub(super) fn until(&self, at: u64) -> Duration {
        Duration::from_micros(at.saturating_sub(self.clock.now()))
    }

    pub(super) async fn sleep_until(&self, at: u64, stop: &CancellationToken) -> Result<(), Halt> {
        // A timer takes its millisecond even where there is nothing to wait for.
        if at <= self.clock.now() {
            return if stop.is_cancelled() { Err(Halt::Stopped) } else { Ok(()) };
        }
        tokio::select! {
            () = stop.cancelled() => Err(Halt::Stopped),
            () = tokio::time::sleep_until(self.clock.instant(at)) => Ok(()),
        }
    }
}

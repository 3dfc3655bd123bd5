//! The right to make one attempt, and why there may be none.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::Appointment;
use super::desk::Desk;
use super::gate::lock;
use super::ledger::{End, Settlement};
use super::purse::{Hold, Sent};
use crate::fault::Halt;
use crate::price::Nano;

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

/// The right to make one attempt. To be settled; dropped, it counts at its worst case.
#[derive(Debug)]
pub struct Reservation {
    /// The ledger's row.
    pub(super) id: i64,
    pub(super) appointment: Appointment,
    pub(super) desk: Arc<Desk>,
    pub(super) hold: Hold,
    pub(super) slot: Option<OwnedSemaphorePermit>,
}

impl Reservation {
    /// What to write of its end.
    pub fn settlement(&self, tokens: u64, cost: Nano, end: End) -> Settlement {
        Settlement { id: self.id, sent_at: self.appointment.at, tokens, cost, end }
    }

    /// Takes over what was written: the account's tokens, the purse's money.
    pub fn close(self, tokens: u64, cost: Nano, end: End) {
        lock(&self.desk.account).settle(&self.appointment, tokens);
        self.hold.release(Sent::Yes, cost, end);
    }
}

//! From a request that is handed over to the right to send it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Handed;
use crate::agent::caller::{NoReply, away};
use crate::agent::line::{Account, Cost};
use crate::quota::gate::{Gate, NoReservation, Reservation};

impl<'a> Handed<'a> {
    /// Waits until it may be sent, and says by whom. None: it is to be handed over again, since the key that has its files is
    /// away for long, or a file came near its end while it waited; nothing is reserved then. `longest`: who else can be asked is
    /// asked where all are away for longer, and this is the provider's failure.
    ///
    /// Cancel safety: that of [`Gate::reserve`].
    pub(in crate::agent) async fn reserve(
        &self,
        gate: &Gate,
        cost: &Cost,
        longest: Option<Duration>,
        stop: &CancellationToken,
    ) -> Result<Option<(&'a Account, Reservation)>, NoReply> {
        let specs: Vec<_> = self.accounts.iter().map(|account| &account.spec).collect();
        // With files at one key of several it is left for another one first.
        let longest = longest.filter(|_| self.longest == Duration::MAX);
        let within = longest.unwrap_or(self.longest);
        match gate.reserve_within(&specs, cost.tokens, cost.bound, within, stop).await {
            Ok((chosen, reservation)) if self.is_good() => Ok(Some((self.accounts[chosen], reservation))),
            Ok((_, reservation)) => {
                gate.give_back(reservation, stop).await;
                Ok(None)
            }
            Err(NoReservation::Away) if longest.is_some() => Err(away()),
            Err(NoReservation::Away) => Ok(None),
            Err(NoReservation::Halt(halt)) => Err(NoReply::Halt(halt)),
            Err(NoReservation::Never(why)) => Err(NoReply::Refused(why)),
        }
    }

    /// Whether all its files can still be used.
    fn is_good(&self) -> bool {
        self.uploaded.iter().all(|(file, uri)| file.is_at(uri))
    }
}

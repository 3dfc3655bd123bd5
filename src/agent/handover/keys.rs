//! Which keys a call with uploaded clips may be made with, and how long it waits for one of them.
//!
//! Files belong to one key, so going to another one costs an upload. That is worth it where the key that has the files is away
//! for long (its day is used up, its provider asks for a long pause) and not for a wait that an upload would take as well. The
//! same holds where all are away: the one that has the files is waited for unless another is back much earlier.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::agent::line::Account;
use crate::fault::Halt;
use crate::quota::gate::Gate;

/// A clip is not uploaded for another key to save a wait as short as this.
const WORTH_AN_UPLOAD: Duration = Duration::from_secs(30);
/// Absences are looked at twice, a little apart.
const SLACK: Duration = Duration::from_secs(1);

/// Keys worth waiting for.
pub(super) struct Near<'a> {
    /// Those that are back first come first; of equal ones in turn.
    pub(super) accounts: Vec<&'a Account>,
    /// A longer wait than this is a reason to choose again.
    pub(super) longest: Duration,
}

/// Of these keys those that are worth waiting for.
pub(super) async fn near<'a>(
    accounts: Vec<&'a Account>,
    gate: &Gate,
    stop: &CancellationToken,
) -> Result<Near<'a>, Halt> {
    if accounts.len() < 2 {
        return Ok(Near { accounts, longest: Duration::MAX });
    }
    let mut away = Vec::with_capacity(accounts.len());
    for account in accounts {
        away.push((gate.absence(&account.spec, stop).await?, account));
    }
    away.sort_by_key(|(absence, _)| *absence);
    let earliest = away.first().map_or(Duration::ZERO, |(absence, _)| *absence);
    let longest = longest(earliest, gate.max_wait());
    let accounts = away.into_iter().filter(|(absence, _)| *absence <= longest).map(|(_, account)| account);
    Ok(Near { accounts: accounts.collect(), longest: longest.saturating_add(SLACK) })
}

/// How long a key may be away and is still waited for, where the first of them is back after `earliest`: never so long that
/// it would end the run while another key would not.
fn longest(earliest: Duration, max_wait: Option<Duration>) -> Duration {
    let patient = earliest.saturating_add(WORTH_AN_UPLOAD);
    max_wait.map_or(patient, |max| patient.min(max)).max(earliest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_worth_a_long_wait_and_no_short_one() {
        let seconds = Duration::from_secs;
        for (earliest, max_wait, expected) in [
            (0, None, 30),
            (3600, None, 3630),
            (0, Some(600), 30),
            (0, Some(10), 10),
            (5, Some(10), 10),
            (3600, Some(10), 3600),
        ] {
            let found = longest(seconds(earliest), max_wait.map(seconds));
            assert_eq!(found, seconds(expected), "earliest {earliest}, max {max_wait:?}");
        }
    }
}

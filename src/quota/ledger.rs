//! The ledger: one row per call, written before it is sent and settled after.
//!
//! A row is open from before the call until its end is known. A process that finds open rows at its start knows that a
//! kill ended them unseen, and settles them at their worst case as `unconfirmed`. So the sum of the rows is never less
//! than what was spent, whatever dies. The rows also rebuild the quota windows after a restart.

use std::sync::Arc;

use rusqlite::Connection;

use crate::price::Nano;
use crate::state::{State, StateError};

/// What is known of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Not over yet.
    Open,
    /// Over, and its cost is known.
    Settled,
    /// Its end was not seen: its cost is taken to be its upper bound.
    Unconfirmed,
}

impl End {
    fn code(self) -> i64 {
        match self {
            Self::Open => 0,
            Self::Settled => 1,
            Self::Unconfirmed => 2,
        }
    }
}

/// The end of one call, to be written with its reply or alone.
#[derive(Debug, Clone, Copy)]
pub struct Settlement {
    /// The row.
    pub id: i64,
    /// When it was sent, in microseconds since the epoch.
    pub sent_at: u64,
    /// Tokens it took of the account's limit.
    pub tokens: u64,
    /// What it cost.
    pub cost: Nano,
    /// Whether that is known.
    pub end: End,
}

impl Settlement {
    /// Writes it within a transaction.
    pub fn write(&self, c: &Connection) -> rusqlite::Result<()> {
        c.prepare_cached("UPDATE calls SET sent_at = ?2, tokens = ?3, cost = ?4, state = ?5 WHERE id = ?1")?
            .execute((self.id, signed(self.sent_at), signed(self.tokens), signed(self.cost.0), self.end.code()))?;
        Ok(())
    }
}

/// Sums of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Calls sent.
    pub calls: u64,
    /// All money, `unconfirmed` included.
    pub spent: Nano,
    /// Money of calls whose end was not seen.
    pub unconfirmed: Nano,
}

/// The ledger of one run in a state.
#[derive(Debug, Clone)]
pub struct Ledger {
    state: Arc<State>,
    run: Arc<str>,
}

impl Ledger {
    /// Opens the ledger and settles what a kill left open. Such a call was sent some time between its row and now, so it
    /// is taken to be sent `now` (microseconds since the epoch): any earlier, and a provider's window could be passed.
    /// So is a call of the future, of when the clock was ahead: its windows would stay full until then.
    pub async fn open(state: Arc<State>, run: &str, now: u64) -> Result<Self, StateError> {
        let close = "UPDATE calls SET state = 2, cost = bound, sent_at = ?1 WHERE state = 0";
        let recall = "UPDATE calls SET sent_at = ?1 WHERE sent_at > ?1";
        let now = signed(now);
        state.call(move |c| Ok(c.execute(close, [now])? + c.execute(recall, [now])?)).await?;
        Ok(Self { state, run: run.into() })
    }

    /// What the run has cost so far.
    pub async fn totals(&self) -> Result<Totals, StateError> {
        let run = Arc::clone(&self.run);
        // Summed in halves: SQLite's sum of integers fails for ever once it overflows.
        let sql = "SELECT count(*), coalesce(sum(spent >> 32), 0), coalesce(sum(spent & 0xffffffff), 0), \
                   coalesce(sum(unseen >> 32), 0), coalesce(sum(unseen & 0xffffffff), 0) FROM (SELECT \
                   CASE state WHEN 0 THEN bound ELSE cost END AS spent, \
                   CASE state WHEN 2 THEN cost ELSE 0 END AS unseen FROM calls WHERE run = ?1)";
        self.state
            .read(move |c| {
                c.query_row(sql, [&*run], |row| {
                    Ok(Totals {
                        calls: unsigned(row.get(0)?),
                        spent: whole(row.get(1)?, row.get(2)?),
                        unconfirmed: whole(row.get(3)?, row.get(4)?),
                    })
                })
            })
            .await
    }

    /// What all runs of this state have spent on calls sent since then, in microseconds since the epoch.
    pub async fn spent_since(&self, since: u64) -> Result<Nano, StateError> {
        let sql =
            "SELECT coalesce(sum(cost >> 32), 0), coalesce(sum(cost & 0xffffffff), 0) FROM calls WHERE sent_at >= ?1";
        let halves = move |row: &rusqlite::Row<'_>| Ok(whole(row.get(0)?, row.get(1)?));
        self.state.read(move |c| c.query_row(sql, [signed(since)], halves)).await
    }

    /// Calls of an account since `since` (time, tokens), for its windows, and their count since `day`.
    pub async fn history(&self, account: &str, since: u64, day: u64) -> Result<(Vec<(u64, u64)>, u64), StateError> {
        let account = account.to_owned();
        self.state
            .read(move |c| {
                let entries = c
                    .prepare("SELECT sent_at, tokens FROM calls WHERE account = ?1 AND sent_at >= ?2")?
                    .query_map((&account, signed(since)), |r| Ok((unsigned(r.get(0)?), unsigned(r.get(1)?))))?
                    .collect::<rusqlite::Result<_>>()?;
                let today = c.query_row(
                    "SELECT count(*) FROM calls WHERE account = ?1 AND sent_at >= ?2",
                    (&account, signed(day)),
                    |r| r.get(0),
                )?;
                Ok((entries, unsigned(today)))
            })
            .await
    }

    /// Opens a row; durable when it returns.
    pub async fn open_call(&self, account: &str, now: u64, tokens: u64, bound: Nano) -> Result<i64, StateError> {
        let (run, account) = (Arc::clone(&self.run), account.to_owned());
        self.state
            .call(move |c| {
                c.prepare_cached("INSERT INTO calls VALUES (NULL, ?1, ?2, ?3, ?4, ?5, 0, 0)")?.execute((
                    &*run,
                    account,
                    signed(now),
                    signed(tokens),
                    signed(bound.0),
                ))?;
                Ok(c.last_insert_rowid())
            })
            .await
    }

    /// Removes the row of a call that was never sent.
    pub async fn drop_call(&self, id: i64) -> Result<(), StateError> {
        self.state.call(move |c| c.prepare_cached("DELETE FROM calls WHERE id = ?1")?.execute([id])).await.map(|_| ())
    }

    /// Writes the end of a call that brought no reply.
    pub async fn settle(&self, settlement: Settlement) -> Result<(), StateError> {
        self.state.call(move |c| settlement.write(c)).await
    }
}

/// SQLite has no unsigned integers; what does not fit is as large as can be.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Back again; nothing negative is ever written.
pub(crate) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// An amount from the sums of its halves.
fn whole(high: i64, low: i64) -> Nano {
    Nano(unsigned(high).saturating_mul(1 << 32).saturating_add(unsigned(low)))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ledger(state: &Arc<State>, now: u64) -> Ledger {
        Ledger::open(Arc::clone(state), "r", now).await.unwrap()
    }

    fn settlement(id: i64, sent_at: u64, cost: u64, end: End) -> Settlement {
        Settlement { id, sent_at, tokens: 5, cost: Nano(cost), end }
    }

    #[tokio::test]
    async fn a_call_without_an_end_counts_at_its_bound_and_after_a_restart_as_unconfirmed() {
        let dir = tempfile::tempdir().unwrap();
        let state = Arc::new(State::open(&dir.path().join("state.sqlite")).unwrap());
        let first = ledger(&state, 0).await;
        let done = first.open_call("a", 10, 7, Nano(100)).await.unwrap();
        first.open_call("a", 11, 7, Nano(200)).await.unwrap();
        first.settle(settlement(done, 12, 30, End::Settled)).await.unwrap();
        let open = Totals { calls: 2, spent: Nano(230), unconfirmed: Nano::ZERO };
        assert_eq!(first.totals().await.unwrap(), open);
        let second = ledger(&state, 50).await;
        assert_eq!(second.totals().await.unwrap(), Totals { unconfirmed: Nano(200), ..open });
    }

    #[tokio::test]
    async fn a_call_without_an_end_is_taken_to_be_sent_at_the_restart() {
        let dir = tempfile::tempdir().unwrap();
        let state = Arc::new(State::open(&dir.path().join("state.sqlite")).unwrap());
        let first = ledger(&state, 0).await;
        let done = first.open_call("a", 10, 7, Nano(1)).await.unwrap();
        first.settle(settlement(done, 12, 1, End::Settled)).await.unwrap();
        first.open_call("a", 11, 7, Nano(1)).await.unwrap();
        first.open_call("b", 11, 7, Nano(1)).await.unwrap();
        let second = ledger(&state, 1_000).await;
        let (mut entries, today) = second.history("a", 0, 500).await.unwrap();
        entries.sort_unstable();
        assert_eq!((entries, today), (vec![(12, 5), (1_000, 7)], 1));
    }

    #[tokio::test]
    async fn a_call_that_was_not_sent_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let state = Arc::new(State::open(&dir.path().join("state.sqlite")).unwrap());
        let ledger = ledger(&state, 0).await;
        let id = ledger.open_call("a", 10, 7, Nano(100)).await.unwrap();
        ledger.drop_call(id).await.unwrap();
        assert_eq!(ledger.totals().await.unwrap(), Totals::default());
        assert_eq!(ledger.history("a", 0, 0).await.unwrap(), (vec![], 0));
    }

    #[tokio::test]
    async fn runs_of_one_state_share_its_windows_and_not_their_money() {
        let dir = tempfile::tempdir().unwrap();
        let state = Arc::new(State::open(&dir.path().join("state.sqlite")).unwrap());
        let other = Ledger::open(Arc::clone(&state), "other", 0).await.unwrap();
        let id = other.open_call("a", 10, 7, Nano(100)).await.unwrap();
        other.settle(settlement(id, 12, 30, End::Settled)).await.unwrap();
        let ledger = ledger(&state, 20).await;
        assert_eq!(ledger.totals().await.unwrap(), Totals::default());
        assert_eq!(ledger.history("a", 0, 0).await.unwrap(), (vec![(12, 5)], 1));
    }

    #[tokio::test]
    async fn amounts_whose_sum_does_not_fit_are_as_large_as_can_be() {
        let dir = tempfile::tempdir().unwrap();
        let state = Arc::new(State::open(&dir.path().join("state.sqlite")).unwrap());
        let ledger = ledger(&state, 0).await;
        for _ in 0..3 {
            ledger.open_call("a", 10, u64::MAX, Nano(u64::MAX)).await.unwrap();
        }
        assert_eq!(ledger.totals().await.unwrap().spent, Nano(u64::MAX));
        let other = Ledger::open(Arc::clone(&state), "other", 0).await.unwrap();
        for _ in 0..3 {
            other.open_call("a", 10, 1, Nano((7 << 32) - 1)).await.unwrap();
        }
        assert_eq!(other.totals().await.unwrap().spent, Nano(3 * ((7 << 32) - 1)));
    }

    #[tokio::test]
    async fn a_call_of_the_future_is_taken_to_be_sent_at_the_restart() {
        let dir = tempfile::tempdir().unwrap();
        let state = Arc::new(State::open(&dir.path().join("state.sqlite")).unwrap());
        let first = ledger(&state, 9_000).await;
        let done = first.open_call("a", 9_000, 7, Nano(1)).await.unwrap();
        first.settle(settlement(done, 9_000, 1, End::Settled)).await.unwrap();
        first.open_call("a", 9_000, 7, Nano(1)).await.unwrap();
        let second = ledger(&state, 500).await;
        let (mut entries, _) = second.history("a", 0, 0).await.unwrap();
        entries.sort_unstable();
        assert_eq!(entries, [(500, 5), (500, 7)]);
    }

    #[test]
    fn numbers_beyond_sqlite_are_as_large_as_can_be() {
        assert_eq!((signed(u64::MAX), signed(7)), (i64::MAX, 7));
        assert_eq!((unsigned(-1), unsigned(7)), (0, 7));
    }
}

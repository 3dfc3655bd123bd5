//! The gate of one machine: the purse and the accounts in memory, the ledger in the state.
//!
//! Money is reserved first, the ledger's row is durable before the call leaves, and then the account's arithmetic says when to
//! send ([`crate::quota::desk`]). When the state cannot be written there is no row and so no call.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::{AccountSpec, NoReservation, state_pause};
use crate::fault::Halt;
use crate::lock::lock;
use crate::price::Nano;
use crate::quota::clock::micros;
use crate::quota::day::DAY;
use crate::quota::desk::{Desk, Hall, NoAppointment};
use crate::quota::ledger::{End, Ledger, Settlement, Totals};
use crate::quota::purse::{Ceilings, Hold, NoHold, Purse, Sent};
use crate::quota::{Account, Appointment, Cut, Refusal, Why, day};

/// The books of one run.
#[derive(Debug)]
pub(super) struct Embedded {
    ledger: Ledger,
    hall: Arc<Hall>,
    accounts: tokio::sync::Mutex<HashMap<String, Arc<Desk>>>,
    purse: Arc<Purse>,
}

/// The right to make one attempt. Dropped, it counts at its worst case.
#[derive(Debug)]
pub(super) struct Taken {
    /// The ledger's row.
    id: i64,
    appointment: Appointment,
    desk: Arc<Desk>,
    hold: Hold,
    slot: Option<OwnedSemaphorePermit>,
}

impl Taken {
    /// What to write of its end.
    pub(super) fn settlement(&self, tokens: u64, cost: Nano, end: End) -> Settlement {
        Settlement { id: self.id, sent_at: self.appointment.at, tokens, cost, end }
    }

    /// Takes over what was written: the account's tokens, the purse's money.
    pub(super) fn close(self, tokens: u64, cost: Nano, end: End) {
        lock(&self.desk.account).settle(&self.appointment, tokens);
        self.hold.release(Sent::Yes, cost, end);
    }
}

impl Embedded {
    pub(super) async fn open(
        ledger: Ledger,
        ceilings: Ceilings,
        hall: Arc<Hall>,
    ) -> Result<Self, crate::state::StateError> {
        let now = hall.clock.now();
        let (totals, today) = (ledger.totals().await?, ledger.spent_since(now / DAY * DAY).await?);
        let purse = Arc::new(Purse::new(ceilings, totals, today, now));
        Ok(Self { ledger, hall, accounts: tokio::sync::Mutex::default(), purse })
    }

    pub(super) fn totals(&self) -> Totals {
        self.purse.totals()
    }

    /// See [`super::Gate::reserve_within`]. Dropped before it returns, a row may stay open and count at its worst case until
    /// the next start.
    pub(super) async fn reserve(
        &self,
        accounts: &[&AccountSpec],
        tokens: u64,
        bound: Nano,
        longest: Duration,
        stop: &CancellationToken,
    ) -> Result<(usize, Taken), NoReservation> {
        loop {
            self.hall.none_held(stop).await?;
            let (chosen, desk) = self.choose(accounts, tokens, longest, stop).await?;
            let slot = match &desk.slots {
                None => None,
                Some(slots) => tokio::select! {
                    () = stop.cancelled() => return Err(NoReservation::Halt(Halt::Stopped)),
                    slot = Arc::clone(slots).acquire_owned() => slot.ok(),
                },
            };
            let hold = match self.purse.hold(bound, &self.hall.clock, stop).await {
                Ok(hold) => hold,
                Err(NoHold::Halt(halt)) => return Err(halt.into()),
                Err(NoHold::Tomorrow(at)) => {
                    drop(slot);
                    self.hall.wait(at, Why::DayBudget, stop).await?;
                    continue;
                }
            };
            let id = match self.open_row(&accounts[chosen].name, tokens, bound, stop).await {
                Ok(id) => id,
                Err(halt) => {
                    hold.release(Sent::No, Nano::ZERO, End::Settled);
                    return Err(NoReservation::Halt(halt));
                }
            };
            let refusal = match desk.appoint(&self.hall, tokens, stop).await {
                Ok(appointment) => return Ok((chosen, Taken { id, appointment, desk, hold, slot })),
                Err(refusal) => refusal,
            };
            hold.release(Sent::No, Nano::ZERO, End::Settled);
            drop(slot);
            self.drop_row(id, stop).await;
            match refusal {
                NoAppointment::Never(why) => return Err(NoReservation::Never(why)),
                NoAppointment::Halt(halt) => return Err(NoReservation::Halt(halt)),
                NoAppointment::Away => {}
            }
        }
    }

    pub(super) async fn settle(&self, taken: Taken, tokens: u64, cost: Nano, end: End, stop: &CancellationToken) {
        let settlement = taken.settlement(tokens, cost, end);
        taken.close(tokens, cost, end);
        while let Err(error) = self.ledger.settle(settlement).await {
            if state_pause(&error, stop).await.is_err() {
                // The row stays open, which counts as its worst case: the ceiling holds.
                tracing::warn!(%error, "a call could not be settled and counts at its worst case");
                return;
            }
        }
    }

    pub(super) async fn give_back(&self, taken: Taken, stop: &CancellationToken) {
        let Taken { id, appointment, desk, hold, slot } = taken;
        lock(&desk.account).give_back(&appointment);
        hold.release(Sent::No, Nano::ZERO, End::Settled);
        drop(slot);
        self.drop_row(id, stop).await;
    }

    pub(super) async fn pause(&self, spec: &AccountSpec, pause: Duration) {
        if let Some(desk) = self.accounts.lock().await.get(&spec.name) {
            let until = self.hall.clock.now().saturating_add(micros(pause));
            lock(&desk.account).pause_until(until);
        }
    }

    pub(super) async fn refused(&self, spec: &AccountSpec, pause: Duration, refusal: Refusal) -> Option<Cut> {
        let accounts = self.accounts.lock().await;
        let now = self.hall.clock.now();
        let mut account = lock(&accounts.get(&spec.name)?.account);
        account.pause_until(now.saturating_add(micros(pause)));
        account.refused(now, refusal)
    }

    pub(super) async fn absence(&self, spec: &AccountSpec, stop: &CancellationToken) -> Result<Duration, Halt> {
        let desk = self.desk(spec, stop).await?;
        let away = lock(&desk.account).away(self.hall.clock.now());
        Ok(away.map_or(Duration::ZERO, |(at, _)| self.hall.until(at)))
    }

    pub(super) async fn park(&self, spec: &AccountSpec, hint: Option<Duration>) {
        if let Some(desk) = self.accounts.lock().await.get(&spec.name) {
            let now = self.hall.clock.now();
            let mut account = lock(&desk.account);
            match hint {
                // The provider knows its own day best.
                Some(hint) => account.pause_until(now.saturating_add(micros(hint))),
                None => {
                    account.park_until_day_reset(now);
                }
            }
        }
    }

    /// Of the accounts that are not away the one that is free first, of several the first; when all are away, waits until the
    /// earliest is back, if that is within `longest`.
    async fn choose(
        &self,
        accounts: &[&AccountSpec],
        tokens: u64,
        longest: Duration,
        stop: &CancellationToken,
    ) -> Result<(usize, Arc<Desk>), NoReservation> {
        loop {
            let mut earliest = None;
            let mut chosen: Option<(u64, usize, Arc<Desk>)> = None;
            for (index, spec) in accounts.iter().enumerate() {
                let desk = self.desk(spec, stop).await?;
                let now = self.hall.clock.now();
                let (away, free_at) = {
                    let account = lock(&desk.account);
                    (account.away(now), account.free_at(now, tokens))
                };
                if let Some(away) = away {
                    earliest = earliest.filter(|(at, _)| *at <= away.0).or(Some(away));
                } else if chosen.as_ref().is_none_or(|(first, ..)| free_at < *first) {
                    chosen = Some((free_at, index, desk));
                }
            }
            if let Some((_, index, desk)) = chosen {
                return Ok((index, desk));
            }
            let Some((at, why)) = earliest else {
                return Err(Halt::Setup("a call has no account to be made with".to_owned()).into());
            };
            if self.hall.until(at) > longest {
                return Err(NoReservation::Away);
            }
            self.hall.wait(at, why, stop).await?;
        }
    }

    async fn desk(&self, spec: &AccountSpec, stop: &CancellationToken) -> Result<Arc<Desk>, Halt> {
        let mut accounts = self.accounts.lock().await;
        if let Some(desk) = accounts.get(&spec.name) {
            return Ok(Arc::clone(desk));
        }
        let mut account = Account::new(spec.limits.clone());
        let now = self.hall.clock.now();
        let midnight = day::last_reset(&spec.limits.day_resets, now);
        let since = now.saturating_sub(account.reach());
        let (entries, today) = loop {
            match self.ledger.history(&spec.name, since, midnight).await {
                Ok(history) => break history,
                Err(error) => state_pause(&error, stop).await?,
            }
        };
        // A row of the future would hold the account until then.
        account.restore(entries.into_iter().map(|(at, tokens)| (at.min(now), tokens)), today, now);
        let desk = Arc::new(Desk::new(account, spec.concurrency));
        accounts.insert(spec.name.clone(), Arc::clone(&desk));
        Ok(desk)
    }

    async fn open_row(&self, name: &str, tokens: u64, bound: Nano, stop: &CancellationToken) -> Result<i64, Halt> {
        loop {
            match self.ledger.open_call(name, self.hall.clock.now(), tokens, bound).await {
                Ok(id) => return Ok(id),
                Err(error) => state_pause(&error, stop).await?,
            }
        }
    }

    async fn drop_row(&self, id: i64, stop: &CancellationToken) {
        while let Err(error) = self.ledger.drop_call(id).await {
            if state_pause(&error, stop).await.is_err() {
                tracing::warn!(%error, "a call that was not sent could not be taken back and counts at its worst case");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::time::Instant;

    use super::super::{Gate, Reservation};
    use super::*;
    use crate::quota::Limits;
    use crate::quota::clock::now;
    use crate::state::State;

    const BOUND: Nano = Nano(40);

    struct Bench {
        dir: tempfile::TempDir,
        gate: Gate,
        state: Arc<State>,
        stop: CancellationToken,
    }

    impl Bench {
        async fn new(ceiling: Option<u64>, max_wait: Option<Duration>) -> Self {
            let dir = tempfile::tempdir().unwrap();
            Self::over(dir, ceiling, max_wait).await
        }

        async fn over(dir: tempfile::TempDir, ceiling: Option<u64>, max_wait: Option<Duration>) -> Self {
            let state = Arc::new(State::open(&dir.path().join("state.sqlite")).unwrap());
            let ledger = Ledger::open(Arc::clone(&state), "r", now()).await.unwrap();
            let ceilings = Ceilings { total: ceiling.map(Nano), per_day: None };
            let gate = Gate::open(ledger, ceilings, max_wait).await.unwrap();
            Self { dir, gate, state, stop: CancellationToken::new() }
        }

        /// The next process, after the end of this one whatever it had under way.
        async fn again(self, ceiling: Option<u64>, max_wait: Option<Duration>) -> Self {
            let Self { dir, gate, state, .. } = self;
            drop((gate, state));
            Self::over(dir, ceiling, max_wait).await
        }

        async fn reserve(&self, spec: &AccountSpec) -> Result<Reservation, NoReservation> {
            self.gate.reserve(&[spec], 10, BOUND, &self.stop).await.map(|(_, reservation)| reservation)
        }

        /// What is open or settled in the ledger.
        async fn rows(&self) -> i64 {
            self.state.read(|c| c.query_row("SELECT count(*) FROM calls", [], |r| r.get(0))).await.unwrap()
        }
    }

    fn spec(name: &str) -> AccountSpec {
        AccountSpec { name: name.to_owned(), limits: Limits::none(), concurrency: None }
    }

    /// Whether it waits, after a while in which everything that can go on has gone on.
    async fn waits<F: Future + Unpin>(future: &mut F) -> bool {
        tokio::time::timeout(Duration::from_millis(300), future).await.is_err()
    }

    #[tokio::test]
    async fn calls_in_flight_never_reserve_more_than_the_ceiling() {
        let bench = Bench::new(Some(100), None).await;
        let account = spec("a");
        let first = bench.reserve(&account).await.unwrap();
        let second = bench.reserve(&account).await.unwrap();
        let mut third = Box::pin(bench.reserve(&account));
        assert!(waits(&mut third).await, "120 of 100 would be reserved");
        bench.gate.settle(first, 10, Nano(30), End::Settled, &bench.stop).await;
        assert!(waits(&mut third).await, "30 + 40 + 40 is above 100");
        bench.gate.settle(second, 10, Nano(30), End::Settled, &bench.stop).await;
        let third = third.await.unwrap();
        bench.gate.settle(third, 10, Nano(25), End::Settled, &bench.stop).await;
        assert_eq!(bench.gate.totals().spent, Nano(85));
    }

    #[tokio::test]
    async fn a_days_money_is_counted_over_restarts_and_that_of_another_day_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let open = async || {
            let state = Arc::new(State::open(&dir.path().join("state.sqlite")).unwrap());
            let ledger = Ledger::open(Arc::clone(&state), "r", now()).await.unwrap();
            let ceilings = Ceilings { total: None, per_day: Some(Nano(100)) };
            (Gate::open(ledger, ceilings, Some(Duration::from_secs(1))).await.unwrap(), state)
        };
        let (stop, account) = (CancellationToken::new(), spec("a"));
        let ask = async |gate: &Gate| gate.reserve(&[&account], 10, BOUND, &stop).await.map(|(_, taken)| taken);
        let (gate, state) = open().await;
        for _ in 0..2 {
            let taken = ask(&gate).await.unwrap();
            gate.settle(taken, 10, Nano(35), End::Settled, &stop).await;
        }
        let refused = |answer| {
            let Err(NoReservation::Halt(Halt::Wait { why, .. })) = answer else { panic!("{answer:?}") };
            assert!(why.starts_with("the day's money is spent (budget.per_day_usd) until "), "{why}");
        };
        refused(ask(&gate).await);
        drop((gate, state));
        let (gate, state) = open().await;
        refused(ask(&gate).await);
        let yesterday = i64::try_from(now() / DAY * DAY - 1).unwrap();
        state.call(move |c| c.execute("UPDATE calls SET sent_at = ?1 WHERE id = 1", [yesterday])).await.unwrap();
        drop((gate, state));
        let (gate, _state) = open().await;
        drop(ask(&gate).await.unwrap());
        let Err(NoReservation::Halt(Halt::Budget(why))) =
            gate.reserve(&[&account], 10, Nano(101), &stop).await.map(|_| ())
        else {
            panic!("more than a whole day's money")
        };
        assert!(why.contains("raise budget.per_day_usd"), "{why}");
    }

    #[tokio::test]
    async fn with_nothing_in_flight_a_call_that_does_not_fit_ends_the_run() {
        let bench = Bench::new(Some(39), None).await;
        let Err(NoReservation::Halt(Halt::Budget(message))) = bench.reserve(&spec("a")).await else { panic!() };
        assert!(message.contains("raise --budget-usd"), "{message}");
        assert_eq!(bench.rows().await, 0);
    }

    #[tokio::test]
    async fn a_ceiling_holds_over_restarts_and_what_was_not_seen_counts_in_full() {
        let bench = Bench::new(Some(100), None).await;
        let account = spec("a");
        drop((bench.reserve(&account).await.unwrap(), bench.reserve(&account).await.unwrap()));
        let unseen = bench.gate.totals();
        assert_eq!((unseen.spent, unseen.unconfirmed), (Nano(80), Nano(80)));
        let bench = bench.again(Some(100), None).await;
        assert_eq!(bench.gate.totals(), Totals { calls: 2, ..unseen });
        assert!(matches!(bench.reserve(&account).await, Err(NoReservation::Halt(Halt::Budget(_)))));
    }

    #[tokio::test]
    async fn a_pause_holds_its_account_back_and_no_other() {
        let bench = Bench::new(None, None).await;
        let (paused, other) = (spec("a"), spec("b"));
        drop(bench.reserve(&paused).await.unwrap());
        let began = Instant::now();
        bench.gate.pause(&paused, Duration::from_millis(700)).await;
        drop(bench.reserve(&other).await.unwrap());
        let meanwhile = began.elapsed();
        drop(bench.reserve(&paused).await.unwrap());
        assert!(meanwhile < Duration::from_millis(700), "{meanwhile:?}");
        assert!(began.elapsed() >= Duration::from_millis(700));
    }

    #[tokio::test]
    async fn a_pause_longer_than_the_user_waits_ends_the_run_and_says_until_when() {
        let bench = Bench::new(None, Some(Duration::from_mins(1))).await;
        let account = spec("a");
        drop(bench.reserve(&account).await.unwrap());
        bench.gate.pause(&account, Duration::from_hours(1)).await;
        let Err(NoReservation::Halt(Halt::Wait { why: message, .. })) = bench.reserve(&account).await else { panic!() };
        let hour = (jiff::Timestamp::now() + Duration::from_secs(3500)).to_string();
        assert!(message.contains(&format!("until {}", &hour[..11])), "{message}");
        assert_eq!(bench.rows().await, 1, "only the call that was sent");
    }

    #[tokio::test]
    async fn a_days_requests_are_counted_over_restarts() {
        let mut account = spec("a");
        account.limits.requests_per_day = Some(2);
        let patience = Some(Duration::from_secs(1));
        let bench = Bench::new(None, patience).await;
        let first = bench.reserve(&account).await.unwrap();
        bench.gate.settle(first, 10, Nano(1), End::Settled, &bench.stop).await;
        let bench = bench.again(None, patience).await;
        drop(bench.reserve(&account).await.unwrap());
        let bench = bench.again(None, patience).await;
        let Err(NoReservation::Halt(Halt::Wait { why: message, .. })) = bench.reserve(&account).await else { panic!() };
        assert!(message.starts_with("the day's quota is used up until "), "{message}");
    }

    #[tokio::test]
    async fn a_long_wait_is_told() {
        let mut account = spec("a");
        account.limits.requests_per_day = Some(1);
        let bench = Bench::new(None, None).await;
        drop(bench.reserve(&account).await.unwrap());
        let mut told = bench.gate.waiting();
        let mut second = Box::pin(bench.reserve(&account));
        assert!(waits(&mut second).await);
        let wait = told.borrow_and_update().clone().unwrap();
        assert_eq!(wait.why, "the day's quota is used up");
        assert_eq!(bench.rows().await, 1, "who is sent away holds nothing");
        bench.stop.cancel();
        assert_eq!(second.await.unwrap_err(), NoReservation::Halt(Halt::Stopped));
    }

    #[tokio::test]
    async fn an_account_that_is_away_is_passed_over_while_another_is_free() {
        let bench = Bench::new(None, Some(Duration::from_mins(1))).await;
        let (parked, paused, free) = (spec("parked"), spec("paused"), spec("free"));
        for account in [&parked, &paused] {
            drop(bench.reserve(account).await.unwrap());
        }
        bench.gate.park(&parked, None).await;
        bench.gate.pause(&paused, Duration::from_secs(2)).await;
        let (chosen, _sent) = bench.gate.reserve(&[&parked, &paused, &free], 10, BOUND, &bench.stop).await.unwrap();
        assert_eq!(chosen, 2);
        let began = Instant::now();
        let (chosen, _sent) = bench.gate.reserve(&[&parked, &paused], 10, BOUND, &bench.stop).await.unwrap();
        assert_eq!(chosen, 1, "the one that is back first");
        assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_caller_that_can_do_something_else_is_told_when_all_are_away_for_longer_than_it_waits() {
        let bench = Bench::new(None, None).await;
        let mut account = spec("a");
        account.concurrency = Some(1);
        let within = |seconds| {
            let longest = Duration::from_secs(seconds);
            let bench = &bench;
            let account = &account;
            async move { bench.gate.reserve_within(&[account], 10, BOUND, longest, &bench.stop).await }
        };
        let (_, sent) = within(30).await.unwrap();
        // This one waits for a place when the account turns out to be away.
        let mut waiting = Box::pin(within(30));
        assert!(waits(&mut waiting).await);
        bench.gate.pause(&account, Duration::from_mins(1)).await;
        bench.gate.settle(sent, 10, Nano(1), End::Settled, &bench.stop).await;
        assert_eq!(waiting.await.unwrap_err(), NoReservation::Away);
        assert_eq!(within(30).await.unwrap_err(), NoReservation::Away);
        assert!(waits(&mut Box::pin(within(90))).await);
        let absence = bench.gate.absence(&account, &bench.stop).await.unwrap();
        assert!((Duration::from_secs(50)..=Duration::from_mins(1)).contains(&absence), "{absence:?}");
        assert_eq!(bench.gate.absence(&spec("b"), &bench.stop).await, Ok(Duration::ZERO));
        assert_eq!(bench.rows().await, 1, "who is sent away holds nothing");
    }

    #[tokio::test]
    async fn what_is_given_back_is_as_if_it_had_never_been() {
        let mut account = spec("a");
        (account.concurrency, account.limits.requests_per_day) = (Some(1), Some(1));
        let bench = Bench::new(Some(40), None).await;
        for _ in 0..3 {
            let reservation = bench.reserve(&account).await.unwrap();
            bench.gate.give_back(reservation, &bench.stop).await;
            assert_eq!((bench.gate.totals(), bench.rows().await), (Totals::default(), 0));
        }
    }

    #[tokio::test]
    async fn a_call_in_line_moves_to_another_account_when_its_own_is_parked() {
        let (mut first, mut second) = (spec("a"), spec("b"));
        (first.limits.requests_per_minute, second.limits.requests_per_minute) = (Some(60), Some(60));
        let bench = Bench::new(None, Some(Duration::from_mins(1))).await;
        let mut sent = Vec::new();
        for account in [&first, &second].repeat(6) {
            sent.push(bench.reserve(account).await.unwrap());
        }
        // The bursts are used up: the next one is in line at the first for a second.
        let both = [&first, &second];
        let mut next = Box::pin(bench.gate.reserve(&both, 10, BOUND, &bench.stop));
        assert!(waits(&mut next).await);
        bench.gate.park(&first, None).await;
        assert_eq!(next.await.unwrap().0, 1);
        assert_eq!(bench.rows().await, 13, "it left nothing behind");
    }

    #[tokio::test]
    async fn of_several_accounts_the_one_that_is_free_first_makes_the_call() {
        let (mut first, second) = (spec("a"), spec("b"));
        first.limits.requests_per_minute = Some(60);
        let bench = Bench::new(None, None).await;
        let mut chosen = Vec::new();
        for _ in 0..9 {
            chosen.push(bench.gate.reserve(&[&first, &second], 10, BOUND, &bench.stop).await.unwrap());
        }
        let chosen: Vec<usize> = chosen.into_iter().map(|(which, _)| which).collect();
        assert_eq!(chosen, [0, 0, 0, 0, 0, 0, 1, 1, 1], "the seventh call of the first would have to wait");
    }

    #[tokio::test]
    async fn a_row_of_the_future_does_not_hold_the_next_run() {
        let mut account = spec("a");
        account.limits.requests_per_minute = Some(600);
        let bench = Bench::new(None, None).await;
        let first = bench.reserve(&account).await.unwrap();
        bench.gate.settle(first, 10, Nano(1), End::Settled, &bench.stop).await;
        let bench = bench.again(None, None).await;
        bench.state.call(|c| c.execute("UPDATE calls SET sent_at = sent_at + 3600000000", [])).await.unwrap();
        let mut next = Box::pin(bench.reserve(&account));
        assert!(!waits(&mut next).await);
    }

    #[tokio::test]
    async fn a_long_wait_for_a_debt_is_told_and_ends_the_run_when_it_is_too_long() {
        let mut account = spec("a");
        account.limits.tokens_per_minute = Some(1_000);
        let bench = Bench::new(None, Some(Duration::from_mins(2))).await;
        let mut sent = Vec::new();
        for _ in 0..5 {
            sent.push(bench.reserve(&account).await.unwrap());
        }
        for reservation in sent {
            bench.gate.settle(reservation, 1_000_000, Nano(1), End::Settled, &bench.stop).await;
        }
        let Err(NoReservation::Halt(Halt::Wait { why: message, .. })) = bench.reserve(&account).await else { panic!() };
        assert!(message.starts_with("the account's limits are used up until "), "{message}");
    }

    #[tokio::test]
    async fn a_stop_while_the_state_fails_books_nothing() {
        let bench = Bench::new(None, None).await;
        let account = spec("a");
        // Its history is read while it can be: it is the row that fails.
        let first = bench.reserve(&account).await.unwrap();
        bench.gate.settle(first, 10, Nano(7), End::Settled, &bench.stop).await;
        let before = bench.gate.totals();
        bench.state.call(|c| c.execute_batch("ALTER TABLE calls RENAME TO away")).await.unwrap();
        let mut call = Box::pin(bench.reserve(&account));
        assert!(waits(&mut call).await);
        bench.stop.cancel();
        assert_eq!(call.await.unwrap_err(), NoReservation::Halt(Halt::Stopped));
        assert_eq!(bench.gate.totals(), before);
    }

    #[tokio::test]
    async fn an_end_is_written_as_soon_as_the_state_works() {
        let bench = Bench::new(None, None).await;
        let first = bench.reserve(&spec("a")).await.unwrap();
        bench.state.call(|c| c.execute_batch("ALTER TABLE calls RENAME TO away")).await.unwrap();
        let mut settled = Box::pin(bench.gate.settle(first, 10, Nano(1), End::Settled, &bench.stop));
        assert!(waits(&mut settled).await);
        bench.state.call(|c| c.execute_batch("ALTER TABLE away RENAME TO calls")).await.unwrap();
        settled.await;
        let cost =
            bench.state.read(|c| c.query_row("SELECT cost FROM calls WHERE state = 1", [], |r| r.get::<_, i64>(0)));
        assert_eq!(cost.await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_call_larger_than_its_limit_is_refused_and_holds_nothing() {
        let mut account = spec("a");
        account.limits.tokens_per_minute = Some(9);
        let bench = Bench::new(Some(40), None).await;
        let Err(NoReservation::Never(why)) = bench.reserve(&account).await else { panic!() };
        assert!(why.contains("larger than the account's 9 tokens per minute"), "{why}");
        assert_eq!(bench.rows().await, 0);
        bench.reserve(&spec("b")).await.unwrap();
    }

    #[tokio::test]
    async fn a_slot_is_held_until_its_call_is_settled() {
        let mut account = spec("a");
        account.concurrency = Some(1);
        let bench = Bench::new(None, None).await;
        let first = bench.reserve(&account).await.unwrap();
        let mut second = Box::pin(bench.reserve(&account));
        assert!(waits(&mut second).await);
        bench.gate.settle(first, 10, Nano(1), End::Settled, &bench.stop).await;
        second.await.unwrap();
    }

    #[tokio::test]
    async fn no_call_starts_while_a_paid_reply_is_not_stored() {
        let bench = Bench::new(None, None).await;
        let holding = bench.gate.holding();
        let other = bench.gate.holding();
        let account = spec("a");
        let mut call = Box::pin(bench.reserve(&account));
        assert!(waits(&mut call).await);
        drop(holding);
        assert!(waits(&mut call).await, "one is enough");
        drop(other);
        call.await.unwrap();
    }

    #[tokio::test]
    async fn a_call_in_line_does_not_leave_while_a_paid_reply_is_not_stored() {
        let mut account = spec("a");
        account.limits.requests_per_minute = Some(600);
        let bench = Bench::new(None, None).await;
        let mut sent = Vec::new();
        for _ in 0..6 {
            sent.push(bench.reserve(&account).await.unwrap());
        }
        // The burst is used up: the next one gets an appointment 0.1 s ahead.
        let mut next = Box::pin(bench.reserve(&account));
        assert!((&mut next).now_or_never().is_none());
        let holding = bench.gate.holding();
        assert!(waits(&mut next).await);
        drop(holding);
        next.await.unwrap();
    }

    #[tokio::test]
    async fn without_a_row_there_is_no_call_and_it_goes_on_when_there_can_be_one() {
        let bench = Bench::new(None, None).await;
        bench.state.call(|c| c.execute_batch("ALTER TABLE calls RENAME TO away")).await.unwrap();
        let account = spec("a");
        let mut call = Box::pin(bench.reserve(&account));
        assert!(waits(&mut call).await);
        bench.state.call(|c| c.execute_batch("ALTER TABLE away RENAME TO calls")).await.unwrap();
        call.await.unwrap();
    }

    #[tokio::test]
    async fn calls_in_line_at_a_kill_are_taken_as_sent_when_the_next_process_starts() {
        let mut account = spec("a");
        account.limits.requests_per_minute = Some(3);
        let bench = Bench::new(None, None).await;
        for _ in 0..3 {
            std::mem::forget(bench.reserve(&account).await.unwrap());
        }
        // As if they had been in line for an hour and were sent just before the kill.
        bench.state.call(|c| c.execute("UPDATE calls SET sent_at = sent_at - 3600000000", [])).await.unwrap();
        let bench = bench.again(None, None).await;
        let mut next = Box::pin(bench.reserve(&account));
        assert!(waits(&mut next).await, "the minute is full");
    }

    #[tokio::test]
    async fn a_stop_ends_every_wait() {
        let bench = Bench::new(Some(120), None).await;
        let (mut slot, mut paused) = (spec("slot"), spec("paused"));
        slot.concurrency = Some(1);
        paused.limits.requests_per_minute = Some(1);
        let held = (bench.reserve(&slot).await.unwrap(), bench.reserve(&paused).await.unwrap());
        let (purse, open) = (spec("purse"), bench.stop.clone());
        let waiting = async { tokio::join!(bench.reserve(&slot), bench.reserve(&paused), bench.reserve(&purse)) };
        let mut waiting = Box::pin(waiting);
        assert!(waits(&mut waiting).await);
        open.cancel();
        let (a, b, c) = waiting.await;
        for end in [a, b, c] {
            assert_eq!(end.unwrap_err(), NoReservation::Halt(Halt::Stopped));
        }
        drop(held);
    }
}

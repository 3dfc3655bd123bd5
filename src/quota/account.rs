//! One account: all its limits together, one appointment at a time.
//!
//! Appointments rise in the order they were asked for. That keeps a large request from being overtaken by small ones for
//! ever, and lets each log look back from its newest entry only. Slots given back are used again by whoever asks next, at
//! the end of the queue, never in the middle of it. The queue is kept short ([`HORIZON`]); whoever is turned away is told a
//! time of its own to come back, so that a parked fleet does not come back at once.

use crate::quota::{
    Answer, Appointment, Cut, HORIZON, LONGEST_ABSENCE, Limits, MINUTE, Refusal, Scarce, Why,
    day::{self, DayCount, GUARD},
    limit::Limit,
    margins::{short_window, tolerance},
};

/// The state of one account: a few kilobytes, whatever its limits.
///
/// Times are microseconds since the Unix epoch. A clock that steps back is held at the latest time seen; one that steps
/// forward shortens the windows by the step, so feed a clock that is set once and then runs evenly.
#[derive(Debug, Clone)]
pub struct Account {
    limits: Limits,
    tolerance: u64,
    requests: Limit,
    tokens: Option<Limit>,
    day: Option<DayCount>,
    /// The latest time seen.
    seen: u64,
    /// The latest appointment handed out.
    newest: u64,
    /// Nothing is sent before, as the provider says.
    paused_until: u64,
    /// The same, for the rest of a day.
    parked_until: u64,
    /// When the last one turned away was told to come back.
    turned_away: u64,
}

impl Account {
    /// An account of which nothing is used yet.
    pub fn new(limits: Limits) -> Self {
        let short = limits.requests_per_minute.and_then(|n| short_window(n, limits.spread_seconds));
        let tolerance = tolerance(short.map_or(MINUTE, |(_, stretch)| stretch));
        let requests = limits.requests_per_minute;
        Self {
            requests: requests
                .map_or_else(|| Limit::unknown(tolerance), |n| Limit::of_requests(n, limits.spread_seconds, tolerance)),
            tokens: limits.tokens_per_minute.map(|n| Limit::of_tokens(n, tolerance)),
            day: limits.requests_per_day.map(|n| DayCount::new(n, limits.day_resets.clone())),
            tolerance,
            limits,
            seen: 0,
            newest: 0,
            paused_until: 0,
            parked_until: 0,
            turned_away: 0,
        }
    }

    /// What the account was made with.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How late a request may still be sent, in microseconds: 1 % of the shortest window, from 50 to 250 ms.
    pub fn tolerance(&self) -> u64 {
        self.tolerance
    }

    /// Why a request can never be sent under these limits.
    #[cfg(feature = "fleet")]
    pub(super) fn refuses(&self, tokens: u64) -> Option<String> {
        self.never(tokens)
    }

    /// Its limits as numbers, for the same arithmetic in a script: the minute's log and the short one (limit, reach, width,
    /// buckets; 0: none), the pace of requests (rate, period, slack), log and pace of tokens, requests per day. To be asked of an
    /// account that nothing was learned of. Where requests are not declared, their limit is 0 and the rest is what they are
    /// measured with once they are refused.
    #[cfg(feature = "fleet")]
    pub(super) fn parameters(&self) -> [u64; 19] {
        let mut all = [0; 19];
        let (minute, short, pace) = self.requests.parameters();
        all[..4].copy_from_slice(&minute);
        all[0] = self.limits.requests_per_minute.unwrap_or(0);
        all[4..8].copy_from_slice(&short);
        all[8..11].copy_from_slice(&pace);
        if let Some(tokens) = &self.tokens {
            let (minute, _, pace) = tokens.parameters();
            all[11..15].copy_from_slice(&minute);
            all[15..18].copy_from_slice(&pace);
        }
        all[18] = self.limits.requests_per_day.unwrap_or(0);
        all
    }

    /// Reserves one request of `tokens` under every limit, or nothing. The appointment is never before `now`, nor before
    /// one handed out earlier.
    pub fn appoint(&mut self, now: u64, tokens: u64) -> Answer {
        let now = self.tick(now);
        if let Some(why) = self.never(tokens) {
            return Answer::Never { why };
        }
        self.taken(tokens).for_each(|(limit, _)| limit.raise(now));
        if let Some((at, why)) = self.away(now) {
            return Answer::Later { at, why };
        }
        let at = match self.earliest(now, tokens) {
            Ok(at) => at,
            Err(at) => {
                return Answer::Later { at, why: Why::DayQuota };
            }
        };
        // The queue's end is measured, not this appointment: else a large request would be turned away for ever.
        if self.newest > now + HORIZON {
            return Answer::Later { at: self.turn_away(now, tokens), why: Why::Horizon };
        }
        self.book(at, tokens);
        Answer::Go(Appointment { at, tokens })
    }

    /// When a request of `tokens` could be sent, for a choice between accounts; nothing is reserved.
    pub fn free_at(&self, now: u64, tokens: u64) -> u64 {
        self.earliest(now.max(self.seen), tokens).unwrap_or_else(|at| at)
    }

    /// Until when the account gives no appointment at all, so that another one should be asked: parked, its day full,
    /// paused beyond [`HORIZON`], or in debt for more than [`LONGEST_ABSENCE`] because calls took far more tokens than
    /// they reserved. Such a debt is no appointment: it may be corrected, and nobody should be bound to it.
    pub fn away(&self, now: u64) -> Option<(u64, Why)> {
        let now = now.max(self.seen);
        if self.parked_until > now {
            return Some((self.parked_until, Why::DayQuota));
        }
        if self.paused_until > now + HORIZON {
            return Some((self.paused_until, Why::Paused));
        }
        let full = self.day.as_ref().and_then(|day| day.place(now.max(self.newest)).err());
        let debt = self.tokens.as_ref().map_or(0, |limit| limit.paid(now));
        full.map(|at| (at, Why::DayQuota)).or((debt > now + LONGEST_ABSENCE).then_some((debt, Why::Horizon)))
    }

    /// Whether an appointment can no longer be kept at `now`: it is late beyond [`Account::tolerance`], or the account was
    /// paused since. It must then be given back, never sent. To be asked right before sending.
    pub fn missed(&self, appointment: &Appointment, now: u64) -> bool {
        now > appointment.at + self.tolerance || appointment.at < self.paused_until.max(self.parked_until)
    }

    /// Returns an appointment that was not sent. At most once for each, and not after it was settled.
    pub fn give_back(&mut self, appointment: &Appointment) {
        let (&Appointment { at, tokens }, newest) = (appointment, self.newest);
        for (limit, amount) in self.taken(tokens) {
            limit.give_back(at, amount, newest);
        }
        if let Some(day) = &mut self.day {
            day.give_back(at);
        }
    }

    /// Corrects the tokens of an appointment that was sent, at the time it was sent. At most once for each. Tokens above
    /// the reservation may pass the limit, as they are spent already; later appointments wait for them. One call counts
    /// as a full minute at most: more than that no provider can have allowed.
    pub fn settle(&mut self, appointment: &Appointment, actual_tokens: u64) {
        if let Some(limit) = &mut self.tokens {
            limit.settle(appointment.at, appointment.tokens, actual_tokens);
        }
    }

    /// Nothing is sent before `until`; of several pauses the latest end wins. Appointments handed out before and due
    /// earlier are [missed](Account::missed).
    pub fn pause_until(&mut self, until: u64) {
        self.paused_until = self.paused_until.max(until);
    }

    /// A refusal of a call that was sent, for being too fast, at `now`: what it says of the limits is learned.
    /// Where that cuts one of them, which, and to what per minute.
    pub fn refused(&mut self, now: u64, refusal: Refusal) -> Option<Cut> {
        let now = self.tick(now);
        let sent = now.saturating_sub(refusal.ago);
        let (requests, said) = (&mut self.requests, refusal.limit);
        let (of, limit, amount) = match &mut self.tokens {
            Some(tokens)
                if said.of == Scarce::Tokens || said.of == Scarce::Unknown && tokens.fill(now) > requests.fill(now) =>
            {
                (Scarce::Tokens, tokens, refusal.tokens)
            }
            _ => (Scarce::Requests, requests, 1),
        };
        limit.refused(now, sent, amount, said.per_minute).map(|per_minute| Cut { of, per_minute })
    }

    /// Both limits, each with what a request of so many tokens takes of it.
    fn taken(&mut self, tokens: u64) -> impl Iterator<Item = (&mut Limit, u64)> {
        let requests = std::iter::once((&mut self.requests, 1));
        requests.chain(self.tokens.iter_mut().map(move |limit| (limit, tokens)))
    }

    /// Nothing more is sent on the day of `now`, as the provider says that its requests are used up. Returns when to come
    /// back.
    pub fn park_until_day_reset(&mut self, now: u64) -> u64 {
        let now = self.tick(now);
        self.parked_until = self.parked_until.max(self.next_reset(now) + GUARD);
        self.parked_until
    }

    /// The first moment of the next local day. Appointments of that day begin [`GUARD`] later.
    pub fn next_reset(&self, now: u64) -> u64 {
        day::next_reset(&self.limits.day_resets, now)
    }

    /// How far back [`Account::restore`] needs entries, in microseconds: the longest window and its jitter.
    pub fn reach(&self) -> u64 {
        self.requests.reach()
    }

    /// Takes over what was appointed before a restart: time and tokens of every appointment from [`Account::reach`] before
    /// `now` on that was not given back, those still to come included, in any order; and the requests of the day of
    /// `now`, those entries included. The account must be new.
    pub fn restore(&mut self, entries: impl Iterator<Item = (u64, u64)>, requests_today: u64, now: u64) {
        let now = self.tick(now);
        if let Some(day) = &mut self.day {
            day.restore(requests_today, now);
        }
        for (at, tokens) in entries {
            self.newest = self.newest.max(at);
            self.taken(tokens).for_each(|(limit, amount)| limit.log(at, amount));
            if let Some(day) = self.day.as_mut().filter(|day| at >= day.end()) {
                day.take(at);
            }
        }
        let newest = self.newest;
        self.taken(0).for_each(|(limit, _)| limit.restore(newest));
    }

    fn tick(&mut self, now: u64) -> u64 {
        self.seen = self.seen.max(now);
        self.seen
    }

    fn never(&self, tokens: u64) -> Option<String> {
        let limits = &self.limits;
        if limits.requests_per_minute == Some(0) || limits.requests_per_day == Some(0) {
            return Some("the account is limited to 0 requests; raise the limit or leave it out".into());
        }
        let limit = limits.tokens_per_minute.filter(|&limit| tokens > limit)?;
        Some(format!(
            "a request of {tokens} tokens is larger than the account's {limit} tokens per minute; send less or raise the limit"
        ))
    }

    /// The earliest time all limits allow; as an error, when to come back on another day. Each limit allows everything
    /// from some time on, so one pass over them is enough.
    fn earliest(&self, now: u64, tokens: u64) -> Result<u64, u64> {
        let mut at = now.max(self.newest).max(self.paused_until);
        at = self.requests.earliest(at, 1);
        if let Some(limit) = &self.tokens {
            at = limit.earliest(at, tokens);
        }
        self.day.as_ref().map_or(Ok(at), |day| day.place(at))
    }

    fn book(&mut self, at: u64, tokens: u64) {
        self.newest = at;
        self.taken(tokens).for_each(|(limit, amount)| limit.take(at, amount));
        if let Some(day) = &mut self.day {
            day.take(at);
        }
    }

    /// When the next caller turned away finds room in the queue: one after the other, at the pace of the account.
    fn turn_away(&mut self, now: u64, tokens: u64) -> u64 {
        let requests = MINUTE / self.requests.per_minute().max(1);
        let tokens = self.tokens.as_ref().map_or(0, |limit| tokens.saturating_mul(MINUTE) / limit.per_minute().max(1));
        let behind = self.turned_away.saturating_add(requests.max(tokens));
        let freed = behind.max(self.newest.saturating_sub(HORIZON));
        self.turned_away = freed.min(now + LONGEST_ABSENCE).max(now + 1);
        self.turned_away
    }
}

#[cfg(test)]
mod tests {
    use std::{cmp::Reverse, collections::BinaryHeap};

    use jiff::tz::TimeZone;
    use proptest::prelude::*;

    use super::*;
    use crate::quota::{NamedLimit, random::Random};

    /// 2026-03-07T12:00:00-08:00; the night after it has 23 hours in Los Angeles.
    const START: u64 = 1_772_913_600_000_000;
    const SECOND: u64 = 1_000_000;
    /// What a request may take from the client to the server's clock in these tests, at most.
    const WAY: u64 = 30_000;

    fn limits(requests: Option<u64>, tokens: Option<u64>, day: Option<u64>, spread_seconds: f64) -> Limits {
        Limits {
            requests_per_minute: requests,
            tokens_per_minute: tokens,
            requests_per_day: day,
            day_resets: TimeZone::get("America/Los_Angeles").unwrap(),
            spread_seconds,
        }
    }

    fn go(answer: Answer) -> Appointment {
        match answer {
            Answer::Go(appointment) => appointment,
            other => panic!("no appointment: {other:?}"),
        }
    }

    /// The most that ever falls into a half-open window of `stretch`.
    fn peak(arrivals: &mut [(u64, u64)], stretch: u64) -> u64 {
        arrivals.sort_unstable();
        let (mut first, mut held, mut most) = (0, 0, 0);
        for &(at, amount) in arrivals.iter() {
            held += amount;
            while arrivals[first].0 + stretch <= at {
                held -= arrivals[first].1;
                first += 1;
            }
            most = most.max(held);
        }
        most
    }

    #[test]
    fn a_request_larger_than_the_limit_is_refused_for_good_by_name() {
        let mut account = Account::new(limits(None, Some(30_000), None, 10.0));
        let Answer::Never { why } = account.appoint(START, 40_000) else { panic!() };
        assert!(why.contains("40000") && why.contains("30000"), "{why}");
        assert_eq!(go(account.appoint(START, 30_000)).at, START);
        let mut closed = Account::new(limits(Some(0), None, None, 10.0));
        assert!(matches!(closed.appoint(START, 1), Answer::Never { .. }));
    }

    #[test]
    fn without_limits_everything_goes_at_once() {
        let mut account = Account::new(limits(None, None, None, 10.0));
        assert!((0..1_000).all(|_| go(account.appoint(START, u64::MAX)).at == START));
    }

    #[test]
    fn a_full_day_waits_for_its_reset_and_reserves_nothing() {
        let mut account = Account::new(limits(Some(600), Some(1_000), Some(2), 10.0));
        let first = go(account.appoint(START, 1));
        go(account.appoint(START, 1));
        let reset = account.next_reset(START);
        // 12 hours to midnight; the next day has 23.
        assert_eq!(reset - START, 12 * 3_600 * SECOND);
        assert_eq!(account.next_reset(reset) - reset, 23 * 3_600 * SECOND);
        let full = Answer::Later { at: reset + GUARD, why: Why::DayQuota };
        assert_eq!(account.appoint(START, 900), full);
        account.give_back(&first);
        assert_eq!(go(account.appoint(START, 999)).at, START);
        assert_eq!(account.appoint(START, 1), full);
        assert!(go(account.appoint(reset + GUARD, 1)).at >= reset + GUARD);
    }

    #[test]
    fn a_day_the_provider_calls_used_up_is_parked_until_its_reset() {
        let mut account = Account::new(limits(Some(600), None, None, 10.0));
        let waiting = go(account.appoint(START, 1));
        let back = account.park_until_day_reset(START);
        assert_eq!(back, START + 12 * 3_600 * SECOND + GUARD);
        assert!(account.missed(&waiting, START));
        account.give_back(&waiting);
        assert_eq!(account.appoint(START + SECOND, 1), Answer::Later { at: back, why: Why::DayQuota });
        assert_eq!(go(account.appoint(back, 1)).at, back);
    }

    #[test]
    fn of_several_pauses_the_latest_end_wins() {
        let mut account = Account::new(limits(Some(600), None, None, 10.0));
        let waiting = go(account.appoint(START, 1));
        account.pause_until(START + 30 * SECOND);
        account.pause_until(START + 2 * SECOND);
        let paused = Answer::Later { at: START + 30 * SECOND, why: Why::Paused };
        assert_eq!(account.appoint(START, 1), paused);
        assert!(account.missed(&waiting, START), "it was due in the pause");
        let soon = go(account.appoint(START + 29 * SECOND, 1));
        assert_eq!(soon.at, START + 30 * SECOND);
        assert!(!account.missed(&soon, soon.at));
    }

    #[test]
    fn an_absurd_report_counts_as_one_full_minute() {
        let mut account = Account::new(limits(None, Some(1_000), None, 10.0));
        let sent = go(account.appoint(START, 10));
        account.settle(&sent, u64::MAX);
        let mut restored = Account::new(limits(None, Some(1_000), None, 10.0));
        restored.restore([(START, u64::MAX)].into_iter(), 0, START);
        for mut account in [account, restored] {
            assert!(go(account.appoint(START + SECOND, 1)).at > START + MINUTE);
            assert!(go(account.appoint(START + 2 * MINUTE, 900)).at <= START + 2 * MINUTE + SECOND);
        }
    }

    #[test]
    fn a_debt_beyond_a_minute_is_no_appointment() {
        let mut account = Account::new(limits(None, Some(1_000), None, 10.0));
        let sent: Vec<Appointment> = (0..10).map(|_| go(account.appoint(START, 1))).collect();
        for appointment in &sent {
            account.settle(appointment, 1_000);
        }
        let Answer::Later { at, why: Why::Horizon } = account.appoint(START + SECOND, 1) else { panic!() };
        assert!(at > START + 5 * MINUTE && at < START + 10 * MINUTE, "{}", at - START);
        assert_eq!(account.away(START + SECOND), Some((at, Why::Horizon)));
        assert_eq!(account.away(at), None);
        assert_eq!(go(account.appoint(at, 1)).at, at);
    }

    #[test]
    fn an_account_is_away_while_it_is_parked_paused_or_its_day_is_full() {
        let mut account = Account::new(limits(Some(600), None, Some(1), 10.0));
        assert_eq!(account.away(START), None);
        account.pause_until(START + HORIZON);
        assert_eq!(account.away(START), None, "so short a pause is waited for in line");
        account.pause_until(START + 30 * SECOND);
        assert_eq!(account.away(START), Some((START + 30 * SECOND, Why::Paused)));
        let after = START + 30 * SECOND;
        assert_eq!(account.away(after), None);
        go(account.appoint(after, 1));
        let reset = account.next_reset(START) + GUARD;
        assert_eq!(account.away(after), Some((reset, Why::DayQuota)));
        assert_eq!(account.park_until_day_reset(after), reset);
        assert_eq!(account.away(after), Some((reset, Why::DayQuota)));
        assert_eq!(account.away(reset), None);
    }

    #[test]
    fn an_appointment_is_missed_only_beyond_the_tolerance() {
        for (requests, spread, tolerance) in
            [(600, 10.0, 100_000), (600, 60.0, 250_000), (10, 10.0, 250_000), (6_000, 1.0, 50_000)]
        {
            let mut account = Account::new(limits(Some(requests), None, None, spread));
            let appointment = go(account.appoint(START, 1));
            assert!(!account.missed(&appointment, START + tolerance));
            assert!(account.missed(&appointment, START + tolerance + 1));
        }
    }

    #[test]
    fn a_clock_that_steps_back_frees_nothing() {
        let mut account = Account::new(limits(Some(5), None, None, 10.0));
        for _ in 0..5 {
            go(account.appoint(START, 1));
        }
        let next = go(account.appoint(START - 3_600 * SECOND, 1));
        assert!(next.at > START + MINUTE, "{}", next.at);
    }

    #[test]
    fn a_large_request_is_not_overtaken_by_small_ones() {
        let mut account = Account::new(limits(None, Some(1_000), None, 10.0));
        for i in 0..9 {
            go(account.appoint(START + i * 5 * SECOND, 100));
        }
        let large = go(account.appoint(START + 41 * SECOND, 1_000));
        assert!(large.at > START + MINUTE);
        let Answer::Later { at, why: Why::Horizon } = account.appoint(START + 42 * SECOND, 1) else { panic!() };
        assert!(go(account.appoint(at, 1)).at >= large.at);
    }

    #[test]
    fn callers_turned_away_are_told_different_times() {
        let mut account = Account::new(limits(Some(600), None, None, 10.0));
        while let Answer::Go(_) = account.appoint(START, 1) {}
        let mut times = Vec::new();
        for _ in 0..1_000 {
            let Answer::Later { at, why: Why::Horizon } = account.appoint(START, 1) else { panic!() };
            times.push(at);
        }
        assert!(times.iter().all(|&at| at > START && at <= START + LONGEST_ABSENCE));
        assert!(times.windows(2).take(500).all(|pair| pair[1] - pair[0] == 100_000));
    }

    #[test]
    fn what_is_settled_counts_at_the_time_it_was_sent() {
        let mut account = Account::new(limits(None, Some(1_000), None, 10.0));
        let first = go(account.appoint(START, 1_000));
        account.settle(&first, 100);
        let second = go(account.appoint(START + 10 * SECOND, 900));
        assert_eq!(second.at, START + 10 * SECOND);
        account.settle(&second, 950);
        let third = go(account.appoint(START + 12 * SECOND, 50));
        assert!(third.at > START + MINUTE && third.at < START + MINUTE + SECOND, "only the first has left by then");
    }

    impl Random {
        /// Lognormal with median 2 ms and 99th percentile 40 ms, in microseconds.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "milliseconds"
        )]
        fn lateness(&mut self) -> u64 {
            let normal = (0..12).map(|_| self.below(1 << 32) as f64 / 4_294_967_296.0).sum::<f64>() - 6.0;
            (2_000.0 * (1.288 * normal).exp()) as u64
        }
    }

    #[derive(Debug, Clone, Copy)]
    struct Fleet {
        workers: usize,
        stalls_per_hour: u64,
        /// Tokens of a request lie below this, from a tenth of it on; one in five is this large.
        tokens: u64,
    }

    /// Saturated demand under a virtual clock: 64 callers per 10 requests/s ask, wait, send, and ask again after 1 to 3 s.
    /// A stalled worker does nothing for 2 s; then it gives back what it missed. Returns arrivals at the server.
    fn simulate(limits: &Limits, fleet: Fleet, minutes: u64, seed: u64) -> Vec<(u64, u64)> {
        let (mut account, mut random) = (Account::new(limits.clone()), Random(seed));
        let end = START + minutes * MINUTE;
        let stalls: Vec<(usize, u64)> = (0..fleet.stalls_per_hour * minutes / 60)
            .map(|_| {
                let worker = usize::try_from(random.below(1 << 20)).unwrap() % fleet.workers;
                (worker, START + random.below(minutes * MINUTE))
            })
            .collect();
        let awake = |worker: usize, mut at: u64| {
            while let Some(stall) = stalls.iter().find(|s| s.0 == worker && s.1 <= at && at < s.1 + 2 * SECOND) {
                at = stall.1 + 2 * SECOND;
            }
            at
        };
        let callers = usize::try_from(limits.requests_per_minute.unwrap_or(600) / 600 * 64).unwrap().max(64);
        let mut events: BinaryHeap<_> =
            (0..callers).map(|caller| Reverse((START, caller, None::<(u64, u64)>))).collect();
        let mut arrivals = Vec::new();
        while let Some(Reverse((now, caller, due))) = events.pop() {
            if now > end {
                break;
            }
            let worker = caller % fleet.workers;
            let Some((at, tokens)) = due else {
                let tokens = if random.below(5) == 0 {
                    fleet.tokens
                } else {
                    fleet.tokens / 10 + random.below(fleet.tokens / 10 + 1)
                };
                events.push(Reverse(match account.appoint(now, tokens) {
                    Answer::Go(a) => (awake(worker, a.at + random.lateness()), caller, Some((a.at, tokens))),
                    Answer::Later { at, .. } => (awake(worker, at), caller, None),
                    Answer::Never { why } => panic!("{why}"),
                }));
                continue;
            };
            let appointment = Appointment { at, tokens };
            if account.missed(&appointment, now) {
                account.give_back(&appointment);
                events.push(Reverse((now, caller, None)));
                continue;
            }
            arrivals.push((now + random.below(WAY + 1), tokens));
            events.push(Reverse((awake(worker, now + SECOND + random.below(2 * SECOND)), caller, None)));
        }
        arrivals
    }

    /// Arrivals after the first minute, in thousandths of what the limit allows.
    fn used(arrivals: &[(u64, u64)], minutes: u64, limit: u64) -> u64 {
        let from = START + MINUTE;
        arrivals
            .iter()
            .filter(|(at, _)| (from..START + minutes * MINUTE).contains(at))
            .map(|(_, amount)| amount)
            .sum::<u64>()
            * 1_000
            / (limit * (minutes - 1))
    }

    fn requests(arrivals: &[(u64, u64)]) -> Vec<(u64, u64)> {
        arrivals.iter().map(|&(at, _)| (at, 1)).collect()
    }

    #[test]
    fn saturated_demand_uses_the_limit_and_passes_no_window() {
        for (n, spread, least) in
            [(600, 10.0, 975), (300, 60.0, 980), (600, 60.0, 980), (60, 10.0, 970), (10, 10.0, 970), (3_000, 10.0, 975)]
        {
            for (workers, stalls_per_hour) in [(8, 0), (8, 480), (1, 480)] {
                let fleet = Fleet { workers, stalls_per_hour, tokens: 1 };
                let mut arrivals = requests(&simulate(&limits(Some(n), None, None, spread), fleet, 21, n));
                let used = used(&arrivals, 21, n);
                println!("{n} {spread} {fleet:?}: {used}");
                if workers > 1 {
                    assert!(used >= least, "{n} {spread} {fleet:?}: {used}");
                }
                assert!(peak(&mut arrivals, MINUTE) <= n, "{n} {spread} {fleet:?}");
                if let Some((count, stretch)) = short_window(n, spread) {
                    assert!(peak(&mut arrivals, stretch) <= count, "{n} {spread} {fleet:?}");
                }
            }
        }
    }

    #[test]
    fn a_server_with_a_small_token_bucket_refuses_nothing() {
        for n in [600, 3_000] {
            for stalls_per_hour in [0, 480] {
                let fleet = Fleet { workers: 8, stalls_per_hour, tokens: 1 };
                let mut arrivals = requests(&simulate(&limits(Some(n), None, None, 10.0), fleet, 10, 7));
                arrivals.sort_unstable();
                // One second's worth, counted in microseconds; it fills up by itself.
                let (mut level, mut last) = (SECOND, START);
                for (at, _) in arrivals {
                    level = (level + at - last).min(SECOND);
                    last = at;
                    assert!(level >= MINUTE / n, "{n} {stalls_per_hour}");
                    level -= MINUTE / n;
                }
            }
        }
    }

    #[test]
    fn tokens_of_mixed_sizes_use_the_limit_and_never_pass_it() {
        let n = 2_000_000;
        for (tokens, least) in [(4_000, 980), (30_000, 970), (150_000, 900)] {
            let fleet = Fleet { workers: 8, stalls_per_hour: 480, tokens };
            let mut arrivals = simulate(&limits(None, Some(n), None, 10.0), fleet, 21, tokens);
            let used = used(&arrivals, 21, n);
            println!("{tokens}: {used}");
            assert!(used >= least, "{tokens}: {used}");
            assert!(peak(&mut arrivals, MINUTE) <= n, "{tokens}");
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// So many callers ask, one every `gap`, each for up to this share (in thousandths) of the largest request; each
        /// is late and under way for an own time.
        Ask {
            callers: usize,
            gap: u64,
            size: u64,
            seed: u64,
        },
        Wait(u64),
        GiveBack(usize),
        Settle {
            which: usize,
            share: u64,
        },
        Pause(u64),
        Refused(u64),
        ClockBack(u64),
        Restart,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            8 => (1_usize..60, 0_u64..400_000, 0_u64..1_000, any::<u64>())
                .prop_map(|(callers, gap, size, seed)| Step::Ask { callers, gap, size, seed }),
            8 => (0_u32..26).prop_flat_map(|bits| (0..1_u64 << bits).prop_map(Step::Wait)),
            3 => any::<usize>().prop_map(Step::GiveBack),
            3 => (any::<usize>(), 0_u64..=1_000).prop_map(|(which, share)| Step::Settle { which, share }),
            1 => (0..5 * SECOND).prop_map(Step::Pause),
            2 => any::<u64>().prop_map(Step::Refused),
            1 => (0..90 * SECOND).prop_map(Step::ClockBack),
            1 => Just(Step::Restart),
        ];
        prop::collection::vec(step, 1..120)
    }

    fn some_limits() -> impl Strategy<Value = Limits> {
        let requests = prop_oneof![Just(None), (1_u64..2_000).prop_map(Some), Just(Some(600))];
        let tokens = prop_oneof![Just(None), (1_000_u64..100_000).prop_map(Some)];
        let day = prop_oneof![3 => Just(None), 1 => (1_u64..300).prop_map(Some)];
        let spread = prop_oneof![Just(10.0), Just(1.0), Just(30.0), Just(60.0)];
        (requests, tokens, day, spread).prop_map(|(r, t, d, s)| limits(r, t, d, s))
    }

    /// An appointment and what became of it.
    #[derive(Debug)]
    struct Entry {
        appointment: Appointment,
        attempt: u64,
        arrival: u64,
        actual: u64,
        fate: Fate,
    }

    #[derive(Debug, PartialEq)]
    enum Fate {
        Waiting,
        Sent,
        Settled,
        Returned,
    }

    struct World {
        account: Account,
        entries: Vec<Entry>,
        now: u64,
        paused: u64,
    }

    impl World {
        fn run(&mut self, step: &Step) {
            match *step {
                Step::Ask { callers, gap, size, seed } => {
                    let largest = self.account.limits.tokens_per_minute.unwrap_or(1_000_000);
                    let mut random = Random(seed);
                    for _ in 0..callers {
                        let latest = if random.below(8) == 0 { 300_000 } else { self.account.tolerance + 1 };
                        let late = random.below(latest);
                        let way = random.below(WAY + 1);
                        self.ask(self.now, random.below(largest * size / 1_000 + 1), late, way);
                        self.now += gap;
                        self.send_due();
                    }
                }
                Step::Wait(time) => self.now += time,
                Step::GiveBack(which) => {
                    let waiting = self.entries.iter_mut().filter(|e| e.fate == Fate::Waiting);
                    let waiting: Vec<_> = waiting.collect();
                    let index = which % waiting.len().max(1);
                    if let Some(entry) = waiting.into_iter().nth(index) {
                        entry.fate = Fate::Returned;
                        self.account.give_back(&entry.appointment);
                    }
                }
                Step::Settle { which, share } => {
                    let sent: Vec<_> = self.entries.iter_mut().filter(|e| e.fate == Fate::Sent).collect();
                    let index = which % sent.len().max(1);
                    if let Some(entry) = sent.into_iter().nth(index) {
                        entry.fate = Fate::Settled;
                        entry.actual = entry.appointment.tokens * share / 1_000;
                        self.account.settle(&entry.appointment, entry.actual);
                    }
                }
                Step::Pause(time) => {
                    self.paused = self.paused.max(self.now + time);
                    self.account.pause_until(self.paused);
                }
                Step::Refused(seed) => {
                    let mut random = Random(seed);
                    let of =
                        [Scarce::Unknown, Scarce::Requests, Scarce::Tokens][usize::try_from(random.below(3)).unwrap()];
                    let per_minute = (random.below(2) == 0).then(|| random.below(2_000));
                    let refusal = Refusal {
                        ago: random.below(2 * SECOND),
                        tokens: random.below(100_000),
                        limit: NamedLimit { of, per_minute },
                    };
                    self.account.refused(self.now, refusal);
                }
                Step::ClockBack(time) => {
                    self.account.tick(self.now);
                    self.ask(self.now - time, 0, 0, 0);
                }
                Step::Restart => self.restart(),
            }
            self.send_due();
        }

        fn ask(&mut self, clock: u64, tokens: u64, late: u64, way: u64) {
            match self.account.appoint(clock, tokens) {
                Answer::Go(appointment) => {
                    assert!(appointment.at >= self.now, "an appointment in the past");
                    assert!(appointment.at >= self.paused, "an appointment in a pause");
                    let newest =
                        self.entries.iter().rev().find(|e| e.fate != Fate::Returned).map_or(0, |e| e.appointment.at);
                    assert!(appointment.at >= newest, "overtaken");
                    let attempt = appointment.at + late;
                    let actual = appointment.tokens;
                    self.entries.push(Entry {
                        attempt,
                        arrival: attempt + way,
                        actual,
                        fate: Fate::Waiting,
                        appointment,
                    });
                }
                Answer::Later { at, .. } => assert!(at > self.now, "told to come back in the past"),
                Answer::Never { why } => panic!("{why}"),
            }
        }

        fn send_due(&mut self) {
            for entry in self.entries.iter_mut().filter(|e| e.fate == Fate::Waiting && e.attempt <= self.now) {
                if self.account.missed(&entry.appointment, entry.attempt) {
                    entry.fate = Fate::Returned;
                    self.account.give_back(&entry.appointment);
                } else {
                    entry.fate = Fate::Sent;
                }
            }
        }

        fn restart(&mut self) {
            let mut account = Account::new(self.account.limits.clone());
            let live = || self.entries.iter().filter(|e| e.fate != Fate::Returned);
            let (from, zone) = (self.now.saturating_sub(account.reach()), &account.limits.day_resets);
            let today = day::next_reset(zone, self.now);
            let count = live().filter(|e| day::next_reset(zone, e.appointment.at) == today).count();
            let kept: Vec<_> = live().filter(|e| e.appointment.at >= from).collect();
            account.restore(kept.iter().rev().map(|e| (e.appointment.at, e.actual)), count as u64, self.now);
            account.pause_until(self.paused);
            self.account = account;
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_history_passes_a_limit(limits in some_limits(), steps in steps(), start in 0..100 * SECOND) {
            // The steps begin shortly before a midnight, so that many of them cross it.
            let now = START + 12 * 3_600 * SECOND - start;
            let mut world = World { account: Account::new(limits.clone()), entries: Vec::new(), now, paused: 0 };
            for step in &steps {
                world.run(step);
            }
            world.now += 10 * MINUTE;
            world.send_due();
            let sent: Vec<_> = world.entries.iter().filter(|e| e.fate != Fate::Returned).collect();
            let mut arrivals: Vec<_> = sent.iter().map(|e| (e.arrival, 1)).collect();
            if let Some(n) = limits.requests_per_minute {
                prop_assert!(peak(&mut arrivals, MINUTE) <= n);
                if let Some((count, stretch)) = short_window(n, limits.spread_seconds) {
                    prop_assert!(peak(&mut arrivals, stretch) <= count);
                }
            }
            if let Some(n) = limits.tokens_per_minute {
                let mut tokens: Vec<_> = sent.iter().map(|e| (e.arrival, e.actual)).collect();
                prop_assert!(peak(&mut tokens, MINUTE) <= n);
            }
            if let Some(n) = limits.requests_per_day {
                let mut days = std::collections::BTreeMap::new();
                for &(at, _) in &arrivals {
                    *days.entry(day::next_reset(&limits.day_resets, at)).or_insert(0) += 1;
                }
                prop_assert!(days.values().all(|&count| count <= n), "{days:?}");
            }
        }
    }
}

//! What refusals teach of a limit that is declared too high, or not at all.
//!
//! Additive increase, multiplicative decrease, one cut for each burst of refusals. A provider that refuses has let pass as much
//! as it allows: what passed in the minute before a refusal is the limit itself, however bursts and windows lie, so a
//! cut goes 3 % below that. Calls that were sent before a cut, or within ten seconds of it, say nothing new. Some providers
//! refuse now and then whatever the rate; hence a cut takes three refusals and a share of the calls: one in a hundred, twice
//! what is refused right after a cut, and in the minute after a cut, which measures that, one in twelve.
//!
//! What passed is remembered as a wall: the way back to it takes a minute, around it the limit rises slowly (0.5 % a minute,
//! or every probe would be a burst of refusals), and beyond it, where the provider must have raised the limit, faster and
//! faster; the shape is that of CUBIC (RFC 9438). What is declared is never passed, and a figure that the provider names is
//! believed for an hour. Amounts are thousandths, so that small limits move too.

use crate::quota::MINUTE;

/// Percent that a cut goes below what passed.
const CUT: u64 = 3;
/// Fewer refusals change nothing.
const REFUSALS: u64 = 3;
/// Refusals among a thousand calls that are enough for a cut; and in the minute after one.
const FEW: u64 = 10;
const MANY: u64 = 80;
/// A share is not reckoned from fewer calls.
const CALLS: u64 = 300;
/// Nothing is cut to less than this part of what is declared.
const LEAST: u64 = 20;
/// Between two raises, in microseconds.
const RAISE: u64 = MINUTE / 6;
/// How long a figure that a provider named is believed, in microseconds.
const BELIEVED: u64 = 60 * MINUTE;
/// Thousandths of one.
const ONE: u64 = 1_000;
/// So long a cut takes to show, in microseconds: until then the provider's windows are full of what was sent before.
const SETTLE: u64 = MINUTE / 6;
/// No raise is smaller, in thousandths.
const STEP: u64 = 50;
/// No limit is larger: what is reckoned with one stays below 2^53.
pub const MOST: u64 = 10_000_000_000;

/// One limit as it was declared, and what is known of it.
#[derive(Debug, Clone, Default)]
pub struct Learned {
    /// Per minute; 0: not declared.
    declared: u64,
    /// Thousandths per minute; 0: as declared.
    allowed: u64,
    /// What passed when it was cut last, in thousandths.
    wall: u64,
    cut_at: u64,
    /// Whether what passed then was measured over a whole minute.
    sure: bool,
    /// Since when calls, and refusals among them, are counted.
    counted: u64,
    calls: u64,
    refusals: u64,
    /// The count that began with a cut is not over.
    fresh: bool,
    /// Refusals among a thousand calls whatever the rate.
    noise: u64,
    raised_at: u64,
    raises: u64,
    /// What the provider named, and when; 0: nothing.
    told: u64,
    told_at: u64,
}

/// What a provider let pass in the minute before a refusal.
#[derive(Debug, Clone, Copy)]
pub struct Passed {
    /// Per minute.
    pub per_minute: u64,
    /// Whether a whole minute was measured.
    pub whole: bool,
}

impl Learned {
    /// A limit of which nothing but its declaration is known.
    pub fn new(declared: Option<u64>) -> Self {
        Self { declared: declared.unwrap_or(0).min(MOST), ..Self::default() }
    }

    /// What may be used in a minute; none: as much as is declared.
    pub fn per_minute(&self) -> Option<u64> {
        (self.allowed > 0).then(|| (self.allowed / ONE).max(1))
    }

    /// A refusal, at `now`, of a call that was sent at `sent`; `told`: the limit that the provider names. Whether it cuts.
    pub fn refused(&mut self, now: u64, sent: u64, passed: Passed, told: Option<u64>) -> bool {
        if self.settles(sent) {
            return false;
        }
        self.refusals += 1;
        let current = self.current();
        let least = (self.declared * ONE / LEAST).max(ONE);
        let told = told.filter(|&told| told > 0 && told <= MOST).map(|told| told.max(least.div_ceil(ONE)));
        if let Some(told) = told {
            (self.told, self.told_at) = (told, now);
        }
        if let Some(told) = told.filter(|told| current.is_none_or(|current| told * ONE < current)) {
            (self.wall, self.allowed, self.sure) = (told * ONE, told * ONE, true);
        } else {
            let measuring = self.cut_at > 0 && now < self.cut_at + MINUTE;
            let enough = if measuring { MANY } else { FEW.max(2 * self.noise) };
            if self.refusals < REFUSALS || self.refusals * ONE < self.calls.max(CALLS) * enough {
                return false;
            }
            let passing = passed.per_minute.clamp(1, MOST) * ONE;
            self.wall = current.map_or(passing, |current| passing.clamp(current / 2, current));
            self.allowed = (self.wall - self.wall * CUT / 100).max(least);
            self.sure = passed.whole;
        }
        (self.cut_at, self.raised_at, self.raises) = (now, now, 0);
        (self.counted, self.calls, self.refusals, self.fresh) = (now, 0, 0, true);
        true
    }

    /// A call that will be sent at `at`.
    pub fn called(&mut self, at: u64) {
        if self.settles(at) {
            return;
        }
        if self.calls >= CALLS && at >= self.counted + MINUTE {
            let share = self.refusals * ONE / self.calls;
            self.noise = if self.fresh && self.sure { share.min(MANY) } else { share.min(self.noise) };
            (self.counted, self.calls, self.refusals, self.fresh) = (at, 0, 0, false);
        }
        self.calls += 1;
    }

    /// Raises what was cut, where it is in use: of a limit that nobody comes near nothing is learned. Whether it did.
    pub fn raise(&mut self, now: u64, used: impl FnOnce() -> u64) -> bool {
        if self.allowed == 0 || now < self.raised_at + RAISE {
            return false;
        }
        self.raised_at = now;
        if self.per_minute().is_none_or(|allowed| used().min(MOST) * 10 < allowed * 8) {
            return false;
        }
        let step = if self.allowed * 1_000 < self.wall * 995 {
            self.wall / 200
        } else if self.allowed * 1_000 <= self.wall * 1_005 {
            self.wall / 1_200
        } else {
            self.raises = (self.raises + 1).min(60);
            self.allowed / 600 * self.raises
        };
        let believed = self.told > 0 && now < self.told_at + BELIEVED;
        let most = if believed { self.told * ONE } else { MOST * ONE };
        self.allowed = (self.allowed + step.max(STEP)).min(most).max(self.allowed);
        if self.declared > 0 && self.allowed >= self.declared * ONE {
            (self.allowed, self.wall) = (0, 0);
        }
        true
    }

    /// Whether what is sent then says nothing of the last cut.
    fn settles(&self, sent: u64) -> bool {
        self.cut_at > 0 && sent < self.cut_at + SETTLE
    }

    fn current(&self) -> Option<u64> {
        match self.allowed {
            0 => (self.declared > 0).then_some(self.declared * ONE),
            allowed => Some(allowed),
        }
    }
}

#[cfg(test)]
mod world;

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_700_000_000_000_000;
    const SECOND: u64 = 1_000_000;

    /// So many calls at so many seconds, some of which are refused.
    fn at(limit: &mut Learned, seconds: u64, calls: u32, refusals: u32, passed: u64) -> Option<u64> {
        let now = START + seconds * SECOND;
        let passed = Passed { per_minute: passed, whole: true };
        (0..calls).for_each(|_| limit.called(now));
        (0..refusals).for_each(|_| _ = limit.refused(now, now, passed, None));
        limit.per_minute()
    }

    fn told(limit: &mut Learned, now: u64, figure: u64) -> Option<u64> {
        limit.refused(now, now, Passed { per_minute: 1_200, whole: true }, Some(figure));
        limit.per_minute()
    }

    #[test]
    fn three_refusals_cut_to_less_than_what_passed_and_what_was_sent_before_says_nothing_new() {
        let mut limit = Learned::new(Some(1_000));
        assert_eq!(at(&mut limit, 0, 100, 2, 900), None);
        assert_eq!(at(&mut limit, 0, 1, 1, 900), Some(873));
        assert_eq!(at(&mut limit, 9, 0, 100, 600), Some(873), "sent too soon after it");
        assert_eq!(at(&mut limit, 11, 700, 23, 600), Some(873), "3 of 100 sent after the cut");
        assert_eq!(at(&mut limit, 12, 0, 33, 600), Some(582), "8 of 100 are many");
    }

    #[test]
    fn what_is_refused_whatever_the_rate_cuts_once_and_is_then_taken_for_granted() {
        let mut limit = Learned::new(Some(1_000));
        assert_eq!(at(&mut limit, 0, 300, 3, 980), Some(950));
        assert_eq!(at(&mut limit, 20, 400, 8, 950), Some(950));
        for minute in 2..60 {
            assert_eq!(at(&mut limit, minute * 60, 400, 8, 950), Some(950), "2 of 100");
        }
        assert_eq!(at(&mut limit, 3_600, 0, 9, 900), Some(873), "more than twice as many are not");
    }

    #[test]
    fn a_share_that_was_measured_before_a_whole_minute_had_passed_is_not_taken_for_granted() {
        let mut limit = Learned::new(Some(1_000));
        let passed = Passed { per_minute: 980, whole: false };
        (0..3).for_each(|_| _ = limit.refused(START, START, passed, None));
        assert_eq!(limit.per_minute(), Some(950));
        assert_eq!(at(&mut limit, 20, 400, 8, 940), Some(950));
        assert_eq!(at(&mut limit, 80, 1, 3, 940), Some(911));
    }

    #[test]
    fn one_cut_takes_no_more_than_half() {
        assert_eq!(at(&mut Learned::new(Some(1_000)), 0, 10, 3, 10), Some(485));
    }

    #[test]
    fn a_limit_nobody_declared_begins_at_what_passed() {
        assert_eq!(at(&mut Learned::new(None), 0, 10, 3, 500), Some(485));
    }

    #[test]
    fn it_is_back_near_the_wall_in_a_minute_rises_slowly_around_it_and_not_while_it_is_not_in_use() {
        let mut limit = Learned::new(Some(110_000));
        at(&mut limit, 0, 10, 3, 100_000);
        assert_eq!(limit.per_minute(), Some(97_000));
        assert!((1..=6).all(|n| limit.raise(START + n * RAISE, || 97_000)));
        assert_eq!(limit.per_minute(), Some(99_583));
        assert!((7..=12).all(|n| limit.raise(START + n * RAISE, || 99_000)));
        assert_eq!(limit.per_minute(), Some(100_083));
        assert!(!(13..=60).any(|n| limit.raise(START + n * RAISE, || 50_000)));
        assert_eq!(limit.per_minute(), Some(100_083));
        for n in 61..=90 {
            limit.raise(START + n * RAISE, || 100_000);
        }
        assert_eq!(limit.per_minute(), None, "it is as declared again, and never more");
    }

    #[test]
    fn from_the_smallest_limit_it_is_back_within_half_an_hour_of_full_use() {
        for declared in [Some(2), Some(60), Some(1_000), Some(2_000_000), None] {
            let mut limit = Learned::new(declared);
            (0..100).for_each(|n| _ = told(&mut limit, START + n * 4 * SECOND, 1));
            let enough = declared.unwrap_or(500);
            let raises = (1..2_000).take_while(|n| {
                let allowed = limit.per_minute().unwrap_or(u64::MAX);
                limit.raise(START + 70 * MINUTE + n * RAISE, || allowed);
                allowed < enough
            });
            assert!(raises.count() < 6 * 30, "{declared:?}: {limit:?}");
        }
    }

    #[test]
    fn an_absurdly_small_figure_neither_takes_all_nor_makes_it_go_up_and_down() {
        let mut limit = Learned::new(Some(1_000));
        assert_eq!(told(&mut limit, START, 1), Some(50));
        limit.raise(START + RAISE, || 50);
        assert_eq!(limit.per_minute(), Some(50));
        assert_eq!(at(&mut limit, 120, 0, 3, 50), Some(50));
    }

    #[test]
    fn a_figure_that_the_provider_names_is_taken_as_it_is_and_kept_for_an_hour() {
        let mut limit = Learned::new(Some(1_440));
        assert_eq!(told(&mut limit, START, 1_200), Some(1_200));
        for n in 1..360 {
            limit.raise(START + n * RAISE, || 1_200);
        }
        assert_eq!(limit.per_minute(), Some(1_200));
        for n in 360..720 {
            limit.raise(START + n * RAISE, || 1_440);
        }
        assert_eq!(limit.per_minute(), None, "later it is found out again");
        assert_eq!(told(&mut limit, START + 720 * RAISE, u64::MAX), None, "an absurd figure is none");
    }

    #[test]
    fn nothing_is_cut_to_less_than_one_nor_than_a_twentieth_of_what_is_declared() {
        for (declared, least) in [(Some(2), 1), (None, 1), (Some(1_000), 50)] {
            let mut limit = Learned::new(declared);
            (0..100).for_each(|n| _ = at(&mut limit, n * 15, 0, 30, 0));
            assert_eq!(limit.per_minute(), Some(least), "{declared:?}");
        }
    }
}

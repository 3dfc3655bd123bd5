//! What refusals teach of a limit that is declared too high, or not at all.
//!
//! Additive increase, multiplicative decrease, one cut for each burst of refusals: calls that were sent before a cut, or within
//! ten seconds of it, say nothing new, and a few refusals in the minute after it change nothing, since some providers refuse now and then whatever the
//! rate. A cut takes 3 % of what was in use. Where one call in twelve is still refused, the next one comes at once and takes
//! more and more, so that a limit that is far too high is left in seconds. What was refused is remembered as a wall: below it the way back is fast, around it slow (0.5 % a
//! minute, or every probe would be a burst of refusals), and beyond it, where the provider must have raised the limit,
//! faster and faster; the shape is that of CUBIC (RFC 9438). What is declared is never passed, and a figure that the
//! provider names is believed for an hour. Amounts are thousandths, so that small limits move too.

use crate::quota::MINUTE;

/// Percent that a cut takes, by how many came before it within a minute each.
const CUTS: [u64; 5] = [3, 6, 12, 25, 50];
/// Refusals since a cut that are enough for the next one within a minute, and their percentage of calls.
const MANY: (u64, u64) = (3, 8);
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
#[derive(Debug, Clone)]
pub struct Learned {
    /// Per minute; 0: not declared.
    declared: u64,
    /// Thousandths per minute; 0: as declared.
    allowed: u64,
    /// Where it was refused last, in thousandths.
    wall: u64,
    cut_at: u64,
    cuts: usize,
    /// Calls, and refusals among them, since the cut.
    calls: u64,
    refusals: u64,
    raised_at: u64,
    raises: u32,
    /// What the provider named, and when; 0: nothing.
    told: u64,
    told_at: u64,
}

impl Learned {
    /// A limit of which nothing but its declaration is known.
    pub fn new(declared: Option<u64>) -> Self {
        let declared = declared.unwrap_or(0).min(MOST);
        let (allowed, wall, cut_at, cuts, calls, refusals) = (0, 0, 0, 0, 0, 0);
        let (raised_at, raises, told, told_at) = (0, 0, 0, 0);
        Self { declared, allowed, wall, cut_at, cuts, calls, refusals, raised_at, raises, told, told_at }
    }

    /// What may be used in a minute; none: as much as is declared.
    pub fn per_minute(&self) -> Option<u64> {
        (self.allowed > 0).then(|| (self.allowed / ONE).max(1))
    }

    /// A refusal, at `now`, of a call that was sent at `sent`, while `used` per minute were in use; `told`: the limit that the
    /// provider names.
    pub fn refused(&mut self, now: u64, sent: u64, used: u64, told: Option<u64>) {
        if self.cut_at > 0 && sent < self.cut_at + SETTLE {
            return;
        }
        self.refusals += 1;
        let again = self.cut_at > 0 && now < self.cut_at + MINUTE;
        let many = self.refusals >= MANY.0 && self.refusals * 100 >= self.calls * MANY.1;
        if again && !many {
            return;
        }
        let current = self.current();
        let least = (self.declared * ONE / LEAST).max(ONE);
        let told = told.filter(|&told| told > 0 && told <= MOST).map(|told| told.max(least.div_ceil(ONE)));
        if let Some(told) = told {
            (self.told, self.told_at) = (told, now);
        }
        if let Some(told) = told.filter(|told| current.is_none_or(|current| told * ONE < current)) {
            (self.wall, self.allowed, self.cuts) = (told * ONE, told * ONE, 0);
        } else {
            self.cuts = if again { (self.cuts + 1).min(CUTS.len() - 1) } else { 0 };
            let used = used.clamp(1, MOST) * ONE;
            // One refusal far below what is allowed says little; many say that much less is allowed.
            self.wall = match current {
                None => used,
                Some(current) if many => current.min(used.max(current / 2)),
                Some(current) => current,
            };
            self.allowed = (self.wall - self.wall * CUTS[self.cuts] / 100).max(least);
        }
        (self.cut_at, self.raised_at, self.raises) = (now, now, 0);
        (self.calls, self.refusals) = (0, 0);
    }

    /// A call that will be sent at `at`.
    pub fn called(&mut self, at: u64) {
        self.calls += u64::from(self.cut_at > 0 && at >= self.cut_at + SETTLE);
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
        let step = if self.allowed * 100 < self.wall * 95 {
            self.wall / 30
        } else if self.allowed * 100 <= self.wall * 105 {
            self.wall / 1_200
        } else {
            self.raises = (self.raises + 1).min(10);
            (self.allowed / 1_200 * (1 << self.raises)).min(self.allowed / 10)
        };
        let believed = self.told > 0 && now < self.told_at + BELIEVED;
        let most = if believed { self.told * ONE } else { MOST * ONE };
        self.allowed = (self.allowed + step.max(STEP)).min(most).max(self.allowed);
        if self.declared > 0 && self.allowed >= self.declared * ONE {
            (self.allowed, self.wall) = (0, 0);
        }
        true
    }

    fn current(&self) -> Option<u64> {
        match self.allowed {
            0 => (self.declared > 0).then_some(self.declared * ONE),
            allowed => Some(allowed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_700_000_000_000_000;
    const SECOND: u64 = 1_000_000;

    #[test]
    fn a_burst_of_refusals_is_one_cut_and_what_was_sent_before_it_says_nothing_new() {
        let mut limit = Learned::new(Some(1_000));
        assert_eq!(limit.per_minute(), None);
        for ago in [SECOND, 2 * SECOND, SECOND / 2] {
            limit.refused(START, START - ago, 1_000, None);
            assert_eq!(limit.per_minute(), Some(970));
        }
        let refused = |limit: &mut Learned, calls: u32, seconds| {
            (0..calls).for_each(|_| limit.called(START + seconds * SECOND));
            limit.refused(START + seconds * SECOND, START + seconds * SECOND, 1_000, None);
            limit.per_minute()
        };
        assert_eq!(refused(&mut limit, 0, 9), Some(970), "too soon after it");
        let after = [11, 12, 13].map(|seconds| refused(&mut limit, 20, seconds));
        assert_eq!(after, [Some(970); 3], "3 of 60 calls sent after the cut");
        assert_eq!(refused(&mut limit, 20, 61), Some(940), "a minute later they count");
        let after = [72, 73, 74].map(|seconds| refused(&mut limit, 5, seconds));
        assert_eq!(after, [Some(940), Some(940), Some(884)], "3 of 15 calls are many: 6 % more at once");
    }

    #[test]
    fn a_limit_ten_times_too_high_is_left_with_a_few_cuts() {
        let mut limit = Learned::new(Some(10_000));
        let refusals = (1..60).take_while(|n| {
            limit.refused(START + n * 4 * SECOND, START + n * 4 * SECOND, 10_000, None);
            limit.per_minute() > Some(1_000)
        });
        assert!(refusals.count() * 4 < 140, "in two minutes: {limit:?}");
    }

    #[test]
    fn a_limit_nobody_declared_begins_at_what_was_in_use() {
        let mut limit = Learned::new(None);
        limit.refused(START, START, 500, None);
        assert_eq!(limit.per_minute(), Some(485));
    }

    #[test]
    fn around_the_wall_it_rises_by_half_a_percent_a_minute_and_not_while_it_is_not_in_use() {
        let mut limit = Learned::new(Some(100_000));
        limit.refused(START, START, 100_000, None);
        assert!((1..=6).all(|n| limit.raise(START + n * RAISE, || 97_000)));
        assert_eq!(limit.per_minute(), Some(97_499));
        assert!(!(7..=60).any(|n| limit.raise(START + n * RAISE, || 50_000)));
        assert_eq!(limit.per_minute(), Some(97_499));
        for n in 61..=95 {
            limit.raise(START + n * RAISE, || 97_500);
        }
        assert_eq!(limit.per_minute(), None, "it is as declared again, and never more");
    }

    #[test]
    fn a_wall_that_is_gone_is_left_behind_faster_and_faster() {
        let mut limit = Learned::new(Some(100_000));
        for n in 0..25 {
            limit.refused(START + n * 4 * SECOND, START + n * 4 * SECOND, 100_000, None);
        }
        assert!(limit.per_minute() < Some(35_000), "{limit:?}");
        let raises = (1..1_000).take_while(|n| {
            limit.raise(START + 100 * SECOND + n * RAISE, || 100_000);
            limit.per_minute().is_some()
        });
        assert!(raises.count() < 6 * 25, "within 25 minutes: {limit:?}");
    }

    #[test]
    fn from_the_smallest_limit_it_is_back_within_half_an_hour_of_full_use() {
        for declared in [Some(2), Some(60), Some(1_000), Some(2_000_000), None] {
            let mut limit = Learned::new(declared);
            (0..100).for_each(|n| limit.refused(START + n * 4 * SECOND, START + n * 4 * SECOND, 0, Some(1)));
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
    fn a_lone_refusal_far_below_the_limit_takes_three_percent() {
        let mut limit = Learned::new(Some(1_000));
        let after = [0, 2, 4].map(|minutes| {
            limit.refused(START + minutes * MINUTE, START + minutes * MINUTE, 10, None);
            limit.per_minute()
        });
        assert_eq!(after, [Some(970), Some(940), Some(912)]);
    }

    #[test]
    fn an_absurdly_small_figure_neither_takes_all_nor_makes_it_go_up_and_down() {
        let mut limit = Learned::new(Some(1_000));
        limit.refused(START, START, 500, Some(1));
        assert_eq!(limit.per_minute(), Some(50));
        limit.raise(START + RAISE, || 50);
        assert_eq!(limit.per_minute(), Some(50));
        limit.refused(START + 2 * MINUTE, START + 2 * MINUTE, 50, None);
        assert_eq!(limit.per_minute(), Some(50));
    }

    #[test]
    fn a_figure_that_the_provider_names_is_taken_as_it_is_and_kept_for_an_hour() {
        let mut limit = Learned::new(Some(1_440));
        limit.refused(START, START, 1_300, Some(1_200));
        assert_eq!(limit.per_minute(), Some(1_200));
        for n in 1..360 {
            limit.raise(START + n * RAISE, || 1_200);
        }
        assert_eq!(limit.per_minute(), Some(1_200));
        for n in 360..720 {
            limit.raise(START + n * RAISE, || 1_440);
        }
        assert_eq!(limit.per_minute(), None, "later it is found out again");
        limit.refused(START + 720 * RAISE, START + 720 * RAISE, 1_440, Some(u64::MAX));
        assert!(limit.per_minute() > Some(1_390), "an absurd figure is none");
    }

    #[test]
    fn nothing_is_cut_to_less_than_one_nor_than_a_twentieth_of_what_is_declared() {
        for (declared, least) in [(Some(2), 1), (None, 1), (Some(1_000), 50)] {
            let mut limit = Learned::new(declared);
            (0..100).for_each(|n| limit.refused(START + n * 4 * SECOND, START + n * 4 * SECOND, 0, None));
            assert_eq!(limit.per_minute(), Some(least), "{declared:?}");
        }
    }
}

//! Requests of one local day.
//!
//! A counter, since providers count days from midnight in their own zone and give it all back at once; the length of a day
//! follows that zone's clock changes. Nothing is appointed within [`GUARD`] of a midnight: which day such a request counts
//! for depends on the way it takes and on the difference between two clocks.

use jiff::{Timestamp, tz::TimeZone};

/// How far appointments keep from a midnight, in microseconds.
pub const GUARD: u64 = 1_000_000;

/// The length of a day of UTC, in microseconds.
pub(crate) const DAY: u64 = 86_400_000_000;

/// The count of one day, which moves on with the appointments.
#[derive(Debug, Clone)]
pub struct DayCount {
    limit: u64,
    zone: TimeZone,
    /// The day that is counted: from its midnight to the next.
    start: u64,
    end: u64,
    count: u64,
}

impl DayCount {
    /// At most `limit` from one midnight in `zone` to the next.
    pub fn new(limit: u64, zone: TimeZone) -> Self {
        Self { limit, zone, start: 0, end: 0, count: 0 }
    }

    /// The first time from `at` on that is safely inside its day, when that day has room; else, as an error, the time
    /// from which the next day may be used.
    pub fn place(&self, at: u64) -> Result<u64, u64> {
        let (start, end) = self.day_of(at);
        if end - at <= GUARD {
            return self.room(end + GUARD, end);
        }
        self.room(at.max(start + GUARD), start).map_err(|_| end + GUARD)
    }

    /// Counts a request at `at`; one of a day that is over is left out.
    pub fn take(&mut self, at: u64) {
        if at >= self.end {
            (self.start, self.end) = bounds(&self.zone, at);
            self.count = 0;
        }
        if at >= self.start {
            self.count += 1;
        }
    }

    /// Takes back a request at `at`, when its day is still the one that is counted.
    pub fn give_back(&mut self, at: u64) {
        if (self.start..self.end).contains(&at) {
            self.count = self.count.saturating_sub(1);
        }
    }

    /// Makes the day of `now` the one that is counted, with `count` requests.
    pub fn restore(&mut self, count: u64, now: u64) {
        (self.start, self.end) = bounds(&self.zone, now);
        self.count = count;
    }

    /// The midnight that ends the day that is counted.
    pub fn end(&self) -> u64 {
        self.end
    }

    fn room(&self, at: u64, day: u64) -> Result<u64, u64> {
        if day == self.start && self.count >= self.limit { Err(self.end + GUARD) } else { Ok(at) }
    }

    fn day_of(&self, at: u64) -> (u64, u64) {
        if (self.start..self.end).contains(&at) { (self.start, self.end) } else { bounds(&self.zone, at) }
    }
}

/// The midnights that bound the day before `at`, that of `at`, and the day after.
#[cfg(feature = "fleet")]
pub(super) fn midnights(zone: &TimeZone, at: u64) -> [u64; 4] {
    let (start, end) = bounds(zone, at);
    [last_reset(zone, start.saturating_sub(1)), start, end, next_reset(zone, end)]
}

/// The first midnight in `zone` after `at`; where clocks skip midnight, the first moment of the new day.
pub fn next_reset(zone: &TimeZone, at: u64) -> u64 {
    bounds(zone, at).1
}

/// The midnight in `zone` that began the day of `at`.
pub fn last_reset(zone: &TimeZone, at: u64) -> u64 {
    bounds(zone, at).0
}

/// The local day that holds `at`, as microseconds of its midnight and of the next. Beyond the calendar: the day in UTC.
fn bounds(zone: &TimeZone, at: u64) -> (u64, u64) {
    local_day(zone, at).filter(|day| (day.0..day.1).contains(&at)).unwrap_or((at / DAY * DAY, (at / DAY + 1) * DAY))
}

fn local_day(zone: &TimeZone, at: u64) -> Option<(u64, u64)> {
    let moment = Timestamp::from_microsecond(i64::try_from(at).ok()?).ok()?.to_zoned_datetime(zone.clone());
    let start = moment.start_of_day().ok()?;
    let end = moment.date().tomorrow().ok()?.to_zoned_datetime(zone.clone()).ok()?.start_of_day().ok()?;
    let micros = |time: jiff::Timestamp| u64::try_from(time.as_microsecond()).ok();
    Some((micros(start.timestamp()).unwrap_or(0), micros(end.timestamp())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(text: &str) -> u64 {
        let time: Timestamp = text.parse().unwrap();
        u64::try_from(time.as_microsecond()).unwrap()
    }

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    #[test]
    fn the_reset_is_the_first_moment_of_the_next_local_day() {
        for (name, at, reset) in [
            ("UTC", "2026-03-08T00:00:00Z", "2026-03-09T00:00:00Z"),
            ("America/Los_Angeles", "2026-03-07T12:00:00Z", "2026-03-08T08:00:00Z"),
            // 23 hours, then 25.
            ("America/Los_Angeles", "2026-03-08T08:00:00Z", "2026-03-09T07:00:00Z"),
            ("America/Los_Angeles", "2026-11-01T07:00:00Z", "2026-11-02T08:00:00Z"),
            // The second 01:30 of that night.
            ("America/Los_Angeles", "2026-11-01T09:30:00Z", "2026-11-02T08:00:00Z"),
            // Clocks go from 23:59:59 to 01:00:00.
            ("America/Sao_Paulo", "2018-11-03T12:00:00Z", "2018-11-04T03:00:00Z"),
            ("America/Sao_Paulo", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"),
            // Clocks go from 00:59:59 back to 00:00:00: midnight comes twice, the first one counts.
            ("America/Havana", "2020-10-31T12:00:00Z", "2020-11-01T04:00:00Z"),
            ("America/Havana", "2020-11-01T04:30:00Z", "2020-11-02T05:00:00Z"),
            ("America/Havana", "2020-11-01T05:30:00Z", "2020-11-02T05:00:00Z"),
        ] {
            assert_eq!(next_reset(&zone(name), micros(at)), micros(reset), "{name} {at}");
        }
    }

    #[test]
    fn a_full_day_sends_everyone_to_the_next_one() {
        let mut day = DayCount::new(2, zone("America/Los_Angeles"));
        let (noon, reset) = (micros("2026-03-08T19:00:00Z"), micros("2026-03-09T07:00:00Z"));
        day.take(noon);
        assert_eq!(day.place(noon), Ok(noon));
        day.take(noon);
        assert_eq!(day.place(noon), Err(reset + GUARD));
        assert_eq!(day.place(reset - GUARD - 1), Err(reset + GUARD));
        assert_eq!(day.place(reset - 1), Ok(reset + GUARD));
        assert_eq!(day.place(reset), Ok(reset + GUARD));
        day.give_back(noon);
        assert_eq!(day.place(noon), Ok(noon));
    }

    #[test]
    fn a_request_given_back_after_midnight_does_not_enlarge_the_new_day() {
        let mut day = DayCount::new(1, zone("UTC"));
        let (before, after) = (micros("2026-03-08T23:59:58Z"), micros("2026-03-09T00:00:01Z"));
        day.take(before);
        day.take(after);
        day.give_back(before);
        assert_eq!(day.place(after), Err(micros("2026-03-10T00:00:00Z") + GUARD));
    }

    #[test]
    fn no_request_lies_where_two_clocks_may_disagree_on_the_day() {
        let day = DayCount::new(5, zone("UTC"));
        let midnight = micros("2026-03-09T00:00:00Z");
        for offset in 0..=2 * GUARD {
            if offset % 1_000 == 0 || offset == 2 * GUARD {
                let placed = day.place(midnight - GUARD + offset).unwrap();
                assert!(placed >= midnight + GUARD, "{offset}");
            }
        }
    }
}

//! How wide the windows are and what is kept back from them.
//!
//! Everything is a share of the window, so the cost is too: tolerance 1 %, way 0.5 %, a bucket of the log 0.4 %. One fixed
//! jitter for all windows was rejected: what is nothing to a minute is several percent of ten seconds.

use crate::quota::MINUTE;

/// How late a request may be sent when `stretch` is the shortest window, in microseconds. A paced client on a busy machine
/// is late by tens of milliseconds.
pub fn tolerance(stretch: u64) -> u64 {
    (stretch / 100).clamp(50_000, 250_000)
}

/// How much the way to the server may vary in a window of `stretch`, in microseconds: 0.5 % of it, at least 30 ms.
pub fn way(stretch: u64) -> u64 {
    (stretch / 200).max(30_000)
}

/// The most requests at once, of `n` per minute.
pub fn burst(n: u64) -> u64 {
    (n / 100).max(6)
}

/// The count and the stretch, in microseconds, of the window that spreads `n` requests per minute; `None`: the minute will
/// do. It is `spread_seconds` where a whole number of requests, at least 12, falls into that to within 1/60; else the
/// shortest longer stretch that takes a whole number, so that nothing is lost to rounding.
pub fn short_window(n: u64, spread_seconds: f64) -> Option<(u64, u64)> {
    let stretch = std::time::Duration::try_from_secs_f64(spread_seconds).ok()?.max(std::time::Duration::from_secs(1));
    let stretch = u64::try_from(stretch.as_micros()).ok()?;
    if spread_seconds <= 0.0 || stretch >= MINUTE {
        return None;
    }
    let (exact, minute) = (u128::from(n) * u128::from(stretch), u128::from(MINUTE));
    let whole = u64::try_from(exact / minute).ok()?;
    if whole >= 12 && exact % minute * 60 <= exact {
        return Some((whole, stretch));
    }
    let count = u64::try_from(exact.div_ceil(minute)).ok()?.max(12);
    let longer = (u128::from(count) * minute).div_ceil(u128::from(n.max(1)));
    u64::try_from(longer).ok().filter(|&longer| longer < MINUTE).map(|longer| (count, longer))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn the_short_window_keeps_the_proportion_and_wastes_nothing_on_rounding() {
        for (n, spread, window) in [
            (600, 10.0, Some((100, 10 * SECOND))),
            (30_000, 10.0, Some((5_000, 10 * SECOND))),
            (1_000, 10.0, Some((166, 10 * SECOND))),
            (120, 10.0, Some((20, 10 * SECOND))),
            (100, 10.0, Some((17, 10_200_000))),
            (60, 10.0, Some((12, 12 * SECOND))),
            (10, 10.0, None),
            (600, 60.0, None),
            (600, 0.0, None),
            (600, -1.0, None),
            (600, f64::NAN, None),
            (6_000, 0.001, Some((100, SECOND))),
        ] {
            assert_eq!(short_window(n, spread), window, "{n} {spread}");
        }
    }
}

//! The day of a fleet, in short; `cargo bench --bench day` runs the whole of it.

use crate::fleet_on_paper::plan::{Mix, Plan};
use crate::fleet_on_paper::{Fleet, SECOND, Watch};

#[test]
fn a_fleet_uses_the_limit_that_binds_passes_no_window_and_loses_no_call() {
    for (mix, binds) in [(Mix::LIGHT, 0), (Mix::HEAVY, 1)] {
        let plan = Plan::day(200, 30, vec![mix]);
        let limits = [plan.limits.requests_per_minute, plan.limits.tokens_per_minute].map(Option::unwrap);
        let report = Fleet::new(plan).run();
        assert_eq!(report.violations, 0);
        assert_eq!((report.answered, report.produced), (18_000, 18_000));
        let used = report.used[binds];
        assert!(used.seconds > 900, "{} seconds with demand", used.seconds);
        assert!(used.of(limits[binds]) >= 98_000, "{} of 100000 used", used.of(limits[binds]));
        // None of it is for want of trouble.
        assert!(report.freezes > 0 && report.crashes > 0 && report.hiccups > 0 && report.missed > 0);
        assert!(report.calls > report.answered, "some were made again");
    }
}

#[test]
fn a_way_longer_than_the_core_allows_for_is_seen_at_the_provider() {
    let report = Fleet::new(Plan::saturated(Some(1_200), None, 10.0, Mix::LIGHT)).run();
    assert!(report.violations > 0);
}

#[test]
fn the_provider_sees_a_window_that_is_too_full_to_the_microsecond() {
    for (last, violations) in [(10 * SECOND, 1), (10 * SECOND + 1, 0)] {
        let mut watch = Watch::new(3, 10 * SECOND, 3);
        for at in [1, 2, 3, last] {
            watch.see(at, 1);
        }
        assert_eq!((watch.violations, watch.peak), (violations, 3 + violations));
    }
}

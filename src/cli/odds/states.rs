//! How often jobs were accepted later, by how many tries they had behind them and their best score until then.

use std::collections::BTreeMap;

use crate::price::Nano;
use crate::recipe::GiveUp;
use crate::record::{Record, Status};

/// Jobs that were in one state and went on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Odds {
    pub(super) jobs: u64,
    /// Those of them that a later try was accepted of.
    pub(super) accepted: u64,
    /// What their later tries cost.
    pub(super) later: Nano,
}

/// The states of records: after how many tries, with which best score.
#[derive(Debug, Default)]
pub(super) struct States {
    pub(super) odds: BTreeMap<(u32, u8), Odds>,
    pub(super) records: u64,
    /// Records of jobs that were asked for again, that failed, or that were given up: none of them says how the first round
    /// would have ended.
    pub(super) left_out: u64,
}

impl Odds {
    #[expect(clippy::cast_precision_loss, reason = "a share of counts that are far below 2^52")]
    pub(super) fn share(self) -> f64 {
        self.accepted as f64 / self.jobs.max(1) as f64
    }

    fn plus(self, other: Self) -> Self {
        let later = self.later.saturating_add(other.later);
        Self { jobs: self.jobs + other.jobs, accepted: self.accepted + other.accepted, later }
    }
}

impl States {
    pub(super) fn add(&mut self, record: &Record) {
        let ended = matches!(record.status, Status::Accepted | Status::Exhausted);
        if !ended || record.revision > 0 || record.gave_up.is_some() {
            self.left_out += 1;
            return;
        }
        self.records += 1;
        let cost = |t: &crate::record::Try| t.calls.iter().map(|call| Nano(call.cost_nano_usd)).sum::<Nano>();
        let mut later: Nano = record.tries.iter().map(cost).sum();
        let mut best = None;
        // After the last try there is nothing to decide.
        let decided = record.tries.len().saturating_sub(1);
        for (tries, this) in (1..).zip(record.tries.iter().take(decided)) {
            later = later.saturating_sub(cost(this));
            best = best.max(this.score);
            let Some(best) = best else { continue };
            let odds = Odds { jobs: 1, accepted: u64::from(record.status == Status::Accepted), later };
            let state = self.odds.entry((tries, best)).or_default();
            *state = state.plus(odds);
        }
    }

    /// The rules by which jobs are given up whose chance of a later accept is below `stop_below`, judged by at least so many
    /// jobs. A score is given up only with all that are lower; of those that too few jobs had, their sum is judged.
    pub(super) fn rules(&self, stop_below: f64, least: u64) -> Vec<GiveUp> {
        let mut rules: Vec<GiveUp> = Vec::new();
        let tries = self.odds.keys().map(|(tries, _)| *tries).max().unwrap_or(0);
        for after_try in 1..=tries {
            let mut sum = Odds::default();
            let mut given_up = 0;
            for ((_, score), odds) in self.odds.range((after_try, 0)..=(after_try, u8::MAX)) {
                sum = sum.plus(*odds);
                if odds.jobs < least {
                    continue;
                }
                if odds.share() >= stop_below || sum.share() >= stop_below {
                    break;
                }
                given_up = *score;
            }
            let known = rules.last().map_or(1, |last| last.below_score);
            // A best score never falls, so what an earlier rule lets pass a later one with the same score does too.
            let below_score = given_up.saturating_add(1).min(10);
            if below_score > known {
                rules.push(GiveUp { after_try, below_score });
            }
        }
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Try;
    use crate::run::records::test_record;

    fn record(status: Status, scores: &[u8]) -> Record {
        let tries =
            (1..).zip(scores).map(|(index, score)| Try { index, score: Some(*score), ..crate::refine::empty() });
        Record { status, tries: tries.collect(), ..test_record("a") }
    }

    fn states(records: &[(u64, Status, &[u8])]) -> States {
        let mut states = States::default();
        for (count, status, scores) in records {
            (0..*count).for_each(|_| states.add(&record(*status, scores)));
        }
        states
    }

    #[test]
    fn a_job_counts_after_each_try_but_its_last_under_its_best_score() {
        let states = states(&[(1, Status::Accepted, &[3, 2, 6]), (2, Status::Exhausted, &[3, 4, 1])]);
        let odds: Vec<_> = states.odds.iter().map(|(state, odds)| (*state, odds.jobs, odds.accepted)).collect();
        assert_eq!(odds, [((1, 3), 3, 1), ((2, 3), 1, 1), ((2, 4), 2, 0)]);
    }

    #[test]
    fn what_was_asked_for_again_failed_or_was_given_up_is_left_out() {
        let mut states = States::default();
        states.add(&Record { revision: 1, ..record(Status::Accepted, &[3, 6]) });
        states.add(&record(Status::Failed, &[3, 6]));
        let gave_up = Some(GiveUp { after_try: 2, below_score: 4 });
        states.add(&Record { gave_up, ..record(Status::Exhausted, &[3, 3]) });
        assert_eq!((states.odds.len(), states.records, states.left_out), (0, 0, 3));
    }

    #[test]
    fn jobs_are_given_up_where_enough_of_them_were_hardly_ever_accepted_later() {
        let hopeless: &[(u64, Status, &[u8])] = &[
            (3, Status::Exhausted, &[1, 1, 1]),
            (60, Status::Exhausted, &[2, 2, 2]),
            (2, Status::Accepted, &[2, 2, 6]),
            (60, Status::Accepted, &[4, 4, 6]),
        ];
        let rule = |after_try, below_score| GiveUp { after_try, below_score };
        assert_eq!(states(hopeless).rules(0.05, 50), [rule(1, 3)]);
        assert_eq!(states(hopeless).rules(0.03, 50), [], "2 of 62 are 3.2 percent");
        assert_eq!(states(hopeless).rules(0.05, 63), [], "too few to tell");
        // After the first try there is hope yet.
        let late: &[(u64, Status, &[u8])] = &[(60, Status::Exhausted, &[2, 2, 2]), (60, Status::Accepted, &[2, 6])];
        assert_eq!(states(late).rules(0.05, 50), [rule(2, 3)]);
        // Few jobs with a low score that do well speak against giving up the scores above.
        let odd: &[(u64, Status, &[u8])] = &[(9, Status::Accepted, &[1, 6]), (60, Status::Exhausted, &[2, 2])];
        assert_eq!(states(odd).rules(0.05, 50), []);
    }
}

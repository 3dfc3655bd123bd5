//! What happens beside the calls: work comes in bursts, nodes freeze and crash, the provider stumbles, seconds are counted.

use aurelia::quota::MINUTE;

use super::plan::Work;
use super::tally::{Fairness, Histogram, Used};
use super::{Fleet, Report, SECOND, START, State};

/// In the order of their ids, which are those behind the workers'.
pub(super) const BESIDE: [fn(&mut Fleet, u64); 5] =
    [Fleet::tick, Fleet::burst, Fleet::crash, Fleet::freeze, Fleet::stumble];
const TICK: usize = 0;
const BURST: usize = 1;
const CRASH: usize = 2;
const FREEZE: usize = 3;
const STUMBLE: usize = 4;

impl Fleet {
    fn again(&mut self, beside: usize, at: u64) {
        self.wheel.put(self.plan.workers + beside, at);
    }

    /// The next of so many an hour; of none, never.
    fn some_time(&mut self, beside: usize, now: u64, per_hour: u64) {
        if let Some(mean) = (60 * MINUTE).checked_div(per_hour) {
            let gap = self.random.gap(mean).max(1);
            self.again(beside, now + gap);
        }
    }

    /// A second is over. It counts when somebody waited from its beginning to its end and the provider asked for no pause.
    fn tick(&mut self, now: u64) {
        let began = now - SECOND;
        if began >= START && self.wanted_since <= began && self.is_wanted(now) && self.paused_until <= began {
            for (used, arrived) in self.phase.iter_mut().zip(self.second) {
                used.seconds += 1;
                used.amount += arrived;
            }
        }
        self.second = [0; 2];
        if (now - START).is_multiple_of(self.plan.phase) {
            self.close_phase();
        }
        self.again(TICK, now + SECOND);
    }

    /// One mix of sizes is over: the limit that it used more of is the one that bound it.
    pub(super) fn close_phase(&mut self) {
        let [requests, tokens] = std::mem::take(&mut self.phase);
        let share = |used: Used, limit: Option<u64>| limit.map_or(0, |limit| used.of(limit));
        let limits = &self.plan.limits;
        let by_tokens = share(tokens, limits.tokens_per_minute) > share(requests, limits.requests_per_minute);
        let (sum, more) = (&mut self.report.used[usize::from(by_tokens)], if by_tokens { tokens } else { requests });
        sum.seconds += more.seconds;
        sum.amount += more.amount;
    }

    /// Work comes, of very different sizes and at no fixed times; who has none takes it within a second.
    fn burst(&mut self, now: u64) {
        let every = (self.plan.span / 48).max(5 * MINUTE);
        let calls = match self.plan.work {
            // More than can be done.
            Work::Endless => u64::MAX / 2,
            Work::Bursts(calls) => {
                let number = (now - START) / every;
                let left = calls - self.report.produced;
                if (number + 2) * every > self.plan.span {
                    left
                } else {
                    let next = START + (number + 1) * every + self.random.below(every);
                    self.again(BURST, next);
                    let mean = calls / (self.plan.span / every);
                    left.min(mean * self.random.between(2, 18) / 10)
                }
            }
        };
        self.report.produced += calls;
        self.owed += calls;
        self.wake(now);
    }

    fn wake(&mut self, now: u64) {
        while self.owed > 0
            && let Some(id) = self.idle.pop_front()
        {
            self.hand(id, now);
            self.workers[id].state = State::Pausing;
            let down_until = self.nodes[self.node(id)].down_until;
            let soon = now + self.random.below(SECOND);
            self.wheel.put(id, soon.max(down_until));
        }
    }

    /// All workers of a node lose what they hold: their appointments are neither used nor given back, and their calls are
    /// owed again.
    fn crash(&mut self, now: u64) {
        self.some_time(CRASH, now, self.plan.crashes_per_hour);
        let (node, nodes) = (self.some_node(), self.nodes.len());
        self.nodes[node].down_until = now + self.random.between(10, 60) * SECOND;
        self.report.crashes += 1;
        for id in (node..self.plan.workers).step_by(nodes) {
            let state = self.workers[id].state;
            if matches!(state, State::Idle | State::Orphan | State::Down) {
                continue;
            }
            self.turned -= u64::from(state == State::Turned);
            self.workers[id].state = if state == State::Way { State::Orphan } else { State::Down };
            self.owed += 1;
        }
        self.wake(now);
    }

    /// A node does nothing for two seconds.
    fn freeze(&mut self, now: u64) {
        self.some_time(FREEZE, now, self.plan.freezes_per_hour);
        let node = self.some_node();
        self.nodes[node].frozen_until = now + 2 * SECOND;
        self.report.freezes += 1;
    }

    fn stumble(&mut self, now: u64) {
        self.some_time(STUMBLE, now, self.plan.hiccups_per_hour);
        if now > START {
            self.provider.stumble(now, &mut self.random);
        }
    }

    fn some_node(&mut self) -> usize {
        usize::try_from(self.random.next()).unwrap_or(0) % self.nodes.len()
    }
}

impl Report {
    pub(super) fn new() -> Self {
        Self {
            produced: 0,
            answered: 0,
            calls: 0,
            missed: 0,
            crashes: 0,
            freezes: 0,
            hiccups: 0,
            turned_away: 0,
            lasted: 0,
            used: [Used::default(); 2],
            waits: Histogram::new(),
            fairness: Fairness { jain: 0.0, slowest_tenth: 0.0 },
            windows: Vec::new(),
            violations: 0,
        }
    }
}

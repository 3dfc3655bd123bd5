//! A fleet on paper that runs the real arithmetic: [`Account`] under a virtual clock.
//!
//! Workers have one call at a time: they ask, wait for their appointment, send, wait for the reply and settle. They are late
//! by a few milliseconds, freeze for two seconds and crash with what they hold, node by node. A frozen worker misses its
//! appointments and gives them back; one that crashed never does, and its call is owed again. The provider is in
//! [`provider`], and counts for itself.

mod beside;
pub(crate) mod chance;
pub(crate) mod plan;
mod provider;
pub(crate) mod tally;
mod wheel;

use std::collections::VecDeque;

use aurelia::quota::{Account, Answer, Appointment, MINUTE};
use beside::BESIDE;
use chance::Random;
use plan::{Plan, Way, Work};
pub(crate) use provider::Watch;
use provider::{Provider, Reply};
use tally::{Fairness, Histogram, Used};
use wheel::Wheel;

pub(crate) const SECOND: u64 = 1_000_000;
/// 2026-03-07T12:00:00-08:00, so that a day has a midnight in it.
pub(crate) const START: u64 = 1_772_913_600_000_000;
/// Longest pause after a call that failed; the first is 1 s.
const PATIENCE: u64 = 64 * SECOND;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// There was no work.
    Idle,
    /// It has a call, and will ask for it.
    Pausing,
    /// It was turned away, and will ask again.
    Turned,
    /// It has an appointment.
    Due,
    /// Its call is on the way.
    Way,
    /// Its call has arrived.
    Reply,
    /// It crashed while its call was on the way.
    Orphan,
    /// It crashed.
    Down,
}

#[derive(Clone)]
struct Worker {
    state: State,
    /// When it first asked for what it waits for.
    asked: u64,
    appointment: Appointment,
    /// What the provider counts.
    actual: u64,
    /// Of the call it has.
    failures: u32,
    reply: Reply,
    answered: u64,
}

#[derive(Clone, Copy, Default)]
struct Node {
    frozen_until: u64,
    down_until: u64,
}

pub(crate) struct Fleet {
    plan: Plan,
    account: Account,
    provider: Provider,
    wheel: Wheel,
    random: Random,
    workers: Vec<Worker>,
    nodes: Vec<Node>,
    idle: VecDeque<usize>,
    /// Calls nobody has taken.
    owed: u64,
    /// How many were turned away and wait; and until when somebody waits for an appointment.
    turned: u64,
    booked_until: u64,
    /// Since when somebody has been waiting, without a gap.
    wanted_since: u64,
    paused_until: u64,
    /// Of this second: requests and tokens that arrived.
    second: [u64; 2],
    /// Of the hours of one mix of sizes.
    phase: [Used; 2],
    report: Report,
}

/// What came of it.
pub(crate) struct Report {
    pub(crate) produced: u64,
    pub(crate) answered: u64,
    /// Calls that arrived, in all.
    pub(crate) calls: u64,
    pub(crate) missed: u64,
    pub(crate) crashes: u64,
    pub(crate) freezes: u64,
    pub(crate) hiccups: u64,
    /// How often somebody was told to come back.
    pub(crate) turned_away: u64,
    /// Microseconds until all was answered.
    pub(crate) lasted: u64,
    /// While requests bind, and while tokens do.
    pub(crate) used: [Used; 2],
    /// From asking to the appointment.
    pub(crate) waits: Histogram,
    pub(crate) fairness: Fairness,
    pub(crate) windows: Vec<Watch>,
    pub(crate) violations: u64,
}

impl Fleet {
    pub(crate) fn new(plan: Plan) -> Self {
        let account = Account::new(plan.limits.clone());
        let ids = plan.workers + BESIDE.len();
        let nobody = Worker {
            state: State::Idle,
            asked: 0,
            appointment: Appointment { at: 0, tokens: 0 },
            actual: 0,
            failures: 0,
            reply: Reply::Good,
            answered: 0,
        };
        Self {
            provider: Provider::new(plan.windows(), plan.token_window()),
            wheel: Wheel::new(ids, START),
            random: Random(plan.seed),
            workers: vec![nobody; plan.workers],
            nodes: vec![Node::default(); plan.nodes],
            idle: (0..plan.workers).collect(),
            owed: 0,
            turned: 0,
            booked_until: 0,
            wanted_since: START,
            paused_until: 0,
            second: [0; 2],
            phase: [Used::default(); 2],
            report: Report::new(),
            account,
            plan,
        }
    }

    /// Runs until all that was owed is answered, or it is clear that it will not be; endless work: until the span is over.
    pub(crate) fn run(mut self) -> Report {
        let workers = self.plan.workers;
        (0..BESIDE.len()).for_each(|id| self.wheel.put(workers + id, START));
        let end = START + self.plan.span;
        let latest = match self.plan.work {
            Work::Endless => end,
            Work::Bursts(_) => end + self.plan.span / 4 + 60 * MINUTE,
        };
        loop {
            let (now, id) = self.wheel.take();
            if now > latest || (now > end && self.report.answered == self.report.produced) {
                return self.end(now);
            }
            if !self.is_wanted(now) {
                self.wanted_since = now;
            }
            match id.checked_sub(workers) {
                None => self.worker(id, now),
                Some(beside) => BESIDE[beside](&mut self, now),
            }
        }
    }

    fn end(mut self, now: u64) -> Report {
        self.close_phase();
        self.report.lasted = now - START;
        self.report.hiccups = self.provider.hiccups;
        self.report.violations = self.provider.violations();
        self.report.fairness = Fairness::of(self.workers.iter().map(|worker| worker.answered).collect());
        self.report.windows = self.provider.requests;
        self.report.windows.extend(self.provider.tokens);
        self.report
    }

    fn worker(&mut self, id: usize, now: u64) {
        let node = self.nodes[self.node(id)];
        match self.workers[id].state {
            State::Way => self.arrive(id, now),
            State::Orphan => {
                self.call(id, now);
                self.workers[id].state = State::Down;
                self.wheel.put(id, now.max(node.down_until));
            }
            State::Down if now < node.down_until => self.wheel.put(id, node.down_until),
            State::Down => self.free(id, now),
            _ if now < node.frozen_until => self.wheel.put(id, node.frozen_until),
            State::Turned => {
                self.turned -= 1;
                self.ask(id, now);
            }
            State::Pausing => {
                self.workers[id].asked = now;
                self.ask(id, now);
            }
            State::Due => self.due(id, now),
            State::Reply => self.settle(id, now),
            State::Idle => {}
        }
    }

    /// It has nothing to do: it takes a call, if there is one.
    fn free(&mut self, id: usize, now: u64) {
        if self.owed > 0 {
            self.hand(id, now);
            self.workers[id].asked = now;
            self.ask(id, now);
        } else {
            self.workers[id].state = State::Idle;
            self.idle.push_back(id);
        }
    }

    /// Gives it a call that is owed.
    fn hand(&mut self, id: usize, now: u64) {
        self.owed -= 1;
        let actual = self.plan.mix(now).draw(&mut self.random);
        let over = actual * self.plan.over_percent / 100;
        let worker = &mut self.workers[id];
        worker.actual = actual;
        worker.failures = 0;
        worker.appointment.tokens = actual + self.random.below(over + 1);
    }

    fn ask(&mut self, id: usize, now: u64) {
        let worker = &mut self.workers[id];
        match self.account.appoint(now, worker.appointment.tokens) {
            Answer::Go(appointment) => {
                worker.state = State::Due;
                self.booked_until = self.booked_until.max(appointment.at);
                self.wheel.put(id, appointment.at + self.plan.lateness.draw(&mut self.random));
                worker.appointment = appointment;
            }
            Answer::Later { at, .. } => {
                worker.state = State::Turned;
                self.turned += 1;
                self.report.turned_away += 1;
                // Told a time that is not to come, it would ask for ever.
                self.wheel.put(id, at.max(now + 1));
            }
            // Its call is never answered, and so is seen to be lost.
            Answer::Never { .. } => self.free(id, now),
        }
    }

    /// It sends, if it is not too late.
    fn due(&mut self, id: usize, now: u64) {
        let worker = &mut self.workers[id];
        if self.account.missed(&worker.appointment, now) {
            self.report.missed += 1;
            self.account.give_back(&worker.appointment);
            self.ask(id, now);
            return;
        }
        self.report.waits.see(worker.appointment.at - worker.asked);
        worker.state = State::Way;
        let way = match &self.plan.way {
            Way::Even(most) => self.random.below(most + 1),
            Way::Lognormal(draws) => draws.draw(&mut self.random),
        };
        self.wheel.put(id, now + way);
    }

    fn arrive(&mut self, id: usize, now: u64) {
        let (reply, at) = self.call(id, now);
        let worker = &mut self.workers[id];
        (worker.state, worker.reply) = (State::Reply, reply);
        self.wheel.put(id, at);
    }

    fn call(&mut self, id: usize, now: u64) -> (Reply, u64) {
        let tokens = self.workers[id].actual;
        self.report.calls += 1;
        self.second[0] += 1;
        self.second[1] += tokens;
        self.provider.call(now, tokens, &mut self.random)
    }

    fn settle(&mut self, id: usize, now: u64) {
        let worker = &mut self.workers[id];
        self.account.settle(&worker.appointment, worker.actual);
        let pause = match worker.reply {
            Reply::Good => {
                worker.answered += 1;
                self.report.answered += 1;
                return self.free(id, now);
            }
            Reply::Unavailable => 0,
            Reply::Pause(until) => {
                self.account.pause_until(until);
                self.paused_until = self.paused_until.max(until);
                until.saturating_sub(now)
            }
        };
        let longest = if pause > 0 { SECOND } else { PATIENCE.min(SECOND << worker.failures.min(6)) };
        worker.failures += 1;
        worker.state = State::Pausing;
        self.wheel.put(id, now + pause + self.random.below(longest));
    }

    /// Whether somebody waits for an appointment.
    fn is_wanted(&self, now: u64) -> bool {
        self.turned > 0 || self.booked_until >= now
    }

    fn node(&self, id: usize) -> usize {
        id % self.nodes.len()
    }
}

//! An account under a provider that allows less than is declared, by the minute, under a virtual clock.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use jiff::tz::TimeZone;

use crate::quota::{Account, Answer, Appointment, Limits, MINUTE, NamedLimit, Refusal, random::Random};

const START: u64 = 1_772_913_600_000_000;
const SECOND: u64 = 1_000_000;

/// How a provider counts.
#[derive(Clone, Copy)]
struct Provider {
    /// What it lets pass, and in how many microseconds.
    windows: &'static [(usize, u64)],
    /// Windows begin where the last one ended, instead of sliding.
    fixed: bool,
    /// What it refuses counts too.
    counts_refused: bool,
    /// Of a thousand calls it refuses so many whatever the rate.
    noise: u64,
}

impl Provider {
    /// Whether it refuses a call that arrives then; `logs`: what counts in each of its windows.
    fn refuses(&self, logs: &mut [VecDeque<u64>], arrives: u64, random: &mut Random) -> bool {
        let full = logs.iter_mut().zip(self.windows).any(|(log, &(most, stretch))| {
            let gone = |&at: &u64| if self.fixed { at / stretch < arrives / stretch } else { at + stretch <= arrives };
            while log.front().is_some_and(gone) {
                log.pop_front();
            }
            log.len() >= most
        });
        let refused = full || random.below(1_000) < self.noise;
        if !refused || self.counts_refused {
            for log in logs {
                log.push_back(arrives);
            }
        }
        refused
    }
}

const SLIDING: Provider =
    Provider { windows: &[(1_200, MINUTE), (200, 10 * SECOND)], fixed: false, counts_refused: false, noise: 0 };

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Ask,
    Send,
    Refused,
}

/// By minute: what passed, what was refused.
fn minutes(declared: Option<u64>, provider: Provider, slots: usize, count: usize, seed: u64) -> Vec<(u64, u64)> {
    let mut account = Account::new(Limits {
        requests_per_minute: declared,
        tokens_per_minute: None,
        requests_per_day: None,
        day_resets: TimeZone::UTC,
        spread_seconds: 10.0,
    });
    let mut random = Random(seed);
    let mut logs: Vec<VecDeque<u64>> = vec![VecDeque::new(); provider.windows.len()];
    let mut events: BinaryHeap<_> = (0..slots).map(|slot| Reverse((START + slot as u64, slot, Event::Ask))).collect();
    let mut appointments: Vec<(Option<Appointment>, u32)> = vec![(None, 0); slots];
    let mut minutes = vec![(0, 0); count];
    while let Some(Reverse((now, slot, event))) = events.pop() {
        let minute = usize::try_from((now - START) / MINUTE).unwrap();
        if minute >= count {
            break;
        }
        let (appointment, refusals) = &mut appointments[slot];
        match event {
            Event::Ask => match account.appoint(now, 0) {
                Answer::Go(given) => {
                    events.push(Reverse((given.at + random.below(5_000), slot, Event::Send)));
                    *appointment = Some(given);
                }
                Answer::Later { at, .. } => events.push(Reverse((at, slot, Event::Ask))),
                Answer::Never { why } => panic!("{why}"),
            },
            Event::Send if account.missed(appointment.as_ref().unwrap(), now) => {
                account.give_back(appointment.as_ref().unwrap());
                events.push(Reverse((now, slot, Event::Ask)));
            }
            Event::Send => {
                let arrives = now + random.below(10_000);
                let refused = provider.refuses(&mut logs, arrives, &mut random);
                if refused {
                    minutes[minute].1 += 1;
                    events.push(Reverse((now + 20_000 + random.below(20_000), slot, Event::Refused)));
                } else {
                    minutes[minute].0 += 1;
                    *refusals = 0;
                    // Lognormal, nearly: most calls take half a second, some take three.
                    let slow = if random.below(10) == 0 { 3 * SECOND } else { SECOND / 2 };
                    events.push(Reverse((now + 200_000 + random.below(slow), slot, Event::Ask)));
                }
            }
            Event::Refused => {
                let sent = appointment.as_ref().unwrap().at;
                // As the transport waits: up to half a second, doubled each time.
                *refusals += 1;
                let pause = random.below(((SECOND / 2) << (*refusals - 1).min(7)).min(MINUTE));
                account.pause_until(now + pause);
                account.refused(now, Refusal { ago: now - sent, tokens: 0, limit: NamedLimit::default() });
                events.push(Reverse((now, slot, Event::Ask)));
            }
        }
    }
    minutes
}

/// Thousandths of `limit` that passed, and of the calls that were refused.
fn shares(minutes: &[(u64, u64)], limit: u64) -> (u64, u64) {
    let (passed, refused) = minutes.iter().fold((0, 0), |sum, minute| (sum.0 + minute.0, sum.1 + minute.1));
    (passed * 1_000 / (limit * minutes.len() as u64), refused * 1_000 / (passed + refused))
}

/// Over minutes 5 to 10, and the next fifty, of several histories.
#[track_caller]
fn learns(name: &str, declared: Option<u64>, provider: Provider, least: u64, most_refused: u64) {
    let minute = provider.windows[0];
    assert_eq!(minute.1, MINUTE);
    let limit = u64::try_from(minute.0).unwrap();
    let slots = (minute.0 / 30).max(4);
    for seed in 1..=3 {
        let minutes = minutes(declared, provider, slots, 60, seed);
        for part in [5..10, 10..60] {
            let (passed, refused) = shares(&minutes[part.clone()], limit);
            let text = format!("{name}, minutes {part:?} of history {seed}: {passed} and {refused} thousandths");
            println!("{text}");
            assert!(passed >= least && refused <= most_refused, "{text}: {minutes:?}");
        }
    }
}

#[test]
fn a_limit_that_is_declared_too_high_is_used_to_the_full_from_the_fifth_minute_on() {
    learns("a fifth too high", Some(1_440), SLIDING, 950, 10);
    learns("ten times too high", Some(12_000), SLIDING, 940, 10);
    learns("not declared", None, SLIDING, 930, 10);
    let of = |windows| Provider { windows, ..SLIDING };
    learns("by the minute alone", Some(1_440), of(&[(1_200, MINUTE)]), 950, 10);
    learns("300 a minute", Some(360), of(&[(300, MINUTE), (50, 10 * SECOND)]), 930, 10);
    learns("60 a minute", Some(72), of(&[(60, MINUTE)]), 930, 30);
    learns("ten a minute", Some(12), of(&[(10, MINUTE)]), 850, 100);
    learns("ten a minute of a hundred", Some(100), of(&[(10, MINUTE)]), 750, 100);
}

#[test]
fn it_does_not_matter_how_the_provider_counts() {
    let fixed = Provider { windows: &[(1_200, MINUTE)], fixed: true, ..SLIDING };
    learns("fixed minutes", Some(1_440), fixed, 950, 10);
    learns("refused calls count", Some(1_440), Provider { counts_refused: true, ..SLIDING }, 930, 10);
}

#[test]
fn what_is_refused_whatever_the_rate_costs_little() {
    learns("one in 200", Some(1_200), Provider { noise: 5, ..SLIDING }, 900, 20);
    learns("one in 50", Some(1_200), Provider { noise: 20, ..SLIDING }, 700, 40);
}

#[test]
fn a_limit_that_is_declared_as_it_is_is_never_met() {
    learns("exact", Some(1_200), SLIDING, 980, 0);
}

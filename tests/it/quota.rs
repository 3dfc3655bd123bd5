//! Quota and money of a fleet, on a real Redis.

use std::time::Duration;

use aurelia::price::Nano;
use aurelia::quota::gate::shared::step::{Answer, Books, Call, Scope};
use aurelia::quota::ledger::{End, Totals};
use aurelia::quota::{Account, Answer as Told, Appointment, Limits};
use aurelia::shared::Redis;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::redis::RedisServer;

const SECOND: u64 = 1_000_000;
/// 2026-11-01, when clocks change in Los Angeles, 06:59 UTC: a minute before its midnight.
const START: u64 = 1_793_516_340 * SECOND;

fn books(prefix: &str) -> Books {
    Books::new(Redis::new(RedisServer::shared().parse().unwrap(), prefix))
}

fn unlimited() -> Limits {
    Limits {
        requests_per_minute: None,
        tokens_per_minute: None,
        requests_per_day: None,
        day_resets: jiff::tz::TimeZone::UTC,
        spread_seconds: 0.0,
    }
}

fn call(id: &str, tokens: u64, bound: u64, ceilings: (Option<u64>, Option<u64>)) -> Call<'_> {
    let (run, all) = ceilings;
    let lease = Duration::from_mins(10);
    Call { id, run: "r", account: "a", tokens, bound: Nano(bound), lease, ceilings: (run.map(Nano), all.map(Nano)) }
}

#[derive(Debug, Clone)]
enum Event {
    Reserve { tokens: u64 },
    Settle { which: usize, tokens: u64 },
    Back { which: usize },
    Pause { seconds: u64 },
    Park,
}

fn limits() -> impl Strategy<Value = Limits> {
    let some = |range: std::ops::Range<u64>| proptest::option::of(range);
    let zones = prop_oneof![Just("UTC"), Just("America/Los_Angeles")];
    (some(5..3000), some(100..2_000_000), some(3..60), zones, prop_oneof![Just(0.0), Just(10.0)]).prop_map(
        |(requests, tokens, day, zone, spread)| Limits {
            requests_per_minute: requests,
            tokens_per_minute: tokens,
            requests_per_day: day,
            day_resets: jiff::tz::TimeZone::get(zone).unwrap(),
            spread_seconds: spread,
        },
    )
}

fn events() -> impl Strategy<Value = Vec<(u64, Event)>> {
    let event = prop_oneof![
        8 => (1_u64..200_000).prop_map(|tokens| Event::Reserve { tokens }),
        4 => (any::<usize>(), 0_u64..300_000).prop_map(|(which, tokens)| Event::Settle { which, tokens }),
        2 => any::<usize>().prop_map(|which| Event::Back { which }),
        1 => (0_u64..20).prop_map(|seconds| Event::Pause { seconds }),
        1 => Just(Event::Park),
    ];
    let step = prop_oneof![6 => 0_u64..400_000, 3 => 0..5 * SECOND, 1 => 0..90 * SECOND];
    proptest::collection::vec((step, event), 1..60)
}

/// The script and the model over one history.
async fn compare(books: &Books, limits: Limits, events: &[(u64, Event)]) -> Result<(), TestCaseError> {
    let (mut model, mut now) = (Account::new(limits.clone()), START);
    let script = Account::new(limits.clone());
    let mut open: Vec<(String, Appointment)> = Vec::new();
    for (number, (step, event)) in events.iter().enumerate() {
        now += step;
        let books = books.at(now);
        match event {
            Event::Reserve { tokens } => {
                let tokens = limits.tokens_per_minute.map_or(*tokens, |limit| tokens % limit + 1);
                let id = format!("id-{number}");
                let got = books.reserve(&script, 0, &call(&id, tokens, 1, (None, None))).await.unwrap();
                let wanted = match model.appoint(now, tokens) {
                    Told::Go(appointment) => {
                        open.push((id, appointment.clone()));
                        Answer::Go { delay: Duration::from_micros(appointment.at - now) }
                    }
                    Told::Later { at, why } => Answer::Later { delay: Duration::from_micros(at - now), why },
                    Told::Never { why } => return Err(TestCaseError::fail(why)),
                };
                prop_assert_eq!(got, wanted, "event {}", number);
            }
            Event::Settle { which, tokens } if !open.is_empty() => {
                let (id, appointment) = open.remove(which % open.len());
                model.settle(&appointment, *tokens);
                books.settle(&script, "a", &id, *tokens, Nano(1), End::Settled).await.unwrap();
            }
            Event::Back { which } if !open.is_empty() => {
                let (id, appointment) = open.remove(which % open.len());
                model.give_back(&appointment);
                books.give_back(&script, "a", &id).await.unwrap();
            }
            Event::Pause { seconds } => {
                model.pause_until(now + seconds * SECOND);
                books.pause(&script, "a", Duration::from_secs(*seconds)).await.unwrap();
            }
            Event::Park => {
                model.park_until_day_reset(now);
                books.park(&script, "a").await.unwrap();
            }
            _ => {}
        }
        let wanted = model.away(now).map_or(0, |(at, _)| at - now);
        let absence = books.absence(&script, "a").await.unwrap();
        prop_assert_eq!(absence, Duration::from_micros(wanted), "after event {}", number);
    }
    Ok(())
}

#[test]
fn the_script_gives_the_appointments_of_the_model_over_random_histories() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let redis = RedisServer::shared();
    let count = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() });
    let case = (limits(), events());
    let ran = runner.run(&case, |(limits, events)| {
        count.set(count.get() + 1);
        let books = Books::new(Redis::new(redis.parse().unwrap(), format!("model-{}", count.get())));
        runtime.block_on(compare(&books, limits, &events))
    });
    ran.unwrap();
}

#[tokio::test]
async fn what_is_spent_and_reserved_never_passes_a_ceiling_and_a_call_counts_once() {
    let (books, account) = (books("money"), Account::new(unlimited()));
    let ask = async |id: &str| books.reserve(&account, 0, &call(id, 1, 40, (Some(100), None))).await.unwrap();
    let go = Answer::Go { delay: Duration::ZERO };
    assert_eq!([ask("a").await, ask("b").await, ask("c").await], [go.clone(), go.clone(), Answer::Busy]);
    assert_eq!(ask("a").await, go, "an answer that was lost takes nothing twice");
    books.settle(&account, "a", "a", 1, Nano(30), End::Settled).await.unwrap();
    books.settle(&account, "a", "a", 1, Nano(30), End::Settled).await.unwrap();
    let totals = Totals { calls: 1, spent: Nano(70), unconfirmed: Nano::ZERO };
    assert_eq!(books.totals("r").await.unwrap(), totals);
    books.settle(&account, "a", "b", 1, Nano(40), End::Unconfirmed).await.unwrap();
    assert_eq!(ask("c").await, Answer::Spent { scope: Scope::Run, spent: Nano(70) });
    let other = Call { run: "other", ..call("d", 1, 40, (Some(100), Some(100))) };
    assert_eq!(books.reserve(&account, 0, &other).await.unwrap(), Answer::Spent { scope: Scope::All, spent: Nano(70) });
    let totals = Totals { calls: 2, spent: Nano(70), unconfirmed: Nano(40) };
    assert_eq!(books.totals("r").await.unwrap(), totals);
}

#[tokio::test]
async fn the_call_of_a_dead_holder_gives_back_its_place_and_counts_at_its_worst_case() {
    let (books, account) = (books("dead-holder"), Account::new(unlimited()));
    let at = |now: u64| books.at(START + now * SECOND);
    let ask = async |id: &str, now: u64| at(now).reserve(&account, 1, &call(id, 1, 40, (None, None))).await.unwrap();
    assert!(matches!(ask("a", 0).await, Answer::Go { .. }));
    assert_eq!(ask("b", 599).await, Answer::Busy);
    assert!(matches!(ask("b", 601).await, Answer::Go { .. }));
    let totals = Totals { calls: 1, spent: Nano(80), unconfirmed: Nano(40) };
    assert_eq!(books.totals("r").await.unwrap(), totals);
    // It was not dead, only very late: what is booked stays.
    at(602).settle(&account, "a", "a", 1, Nano(1), End::Settled).await.unwrap();
    assert_eq!(books.totals("r").await.unwrap(), totals);
}

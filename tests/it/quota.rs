//! Quota and money of a fleet, on a real Redis.

use std::time::Duration;

use aurelia::price::Nano;
use aurelia::quota::gate::shared::step::{Answer, Books, Ceilings, Money, Of, Place, Said, Scope, Step};
use aurelia::quota::ledger::{End, Totals};
use aurelia::quota::{Account, Answer as Told, Appointment, Limits, NamedLimit, Refusal, Scarce};
use aurelia::shared::Redis;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::support::redis::RedisServer;

const SECOND: u64 = 1_000_000;
/// 2026-11-01, when clocks change in Los Angeles, 06:59 UTC: a minute before its midnight.
const START: u64 = 1_793_516_340 * SECOND;

fn books(prefix: &str) -> Books {
    Books::new(Redis::new(RedisServer::shared().parse().unwrap(), prefix))
}

fn reserve(id: &str, tokens: u64, bound: u64, ceilings: Ceilings) -> Step {
    let lease = Duration::from_mins(10);
    Step::Reserve { id: id.to_owned(), run: "r".into(), tokens, bound: Nano(bound), lease, ceilings }
}

fn settle(id: &str, tokens: u64, cost: u64, end: End) -> Step {
    Step::Settle { id: id.to_owned(), run: "r".into(), tokens, cost: Nano(cost), end }
}

/// One step of account `a`, with so many places.
async fn one(books: &Books, limits: &Account, concurrency: u32, step: Step) -> Said {
    books.take(Place { account: "a", limits, concurrency }, &[&step]).await.unwrap().pop().unwrap()
}

#[derive(Debug, Clone)]
enum Event {
    Reserve { tokens: u64 },
    Settle { which: usize, tokens: u64 },
    Back { which: usize },
    Pause { seconds: u64 },
    Refused { pause: u64, refusal: Refusal },
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

/// Pauses in microseconds, and what the refusals behind them say.
fn refusals() -> impl Strategy<Value = (u64, Refusal)> {
    let of = prop_oneof![Just(Scarce::Unknown), Just(Scarce::Requests), Just(Scarce::Tokens)];
    let told = prop_oneof![4 => Just(None), 1 => (0_u64..3_000).prop_map(Some), 1 => Just(Some(u64::MAX >> 12))];
    (0..2 * SECOND, 0..3 * SECOND, 0_u64..200_000, of, told).prop_map(|(pause, ago, tokens, of, per_minute)| {
        (pause, Refusal { ago, tokens, limit: NamedLimit { of, per_minute } })
    })
}

/// Batches, each with the time that passes before it.
fn events() -> impl Strategy<Value = Vec<(u64, Vec<Event>)>> {
    let event = prop_oneof![
        8 => (1_u64..200_000).prop_map(|tokens| Event::Reserve { tokens }),
        4 => (any::<usize>(), 0_u64..300_000).prop_map(|(which, tokens)| Event::Settle { which, tokens }),
        2 => any::<usize>().prop_map(|which| Event::Back { which }),
        1 => (0_u64..20).prop_map(|seconds| Event::Pause { seconds }),
        2 => refusals().prop_map(|(pause, refusal)| Event::Refused { pause, refusal }),
        1 => Just(Event::Park),
    ];
    let step = prop_oneof![6 => 0_u64..400_000, 3 => 0..5 * SECOND, 1 => 0..90 * SECOND];
    proptest::collection::vec((step, proptest::collection::vec(event, 1..9)), 1..14)
}

/// The script and the model over one history.
async fn compare(books: &Books, limits: Limits, batches: &[(u64, Vec<Event>)]) -> Result<(), TestCaseError> {
    let (mut model, mut now, mut count) = (Account::new(limits.clone()), START, 0);
    let account = Account::new(limits.clone());
    let mut open: Vec<(String, Appointment)> = Vec::new();
    for (number, (pause, events)) in batches.iter().enumerate() {
        now += pause;
        let (mut steps, mut wanted, mut cuts) = (Vec::new(), Vec::new(), Vec::new());
        for event in events {
            let (step, answer) = match event {
                Event::Reserve { tokens } => {
                    let tokens = limits.tokens_per_minute.map_or(*tokens, |limit| tokens % limit + 1);
                    count += 1;
                    let id = format!("id-{count}");
                    let answer = match model.appoint(now, tokens) {
                        Told::Go(appointment) => {
                            open.push((id.clone(), appointment.clone()));
                            Answer::Go { delay: Duration::from_micros(appointment.at - now) }
                        }
                        Told::Later { at, why } => Answer::Later { delay: Duration::from_micros(at - now), why },
                        Told::Never { why } => return Err(TestCaseError::fail(why)),
                    };
                    (reserve(&id, tokens, 1, Ceilings::default()), Some(answer))
                }
                Event::Settle { which, tokens } if !open.is_empty() => {
                    let (id, appointment) = open.remove(which % open.len());
                    model.settle(&appointment, *tokens);
                    (settle(&id, *tokens, 1, End::Settled), None)
                }
                Event::Back { which } if !open.is_empty() => {
                    let (id, appointment) = open.remove(which % open.len());
                    model.give_back(&appointment);
                    (Step::Back { id, run: "r".into() }, None)
                }
                Event::Pause { seconds } => {
                    model.pause_until(now + seconds * SECOND);
                    (Step::Pause(Duration::from_secs(*seconds)), None)
                }
                Event::Refused { pause, refusal } => {
                    model.pause_until(now + pause);
                    cuts.push((steps.len(), model.refused(now, *refusal)));
                    (Step::Refused(Duration::from_micros(*pause), *refusal), None)
                }
                Event::Park => {
                    model.park_until_day_reset(now);
                    (Step::Park, None)
                }
                Event::Settle { .. } | Event::Back { .. } => continue,
            };
            steps.push(step);
            wanted.push(answer);
        }
        steps.push(Step::Away);
        let place = Place { account: "a", limits: &account, concurrency: 0 };
        let said = books.at(now).take(place, &steps.iter().collect::<Vec<_>>()).await.unwrap();
        for (said, wanted) in said.iter().zip(wanted) {
            if let Some(wanted) = wanted {
                prop_assert_eq!(said.reserved(), wanted, "batch {}", number);
            }
        }
        for (step, cut) in cuts {
            prop_assert_eq!(said[step].cut(), cut, "batch {}", number);
        }
        let wanted = model.away(now).map_or(0, |(at, _)| at - now);
        prop_assert_eq!(said[steps.len() - 1].absence(), Duration::from_micros(wanted), "after batch {}", number);
    }
    Ok(())
}

/// So many random histories; four at a time, since each waits for the server.
pub(crate) fn histories(prefix: &str, cases: u32) {
    let redis = RedisServer::shared();
    std::thread::scope(|scope| {
        for part in 0..4 {
            let redis = redis.clone();
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let count = std::cell::Cell::new(0);
                let config = Config { cases: cases / 4, failure_persistence: None, ..Config::default() };
                let ran = TestRunner::new(config).run(&(limits(), events()), |(limits, events)| {
                    count.set(count.get() + 1);
                    let name = format!("{prefix}-{part}-{}", count.get());
                    let books = Books::new(Redis::new(redis.parse().unwrap(), name));
                    runtime.block_on(compare(&books, limits, &events))
                });
                ran.unwrap();
            });
        }
    });
}

#[test]
fn the_script_gives_the_appointments_of_the_model_over_random_histories() {
    histories("model", 10_000);
}

#[tokio::test]
async fn the_script_learns_what_the_model_learns_in_an_hour_of_calls_and_refusals() {
    let cases = [
        ("requests", Some(600), None, 11),
        ("both", Some(600), Some(200_000), 11),
        ("none", None, None, 11),
        ("slow", Some(180), None, 4),
    ];
    for (name, requests, tokens, calls) in cases {
        let limits =
            Limits { requests_per_minute: requests, tokens_per_minute: tokens, spread_seconds: 10.0, ..Limits::none() };
        // Within every ten seconds. A cut, then what is refused whatever the rate; as much is no cut, more is; a long time to rise in; a fall.
        let refused = |n: usize| match n {
            5..8 | 300..304 => 3,
            8..15 | 40..60 => 1,
            15..40 | 60..80 if n.is_multiple_of(2) => 1,
            100..103 => 5,
            200..206 => 12,
            _ => 0,
        };
        let batch = |n: usize| {
            let (of, refusals) = (
                [Scarce::Requests, Scarce::Unknown][n / 200 % 2],
                if n.is_multiple_of(10) { refused(n / 10) } else { 0 },
            );
            let limit = NamedLimit { of, per_minute: None };
            let refusal = Event::Refused { pause: 0, refusal: Refusal { ago: 200_000, tokens: 900, limit } };
            let calls = (0..calls).map(|n| Event::Reserve { tokens: 100 + n * 7 });
            (SECOND, std::iter::repeat_n(refusal, refusals).chain(calls).collect())
        };
        compare(&books(&format!("hour-{name}")), limits, &(0..3_600).map(batch).collect::<Vec<_>>()).await.unwrap();
    }
}

#[tokio::test]
async fn a_declaration_that_was_lowered_is_kept_to_whatever_was_learned_under_the_old_one() {
    let books = books("lowered");
    let minute = |n| Account::new(Limits { requests_per_minute: Some(n), ..Limits::none() });
    let delays = async |limits: &Account, from: u64| {
        let mut delays = Vec::new();
        for n in 0..8 {
            let step = reserve(&format!("{from}-{n}"), 1, 1, Ceilings::default());
            delays.push(one(&books.at(START + from), limits, 0, step).await.reserved());
        }
        delays
    };
    let go = Answer::Go { delay: Duration::ZERO };
    let limit = NamedLimit { of: Scarce::Requests, per_minute: Some(5_000) };
    let learned = Step::Refused(Duration::ZERO, Refusal { ago: 0, tokens: 0, limit });
    one(&books.at(START), &minute(6_000), 0, learned).await;
    assert_eq!(delays(&minute(6_000), SECOND).await, vec![go.clone(); 8], "bursts of 60");
    let lowered = delays(&minute(60), 200 * SECOND).await;
    assert_eq!(lowered[..6], vec![go; 6]);
    let later = [1, 2].map(|seconds| Answer::Go { delay: Duration::from_secs(seconds) });
    assert_eq!(lowered[6..], later, "then one a second");
}

#[tokio::test]
async fn what_was_sent_counts_under_limits_that_were_changed_since() {
    let limits = |spread_seconds| {
        let limits = Limits { requests_per_minute: Some(60), tokens_per_minute: Some(1_000), ..Limits::none() };
        Account::new(Limits { spread_seconds, ..limits })
    };
    // Windows of another length have buckets of another number.
    for (n, spreads) in [&[10.0][..], &[10.0, 30.0], &[10.0, 30.0, 0.0, 10.0]].iter().enumerate() {
        let books = books(&format!("changed-{n}"));
        let go = one(&books.at(START), &limits(spreads[0]), 0, reserve("a", 1_000, 1, Ceilings::default())).await;
        assert_eq!(go.reserved(), Answer::Go { delay: Duration::ZERO });
        for spread in *spreads {
            one(&books.at(START + SECOND), &limits(*spread), 0, Step::Away).await;
        }
        let last = limits(spreads[spreads.len() - 1]);
        let said = one(&books.at(START + SECOND), &last, 0, reserve("b", 1, 1, Ceilings::default())).await;
        let Answer::Go { delay } = said.reserved() else { panic!("{said:?}") };
        // By the pace alone it would go after 58.5 s.
        assert!((59..61).contains(&delay.as_secs()), "{spreads:?}: {delay:?}");
    }
}

#[tokio::test]
async fn an_account_whose_counts_were_lost_is_itself_again_after_a_minute() {
    let redis = Redis::new(RedisServer::shared().parse().unwrap(), "counts-lost");
    let books = Books::new(redis.clone());
    let account = Account::new(Limits { requests_per_minute: Some(60), ..Limits::none() });
    let ask = async |seconds: u64| {
        let step = reserve(&format!("at-{seconds}"), 1, 1, Ceilings::default());
        one(&books.at(START + seconds * SECOND), &account, 0, step).await.reserved()
    };
    for second in 0..50 {
        assert_eq!(ask(second).await, Answer::Go { delay: Duration::ZERO }, "{second}");
    }
    redis.command::<()>(redis::cmd("DEL").arg(redis.key("quota", "counts:a"))).await.unwrap();
    // What is known of the total keeps it back, as far as it may be true.
    for second in (120..170).chain(600..650) {
        assert_eq!(ask(second).await, Answer::Go { delay: Duration::ZERO }, "{second}");
    }
}

#[tokio::test]
async fn a_call_that_is_given_back_and_made_again_in_one_batch_is_open() {
    let (books, account) = (books("again"), Account::new(Limits::none()));
    let again = reserve("a", 1, 40, Ceilings::default());
    one(&books, &account, 1, again.clone()).await;
    let place = Place { account: "a", limits: &account, concurrency: 1 };
    books.take(place, &[&Step::Back { id: "a".to_owned(), run: "r".into() }, &again]).await.unwrap();
    one(&books, &account, 1, settle("a", 1, 30, End::Settled)).await;
    assert_eq!(books.totals("r").await.unwrap(), Totals { calls: 1, spent: Nano(30), unconfirmed: Nano::ZERO });
}

#[tokio::test]
async fn a_server_that_lost_its_functions_is_given_them_again_and_has_lost_nothing_else() {
    let redis = Redis::new(RedisServer::shared().parse().unwrap(), "functions");
    let (books, account) = (Books::new(redis.clone()), Account::new(Limits::none()));
    one(&books, &account, 1, reserve("a", 1, 40, Ceilings::default())).await;
    redis.command::<()>(redis::cmd("FUNCTION").arg("FLUSH")).await.unwrap();
    assert_eq!(one(&books, &account, 1, reserve("b", 1, 40, Ceilings::default())).await.reserved(), Answer::Busy);
    one(&books, &account, 1, settle("a", 1, 30, End::Settled)).await;
    assert_eq!(books.totals("r").await.unwrap(), Totals { calls: 1, spent: Nano(30), unconfirmed: Nano::ZERO });
}

#[tokio::test]
async fn a_store_that_knows_of_fewer_takings_than_its_caller_holds_what_is_limited_by_the_minute() {
    let books = books("lost");
    let hold = async |account: &str, limits: Limits| {
        let (limits, step) = (Account::new(limits), reserve(account, 1, 1, Ceilings::default()));
        let place = Place { account, limits: &limits, concurrency: 0 };
        let (said, known) = books.at(START).take_knowing(place, &[&step], 7).await.unwrap();
        assert_eq!(known.takings, 8);
        let (again, kept) = books.at(START).take_knowing(place, &[&Step::Away], known.takings).await.unwrap();
        assert_eq!((kept.lost, kept.takings), (false, 9), "it is known now");
        (known.lost, said[0].reserved(), again[0].absence())
    };
    let (lost, told, away) = hold("limited", Limits { requests_per_minute: Some(600), ..Limits::none() }).await;
    assert!(lost && matches!(told, Answer::Later { .. }), "{told:?}");
    assert!((60..62).contains(&away.as_secs()), "{away:?}");
    let free = hold("free", Limits::none()).await;
    assert_eq!(free, (false, Answer::Go { delay: Duration::ZERO }, Duration::ZERO), "nothing to hold");
}

#[tokio::test]
async fn what_is_spent_and_reserved_never_passes_a_ceiling_and_a_call_counts_once() {
    let (books, account) = (books("money"), Account::new(Limits::none()));
    let ceilings = Ceilings { run: Some(Nano(100)), ..Ceilings::default() };
    let take = async |step: Step| one(&books, &account, 0, step).await;
    let ask = async |id: &str| take(reserve(id, 1, 40, ceilings)).await.reserved();
    let go = Answer::Go { delay: Duration::ZERO };
    assert_eq!([ask("a").await, ask("b").await, ask("c").await], [go.clone(), go.clone(), Answer::Reserved]);
    assert_eq!(ask("a").await, go, "an answer that was lost takes nothing twice");
    take(settle("a", 1, 30, End::Settled)).await;
    take(settle("a", 1, 30, End::Settled)).await;
    let totals = Totals { calls: 1, spent: Nano(70), unconfirmed: Nano::ZERO };
    assert_eq!(books.totals("r").await.unwrap(), totals);
    take(settle("b", 1, 40, End::Unconfirmed)).await;
    assert_eq!(ask("c").await, Answer::Spent { scope: Scope::Run, spent: Nano(70) });
    let ceilings = Ceilings { all: Some(Nano(100)), ..Ceilings::default() };
    let Step::Reserve { id, tokens, bound, lease, .. } = reserve("d", 1, 40, ceilings) else { unreachable!() };
    let other = Step::Reserve { id, run: "other".into(), tokens, bound, lease, ceilings };
    assert_eq!(take(other).await.reserved(), Answer::Spent { scope: Scope::All, spent: Nano(70) });
    let totals = Totals { calls: 2, spent: Nano(70), unconfirmed: Nano(40) };
    assert_eq!(books.totals("r").await.unwrap(), totals);
}

#[tokio::test]
async fn one_batch_counts_what_it_has_reserved_itself() {
    let (books, account) = (books("batch"), Account::new(Limits::none()));
    let ceilings = Ceilings { run: Some(Nano(100)), ..Ceilings::default() };
    let steps: Vec<Step> = ["a", "b", "c"].iter().map(|id| reserve(id, 1, 40, ceilings)).collect();
    let place = Place { account: "a", limits: &account, concurrency: 2 };
    let said = books.take(place, &steps.iter().collect::<Vec<_>>()).await.unwrap();
    let go = Answer::Go { delay: Duration::ZERO };
    assert_eq!(said.iter().map(Said::reserved).collect::<Vec<_>>(), [go.clone(), go.clone(), Answer::Reserved]);
    // An end and a beginning: the money and the place of the one are there for the other.
    let steps = [
        settle("a", 1, 5, End::Settled),
        Step::Back { id: "b".to_owned(), run: "r".into() },
        reserve("c", 1, 40, ceilings),
    ];
    let said = books.take(place, &steps.iter().collect::<Vec<_>>()).await.unwrap();
    assert_eq!(said[2].reserved(), go);
    let totals = Totals { calls: 1, spent: Nano(45), unconfirmed: Nano::ZERO };
    assert_eq!(books.totals("r").await.unwrap(), totals);
}

#[tokio::test]
async fn one_batch_of_several_runs_counts_all_of_them_together() {
    let (books, account) = (books("runs"), Account::new(Limits::none()));
    let of = |run: &str, id: &str, ceilings: Ceilings| {
        let Step::Reserve { id, tokens, bound, lease, .. } = reserve(id, 1, 40, ceilings) else { unreachable!() };
        Step::Reserve { id, run: run.into(), tokens, bound, lease, ceilings }
    };
    let all = Ceilings { all: Some(Nano(100)), day: Some(Nano(100)), ..Ceilings::default() };
    let take = async |steps: &[Step]| {
        let place = Place { account: "a", limits: &account, concurrency: 0 };
        books.take(place, &steps.iter().collect::<Vec<_>>()).await.unwrap()
    };
    let go = Answer::Go { delay: Duration::ZERO };
    let said = take(&[of("x", "a", all), of("y", "b", all), of("z", "c", all)]).await;
    assert_eq!(said.iter().map(Said::reserved).collect::<Vec<_>>(), [go.clone(), go.clone(), Answer::Reserved]);
    let said = take(&[settle("a", 1, 30, End::Settled), of("z", "c", Ceilings::default())]).await;
    assert_eq!(said[1].reserved(), go);
    let wanted = Money { calls: 1, spent: Nano(30), reserved: Nano(80), unconfirmed: Nano::ZERO };
    let money = [books.money(Of::All).await.unwrap(), books.money(Of::Day).await.unwrap()];
    assert_eq!(money, [wanted, wanted]);
    // What an operator sets for a run wins over what its jobs bring.
    books.set_run("x", Some(Nano(60))).await.unwrap();
    let much = Ceilings { run: Some(Nano(1000)), ..Ceilings::default() };
    assert_eq!(take(&[of("x", "d", much)]).await[0].reserved(), Answer::Spent { scope: Scope::Run, spent: Nano(30) });
    books.set_run("x", None).await.unwrap();
    assert_eq!(take(&[of("x", "d", much)]).await[0].reserved(), go);
}

#[tokio::test]
async fn the_money_of_a_day_is_there_again_after_midnight() {
    let (books, account) = (books("day"), Account::new(Limits::none()));
    let ceilings = Ceilings { day: Some(Nano(100)), ..Ceilings::default() };
    let midnight = START / (24 * 3600 * SECOND) * (24 * 3600 * SECOND) + 24 * 3600 * SECOND;
    let ask = async |at: u64, id: &str| one(&books.at(at), &account, 0, reserve(id, 1, 60, ceilings)).await.reserved();
    let (go, before) = (Answer::Go { delay: Duration::ZERO }, midnight - 10 * SECOND);
    assert_eq!([ask(before, "a").await, ask(before, "b").await], [go.clone(), Answer::Reserved]);
    one(&books.at(before), &account, 0, settle("a", 1, 50, End::Settled)).await;
    let rest = Duration::from_secs(10);
    assert_eq!(ask(before, "b").await, Answer::Spent { scope: Scope::Day(rest), spent: Nano(50) });
    assert_eq!(ask(midnight, "b").await, go);
    // What was reserved on the day before counts there.
    one(&books.at(midnight), &account, 0, settle("b", 1, 60, End::Settled)).await;
    assert_eq!(ask(midnight, "c").await, Answer::Spent { scope: Scope::Day(24 * 3600 * rest / 10), spent: Nano(60) });
    assert_eq!(books.totals("r").await.unwrap().spent, Nano(110));
}

#[tokio::test]
async fn the_call_of_a_dead_holder_gives_back_its_place_and_counts_at_its_worst_case() {
    let (books, account) = (books("dead-holder"), Account::new(Limits::none()));
    let take = async |now: u64, step: Step| one(&books.at(START + now * SECOND), &account, 1, step).await;
    let ask = async |id: &str, now: u64| take(now, reserve(id, 1, 40, Ceilings::default())).await.reserved();
    assert!(matches!(ask("a", 0).await, Answer::Go { .. }));
    assert_eq!(ask("b", 599).await, Answer::Busy);
    assert!(matches!(ask("b", 601).await, Answer::Go { .. }));
    let totals = Totals { calls: 1, spent: Nano(80), unconfirmed: Nano(40) };
    assert_eq!(books.totals("r").await.unwrap(), totals);
    // It was not dead, only very late: what is booked stays.
    take(602, settle("a", 1, 1, End::Settled)).await;
    assert_eq!(books.totals("r").await.unwrap(), totals);
}

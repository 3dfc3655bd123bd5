//! The ceiling holds by the provider's own books, whatever dies on the way.

use std::path::Path;

use aurelia::simulator::{Faults, Latency, Settings};
use rustix::process::Signal;

use crate::load::{budget, dollars, exhausting, ledger};
use crate::support::{Aurelia, Sim, Workdir, corpus, until};

#[test]
fn a_spent_budget_stops_the_run_and_a_raised_one_goes_on() {
    println!("{}", budget(50));
}

#[test]
fn a_budget_smaller_than_one_call_asks_nobody() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let file = work.items("items.jsonl", &corpus(3, 1));
    let output = Aurelia::new(&work, &sim).corpus(&file).args(["--budget-usd", "0.000001"]).run().expect(75);
    let sentence = output.sentence();
    assert!(sentence.contains("$0.000001") && sentence.contains("raise --budget-usd"), "{sentence}");
    assert_eq!(sim.received(), 0);
}

#[test]
fn the_ceiling_holds_when_replies_are_lost_and_the_process_is_killed() {
    let kinds = ["cut_after", "cut_body", "stall", "wrong_length"].map(str::to_owned).to_vec();
    let faults = Faults { rate: 0.2, kinds, max_consecutive: 2, ..Faults::default() };
    let settings = Settings { latency: Latency::Fixed { ms: 30 }, faults, ..Settings::default() };
    let (sim, work) = (Sim::start(settings), Workdir::with_clips(1));
    let file = work.items("items.jsonl", &corpus(30, 1));
    let start = || {
        let config = "[http]\nfirst_byte_seconds = 2\nidle_seconds = 2\ntotal_seconds = 5\n";
        Aurelia::new(&work, &sim).config(config).corpus(&file).args(["--concurrency", "64"])
    };
    let ceiling = 600_000_000;
    let usd = dollars(ceiling);
    let running = start().args(["--budget-usd", &usd]).spawn();
    until("some calls are answered", || (sim.stats().answered >= 12).then_some(()));
    assert_eq!(running.kill().code, None, "it was over before it was killed");
    start().args(["--budget-usd", &usd]).run().expect(75);
    let (stats, (booked, unconfirmed, open)) = (sim.stats(), ledger(&work.out()));
    assert!(stats.billed_unseen > 0 && unconfirmed > 0, "nothing was lost: this shows nothing");
    assert!(stats.spend_nano_usd <= booked && booked <= ceiling, "{} <= {booked} <= {ceiling}", stats.spend_nano_usd);
    assert_eq!(open, 0);
    start().run().expect(0);
    let (stats, (booked, unconfirmed, _)) = (sim.stats(), ledger(&work.out()));
    assert_eq!(work.records().len(), 30);
    let seen = stats.spend_nano_usd - stats.billed_unseen_nano_usd;
    assert!(stats.spend_nano_usd <= booked, "{} spent and {booked} booked", stats.spend_nano_usd);
    assert!(booked - unconfirmed <= seen, "{booked} - {unconfirmed} is more than the {seen} that were seen");
}

/// The next midnight UTC, as a run writes it, and not within the next minute: what a test spends is then spent on one day.
fn midnight() -> String {
    const DAY: i64 = 86_400;
    let next = until("the day is young enough", || {
        let now = jiff::Timestamp::now().as_second();
        let next = (now / DAY + 1) * DAY;
        (next - now > 60).then_some(next)
    });
    format!("{:.0}", jiff::Timestamp::from_second(next).unwrap())
}

/// A ceiling over each day.
fn per_day(usd: &str) -> String {
    format!("[budget]\nper_day_usd = \"{usd}\"\n")
}

/// As if all calls had been made so many days ago.
fn age(state: &Path, days: i64) {
    let state = rusqlite::Connection::open(state).unwrap();
    let aged = state.execute("UPDATE calls SET sent_at = sent_at - ?1", [days * 86_400_000_000]).unwrap();
    assert!(aged > 0);
}

#[test]
fn a_days_money_is_never_passed_counts_over_runs_and_is_there_again_on_the_next_day() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let file = work.items("items.jsonl", &exhausting(20));
    let midnight = midnight();
    let ceiling = 300_000_000;
    // One at a time, so that both runs end at the same call.
    let args = ["--concurrency", "1"];
    let start = || Aurelia::new(&work, &sim).config(&per_day(&dollars(ceiling))).corpus(&file).args(args);
    let stopped = || {
        let output = start().args(["--max-wait", "1s"]).run().expect(75);
        let said =
            format!("the day's money is spent (budget.per_day_usd) until {midnight}, which is later than --max-wait");
        assert!(output.sentence().starts_with(&said), "{}", output.stderr);
        sim.stats().spend_nano_usd
    };
    let spent = stopped();
    assert!(spent <= ceiling && spent * 10 >= ceiling * 8, "{spent} of {ceiling}");
    assert_eq!(ledger(&work.out()), (spent, 0, 0));
    assert_eq!(stopped(), spent, "what the first run spent is of the same day");

    // Without a longest wait it waits for the next day, and says so.
    let mut waiting = start().spawn();
    until("it waits", || waiting.stderr().contains(&format!("waiting until {midnight}")).then_some(()));
    let told = format!("the day's money is spent (budget.per_day_usd); waiting until {midnight}\n");
    assert!(waiting.stderr().contains(&told) && !waiting.is_over(), "{}", waiting.stderr());
    waiting.signal(Signal::TERM);
    waiting.wait().expect(75);
    assert_eq!(sim.stats().spend_nano_usd, spent);

    age(&work.out().join(".aurelia/state.sqlite"), 1);
    let second = stopped() - spent;
    assert!(second <= ceiling && second * 10 >= ceiling * 8, "{second} of {ceiling} on the second day");
}

#[test]
fn a_days_money_is_that_of_all_directories_that_share_a_state() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let (state, ceiling) = (work.path("state.sqlite"), 300_000_000);
    midnight();
    let config = format!("{}[shared]\nurl = \"embedded:{}\"\n", per_day(&dollars(ceiling)), state.display());
    let mut spent = 0;
    for (name, share) in [("one", 1), ("two", 0)] {
        // Other questions for each, so that nothing is answered by the journal.
        let mut items = exhausting(20);
        for item in &mut items {
            item["query"] = format!("{name}: {}", item["query"].as_str().unwrap()).into();
        }
        let file = work.items(&format!("{name}.jsonl"), &items);
        let run = Aurelia::new(&work, &sim).config(&config).args(["run", "--concurrency", "1", "--max-wait", "1s"]);
        let output = run.arg("--corpus").arg(file).arg("--out").arg(work.path(name)).run().expect(75);
        assert!(output.sentence().contains("the day's money is spent"), "{}", output.stderr);
        let now = sim.stats().spend_nano_usd;
        assert!(
            (now - spent) * 10 >= ceiling * 8 * share && now <= ceiling,
            "{name}: {now} of {ceiling}, before {spent}"
        );
        spent = now;
    }
}

#[test]
fn a_ceiling_of_a_day_smaller_than_one_call_ends_the_run_as_no_day_would_do() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let file = work.items("items.jsonl", &corpus(3, 1));
    let output = Aurelia::new(&work, &sim).config(&per_day("0.000001")).corpus(&file).run().expect(75);
    assert!(output.sentence().contains("raise budget.per_day_usd"), "{}", output.stderr);
    assert_eq!(sim.received(), 0);
}

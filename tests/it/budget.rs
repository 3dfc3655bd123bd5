//! The ceiling holds by the provider's own books, whatever dies on the way.

use aurelia::simulator::{Faults, Latency, Settings};

use crate::load::{budget, dollars, ledger};
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

//! A fleet's money: what is spent never passes a ceiling, whatever dies, and all of it is used.

use aurelia::price::Nano;
use aurelia::quota::gate::shared::step::{Books, Money, Of};
use rustix::process::Signal;
use serde_json::json;

use super::support::fleet::Bench;
use super::support::{Running, Sim, Workdir, corpus, until};

/// The worst case of the call that was refused last, as a worker says it.
fn refused(worker: &Running<'_>) -> Option<Nano> {
    let said = worker.stderr();
    let (_, bound) = said.rsplit_once("it may cost up to ")?;
    bound.split(';').next()?.parse().ok()
}

/// Half the money that these jobs cost, over three workers of which so many are killed on the way.
pub(crate) fn ceiling(prefix: &str, jobs: usize, concurrency: usize, kills: usize) -> String {
    let (probe, sim, work) = (Sim::plain(), Sim::slow(50), Workdir::with_clips(2));
    let mut sample = Bench::new(&format!("{prefix}-sample"));
    sample.enqueue(&work, "r", &corpus(10, 2));
    let worker = sample.worker(&work, &probe).spawn();
    sample.records(10);
    drop(worker);
    let ceiling = Nano(probe.stats().spend_nano_usd / 10 * jobs as u64 / 2);

    let bench = Bench::new(prefix);
    bench.enqueue(&work, "r", &corpus(jobs, 2));
    bench.block_on(bench.fleet.runs.set_ceiling("r", Some(ceiling))).unwrap();
    let config = format!("[worker]\nconcurrency = {concurrency}\n");
    let start = || bench.worker(&work, &sim).config(&config).spawn();
    let mut workers: Vec<Running<'_>> = (0..3).map(|_| start()).collect();
    for kill in 1..=kills as u64 {
        let enough = ceiling.0 / 2 * kill / kills as u64;
        until("money is spent", || (sim.stats().spend_nano_usd > enough).then_some(()));
        workers.remove(0).kill();
        workers.push(start());
    }
    let queue = bench.fleet.topology.run("r").unwrap().name;
    until("all that is left waits for money", || {
        let ready = bench.block_on(aurelia::queue::ready(&bench.fleet.outgoing, &queue)).unwrap();
        let under_way = bench.block_on(bench.fleet.jobs.under_way("r")).unwrap();
        let waits = under_way.parked.keys().eq(["budget"]) && under_way.running == 0;
        (ready == Some(0) && waits && sim.stats().in_flight == 0).then_some(())
    });
    let books = Books::new(bench.fleet.redis.clone());
    let Money { spent, reserved, unconfirmed, .. } = bench.block_on(books.money(Of::Run("r"))).unwrap();
    let (billed, used) = (Nano(sim.stats().spend_nano_usd), spent.saturating_add(reserved));
    let left = ceiling.saturating_sub(used);
    // Refused in so many words only where nothing is reserved by the dead.
    let bound = workers.iter().filter_map(refused).max().unwrap_or_default();
    // What is reserved still is of calls that were killed: their leases end later.
    assert!(billed <= used && used <= ceiling, "{billed} billed, {used} booked, {ceiling} allowed");
    assert!(
        left.0 < ceiling.0 * 3 / 100 || left <= bound,
        "{left} of {ceiling} are left, and a call costs {bound} at most"
    );
    for worker in workers {
        worker.signal(Signal::TERM);
        worker.wait().expect(0);
    }
    format!(
        "{jobs} jobs, {kills} kills: {billed} billed, {spent} spent, {unconfirmed} of it unconfirmed, {reserved} of killed calls, of {ceiling}"
    )
}

#[test]
fn a_fleet_with_killed_workers_uses_its_money_and_never_passes_it() {
    println!("{}", ceiling("money-fleet", 200, 8, 3));
}

#[test]
fn a_ceiling_is_shown_set_and_heeded_by_workers_that_run() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let mut bench = Bench::new("money-set");
    let aurelia =
        |bench: &Bench, line: &[&str]| bench.program(&work, &sim, env!("CARGO_BIN_EXE_aurelia")).args(line).run();
    bench.enqueue(&work, "r", &corpus(4, 1));
    let said = aurelia(&bench, &["budget", "set", "--total", "0.000001"]).expect(0).stdout;
    assert_eq!(said, "all runs together: at most $0.000001\n");
    let worker = bench.worker(&work, &sim).spawn();
    until("all jobs wait for money", || {
        let under_way = bench.block_on(bench.fleet.jobs.under_way("r")).unwrap();
        (under_way.parked == [("budget".to_owned(), 4)].into()).then_some(())
    });
    assert_eq!(sim.received(), 0);
    // More of it, and new jobs: nobody was started again.
    assert_eq!(
        aurelia(&bench, &["budget", "set", "--total", "none"]).expect(0).stdout,
        "all runs together: no ceiling set\n"
    );
    assert_eq!(aurelia(&bench, &["budget", "set", "--run", "r", "1.50"]).expect(0).stdout, "run r: at most $1.50\n");
    assert_eq!(aurelia(&bench, &["budget", "set", "--per-day", "40"]).expect(0).stdout, "each day: at most $40.00\n");
    let mut more = corpus(8, 1);
    bench.enqueue(&work, "r", &more.split_off(4));
    bench.records(4);
    let shown = aurelia(&bench, &["budget", "show", "--json"]).expect(0).json();
    let spent = shown["all"]["spent_nano_usd"].as_u64().unwrap();
    assert_eq!(spent, sim.stats().spend_nano_usd);
    let line = |ceiling: Option<u64>| {
        json!({"calls": 12, "spent_nano_usd": spent, "under_way_nano_usd": 0, "unconfirmed_nano_usd": 0,
               "ceiling_nano_usd": ceiling})
    };
    let mut run = line(Some(1_500_000_000));
    run["run"] = "r".into();
    let calls = &shown["all"]["calls"];
    run["calls"] = calls.clone();
    assert_eq!(shown["runs"], json!([run]));
    assert_eq!(shown["today"]["ceiling_nano_usd"], json!(40_000_000_000_u64));
    assert_eq!(shown["all"]["ceiling_nano_usd"], json!(null));
    let table = aurelia(&bench, &["budget", "show"]).expect(0).stdout;
    println!("{table}");
    assert_eq!(table.lines().count(), 4, "{table}");
    let unknown = aurelia(&bench, &["budget", "set", "--run", "nobody", "1"]).expect(64);
    assert!(unknown.stderr.contains("nobody"), "{}", unknown.stderr);
    let much = aurelia(&bench, &["budget", "set", "--total", "9007200"]).expect(2);
    assert!(much.stderr.contains("is more than $9007199.254740991"), "{}", much.stderr);
    drop(worker);
}

#[test]
fn jobs_that_wait_for_a_days_money_say_so() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let bench = Bench::new("money-day");
    bench.enqueue(&work, "r", &corpus(2, 1));
    let worker = bench.worker(&work, &sim).config("[budget]\nper_day_usd = \"0.000001\"\n").spawn();
    let status = until("status says so", || {
        let status = bench.program(&work, &sim, env!("CARGO_BIN_EXE_aurelia")).args(["status"]).run().expect(0).stdout;
        status.contains("parked: 2 for budget").then_some(status)
    });
    println!("{status}");
    assert_eq!(sim.received(), 0);
    drop(worker);
}

//! `aurelia recost`: money of records under other prices.

use std::fs;

use aurelia::price::Nano;
use aurelia::record::{Record, RecordCall};
use serde_json::{Value, json};

use crate::support::{Aurelia, Output, Sim, Workdir, corpus, superseded};

/// Twice what the default recipe's models cost.
const TWICE: &str = r#"
[[prices]]
provider = "gemini"
model = "gemini-3.8-flash"
input = 1_500_000_000
cached_input = 150_000_000
output = 7_500_000_000
[[prices]]
provider = "openai"
model = "gpt-4o-mini"
input = 300_000_000
cached_input = 150_000_000
output = 1_200_000_000
"#;

fn recost(work: &Workdir, args: &[&str], code: i32) -> Output {
    Aurelia::at(work, "http://127.0.0.1:9").arg("recost").args(args).run().expect(code)
}

/// The sum over the calls of some records of one of their counters.
fn sum(records: &[Record], of: impl Fn(&RecordCall) -> u64) -> u64 {
    records.iter().flat_map(|r| &r.tries).flat_map(|t| &t.calls).map(of).sum()
}

#[test]
fn the_money_of_a_run_is_computed_again_under_other_prices_and_no_record_is_touched() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(2));
    let mut items = corpus(5, 2);
    items.push(json!({ "id": "again", "video": "clips/0.mp4", "query": "What? [[sim: scores=1/1/1/1/1/9]]" }));
    // The same question: its replies are paid for once.
    items.push(json!({ "id": "twin", "video": "clips/0.mp4", "query": "What? [[sim: scores=1/1/1/1/1/9]]" }));
    let items = work.items("items.jsonl", &items);
    let run = |args: &[&str]| Aurelia::new(&work, &sim).corpus(&items).args(args).run().expect(0).json();
    run(&[]);
    let spent = run(&["--retry", "exhausted"])["spent_nano_usd"].as_u64().unwrap();
    let path = work.out().join("records.jsonl");
    let before = fs::read(&path).unwrap();
    let out = work.out().display().to_string();

    let same = recost(&work, &[&out, "--json"], 0).json();
    let all = &same["all"];
    let mut records = superseded(&work.out());
    records.extend(work.records().into_values());
    assert_eq!(same["records"], json!(records.len()));
    assert_eq!((&all["recorded_nano_usd"], &all["now_nano_usd"]), (&json!(spent), &json!(spent)));
    assert_eq!(all["difference_nano_usd"], json!(0));
    assert_eq!(all["calls"], json!(sum(&records, |call| u64::from(!call.cached))));
    assert_eq!(same["replayed"], json!(sum(&records, |call| u64::from(call.cached))));
    assert!(same["replayed"].as_u64() > Some(0));
    for (name, counter) in [
        ("input_tokens", sum(&records, |call| call.usage.input_tokens)),
        ("audio_tokens", sum(&records, |call| call.usage.audio_tokens)),
        ("output_tokens", sum(&records, |call| call.usage.output_tokens)),
    ] {
        assert!(counter > 0, "{name}");
        assert_eq!(all[name], json!(counter), "{name}");
    }
    let models: Vec<&String> = same["models"].as_object().unwrap().keys().collect();
    assert_eq!(models, ["gemini/gemini-3.8-flash", "openai/gpt-4o-mini"]);

    let twice = work.write("twice.toml", TWICE).display().to_string();
    let doubled = recost(&work, &[&out, "--json", "--prices", &twice], 0).json();
    let all = &doubled["all"];
    assert_eq!((&all["now_nano_usd"], &all["difference_nano_usd"]), (&json!(2 * spent), &json!(spent)));
    // Those of the file come before those of the configuration, which come before the built-in ones.
    let configured = TWICE.replace("1_500_000_000", "150_000_000").replace("7_500_000_000", "1");
    let command = Aurelia::at(&work, "http://127.0.0.1:9").config(&configured).args(["recost", &out, "--json"]);
    let cheap = command.run().expect(0).json();
    assert!(cheap["all"]["difference_nano_usd"].as_i64() < Some(0), "{cheap}");
    let command = Aurelia::at(&work, "http://127.0.0.1:9").config(&configured).args(["recost", &out, "--json"]);
    assert_eq!(command.args(["--prices", &twice]).run().expect(0).json(), doubled);

    // Half of it, rounded up for each call.
    let batch = recost(&work, &[&out, "--json", "--batch"], 0).json()["all"]["now_nano_usd"].as_u64().unwrap();
    let calls = sum(&records, |call| u64::from(!call.cached));
    assert!((spent..=spent + 2 * calls).contains(&(2 * batch)), "{batch} of {spent}");

    let table = recost(&work, &[&out, "--prices", &twice], 0).stdout;
    println!("{table}");
    let money = Nano(spent);
    assert!(table.lines().any(|line| line.starts_with("all ") && line.ends_with(&format!("+{money}"))), "{table}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn calls_without_a_usage_are_named_and_never_guessed() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let items = work.items("items.jsonl", &corpus(3, 1));
    Aurelia::new(&work, &sim).corpus(&items).run().expect(0);
    let path = work.out().join("records.jsonl");
    let mut lines: Vec<Value> =
        fs::read_to_string(&path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let call = &mut lines[1]["tries"][0]["calls"][0];
    call["usage"] = json!({});
    let (item, cost) = (lines[1]["item_id"].clone(), lines[1]["tries"][0]["calls"][0]["cost_nano_usd"].clone());
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(&path, text).unwrap();
    let out = work.out().display().to_string();
    let json = recost(&work, &[&out, "--json"], 0).json();
    let model = &json["models"]["gemini/gemini-3.8-flash"];
    assert_eq!(model["without_usage"], json!({ "calls": 1, "recorded_nano_usd": cost, "items": [item] }));
    let all = sum(&work.records().into_values().collect::<Vec<_>>(), |call| call.cost_nano_usd);
    assert_eq!(json["all"]["recorded_nano_usd"], json!(all - cost.as_u64().unwrap()));
    assert_eq!(json["all"]["difference_nano_usd"], json!(0));
    let (table, cost) = (recost(&work, &[&out], 0).stdout, Nano(cost.as_u64().unwrap()));
    println!("{table}");
    assert!(table.contains(&format!("1 calls have no usage and are in no sum; recorded at {cost}")), "{table}");
}

#[test]
fn what_cannot_be_priced_or_read_ends_with_the_way_out() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let items = work.items("items.jsonl", &corpus(1, 1));
    Aurelia::new(&work, &sim).corpus(&items).run().expect(0);
    // As of a server that is not in the configuration any more.
    let path = work.out().join("records.jsonl");
    let record = fs::read_to_string(&path).unwrap();
    assert!(record.contains(r#""provider":"openai""#));
    let record = record.replace(r#""provider":"openai""#, r#""provider":"gone""#).replace("gpt-4o-mini", "house-model");
    fs::write(&path, record).unwrap();
    let provider = "[providers.gone]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"\n\
                    api_key_env = \"OPENAI_API_KEY\"\n";
    let out = work.out().display().to_string();
    let unknown = recost(&work, &[&out], 64);
    assert!(unknown.sentence().contains("[providers.gone]") && unknown.sentence().contains("house-model"));
    let unpriced = Aurelia::at(&work, "http://127.0.0.1:9").config(provider).args(["recost", &out]).run().expect(64);
    assert!(unpriced.sentence().contains("[[prices]]") && unpriced.sentence().contains("--prices"));
    let price = "[[prices]]\nprovider = \"openai\"\nmodel = \"house-model\"\ninput = 1000\noutput = 2000\n";
    let file = work.write("prices.toml", price).display().to_string();
    let args = ["recost", &out, "--prices", &file];
    Aurelia::at(&work, "http://127.0.0.1:9").config(provider).args(args).run().expect(0);
    for (text, said) in [
        ("[[prices]]\nprovider = \"openai\"\nmodel = \"m\"\ninput = 1\n", "prices[0].output"),
        ("[worker]\nconcurrency = 1\n", "worker is not a known setting"),
        ("", "has no prices"),
        ("[[prices\n", "is not valid TOML"),
    ] {
        let file = work.write("prices.toml", text).display().to_string();
        let refused = recost(&work, &[&out, "--prices", &file], 64);
        assert!(refused.stderr.contains(said) && refused.stderr.contains("prices.toml"), "{}", refused.stderr);
    }
    let missing = work.path("none.toml").display().to_string();
    assert!(recost(&work, &[&out, "--prices", &missing], 64).stderr.contains("cannot be read"));
    let nothing = work.path("clips").display().to_string();
    assert!(recost(&work, &[&nothing], 1).sentence().contains("has no records.jsonl"));
    recost(&work, &[], 2);
    assert!(recost(&work, &["--help"], 0).stdout.contains("aurelia recost data --prices new.toml"));
}

#[cfg(feature = "fleet")]
mod fleet {
    use rustix::process::Signal;

    use super::*;

    use crate::support::fleet::{Bench, data_set};
    use crate::support::s3::S3;

    #[test]
    fn a_fleets_data_set_is_computed_again_from_its_shards_and_a_spoilt_one_is_refused() {
        let (sim, work) = (Sim::plain(), Workdir::with_clips(2));
        let bench = Bench::new("recost");
        let sets = work.path("sets").display().to_string();
        bench.enqueue(&work, "spring", &corpus(12, 2));
        let worker = bench.worker(&work, &sim).spawn();
        let collector = bench.program(&work, &sim, env!("CARGO_BIN_EXE_aurelia-collector"));
        let collector = collector.env("AURELIA__COLLECTOR__OUTPUT", &sets);
        let collector = collector.config("[collector]\nshard_rows = 5\nshard_idle_seconds = 0.3\n");
        let shown = collector.args(["--run", "spring", "--until-complete", "--json"]).run().expect(0).json();
        worker.signal(Signal::TERM);
        worker.wait().expect(0);
        let folder = work.path("sets").join("spring");
        let (manifest, records) = data_set(&folder);
        let mut tries = aurelia::record::ByTry::default();
        for record in &records {
            tries.add(&record.by_try());
        }
        assert!(!tries.is_empty());
        assert_eq!((&manifest.totals.tries, &shown["runs"]["spring"]["tries"]), (&tries, &json!(tries)));

        let twice = work.write("twice.toml", TWICE).display().to_string();
        let by_folder = recost(&work, &[folder.to_str().unwrap(), "--json", "--prices", &twice], 0).json();
        let spent = manifest.totals.cost_nano_usd;
        assert_eq!(by_folder["records"], json!(12));
        assert_eq!(by_folder["all"]["recorded_nano_usd"], json!(spent));
        assert_eq!(by_folder["all"]["now_nano_usd"], json!(2 * spent));
        let by_run = Aurelia::at(&work, "http://127.0.0.1:9").env("AURELIA__COLLECTOR__OUTPUT", &sets);
        let by_run = by_run.args(["recost", "--run", "spring", "--json", "--prices", &twice]).run().expect(0).json();
        assert_eq!(by_run, by_folder);
        let s3 = S3::start();
        for file in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            s3.put(&format!("sets/all/spring/{}", file.file_name().unwrap().display()), &fs::read(&file).unwrap());
        }
        let by_bucket = s3.told(Aurelia::at(&work, "http://127.0.0.1:9"), "s3://sets/");
        let by_bucket = by_bucket.env("AURELIA__COLLECTOR__OUTPUT", "s3://sets/all");
        let by_bucket =
            by_bucket.args(["recost", "--run", "spring", "--json", "--prices", &twice]).run().expect(0).json();
        assert_eq!(by_bucket, by_folder);
        let unset = recost(&work, &["--run", "spring"], 64);
        assert!(unset.sentence().contains("collector.output is not set"));

        let shard = folder.join(&manifest.shards[1].records.name);
        let mut bytes = fs::read(&shard).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&shard, bytes).unwrap();
        let spoilt = recost(&work, &[folder.to_str().unwrap()], 1);
        assert!(spoilt.sentence().contains("is not what the manifest lists"), "{}", spoilt.stderr);
        fs::remove_file(&shard).unwrap();
        assert!(recost(&work, &[folder.to_str().unwrap()], 1).sentence().contains("is gone"));
    }
}

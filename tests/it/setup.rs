//! What stands between a newcomer and a first record: keys, models, configuration, locks, usage.

use aurelia::simulator::Limit;
use serde_json::json;

use crate::support::command::{GEMINI_KEY, OPENAI_KEY};
use crate::support::promises::ledger;
use crate::support::{Aurelia, Sim, Workdir, corpus, records, until};

#[test]
fn a_gemini_key_alone_is_enough() {
    for name in ["GEMINI_API_KEY", "GOOGLE_API_KEY"] {
        let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
        let items = work.items("items.jsonl", &corpus(2, 1));
        let command = Aurelia::new(&work, &sim).without("OPENAI_API_KEY").without("GEMINI_API_KEY");
        command.env(name, GEMINI_KEY).corpus(&items).run().expect(0);
        assert_eq!(work.records().len(), 2, "{name}");
        assert_eq!(sim.stats().by_model.into_keys().collect::<Vec<_>>(), ["gemini-3.8-flash"]);
        let models: Vec<_> =
            work.records().values().flat_map(|r| &r.tries).flat_map(|t| &t.calls).map(|c| c.provider.clone()).collect();
        assert!(models.iter().all(|provider| provider == "gemini"), "{models:?}");
    }
}

/// A run that cannot start or go on: one sentence with these words, this code, nothing paid, no record.
fn refused(sim: &Sim, work: &Workdir, command: Aurelia<'_>, words: &[&str]) {
    let items = work.items("items.jsonl", &corpus(3, 1));
    let output = command.corpus(&items).run().expect(64);
    let sentence = output.sentence();
    for word in words {
        assert!(sentence.contains(word), "{word:?} is not in {sentence:?}");
    }
    assert!(sentence.len() < 500, "a sentence, not a story: {sentence}");
    assert_eq!((sim.stats().spend_nano_usd, work.records().len()), (0, 0));
}

#[test]
fn a_missing_key_ends_in_one_sentence() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let command = Aurelia::new(&work, &sim).without("GEMINI_API_KEY").without("OPENAI_API_KEY");
    refused(&sim, &work, command, &["GEMINI_API_KEY or GOOGLE_API_KEY", "gemini", "no key"]);
    refused(&sim, &work, Aurelia::new(&work, &sim).env("GEMINI_API_KEY", "  "), &["GEMINI_API_KEY"]);
    assert!(!work.out().exists());
    assert_eq!(sim.received(), 0);
}

#[test]
fn a_revoked_key_ends_in_one_sentence_that_names_it() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    sim.set(|settings| settings.keys.revoked = [GEMINI_KEY.to_owned()].into());
    refused(&sim, &work, Aurelia::new(&work, &sim), &["key GEMINI_API_KEY is refused"]);
}

#[test]
fn a_project_without_billing_ends_in_one_sentence() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    sim.set(|settings| settings.keys.no_billing = [GEMINI_KEY.to_owned()].into());
    refused(&sim, &work, Aurelia::new(&work, &sim), &["GEMINI_API_KEY", "illing"]);
}

#[test]
fn a_model_without_a_price_is_refused_before_anything_is_asked() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    work.recipe("odd.toml", &[("model = \"gemini-3.8-flash\"", "model = \"gemini-99-zirkon\"")]);
    let command =
        Aurelia::new(&work, &sim).args(["run", "--corpus", "items.jsonl", "--out", "out", "--recipe", "odd.toml"]);
    work.items("items.jsonl", &corpus(1, 1));
    let output = command.run().expect(64);
    assert!(output.sentence().contains("gemini-99-zirkon") && output.sentence().contains("price"), "{}", output.stderr);
    assert_eq!((sim.received(), work.out().exists()), (0, false));
}

#[test]
fn a_model_that_the_provider_does_not_have_ends_the_run() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    work.recipe("odd.toml", &[("model = \"gemini-3.8-flash\"", "model = \"gemini-99-zirkon\"")]);
    let price = "[[prices]]\nprovider = \"gemini\"\nmodel = \"gemini-99-zirkon\"\ninput = 1000\noutput = 1000\n";
    work.items("items.jsonl", &corpus(3, 1));
    let args = ["run", "--corpus", "items.jsonl", "--out", "out", "--recipe", "odd.toml"];
    let output = Aurelia::new(&work, &sim).config(price).args(args).run().expect(64);
    assert!(output.sentence().contains("gemini-99-zirkon"), "{}", output.stderr);
    assert_eq!((sim.stats().spend_nano_usd, work.records().len()), (0, 0));
}

#[test]
fn a_provider_that_is_not_configured_is_named() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    work.recipe("odd.toml", &[("provider = \"gemini\"", "provider = \"zirkon\"")]);
    work.items("items.jsonl", &corpus(1, 1));
    let args = ["run", "--corpus", "items.jsonl", "--out", "out", "--recipe", "odd.toml"];
    let output = Aurelia::new(&work, &sim).args(args).run().expect(64);
    for word in ["generator", "\"zirkon\"", "gemini, openai"] {
        assert!(output.sentence().contains(word), "{}", output.stderr);
    }
}

#[test]
fn of_two_keys_one_that_is_revoked_is_left_out_and_the_run_goes_on() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    sim.set(|settings| settings.keys.revoked = ["AIza-old-key".to_owned()].into());
    let items = work.items("items.jsonl", &corpus(6, 1));
    let command = Aurelia::new(&work, &sim)
        .config("[providers.gemini]\napi_key_env = [\"OLD_API_KEY\", \"GEMINI_API_KEY\"]\n")
        .env("OLD_API_KEY", "AIza-old-key");
    let output = command.corpus(&items).run().expect(0);
    assert_eq!(work.records().len(), 6);
    assert!(
        output.stderr.contains("OLD_API_KEY") && !output.stderr.contains("key GEMINI_API_KEY"),
        "{}",
        output.stderr
    );
}

#[test]
fn keys_of_a_file_are_used_and_never_shown() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let file = work.key_file("keys.txt", &["AIza-from-a-file-1", "AIza-from-a-file-2"]);
    let config = format!("[providers.gemini]\napi_key_env = \"\"\napi_key_file = \"{}\"\n", file.display());
    let items = work.items("items.jsonl", &corpus(6, 1));
    Aurelia::new(&work, &sim).config(&config).without("GEMINI_API_KEY").corpus(&items).run().expect(0);
    // Two of Gemini, one of OpenAI.
    assert_eq!(sim.stats().by_key.len(), 3);
    let shown = Aurelia::new(&work, &sim).config(&config).args(["config", "show"]).run().expect(0).stdout;
    assert!(shown.contains("keys.txt:1 (hidden)") && shown.contains("keys.txt:2 (hidden)"), "{shown}");
}

#[test]
fn a_second_process_on_a_directory_ends_with_75_and_names_the_first() {
    let (sim, work) = (Sim::slow(3_600_000), Workdir::with_clips(1));
    let items = work.items("items.jsonl", &corpus(2, 1));
    let first = Aurelia::new(&work, &sim).corpus(&items).spawn();
    until("the first one asks", || (sim.received() > 0).then_some(()));
    let second = Aurelia::new(&work, &sim).corpus(&items).run().expect(75);
    assert!(second.sentence().contains(&format!("process {} ", first.pid())), "{}", second.stderr);
    first.kill();
    sim.set(|settings| settings.latency = aurelia::simulator::Latency::default());
    Aurelia::new(&work, &sim).corpus(&items).run().expect(0);
}

#[test]
fn a_shared_state_gives_one_directory_the_replies_of_another() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    work.items("items.jsonl", &corpus(4, 1));
    let config = format!("[shared]\nurl = \"embedded:{}\"\n", work.path("shared/state.sqlite").display());
    let run = |out: &str| {
        let args = ["run", "--corpus", "items.jsonl", "--json", "--out", out];
        sim.counted(|| Aurelia::new(&work, &sim).config(&config).args(args).run().expect(0))
    };
    let (first, _) = run("a");
    let (second, output) = run("b");
    assert!(first > 0);
    assert_eq!((second, output.json()["spent_nano_usd"].as_u64()), (0, Some(0)));
    let (a, b) = (records(&work.path("a")), records(&work.path("b")));
    for (id, record) in &b {
        assert_eq!((record.cost_nano_usd, &record.tries[0].reasoning_steps), (0, &a[id].tries[0].reasoning_steps));
        assert!(record.tries.iter().flat_map(|t| &t.calls).all(|call| call.cached));
    }
    assert_eq!((a.len(), b.len()), (4, 4));
    assert_eq!(ledger(&work.path("shared/state.sqlite")), sim.stats().spend_nano_usd);
    assert!(!work.path("a/.aurelia/state.sqlite").exists());
}

#[test]
fn directories_that_share_a_state_run_one_after_the_other_and_pass_no_limit_together() {
    let day = Limit { model: "*".into(), requests: Some(5), tokens: None, window_ms: 86_400_000, bare: false };
    let (sim, work) = (Sim::slow(3_600_000), Workdir::with_clips(1));
    sim.set(|settings| settings.limits = vec![day]);
    let state = format!("[shared]\nurl = \"embedded:{}\"\n", work.path("state.sqlite").display());
    let limit = "[[limits]]\nprovider = \"gemini\"\nmodel = \"*\"\nrequests_per_day = 5\n";
    let start = |out: &str| {
        // Questions of its own, so that nothing is answered by what the other one has asked.
        let item =
            |n| json!({"id": format!("{n}"), "video": "clips/0.mp4", "query": format!("What is it ({out} {n})?")});
        let items = work.items(&format!("{out}.jsonl"), &(0..4).map(item).collect::<Vec<_>>());
        let aurelia = Aurelia::new(&work, &sim).without("OPENAI_API_KEY").config(&state).config(limit);
        let aurelia = aurelia.args(["run", "--json", "--max-wait", "1s", "--concurrency", "1", "--corpus"]).arg(items);
        aurelia.arg("--out").arg(work.path(out)).spawn()
    };
    let first = start("a");
    until("the first one asks", || (sim.received() > 0).then_some(()));
    let second = start("b").wait().expect(75);
    assert!(second.sentence().contains(&format!("process {} ", first.pid())), "{}", second.stderr);
    assert_eq!(sim.received(), 1, "the second one asks nobody meanwhile");
    first.kill();

    sim.set(|settings| settings.latency = aurelia::simulator::Latency::default());
    // The call that was cut counts, too.
    for out in ["a", "b"] {
        let output = start(out).wait().expect(75);
        assert!(output.sentence().contains("the day's quota is used up until 2"), "{}", output.stderr);
        assert_eq!((sim.received(), sim.stats().limit_violations), (5, 0), "{out}");
    }
}

#[test]
fn all_mistakes_of_a_configuration_are_told_at_once_with_their_places() {
    let (sim, work) = (Sim::plain(), Workdir::new());
    let command = Aurelia::new(&work, &sim)
        .config("[worker]\nconcurrency = 0\nspeed = 3\n[retry]\nattempts = \"many\"\n")
        .env("AURELIA__HTTP__IDLE_SECONDS", "never");
    let output = command.args(["config", "check"]).run().expect(64);
    for part in [
        "4 mistakes",
        "worker.concurrency",
        "worker.speed",
        "retry.attempts",
        "http.idle_seconds",
        ".toml:2",
        ".toml:5",
        "AURELIA__HTTP__IDLE_SECONDS",
    ] {
        assert!(output.stderr.to_lowercase().contains(&part.to_lowercase()), "{part:?} is not in {}", output.stderr);
    }
}

#[test]
fn the_configuration_is_shown_with_origins_and_without_secrets() {
    let (sim, work) = (Sim::plain(), Workdir::new());
    let command = || Aurelia::new(&work, &sim).config("[worker]\nconcurrency = 3\n").args(["config", "show"]);
    let text = command().run().expect(0).stdout;
    let line = |key: &str| {
        text.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("no {key} in {text}")).to_owned()
    };
    assert!(line("worker.concurrency").contains("= 3") && line("worker.concurrency").contains(".toml:2"));
    assert!(line("http.total_seconds").contains("600") && line("http.total_seconds").contains("default"));
    assert!(line("providers.gemini.base_url").contains("AURELIA__PROVIDERS__GEMINI__BASE_URL"));
    assert!(line("providers.gemini.credentials[0]").contains("GEMINI_API_KEY (hidden)"));
    for key in [GEMINI_KEY, OPENAI_KEY] {
        assert!(!text.contains(key));
    }
    let json = command().arg("--json").run().expect(0).json();
    let settings = json["settings"].as_array().unwrap();
    assert!(settings.iter().any(|s| s["key"] == "worker.concurrency" && s["value"] == json!("3")), "{json:#}");
    let check = Aurelia::new(&work, &sim).args(["config", "check"]).run().expect(0).stdout;
    assert!(check.contains("is valid") && check.contains("key from GEMINI_API_KEY"), "{check}");
}

#[test]
fn a_key_in_the_place_of_its_variables_name_is_not_shown() {
    let (sim, work) = (Sim::plain(), Workdir::new());
    work.key_file("bad.toml", &["[providers.gemini]", &format!("api_key_env = \"{GEMINI_KEY}x\"")]);
    let command = Aurelia::new(&work, &sim).args(["config", "check", "--config", "bad.toml"]);
    let output = command.run().expect(64);
    assert!(output.stderr.contains("api_key_env") && !output.stderr.contains(GEMINI_KEY), "{}", output.stderr);
}

#[test]
fn a_days_quota_that_is_used_up_ends_with_75_and_says_until_when() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let items = work.items(
        "items.jsonl",
        &[json!({ "id": "one", "video": "clips/0.mp4", "query": "What? [[sim: scores=4/5/8]]" })],
    );
    let limit = Limit { model: "gemini*".into(), requests: Some(3), tokens: None, window_ms: 86_400_000, bare: false };
    sim.set(|settings| settings.limits = vec![limit]);
    let output = Aurelia::new(&work, &sim).corpus(&items).args(["--max-wait", "1s"]).run().expect(75);
    let sentence = output.sentence();
    assert!(sentence.contains("until 20") && sentence.contains("run the same command again"), "{sentence}");
    assert!(work.records().is_empty());
    sim.set(|settings| settings.limits = Vec::new());
    // By the program's own count, a day's quota that the configuration states.
    let own = "[[limits]]\nprovider = \"gemini\"\nmodel = \"*\"\nrequests_per_day = 2\n";
    work.items("other.jsonl", &corpus(4, 1));
    let args = ["run", "--corpus", "other.jsonl", "--out", "other", "--max-wait", "1s"];
    let (_, output) = sim.counted(|| Aurelia::new(&work, &sim).config(own).args(args).run().expect(75));
    assert!(output.sentence().contains("until 20"), "{}", output.stderr);
    assert_eq!(records(&work.path("other")).len(), 0);
}

#[test]
fn a_wrong_command_line_ends_with_2_and_asks_nobody() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    for args in [
        &["run"][..],
        &["run", "--corpus", "items.jsonl"],
        &["run", "--out", "out"],
        &["run", "--query", "What?", "--save-path", "a.json"],
        &["run", "--query", "What?", "--video-path", "clips/0.mp4"],
        &["run", "--corpus", "items.jsonl", "--out", "out", "--query", "What?", "--save-path", "a.json"],
        &["run", "--corpus", "items.jsonl", "--out", "out", "--retry", "accepted"],
        &["run", "--corpus", "items.jsonl", "--out", "out", "--max-wait", "soon"],
        &["run", "--corpus", "items.jsonl", "--out", "out", "--concurrency", "0"],
        &["run", "--corpus", "items.jsonl", "--out", "out", "--budget-usd", "-1"],
        &["run", "--corpus", "items.jsonl", "--out", "out", "--no-such-option"],
        &["no-such-command"],
        &["show"],
    ] {
        let output = Aurelia::new(&work, &sim).args(args).run();
        assert_eq!(output.code, Some(2), "{args:?}: {}", output.stderr);
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
    assert_eq!((sim.received(), work.out().exists()), (0, false));
}

#[test]
fn a_threshold_out_of_range_is_refused_and_the_range_is_said() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let items = work.items("items.jsonl", &corpus(1, 1));
    for (option, value) in [("--score-threshold", "11"), ("--score-threshold", "0"), ("--max-tries", "0")] {
        let output = Aurelia::new(&work, &sim).corpus(&items).args([option, value]).run();
        assert!(matches!(output.code, Some(2 | 64)), "{option} {value}: {:?} {}", output.code, output.stderr);
        assert!(output.stderr.contains('1'), "{}", output.stderr);
    }
    assert_eq!((sim.received(), work.out().exists()), (0, false));
}

#[test]
fn the_help_of_every_command_has_examples() {
    for command in [&[][..], &["run"], &["demo"], &["show"], &["explain-miss"], &["config"]] {
        let output =
            std::process::Command::new(env!("CARGO_BIN_EXE_aurelia")).args(command).arg("--help").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains("Examples:\n  aurelia"), "{command:?}: {text}");
        assert!(text.lines().all(|line| line.chars().count() <= 130), "{command:?} has long lines");
    }
}

#[test]
fn help_says_when_a_try_is_accepted() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_aurelia")).args(["run", "--help"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("this score or above [default: the recipe's, 6]"), "{text}");
}

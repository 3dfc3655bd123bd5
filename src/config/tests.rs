use std::fs;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::media::Allowed;
use crate::price::Nano;
use crate::provider::{Protocol, VideoWay};

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Files of the given contents, loaded in turn under the environment.
fn load_with(files: &[&str], pairs: &[(&str, &str)]) -> (Result<Loaded, Mistakes>, TempDir) {
    let dir = TempDir::new().unwrap();
    let paths: Vec<PathBuf> = (1..=files.len()).map(|number| dir.path().join(format!("{number}.toml"))).collect();
    for (path, text) in paths.iter().zip(files) {
        fs::write(path, text).unwrap();
    }
    (load(&paths, &env(pairs)), dir)
}

fn good(files: &[&str], pairs: &[(&str, &str)]) -> Loaded {
    load_with(files, pairs).0.unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn bad(files: &[&str], pairs: &[(&str, &str)]) -> Vec<String> {
    let (result, dir) = load_with(files, pairs);
    let dir = format!("{}/", dir.path().display());
    result.unwrap_err().0.iter().map(|mistake| mistake.to_string().replace(&dir, "")).collect()
}

fn origin(loaded: &Loaded, key: &str) -> String {
    let origin = loaded.entries.iter().find(|entry| entry.key == key).unwrap().origin.to_string();
    origin.rsplit_once('/').map_or(origin.clone(), |(_, name)| name.to_owned())
}

#[test]
fn the_default_is_valid_alone_and_documents_every_setting() {
    let loaded = good(&[], &[]);
    let config = &loaded.config;
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert!(loaded.entries.iter().all(|entry| entry.origin == Origin::Default));
    let worker = WorkerSection {
        concurrency: 16,
        job_deadline: Duration::from_hours(24),
        delivery_deadline: Duration::from_mins(15),
        grace: Duration::from_secs(25),
        most_faults: 5,
    };
    assert_eq!(config.worker, worker);
    assert_eq!(config.retry.attempts, 6);
    assert_eq!(config.http.max_reply_bytes, 8 << 20);
    assert_eq!(config.http.extra_ca_file, None);
    assert_eq!(config.media.max_pixels, 8192 * 8192);
    assert_eq!((config.media.cache_bytes, config.media.keep_free_bytes), (20 << 30, 1 << 30));
    assert_eq!(config.media.cache_dir, None);
    assert_eq!(config.store.allow, [Allowed::Files("/".into())]);
    assert!(config.store.private_hosts.is_empty());
    assert_eq!(config.budget.total, None);
    assert_eq!(config.shared, Shared::Output);
    let listen = Some("127.0.0.1:0".parse().unwrap());
    assert_eq!(config.telemetry, TelemetrySection { log: "warn".into(), format: LogFormat::Text, listen });
    let gemini = &config.providers["gemini"];
    assert_eq!(gemini.endpoint.base_url, "https://generativelanguage.googleapis.com");
    assert_eq!(gemini.endpoint.identity, "https://generativelanguage.googleapis.com:443");
    assert_eq!(gemini.key_sources, ["GEMINI_API_KEY", "GOOGLE_API_KEY"]);
    assert!(gemini.credentials.is_empty());
    assert_eq!(config.providers["openai"].endpoint.base_url, "https://api.openai.com/v1");
    assert_eq!((gemini.endpoint.video, gemini.endpoint.inline_bytes), (VideoWay::Upload, 12 << 20));
    assert_eq!((gemini.uploads.deadline, gemini.uploads.storage_bytes), (Duration::from_mins(10), 20_000_000_000));
    assert_eq!(config.providers["openai"].endpoint.video, VideoWay::None);
    let limit = config.limit("gemini", "gemini-3.8-flash").unwrap();
    assert_eq!(limit.day_resets.iana_name(), Some("America/Los_Angeles"));
    assert_eq!(limit.spread, Duration::from_secs(10));
    assert_eq!(config.limit("openai", "x").unwrap().day_resets.iana_name(), Some("UTC"));
    assert!(config.limit("other", "x").is_none());
}

#[test]
fn each_layer_lies_over_the_one_before_leaf_by_leaf() {
    let loaded = good(
        &["[retry]\nattempts = 3\nbase_ms = 10\n", "\n[retry]\nattempts = 4\n"],
        &[("AURELIA__RETRY__MAX_MS", "20000"), ("PATH", "/bin")],
    );
    let retry = &loaded.config.retry;
    assert_eq!((retry.attempts, retry.base.as_millis(), retry.max.as_millis()), (4, 10, 20_000));
    assert_eq!((retry.backoff, retry.fallback_after), (Duration::from_mins(1), Duration::from_mins(10)));
    assert_eq!(origin(&loaded, "retry.attempts"), "2.toml:3");
    assert_eq!(origin(&loaded, "retry.base_ms"), "1.toml:3");
    assert_eq!(origin(&loaded, "retry.max_ms"), "environment AURELIA__RETRY__MAX_MS");
    assert_eq!(origin(&loaded, "retry.backoff_ms"), "default");
}

#[test]
fn an_environment_value_has_the_type_that_its_setting_has() {
    let loaded = good(
        &[],
        &[
            ("aurelia__Http__Connect_Seconds", "2.5"),
            ("AURELIA__WORKER__CONCURRENCY", " 1_000 "),
            ("AURELIA__MEDIA__FFMPEG", "123"),
            ("AURELIA__PROVIDERS__GEMINI__IDENTITY", "42"),
            ("AURELIA__BUDGET__TOTAL_USD", "0.1"),
            ("AURELIA__PROVIDERS__OPENAI__API_KEY_ENV", "['A', \"B\"]"),
            ("A", "12345"),
            ("B", "67890"),
            ("AURELIA__LIMITS", "[{ provider = 'gemini', model = '*', requests_per_day = 5 }]"),
        ],
    );
    let config = &loaded.config;
    assert_eq!(config.http.connect, Duration::from_millis(2500));
    assert_eq!(config.worker.concurrency, 1000);
    assert_eq!(config.media.ffmpeg, "123");
    assert_eq!(config.providers["gemini"].endpoint.identity, "42");
    assert_eq!(config.budget.total, Some(Nano(100_000_000)));
    let keys: Vec<_> = config.providers["openai"].credentials.iter().map(|key| (&*key.label, key.expose())).collect();
    assert_eq!(keys, [("A", "12345"), ("B", "67890")]);
    assert_eq!(config.limit("gemini", "x").unwrap().requests_per_day, Some(5));
    assert!(config.limits.len() > 1);
    assert_eq!(origin(&loaded, "limits[0]"), "environment AURELIA__LIMITS");
}

#[test]
fn the_default_providers_can_be_pointed_at_a_simulator() {
    let loaded = good(
        &[],
        &[
            ("AURELIA__PROVIDERS__GEMINI__BASE_URL", "http://127.0.0.1:8080/"),
            ("AURELIA__PROVIDERS__OPENAI__BASE_URL", "http://[::1]:8081/v1//"),
            ("GEMINI_API_KEY", "k"),
        ],
    );
    let endpoint = |name: &str| &loaded.config.providers[name].endpoint;
    assert_eq!(endpoint("gemini").base_url, "http://127.0.0.1:8080");
    assert_eq!(endpoint("gemini").identity, "http://127.0.0.1:8080");
    assert_eq!(endpoint("openai").base_url, "http://[::1]:8081/v1");
    assert_eq!(endpoint("openai").identity, "http://[::1]:8081");
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn alternatives_give_one_key_and_a_list_gives_all() {
    let labels = |file: &str, pairs: &[(&str, &str)]| -> Vec<String> {
        let loaded = good(&[file], pairs);
        loaded.config.providers["gemini"].credentials.iter().map(|key| key.label.clone()).collect()
    };
    let both = [("GEMINI_API_KEY", "a"), ("GOOGLE_API_KEY", "b"), ("C", "c")];
    assert_eq!(labels("", &both), ["GEMINI_API_KEY"]);
    assert_eq!(labels("", &[("GEMINI_API_KEY", "  "), ("GOOGLE_API_KEY", "b")]), ["GOOGLE_API_KEY"]);
    let listed = "[providers.gemini]\napi_key_env = ['GEMINI_API_KEY', 'X | C']\n";
    assert_eq!(labels(listed, &both), ["GEMINI_API_KEY", "C"]);
    assert_eq!(labels("[providers.gemini]\napi_key_env = 'UNSET'\n", &both), Vec::<String>::new());
    assert_eq!(labels("[providers.gemini]\napi_key_env = []\n", &both), Vec::<String>::new());
}

#[test]
fn the_same_key_twice_is_one_account_and_said_so() {
    let loaded = good(&["[providers.gemini]\napi_key_env = ['A', 'B']\n"], &[("A", "same"), ("B", "same\n")]);
    assert_eq!(loaded.config.providers["gemini"].credentials.len(), 1);
    assert!(loaded.warnings[0].contains("B holds the same key as A"), "{:?}", loaded.warnings);
}

#[test]
fn keys_are_read_from_a_file_beside_the_configuration() {
    let dir = TempDir::new().unwrap();
    let (config, keys) = (dir.path().join("c.toml"), dir.path().join("keys"));
    fs::write(&config, "[providers.lab]\nkind = 'openai'\nbase_url = 'https://lab/v1'\napi_key_file = 'keys'\n")
        .unwrap();
    fs::write(&keys, "# team\r\nfirst-key\r\n\n  second-key  \n").unwrap();
    let loaded = load(std::slice::from_ref(&config), &[]).unwrap();
    let lab = &loaded.config.providers["lab"];
    let found: Vec<_> = lab.credentials.iter().map(|key| (&*key.label, key.expose())).collect();
    assert_eq!(found, [("keys:2", "first-key"), ("keys:4", "second-key")]);
    assert_eq!(lab.key_sources, [keys.display().to_string()]);
    let all = format!("{loaded:?}{}{}{}", show(&loaded, Format::Text), show(&loaded, Format::Json), check(&loaded));
    assert!(!all.contains("first-key") && !all.contains("second-key"), "{all}");

    fs::write(&keys, "bad\u{1}key\n").unwrap();
    let mistakes = load(std::slice::from_ref(&config), &[]).unwrap_err().to_string();
    assert!(mistakes.contains("keys:1") && !mistakes.contains("bad"), "{mistakes}");
    fs::write(&keys, "# none\n").unwrap();
    assert!(load(std::slice::from_ref(&config), &[]).unwrap_err().to_string().contains("holds no key"));
    fs::remove_file(&keys).unwrap();
    assert!(load(&[config], &[]).unwrap_err().to_string().contains("cannot read"));
}

#[cfg(unix)]
#[test]
fn a_key_file_that_everybody_can_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new().unwrap();
    let keys = dir.path().join("keys");
    fs::write(&keys, "k\n").unwrap();
    let pairs = env(&[("AURELIA__PROVIDERS__OPENAI__API_KEY_FILE", keys.to_str().unwrap())]);
    for (mode, warned) in [(0o600, 0), (0o640, 0), (0o644, 1)] {
        fs::set_permissions(&keys, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(load(&[], &pairs).unwrap().warnings.len(), warned, "{mode:o}");
    }
}

#[test]
fn a_key_in_the_wrong_place_is_refused_and_never_repeated() {
    let secret = "sk-proj-0123456789abcdef";
    for file in [
        format!("[providers.openai]\napi_key = '{secret}'\n"),
        format!("[providers.openai]\napi_key_env = '{secret}'\n"),
        format!("[providers.openai]\napi_key_env = ['OPENAI_API_KEY', '{secret}']\n"),
        format!("[providers.openai]\nbase_url = 'https://user:{secret}@host/v1'\n"),
        format!("[providers.openai]\nbase_url = 'https://host/v1?key={secret}'\n"),
        format!("[providers.openai]\nbase_url = 'https://host/v1#{secret}'\n"),
        format!("[providers.openai]\nbase_url = '{secret}'\n"),
        format!("[shared]\nurl = 'http://:{secret}@host'\n"),
    ] {
        let mistakes = bad(&[&file], &[]);
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        assert!(!mistakes[0].contains("0123456789"), "{mistakes:?}");
        assert!(mistakes[0].starts_with("file 1.toml:2: "), "{mistakes:?}");
    }
    let pasted = bad(&[], &[("AURELIA__PROVIDERS__OPENAI__API_KEY", secret), ("OPENAI_API_KEY", "ab\u{7f}cd")]);
    assert_eq!(pasted.len(), 2);
    assert!(pasted.iter().any(|mistake| mistake.contains("did you mean api_key_env?")), "{pasted:?}");
    assert!(pasted.iter().all(|mistake| !mistake.contains(secret) && !mistake.contains("ab\u{7f}cd")), "{pasted:?}");
}

#[test]
fn the_users_limits_come_first_the_latest_layer_before_the_others() {
    let limit =
        |minute: u32| format!("[[limits]]\nprovider = 'gemini'\nmodel = '*flash'\nrequests_per_minute = {minute}\n");
    let loaded = good(&[&limit(1), &limit(2)], &[]);
    let minutes: Vec<_> = loaded.config.limits.iter().take(2).map(|limit| limit.requests_per_minute).collect();
    assert_eq!(minutes, [Some(2), Some(1)]);
    assert_eq!(origin(&loaded, "limits[0]"), "2.toml:1");
    assert_eq!(loaded.config.limit("gemini", "a-flash").unwrap().requests_per_minute, Some(2));
    assert_eq!(loaded.config.limit("gemini", "a-pro").unwrap().requests_per_minute, Some(150));
}

#[test]
fn the_users_prices_come_first_and_may_be_zero() {
    let loaded = good(
        &["[[prices]]\nprovider = 'openai'\nmodel = 'Qwen/*'\ninput = 0\noutput = 0\n\
           [[prices]]\nprovider = 'gemini'\nmodel = 'gemini-2.5-pro'\ninput = 7\noutput = 8\nmax_output = 9\n"],
        &[],
    );
    let prices = &loaded.config.prices;
    assert_eq!(prices.find(Protocol::Openai, "Qwen/Qwen2.5-VL-7B").unwrap().rates.output, 0);
    let pro = prices.find(Protocol::Gemini, "gemini-2.5-pro").unwrap();
    assert_eq!((pro.rates.input, pro.rates.audio_input, pro.max_output, pro.tiers.len()), (7, 7, Some(9), 0));
    assert_eq!(prices.find(Protocol::Gemini, "gemini-2.5-pro-001").unwrap().rates.input, 1_250_000_000);
}

#[test]
fn prices_that_could_undercharge_are_refused() {
    let mistakes = bad(
        &["[[prices]]\nprovider = 'openai'\nmodel = 'm'\ninput = 5\ncached_input = 6\naudio_input = 4\noutput = 1\n\
           tiers = [{ above_input_tokens = 9, input = 1, output = 1 }, { above_input_tokens = 9, input = 1, output = 1 }]\n\
           image = { rule = 'patches', percent = 0 }\n"],
        &[],
    );
    let expected =
        ["cached_input = 6", "audio_input = 4", "tiers[1].above_input_tokens = 9", "percent = 0", "most is missing"];
    for part in expected {
        assert!(mistakes.iter().any(|mistake| mistake.contains(part)), "{part}: {mistakes:?}");
    }
    assert_eq!(mistakes.len(), expected.len(), "{mistakes:?}");
}

#[test]
fn all_mistakes_of_all_layers_are_reported_at_once_with_their_origin() {
    let mistakes = bad(
        &[
            "[worker]\nconcurrency = 0\nconcurency = 3\n[http]\nidle_seconds = 700\ntotal_seconds = 'x'\n",
            "[retry\nattempts = 1\n",
            "[[limits]]\nprovider = 'gemnii'\nmodel = '['\nday_resets = 'Mars'\nrequests_per_minute = 0\n\
             [provider.x]\n[telemetry]\nlog = 'a=b=c'\nformat = 'xml'\n[providers.Big]\nkind = 'reka'\n",
        ],
        &[("AURELIA__RETRY__ATTEMPTS", "six"), ("AURELIA__NOPE__X", "1"), ("AURELIA__BUDGET__TOTAL_USD", "1e3")],
    );
    let expected = [
        "file 1.toml:2: worker.concurrency = 0 is out of range: it must be from 1 to 100000",
        "file 1.toml:3: worker.concurency is not a known setting; did you mean concurrency?",
        "file 1.toml:6: http.total_seconds = \"x\" must be a number",
        "file 2.toml:1: is not valid TOML",
        "file 3.toml:3: limits[0].model = \"[\" is not a glob",
        "file 3.toml:4: limits[0].day_resets = \"Mars\" is not a known time zone",
        "file 3.toml:5: limits[0].requests_per_minute = 0 is out of range",
        "file 3.toml:6: provider is not a known setting; did you mean providers?",
        "file 3.toml:8: telemetry.log = \"a=b=c\" is not a log filter",
        "file 3.toml:9: telemetry.format = \"xml\" must be one of \"text\", \"json\"",
        "file 3.toml:10: providers.Big is not a provider's name",
        "file 3.toml:11: providers.Big.kind = \"reka\" must be one of",
        "environment AURELIA__RETRY__ATTEMPTS: retry.attempts = six must be an integer",
        "environment AURELIA__NOPE__X: nope is not a known setting",
        "environment AURELIA__BUDGET__TOTAL_USD: budget.total_usd = 1e3 is not an amount of dollars",
    ];
    for part in expected {
        assert!(mistakes.iter().any(|mistake| mistake.starts_with(part)), "{part}\n{mistakes:#?}");
    }
    assert_eq!(mistakes.len(), expected.len(), "{mistakes:#?}");
}

#[test]
fn a_limit_for_an_unknown_provider_is_a_mistake_unless_a_file_could_not_be_read() {
    let limit = "[[limits]]\nprovider = 'gemnii'\nmodel = '*'\n";
    let mistakes = bad(&[limit], &[]);
    assert_eq!(
        mistakes,
        ["file 1.toml:2: limits[0].provider = \"gemnii\" is not a configured provider; did you mean \"gemini\"?"]
    );
    assert_eq!(bad(&[limit, "["], &[]).len(), 1);
}

#[test]
fn settings_that_contradict_each_other_blame_the_one_that_was_changed() {
    for (file, blamed) in [
        (
            "[http]\ntotal_seconds = 30\nidle_seconds = 5\nconnect_seconds = 5\n",
            "file 1.toml:2: http.total_seconds = 30",
        ),
        ("[http]\nidle_seconds = 601\n", "file 1.toml:2: http.idle_seconds = 601"),
        ("[retry]\nbase_ms = 40000\n", "file 1.toml:2: retry.base_ms = 40000"),
        ("[worker]\njob_deadline_seconds = 599\n", "file 1.toml:2: worker.job_deadline_seconds = 599"),
        ("[media]\nprepare_timeout_seconds = 29.5\n", "file 1.toml:2: media.prepare_timeout_seconds = 29.5"),
    ] {
        let mistakes = bad(&[file], &[]);
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        assert!(mistakes[0].starts_with(blamed), "{mistakes:?}");
    }
}

#[test]
fn one_limit_twice_in_a_layer_is_a_mistake_and_in_two_an_override() {
    let limit = "[[limits]]\nprovider = 'gemini'\nmodel = '*'\n";
    let mistakes = bad(&[&format!("{limit}{limit}")], &[]);
    assert!(mistakes[0].starts_with("file 1.toml:4: limits[1] has the provider and model of"), "{mistakes:?}");
    good(&[limit, limit], &[]);
}

#[test]
fn a_variable_set_twice_in_different_case_is_a_mistake() {
    let mistakes = bad(&[], &[("AURELIA__WORKER__CONCURRENCY", "1"), ("aurelia__worker__concurrency", "2")]);
    assert!(mistakes[0].contains("is set by AURELIA__WORKER__CONCURRENCY as well"), "{mistakes:?}");
}

#[test]
fn a_table_where_a_value_belongs_and_the_reverse_are_mistakes() {
    assert!(bad(&["worker = 3\n"], &[])[0].contains("worker must be a table"));
    assert!(bad(&["[worker.concurrency]\nx = 1\n"], &[])[0].contains("must be an integer"));
    assert!(bad(&["limits = 3\n"], &[])[0].contains("write [[limits]]"));
    assert!(bad(&[], &[("AURELIA__PROVIDERS", "x")])[0].contains("providers must be a table"));
    assert!(bad(&[], &[("AURELIA__WORKER__CONCURRENCY__X", "1")])[0].contains("worker.concurrency.x is not a known"));
}

#[test]
fn a_provider_of_ones_own_takes_the_address_of_its_kind_but_not_its_keys() {
    let loaded = good(&["[providers.second]\nkind = 'gemini'\n"], &[("GEMINI_API_KEY", "k")]);
    let second = &loaded.config.providers["second"];
    assert_eq!(second.endpoint.base_url, "https://generativelanguage.googleapis.com");
    assert_eq!(second.endpoint.api_version, "v1beta");
    assert!(second.credentials.is_empty() && second.key_sources.is_empty());
    assert!(bad(&["[providers.third]\nbase_url = 'https://x/v1'\n"], &[])[0].contains("third.kind is missing"));
}

#[test]
fn what_works_but_is_hardly_meant_is_warned_of() {
    let warned = |pairs: &[(&str, &str)]| good(&[], pairs).warnings.join("\n");
    let base = "AURELIA__PROVIDERS__GEMINI__BASE_URL";
    assert!(warned(&[(base, "https://host/v1beta")]).contains("api_version adds once more"));
    assert!(warned(&[(base, "http://gateway"), ("GEMINI_API_KEY", "k")]).contains("unencrypted"));
    assert!(warned(&[("AURELIA__PROVIDERS__OPENAI__BASE_URL", "https://host")]).contains("/v1"));
    assert!(warned(&[("AURELIA_WORKER_CONCURRENCY", "3")]).contains("AURELIA__WORKER__KEY"));
    assert_eq!(warned(&[("AURELIA_LOG", "info"), (base, "http://localhost:1"), ("GEMINI_API_KEY", "k")]), "");
}

#[test]
fn paths_are_relative_to_the_file_that_names_them() {
    let (result, dir) = load_with(&["[shared]\nurl = 'embedded:state.sqlite'\n"], &[]);
    assert_eq!(result.unwrap().config.shared, Shared::Embedded(dir.path().join("state.sqlite")));
    assert!(bad(&["[http]\nextra_ca_file = 'none.pem'\n"], &[])[0].contains("there is no file"));
    assert!(bad(&["[shared]\nurl = 'embedded:'\n"], &[])[0].contains("embedded:PATH"));
}

#[test]
fn a_ceiling_is_read_exactly_however_it_is_written() {
    for (written, nano) in [("'12.50'", 12_500_000_000), ("0.1", 100_000_000), ("3", 3_000_000_000), ("'0'", 0)] {
        let loaded = good(&[&format!("[budget]\ntotal_usd = {written}\n")], &[]);
        assert_eq!(loaded.config.budget.total, Some(Nano(nano)), "{written}");
    }
    for written in ["-1", "true", "nan", "'one'", "1.0000000001"] {
        assert_eq!(bad(&[&format!("[budget]\ntotal_usd = {written}\n")], &[]).len(), 1, "{written}");
    }
}

#[test]
fn what_is_shown_has_every_setting_with_its_origin() {
    let loaded = good(&[], &[("AURELIA__WORKER__CONCURRENCY", "4"), ("OPENAI_API_KEY", "hidden-key")]);
    let text = show(&loaded, Format::Text);
    let line = |key: &str| text.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{key}\n{text}"));
    assert!(line("worker.concurrency = 4 ").ends_with("# environment AURELIA__WORKER__CONCURRENCY"));
    assert!(
        line("providers.openai.credentials[0] = OPENAI_API_KEY (hidden)").ends_with("# environment OPENAI_API_KEY")
    );
    assert!(line("providers.gemini.api_key_env").ends_with("# default"));
    assert!(!text.contains("hidden-key"));
    let json: serde_json::Value = serde_json::from_str(&show(&loaded, Format::Json)).unwrap();
    assert_eq!(json["settings"].as_array().unwrap().len(), loaded.entries.len());
    let checked = check(&loaded);
    assert!(
        checked.contains("key from OPENAI_API_KEY") && checked.contains("no key: set GEMINI_API_KEY or GOOGLE_API_KEY")
    );
}

#[test]
fn a_missing_or_unreadable_file_is_a_mistake_beside_the_others() {
    let dir = TempDir::new().unwrap();
    let binary = dir.path().join("binary");
    fs::write(&binary, [0xff, 0xfe]).unwrap();
    let files = [dir.path().join("none"), binary, dir.path().to_owned()];
    let mistakes = load(&files, &env(&[("AURELIA__WORKER__CONCURRENCY", "0")])).unwrap_err();
    assert_eq!(mistakes.0.len(), 4, "{mistakes}");
    assert!(mistakes.to_string().starts_with("the configuration has 4 mistakes\n  1. "));
}

proptest! {
    #[test]
    fn no_file_and_no_variable_makes_the_reader_panic(
        text in "[\\[\\]a-z_=.\"'0-9{}, \n]{0,80}",
        key in "(worker|retry|limits|prices|providers|http)(__[a-z0-9_]{0,12}){0,3}",
        value in "\\PC{0,30}",
    ) {
        let name = format!("AURELIA__{key}");
        let (first, _dir) = load_with(&[&text], &[(&name, &value)]);
        if let Err(mistakes) = first {
            prop_assert!(!mistakes.0.is_empty());
        }
    }
}

#[test]
fn the_store_takes_prefixes_and_hosts_in_plain_form_only() {
    let text = "[http]\nconnect_seconds = 3\n[retry]\nattempts = 2\n[store]\nallow = [\"file:///data/\", \"https://Media.example.org:8443/corpus/\"]\n\
                private_hosts = [\"10.0.0.5:8443\", \"[::1]:9\"]\n[media]\ncache_gib = 0.5\nkeep_free_gib = 0\ncache_dir = \"kept\"\n";
    let loaded = good(&[text], &[]);
    let store = &loaded.config.store;
    let web = Allowed::Web { host: "media.example.org".into(), port: 8443, path: "/corpus".into() };
    assert_eq!(store.allow, [Allowed::Files("/data/".into()), web]);
    assert_eq!(
        (&*store.private_hosts, store.policy.attempts),
        (&["10.0.0.5:8443".to_owned(), "[::1]:9".to_owned()][..], 2)
    );
    assert_eq!((loaded.config.media.cache_bytes, loaded.config.media.keep_free_bytes), (1 << 29, 0));
    assert!(loaded.config.media.cache_dir.as_ref().is_some_and(|dir| dir.ends_with("kept") && dir.is_absolute()));
    assert_eq!(origin(&loaded, "store.allow"), "1.toml:6");
    // Workers begin with nothing.
    assert!(good(&[], &[("AURELIA__STORE__ALLOW", "[]")]).config.store.allow.is_empty());
}

#[test]
fn a_store_that_would_allow_more_than_it_says_is_refused_without_showing_it() {
    for (text, words) in [
        ("allow = [\"file:///\", \"http://a.org/\"]", "entry 2 must begin with file:///, https:// or s3://"),
        ("allow = [\"https://*.a.org/\"]", "entry 1 holds a wildcard"),
        ("allow = [\"https://a.org/?sig=sesame\"]", "entry 1 holds a query"),
        ("allow = [\"https://u:sesame@a.org/\"]", "user name"),
        ("allow = [1]", "must be a string or a list of strings"),
        ("private_hosts = [\"10.0.0.5\"]", "entry 1 must be host:port"),
        ("private_hosts = [\"10.5:80\"]", "plain form"),
        ("private_hosts = [\"10.0.0.0/8\"]", "entry 1 must be host:port"),
        ("idle_seconds = 7200", "store.total_seconds"),
        ("downloads = 0", "from 1 to 4096"),
        ("alow = []", "did you mean allow?"),
    ] {
        let mistakes = bad(&[&format!("[store]\n{text}\n")], &[]);
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        assert!(mistakes[0].contains(words) && !mistakes[0].contains("sesame"), "{text}: {mistakes:?}");
    }
}

#[test]
fn a_provider_of_ones_own_is_given_clips_as_its_kind_and_its_settings_say() {
    let own = "[providers.own]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1/v1\"\nvideo = \"url\"\ninline_mib = 3\n\
               [providers.other]\nkind = \"gemini\"\nstorage_gb = 0.5\nupload_deadline_seconds = 1.5\n";
    let loaded = good(&[own], &[]);
    let [own, other] = ["own", "other"].map(|name| &loaded.config.providers[name]);
    assert_eq!((own.endpoint.video, own.endpoint.inline_bytes), (VideoWay::Url, 3 << 20));
    assert_eq!(other.endpoint.video, VideoWay::Upload);
    assert_eq!((other.uploads.deadline.as_millis(), other.uploads.storage_bytes), (1500, 500_000_000));
    let shown = show(&loaded, Format::Text);
    for line in ["providers.own.video = \"url\"", "providers.other.inline_mib = 12", "providers.other.storage_gb = 0.5"]
    {
        assert!(shown.contains(line), "{line}");
    }
    assert_eq!(origin(&loaded, "providers.other.inline_mib"), "default");
}

#[test]
fn how_clips_are_given_is_checked() {
    let wrong = "[providers.own]\nkind = \"openai\"\nvideo = \"upload\"\ninline_mib = 65\nstorage_gb = 0\n\
                 [providers.gemini]\nvideo = \"files\"\n";
    let told = bad(&[wrong], &[]);
    for (key, words) in [
        ("providers.own.video", "only for kind \"gemini\""),
        ("providers.own.inline_mib", "from 0 to 64"),
        ("providers.own.storage_gb", "from 0.000001 to 100000"),
        ("providers.gemini.video", "must be one of \"none\", \"inline\", \"url\", \"upload\""),
    ] {
        assert!(told.iter().any(|line| line.contains(key) && line.contains(words)), "{key}: {told:#?}");
    }
    assert_eq!(told.len(), 4, "{told:#?}");
}

#[test]
fn the_queue_is_embedded_by_default_and_its_names_are_checked() {
    let queue = good(&[], &[]).config.queue;
    assert_eq!((queue.url, queue.prefix.as_str(), queue.max_ready), (QueueUrl::Embedded, "aurelia", 200_000));
    assert!(queue.management_url.is_none());
    for prefix in ["", "a b", "a/b", &"x".repeat(65)] {
        assert!(bad(&[&format!("[queue]\nprefix = {prefix:?}\n")], &[])[0].contains("queue.prefix"), "{prefix}");
    }
    let mistakes = bad(&["[queue]\nurl = 'redis://me:hush@host'\n"], &[]);
    assert!(mistakes[0].contains("\"embedded:\"") && !mistakes[0].contains("hush"), "{mistakes:?}");
}

#[cfg(feature = "fleet")]
#[test]
fn a_brokers_password_is_shown_nowhere() {
    let loaded = good(&[], &[("AURELIA__QUEUE__URL", "amqp://me:hush@host:5672/v")]);
    assert!(
        matches!(&loaded.config.queue.url, QueueUrl::Broker(address) if address.to_string() == "amqp://me:***@host:5672/v")
    );
    let shown = format!("{}{}{loaded:?}", show(&loaded, Format::Text), show(&loaded, Format::Json));
    assert!(shown.contains("amqp://me:***@host:5672/v") && !shown.contains("hush"), "{shown}");
}

#[cfg(not(feature = "fleet"))]
#[test]
fn a_broker_is_refused_by_a_program_without_one() {
    assert!(bad(&[], &[("AURELIA__QUEUE__URL", "amqp://host")])[0].contains("built without"));
}

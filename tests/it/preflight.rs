//! What `aurelia-worker --preflight` finds, against servers that are right, wrong and away.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::redis::RedisServer;
use super::support::{Aurelia, Broker, Output, Workdir};

/// A worker that may read the test's folder, and has what it needs.
fn worker<'a>(work: &'a Workdir, broker: &str, redis: &str) -> Aurelia<'a> {
    let allow = format!("[store]\nallow = [\"file://{}\"]\n", work.path("clips").display());
    Aurelia::at(work, "http://127.0.0.1:9")
        .program(env!("CARGO_BIN_EXE_aurelia-worker"))
        .config(&allow)
        .env("AURELIA__QUEUE__URL", broker)
        .env("AURELIA__QUEUE__PREFIX", "preflight")
        .env("AURELIA__SHARED__URL", redis)
        .env("AURELIA__SHARED__PREFIX", "preflight")
        .args(["--preflight", "--json"])
}

/// The findings that are not well, by name: their level and their words.
fn troubles(output: &Output) -> Vec<(String, String, String)> {
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let findings = output.json()["findings"].as_array().unwrap().clone();
    assert!(findings.iter().all(|finding| text(finding, "message").len() > 5), "{}", output.stdout);
    let all = findings.iter().map(|found| (text(found, "name"), text(found, "level"), text(found, "message")));
    all.filter(|(_, level, _)| level != "ok").collect()
}

#[track_caller]
fn one(output: &Output, name: &str, level: &str, words: &str) {
    let troubles = troubles(output);
    assert_eq!(troubles.len(), 1, "{troubles:?}");
    assert_eq!((troubles[0].0.as_str(), troubles[0].1.as_str()), (name, level), "{troubles:?}");
    assert!(troubles[0].2.contains(words), "{troubles:?}");
}

/// A management interface that has these answers; its port.
fn management(answers: Vec<(&'static str, &'static str, Value)>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines: Vec<String> =
                BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            let login = lines.iter().any(|line| line.to_lowercase().starts_with("authorization: basic "));
            let found = answers.iter().find(|(path, _, _)| lines[0].starts_with(&format!("GET {path} ")));
            let (status, body) = match found {
                Some((_, status, body)) if login => (*status, body.to_string()),
                Some(_) => ("401 Unauthorized", String::new()),
                None => ("404 Not Found", String::new()),
            };
            let length = body.len();
            write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}").unwrap();
        }
    });
    port
}

#[test]
fn where_all_is_well_it_ends_with_0_and_says_what_it_assumes() {
    let work = Workdir::new();
    let output = worker(&work, &Broker::shared(), &RedisServer::shared()).run().expect(0);
    println!("{}", output.stdout);
    assert_eq!(output.json()["ok"], true);
    assert_eq!(troubles(&output), []);
    let findings = output.json()["findings"].as_array().unwrap().clone();
    let message = |name: &str| {
        let all = findings.iter().filter(|found| found["name"] == name);
        all.map(|found| found["message"].as_str().unwrap()).collect::<Vec<_>>().join("\n")
    };
    for (name, words) in [
        ("broker", "RabbitMQ 3."),
        ("broker rights", "came out of it"),
        ("delivery deadline", "taken to be 1800 s"),
        ("broker management", "is assumed"),
        ("redis", "Redis "),
        ("redis functions", "it takes functions"),
        ("redis memory", "noeviction"),
        ("redis persistence", "within the last second"),
        ("ffmpeg", "ffprobe version"),
        ("keys", "gemini (1)"),
        ("media cache", "MiB free"),
        ("sources", "names 1"),
    ] {
        assert!(message(name).contains(words), "{name}: {}", output.stdout);
    }
    assert!(!output.stdout.contains("guest:guest"), "{}", output.stdout);
}

#[test]
fn a_redis_that_may_throw_replies_away_fails_and_one_that_forgets_is_warned_of() {
    let work = Workdir::new();
    let server = RedisServer::with("everysec", &["--maxmemory-policy", "allkeys-lru"]);
    let output = worker(&work, &Broker::shared(), &server.url()).run().expect(64);
    one(&output, "redis memory", "failed", "redis-cli CONFIG SET maxmemory-policy noeviction");
    assert_eq!(output.json()["ok"], false);
    server.say(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    server.say(&["CONFIG", "SET", "appendonly", "no"]);
    let output = worker(&work, &Broker::shared(), &server.url()).run().expect(0);
    one(&output, "redis persistence", "warning", "CONFIG SET appendonly yes");
    server.say(&["CONFIG", "SET", "appendonly", "yes"]);
    let password = "hush-of-redis-81";
    server.say(&["ACL", "SETUSER", "worker", "on", &format!(">{password}"), "~*", "&*", "+@all", "-config"]);
    let url = format!("redis://worker:{password}@127.0.0.1:{}", server.port());
    let limited = worker(&work, &Broker::shared(), &url).secret("UNUSED", password).run().expect(0);
    one(&limited, "redis persistence", "warning", "CONFIG is denied");
    for (given, taken, finding) in [
        ("+config", "-function", "redis functions"),
        ("+function", "-fcall", "redis functions"),
        ("+fcall", "-ping", "redis"),
    ] {
        server.say(&["ACL", "SETUSER", "worker", given, taken]);
        let denied = worker(&work, &Broker::shared(), &url).secret("UNUSED", password).run().expect(64);
        one(&denied, finding, "failed", "ACL SETUSER NAME +@all");
    }
    let wrong = url.replace(password, "hush-that-is-wrong-82");
    let output = worker(&work, &Broker::shared(), &wrong).secret("UNUSED", "hush-that-is-wrong-82").run().expect(64);
    one(&output, "redis", "failed", "correct user and password in shared.url");
}

#[test]
fn servers_that_are_away_are_told_within_their_time_and_a_wrong_password_is_a_mistake() {
    let work = Workdir::new();
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let away = format!("amqp://guest:hush-away-83@127.0.0.1:{}", free());
    let began = Instant::now();
    let output = worker(&work, &away, &RedisServer::shared()).secret("UNUSED", "hush-away-83").run().expect(75);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    one(&output, "broker", "failed", "is it up, and queue.url right?");
    // It takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let began = Instant::now();
    let output =
        worker(&work, &format!("amqp://127.0.0.1:{port}"), &format!("redis://127.0.0.1:{port}")).run().expect(75);
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    let names: Vec<String> = troubles(&output).into_iter().map(|(name, _, _)| name).collect();
    assert_eq!(names, ["broker", "redis"], "{}", output.stdout);
    let wrong = Broker::shared().replace("guest:guest", "guest:hush-wrong-84");
    let output = worker(&work, &wrong, &RedisServer::shared()).secret("UNUSED", "hush-wrong-84").run().expect(64);
    one(&output, "broker rights", "failed", "correct user, password and virtual host in queue.url");
}

#[test]
fn the_management_interface_tells_of_alarms_and_its_password_is_not_told() {
    let work = Workdir::new();
    let overview = ("/api/overview", "200 OK", json!({"rabbitmq_version": "3.13.7", "cluster_name": "c"}));
    let nodes = |alarm| {
        (
            "/api/nodes",
            "200 OK",
            json!([{"name": "rabbit@a", "running": true, "mem_alarm": alarm, "disk_free_alarm": false}]),
        )
    };
    let ask = |login: &str, answers, code| {
        let url = format!("http://{login}127.0.0.1:{}/", management(answers));
        let worker = worker(&work, &Broker::shared(), &RedisServer::shared()).secret("UNUSED", "hush-manager-85");
        worker.env("AURELIA__QUEUE__MANAGEMENT_URL", &url).run().expect(code)
    };
    let login = "manager:hush-manager-85@";
    let well = ask(login, vec![overview.clone(), nodes(false)], 0);
    assert_eq!(troubles(&well), []);
    assert!(well.stdout.contains("RabbitMQ 3.13.7, 1 nodes, none with an alarm"), "{}", well.stdout);
    let alarm = ask(login, vec![overview.clone(), nodes(true)], 75);
    one(&alarm, "broker management", "failed", "node rabbit@a is short of memory");
    let stranger = ask("", vec![overview.clone(), nodes(false)], 64);
    one(&stranger, "broker management", "failed", "status 401");
    let other = ask(login, vec![("/api/overview", "200 OK", json!("hello")), nodes(false)], 64);
    one(&other, "broker management", "failed", "is not RabbitMQ's management interface");
}

#[test]
fn a_machine_that_lacks_something_is_told_what_for_people_too() {
    let work = Workdir::new();
    let bare = Aurelia::at(&work, "http://127.0.0.1:9")
        .program(env!("CARGO_BIN_EXE_aurelia-worker"))
        .env("AURELIA__QUEUE__URL", &Broker::shared())
        .env("AURELIA__QUEUE__PREFIX", "preflight")
        .env("AURELIA__SHARED__URL", &RedisServer::shared())
        .without("GEMINI_API_KEY")
        .without("OPENAI_API_KEY")
        .config("[media]\nffmpeg = \"/nowhere/ffmpeg\"\nkeep_free_gib = 1048576\n")
        .arg("--preflight");
    let output = bare.run().expect(64);
    println!("{}", output.stdout);
    let starts = |words: [&str; 2]| output.stdout.lines().any(|line| words.iter().all(|word| line.contains(word)));
    for words in [
        ["FAILED   ffmpeg", "/nowhere/ffmpeg is not there"],
        ["FAILED   keys", "GEMINI_API_KEY or GOOGLE_API_KEY"],
        ["FAILED   media cache", "make room"],
        ["warning  sources", "[store] allow is empty"],
    ] {
        assert!(starts(words), "{words:?} is not in\n{}", output.stdout);
    }
}

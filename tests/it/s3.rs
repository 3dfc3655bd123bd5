//! Clips in buckets: `aurelia run` against a server that speaks S3.

use std::fs;
use std::time::Duration;

use aurelia::demo::clip::{Content, Style};
use aurelia::record::{ErrorKind, Record, Status};
use serde_json::{Value, json};

use super::support::https::{self, Https, Reply};
use super::support::s3::{ACCESS_KEY, Asked, Fault, S3, SECRET_KEY};
use super::support::{Aurelia, Sim, Workdir, clips, records};

fn clip(seed: u64) -> Vec<u8> {
    fs::read(clips::kept(Style::small(Content::Full, seed), 1)).unwrap()
}

/// The same made larger by a box that players pass over.
fn large_clip(seed: u64, bytes: usize) -> Vec<u8> {
    let mut clip = clip(seed);
    clip.extend(u32::try_from(bytes).unwrap().to_be_bytes());
    clip.extend(b"free");
    clip.resize(clip.len() + bytes - 8, u8::try_from(seed).unwrap());
    clip
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn item(id: &str, uri: &str) -> Value {
    json!({"id": id, "video": uri, "query": format!("Who is it ({id})? [[sim: score=9]]")})
}

/// A simulator, a folder and a server; runs are allowed `s3://clips/allowed/`.
struct Bench {
    sim: Sim,
    work: Workdir,
    s3: S3,
}

impl Bench {
    fn new(s3: S3) -> Self {
        Self { sim: Sim::plain(), work: Workdir::with_clips(1), s3 }
    }

    fn run(&self, items: &[Value]) -> Aurelia<'_> {
        let file = self.work.items("items.jsonl", items);
        self.s3.told(Aurelia::new(&self.work, &self.sim), "s3://clips/allowed/").corpus(&file)
    }

    #[track_caller]
    fn error(&self, id: &str) -> (ErrorKind, String) {
        let record = self.work.records().remove(id).unwrap();
        let error = record.error.unwrap_or_else(|| panic!("{id} ended as {:?}", record.status));
        (error.kind, error.message)
    }

    #[track_caller]
    fn accepted(&self, id: &str) -> Record {
        let record = self.work.records().remove(id).unwrap();
        assert_eq!(record.status, Status::Accepted, "{id}: {:?}", record.error);
        record
    }
}

#[test]
fn a_clip_in_a_bucket_is_answered_and_a_second_run_fetches_nothing() {
    let bench = Bench::new(S3::start());
    let content = clip(1);
    let uri = bench.s3.put("clips/allowed/deep/a ü+%20.mp4", &content);
    let cache = format!("[media]\ncache_dir = \"{}\"\n", bench.work.path("cache").display());
    let run = || {
        bench
            .run(&[item("a", &uri)])
            .config(&cache)
            .env("AURELIA__TELEMETRY__LOG", "trace")
            .secret("AWS_SESSION_TOKEN", "harness-token-51ed")
    };
    let output = run().run().expect(0);
    assert!(output.stderr.contains("signing request"), "it is logged at all, without what was signed with");
    let record = bench.accepted("a");
    assert_eq!((&record.media[0].uri, &record.media[0].sha256), (&uri, &Some(sha256(&content))));
    assert_eq!((bench.s3.asked().len(), bench.s3.body_bytes()), (1, content.len() as u64));

    // Another process and another output directory: it is asked whether the clip changed, and nothing is fetched.
    let other = bench.work.path("other");
    let file = bench.work.path("items.jsonl");
    let again = bench.s3.told(Aurelia::new(&bench.work, &bench.sim), "s3://clips/allowed/").config(&cache);
    again.arg("run").arg("--corpus").arg(&file).arg("--out").arg(&other).run().expect(0);
    assert_eq!(records(&other)["a"].status, Status::Accepted);
    let asked = bench.s3.asked();
    assert_eq!((asked.len(), bench.s3.body_bytes()), (2, content.len() as u64));
    assert!(asked[1].if_none_match.is_some() && asked[1].range.is_none(), "{:?}", asked[1]);
}

#[test]
fn cut_and_stalled_bodies_go_on_where_they_were() {
    let content = large_clip(1, 8 << 20);
    let size = content.len();
    let bench = Bench::new(S3::with(move |asked, _| match asked.before {
        0 => Fault::Cut(size / 3),
        1 => Fault::Stall(size / 4),
        2 => Fault::Cut(0),
        3 => Fault::Cut(size / 8),
        _ => Fault::None,
    }));
    let uri = bench.s3.put("clips/allowed/a.mp4", &content);
    bench.run(&[item("a", &uri)]).env("AURELIA__STORE__IDLE_SECONDS", "0.5").run().expect(0);
    assert_eq!(bench.accepted("a").media[0].sha256, Some(sha256(&content)));
    let asked = bench.s3.asked();
    let first = |asked: &Asked| -> usize { asked.range.as_ref().unwrap()[6..].trim_end_matches('-').parse().unwrap() };
    let starts: Vec<usize> = asked[1..].iter().map(first).collect();
    assert!(asked[1..].iter().all(|asked| asked.if_match.is_some()), "{asked:?}");
    // What was sent and did not arrive is what each answer had beyond the start of the next.
    let sent = [size / 3, size / 4, 0, size / 8];
    let from = [0, starts[0], starts[1], starts[2]];
    let lost: usize = (0..4).map(|n| from[n] + sent[n] - starts[n]).sum();
    let served = bench.s3.body_bytes();
    println!("{size} bytes, {served} served, {lost} lost, {} requests", asked.len());
    assert!(served <= (size + size / 20 + lost) as u64, "{served} of {size}, {lost} lost");
    assert!(lost < size / 100, "{lost} bytes that came are asked for again");
}

#[test]
fn what_is_outside_of_the_prefix_is_denied_without_a_connection() {
    let bench = Bench::new(S3::start());
    for name in ["clips/other/a.mp4", "clips/allowed2/a.mp4", "others/allowed/a.mp4"] {
        bench.s3.put(name, &clip(1));
    }
    let uris = [
        ("other", "s3://clips/other/a.mp4", "add \"s3://clips/other/\" to [store] allow"),
        ("longer", "s3://clips/allowed2/a.mp4", "add \"s3://clips/allowed2/\" to [store] allow"),
        ("bucket", "s3://others/allowed/a.mp4", "add \"s3://others/allowed/\" to [store] allow"),
        ("absent", "s3://others/absent.mp4", "add \"s3://others/\" to [store] allow"),
        ("up", "s3://clips/allowed/../other/a.mp4", "upwards"),
        ("codes", "s3://clips/allowed/%2e%2e/other/a.mp4", "upwards"),
        ("empty", "s3://clips/allowed//../other/a.mp4", "empty part"),
        ("back", "s3://clips/allowed/..\\other\\a.mp4", "'\\\\'"),
        ("host", "s3://clips.evil.example:80/allowed/a.mp4", "no name"),
        ("query", "s3://clips/allowed/a.mp4?X-Amz-Signature=open-sesame", "query"),
        ("user", "s3://AKIA:open-sesame@clips/allowed/a.mp4", "user name"),
    ];
    let mut items: Vec<Value> = uris.iter().map(|(id, uri, _)| item(id, uri)).collect();
    items.push(item("here", "clips/0.mp4"));
    let output = bench.run(&items).env("AURELIA__TELEMETRY__LOG", "trace").run().expect(1);
    assert!(!output.stderr.contains("open-sesame") && !output.stdout.contains("open-sesame"), "{}", output.stderr);
    bench.accepted("here");
    for (id, _, words) in uris {
        let (kind, message) = bench.error(id);
        assert_eq!(kind, ErrorKind::Denied, "{id}: {message}");
        assert!(message.contains(words) && !message.contains("sesame"), "{id}: {message}");
    }
    assert_eq!(bench.s3.accepted(), 0);
    let kept = fs::read_to_string(bench.work.out().join("records.jsonl")).unwrap();
    assert!(!kept.contains("open-sesame"));
}

#[test]
fn nothing_of_s3_is_allowed_by_default() {
    let bench = Bench::new(S3::start());
    let uri = bench.s3.put("clips/allowed/a.mp4", &clip(1));
    bench.run(&[item("a", &uri)]).config("[store]\nallow = [\"file:///\"]\n").run().expect(1);
    let (kind, message) = bench.error("a");
    assert_eq!(kind, ErrorKind::Denied);
    assert!(message.contains("add \"s3://clips/allowed/\" to [store] allow"), "{message}");
    assert_eq!(bench.s3.accepted(), 0);
}

#[test]
fn wrong_or_missing_credentials_end_the_run_and_blame_no_item() {
    let bench = Bench::new(S3::start());
    let uri = bench.s3.put("clips/allowed/a.mp4", &clip(1));
    let run = || bench.run(&[item("a", &uri), item("b", &uri)]);
    let wrong = run().secret("AWS_SECRET_ACCESS_KEY", "some-other-secret-9c1d").run().expect(64);
    println!("{}", wrong.sentence());
    assert!(wrong.sentence().contains("SignatureDoesNotMatch"), "{}", wrong.stderr);
    let unknown = run().env("AWS_ACCESS_KEY_ID", "AKIANOBODY").run().expect(64);
    assert!(unknown.sentence().contains("AWS_ACCESS_KEY_ID"), "{}", unknown.stderr);
    let none = run().without("AWS_ACCESS_KEY_ID").without("AWS_SECRET_ACCESS_KEY").run().expect(64);
    println!("{}", none.sentence());
    assert!(none.sentence().contains("no credentials for S3"), "{}", none.stderr);
    assert!(bench.work.records().is_empty(), "no item is blamed");
    // The same command goes on once they are right.
    run().run().expect(0);
    bench.accepted("b");
}

#[test]
fn what_is_missing_or_refused_fails_alone() {
    let bench = Bench::new(S3::with(|asked, _| match &*asked.name {
        "clips/allowed/private.mp4" => Fault::AccessDenied,
        _ => Fault::None,
    }));
    let uri = bench.s3.put("clips/allowed/a.mp4", &clip(1));
    let refused = bench.s3.put("clips/allowed/private.mp4", &clip(1));
    let text = bench.s3.put("clips/allowed/text.mp4", b"no clip");
    let empty = bench.s3.put("clips/allowed/empty.mp4", b"");
    let items = [
        item("a", &uri),
        item("absent", "s3://clips/allowed/absent.mp4"),
        item("no-bucket", "s3://nobody/a.mp4"),
        item("refused", &refused),
        item("text", &text),
        item("empty", &empty),
        item("here", "clips/0.mp4"),
    ];
    let allow = "[store]\nallow = [\"file:///\", \"s3://clips/allowed/\", \"s3://nobody/\"]\n";
    bench.run(&items).config(allow).run().expect(1);
    bench.accepted("a");
    bench.accepted("here");
    for (id, kind, words) in [
        ("absent", ErrorKind::NotFound, "NoSuchKey"),
        ("no-bucket", ErrorKind::NotFound, "NoSuchBucket"),
        ("refused", ErrorKind::Denied, "AccessDenied"),
        ("text", ErrorKind::InvalidMedia, "cannot be read"),
        ("empty", ErrorKind::InvalidMedia, "is empty"),
    ] {
        let error = bench.error(id);
        println!("{id}: {}", error.1);
        assert_eq!(error.0, kind, "{id}: {}", error.1);
        assert!(error.1.contains(words), "{id}: {}", error.1);
    }
    assert_eq!(bench.s3.asked().len(), 6, "what is refused is not asked for again");
}

#[test]
fn an_object_that_is_replaced_while_it_is_read_is_never_mixed() {
    let (old, new) = (large_clip(1, 2 << 20), large_clip(2, 2 << 20));
    let (half, second) = (old.len() / 2, new.clone());
    let bench = Bench::new(S3::with(move |asked, objects| match asked.before {
        0 => Fault::Cut(half),
        1 => {
            objects.put(&asked.name, &second);
            Fault::None
        }
        _ => Fault::None,
    }));
    let uri = bench.s3.put("clips/allowed/a.mp4", &old);
    bench.run(&[item("a", &uri)]).run().expect(0);
    assert_eq!(bench.accepted("a").media[0].sha256, Some(sha256(&new)));
    let asked = bench.s3.asked();
    assert_eq!(asked.len(), 3, "begun, refused since it changed, begun again");
    assert!(asked[1].if_match.is_some() && asked[2].range.is_none(), "{asked:?}");
}

#[test]
fn twenty_jobs_on_one_clip_read_it_once() {
    let bench = Bench::new(S3::with(|_, _| Fault::Late(Duration::from_millis(300))));
    let content = clip(1);
    let uri = bench.s3.put("clips/allowed/a.mp4", &content);
    let items: Vec<Value> = (0..20).map(|n| item(&format!("item-{n}"), &uri)).collect();
    bench.run(&items).config("[worker]\nconcurrency = 20\n").run().expect(0);
    assert_eq!(bench.work.records().len(), 20);
    assert_eq!((bench.s3.asked().len(), bench.s3.body_bytes()), (1, content.len() as u64));
}

#[test]
fn a_server_that_says_slow_down_is_waited_for() {
    let bench = Bench::new(S3::with(|asked, _| if asked.before < 9 { Fault::SlowDown } else { Fault::None }));
    let uri = bench.s3.put("clips/allowed/a.mp4", &clip(1));
    // Nine failures are more than the attempts: the rest is the outage's matter.
    let run = || bench.run(&[item("a", &uri)]);
    let output = run().config("[retry]\nattempts = 3\n[store]\noutage_seconds = 100\n").run().expect(0);
    assert!(output.stderr.contains("a source server is down"), "{}", output.stderr);
    bench.accepted("a");
    assert_eq!(bench.s3.asked().len(), 10);
}

#[test]
fn a_server_that_is_not_there_fails_its_items_until_they_are_asked_for_again() {
    let bench = Bench::new(S3::start());
    let uri = bench.s3.put("clips/allowed/a.mp4", &clip(1));
    // A port that nobody listens on.
    let place = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let run = || bench.run(&[item("a", &uri), item("here", "clips/0.mp4")]);
    run().env("AWS_ENDPOINT_URL", &format!("http://{place}")).run().expect(1);
    let (kind, message) = bench.error("a");
    println!("{message}");
    assert_eq!(kind, ErrorKind::Unavailable, "{message}");
    bench.accepted("here");
    run().args(["--retry", "failed"]).run().expect(0);
    bench.accepted("a");
    assert!(!message.contains(SECRET_KEY));
}

#[test]
fn a_setup_that_no_bucket_could_be_reached_with_ends_the_run() {
    let bench = Bench::new(S3::start());
    let uri = bench.s3.put("clips/allowed/a.mp4", &clip(1));
    let run = || bench.run(&[item("a", &uri)]);
    for endpoint in ["localhost:9000", "http://user:open-sesame@127.0.0.1:9000"] {
        let output = run().env("AWS_ENDPOINT_URL", endpoint).run().expect(64);
        assert!(output.sentence().contains("AWS_ENDPOINT_URL"), "{}", output.stderr);
        assert!(!output.stderr.contains("open-sesame"), "{}", output.stderr);
    }
    let nowhere = run().without("AWS_ENDPOINT_URL").without("AWS_REGION").run().expect(64);
    assert!(nowhere.sentence().contains("set AWS_REGION"), "{}", nowhere.stderr);
    assert!(bench.work.records().is_empty() && bench.s3.accepted() == 0);
    // A server of one's own has no region, and its address may be set for S3 alone.
    let own = run().without("AWS_REGION").without("AWS_ENDPOINT_URL").env("AWS_ENDPOINT_URL_S3", &bench.s3.endpoint());
    own.run().expect(0);
    bench.accepted("a");
}

#[test]
fn credentials_and_endpoint_may_come_from_a_profile() {
    let bench = Bench::new(S3::start());
    let uri = bench.s3.put("clips/allowed/a.mp4", &clip(1));
    fs::create_dir(bench.work.path("home/.aws")).unwrap();
    let endpoint = bench.s3.endpoint();
    bench.work.write("home/.aws/config", format!("[profile clips]\nregion = eu-west-1\nendpoint_url = {endpoint}\n"));
    let secret = format!("aws_secret_access_key = {SECRET_KEY}");
    let key = format!("[clips]\naws_access_key_id = {ACCESS_KEY}");
    bench.work.key_file("home/.aws/credentials", &[&key, &secret]);
    let names = ["AWS_ENDPOINT_URL", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
    let run = names.iter().fold(bench.run(&[item("a", &uri)]), |run, name| run.without(name));
    run.env("AWS_PROFILE", "clips").run().expect(0);
    bench.accepted("a");
}

#[test]
fn an_endpoint_with_a_certificate_of_its_own_is_trusted_only_where_that_is_set() {
    let content = clip(1);
    let server = Https::start(move |asked| Reply::file(asked, &content, "\"a\""));
    let bench = Bench::new(S3::start());
    let endpoint = format!("https://{}", server.host());
    let run = || bench.run(&[item("a", "s3://clips/allowed/a.mp4")]).env("AWS_ENDPOINT_URL", &endpoint);
    // No outage: waiting makes nobody trusted.
    run().config("[store]\noutage_seconds = 100\n").run().expect(1);
    let (kind, message) = bench.error("a");
    assert_eq!(kind, ErrorKind::Unavailable, "{message}");
    assert!(message.contains("invalid peer certificate"), "{message}");
    assert!(server.asked().is_empty(), "it is sent nothing");
    let ca = format!("[http]\nextra_ca_file = \"{}\"\n", https::ca().display());
    run().config(&ca).args(["--retry", "failed"]).run().expect(0);
    bench.accepted("a");
    assert_eq!(server.asked()[0].path, "/clips/allowed/a.mp4?x-id=GetObject", "path style");
}

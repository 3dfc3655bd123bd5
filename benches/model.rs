//! A model that costs next to nothing: the same replies for the fleet and for its rivals, after a time that is spread evenly from
//! half to one and a half of what it is on average: at one moment, hundreds of replies would wait for each other.
//!
//! The simulator checks quotas, media and schemas, which takes more processor time than a whole call of a rival; on a machine of
//! two cores that would be measured as well. Our templates are told apart by their tags and get what they ask for;
//! any other prompt gets one object that serves all three calls of the rivals.
//!
//! It also sees what a program adds to its calls: the time from its reply to a job until the job's next request.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use serde_json::{Value, json};

use crate::Fallible;
use crate::process::Running;

/// A job's number follows this word in all that is said about it.
const MARK: &str = "job number ";
const DIGITS: usize = 7;

/// The question of a job.
pub(crate) fn question(number: usize) -> String {
    format!("What makes the sound in {MARK}{number:0DIGITS$}?")
}

/// The model as a child process.
pub(crate) struct Model {
    /// Where it is, without a version.
    pub(crate) url: String,
    pub(crate) pid: u32,
    client: reqwest::Client,
    _running: Running,
}

/// What it saw since it was last asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) calls: usize,
    /// From the first request to the last reply.
    pub(crate) seconds: f64,
    /// Most calls at once.
    pub(crate) peak: usize,
    /// From a reply to the same job's next request, in milliseconds.
    pub(crate) gap_p50: f64,
    pub(crate) gap_p99: f64,
}

impl Model {
    pub(crate) async fn start(latency_ms: u64) -> Fallible<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--model", &latency_ms.to_string()]);
        let mut running = Running::start(command.stdout(Stdio::piped()))?;
        let told = running.child().stdout.take().ok_or("no output of the model")?;
        let pid = running.child().id();
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(told).read_line(&mut line).map(|_| line)
        });
        let url = line.await??.trim().to_owned();
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
        Ok(Self { url, pid, client, _running: running })
    }

    pub(crate) async fn seen(&self) -> Fallible<Seen> {
        let bytes = self.client.get(format!("{}/stats", self.url)).send().await?.bytes().await?;
        let told: Value = serde_json::from_slice(&bytes)?;
        let number = |name: &str| told[name].as_f64().unwrap_or(0.0);
        let count = |name: &str| told[name].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        Ok(Seen {
            calls: count("calls"),
            seconds: number("seconds"),
            peak: count("peak"),
            gap_p50: number("gap_p50"),
            gap_p99: number("gap_p99"),
        })
    }

    pub(crate) async fn reset(&self) -> Fallible<()> {
        self.client.post(format!("{}/reset", self.url)).send().await?.error_for_status()?;
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Books {
    calls: usize,
    now: usize,
    peak: usize,
    first: Option<Instant>,
    last: Option<Instant>,
    replied: HashMap<String, Instant>,
    gaps: Vec<Duration>,
}

#[derive(Debug)]
struct Served {
    latency: Duration,
    books: Mutex<Books>,
}

impl Served {
    fn books(&self) -> std::sync::MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves until it is killed.
pub(crate) async fn serve(latency_ms: u64) -> Fallible<()> {
    let served = Arc::new(Served { latency: Duration::from_millis(latency_ms), books: Mutex::default() });
    let router = Router::new()
        .route("/v1/chat/completions", post(answer))
        .route("/stats", get(stats))
        .route("/reset", post(async |State(served): State<Arc<Served>>| *served.books() = Books::default()))
        .with_state(served);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let mut out = std::io::stdout();
    writeln!(out, "http://{}", listener.local_addr()?)?;
    out.flush()?;
    Ok(axum::serve(axum::serve::ListenerExt::tap_io(listener, |stream| drop(stream.set_nodelay(true))), router).await?)
}

async fn answer(State(served): State<Arc<Served>>, body: Bytes) -> impl IntoResponse {
    let came = Instant::now();
    let text = String::from_utf8_lossy(&body);
    let job = text.find(MARK).and_then(|at| text.get(at + MARK.len()..at + MARK.len() + DIGITS)).map(str::to_owned);
    {
        let mut books = served.books();
        books.first.get_or_insert(came);
        books.now += 1;
        books.peak = books.peak.max(books.now);
        if let Some(before) = job.as_ref().and_then(|job| books.replied.remove(job)) {
            books.gaps.push(came - before);
        }
    }
    let reply = reply(&text, job.as_deref().unwrap_or("0"));
    if !served.latency.is_zero() {
        // By what is asked, so that all who ask it wait as long.
        let spread = f64::from(blake3::hash(&body).as_bytes()[0]) / 255.0;
        tokio::time::sleep(served.latency.mul_f64(0.5 + spread)).await;
    }
    let mut books = served.books();
    let now = Instant::now();
    (books.calls, books.now, books.last) = (books.calls + 1, books.now - 1, Some(now));
    // Its last call leaves it in here: a few dozen bytes a job.
    if let Some(job) = job {
        books.replied.insert(job, now);
    }
    ([(CONTENT_TYPE, "application/json")], reply)
}

fn reply(prompt: &str, job: &str) -> String {
    let text = if prompt.contains("<caption>") {
        json!({"score": 9}).to_string()
    } else if prompt.contains("<steps>") {
        format!("Behind a fence something barks twice, and a gate falls shut, in {MARK}{job}.")
    } else if prompt.contains("<question>") {
        json!({
            "reasoning_steps": [format!("Listen to the rhythm in {MARK}{job}."), "Look at what moves near the fence."],
            "reasoning_answers": ["Two short barks.", "A tail behind the fence."],
            "final_answer": "A terrier",
        })
        .to_string()
    } else {
        json!({
            "Task_1": "1. Listen for the bark. 2. Look for the dog.", "Task_2": "1. Two barks. 2. Behind a fence.",
            "Task_3": "A dog behind the fence.", "score": 9,
        })
        .to_string()
    };
    json!({
        "id": "chatcmpl-0", "object": "chat.completion", "created": 1_700_000_000, "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text, "refusal": null}, "logprobs": null, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 50, "completion_tokens": 50, "total_tokens": 100},
    })
    .to_string()
}

async fn stats(State(served): State<Arc<Served>>) -> String {
    let books = served.books();
    let mut gaps: Vec<f64> = books.gaps.iter().map(|gap| gap.as_secs_f64() * 1e3).collect();
    gaps.sort_by(f64::total_cmp);
    let at = |percent: usize| gaps.get(gaps.len() * percent / 100).copied();
    let seconds = books.first.zip(books.last).map_or(0.0, |(first, last)| (last - first).as_secs_f64());
    json!({"calls": books.calls, "peak": books.peak, "seconds": seconds, "gap_p50": at(50), "gap_p99": at(99)})
        .to_string()
}

//! One session of the upload protocol: its requests, and what their answers say.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use serde_json::json;

use super::Files;
use super::exchange::{self, Answer, broken};
use crate::provider::body::Body;
use crate::provider::{CallError, CallErrorKind, failure};

/// A service that asks for larger steps would not fit the memory that is planned for.
pub(super) const LARGEST_STEP: u64 = 64 << 20;
/// Longest address of a session.
const LONGEST_URL: usize = 8_192;
const RECEIVED: &str = "x-goog-upload-size-received";

/// What a file is to be.
#[derive(Debug)]
pub(super) struct Wish<'a> {
    /// `files/<id>`.
    pub(super) name: String,
    pub(super) title: String,
    pub(super) mime: &'a str,
    pub(super) bytes: u64,
}

/// A session that began. No `Debug`: its address is a secret.
pub(super) struct Session {
    url: Url,
    /// What is sent at once.
    pub(super) chunk: u64,
}

/// How an upload stands with the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// So many bytes are there.
    Active(u64),
    /// It became a file.
    Final,
    /// Nobody knows of it.
    Lost,
}

/// Asks for a session.
pub(super) async fn start(files: &Files, wish: &Wish<'_>) -> Result<Answer, CallError> {
    let url = exchange::address(files, &format!("/upload/{}/files", files.version))?;
    let mut headers = HeaderMap::new();
    headers.insert("x-goog-upload-protocol", HeaderValue::from_static("resumable"));
    headers.insert("x-goog-upload-command", HeaderValue::from_static("start"));
    headers.insert("x-goog-upload-header-content-length", HeaderValue::from(wish.bytes));
    let mime = HeaderValue::from_str(wish.mime).map_err(|_| CallError {
        kind: CallErrorKind::Refused,
        ..broken(format!("{:?} is no type of a file", failure::words(wish.mime)))
    })?;
    headers.insert("x-goog-upload-header-content-type", mime);
    let file = json!({
        "name": wish.name, "displayName": wish.title, "mimeType": wish.mime, "sizeBytes": wish.bytes.to_string(),
    });
    let body = Body::new(vec![Bytes::from(json!({ "file": file }).to_string())]);
    exchange::send(files, Method::POST, url, headers, body, &Arc::default()).await
}

impl Session {
    /// Where the bytes go, and in what steps. The address is believed but for its origin.
    pub(super) fn read(files: &Files, answer: &Answer) -> Result<Self, String> {
        let given = answer.header("x-goog-upload-url").filter(|url| !url.is_empty() && url.len() <= LONGEST_URL);
        let given = given.ok_or("the answer to a new upload names no usable address")?;
        let base = files.base.as_ref().ok_or("its base_url is not an http or https address")?;
        let given = base.join(given).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let given = given.ok_or("the answer to a new upload names no http or https address")?;
        let mut url = base.clone();
        url.set_path(given.path());
        url.set_query(given.query());
        let step = match answer.header("x-goog-upload-chunk-granularity") {
            None => 1,
            Some(step) => step.parse().ok().filter(|step| (1..=LARGEST_STEP).contains(step)).ok_or_else(|| {
                let step = failure::words(step);
                format!("a new upload asks for steps of {step:?} bytes, which is not within 1 and {LARGEST_STEP}")
            })?,
        };
        Ok(Self { url, chunk: (files.chunk / step).max(1) * step })
    }

    /// Sends a chunk; the last one makes it a file. `sent` counts its bytes.
    pub(super) async fn put(
        &self,
        files: &Files,
        offset: u64,
        chunk: Bytes,
        last: bool,
        sent: &Arc<AtomicU64>,
    ) -> Result<Answer, CallError> {
        let words = match (last, chunk.is_empty()) {
            (true, true) => "finalize",
            (true, false) => "upload, finalize",
            (false, _) => "upload",
        };
        let mut headers = command(words);
        headers.insert("x-goog-upload-offset", HeaderValue::from(offset));
        exchange::send(files, Method::POST, self.url.clone(), headers, Body::new(vec![chunk]), sent).await
    }

    /// Asks how far it came.
    pub(super) async fn query(&self, files: &Files) -> Result<Answer, CallError> {
        let empty = Body::new(Vec::new());
        exchange::send(files, Method::POST, self.url.clone(), command("query"), empty, &Arc::default()).await
    }
}

fn command(words: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("x-goog-upload-command", HeaderValue::from_static(words));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers
}

/// What the headers of a success say of a file of `bytes`. `taken`: what is there if they do not say.
pub(super) fn standing(answer: &Answer, bytes: u64, taken: Option<u64>) -> Result<Standing, String> {
    match answer.header("x-goog-upload-status").map(str::to_ascii_lowercase).as_deref() {
        Some("final") => Ok(Standing::Final),
        Some("cancelled") => Ok(Standing::Lost),
        Some("active") => match answer.header(RECEIVED) {
            None => taken.map(Standing::Active).ok_or_else(|| "the answer does not say how much is there".to_owned()),
            Some(text) => {
                let received = text.parse().ok().filter(|received| *received <= bytes);
                received.map(Standing::Active).ok_or_else(|| {
                    format!("{:?} bytes are said to be there, of a file of {bytes}", failure::words(text))
                })
            }
        },
        _ => Err("the answer does not say how the upload stands".to_owned()),
    }
}

/// A session nobody knows any more.
pub(super) fn lost(answer: &Answer) -> Option<Standing> {
    matches!(answer.status, 404 | 410).then_some(Standing::Lost)
}

/// A chunk that was refused: a 400, 409 or 412 may only mean another offset or that it is done, so it is asked about.
pub(super) fn refusal(answer: &Answer) -> CallError {
    let error = answer.failure();
    let about_offset = matches!(answer.status, 400 | 409 | 412 | 416) && error.kind == CallErrorKind::Refused;
    if about_offset { CallError { kind: CallErrorKind::Unavailable, ..error } } else { error }
}

//! One request and its answer: whichever side is silent for too long ends it, however large the body is.
//!
//! A call's deadlines do not fit an upload, so a body here is late when nothing of it moved for the idle deadline, or when it
//! has left whole and no answer began within the first-byte deadline.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use serde_json::Value;

use super::{Files, FilesError, errors};
use crate::provider::body::Body;
use crate::provider::http::fault::{chain, late, without_secret};
use crate::provider::http::progress::{Progress, Watched};
use crate::provider::{Billed, CallError, CallErrorKind, failure};
use crate::quota::NamedLimit;

/// Most bytes of an answer: a page of a hundred files has a tenth of it.
const MAX_ANSWER: usize = 1 << 20;

/// The quota of a project's store, as the service names it.
pub(super) const FULL: &str = "file_storage_bytes";

/// What was answered, whatever its status.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// A header's text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok().map(str::trim)
    }

    pub(super) fn json(&self) -> Result<Value, FilesError> {
        let words = || format!("the answer is no JSON: {}", failure::page(&self.body));
        failure::json(&self.body).ok_or_else(|| FilesError::Unavailable(words()))
    }

    /// What a status that is no success means. A full store is named in the message, though the service may name it in the
    /// details alone.
    pub(super) fn failure(&self) -> CallError {
        let mut error = errors::classify(self.status, &self.headers, failure::json(&self.body).as_ref(), &self.body);
        let body = String::from_utf8_lossy(&self.body).to_ascii_lowercase();
        let is_full = body.contains(FULL) || body.contains("filestoragebytes");
        if self.status == 429 && is_full && !error.message.contains(FULL) {
            error.message = format!("{} ({FULL})", error.message);
        }
        error
    }
}

/// A failure of the way, or of a server that does not speak the protocol.
pub(super) fn broken(message: String) -> CallError {
    CallError {
        kind: CallErrorKind::Unavailable,
        billed: Billed::No,
        message,
        retry_after: None,
        limit: NamedLimit::default(),
    }
}

/// A request without a body, below the endpoint's base URL.
pub(super) async fn bare(
    files: &Files,
    method: Method,
    path: &str,
    query: &[(&str, &str)],
) -> Result<Answer, CallError> {
    let mut url = address(files, path)?;
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    let empty = Body::new(Vec::new());
    send(files, method, url, HeaderMap::new(), empty, &Arc::default()).await
}

/// An address below the endpoint's base URL.
pub(super) fn address(files: &Files, path: &str) -> Result<Url, CallError> {
    let refused = |message: &str| CallError { kind: CallErrorKind::Refused, ..broken(message.to_owned()) };
    let base = files.base.as_ref().ok_or_else(|| refused("its base_url is not an http or https address"))?;
    let joined = format!("{}{path}", base.as_str().trim_end_matches('/'));
    Url::parse(&joined).map_err(|_| refused("its base_url and api_version make no address"))
}

/// Sends a body with the key and these headers. `sent` counts the body's bytes as they are handed over.
pub(super) async fn send(
    files: &Files,
    method: Method,
    url: Url,
    mut headers: HeaderMap,
    body: Body,
    sent: &Arc<AtomicU64>,
) -> Result<Answer, CallError> {
    let key = files.credential.expose();
    if !key.is_empty() {
        let Ok(mut key) = HeaderValue::from_str(key) else {
            let message = format!("{} holds characters that no header can carry", files.credential.label);
            return Err(CallError { kind: CallErrorKind::KeyRefused, ..broken(message) });
        };
        key.set_sensitive(true);
        headers.insert("x-goog-api-key", key);
    }
    headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    let (idle, first_byte) = (files.deadlines.idle, files.deadlines.first_byte);
    let is_small = body.is_empty();
    let progress = Progress::new();
    let watched = Watched::new(body, progress.clone()).counted(Arc::clone(sent));
    let request = files.http.request(method, url).headers(headers).body(reqwest::Body::wrap(watched));
    // A question is answered soon or not at all; what ends a large body may take the service a while.
    let answer_limit = if is_small { idle } else { first_byte };
    let response = tokio::select! {
        response = request.send() => response.map_err(|error| broken(chain(&error.without_url())))?,
        () = progress.stalled(idle, answer_limit) => {
            return Err(broken(if progress.is_whole() {
                late("no answer began", "first byte", answer_limit)
            } else {
                late("the upload does not move", "idle", idle)
            }));
        }
    };
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    match tokio::time::timeout(answer_limit, whole(response)).await {
        Ok(Ok(body)) => Ok(Answer { status, headers, body: without_secret(body, &files.credential) }),
        // A status that is no success says enough.
        Ok(Err(_)) | Err(_) if !(200..300).contains(&status) => Ok(Answer { status, headers, body: Bytes::new() }),
        Ok(Err(message)) => Err(broken(message)),
        Err(_) => Err(broken(late("the answer is not whole", "idle", answer_limit))),
    }
}

async fn whole(mut response: reqwest::Response) -> Result<Bytes, String> {
    let mut body = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > MAX_ANSWER => {
                return Err(format!("the answer is longer than {MAX_ANSWER} bytes"));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body.freeze()),
            Err(error) => return Err(format!("the answer is cut: {}", chain(&error.without_url()))),
        }
    }
}

//! What went wrong on the way, in words: the deadline or the chain of causes, the endpoint's name, and never the secret.
//!
//! The secret is taken out twice: from the bytes of an error before they are cut to a quote, and from the message as it
//! leaves, since JSON can spell a key with escapes and a cut can leave its beginning.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::LOCATION;

use super::Answer;
use crate::provider::credentials::Credential;
use crate::provider::{Billed, CallError, CallErrorKind, Endpoint, failure};
use crate::quota::NamedLimit;

/// A call whose way to the provider failed.
pub(super) fn lost(billed: Billed, message: String) -> CallError {
    CallError { kind: CallErrorKind::Unavailable, billed, message, retry_after: None, limit: NamedLimit::default() }
}

/// A deadline that passed, by its name and its seconds.
pub(in crate::provider) fn late(what: &str, deadline: &str, limit: Duration) -> String {
    format!("{what} within {} s ({deadline} deadline)", limit.as_secs_f64())
}

/// An error with its causes: the outermost alone says little.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    failure::words(&text)
}

/// Where a redirect points to, without its query, which may hold a token.
pub(super) fn redirect(answer: &Answer) -> String {
    let target = answer.headers.get(LOCATION).and_then(|value| value.to_str().ok());
    match target {
        Some(target) if (300..400).contains(&answer.status) => {
            let target = target.split(['?', '#']).next().unwrap_or_default();
            format!(" (a redirect to {} is not followed; check base_url)", failure::words(target))
        }
        _ => String::new(),
    }
}

/// A body without the secret, which some servers echo.
pub(in crate::provider) fn without_secret(body: Bytes, credential: &Credential) -> Bytes {
    let secret = credential.expose().as_bytes();
    if secret.is_empty() || !body.windows(secret.len()).any(|window| window == secret) {
        return body;
    }
    Bytes::from(String::from_utf8_lossy(&body).replace(credential.expose(), "[key]"))
}

/// The error as it leaves: with the endpoint's name in front, a note behind and without the secret.
pub(super) fn named(endpoint: &Endpoint, credential: &Credential, mut error: CallError, note: &str) -> CallError {
    let message = failure::redact(&error.message, credential.expose());
    let note = failure::redact(note, credential.expose());
    error.message = format!("{}: {message}{note}", endpoint.name);
    error
}

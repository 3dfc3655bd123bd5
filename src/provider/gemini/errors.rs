//! What a failure of the Gemini API means: `google.rpc.Status` with its typed details, or a page of the front end.
//!
//! The official SDK looks at the status alone. Here a 429 is read to its end: a violation of a daily quota is no reason to
//! back off, several violations may come together, `retryDelay` is cut to whole seconds while the message has the exact
//! figure, and both may be absent (all seen in real answers).

use std::time::Duration;

use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::provider::{CallError, CallErrorKind, failure, hints};
use crate::quota::{NamedLimit, Scarce};

/// Added to every delay the provider names, since clocks and roundings differ.
const MARGIN: Duration = Duration::from_millis(100);
/// A day's quota is not back sooner; a shorter hint beside it belongs to the minute's quota.
const SHORTEST_DAY: Duration = Duration::from_mins(10);
/// How long a full file store is left alone when nothing is said: it empties as files expire.
const STORE_PAUSE: Duration = Duration::from_mins(1);

/// The failure in an answer that is not a success; `answer` is its body where that is JSON.
pub(super) fn classify(status: u16, headers: &HeaderMap, answer: Option<&Value>, bytes: &[u8]) -> CallError {
    let error = answer.map_or(&Value::Null, |answer| &answer["error"]);
    let name = failure::named(error, "status").unwrap_or_default();
    // A quote in the record is short; the decision is made on all the words.
    let message = error["message"].as_str().unwrap_or_default();
    let quote = if message.is_empty() { failure::page(bytes) } else { failure::words(message) };
    let message = message.to_ascii_lowercase();
    let details = error["details"].as_array().map(Vec::as_slice).unwrap_or_default();

    let limit = if status == 429 { named(details) } else { NamedLimit::default() };
    let (kind, retry_after) = match status {
        429 => exhausted(&message, details, hints::in_headers(headers)),
        400 => (bad_request(&name, &message, details), hints::in_headers(headers)),
        403 | 404 if message.contains("access the file") || message.contains("file files/") => {
            (CallErrorKind::FileGone, None)
        }
        _ => (failure::kind_of(status), hints::in_headers(headers)),
    };
    // The words name the file, which is no business of a record.
    let quote = match kind {
        CallErrorKind::FileGone => "an uploaded file is not there, or is another project's".to_owned(),
        CallErrorKind::FileNotReady => "an uploaded file is not ready".to_owned(),
        _ => quote,
    };
    let note = match kind {
        CallErrorKind::KeyRefused => " (the credential or its project is refused)",
        CallErrorKind::ModelUnknown => " (check the model's name, base_url and api_version)",
        _ => "",
    };
    let name = if name.is_empty() { name } else { format!(" {name}") };
    CallError { limit, ..failure::answered(kind, format!("status {status}{name}: {quote}{note}"), retry_after) }
}

/// The limit by the minute that a 429 names, the first of several.
fn named(details: &[Value]) -> NamedLimit {
    let violations = details.iter().filter_map(|detail| detail["violations"].as_array()).flatten();
    let limits = violations.filter_map(|violation| {
        let id = text(violation, "quotaId").to_ascii_lowercase();
        let of = match id.contains("perminute") {
            true if id.contains("token") => Scarce::Tokens,
            true if id.contains("request") => Scarce::Requests,
            _ => return None,
        };
        Some(NamedLimit { of, per_minute: text(violation, "quotaValue").parse().ok() })
    });
    limits.into_iter().next().unwrap_or_default()
}

/// A 400 is the item's fault but where it speaks of the key or its project.
fn bad_request(name: &str, message: &str, details: &[Value]) -> CallErrorKind {
    let key =
        details.iter().filter_map(|detail| detail["reason"].as_str()).any(|reason| reason.starts_with("API_KEY_"))
            || message.contains("api key not valid")
            || message.contains("api key expired");
    let project = name == "FAILED_PRECONDITION"
        && ["billing", "free tier", "location is not supported"].iter().any(|phrase| message.contains(phrase));
    match name {
        _ if key || project => CallErrorKind::KeyRefused,
        "FAILED_PRECONDITION" if message.contains("not in an active state") => CallErrorKind::FileNotReady,
        _ => CallErrorKind::Refused,
    }
}

/// Which quota of a 429 is used up, and when it is back.
fn exhausted(message: &str, details: &[Value], header: Option<Duration>) -> (CallErrorKind, Option<Duration>) {
    let quotas: Vec<String> = details
        .iter()
        .filter_map(|detail| detail["violations"].as_array())
        .flatten()
        .map(|violation| {
            format!("{} {}", text(violation, "quotaId"), text(violation, "quotaMetric")).to_ascii_lowercase()
        })
        .collect();
    let names = |phrase: &str| quotas.iter().any(|quota| quota.contains(phrase)) || message.contains(phrase);
    let delay = delay(message, details).max(header);
    if ["credits are depleted", "monthly spending cap", "spending limit for the month"]
        .iter()
        .any(|phrase| message.contains(phrase))
    {
        return (CallErrorKind::KeyRefused, None);
    }
    if names("perday") || names("per_day") || message.contains("per day") {
        return (CallErrorKind::DayExhausted, delay.filter(|delay| *delay >= SHORTEST_DAY));
    }
    if names("file_storage") {
        return (CallErrorKind::Throttled, Some(delay.unwrap_or(STORE_PAUSE)));
    }
    // A quota by the minute is back in a minute or two; a longer delay without a name is a daily one's.
    match delay {
        Some(delay) if quotas.is_empty() && delay >= hints::LONGEST / 24 => (CallErrorKind::DayExhausted, Some(delay)),
        delay => (CallErrorKind::Throttled, delay),
    }
}

/// The larger of `RetryInfo` and the message's own figure, rounded up to what it was before it was cut.
///
/// A `RetryInfo` beyond a day is not credible: it counts only when nothing else says anything, clamped.
fn delay(message: &str, details: &[Value]) -> Option<Duration> {
    let spoken = hints::in_text(message, &["retry in "]);
    let info = details.iter().filter_map(|detail| hints::duration(detail["retryDelay"].as_str()?)).max();
    let named = details.iter().any(|detail| detail["violations"].is_array());
    let info = info.filter(|info| *info < hints::LONGEST || (spoken.is_none() && !named));
    let exact = match (spoken, info) {
        (None, Some(info)) if info.subsec_nanos() == 0 => info + Duration::from_secs(1),
        (spoken, info) => spoken.max(info)?,
    };
    let tenths = u64::try_from(exact.as_nanos().div_ceil(100_000_000)).unwrap_or(u64::MAX);
    Some((Duration::from_millis(tenths.saturating_mul(100)) + MARGIN).min(hints::LONGEST))
}

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object[key].as_str().unwrap_or_default()
}

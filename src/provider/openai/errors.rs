//! What a failure of a chat completion means: OpenAI's codes and words, and the other shapes of compatible servers.
//!
//! The official SDK retries every 429. Here an exhausted balance is the key's fault, a request larger than the limit is the
//! item's, and a daily limit is waited for, not backed off from. The waits named in the message are exact where headers
//! are cut to whole seconds, so the larger one counts.

use std::time::Duration;

use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::provider::{CallError, CallErrorKind, failure, hints};
use crate::quota::{NamedLimit, Scarce};

/// Added to a delay the provider names, since clocks and roundings differ.
const MARGIN: Duration = Duration::from_millis(100);
/// How long a failure is left alone that the server asks not to repeat (`x-should-retry: false`).
const ASKED_NOT_TO: Duration = Duration::from_mins(1);

/// The failure in an answer that is not a success; `answer` is its body where that is JSON.
pub(super) fn classify(status: u16, headers: &HeaderMap, answer: Option<&Value>, bytes: &[u8]) -> CallError {
    let said = said(answer.unwrap_or(&Value::Null));
    let lower = said.message.to_ascii_lowercase();
    let quote = if said.message.trim().is_empty() { failure::page(bytes) } else { failure::words(&said.message) };
    let kind = kind(status, &said, &lower, should_retry(headers));
    let retry_after = delay(kind, headers, &lower);
    let note = match kind {
        CallErrorKind::KeyRefused => " (the credential or its account is refused)",
        CallErrorKind::ModelUnknown => " (check the model's name and base_url)",
        _ => "",
    };
    let code = [&said.code, &said.kind].into_iter().find(|name| !name.is_empty() && **name != status.to_string());
    let code = code.map(|code| format!(" {}", failure::words(code))).unwrap_or_default();
    let limit = if kind == CallErrorKind::Throttled { named(&said, &lower, headers) } else { NamedLimit::default() };
    CallError { limit, ..failure::answered(kind, format!("status {status}{code}: {quote}{note}"), retry_after) }
}

/// The limit by the minute that is used up, by the words or else by the headers. A header's limit may be a day's or a second's: it
/// counts where it is full again within a minute, and its figure where that takes more than half of one.
fn named(said: &Said, message: &str, headers: &HeaderMap) -> NamedLimit {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let kinds = [(Scarce::Requests, "requests"), (Scarce::Tokens, "tokens")];
    for (of, name) in kinds {
        if message.contains(&format!("{name} per min")) {
            return NamedLimit { of, per_minute: figure(message, "limit ") };
        }
    }
    for (of, name) in kinds {
        let minute = Duration::from_mins(1);
        let reset = header(&format!("x-ratelimit-reset-{name}")).and_then(hints::duration);
        let spent = header(&format!("x-ratelimit-remaining-{name}")) == Some("0");
        if let Some(reset) = reset.filter(|reset| spent && *reset <= minute) {
            let limit = header(&format!("x-ratelimit-limit-{name}")).filter(|_| reset > minute / 2);
            return NamedLimit { of, per_minute: limit.and_then(|limit| limit.parse().ok()) };
        }
    }
    let of = match said.kind.as_str() {
        "requests" => Scarce::Requests,
        "tokens" => Scarce::Tokens,
        _ => Scarce::Unknown,
    };
    NamedLimit { of, per_minute: None }
}

/// The whole number after the last of these words, commas between its digits left out.
fn figure(message: &str, words: &str) -> Option<u64> {
    let (_, rest) = message.rsplit_once(words)?;
    let digits = rest.chars().take_while(|c| c.is_ascii_digit() || *c == ',').filter(|c| *c != ',');
    digits.collect::<String>().parse().ok()
}

/// The status an error inside a 2xx stands for, if there is one: gateways put it into `code`.
pub(super) fn code_inside(answer: &Value) -> Option<u16> {
    let said = said(answer);
    let found = !answer["error"].is_null() || answer["object"] == "error";
    found.then(|| said.code.parse().ok().filter(|code| (400..600).contains(code)).unwrap_or(500))
}

/// What an error object says, each as text.
#[derive(Debug, Default)]
struct Said {
    message: String,
    kind: String,
    code: String,
}

/// OpenAI nests the error, vLLM may have it at the top, others send a string, a `detail` or a list of them.
fn said(answer: &Value) -> Said {
    let error = match &answer["error"] {
        Value::Object(_) => &answer["error"],
        Value::String(message) => {
            return Said { message: message.clone(), ..Said::default() };
        }
        _ => answer,
    };
    let text = |key: &str| match &error[key] {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    };
    let detail = match &error["detail"] {
        Value::Array(list) => list.first().and_then(|first| first["msg"].as_str()),
        detail => detail.as_str(),
    };
    let message = Some(text("message")).filter(|message| !message.is_empty());
    Said { message: message.or(detail.map(str::to_owned)).unwrap_or_default(), kind: text("type"), code: text("code") }
}

fn kind(status: u16, said: &Said, message: &str, should_retry: Option<bool>) -> CallErrorKind {
    let is = |name: &str| said.code == name || said.kind == name;
    if [
        "insufficient_quota",
        "billing_hard_limit_reached",
        "invalid_api_key",
        "account_deactivated",
        "billing_not_active",
    ]
    .into_iter()
    .any(is)
    {
        return CallErrorKind::KeyRefused;
    }
    if is("model_not_found") {
        return CallErrorKind::ModelUnknown;
    }
    match status {
        429 if message.contains("request too large") => CallErrorKind::Refused,
        429 if ["per day", "(rpd)", "(tpd)"].iter().any(|phrase| message.contains(phrase)) => {
            CallErrorKind::DayExhausted
        }
        503 if message.contains("slow down") || is("slow_down") => CallErrorKind::Throttled,
        400 | 422 if should_retry == Some(true) => CallErrorKind::Unavailable,
        _ => failure::kind_of(status),
    }
}

/// Hints from headers and words. `x-should-retry: false` on an outage is no verdict on the item, so it is read as a wish to be left
/// alone for a while; on a 429 it says nothing the kind does not say.
fn delay(kind: CallErrorKind, headers: &HeaderMap, message: &str) -> Option<Duration> {
    let hint = hints::in_headers(headers).max(hints::in_text(message, &["try again in ", "retry after "]));
    let hint = hint.map(|hint| (hint + MARGIN).min(hints::LONGEST));
    match kind {
        CallErrorKind::Unavailable if should_retry(headers) == Some(false) => hint.max(Some(ASKED_NOT_TO)),
        CallErrorKind::Refused | CallErrorKind::KeyRefused | CallErrorKind::ModelUnknown => None,
        _ => hint,
    }
}

fn should_retry(headers: &HeaderMap) -> Option<bool> {
    match headers.get("x-should-retry")?.to_str().ok()?.trim() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

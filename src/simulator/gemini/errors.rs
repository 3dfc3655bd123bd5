//! Gemini's refusals, word for word as users have quoted them (wire.md 1.8).

use serde_json::{Value, json};

use crate::simulator::answer::Refusal;
use crate::simulator::fault::Fault;
use crate::simulator::settings::DAY_MS;
use crate::simulator::shape::{Problem, snake};
use crate::simulator::window::{Counted, Denied};

/// Body limit since 2026-01-12: 100 MB in all, base64 included.
pub(crate) const MAX_BODY: usize = 104_857_600;

fn error(status: u16, name: &'static str, message: &str, details: &Value) -> Refusal {
    let mut error = json!({ "code": status, "message": message, "status": name });
    if details.as_array().is_some_and(|list| !list.is_empty()) {
        error["details"] = details.clone();
    }
    Refusal { status, kind: name, headers: Vec::new(), body: format!("{:#}\n", json!({ "error": error })) }
}

/// 400 INVALID_ARGUMENT.
pub(crate) fn invalid(message: &str) -> Refusal {
    error(400, "INVALID_ARGUMENT", message, &json!([]))
}

/// 400 for a request whose JSON does not fit, with its field.
pub(crate) fn problem(problem: &Problem) -> Refusal {
    let (field, text) = match problem {
        Problem::Unknown { path, name } if path.is_empty() => {
            (String::new(), format!("Invalid JSON payload received. Unknown name \"{name}\": Cannot find field."))
        }
        Problem::Unknown { path, name } => {
            let path = snake(path);
            (
                path.clone(),
                format!("Invalid JSON payload received. Unknown name \"{name}\" at '{path}': Cannot find field."),
            )
        }
        Problem::Type { path, wanted, value, .. } => {
            let path = snake(path);
            let kind = match *wanted {
                "a boolean" => "TYPE_BOOL",
                "an integer" => "TYPE_INT32",
                "a decimal" => "TYPE_FLOAT",
                "a string" => "TYPE_STRING",
                _ => "TYPE_MESSAGE",
            };
            (path.clone(), format!("Invalid value at '{path}' ({kind}), {value}"))
        }
        Problem::Name { path, got, .. } => {
            let path = snake(path);
            (path.clone(), format!("Invalid value at '{path}' (TYPE_ENUM), \"{got}\""))
        }
    };
    let violation = json!({ "field": field, "description": text });
    let details = json!([{ "@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation] }]);
    error(400, "INVALID_ARGUMENT", &text, &details)
}

/// No key at all.
pub(crate) fn no_key() -> Refusal {
    let text = "Method doesn't allow unregistered callers (callers without established identity). \
                Please use API Key or other form of API consumer identity to call this API.";
    error(403, "PERMISSION_DENIED", text, &json!([]))
}

/// A key that is not valid (any more).
pub(crate) fn bad_key() -> Refusal {
    let details = json!([
        { "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com",
          "metadata": { "service": "generativelanguage.googleapis.com" } },
        { "@type": "type.googleapis.com/google.rpc.LocalizedMessage", "locale": "en-US",
          "message": "API key not valid. Please pass a valid API key." },
    ]);
    let refusal = error(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", &details);
    Refusal { kind: "API_KEY_INVALID", ..refusal }
}

/// A project without billing.
pub(crate) fn no_billing() -> Refusal {
    let text = "Gemini API free tier is not available in your country. \
                Please enable billing on your project in Google AI Studio.";
    error(400, "FAILED_PRECONDITION", text, &json!([]))
}

/// An unknown model.
pub(crate) fn no_model(version: &str, model: &str, method: &str) -> Refusal {
    let text = format!(
        "models/{model} is not found for API version {version}, or is not supported for {method}. \
         Call ListModels to see the list of available models and their supported methods."
    );
    error(404, "NOT_FOUND", &text, &json!([]))
}

/// A file that is not there, or not this project's.
pub(crate) fn no_file(uri: &str) -> Refusal {
    let name = uri.rsplit('/').next().unwrap_or_default();
    let text = format!("You do not have permission to access the File {name} or it may not exist.");
    error(403, "PERMISSION_DENIED", &text, &json!([]))
}

/// A file that is being processed, or that could not be.
pub(crate) fn not_active(name: &str) -> Refusal {
    let text = format!("The File {name} is not in an ACTIVE state and usage is not allowed.");
    error(400, "FAILED_PRECONDITION", &text, &json!([]))
}

/// A `fileUri` that names no file and is no address.
pub(crate) fn bad_uri(uri: &str) -> Refusal {
    invalid(&format!("Invalid or unsupported file uri: {}", crate::simulator::shape::clip(uri)))
}

/// A name that is taken.
pub(crate) fn already_exists() -> Refusal {
    error(409, "ALREADY_EXISTS", "Requested entity already exists", &json!([]))
}

/// A project's store is full. The real answer has no `RetryInfo`, or one of 2^63 seconds.
pub(crate) fn storage_full(limit: u64) -> Refusal {
    let metric = "generativelanguage.googleapis.com/file_storage_bytes";
    let text = format!(
        "You exceeded your current quota, please check your plan and billing details. For more information on this error, \
         head to: https://ai.google.dev/gemini-api/docs/rate-limits.\n* Quota exceeded for metric: {metric}, limit: {limit}"
    );
    let details = json!([
        { "@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{ "quotaMetric": metric,
          "quotaId": "FileStorageBytesPerProject", "quotaValue": limit.to_string() }] },
        { "@type": "type.googleapis.com/google.rpc.Help", "links": [{ "description": "Learn more about Gemini API quotas",
          "url": "https://ai.google.dev/gemini-api/docs/rate-limits" }] },
    ]);
    error(429, "RESOURCE_EXHAUSTED", &text, &details)
}

/// 503 of a service that is not a model.
pub(crate) fn overloaded() -> Refusal {
    error(503, "UNAVAILABLE", "The service is currently unavailable.", &json!([]))
}

/// Quota metric and id of a limit.
fn quota(counted: Counted, window_ms: u64) -> (&'static str, &'static str) {
    match (counted, window_ms >= DAY_MS) {
        (Counted::Requests, true) => {
            ("generate_requests_per_model_per_day", "GenerateRequestsPerDayPerProjectPerModel")
        }
        (Counted::Requests, false) => ("generate_requests_per_model", "GenerateRequestsPerMinutePerProjectPerModel"),
        (Counted::Tokens, true) => {
            ("generate_content_paid_tier_input_token_count", "GenerateContentPaidTierInputTokensPerModelPerDay")
        }
        (Counted::Tokens, false) => {
            ("generate_content_paid_tier_input_token_count", "GenerateContentPaidTierInputTokensPerModelPerMinute")
        }
    }
}

/// The full 429: Help, QuotaFailure and RetryInfo, whose delay is cut to whole seconds although the text is exact.
pub(crate) fn over_limit(model: &str, denied: &Denied) -> Refusal {
    let limit = &denied.limit;
    let most = match denied.counted {
        Counted::Requests => limit.requests,
        Counted::Tokens => limit.tokens,
    };
    let scale = if limit.window_ms >= DAY_MS { DAY_MS } else { 60_000 };
    let value = most.unwrap_or(0).saturating_mul(scale) / limit.window_ms.max(1);
    let wait_us = denied.wait_us.unwrap_or(limit.window_ms * 1_000);
    exhausted(model, quota(denied.counted, limit.window_ms), value, wait_us, Retry::Truncated)
}

#[derive(Clone, Copy)]
enum Retry {
    Exact,
    Truncated,
}

fn exhausted(model: &str, (metric, id): (&str, &str), value: u64, wait_us: u64, retry: Retry) -> Refusal {
    let metric = format!("generativelanguage.googleapis.com/{metric}");
    let text = format!(
        "You exceeded your current quota, please check your plan and billing details. For more information on this error, \
         head to: https://ai.google.dev/gemini-api/docs/rate-limits. \n\
         * Quota exceeded for metric: {metric}, limit: {value}, model: {model}\nPlease retry in {}.",
        go_duration(wait_us)
    );
    let delay = match retry {
        Retry::Truncated => format!("{}s", wait_us / 1_000_000),
        Retry::Exact => seconds(wait_us),
    };
    let details = json!([
        { "@type": "type.googleapis.com/google.rpc.Help", "links": [{ "description": "Learn more about Gemini API quotas",
          "url": "https://ai.google.dev/gemini-api/docs/rate-limits" }] },
        { "@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{ "quotaMetric": metric, "quotaId": id,
          "quotaDimensions": { "location": "global", "model": model }, "quotaValue": value.to_string() }] },
        { "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay },
    ]);
    error(429, "RESOURCE_EXHAUSTED", &text, &details)
}

/// `18.642s` with as many digits as it takes.
pub(crate) fn seconds(us: u64) -> String {
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
}

/// As Go prints a duration: `174ms`, `18.642s`, `6m0s`, `1h52m56.4s`.
pub(crate) fn go_duration(us: u64) -> String {
    let (minutes, rest) = (us / 60_000_000, us % 60_000_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) if us < 1_000_000 => format!("{}ms", seconds(us * 1_000).trim_end_matches('s')),
        (0, 0) => seconds(us),
        (0, minutes) => format!("{minutes}m{}", seconds(rest)),
        (hours, minutes) => format!("{hours}h{minutes}m{}", seconds(rest)),
    }
}

/// The refusal a fault stands for; `None`: it is none of this kind.
pub(crate) fn fault(fault: Fault, model: &str, retry_delay_ms: u64) -> Option<Refusal> {
    let per_minute = quota(Counted::Requests, 60_000);
    let us = retry_delay_ms * 1_000;
    Some(match fault {
        Fault::RateFull => exhausted(model, per_minute, 1_000, us, Retry::Exact),
        Fault::RateTruncated => exhausted(model, per_minute, 1_000, us, Retry::Truncated),
        Fault::RateBare => {
            error(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota).", &json!([]))
        }
        Fault::DailyQuota => exhausted(model, quota(Counted::Requests, DAY_MS), 1_000, 6_776_400_000, Retry::Truncated),
        Fault::NoQuota => no_billing(),
        Fault::TooLarge => {
            invalid("The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).")
        }
        Fault::Refused => invalid(
            "Unable to process input image. Please retry or report in \
                                   https://developers.generativeai.google/guide/troubleshooting",
        ),
        Fault::Internal => error(
            500,
            "INTERNAL",
            "An internal error has occurred. Please retry or report in \
                                 https://developers.generativeai.google/guide/troubleshooting",
            &json!([]),
        ),
        Fault::Unavailable => error(503, "UNAVAILABLE", "The model is overloaded. Please try again later.", &json!([])),
        Fault::Deadline => {
            error(504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete.", &json!([]))
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::settings::Limit;

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (us, want) in [
            (174_000, "174ms"),
            (1_500, "1.5ms"),
            (1_681_228, "1.681228s"),
            (60_000_000, "1m0s"),
            (6_776_400_000, "1h52m56.4s"),
        ] {
            assert_eq!(go_duration(us), want);
        }
    }

    #[test]
    fn a_429_states_the_rate_per_minute_and_cuts_its_delay() {
        let limit = Limit { model: "*".into(), requests: Some(100), tokens: None, window_ms: 10_000, bare: false };
        let denied = Denied { limit, counted: Counted::Requests, used: 100, asked: 1, wait_us: Some(1_681_228) };
        let body: Value = serde_json::from_str(&over_limit("gemini-2.5-flash", &denied).body).unwrap();
        let error = &body["error"];
        assert!(error["message"].as_str().unwrap().ends_with("Please retry in 1.681228s."));
        assert_eq!(error["details"][1]["violations"][0]["quotaValue"], "600");
        assert_eq!(error["details"][2]["retryDelay"], "1s");
    }

    #[test]
    fn a_daily_limit_says_per_day() {
        let limit = Limit { model: "*".into(), requests: Some(5), tokens: None, window_ms: DAY_MS, bare: false };
        let denied = Denied { limit, counted: Counted::Requests, used: 5, asked: 1, wait_us: Some(6_776_400_000) };
        let refusal = over_limit("gemini-2.5-flash", &denied);
        assert!(refusal.body.contains("GenerateRequestsPerDayPerProjectPerModel"));
        assert!(refusal.body.contains("Please retry in 1h52m56.4s."));
    }
}

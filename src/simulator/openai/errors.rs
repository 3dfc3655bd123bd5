//! OpenAI's refusals, and vLLM's form of them (wire.md 2.2 and 2.4).

use serde_json::{Value, json};

use crate::simulator::answer::Refusal;
use crate::simulator::fault::Fault;
use crate::simulator::gemini::errors::go_duration;
use crate::simulator::settings::{DAY_MS, Flavour};
use crate::simulator::shape::Problem;
use crate::simulator::window::{Counted, Denied};

const LIMITS_PAGE: &str = "Visit https://platform.openai.com/account/rate-limits to learn more.";

fn error(
    status: u16,
    kind: &'static str,
    message: &str,
    family: &str,
    param: Option<&str>,
    code: Option<&str>,
) -> Refusal {
    let body = json!({ "error": { "message": message, "type": family, "param": param, "code": code } });
    Refusal { status, kind, headers: Vec::new(), body: format!("{body:#}\n") }
}

/// 400 invalid_request_error.
pub(crate) fn invalid(message: &str, param: Option<&str>, code: Option<&'static str>) -> Refusal {
    error(400, code.unwrap_or("invalid_request_error"), message, "invalid_request_error", param, code)
}

/// The same refusal as a vLLM server words it: the status as an integer code.
pub(crate) fn in_flavour(refusal: Refusal, flavour: Flavour) -> Refusal {
    if flavour == Flavour::Openai {
        return refusal;
    }
    let Ok(body) = serde_json::from_str::<Value>(&refusal.body) else { return refusal };
    let family = match refusal.status {
        400 => "BadRequestError",
        401 => "AuthenticationError",
        404 => "NotFoundError",
        429 => "RateLimitError",
        _ => "InternalServerError",
    };
    let message = &body["error"]["message"];
    let error = json!({ "message": message, "type": family, "param": null, "code": refusal.status });
    Refusal { headers: Vec::new(), body: json!({ "error": error }).to_string(), ..refusal }
}

/// 400 for a request whose JSON does not fit.
pub(crate) fn problem(problem: &Problem) -> Refusal {
    match problem {
        Problem::Unknown { path, name } => {
            let param = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            invalid(&format!("Unknown parameter: '{param}'."), Some(&param), Some("unknown_parameter"))
        }
        Problem::Type { path, wanted, got, .. } => {
            let text = format!("Invalid type for '{path}': expected {wanted}, but got {got} instead.");
            invalid(&text, Some(path), Some("invalid_type"))
        }
        Problem::Name { path, allowed, got } => {
            let quoted: Vec<String> = allowed.iter().map(|name| format!("'{name}'")).collect();
            let list = match quoted.split_last() {
                Some((last, rest)) if !rest.is_empty() => format!("{}, and {last}", rest.join(", ")),
                _ => quoted.join(""),
            };
            let text = format!("Invalid value: '{got}'. Supported values are: {list}.");
            invalid(&text, Some(path), Some("invalid_value"))
        }
    }
}

/// A parameter that must be there.
pub(crate) fn missing(param: &str) -> Refusal {
    invalid(&format!("Missing required parameter: '{param}'."), Some(param), Some("missing_required_parameter"))
}

/// No key at all.
pub(crate) fn no_key() -> Refusal {
    let text = "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth \
                (i.e. Authorization: Bearer YOUR_KEY). You can obtain an API key from \
                https://platform.openai.com/account/api-keys.";
    error(401, "no_api_key", text, "invalid_request_error", None, None)
}

/// A key that is not valid (any more). The real text shows the key's ends; this one shows none of it.
pub(crate) fn bad_key() -> Refusal {
    let text = "Incorrect API key provided: ********. You can find your API key at \
                https://platform.openai.com/account/api-keys.";
    error(401, "invalid_api_key", text, "invalid_request_error", None, Some("invalid_api_key"))
}

/// An account without money: no retry helps.
pub(crate) fn no_billing() -> Refusal {
    let text = "You exceeded your current quota, please check your plan and billing details. For more information on this \
                error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.";
    error(429, "insufficient_quota", text, "insufficient_quota", None, Some("insufficient_quota"))
}

/// An unknown model.
pub(crate) fn no_model(model: &str) -> Refusal {
    let text = format!("The model `{model}` does not exist or you do not have access to it.");
    error(404, "model_not_found", &text, "invalid_request_error", None, Some("model_not_found"))
}

/// An unknown address.
pub(crate) fn no_url(method: &str, path: &str) -> Refusal {
    error(404, "unknown_url", &format!("Invalid URL ({method} {path})"), "invalid_request_error", None, None)
}

/// A body over the limit.
pub(crate) fn too_large() -> Refusal {
    error(413, "too_large", "Request entity too large", "invalid_request_error", None, Some("request_too_large"))
}

fn rate(text: &str, counted: Counted, wait_us: Option<u64>) -> Refusal {
    let family = if counted == Counted::Requests { "requests" } else { "tokens" };
    let refusal = error(429, "rate_limit_exceeded", text, family, None, Some("rate_limit_exceeded"));
    let headers = wait_us.map_or_else(Vec::new, |us| {
        vec![("retry-after", us.div_ceil(1_000_000).to_string()), ("retry-after-ms", us.div_ceil(1_000).to_string())]
    });
    Refusal { headers, ..refusal }
}

/// What a limit is called.
fn unit(counted: Counted, window_ms: u64) -> &'static str {
    match (counted, window_ms >= DAY_MS) {
        (Counted::Requests, false) => "requests per min (RPM)",
        (Counted::Requests, true) => "requests per day (RPD)",
        (Counted::Tokens, false) => "tokens per min (TPM)",
        (Counted::Tokens, true) => "tokens per day (TPD)",
    }
}

/// The 429 of a limit; a request larger than the whole window is told so.
pub(crate) fn over_limit(model: &str, denied: &Denied) -> Refusal {
    let limit = &denied.limit;
    let most = match denied.counted {
        Counted::Requests => limit.requests,
        Counted::Tokens => limit.tokens,
    };
    let scale = if limit.window_ms >= DAY_MS { DAY_MS } else { 60_000 };
    let most = most.unwrap_or(0).saturating_mul(scale) / limit.window_ms.max(1);
    let unit = unit(denied.counted, limit.window_ms);
    let head = format!("for {model} in organization org-simulated on {unit}: Limit {most}");
    let (used, asked) = (denied.used, denied.asked);
    match denied.wait_us {
        Some(us) => {
            let wait = go_duration(us.div_ceil(1_000) * 1_000);
            let text = format!(
                "Rate limit reached {head}, Used {used}, Requested {asked}. Please try again in {wait}. {LIMITS_PAGE}"
            );
            rate(&text, denied.counted, Some(us))
        }
        None => rate(
            &format!(
                "Request too large {head}, Requested {asked}. The input or output tokens must be reduced in order to run \
                 successfully. {LIMITS_PAGE}"
            ),
            denied.counted,
            None,
        ),
    }
}

/// The refusal a fault stands for; `None`: it is none of this kind.
pub(crate) fn fault(fault: Fault, model: &str, retry_delay_ms: u64) -> Option<Refusal> {
    let us = retry_delay_ms * 1_000;
    let limited = |wait: &str| {
        format!(
            "Rate limit reached for {model} in organization org-simulated on requests per min (RPM): Limit 500, Used 500, \
             Requested 1. Please try again in {wait}. {LIMITS_PAGE}"
        )
    };
    Some(match fault {
        Fault::RateFull => rate(&limited(&go_duration(us)), Counted::Requests, Some(us)),
        Fault::RateBare => rate("Rate limit reached for requests", Counted::Requests, None),
        Fault::RateTruncated => {
            let refusal = rate(&limited(&go_duration(us)), Counted::Requests, None);
            Refusal { headers: vec![("retry-after", (us / 1_000_000).to_string())], ..refusal }
        }
        Fault::DailyQuota => {
            let wait_us = 6_776_400_000;
            let text = limited(&go_duration(wait_us)).replace("requests per min (RPM)", "requests per day (RPD)");
            rate(&text, Counted::Requests, Some(wait_us))
        }
        Fault::NoQuota => no_billing(),
        Fault::TooLarge => rate(
            &format!(
                "Request too large for {model} in organization org-simulated on tokens per min (TPM): Limit 30000, Requested \
                 40000. The input or output tokens must be reduced in order to run successfully. {LIMITS_PAGE}"
            ),
            Counted::Tokens,
            None,
        ),
        Fault::Refused => invalid(
            "You uploaded an unsupported image. Please make sure your image is valid.",
            None,
            Some("image_parse_error"),
        ),
        Fault::Internal => error(
            500,
            "server_error",
            "The server had an error while processing your request. Sorry about that!",
            "server_error",
            None,
            None,
        ),
        Fault::Unavailable => error(
            503,
            "overloaded",
            "The engine is currently overloaded, please try again later.",
            "service_unavailable_error",
            None,
            None,
        ),
        Fault::Deadline => error(504, "timeout", "Request timed out.", "server_error", None, None),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::settings::Limit;

    #[test]
    fn a_429_says_what_when_and_in_headers_too() {
        let limit = Limit { model: "*".into(), requests: None, tokens: Some(30_000), window_ms: 60_000, bare: false };
        let denied = Denied { limit, counted: Counted::Tokens, used: 14_567, asked: 24_754, wait_us: Some(18_641_200) };
        let refusal = over_limit("gpt-4o", &denied);
        assert!(refusal.body.contains(
            "on tokens per min (TPM): Limit 30000, Used 14567, Requested 24754. Please try again in 18.642s."
        ));
        assert_eq!(refusal.headers, [("retry-after", "19".to_owned()), ("retry-after-ms", "18642".to_owned())]);
        let never = over_limit("gpt-4o", &Denied { wait_us: None, ..denied });
        assert!(never.body.contains("Request too large for gpt-4o") && never.headers.is_empty());
    }

    #[test]
    fn vllm_codes_are_integers() {
        let refusal = in_flavour(no_model("x"), Flavour::Vllm);
        let body: Value = serde_json::from_str(&refusal.body).unwrap();
        assert_eq!(body["error"]["code"], 404);
    }
}

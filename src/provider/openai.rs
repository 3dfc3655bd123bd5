//! Chat completions, as OpenAI and the servers compatible with it speak it: a body builder and a reply parser, both pure.
//!
//! Only fields that every such server takes or ignores are sent, and none of a reply's fields is relied on. Two choices:
//! the maximum goes out as `max_tokens` (what older servers know; a server that ignored it would write without end) but
//! for OpenAI's reasoning models, which refuse it and take `max_completion_tokens`; both at once are refused by OpenAI. And a
//! prompt of one text is sent as a plain string, as templates of text-only models take no parts. OpenAI's official SDK and its
//! Responses API were rejected: the first retries what cannot succeed, the second is spoken by few other servers.

mod errors;
mod family;

use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use super::body::{Body, Composer};
use super::{Billed, CallError, Finish, Part, Reply, Request, Usage, VideoFrom, failure};

/// The path of a call below the endpoint's base URL.
pub const PATH: &str = "/chat/completions";

/// The most output tokens that can be billed for a request: the maximum that is sent, content and thinking together.
pub fn max_billed_output(request: &Request) -> u32 {
    family::plan(&request.model, request.params.thinking, request.params.max_output_tokens).maximum
}

/// The request body. Parts go out in the order of the request, which puts media first.
pub fn body(request: &Request) -> Body {
    let params = &request.params;
    let plan = family::plan(&request.model, params.thinking, params.max_output_tokens);
    let mut json = Composer::default();
    json.raw("{\"model\":").text(&request.model).raw(",\"messages\":[");
    if let Some(system) = request.system.as_deref().filter(|text| !text.trim().is_empty()) {
        json.raw("{\"role\":\"system\",\"content\":").text(system).raw("},");
    }
    json.raw("{\"role\":\"user\",\"content\":");
    content(&mut json, &request.parts);
    json.raw("}],").raw(if plan.reasons { "\"max_completion_tokens\":" } else { "\"max_tokens\":" });
    json.value(&json!(plan.maximum)).raw(",\"seed\":").value(&json!(params.seed));
    if let Some(effort) = plan.effort {
        json.raw(",\"reasoning_effort\":").text(effort);
    }
    if !plan.reasons {
        for (key, value) in [(",\"temperature\":", params.temperature), (",\"top_p\":", params.top_p)] {
            if let Some(value) = value.filter(|value| value.is_finite()) {
                json.raw(key).value(&json!(value));
            }
        }
    }
    if let Some(schema) = &request.schema {
        json.raw(",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":").text(schema.name);
        json.raw(",\"strict\":true,\"schema\":");
        in_order(&mut json, &schema.schema);
        json.raw("}}");
    }
    json.raw("}");
    json.finish()
}

fn content(json: &mut Composer, parts: &[Part]) {
    if let [Part::Text(text)] = parts {
        json.text(text);
        return;
    }
    json.raw("[");
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            json.raw(",");
        }
        match part {
            Part::Text(text) => {
                json.raw("{\"type\":\"text\",\"text\":").text(text).raw("}");
            }
            Part::Image { blob, .. } => {
                let head = Value::from(format!("data:{};base64,", blob.mime)).to_string();
                json.raw("{\"type\":\"image_url\",\"image_url\":{\"url\":").json(head.trim_end_matches('"'));
                json.base64(&blob.base64).raw("\",\"detail\":\"auto\"}}");
            }
            Part::Video { from: VideoFrom::Inline(base64), mime, .. } => {
                let head = Value::from(format!("data:{mime};base64,")).to_string();
                json.raw("{\"type\":\"video_url\",\"video_url\":{\"url\":").json(head.trim_end_matches('"'));
                json.base64(base64).raw("\"}}");
            }
            Part::Video { from: VideoFrom::Uri(uri), .. } => {
                json.raw("{\"type\":\"video_url\",\"video_url\":{\"url\":").text(uri).raw("}}");
            }
            // Never sent so: the caller hands clips over first.
            Part::Video { from: VideoFrom::Clip(_), .. } => {
                json.raw("{\"type\":\"text\",\"text\":\"\"}");
            }
            Part::Audio { blob, .. } => {
                json.raw("{\"type\":\"input_audio\",\"input_audio\":{\"data\":\"").base64(&blob.base64);
                json.raw("\",\"format\":").text(audio_format(blob.mime)).raw("}}");
            }
        }
    }
    json.raw("]");
}

/// The protocol knows two formats of sound; our own preparation makes `audio/wav`.
fn audio_format(mime: &str) -> &'static str {
    if matches!(mime, "audio/mpeg" | "audio/mp3") { "mp3" } else { "wav" }
}

/// A schema with its properties in the order of `required`: a model writes them in the order it is shown, a JSON object
/// here keeps none, and an answer that comes before its reasons is worse.
fn in_order(json: &mut Composer, schema: &Value) {
    let Some(object) = schema.as_object() else {
        json.value(schema);
        return;
    };
    json.raw("{");
    for (index, (key, value)) in object.iter().enumerate() {
        if index > 0 {
            json.raw(",");
        }
        json.text(key).raw(":");
        match (key.as_str(), value.as_object()) {
            ("properties", Some(properties)) => {
                let rank = |name: &str| {
                    let order = object.get("required").and_then(Value::as_array);
                    order.and_then(|order| order.iter().position(|entry| entry == name)).unwrap_or(usize::MAX)
                };
                let mut sorted: Vec<_> = properties.iter().collect();
                sorted.sort_by_key(|(name, _)| rank(name));
                json.raw("{");
                for (index, (name, property)) in sorted.into_iter().enumerate() {
                    if index > 0 {
                        json.raw(",");
                    }
                    json.text(name).raw(":");
                    in_order(json, property);
                }
                json.raw("}");
            }
            _ => in_order(json, value),
        }
    }
    json.raw("}");
}

/// The reply or the failure in an answer. `latency_ms` is left 0 for the transport to fill.
///
/// `headers` are read for hints when to come back. Errors: [`CallError`] for every status but 2xx, by the table in
/// `errors`; for a 2xx that is no reply at all, `Unavailable` with the bill unknown; for an error inside a 2xx, as
/// gateways send it, that error with the bill unknown.
pub fn parse(status: u16, headers: &HeaderMap, bytes: &[u8]) -> Result<Reply, CallError> {
    let answer = failure::json(bytes);
    if !(200..300).contains(&status) {
        return Err(errors::classify(status, headers, answer.as_ref(), bytes));
    }
    let Some(answer) = answer else {
        return Err(failure::unreadable(status, bytes));
    };
    if answer["choices"].is_array() || answer["usage"].is_object() {
        return Ok(reply(&answer));
    }
    match errors::code_inside(&answer) {
        Some(code) => {
            Err(CallError { billed: Billed::Unknown, ..errors::classify(code, headers, Some(&answer), bytes) })
        }
        None => Err(failure::unreadable(status, bytes)),
    }
}

fn reply(answer: &Value) -> Reply {
    let choice = &answer["choices"][0];
    let text = without_thoughts(text(&choice["message"]["content"]));
    Reply {
        finish: finish(choice, !text.trim().is_empty()),
        text,
        usage: usage(&answer["usage"]),
        model_version: failure::named(answer, "model"),
        response_id: failure::named(answer, "id"),
        latency_ms: 0,
    }
}

/// Content is a string, null, or a list of parts.
fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            parts.iter().filter_map(|part| part.as_str().or_else(|| part["text"].as_str())).collect()
        }
        _ => String::new(),
    }
}

/// Servers without a reasoning parser leave a model's thoughts in the text, in front and in `<think>` tags.
fn without_thoughts(text: String) -> String {
    match text.trim_start().strip_prefix("<think>").and_then(|rest| rest.split_once("</think>")) {
        Some((_, answer)) => answer.trim_start().to_owned(),
        None => text,
    }
}

fn finish(choice: &Value, has_text: bool) -> Finish {
    if failure::named(&choice["message"], "refusal").is_some() {
        return Finish::Blocked("refusal".to_owned());
    }
    let done = if has_text { Finish::Stop } else { Finish::Empty };
    match failure::named(choice, "finish_reason") {
        None => done,
        Some(reason) if reason == "stop" => done,
        Some(reason) if reason == "length" => Finish::Truncated,
        Some(reason) if reason.starts_with("content_filter") => Finish::Blocked(reason),
        Some(reason) => Finish::Other(reason),
    }
}

/// Reasoning is part of `completion_tokens` at OpenAI; where a server leaves it out there but counts it into the total (Gemini's
/// compatible endpoint does), the difference is output: a bound on money may not trust the smaller figure.
fn usage(report: &Value) -> Usage {
    let count = |key| failure::count(report, key);
    let input_tokens = count("prompt_tokens");
    Usage {
        input_tokens,
        cached_tokens: failure::count(&report["prompt_tokens_details"], "cached_tokens"),
        audio_tokens: failure::count(&report["prompt_tokens_details"], "audio_tokens"),
        output_tokens: count("completion_tokens").max(count("total_tokens").saturating_sub(input_tokens)),
        thinking_tokens: failure::count(&report["completion_tokens_details"], "reasoning_tokens"),
    }
}

#[cfg(test)]
mod tests;

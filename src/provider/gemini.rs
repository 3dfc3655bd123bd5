//! The Gemini API's `generateContent`: a body builder and a reply parser, both pure.
//!
//! Shapes and names are those of the REST reference and of the official SDK's source (google-genai 1.47 to 3.4). A reply
//! with status 200 is always a [`Reply`], since it was paid for: blocked prompts, candidates without content and thinking
//! that ate the whole maximum are outcomes, not errors. `responseSchema` was chosen over `responseJsonSchema`: every model
//! and both API versions take it, the other is refused by older ones (see [`schema`]). Streaming was rejected: it has no
//! use for a reply that must be whole to be parsed, and hides the usage report in its last event.

mod errors;
pub mod files;
mod schema;
mod thinking;

pub use thinking::thinking_plan;

use bytes::Bytes;
use reqwest::header::HeaderMap;
use serde_json::{Map, Value, json};

use super::body::{Body, Composer};
use super::{CallError, Endpoint, Finish, Part, Reply, Request, Usage, VideoFrom, failure};

/// The path of a call below the endpoint's base URL.
///
/// A model may be written with its collection (`models/...`, `tunedModels/...`); `models/` is the default.
pub fn path(endpoint: &Endpoint, model: &str) -> String {
    let collection = if model.starts_with("models/") || model.starts_with("tunedModels/") { "" } else { "models/" };
    let mut name = String::new();
    for byte in model.bytes() {
        match byte {
            b'/' if collection.is_empty() => name.push('/'),
            b'-' | b'_' | b'.' | b'~' => name.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => name.push(char::from(byte)),
            _ => name.extend(format!("%{byte:02X}").chars()),
        }
    }
    format!("/{}/{collection}{name}:generateContent", endpoint.api_version)
}

/// The most output tokens that can be billed for a request: the maximum that is sent, content and thinking together.
pub fn max_billed_output(request: &Request) -> u32 {
    thinking_plan(&request.model, request.params.thinking, request.params.max_output_tokens).1
}

/// The request body. Parts go out in the order of the request, which puts media first.
pub fn body(request: &Request) -> Body {
    let mut json = Composer::default();
    json.raw("{");
    if let Some(system) = request.system.as_deref().filter(|text| !text.trim().is_empty()) {
        json.raw("\"systemInstruction\":{\"parts\":[{\"text\":").text(system).raw("}]},");
    }
    json.raw("\"contents\":[{\"role\":\"user\",\"parts\":[");
    for (index, part) in request.parts.iter().enumerate() {
        if index > 0 {
            json.raw(",");
        }
        match part {
            Part::Text(text) => {
                json.raw("{\"text\":").text(text).raw("}");
            }
            Part::Image { blob, .. } | Part::Audio { blob, .. } => inline(&mut json, blob.mime, &blob.base64),
            Part::Video { from: VideoFrom::Inline(base64), mime, .. } => inline(&mut json, mime, base64),
            Part::Video { from: VideoFrom::Uri(uri), mime, .. } => {
                json.raw("{\"fileData\":{\"mimeType\":").text(mime).raw(",\"fileUri\":").text(uri).raw("}}");
            }
            // Never sent so: the caller hands clips over first.
            Part::Video { from: VideoFrom::Clip(_), .. } => {
                json.raw("{\"text\":\"\"}");
            }
        }
    }
    json.raw("]}],\"generationConfig\":").value(&generation_config(request)).raw("}");
    json.finish()
}

fn inline(json: &mut Composer, mime: &str, base64: &Bytes) {
    json.raw("{\"inlineData\":{\"mimeType\":").text(mime).raw(",\"data\":\"").base64(base64).raw("\"}}");
}

/// `candidateCount` is left out: its default is 1, and some models refuse the field.
fn generation_config(request: &Request) -> Value {
    let params = &request.params;
    let (thinking, maximum) = thinking_plan(&request.model, params.thinking, params.max_output_tokens);
    let mut config = Map::new();
    let mut set = |key: &str, value: Value| {
        if !value.is_null() {
            config.insert(key.to_owned(), value);
        }
    };
    set("temperature", json!(params.temperature));
    set("topP", json!(params.top_p));
    set("maxOutputTokens", json!(maximum));
    set("seed", json!(params.seed & 0x7fff_ffff));
    set("thinkingConfig", json!(thinking));
    if let Some(schema) = &request.schema {
        set("responseMimeType", json!("application/json"));
        set("responseSchema", schema::openapi(&schema.schema));
    }
    Value::Object(config)
}

/// The reply or the failure in an answer. `latency_ms` is left 0 for the transport to fill.
///
/// `headers` are read for hints when to come back. Errors: [`CallError`] for every status but 2xx, by the table in
/// `errors`; for a 2xx that is no reply at all, `Unavailable` with the bill unknown; for an error inside a 2xx, that error
/// with the bill unknown.
pub fn parse(status: u16, headers: &HeaderMap, bytes: &[u8]) -> Result<Reply, CallError> {
    let answer = failure::json(bytes);
    if !(200..300).contains(&status) {
        return Err(errors::classify(status, headers, answer.as_ref(), bytes));
    }
    let Some(answer) = answer else {
        return Err(failure::unreadable(status, bytes));
    };
    let is_reply =
        ["candidates", "promptFeedback", "usageMetadata", "responseId"].iter().any(|key| !answer[key].is_null());
    if is_reply {
        return Ok(reply(&answer));
    }
    match answer["error"]["code"].as_u64().and_then(|code| u16::try_from(code).ok()) {
        Some(code) if code >= 400 => {
            let error = errors::classify(code, headers, Some(&answer), bytes);
            Err(CallError { billed: super::Billed::Unknown, ..error })
        }
        _ => Err(failure::unreadable(status, bytes)),
    }
}

fn reply(answer: &Value) -> Reply {
    let candidate = &answer["candidates"][0];
    let text = text(&candidate["content"]["parts"]);
    Reply {
        finish: finish(candidate, &answer["promptFeedback"], !text.trim().is_empty()),
        text,
        usage: usage(&answer["usageMetadata"]),
        model_version: failure::named(answer, "modelVersion"),
        response_id: failure::named(answer, "responseId"),
        latency_ms: 0,
    }
}

/// The text of all parts that are not thoughts.
fn text(parts: &Value) -> String {
    let parts = parts.as_array().map(Vec::as_slice).unwrap_or_default();
    parts.iter().filter(|part| part["thought"] != Value::Bool(true)).filter_map(|part| part["text"].as_str()).collect()
}

fn finish(candidate: &Value, feedback: &Value, has_text: bool) -> Finish {
    let done = if has_text { Finish::Stop } else { Finish::Empty };
    if let Some(reason) = failure::named(candidate, "finishReason") {
        return match reason.as_str() {
            "STOP" => done,
            "MAX_TOKENS" => Finish::Truncated,
            _ if is_block(&reason) => Finish::Blocked(reason),
            _ => Finish::Other(reason),
        };
    }
    match failure::named(feedback, "blockReason") {
        Some(reason) if !has_text && reason != "BLOCK_REASON_UNSPECIFIED" => Finish::Blocked(reason),
        _ => done,
    }
}

/// Finish reasons by which a filter took the answer; the others are the model's own ends or failures.
fn is_block(reason: &str) -> bool {
    matches!(
        reason,
        "SAFETY"
            | "RECITATION"
            | "BLOCKLIST"
            | "PROHIBITED_CONTENT"
            | "SPII"
            | "IMAGE_SAFETY"
            | "IMAGE_PROHIBITED_CONTENT"
            | "IMAGE_RECITATION"
            | "MODEL_ARMOR"
            | "JAILBREAK"
    )
}

/// Thoughts are billed as output and reported beside the candidates. Where the total says more than the parts, as it
/// does when a part is left out, the difference is output too: a bound on money may not trust the smaller figure.
fn usage(report: &Value) -> Usage {
    let count = |key| failure::count(report, key);
    let input_tokens = count("promptTokenCount").saturating_add(count("toolUsePromptTokenCount"));
    let thinking_tokens = count("thoughtsTokenCount");
    let output = count("candidatesTokenCount").saturating_add(thinking_tokens);
    let details = report["promptTokensDetails"].as_array().map(Vec::as_slice).unwrap_or_default();
    Usage {
        input_tokens,
        cached_tokens: count("cachedContentTokenCount"),
        audio_tokens: details
            .iter()
            .filter(|detail| detail["modality"] == "AUDIO")
            .fold(0, |sum, detail| sum.saturating_add(failure::count(detail, "tokenCount"))),
        output_tokens: output.max(count("totalTokenCount").saturating_sub(input_tokens)),
        thinking_tokens,
    }
}

#[cfg(test)]
mod tests;

//! Answers in the form of a chat completion, whole or in chunks.

use serde_json::{Value, json};

use crate::simulator::answer::{Answer, Call, End};
use crate::simulator::gemini::reply::pieces;
use crate::simulator::settings::Flavour;

fn usage(answer: &Answer, flavour: Flavour) -> Value {
    let prompt = answer.prompt.total();
    let completion = answer.output + answer.thoughts;
    let mut usage =
        json!({ "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion });
    if flavour == Flavour::Openai {
        let (audio, image) = (answer.prompt.audio, answer.prompt.image);
        usage["prompt_tokens_details"] = json!({ "cached_tokens": 0, "audio_tokens": audio, "image_tokens": image });
        usage["completion_tokens_details"] = json!({
            "reasoning_tokens": answer.thoughts, "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
        });
    } else {
        usage["prompt_tokens_details"] = Value::Null;
    }
    usage
}

fn finish(end: End) -> &'static str {
    match end {
        End::Stop | End::Empty | End::Blocked | End::NoCandidates => "stop",
        End::Length | End::EmptyLength => "length",
        End::Safety | End::Recitation => "content_filter",
        End::Unknown => "cosmic_ray",
    }
}

/// Content and refusal.
fn said(answer: &Answer) -> (Value, Value) {
    match answer.end {
        End::Safety | End::Recitation => (Value::Null, Value::Null),
        End::Blocked => (Value::Null, "I'm sorry, I can't assist with that request.".into()),
        _ => (answer.text.as_str().into(), Value::Null),
    }
}

fn head(object: &str, call: &Call, id: u128, flavour: Flavour) -> Value {
    // A creation time drawn from the request keeps the same reply the same, byte for byte.
    let created = 1_780_000_000 + u64::try_from(id % 10_000_000).unwrap_or(0);
    let mut head = json!({
        "id": format!("chatcmpl-{:029x}", id >> 12), "object": object, "created": created, "model": call.model.name,
    });
    if flavour == Flavour::Openai {
        head["service_tier"] = "default".into();
        head["system_fingerprint"] = "fp_5133a70b1e".into();
    }
    head
}

/// The response body.
pub(crate) fn body(answer: &Answer, call: &Call, id: u128, flavour: Flavour) -> Value {
    let mut body = head("chat.completion", call, id, flavour);
    let (content, refusal) = said(answer);
    body["choices"] = if answer.end == End::NoCandidates {
        json!([])
    } else {
        let message = json!({ "role": "assistant", "content": content, "refusal": refusal, "annotations": [] });
        json!([{ "index": 0, "message": message, "logprobs": null, "finish_reason": finish(answer.end) }])
    };
    body["usage"] = usage(answer, flavour);
    body
}

/// The chunks of a stream: role, text in pieces, finish reason, and the usage if it was asked for.
pub(crate) fn chunks(answer: &Answer, call: &Call, id: u128, flavour: Flavour) -> Vec<Value> {
    let chunk = |choices: Value| {
        let mut chunk = head("chat.completion.chunk", call, id, flavour);
        chunk["choices"] = choices;
        chunk
    };
    let delta = |delta: Value, finish: Value| json!([{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish }]);
    let (content, refusal) = said(answer);
    let mut all = Vec::new();
    if answer.end != End::NoCandidates {
        all.push(chunk(delta(json!({ "role": "assistant", "content": "", "refusal": null }), Value::Null)));
        for piece in pieces(content.as_str().unwrap_or_default()) {
            all.push(chunk(delta(json!({ "content": piece }), Value::Null)));
        }
        if refusal.is_string() {
            all.push(chunk(delta(json!({ "refusal": refusal }), Value::Null)));
        }
        all.push(chunk(delta(json!({}), finish(answer.end).into())));
    }
    if call.stream_usage {
        let mut last = chunk(json!([]));
        last["usage"] = usage(answer, flavour);
        all.push(last);
    }
    all
}

/// The list of models, or one of them.
pub(crate) fn model(name: &str) -> Value {
    json!({ "id": name, "object": "model", "created": 1_780_000_000, "owned_by": "system" })
}

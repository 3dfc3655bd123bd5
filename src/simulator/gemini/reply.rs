//! Answers in the form of a `GenerateContentResponse`.

use serde_json::{Value, json};

use crate::simulator::answer::{Answer, End};
use crate::simulator::models::PromptTokens;

fn details(prompt: PromptTokens) -> Value {
    let all = [
        ("TEXT", prompt.text),
        ("IMAGE", prompt.image),
        ("AUDIO", prompt.audio),
        ("VIDEO", prompt.video),
        ("DOCUMENT", prompt.document),
    ];
    let some = all.iter().filter(|(_, count)| *count > 0);
    some.map(|(modality, count)| json!({ "modality": modality, "tokenCount": count })).collect()
}

fn usage(answer: &Answer) -> Value {
    let prompt = answer.prompt.total();
    let mut usage = json!({
        "promptTokenCount": prompt,
        "totalTokenCount": prompt + answer.output + answer.thoughts,
        "promptTokensDetails": details(answer.prompt),
    });
    if answer.output > 0 {
        usage["candidatesTokenCount"] = answer.output.into();
    }
    if answer.thoughts > 0 {
        usage["thoughtsTokenCount"] = answer.thoughts.into();
    }
    usage
}

fn finish(end: End) -> &'static str {
    match end {
        End::Stop | End::Empty | End::Blocked | End::NoCandidates => "STOP",
        End::Length | End::EmptyLength => "MAX_TOKENS",
        End::Safety => "SAFETY",
        End::Recitation => "RECITATION",
        End::Unknown => "COSMIC_RAY",
    }
}

fn ratings(end: End) -> Value {
    let categories = ["HARASSMENT", "HATE_SPEECH", "SEXUALLY_EXPLICIT", "DANGEROUS_CONTENT"];
    let rate = |(at, name): (usize, &&str)| {
        let blocked = end == End::Safety && at == 3;
        let mut rating = json!({ "category": format!("HARM_CATEGORY_{name}"),
                                 "probability": if blocked { "HIGH" } else { "NEGLIGIBLE" } });
        if blocked {
            rating["blocked"] = true.into();
        }
        rating
    };
    categories.iter().enumerate().map(rate).collect()
}

/// The response body.
pub(crate) fn body(answer: &Answer, model: &str, id: u128) -> Value {
    let mut body = json!({
        "usageMetadata": usage(answer),
        "modelVersion": model,
        "responseId": format!("{:022x}", id >> 40),
    });
    match answer.end {
        End::Blocked => body["promptFeedback"] = json!({ "blockReason": "PROHIBITED_CONTENT" }),
        End::NoCandidates => {}
        end => {
            let mut candidate = json!({ "finishReason": finish(end), "index": 0 });
            match end {
                End::Safety => candidate["safetyRatings"] = ratings(end),
                End::Recitation => {}
                End::Empty | End::EmptyLength | End::Unknown => candidate["content"] = json!({ "role": "model" }),
                _ => candidate["content"] = json!({ "role": "model", "parts": [{ "text": answer.text }] }),
            }
            body["candidates"] = json!([candidate]);
        }
    }
    body
}

/// The same response as a stream sends it: the text in three pieces, finish reason and usage with the last.
pub(crate) fn chunks(answer: &Answer, model: &str, id: u128) -> Vec<Value> {
    let whole = body(answer, model, id);
    if !matches!(answer.end, End::Stop | End::Length) || answer.text.is_empty() {
        return vec![whole];
    }
    let pieces = pieces(&answer.text);
    let last = pieces.len() - 1;
    let chunk = |(at, piece): (usize, String)| {
        let mut chunk = whole.clone();
        chunk["candidates"][0]["content"]["parts"][0]["text"] = piece.into();
        if at < last {
            if let Some(candidate) = chunk["candidates"][0].as_object_mut() {
                candidate.remove("finishReason");
            }
            chunk["usageMetadata"] = json!({ "promptTokenCount": answer.prompt.total() });
        }
        chunk
    };
    pieces.into_iter().enumerate().map(chunk).collect()
}

/// A text in at most three pieces of whole characters.
pub(crate) fn pieces(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    chars.chunks(chars.len().div_ceil(3).max(1)).map(|piece| piece.iter().collect()).collect()
}

/// The answer to `countTokens`.
pub(crate) fn count(prompt: PromptTokens) -> Value {
    json!({ "totalTokens": prompt.total(), "promptTokensDetails": details(prompt) })
}

//! The OpenAI side: chat completions, in OpenAI's own strictness or a vLLM server's leniency.

pub(crate) mod errors;
pub(crate) mod reply;
mod shapes;

use serde_json::Value;

use super::answer::{Call, Delivery, Refusal, Thinking};
use super::blob::{self, BadBlob, Detail, Kind, Look, Medium};
use super::models::{self, Model};
use super::settings::{Flavour, Settings};
use super::shape::{self, Json, Names, Problem, clip};
use crate::provider::Protocol;
use errors::{invalid, missing};

/// Reads a chat completion request.
pub(crate) fn parse(body: &[u8], settings: &Settings) -> Result<Call, Refusal> {
    let json: Json<'_> = serde_json::from_slice(body).map_err(|error| {
        let text = "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP \
                    library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.";
        invalid(&format!("{text} {error})"), None, None)
    })?;
    let lenient = settings.openai_flavour == Flavour::Vllm;
    let names = if lenient { Names::Lenient } else { Names::Exact };
    shape::check(&json, &shapes::CHAT, names).map_err(|problem| errors::problem(&own_kinds(problem)))?;
    let name = json.text("model").filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| invalid("you must provide a model parameter", None, None))?;
    let model = find_model(name, settings).ok_or_else(|| errors::no_model(&clip(name)))?;
    let (texts, media) = messages(&json, &model, settings)?;
    let text = texts.join("\n");
    let (schema, wants_json) = if lenient { (None, false) } else { reply_format(&json, &text)? };
    if json.int("n").is_some_and(|n| n != 1) {
        return Err(invalid(
            "Invalid value for 'n': the simulator answers with one choice.",
            Some("n"),
            Some("invalid_value"),
        ));
    }
    let max_output = maximum(&json, &model, lenient)?;
    let effort = json.text("reasoning_effort");
    let streams = matches!(json.get("stream"), Some(Json::Bool(true)));
    let options = json.get("stream_options");
    if options.is_some() && !streams {
        let text = "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
        return Err(invalid(text, Some("stream_options"), None));
    }
    Ok(Call {
        model,
        text,
        media,
        wants_json,
        schema,
        max_output,
        thinking: if matches!(effort, Some("none" | "minimal")) { Thinking::Off } else { Thinking::On },
        delivery: if streams { Delivery::Events } else { Delivery::Whole },
        stream_usage: options.is_some_and(|options| matches!(options.get("include_usage"), Some(Json::Bool(true)))),
    })
}

/// The kinds of part that a compatible server adds are none that api.openai.com names.
fn own_kinds(problem: Problem) -> Problem {
    match problem {
        Problem::Name { path, allowed: shapes::KINDS, got } => Problem::Name { path, allowed: shapes::OWN_KINDS, got },
        problem => problem,
    }
}

/// A vLLM server plays any model; one it has no price for is free.
fn find_model(name: &str, settings: &Settings) -> Option<Model> {
    models::find(&settings.models, Protocol::Openai, name).or_else(|| {
        (settings.openai_flavour == Flavour::Vllm).then(|| Model {
            name: name.to_owned(),
            protocol: Protocol::Openai,
            input: 0,
            audio: 0,
            output: 0,
            long_from: 0,
            long_input: 0,
            long_output: 0,
            video: true,
        })
    })
}

fn messages(json: &Json<'_>, model: &Model, settings: &Settings) -> Result<(Vec<String>, Vec<Medium>), Refusal> {
    let Some(Json::List(messages)) = json.get("messages") else { return Err(missing("messages")) };
    if messages.is_empty() {
        let text =
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.";
        return Err(invalid(text, Some("messages"), Some("empty_array")));
    }
    let (mut texts, mut media) = (Vec::new(), Vec::new());
    for (at, message) in messages.iter().enumerate() {
        let place = format!("messages[{at}]");
        let role = message.text("role").ok_or_else(|| missing(&format!("{place}.role")))?;
        match message.get("content") {
            Some(Json::Text(text)) => texts.push(text.to_string()),
            Some(Json::List(parts)) if !parts.is_empty() => {
                for (at, part) in parts.iter().enumerate() {
                    let place = format!("{place}.content[{at}]");
                    content_part(part, &place, role, model, settings, &mut texts, &mut media)?;
                }
            }
            None if role == "assistant" => {}
            _ => {
                let param = format!("{place}.content");
                let text = format!("Invalid value for 'content': expected a string, got null. ({param})");
                return Err(invalid(&text, Some(&param), None));
            }
        }
    }
    Ok((texts, media))
}

fn content_part(
    part: &Json<'_>,
    place: &str,
    role: &str,
    model: &Model,
    settings: &Settings,
    texts: &mut Vec<String>,
    media: &mut Vec<Medium>,
) -> Result<(), Refusal> {
    let kind = part.text("type").ok_or_else(|| missing(&format!("{place}.type")))?;
    let body = part.get(kind).ok_or_else(|| missing(&format!("{place}.{kind}")))?;
    if kind != "text" && kind != "refusal" && role != "user" {
        let text = format!("Invalid '{place}': content type '{kind}' is only supported in user messages.");
        return Err(invalid(&text, Some(place), Some("invalid_value")));
    }
    match kind {
        "image_url" => {
            let url = body.text("url").ok_or_else(|| missing(&format!("{place}.image_url.url")))?;
            media.push(image(url, body.text("detail"), place, model, settings)?);
        }
        "input_audio" => {
            if !model.hears() && settings.openai_flavour == Flavour::Openai {
                let text = "Invalid content type. input_audio is only supported by models with audio input.";
                return Err(invalid(text, Some(place), None));
            }
            let (data, format) = (body.text("data"), body.text("format"));
            let data = data.ok_or_else(|| missing(&format!("{place}.input_audio.data")))?;
            let format = format.ok_or_else(|| missing(&format!("{place}.input_audio.format")))?;
            media.push(audio(data, format, model, settings)?);
        }
        "video_url" | "audio_url" => {
            if !model.video && settings.openai_flavour == Flavour::Openai {
                let path = format!("{place}.type");
                let problem = Problem::Name { path, allowed: shapes::OWN_KINDS, got: kind.to_owned() };
                return Err(errors::problem(&problem));
            }
            let url = body.text("url").ok_or_else(|| missing(&format!("{place}.{kind}.url")))?;
            let of = if kind == "video_url" { Kind::Video } else { Kind::Audio };
            let read = blob::read_url(model, of, url, settings.trust_media);
            media.push(read.map_err(|_| invalid(&format!("Invalid '{kind}': {}", clip(url)), Some(place), None))?);
        }
        "file" => {
            let text = "The simulator keeps no files; send images and sound inline.";
            return Err(invalid(text, Some(place), Some("file_not_found")));
        }
        _ => texts.push(body.as_text().unwrap_or_default().to_owned()),
    }
    Ok(())
}

fn image(url: &str, detail: Option<&str>, place: &str, model: &Model, settings: &Settings) -> Result<Medium, Refusal> {
    let param = format!("{place}.image_url.url");
    let bad = |text: &str, code| invalid(text, Some(&param), Some(code));
    let Some(rest) = url.strip_prefix("data:") else {
        let url = clip(url);
        return Err(bad(&format!("Error while downloading {url}."), "invalid_image_url"));
    };
    let (mime, data) = rest.split_once(";base64,").ok_or_else(|| {
        bad("Invalid image_url: expected a base64-encoded data URL with an image MIME type.", "invalid_image_url")
    })?;
    let detail = if detail == Some("low") { Detail::Low } else { Detail::Default };
    blob::read(model, mime, data, Look { detail, ..Look::default() }, settings.trust_media).map_err(|found| match found
    {
        BadBlob::Base64 => bad("Invalid base64 image_url.", "invalid_base64"),
        BadBlob::Mime => bad(
            "You uploaded an unsupported image. Please make sure your image has of one the following formats: ['png', \
             'jpeg', 'gif', 'webp'].",
            "invalid_image_format",
        ),
        BadBlob::Content(_) => bad("The image data you provided does not represent a valid image.", "invalid_image"),
    })
}

fn audio(data: &str, format: &str, model: &Model, settings: &Settings) -> Result<Medium, Refusal> {
    let mime = if format == "wav" { "audio/wav" } else { "audio/mp3" };
    blob::read(model, mime, data, Look::default(), settings.trust_media).map_err(|found| match found {
        BadBlob::Base64 => invalid("Invalid base64 in input_audio.", Some("messages"), Some("invalid_base64")),
        BadBlob::Mime | BadBlob::Content(_) => {
            let text = format!(
                "The data provided for 'input_audio' is not of valid {format} format. Please provide valid {format} data."
            );
            invalid(&text, Some("messages"), Some("invalid_value"))
        }
    })
}

/// The reply schema, and whether JSON is asked for. Strict schemas need every property and nothing else.
fn reply_format(json: &Json<'_>, text: &str) -> Result<(Option<Value>, bool), Refusal> {
    let Some(format) = json.get("response_format") else { return Ok((None, false)) };
    match format.text("type") {
        Some("json_object") if !text.to_ascii_lowercase().contains("json") => {
            let text =
                "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.";
            Err(invalid(text, Some("messages"), None))
        }
        Some("json_object") => Ok((None, true)),
        Some("json_schema") => {
            let body = format.get("json_schema").ok_or_else(|| missing("response_format.json_schema"))?;
            let name = body.text("name").ok_or_else(|| missing("response_format.json_schema.name"))?;
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
                let param = "response_format.json_schema.name";
                let text = format!(
                    "Invalid '{param}': string does not match pattern. Expected a string that matches the \
                                    pattern '^[a-zA-Z0-9_-]+$'."
                );
                return Err(invalid(&text, Some(param), Some("invalid_value")));
            }
            let schema = body.get("schema").ok_or_else(|| missing("response_format.json_schema.schema"))?.to_value();
            if matches!(body.get("strict"), Some(Json::Bool(true))) {
                strict(&schema, &mut Vec::new()).map_err(|text| {
                    let text = format!("Invalid schema for response_format '{name}': {text}");
                    invalid(&text, Some("response_format"), None)
                })?;
            }
            Ok((Some(schema), true))
        }
        Some(_) => Ok((None, false)),
        None => Err(missing("response_format.type")),
    }
}

fn strict(schema: &Value, place: &mut Vec<String>) -> Result<(), String> {
    if schema["type"] == "object" {
        let quoted: Vec<String> = place.iter().map(|name| format!("'{name}'")).collect();
        let context = format!("In context=({})", quoted.join(", "));
        if schema["additionalProperties"] != false {
            return Err(format!("{context}, 'additionalProperties' is required to be supplied and to be false."));
        }
        let required = schema["required"].as_array();
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            if !required.is_some_and(|list| list.iter().any(|item| item == name)) {
                return Err(format!(
                    "{context}, 'required' is required to be supplied and to be an array including every key in \
                     properties. Missing '{name}'."
                ));
            }
            place.extend(["properties".to_owned(), name.clone()]);
            strict(inner, place)?;
            place.truncate(place.len() - 2);
        }
    }
    if let Some(items) = schema.get("items") {
        place.push("items".to_owned());
        strict(items, place)?;
        place.pop();
    }
    Ok(())
}

/// The output maximum, and the rules for reasoning models: no `max_tokens`, no temperature but 1.
fn maximum(json: &Json<'_>, model: &Model, lenient: bool) -> Result<Option<u64>, Refusal> {
    let (old, new) = (json.int("max_tokens"), json.int("max_completion_tokens"));
    if model.reasons() && !lenient {
        if old.is_some() {
            let text = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' \
                        instead.";
            return Err(invalid(text, Some("max_tokens"), Some("unsupported_parameter")));
        }
        if let Some(value) = json.number("temperature").filter(|value| (value - 1.0).abs() > f64::EPSILON) {
            let text = format!(
                "Unsupported value: 'temperature' does not support {value} with this model. Only the default (1) value is \
                 supported."
            );
            return Err(invalid(&text, Some("temperature"), Some("unsupported_value")));
        }
    }
    if let Some(value) = json.number("temperature").filter(|value| !(0.0..=2.0).contains(value)) {
        let text = format!(
            "Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got {value} instead."
        );
        return Err(invalid(&text, Some("temperature"), Some("decimal_above_max_value")));
    }
    if old.is_some() && new.is_some() {
        let text = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.";
        return Err(invalid(text, None, Some("invalid_parameter_combination")));
    }
    let (name, most) = if old.is_some() { ("max_tokens", old) } else { ("max_completion_tokens", new) };
    match most {
        Some(most @ ..1) => {
            let text = format!(
                "Invalid '{name}': integer below minimum value. Expected a value >= 1, but got {most} instead."
            );
            Err(invalid(&text, Some(name), Some("integer_below_min_value")))
        }
        Some(most) => Ok(Some(most.unsigned_abs())),
        None => Ok(None),
    }
}

//! The Gemini side: what it takes, and in which words it refuses.
//!
//! Checks are made in the order the real endpoint makes them: JSON, field names and types, then what the fields mean
//! together. `generateContent`, its stream and `countTokens` are played here, files in [`super::files`]; caches and
//! batches answer as things that do not exist, which is what an unknown name gets from the real service.

pub(crate) mod errors;
mod parts;
pub(crate) mod reply;
mod shapes;

use serde_json::Value;

use super::answer::{Call, Delivery, Refusal, Thinking};
use super::files::View;
use super::models::Model;
use super::settings::Settings;
use super::shape::{self, Json, Names, clip};
use errors::invalid;
use parts::Eyes;

/// Reads a `generateContent` body for `model`.
pub(crate) fn parse(
    body: &[u8],
    model: Model,
    delivery: Delivery,
    settings: &Settings,
    files: &View<'_>,
) -> Result<Call, Refusal> {
    let json = tree(body)?;
    shape::check(&json, &shapes::GENERATE, Names::Proto).map_err(|problem| errors::problem(&problem))?;
    request(&json, model, delivery, settings, files)
}

/// Reads a `countTokens` body.
pub(crate) fn parse_count(body: &[u8], model: Model, settings: &Settings, files: &View<'_>) -> Result<Call, Refusal> {
    let json = tree(body)?;
    shape::check(&json, &shapes::COUNT, Names::Proto).map_err(|problem| errors::problem(&problem))?;
    request(json.get("generateContentRequest").unwrap_or(&json), model, Delivery::Whole, settings, files)
}

fn tree(body: &[u8]) -> Result<Json<'_>, Refusal> {
    let json: Json<'_> = serde_json::from_slice(body)
        .map_err(|error| invalid(&format!("Invalid JSON payload received. Unexpected token.\n{error}")))?;
    if matches!(json, Json::Object(_)) {
        Ok(json)
    } else {
        Err(invalid("Invalid JSON payload received. Root element must be a message."))
    }
}

fn request(
    json: &Json<'_>,
    model: Model,
    delivery: Delivery,
    settings: &Settings,
    files: &View<'_>,
) -> Result<Call, Refusal> {
    if json.items("contents").is_empty() {
        return Err(invalid("* GenerateContentRequest.contents: contents is not specified\n"));
    }
    if let Some(cache) = json.text("cachedContent") {
        let text = format!("CachedContent not found (or permission denied): {}", clip(cache));
        return Err(Refusal { status: 403, kind: "PERMISSION_DENIED", ..invalid(&text) });
    }
    let empty = Json::Object(Vec::new());
    let config = json.get("generationConfig").unwrap_or(&empty);
    let (schema, wants_json) = reply_format(config)?;
    let max_output = ranges(config)?;
    let thinking = thinking(config.get("thinkingConfig").unwrap_or(&empty), &model)?;
    let (mut texts, mut media) = (Vec::new(), Vec::new());
    let eyes = Eyes { model: &model, detail: parts::level(config.text("mediaResolution")), settings, files };
    for (at, content) in json.items("contents").iter().enumerate() {
        if !matches!(content.text("role"), None | Some("user" | "model" | "")) {
            return Err(invalid("Please use a valid role: user, model."));
        }
        let place = format!("contents[{at}]");
        if content.items("parts").is_empty() {
            return Err(invalid(&format!(
                "* GenerateContentRequest.{place}.parts: contents.parts must not be empty.\n"
            )));
        }
        parts::read(content, &place, eyes, &mut texts, &mut media)?;
    }
    if let Some(system) = json.get("systemInstruction") {
        parts::read(system, "system_instruction", eyes, &mut texts, &mut media)?;
    }
    Ok(Call {
        model,
        text: texts.join("\n"),
        media,
        wants_json,
        schema,
        max_output,
        thinking,
        delivery,
        stream_usage: true,
    })
}

/// The reply schema, and whether JSON is asked for.
fn reply_format(config: &Json<'_>) -> Result<(Option<Value>, bool), Refusal> {
    let (open, json) = (config.get("responseSchema"), config.get("responseJsonSchema"));
    if open.is_some() && json.is_some() {
        return Err(invalid("Only one of response_schema and response_json_schema can be set."));
    }
    let mime = config.text("responseMimeType").unwrap_or("text/plain");
    if !matches!(mime, "text/plain" | "application/json" | "text/x.enum" | "") {
        return Err(invalid(&format!(
            "* GenerateContentRequest.generation_config.response_mime_type: allowed mimetypes are `text/plain`, \
             `application/json`, `application/xml`, `application/yaml` and `text/x.enum`, got {:?}.\n",
            clip(mime)
        )));
    }
    let schema = open.or(json);
    if schema.is_some() && !matches!(mime, "application/json" | "text/x.enum") {
        return Err(invalid(
            "* GenerateContentRequest.generation_config.response_schema: only allowed when response_mime_type is \
             `application/json` or `text/x.enum`.\n",
        ));
    }
    Ok((schema.map(Json::to_value), mime == "application/json"))
}

/// Numbers within what the service takes; the output maximum is returned.
fn ranges(config: &Json<'_>) -> Result<Option<u64>, Refusal> {
    for (name, least, most) in [("temperature", 0.0, 2.0), ("topP", 0.0, 1.0)] {
        if let Some(value) = config.number(name).filter(|value| !(least..=most).contains(value)) {
            let name = shape::snake(name);
            return Err(invalid(&format!(
                "* GenerateContentRequest.generation_config.{name}: {name} must be in the range [{least:.1}, {most:.1}], \
                 got {value}.\n"
            )));
        }
    }
    if config.int("candidateCount").is_some_and(|count| count > 1) {
        return Err(invalid("Multiple candidates is not enabled for this model"));
    }
    if let Some(seed) = config.int("seed").filter(|seed| i32::try_from(*seed).is_err()) {
        return Err(invalid(&format!("Invalid value at 'generation_config.seed' (TYPE_INT32), {seed}")));
    }
    match config.int("maxOutputTokens") {
        None | Some(0) => Ok(None),
        Some(most @ 1..=65_536) => Ok(Some(most.unsigned_abs())),
        Some(most) => Err(invalid(&format!(
            "Unable to submit request because it has a maxOutputTokens value of {most} but the supported range is from 1 \
             (inclusive) to 65537 (exclusive). Update the value and try again."
        ))),
    }
}

/// Budgets are for the 2.5 family, levels for 3 and later (which still take a budget); never both.
fn thinking(config: &Json<'_>, model: &Model) -> Result<Thinking, Refusal> {
    let (budget, level) = (config.int("thinkingBudget"), config.text("thinkingLevel"));
    if budget.is_some() && level.is_some() {
        return Err(invalid("You can only set only one of thinking budget and thinking level."));
    }
    if model.gemini_major() < 3 {
        if level.is_some() {
            return Err(invalid("Thinking level is not supported for this model."));
        }
        let least = match model.name.as_str() {
            name if name.contains("pro") => 128,
            name if name.contains("lite") => 512,
            _ => 1,
        };
        let most = if least == 128 { 32_768 } else { 24_576 };
        match budget {
            Some(0) if least == 128 => {
                return Err(invalid("Budget 0 is invalid. This model only works in thinking mode."));
            }
            Some(budget) if !matches!(budget, -1 | 0) && !(least..=most).contains(&budget) => {
                let text = format!("Please choose a value between {least} and {most}.");
                return Err(invalid(&format!("The thinking budget {budget} is invalid. {text}")));
            }
            _ => {}
        }
    }
    Ok(match (budget, level) {
        (Some(0), _) | (_, Some("MINIMAL")) => Thinking::Off,
        (Some(budget @ 1..), _) => Thinking::Budget(budget.unsigned_abs()),
        _ => Thinking::On,
    })
}

//! Parts of a Gemini request: texts, media inside it, and files by their address.

use super::super::answer::Refusal;
use super::super::blob::{self, BadBlob, Detail, Kind, Known, Look, Medium};
use super::super::files::View;
use super::super::models::Model;
use super::super::settings::Settings;
use super::super::shape::{self, Json, clip};
use super::errors::{self, invalid};

/// What the parts of a request are read with.
#[derive(Clone, Copy)]
pub(super) struct Eyes<'a> {
    pub(super) model: &'a Model,
    pub(super) detail: Detail,
    pub(super) settings: &'a Settings,
    pub(super) files: &'a View<'a>,
}

/// A named resolution.
pub(super) fn level(name: Option<&str>) -> Detail {
    match name {
        Some("MEDIA_RESOLUTION_LOW") => Detail::Low,
        Some("MEDIA_RESOLUTION_MEDIUM") => Detail::Medium,
        Some("MEDIA_RESOLUTION_HIGH" | "MEDIA_RESOLUTION_ULTRA_HIGH") => Detail::High,
        _ => Detail::Default,
    }
}

/// The data of each part: exactly one of the kinds there are.
pub(super) fn read(
    content: &Json<'_>,
    place: &str,
    eyes: Eyes<'_>,
    texts: &mut Vec<String>,
    media: &mut Vec<Medium>,
) -> Result<(), Refusal> {
    const KINDS: [&str; 9] = [
        "text",
        "inlineData",
        "fileData",
        "functionCall",
        "functionResponse",
        "executableCode",
        "codeExecutionResult",
        "toolCall",
        "toolResponse",
    ];
    for (at, part) in content.items("parts").iter().enumerate() {
        let place = format!("{place}.parts[{at}]");
        let mut kinds = KINDS.iter().filter(|kind| part.get(kind).is_some());
        let Some(kind) = kinds.next() else {
            let text = "required oneof field 'data' must have one initialized field";
            return Err(invalid(&format!("* GenerateContentRequest.{place}.data: {text}\n")));
        };
        if let Some(other) = kinds.next() {
            let text = format!("oneof field 'data' is already set. Cannot set '{}'", shape::snake(other));
            return Err(invalid(&format!("Invalid value at '{place}' (oneof), {text}")));
        }
        match *kind {
            "text" => texts.push(part.text("text").unwrap_or_default().to_owned()),
            "inlineData" => media.push(inline(part, &place, eyes)?),
            "fileData" => media.push(file(part, eyes)?),
            _ => {}
        }
    }
    Ok(())
}

/// How a part wants to be looked at.
fn look(part: &Json<'_>, eyes: Eyes<'_>) -> Result<Look, Refusal> {
    let own = part.get("mediaResolution");
    if own.is_some() && eyes.model.gemini_major() < 3 {
        return Err(invalid("Media resolution per part is not supported for this model."));
    }
    let detail = own.map_or(eyes.detail, |own| level(own.text("level")));
    let empty = Json::Object(Vec::new());
    let clip = part.get("videoMetadata").unwrap_or(&empty);
    let offset = |name: &str| match clip.text(name) {
        None => Ok(None),
        Some(text) => {
            let found = crate::provider::hints::duration(text).and_then(|time| u64::try_from(time.as_millis()).ok());
            found.map(Some).ok_or_else(|| invalid(&format!("Invalid value at 'video_metadata' (Duration), {text:?}")))
        }
    };
    let fps = clip.number("fps");
    if fps.is_some_and(|fps| !(0.0..=24.0).contains(&fps) || fps == 0.0) {
        return Err(invalid("The fps of video_metadata must be in the range (0.0, 24.0]."));
    }
    Ok(Look { detail, from_ms: offset("startOffset")?.unwrap_or(0), to_ms: offset("endOffset")?, fps })
}

/// An uploaded file by its address, or anything else at an https address, which is not fetched.
fn file(part: &Json<'_>, eyes: Eyes<'_>) -> Result<Medium, Refusal> {
    let look = look(part, eyes)?;
    let file = part.get("fileData");
    let text = |name: &str| file.and_then(|file| file.text(name)).unwrap_or_default();
    let (uri, mime) = (text("fileUri"), text("mimeType"));
    if let Some((_, id)) =
        uri.rsplit_once("/files/").or_else(|| uri.split_once("files/").filter(|(at, _)| at.is_empty()))
    {
        let shown = eyes.files.show(id)?;
        let known = Known { bytes: shown.bytes, digest: shown.digest, measured: shown.measured };
        return Ok(blob::weigh(eyes.model, shown.kind, known, look));
    }
    if !uri.starts_with("https://") {
        return Err(errors::bad_uri(uri));
    }
    let kind = if mime.is_empty() { Some(Kind::Video) } else { blob::gemini_kind(mime) };
    let kind = kind.ok_or_else(|| invalid(&format!("Unsupported MIME type: {}", clip(mime))))?;
    Ok(blob::addressed(eyes.model, kind, uri, look))
}

fn inline(part: &Json<'_>, place: &str, eyes: Eyes<'_>) -> Result<Medium, Refusal> {
    let look = look(part, eyes)?;
    let blob = part.get("inlineData");
    let mime = blob.and_then(|blob| blob.text("mimeType")).unwrap_or_default();
    let data = blob.and_then(|blob| blob.text("data")).unwrap_or_default();
    blob::read(eyes.model, mime, data, look, eyes.settings.trust_media).map_err(|bad| match bad {
        BadBlob::Base64 => {
            let data = clip(data);
            invalid(&format!(
                "Invalid value at '{place}.inline_data.data' (TYPE_BYTES), Base64 decoding failed for \"{data}\""
            ))
        }
        BadBlob::Mime => invalid(&format!("Unsupported MIME type: {}", clip(mime))),
        BadBlob::Content(Kind::Image) => invalid(
            "Unable to process input image. Please retry or report in \
             https://developers.generativeai.google/guide/troubleshooting",
        ),
        BadBlob::Content(_) => invalid("Request contains an invalid argument."),
    })
}

//! What an upload says of itself when it starts.

use super::super::answer::Refusal;
use super::super::blob::{Kind, gemini_kind};
use super::super::gemini::errors::{self, invalid};
use super::super::shape::{self, Json, Names, Shape, clip};
use super::settings::FileSettings;

static FILE: Shape = Shape::Object(&[
    ("name", &Shape::Text),
    ("displayName", &Shape::Text),
    ("mimeType", &Shape::Text),
    ("sizeBytes", &Shape::Any),
    ("createTime", &Shape::Text),
    ("updateTime", &Shape::Text),
    ("expirationTime", &Shape::Text),
    ("sha256Hash", &Shape::Text),
    ("uri", &Shape::Text),
    ("downloadUri", &Shape::Text),
    ("state", &Shape::Text),
    ("source", &Shape::Text),
    ("videoMetadata", &Shape::Any),
    ("error", &Shape::Any),
]);
static START: Shape = Shape::Object(&[("file", &FILE)]);

/// What the file is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    /// Without `files/`; absent: the service makes one up.
    pub(super) name: Option<String>,
    pub(super) display_name: Option<String>,
    pub(super) mime: String,
    pub(super) kind: Kind,
    pub(super) size: u64,
}

impl Wish {
    /// From a start request: its JSON body (may be empty) and the headers with length and type.
    pub(super) fn read(
        body: &[u8],
        length: Option<&str>,
        mime: Option<&str>,
        settings: &FileSettings,
    ) -> Result<Self, Refusal> {
        let body = if body.is_empty() { b"{}" } else { body };
        let json: Json<'_> = serde_json::from_slice(body)
            .map_err(|error| invalid(&format!("Invalid JSON payload received. Unexpected token.\n{error}")))?;
        shape::check(&json, &START, Names::Proto).map_err(|problem| errors::problem(&problem))?;
        let none = Json::Object(Vec::new());
        let file = json.get("file").unwrap_or(&none);
        let size = match length {
            Some(length) => length.trim().parse().ok(),
            None => file.int("sizeBytes").and_then(|size| u64::try_from(size).ok()),
        };
        let size = size.ok_or_else(|| invalid("Invalid or missing X-Goog-Upload-Header-Content-Length."))?;
        if size == 0 || size > settings.max_file_bytes {
            let most = settings.max_file_bytes;
            return Err(invalid(&format!("File size of {size} bytes is not within 1 and {most} bytes.")));
        }
        let mime = file.text("mimeType").or(mime).unwrap_or_default().to_ascii_lowercase();
        let kind = gemini_kind(&mime).or_else(|| mime.starts_with("text/").then_some(Kind::Document));
        let kind = kind.ok_or_else(|| invalid(&format!("Unsupported MIME type: {}", clip(&mime))))?;
        let name = file.text("name").filter(|name| !name.is_empty()).map(own_name).transpose()?;
        let display_name = file.text("displayName").filter(|name| !name.is_empty()).map(str::to_owned);
        if display_name.as_ref().is_some_and(|name| name.chars().count() > 512) {
            return Err(invalid("* CreateFileRequest.file.display_name: must be at most 512 characters.\n"));
        }
        Ok(Self { name, display_name, mime, kind, size })
    }
}

/// `files/` and at most 40 lower-case letters, digits and dashes, none at an end.
fn own_name(name: &str) -> Result<String, Refusal> {
    let id = name.strip_prefix("files/").unwrap_or_default();
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if id.is_empty() || id.len() > 40 || !id.bytes().all(fits) || id.starts_with('-') || id.ends_with('-') {
        let text = "must be `files/` and up to 40 lowercase alphanumeric characters or dashes, none of them at an end";
        return Err(invalid(&format!("* CreateFileRequest.file.name: {text}.\n")));
    }
    Ok(id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str, length: Option<&str>, mime: Option<&str>) -> Result<Wish, String> {
        Wish::read(body.as_bytes(), length, mime, &FileSettings::default()).map_err(|refusal| refusal.body)
    }

    #[test]
    fn a_start_is_read_from_its_headers_and_its_body() {
        let wish = read(
            r#"{"file":{"display_name":"A","name":"files/a-1","mimeType":"video/mp4","sizeBytes":"5"}}"#,
            None,
            None,
        );
        let wish = wish.unwrap();
        assert_eq!((wish.name.as_deref(), wish.display_name.as_deref(), wish.size), (Some("a-1"), Some("A"), 5));
        assert_eq!(read("", Some("7"), Some("audio/flac")).unwrap().kind, Kind::Audio);
    }

    #[test]
    fn what_no_file_can_be_is_refused_with_the_reason() {
        for (body, length, mime, words) in [
            ("", None, Some("video/mp4"), "Content-Length"),
            ("", Some("x"), Some("video/mp4"), "Content-Length"),
            ("", Some("0"), Some("video/mp4"), "not within 1"),
            ("", Some("2147483649"), Some("video/mp4"), "not within 1 and 2147483648"),
            ("", Some("5"), None, "Unsupported MIME type"),
            ("", Some("5"), Some("video/x-unheard"), "Unsupported MIME type: video/x-unheard"),
            (r#"{"file":{"name":"files/A"}}"#, Some("5"), Some("video/mp4"), "file.name"),
            (r#"{"file":{"name":"files/-a"}}"#, Some("5"), Some("video/mp4"), "file.name"),
            (r#"{"file":{"name":"a"}}"#, Some("5"), Some("video/mp4"), "file.name"),
            (r#"{"file":{"nam":"a"}}"#, Some("5"), Some("video/mp4"), "Unknown name"),
            ("{", Some("5"), Some("video/mp4"), "Invalid JSON payload"),
        ] {
            assert!(read(body, length, mime).unwrap_err().contains(words), "{body} {length:?} {mime:?}");
        }
    }
}

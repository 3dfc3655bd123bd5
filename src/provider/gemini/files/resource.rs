//! A file as the service describes it; what is read of it is believed as far as it is short and well formed.

use serde_json::Value;

use crate::provider::failure;

/// Longest address that is kept.
const LONGEST_URI: usize = 2_048;

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileState {
    /// Not usable yet: ask again. A state this program does not know counts as this.
    Processing,
    /// Usable.
    Active,
    /// Never usable.
    Failed,
}

/// One file of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteFile {
    /// `files/<id>`.
    pub name: String,
    /// What a request names it by (`fileData.fileUri`).
    pub uri: String,
    /// What became of it.
    pub state: FileState,
    /// Its size; 0: the service does not say.
    pub bytes: u64,
    /// When it will be gone: 48 hours after it was made.
    pub expires_at: Option<jiff::Timestamp>,
    /// As it was given; may be empty.
    pub display_name: String,
    /// When it was made.
    pub created_at: Option<jiff::Timestamp>,
    /// Why it failed, in the service's words.
    pub error: Option<String>,
}

/// Reads a file; `None`: it has no name or no address that could be used.
pub(super) fn read(file: &Value) -> Option<RemoteFile> {
    let text = |key: &str| file[key].as_str().unwrap_or_default();
    let moment = |key: &str| text(key).parse().ok();
    let (name, uri) = (text("name"), text("uri"));
    let usable = is_name(name) && !uri.is_empty() && uri.len() <= LONGEST_URI && !uri.chars().any(char::is_control);
    let state = match text("state") {
        "ACTIVE" | "" => FileState::Active,
        "FAILED" => FileState::Failed,
        _ => FileState::Processing,
    };
    usable.then(|| RemoteFile {
        name: name.to_owned(),
        uri: uri.to_owned(),
        state,
        // proto-JSON writes 64 bit numbers as texts.
        bytes: file["sizeBytes"].as_u64().or_else(|| text("sizeBytes").parse().ok()).unwrap_or(0),
        expires_at: moment("expirationTime"),
        display_name: failure::words(text("displayName")),
        created_at: moment("createTime"),
        error: failure::named(&file["error"], "message"),
    })
}

/// `files/` and an id that is one path segment.
pub(super) fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    name.strip_prefix("files/").is_some_and(|id| (1..=128).contains(&id.len()) && id.bytes().all(fits))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_file_is_read_as_the_service_writes_it() {
        let file = json!({
            "name": "files/abc-1", "displayName": "a\nclip", "mimeType": "video/mp4", "sizeBytes": "12345",
            "createTime": "2026-11-23T10:00:00.123456Z", "updateTime": "2026-11-23T10:00:01Z",
            "expirationTime": "2026-11-25T10:00:00.123456789Z", "uri": "https://host.test/v1beta/files/abc-1",
            "state": "FAILED", "source": "UPLOADED", "error": {"code": 9, "message": "no picture"},
        });
        let found = read(&file).unwrap();
        assert_eq!((found.name.as_str(), found.bytes, found.state), ("files/abc-1", 12_345, FileState::Failed));
        assert_eq!((found.display_name.as_str(), found.error.as_deref()), ("a clip", Some("no picture")));
        let life = found.expires_at.unwrap().duration_since(found.created_at.unwrap());
        assert_eq!(life.as_hours(), 48);
    }

    #[test]
    fn what_is_missing_or_strange_is_left_out_and_what_cannot_be_used_is_no_file() {
        let least =
            json!({"name": "files/a", "uri": "u", "state": "WAITING", "sizeBytes": -4, "expirationTime": "soon"});
        let found = read(&least).unwrap();
        assert_eq!((found.state, found.bytes, found.expires_at), (FileState::Processing, 0, None));
        assert_eq!(read(&json!({"name": "files/a", "uri": "u", "sizeBytes": 7})).unwrap().bytes, 7);
        for bad in [
            json!({"name": "files/a"}),
            json!({"uri": "u"}),
            json!({"name": "files/../models", "uri": "u"}),
            json!({"name": "files/a?x=1", "uri": "u"}),
            json!({"name": "files/", "uri": "u"}),
            json!({"name": "files/a", "uri": "u\r\n"}),
            json!({"name": "files/a", "uri": "u".repeat(3_000)}),
            json!([]),
        ] {
            assert_eq!(read(&bad), None, "{bad}");
        }
    }
}

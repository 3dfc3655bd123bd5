//! Files that are kept, by project: what is known of them, and how they are described.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::blob::Kind;
use super::super::gemini::errors;
use super::super::measure::Measured;
use super::wish::Wish;

/// What was counted of one project's uploads and files since the start or the last reset.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FileStats {
    /// Uploads that began.
    pub started: u64,
    /// Uploads that became files.
    pub finalized: u64,
    /// Bytes of chunks that arrived, those that were lost or sent twice included.
    pub bytes_received: u64,
    /// Those of them that were not kept: of chunks that broke off or were refused, of sessions that were lost. So
    /// `bytes_received - bytes_lost - bytes_finalized` is what uploads under way hold.
    #[serde(default)]
    pub bytes_lost: u64,
    /// Bytes of the files that uploads became.
    pub bytes_finalized: u64,
    /// Questions how far an upload is.
    pub queries: u64,
    /// Uploads that were cancelled.
    pub cancels: u64,
    /// Requests for one file.
    pub gets: u64,
    /// Requests for a page of files.
    pub lists: u64,
    /// Files deleted.
    pub deletes: u64,
    /// Parts of prompts that showed a file.
    pub shown: u64,
    /// Files that are there now.
    pub live_files: u64,
    /// Their bytes.
    pub live_bytes: u64,
}

/// Whose request it is, when, and how the simulator was addressed.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) project: &'a str,
    pub(crate) base: &'a str,
    pub(crate) version: &'a str,
    /// Milliseconds since the simulator's start.
    pub(crate) now_ms: u64,
}

/// A file as a call sees it: what answer and bill are made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) kind: Kind,
    pub(crate) bytes: u64,
    /// The same as of these bytes inside a request.
    pub(crate) digest: u128,
    pub(crate) measured: Measured,
}

/// A file that is kept.
pub(super) struct Held {
    /// Order of making.
    pub(super) number: u64,
    pub(super) upload_id: u128,
    pub(super) wish: Wish,
    pub(super) created_ms: u64,
    pub(super) ready_ms: u64,
    pub(super) ends_ms: u64,
    pub(super) failed: bool,
    pub(super) sha256: String,
    pub(super) shown: Shown,
}

/// A project's files and counts.
#[derive(Default)]
pub(super) struct Project {
    pub(super) files: BTreeMap<String, Held>,
    pub(super) counts: FileStats,
}

impl Project {
    /// Its files, with those that are over dropped.
    pub(super) fn live(&mut self, now_ms: u64) -> &mut BTreeMap<String, Held> {
        self.files.retain(|_, held| held.ends_ms > now_ms);
        &mut self.files
    }

    /// Bytes of all its files.
    pub(super) fn live_bytes(&mut self, now_ms: u64) -> u64 {
        self.live(now_ms).values().map(|held| held.wish.size).sum()
    }
}

impl Held {
    /// As the service describes it.
    pub(super) fn resource(&self, name: &str, place: &Place<'_>, epoch: jiff::Timestamp) -> Value {
        let at = |ms: u64| {
            let moment = epoch.checked_add(std::time::Duration::from_millis(ms)).unwrap_or(jiff::Timestamp::MAX);
            moment.to_string()
        };
        let state = match (place.now_ms < self.ready_ms, self.failed) {
            (true, _) => "PROCESSING",
            (false, true) => "FAILED",
            (false, false) => "ACTIVE",
        };
        let updated = if state == "PROCESSING" { self.created_ms } else { self.ready_ms };
        let mut file = json!({
            "name": format!("files/{name}"), "mimeType": self.wish.mime, "sizeBytes": self.wish.size.to_string(),
            "createTime": at(self.created_ms), "updateTime": at(updated), "expirationTime": at(self.ends_ms),
            "sha256Hash": STANDARD.encode(&self.sha256),
            "uri": format!("{}/{}/files/{name}", place.base, place.version),
            "state": state, "source": "UPLOADED",
        });
        if let Some(title) = &self.wish.display_name {
            file["displayName"] = title.as_str().into();
        }
        if let (Kind::Video, "ACTIVE", Some(ms)) = (self.shown.kind, state, self.shown.measured.ms) {
            file["videoMetadata"] = json!({ "videoDuration": errors::seconds(ms * 1_000) });
        }
        if state == "FAILED" {
            file["error"] = json!({ "code": 9, "message": "The file could not be processed.", "details": [] });
        }
        file
    }
}

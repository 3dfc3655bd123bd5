//! How whole clips reach a provider.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::media::Clip;

/// Where a provider finds a clip.
#[derive(Clone, PartialEq, Eq)]
pub enum VideoFrom {
    /// Not handed over yet: whoever carries the call puts one of the others in its place before it is sent.
    Clip(Arc<Clip>),
    /// In the request itself: standard base64 with padding.
    Inline(Bytes),
    /// At this address: an uploaded file, or the source's own.
    Uri(Arc<str>),
}

impl fmt::Debug for VideoFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clip(clip) => write!(f, "Clip({}, {} bytes)", clip.sha256, clip.bytes),
            Self::Inline(base64) => write!(f, "Inline({} base64 bytes)", base64.len()),
            Self::Uri(_) => f.write_str("Uri"),
        }
    }
}

/// How a provider is given whole clips.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VideoWay {
    /// It takes none.
    None,
    /// Inside the request (Gemini: `inlineData`; OpenAI-compatible: `video_url` with a data URL).
    Inline,
    /// By the source's own https address where it has one, else inside the request.
    Url,
    /// By the Gemini Files API, or inside the request where the clip is small.
    Upload,
}

/// How one clip was sent with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VideoSent {
    /// Inside the request.
    Inline,
    /// As the source's own address, from which the provider fetches it.
    Url,
    /// As a file that was uploaded before.
    Upload,
}

impl VideoSent {
    /// The name in journals and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inline => "inline",
            Self::Url => "url",
            Self::Upload => "upload",
        }
    }
}

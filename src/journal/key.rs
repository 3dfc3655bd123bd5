//! The canonical request: what the journal's key is the hash of.
//!
//! It holds what decides the reply and nothing else. Media are named by the digest of their source and how they were
//! prepared, never by a path, a URI or an upload's handle: those change and would defeat every hit. The threshold, the
//! number of tries, the run and the recipe's digest are not in it, so that raising any of them costs nothing that was
//! paid before. The address of the provider is ([`Canonical::identity`]), so that a simulator never answers for the
//! real thing. The item's id is stored beside it and is not hashed: two items with one question share replies.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::media::{AudioFormat, PREPARATION_VERSION, Selection, Settings};
use crate::provider::{Role, Thinking};

/// Changes whenever equal requests would hash differently.
const VERSION: u32 = 1;

/// blake3 of a canonical request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 32]);

/// One medium of a request.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CanonicalMedium {
    /// Its name in the item: it is shown to the model.
    pub name: String,
    /// `frames`, `audio`, `video`, or `silent` for a video without its sound.
    pub shown: &'static str,
    /// SHA-256 of the source, in hex.
    pub sha256: String,
}

/// How a request's media were prepared: of the recipe's settings those that decide what this request shows, so that
/// another length of sound does not buy the answers about frames again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Preparation {
    /// [`crate::media::PREPARATION_VERSION`].
    version: u32,
    /// Selection, most frames, longest side.
    #[serde(skip_serializing_if = "Option::is_none")]
    frames: Option<(Selection, u32, u32)>,
    /// Format, rate, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    audio: Option<(AudioFormat, u32, u32)>,
    /// MiB, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    video: Option<(u32, u32)>,
}

impl Preparation {
    /// What matters of `settings` for the media shown; none without media.
    pub fn of(shown: &[CanonicalMedium], settings: &Settings) -> Option<Self> {
        let any = |name: &str| shown.iter().any(|medium| medium.shown == name);
        let Settings { selection, max_frames, frame_size, audio_format, audio_rate, audio_seconds, .. } = *settings;
        (!shown.is_empty()).then(|| Self {
            version: PREPARATION_VERSION,
            frames: any("frames").then_some((selection, max_frames, frame_size)),
            audio: any("audio").then_some((audio_format, audio_rate, audio_seconds)),
            video: (any("video") || any("silent")).then_some((settings.clip_mib, settings.clip_seconds)),
        })
    }
}

/// Which draw of a request this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// The item's own.
    pub item: u32,
    /// The generator's try, from 1; 0 for the other roles, whose prompts differ where they should.
    #[serde(rename = "try")]
    pub try_index: u32,
}

/// A request as the journal knows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Canonical {
    version: u32,
    /// The provider's identity.
    pub identity: String,
    /// The model.
    pub model: String,
    /// The role.
    pub role: Role,
    /// System instruction.
    pub system: Option<String>,
    /// All text parts, in order, labels of media included.
    pub prompt: Vec<String>,
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    pub top_p: Option<f64>,
    /// Content maximum; larger after a truncated reply.
    pub max_output_tokens: u32,
    /// Thinking.
    pub thinking: Thinking,
    /// The recipe's seed.
    pub seed: u32,
    /// Reply schema.
    pub schema: Option<Value>,
    /// What is shown, in order.
    pub media: Vec<CanonicalMedium>,
    /// How it was prepared; absent without media.
    pub preparation: Option<Preparation>,
    /// Which draw.
    pub sample: Sample,
    /// Which ask, from 0: a reply that could not be used is stored too, and asked again under the next.
    pub ordinal: u32,
    /// Not hashed: for finding an item's exchanges.
    #[serde(skip)]
    pub item_id: String,
}

impl Canonical {
    /// The request of `role` with nothing in it yet.
    pub fn new(identity: &str, model: &str, role: Role, item_id: &str, sample: Sample) -> Self {
        Self {
            version: VERSION,
            identity: identity.to_owned(),
            model: model.to_owned(),
            role,
            system: None,
            prompt: Vec::new(),
            temperature: None,
            top_p: None,
            max_output_tokens: 0,
            thinking: Thinking::Default,
            seed: 0,
            schema: None,
            media: Vec::new(),
            preparation: None,
            sample,
            ordinal: 0,
            item_id: item_id.to_owned(),
        }
    }

    /// Compact JSON, keys in the order of the fields.
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// blake3 of [`Canonical::json`].
    pub fn key(&self) -> Key {
        Key(*blake3::hash(self.json().as_bytes()).as_bytes())
    }

    /// The seed to send: the recipe's, mixed with sample and ordinal; 31 bits, since some servers take no more.
    pub fn seed_sent(&self) -> u32 {
        let Sample { item, try_index } = self.sample;
        let mut bytes = Vec::with_capacity(16);
        for part in [self.seed, item, try_index, self.ordinal] {
            bytes.extend_from_slice(&part.to_le_bytes());
        }
        let hash = blake3::hash(&bytes);
        let [a, b, c, d, ..] = *hash.as_bytes();
        u32::from_le_bytes([a, b, c, d]) >> 1
    }
}

impl Key {
    /// The 32 bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// The first 8 bytes.
    pub fn prefix(self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        u64::from_le_bytes(first)
    }

    /// The bytes as a vector.
    pub fn to_vec(self) -> Vec<u8> {
        self.0.to_vec()
    }

    /// From 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// From 64 hex characters.
    pub fn from_hex(hex: &str) -> Option<Self> {
        blake3::Hash::from_hex(hex).ok().map(|hash| Self(*hash.as_bytes()))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

/// In hex.
impl Serialize for Key {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Key {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let hex = String::deserialize(from)?;
        let hash = blake3::Hash::from_hex(&hex).map_err(serde::de::Error::custom)?;
        Ok(Self(*hash.as_bytes()))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Canonical {
        let sample = Sample { item: 0, try_index: 1 };
        let mut request = Canonical::new("https://a:443", "m", Role::Generator, "i", sample);
        request.prompt = vec!["p".to_owned()];
        request
    }

    #[test]
    fn whatever_decides_the_reply_changes_the_key() {
        type Change = fn(&mut Canonical);
        let changes: [Change; 12] = [
            |r| r.identity.push('x'),
            |r| r.model.push('x'),
            |r| r.role = Role::Evaluator,
            |r| r.system = Some(String::new()),
            |r| r.prompt.push(String::new()),
            |r| r.temperature = Some(0.5),
            |r| r.max_output_tokens = 1,
            |r| r.thinking = Thinking::Off,
            |r| r.seed = 1,
            |r| r.media.push(CanonicalMedium { name: "v".into(), shown: "frames", sha256: "d".into() }),
            |r| r.sample.try_index = 2,
            |r| r.ordinal = 1,
        ];
        for change in changes {
            let mut changed = request();
            change(&mut changed);
            assert_ne!(changed.key(), request().key(), "{}", changed.json());
        }
    }

    #[test]
    fn the_item_is_not_in_the_key() {
        let mut other = request();
        other.item_id = "j".to_owned();
        assert_eq!(other.key(), request().key());
    }

    #[test]
    fn every_draw_sends_another_seed_of_31_bits() {
        let mut again = request();
        again.ordinal = 1;
        assert_ne!(again.seed_sent(), request().seed_sent());
        assert!(again.seed_sent() < 1 << 31);
    }

    #[test]
    fn a_key_survives_its_hex() {
        let key = request().key();
        assert_eq!(Key::from_hex(&key.to_string()), Some(key));
    }
}

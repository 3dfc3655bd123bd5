//! What is asked about a clip (an item), and one item of a run (a job).
//!
//! An item is checked once, where it enters, and is trusted afterwards. Its fields are read by hand from a JSON object
//! instead of by a derived `Deserialize`: only so can a refusal name the field, its value and the way out, and can the
//! `video`/`audio` shorthand end as the same list of named media as `media` does. What [`Item`] serialises to is a
//! valid corpus line again, so a job on a queue, a row of the state file and an exported corpus share one reader.
//!
//! Identity rests on content as written: the digest covers the URIs as given, never where a relative path led, so a
//! corpus folder can be moved without becoming another corpus. Metadata are part of it, since they end in the record.

mod fields;
mod read;

#[cfg(feature = "fleet")]
pub(crate) use read::FIELDS;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::record::{ErrorKind, Status};

/// Most bytes of a question.
pub const MAX_QUERY: usize = 32 * 1024;
/// Most media of one item.
pub const MAX_MEDIA: usize = 64;
/// Most bytes of an item's metadata, as compact JSON.
pub const MAX_METADATA: usize = 64 * 1024;
/// Most bytes of a URI.
pub const MAX_URI: usize = 8 * 1024;
/// Most bytes of one acceptable answer or one choice.
pub const MAX_ANSWER: usize = 8 * 1024;

/// What a medium is shown as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MediaKind {
    /// A clip: key frames, and its own sound unless [`MediaRef::own_track`] is off.
    Video,
    /// Sound alone.
    Audio,
}

/// One medium of an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MediaRef {
    /// Unique in its item: `[A-Za-z0-9_.-]{1,64}`. The shorthands are called `video` and `audio`.
    pub name: String,
    /// What it is shown as.
    pub kind: MediaKind,
    /// As the corpus gives it; what records and digests hold.
    pub uri: String,
    /// Where a relative `uri` leads, once the corpus reader has resolved it. Never part of a digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved: Option<String>,
    /// Whether a video's own sound is shown. Off when the item gives an `audio` beside its `video`, or says so in
    /// `media`. Always on for audio.
    #[serde(skip_serializing_if = "is_true")]
    pub own_track: bool,
}

impl MediaRef {
    /// Where to fetch it from: the resolved path, else the URI as given.
    pub fn location(&self) -> &str {
        self.resolved.as_deref().unwrap_or(&self.uri)
    }
}

/// A question about one or more media. Made by [`Item::from_line`] or by deserialising, both of which check every
/// limit; the same text comes out of `serde_json::to_string`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub struct Item {
    /// The id given by the corpus: 1..=256 characters, no control characters. See [`Item::id`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// 1..=64 media in the order given, with distinct names.
    pub media: Vec<MediaRef>,
    /// The question, not blank, at most 32 KiB.
    pub query: String,
    /// Acceptable answers; empty when the corpus gives none. A corpus writes one string or a list.
    #[serde(rename = "answer", skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<String>,
    /// 2..=64 distinct choices, none blank.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub choices: Option<Vec<String>>,
    /// What kind of question it is, for grouping in reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Draws of the same question that must not share replies carry different numbers.
    #[serde(skip_serializing_if = "is_zero")]
    pub sample: u32,
    /// The corpus's own data, carried to the record untouched; null when there is none.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub metadata: Value,
}

/// What a job may use beyond its recipe, because it was asked for again after using it up. What was paid for before is
/// replayed, so that new tries and asks go on where the old ones ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Again {
    /// Times that all tries were used up.
    pub tries: u32,
    /// Times that all asks of a role were used up.
    pub asks: u32,
}

impl Again {
    /// What the next job of an item may use, after one of these ended like this.
    pub fn after(mut self, status: Status, kind: Option<ErrorKind>) -> Self {
        if status == Status::Exhausted {
            self.tries = self.tries.saturating_add(1);
        }
        if matches!(kind, Some(ErrorKind::Unparsable | ErrorKind::Blocked)) {
            self.asks = self.asks.saturating_add(1);
        }
        self
    }
}

/// One item of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// The run's name.
    pub run: String,
    /// [`Item::id`] of `item`.
    pub item_id: String,
    /// 0 at first; one more each time a failed item is asked for again.
    pub revision: u32,
    /// What it may use beyond its recipe.
    #[serde(default)]
    pub again: Again,
    /// What is asked.
    pub item: Item,
}

impl Job {
    /// The job of an item in a run.
    pub fn new(run: impl Into<String>, revision: u32, item: Item) -> Self {
        Self { run: run.into(), item_id: item.id(), revision, again: Again::default(), item }
    }

    /// [`job_id`] of this job.
    pub fn id(&self) -> String {
        job_id(&self.run, &self.item_id, self.revision)
    }
}

/// The name of a job: 64 hex characters, blake3 of run, item id and revision, each preceded by its length in bytes
/// (64 bits, little endian) so that no two triples share a text.
pub fn job_id(run: &str, item_id: &str, revision: u32) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [run.as_bytes(), item_id.as_bytes(), revision.to_string().as_bytes()] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().to_hex().to_string()
}

impl Item {
    /// Reads one corpus line.
    ///
    /// Shape: `{"id"?, "video"?, "audio"?, "query", "answer"?, "choices"?, "task"?, "sample"?, "media"?, "metadata"?}`
    /// with `media` a list of `{"name", "kind", "uri", "own_track"?}` in place of `video` and `audio`. An optional
    /// field that is null counts as absent.
    ///
    /// # Errors
    /// Says which field is wrong, how, and what would be right.
    pub fn from_line(line: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(line).map_err(|error| json_error(&error))?;
        match value {
            Value::Object(map) => Self::from_fields(map),
            other => Err(format!("a line is {}, not a JSON object", fields::kind(&other))),
        }
    }

    /// Reads the fields of one corpus line; see [`Item::from_line`].
    ///
    /// # Errors
    /// As [`Item::from_line`].
    pub fn from_fields(fields: Map<String, Value>) -> Result<Self, String> {
        let item = Self::try_from(fields)?;
        match item.media.iter().find(|medium| medium.resolved.is_some()) {
            Some(medium) => {
                Err(format!("medium {:?} gives \"resolved\", which is set by the reader alone", medium.name))
            }
            None => Ok(item),
        }
    }

    /// The id given, else `item-` and the first 20 hex characters of the digest.
    pub fn id(&self) -> String {
        self.id.clone().unwrap_or_else(|| format!("item-{}", &self.digest()[..20]))
    }

    /// blake3 (64 hex characters) of everything but the id and the resolved paths, as JSON with sorted keys.
    pub fn digest(&self) -> String {
        let media: Vec<Value> = self
            .media
            .iter()
            .map(|m| json!({"name": m.name, "kind": m.kind, "uri": m.uri, "own_track": m.own_track}))
            .collect();
        let mut content = json!({
            "media": media, "query": self.query, "answer": self.answers, "choices": self.choices,
            "task": self.task, "sample": self.sample, "metadata": self.metadata,
        });
        content.sort_all_objects();
        blake3::hash(content.to_string().as_bytes()).to_hex().to_string()
    }
}

/// A parser's complaint without its line, which is always 1 here.
fn json_error(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or(&text);
    format!("invalid JSON at column {}: {reason}", error.column())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_true(flag: &bool) -> bool {
    *flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(text: &str) -> Item {
        Item::from_line(text).unwrap()
    }

    #[test]
    fn the_shorthand_becomes_named_media() {
        let one = item(r#"{"video":"a.mp4","query":"q"}"#);
        assert_eq!(one.media.len(), 1);
        assert_eq!(
            (one.media[0].name.as_str(), one.media[0].kind, one.media[0].own_track),
            ("video", MediaKind::Video, true)
        );
        let two = item(r#"{"video":"a.mp4","audio":"a.wav","query":"q"}"#);
        let tracks: Vec<_> = two.media.iter().map(|m| (m.name.as_str(), m.own_track)).collect();
        assert_eq!(tracks, [("video", false), ("audio", true)], "an audio replaces the video's own track");
        let sound = item(r#"{"audio":"a.wav","query":"q"}"#);
        assert_eq!((sound.media.len(), sound.media[0].kind), (1, MediaKind::Audio));
    }

    #[test]
    fn what_is_serialised_is_read_back_as_the_same_item() {
        let mut full = item(
            r#"{"id":"k 1","media":[{"name":"v","kind":"video","uri":"a.mp4","own_track":false},{"name":"s.1","kind":"audio",
            "uri":"s3://b/k"}],"query":"q","answer":["x","y"],"choices":["x","z"],"task":"t","sample":3,
            "metadata":{"z":[1,2.50,null],"a":"\u0000"}}"#,
        );
        full.media[0].resolved = Some("/data/a.mp4".into());
        let text = serde_json::to_string(&Job::new("r", 2, full.clone())).unwrap();
        assert_eq!(serde_json::from_str::<Job>(&text).unwrap(), Job::new("r", 2, full.clone()));
        full.media[0].resolved = None;
        assert_eq!(item(&serde_json::to_string(&full).unwrap()), full);
    }

    #[test]
    fn the_digest_is_of_content_alone() {
        let plain = item(r#"{"video":"a.mp4","query":"q"}"#);
        assert_eq!(plain.digest().len(), 64);
        assert_eq!(plain.id(), format!("item-{}", &plain.digest()[..20]));
        for same in [
            r#"{"query":"q","video":"a.mp4","sample":0,"id":"named"}"#,
            r#"{"media":[{"uri":"a.mp4","kind":"video","name":"video"}],"query":"q","metadata":null}"#,
        ] {
            assert_eq!(item(same).digest(), plain.digest(), "{same}");
        }
        for other in [
            r#"{"video":"b.mp4","query":"q"}"#,
            r#"{"video":"a.mp4","audio":"a.mp4","query":"q"}"#,
            r#"{"video":"a.mp4","query":"q "}"#,
            r#"{"video":"a.mp4","query":"q","sample":1}"#,
            r#"{"video":"a.mp4","query":"q","answer":"x"}"#,
            r#"{"video":"a.mp4","query":"q","metadata":{"a":1}}"#,
            r#"{"video":"a.mp4","query":"q","task":"t"}"#,
        ] {
            assert_ne!(item(other).digest(), plain.digest(), "{other}");
        }
        let one = item(r#"{"video":"a.mp4","query":"q","answer":"x"}"#);
        assert_eq!(one.digest(), item(r#"{"video":"a.mp4","query":"q","answer":["x"]}"#).digest());
    }

    #[test]
    fn job_ids_never_run_together() {
        let ids = [("a", "bc", 1), ("ab", "c", 1), ("a", "bc", 11), ("abc", "", 1), ("", "abc", 1), ("a", "bc1", 1)];
        let hashes: std::collections::HashSet<_> = ids.iter().map(|(run, id, rev)| job_id(run, id, *rev)).collect();
        assert_eq!(hashes.len(), ids.len());
        assert_eq!(job_id("run", "item", 0), job_id("run", "item", 0));
        assert_eq!(job_id("run", "item", 0).len(), 64);
    }

    #[test]
    fn a_bad_line_is_refused_with_the_field_and_the_way_out() {
        let long = "x".repeat(MAX_QUERY + 1);
        let id = "i".repeat(257);
        let media: Vec<String> = (0..65).map(|n| format!(r#"{{"name":"m{n}","kind":"audio","uri":"u"}}"#)).collect();
        let media = media.join(",");
        for (line, reason) in [
            ("", "invalid JSON at column 0: EOF while parsing a value"),
            ("{\"video\":\"a\",\"query\":\"q\"} x", "invalid JSON at column 27: trailing characters"),
            (r#""q""#, "a line is a string, not a JSON object"),
            (r#"{"query":"q"}"#, "no medium is given: name a video, an audio or media"),
            (r#"{"video":"a"}"#, "query is missing"),
            (r#"{"video":"a","query":" \n"}"#, "query is blank"),
            (&format!(r#"{{"video":"a","query":"{long}"}}"#), "query has 32769 bytes, more than 32768"),
            (r#"{"video":"a","query":7}"#, "query is a number, not a string"),
            (r#"{"video":"a","query":"a\u0000b"}"#, "query holds a NUL character"),
            (r#"{"video":"","query":"q"}"#, "video is blank"),
            (r#"{"video":"a\nb","query":"q"}"#, r#"video holds a control character: "a\nb""#),
            (r#"{"video":["a"],"query":"q"}"#, "video is a list, not a string"),
            (
                r#"{"video":"a","query":"q","anwser":"x"}"#,
                r#"unknown field "anwser" (known: id, video, audio, media, query, answer, choices, task, sample, metadata)"#,
            ),
            (r#"{"id":"","video":"a","query":"q"}"#, "id has 0 characters, not 1 to 256, or is blank"),
            (
                &format!(r#"{{"id":"{id}","video":"a","query":"q"}}"#),
                "id has 257 characters, not 1 to 256, or is blank",
            ),
            (r#"{"id":"a\tb","video":"a","query":"q"}"#, r#"id holds a control character: "a\tb""#),
            (r#"{"id":5,"video":"a","query":"q"}"#, "id is a number, not a string"),
            (r#"{"video":"a","query":"q","answer":5}"#, "answer is a number, not a string or a list of strings"),
            (r#"{"video":"a","query":"q","answer":[]}"#, "answer is an empty list, not a string or a list of strings"),
            (r#"{"video":"a","query":"q","answer":["x",1]}"#, "answer holds a number, not only strings"),
            (r#"{"video":"a","query":"q","choices":["x"]}"#, "choices has 1 entries, not 2 to 64"),
            (r#"{"video":"a","query":"q","choices":["x"," x"]}"#, r#"choices has " x" twice"#),
            (r#"{"video":"a","query":"q","choices":["x",""]}"#, "choices is blank"),
            (r#"{"video":"a","query":"q","sample":-1}"#, "sample is -1, not a whole number from 0 to 4294967295"),
            (r#"{"video":"a","query":"q","sample":1.5}"#, "sample is 1.5, not a whole number from 0 to 4294967295"),
            (
                r#"{"video":"a","query":"q","sample":4294967296}"#,
                "sample is 4294967296, not a whole number from 0 to 4294967295",
            ),
            (
                r#"{"video":"a","query":"q","media":[{"name":"m","kind":"audio","uri":"u"}]}"#,
                "media is given beside video or audio: list all of them in media",
            ),
            (r#"{"query":"q","media":[]}"#, "media has 0 entries, not 1 to 64"),
            (&format!(r#"{{"query":"q","media":[{media}]}}"#), "media has 65 entries, not 1 to 64"),
            (r#"{"query":"q","media":["a.mp4"]}"#, "media[0] is a string, not an object with name, kind and uri"),
            (
                r#"{"query":"q","media":[{"name":"a b","kind":"audio","uri":"u"}]}"#,
                r#"media[0].name is "a b", not 1 to 64 of A-Z a-z 0-9 _ . -"#,
            ),
            (
                r#"{"query":"q","media":[{"name":"a","kind":"image","uri":"u"}]}"#,
                r#"media[0].kind is "image", not video or audio"#,
            ),
            (r#"{"query":"q","media":[{"name":"a","kind":"audio"}]}"#, "media[0].uri is missing"),
            (
                r#"{"query":"q","media":[{"name":"a","kind":"audio","uri":"u","url":"u"}]}"#,
                r#"unknown field "media[0].url" (known: name, kind, uri, own_track, resolved)"#,
            ),
            (
                r#"{"query":"q","media":[{"name":"a","kind":"audio","uri":"u"},{"name":"a","kind":"audio","uri":"w"}]}"#,
                r#"media has two entries named "a""#,
            ),
            (
                r#"{"query":"q","media":[{"name":"a","kind":"video","uri":"u","resolved":"/etc/passwd"}]}"#,
                r#"medium "a" gives "resolved", which is set by the reader alone"#,
            ),
        ] {
            assert_eq!(Item::from_line(line).unwrap_err(), reason, "{}", fields::excerpt(line));
        }
    }

    #[test]
    fn metadata_over_the_limit_are_refused_and_kept_untouched_below_it() {
        let fat = format!(r#"{{"video":"a","query":"q","metadata":"{}"}}"#, "m".repeat(MAX_METADATA));
        assert!(Item::from_line(&fat).unwrap_err().starts_with("metadata has 65538 bytes"));
        let kept = item(r#"{"video":"a","query":"q","metadata":{"f":0.1,"n":18446744073709551615,"d":{"x":[]}}}"#);
        assert_eq!(kept.metadata.to_string(), r#"{"d":{"x":[]},"f":0.1,"n":18446744073709551615}"#);
    }
}

//! The objects under a prefix of a bucket as a corpus: one item for each clip or sound, with one question for all.
//!
//! What is no clip and no sound by its name is passed over. A listing is always read from its start, as nothing tells
//! whether it is what it was; it is a page of a thousand names at a time.

use std::collections::VecDeque;
use std::io;

use minijinja::{Environment, UndefinedBehavior, context};
use serde_json::{Map, Value};
use tokio::runtime::Handle;

use super::reader::{Refused, Row};
use crate::job::Item;
use crate::media::Listing;

const VIDEO: [&str; 15] =
    ["mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "mts", "m2ts", "ogv", "3gp", "flv", "wmv"];
const AUDIO: [&str; 11] = ["wav", "mp3", "m4a", "aac", "flac", "ogg", "oga", "opus", "wma", "aif", "aiff"];

/// What is asked of every object: a template of `key`, `name` (what follows the last `/`), `stem` (that without its
/// extension), `bucket` and `uri`.
#[derive(Debug, Clone)]
pub struct Question {
    environment: Environment<'static>,
    template: String,
}

impl Question {
    /// Checks a template.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(template: impl Into<String>) -> Result<Self, String> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        let question = Self { environment, template: template.into() };
        question.of("bucket", "folder/name.mp4").map(|_| question)
    }

    fn of(&self, bucket: &str, key: &str) -> Result<String, String> {
        let name = key.rsplit('/').next().unwrap_or(key);
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        let uri = format!("s3://{bucket}/{key}");
        self.environment
            .render_str(&self.template, context! { key, name, stem, bucket, uri })
            .map_err(|error| format!("the question cannot be made: {error:#} (known: key, name, stem, bucket, uri)"))
    }
}

/// The objects of one listing.
#[derive(Debug)]
pub struct Prefix {
    listing: Listing,
    question: Question,
    runtime: Handle,
    page: VecDeque<String>,
    number: u64,
}

impl Prefix {
    /// The objects of `listing`, each with this question. Used on a thread that is not the runtime's.
    pub fn new(listing: Listing, question: Question, runtime: Handle) -> Self {
        Self { listing, question, runtime, page: VecDeque::new(), number: 0 }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn next(&mut self) -> Option<io::Result<Row>> {
        loop {
            while let Some(key) = self.page.pop_front() {
                self.number += 1;
                let Some(kind) = kind(&key) else { continue };
                let result = self.item(&key, kind).map_err(|reason| Refused::new(reason, key.as_bytes()));
                return Some(Ok(Row { number: self.number, result }));
            }
            match self.runtime.block_on(self.listing.next_page()) {
                Ok(Some(page)) => self.page = page.into(),
                Ok(None) => return None,
                Err(error) => return Some(Err(io::Error::other(error.message))),
            }
        }
    }

    fn item(&self, key: &str, kind: &str) -> Result<Item, String> {
        let bucket = self.listing.bucket();
        let fields =
            [("id", key.to_owned()), (kind, format!("s3://{bucket}/{key}")), ("query", self.question.of(bucket, key)?)];
        let fields: Map<String, Value> =
            fields.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect();
        Item::from_fields(fields)
    }
}

/// The field of an object with this name; none: it is neither a clip nor a sound.
fn kind(key: &str) -> Option<&'static str> {
    let (_, end) = key.rsplit('/').next()?.rsplit_once('.')?;
    let end = end.to_ascii_lowercase();
    if VIDEO.contains(&end.as_str()) { Some("video") } else { AUDIO.contains(&end.as_str()).then_some("audio") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clips_and_sounds_are_told_by_their_names() {
        for (key, field) in [("a/b.MP4", Some("video")), ("b.opus", Some("audio")), ("mp4", None), ("a.mp4/b", None)] {
            assert_eq!(kind(key), field, "{key}");
        }
    }

    #[test]
    fn a_question_is_made_of_the_objects_name_and_a_bad_one_is_refused() {
        let question = Question::new("What is heard in {{ stem }} of {{ key }}?").unwrap();
        assert_eq!(question.of("b", "x/y.z.mp4").unwrap(), "What is heard in y.z of x/y.z.mp4?");
        assert!(Question::new("{{ nme }}").unwrap_err().contains("known: key"));
        assert!(Question::new("{{ key").is_err());
    }
}

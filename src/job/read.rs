//! From a JSON object to an [`Item`], field by field, with every limit checked.

use serde_json::{Map, Value};

use super::fields::{self, Fields};
use super::{Item, MAX_ANSWER, MAX_MEDIA, MAX_METADATA, MAX_QUERY, MAX_URI, MediaKind, MediaRef};

/// The fields of an item, as a corpus names them.
pub(crate) const FIELDS: [&str; 10] =
    ["id", "video", "audio", "media", "query", "answer", "choices", "task", "sample", "metadata"];

impl TryFrom<Map<String, Value>> for Item {
    type Error = String;

    fn try_from(map: Map<String, Value>) -> Result<Self, String> {
        let mut fields = Fields::new(map, &FIELDS, "")?;
        let id = fields.text("id")?;
        if let Some(id) = &id {
            name_like("id", id)?;
        }
        let media = media(&mut fields)?;
        let query = fields.text("query")?.ok_or("query is missing")?;
        bounded("query", &query, MAX_QUERY)?;
        let answers = fields.texts("answer")?.unwrap_or_default();
        for answer in &answers {
            bounded("answer", answer, MAX_ANSWER)?;
        }
        let choices = fields.list("choices")?;
        if let Some(choices) = &choices {
            check_choices(choices)?;
        }
        let task = fields.text("task")?;
        if let Some(task) = &task {
            name_like("task", task)?;
        }
        let sample = fields.number("sample")?.unwrap_or(0);
        let metadata = fields.any("metadata");
        let size = metadata.to_string().len();
        if size > MAX_METADATA {
            return Err(format!("metadata has {size} bytes, more than {MAX_METADATA}"));
        }
        Ok(Self { id, media, query, answers, choices, task, sample, metadata })
    }
}

/// The media of an item, from `media` or from the shorthand.
fn media(fields: &mut Fields) -> Result<Vec<MediaRef>, String> {
    let video = fields.text("video")?;
    let audio = fields.text("audio")?;
    let Some(listed) = fields.array("media")? else {
        let own_track = audio.is_none();
        let shorthand = [(video, "video", MediaKind::Video, own_track), (audio, "audio", MediaKind::Audio, true)];
        let mut media = Vec::new();
        for (uri, name, kind, own_track) in shorthand {
            let Some(uri) = uri else { continue };
            check_uri(name, &uri)?;
            media.push(MediaRef { name: name.into(), kind, uri, resolved: None, own_track });
        }
        return if media.is_empty() {
            Err("no medium is given: name a video, an audio or media".into())
        } else {
            Ok(media)
        };
    };
    if video.is_some() || audio.is_some() {
        return Err("media is given beside video or audio: list all of them in media".into());
    }
    if listed.is_empty() || listed.len() > MAX_MEDIA {
        return Err(format!("media has {} entries, not 1 to {MAX_MEDIA}", listed.len()));
    }
    let mut media: Vec<MediaRef> = Vec::with_capacity(listed.len());
    for (index, value) in listed.into_iter().enumerate() {
        let medium = medium(value, index)?;
        if media.iter().any(|earlier| earlier.name == medium.name) {
            return Err(format!("media has two entries named {:?}", medium.name));
        }
        media.push(medium);
    }
    Ok(media)
}

/// One entry of `media`.
fn medium(value: Value, index: usize) -> Result<MediaRef, String> {
    let at = format!("media[{index}]");
    let Value::Object(map) = value else {
        return Err(format!("{at} is {}, not an object with name, kind and uri", fields::kind(&value)));
    };
    let mut fields = Fields::new(map, &["name", "kind", "uri", "own_track", "resolved"], &at)?;
    let name = fields.text("name")?.ok_or_else(|| format!("{at}.name is missing"))?;
    let simple = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name.is_empty() || name.len() > 64 || !name.chars().all(simple) {
        return Err(format!("{at}.name is {:?}, not 1 to 64 of A-Z a-z 0-9 _ . -", fields::excerpt(&name)));
    }
    let kind = match fields.text("kind")?.as_deref() {
        Some("video") => MediaKind::Video,
        Some("audio") => MediaKind::Audio,
        Some(other) => {
            return Err(format!("{at}.kind is {:?}, not video or audio", fields::excerpt(other)));
        }
        None => return Err(format!("{at}.kind is missing: video or audio")),
    };
    let uri = fields.text("uri")?.ok_or_else(|| format!("{at}.uri is missing"))?;
    check_uri(&format!("{at}.uri"), &uri)?;
    let own_track = fields.flag("own_track")?;
    if own_track.is_some() && kind == MediaKind::Audio {
        return Err(format!("{at}.own_track is given for an audio: it says whether a video's own sound is shown"));
    }
    let resolved = fields.text("resolved")?;
    Ok(MediaRef { name, kind, uri, resolved, own_track: own_track.unwrap_or(true) })
}

fn check_choices(choices: &[String]) -> Result<(), String> {
    if !(2..=64).contains(&choices.len()) {
        return Err(format!("choices has {} entries, not 2 to 64", choices.len()));
    }
    for (index, choice) in choices.iter().enumerate() {
        bounded("choices", choice, MAX_ANSWER)?;
        if choices[..index].iter().any(|earlier| earlier.trim() == choice.trim()) {
            return Err(format!("choices has {:?} twice", fields::excerpt(choice)));
        }
    }
    Ok(())
}

fn check_uri(field: &str, uri: &str) -> Result<(), String> {
    bounded(field, uri, MAX_URI)?;
    if uri.chars().any(char::is_control) {
        Err(format!("{field} holds a control character: {:?}", fields::excerpt(uri)))
    } else {
        Ok(())
    }
}

/// An id or a label: 1..=256 characters, not blank, no control characters.
fn name_like(field: &str, text: &str) -> Result<(), String> {
    let count = text.chars().count();
    if text.trim().is_empty() || count > 256 {
        return Err(format!("{field} has {count} characters, not 1 to 256, or is blank"));
    }
    if text.chars().any(char::is_control) {
        Err(format!("{field} holds a control character: {:?}", fields::excerpt(text)))
    } else {
        Ok(())
    }
}

fn bounded(field: &str, text: &str, most: usize) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err(format!("{field} is blank"));
    }
    if text.len() > most { Err(format!("{field} has {} bytes, more than {most}", text.len())) } else { Ok(()) }
}

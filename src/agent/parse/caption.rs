//! Captions: text by nature, so that anything which is not a wrapping around it stays as it is.

use super::relaxed::{self, Value};
use super::reply::{self, Reply};
use super::{Unusable, member, single};

const CAPTION: [&str; 3] = ["caption", "detailedcaption", "description"];

/// Reads a summarizer's reply: plain text, or the same in a fence, a JSON string, a `<caption>` tag or an object.
///
/// # Errors
/// It is blank, a broken object, or an object without a caption.
pub fn caption(text: &str) -> Result<String, Unusable> {
    let body = reply::body(text)?;
    if let Some(value) = relaxed::whole(body) {
        let found = match &value {
            Value::Text(text) => Some(text.clone()),
            Value::List(_) => match single(&value).and_then(Value::text) {
                Some(text) => Some(text.to_owned()),
                None => return Unusable::because("is a list, not a caption"),
            },
            Value::Object(_) => None,
            Value::Null => return Unusable::because("is null, not a caption"),
            Value::Bare(_) => Some(body.to_owned()),
        };
        if let Some(found) = found {
            return plain(&found);
        }
    }
    if !body.contains(['{', '[']) {
        return plain(body);
    }
    let starts_as_json = body.starts_with(['{', '[']);
    let reply = match Reply::read(text) {
        Ok(reply) => reply,
        Err(unusable) if starts_as_json => return Err(unusable),
        Err(_) => return plain(body),
    };
    let mut found = reply.objects_with(&CAPTION);
    found.dedup();
    match found.as_slice() {
        [object] => match member(object, &CAPTION)?.and_then(single).and_then(Value::text) {
            Some(text) => plain(text),
            None => Unusable::because("has a caption that is no text"),
        },
        [] if starts_as_json && reply.has_objects() => Unusable::because("holds no caption"),
        [] => plain(body),
        _ => Unusable::because("holds several different captions"),
    }
}

/// A caption without its label and the white space around it.
fn plain(text: &str) -> Result<String, Unusable> {
    let decoration: &[char] = &['*', '#', '_', ' '];
    let bare = text.trim();
    let head = bare.trim_start_matches(decoration);
    let labelled = head.get(..7).is_some_and(|label| label.eq_ignore_ascii_case("caption"));
    let rest = labelled.then(|| head[7..].trim_start_matches(decoration).strip_prefix(':')).flatten();
    let bare = rest.map_or(bare, |rest| rest.trim_start_matches(decoration).trim());
    if bare.chars().any(char::is_alphanumeric) { Ok(bare.to_owned()) } else { Unusable::because("is blank") }
}

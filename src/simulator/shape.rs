//! Strict JSON: a borrowed tree, and a check of it against a table of what a protocol allows.
//!
//! serde's own `deny_unknown_fields` stops with a message that names neither the path nor the kind of mistake, and the
//! real endpoints name both. So a request is read into a tree that borrows its strings from the body (a base64 blob is
//! never copied), and walked once against a static [`Shape`]; each protocol words the [`Problem`] as its own.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A JSON value that borrows from the text it was read from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Cow<'a, str>),
    List(Vec<Json<'a>>),
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

/// What is allowed at a place.
pub(crate) enum Shape {
    /// Anything at all.
    Any,
    Text,
    Bool,
    Int,
    Number,
    /// One of these names.
    Name(&'static [&'static str]),
    Object(&'static [(&'static str, &'static Shape)]),
    Map(&'static Shape),
    List(&'static Shape),
    /// A text, or else the other shape.
    TextOr(&'static Shape),
}

/// How names are matched, and what happens to unknown ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// proto-JSON: camelCase or snake_case, unknown ones refused, one value for a list of one, numbers as text.
    Proto,
    /// As written, unknown ones refused.
    Exact,
    /// As written, unknown ones ignored.
    Lenient,
}

/// The first mistake found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Problem {
    /// A name that does not exist at `path` (empty: the root).
    Unknown { path: String, name: String },
    /// A value of the wrong type.
    Type { path: String, wanted: &'static str, got: &'static str, value: String },
    /// A text that is none of the allowed names.
    Name { path: String, allowed: &'static [&'static str], got: String },
}

impl<'a> Json<'a> {
    /// The member `name` (camelCase; its snake_case is found too), unless it is null or missing.
    pub(crate) fn get(&self, name: &str) -> Option<&Json<'a>> {
        let Json::Object(members) = self else { return None };
        let (_, value) = members.iter().find(|(key, _)| same_name(key, name))?;
        (*value != Json::Null).then_some(value)
    }

    /// The text of the member `name`.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_text()
    }

    /// The number of the member `name`; proto-JSON also writes numbers as texts.
    pub(crate) fn number(&self, name: &str) -> Option<f64> {
        match self.get(name)? {
            #[expect(clippy::cast_precision_loss, reason = "token counts and temperatures are far below 2^52")]
            Json::Int(n) => Some(*n as f64),
            Json::Float(n) => Some(*n),
            Json::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// The whole number of the member `name`.
    pub(crate) fn int(&self, name: &str) -> Option<i64> {
        match self.get(name)? {
            Json::Int(n) => Some(*n),
            #[expect(clippy::cast_possible_truncation, reason = "a float-to-int cast saturates")]
            Json::Float(n) => Some(*n as i64),
            Json::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// The items of the member `name`; one value that is no list counts as a list of one.
    pub(crate) fn items(&self, name: &str) -> &[Json<'a>] {
        match self.get(name) {
            Some(Json::List(items)) => items,
            Some(one) => std::slice::from_ref(one),
            None => &[],
        }
    }

    /// Its text, if it is one.
    pub(crate) fn as_text(&self) -> Option<&str> {
        if let Json::Text(text) = self { Some(text) } else { None }
    }

    /// An owned copy for the slow paths (schemas).
    pub(crate) fn to_value(&self) -> serde_json::Value {
        match self {
            Json::Null => serde_json::Value::Null,
            Json::Bool(b) => (*b).into(),
            Json::Int(n) => (*n).into(),
            Json::Float(n) => (*n).into(),
            Json::Text(text) => text.as_ref().into(),
            Json::List(items) => items.iter().map(Json::to_value).collect(),
            Json::Object(members) => members.iter().map(|(key, value)| (key.to_string(), value.to_value())).collect(),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Json::Null => "null",
            Json::Bool(_) => "a boolean",
            Json::Int(_) => "an integer",
            Json::Float(_) => "a decimal",
            Json::Text(_) => "a string",
            Json::List(_) => "an array",
            Json::Object(_) => "an object",
        }
    }
}

/// `inline_data` for `inlineData`.
pub(crate) fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// Whether `given` is `name` or its snake_case.
fn same_name(given: &str, name: &str) -> bool {
    given == name || (given.contains('_') && given == snake(name))
}

/// Walks `json` against `shape`; the first mistake in reading order is returned.
pub(crate) fn check(json: &Json<'_>, shape: &Shape, names: Names) -> Result<(), Problem> {
    walk(json, shape, names, &mut String::new())
}

fn walk(json: &Json<'_>, shape: &Shape, names: Names, path: &mut String) -> Result<(), Problem> {
    match (shape, json) {
        (Shape::Any, _)
        | (_, Json::Null)
        | (Shape::Text | Shape::TextOr(_), Json::Text(_))
        | (Shape::Bool, Json::Bool(_))
        | (Shape::Int, Json::Int(_))
        | (Shape::Number, Json::Int(_) | Json::Float(_)) => Ok(()),
        (Shape::Int | Shape::Number, _) if names == Names::Proto && is_spelled(json, shape) => Ok(()),
        (Shape::Name(allowed), Json::Text(got)) if allowed.contains(&got.as_ref()) => Ok(()),
        (Shape::Name(allowed), Json::Text(got)) => Err(Problem::Name { path: path.clone(), allowed, got: clip(got) }),
        (Shape::TextOr(other), _) => walk(json, other, names, path),
        (Shape::Object(fields), Json::Object(members)) => walk_object(members, fields, names, path),
        (Shape::Map(inner), Json::Object(members)) => members
            .iter()
            .try_for_each(|(key, value)| step(path, &format!(".{key}"), |path| walk(value, inner, names, path))),
        (Shape::List(inner), Json::List(items)) => items
            .iter()
            .enumerate()
            .try_for_each(|(at, item)| step(path, &format!("[{at}]"), |path| walk(item, inner, names, path))),
        (Shape::List(inner), _) if names == Names::Proto => walk(json, inner, names, path),
        _ => Err(mismatch(json, shape, path)),
    }
}

/// Whether a number is written in one of proto-JSON's other ways: as a text, or a whole number with a point.
fn is_spelled(json: &Json<'_>, shape: &Shape) -> bool {
    match (shape, json) {
        (Shape::Int, Json::Text(text)) => text.parse::<i64>().is_ok(),
        (Shape::Int, Json::Float(n)) => n.fract() == 0.0,
        (_, Json::Text(text)) => text.parse::<f64>().is_ok(),
        _ => false,
    }
}

fn walk_object(
    members: &[(Cow<'_, str>, Json<'_>)],
    fields: &'static [(&'static str, &'static Shape)],
    names: Names,
    path: &mut String,
) -> Result<(), Problem> {
    for (key, value) in members {
        let known = fields.iter().find(|(name, _)| key == name || (names == Names::Proto && same_name(key, name)));
        match known {
            Some((name, inner)) => step(path, &format!(".{name}"), |path| walk(value, inner, names, path))?,
            None if names == Names::Lenient => {}
            None => return Err(Problem::Unknown { path: path.clone(), name: clip(key) }),
        }
    }
    Ok(())
}

/// Runs `inner` with `tail` added to the path.
fn step<T>(path: &mut String, tail: &str, inner: impl FnOnce(&mut String) -> T) -> T {
    let before = path.len();
    path.push_str(if path.is_empty() { tail.trim_start_matches('.') } else { tail });
    let out = inner(path);
    path.truncate(before);
    out
}

fn mismatch(json: &Json<'_>, shape: &Shape, path: &str) -> Problem {
    let wanted = match shape {
        Shape::Any | Shape::Text | Shape::Name(_) => "a string",
        Shape::Bool => "a boolean",
        Shape::Int => "an integer",
        Shape::Number => "a decimal",
        Shape::Object(_) | Shape::Map(_) => "an object",
        Shape::List(_) => "an array",
        Shape::TextOr(_) => "one of a string or array of objects",
    };
    let value = match json {
        Json::Text(text) => format!("\"{}\"", clip(text)),
        other => clip(&other.to_value().to_string()),
    };
    Problem::Type { path: path.to_owned(), wanted, got: json.kind(), value }
}

/// At most 40 characters of a text, so that an error never carries a blob.
pub(crate) fn clip(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Json<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Tree)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Json::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        #[expect(clippy::cast_precision_loss, reason = "beyond i64 it is no count any more")]
        Ok(i64::try_from(value).map_or(Json::Float(value as f64), Json::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Json::Float(value))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Json::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Json::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Json::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((Text(key), value)) = map.next_entry::<Text<'de>, Json<'de>>()? {
            members.push((key, value));
        }
        Ok(Json::Object(members))
    }
}

/// A key, borrowed where it has no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Json::deserialize(deserializer)? {
            Json::Text(text) => Ok(Text(text)),
            _ => Err(serde::de::Error::custom("a key is no string")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static PART: Shape = Shape::Object(&[("inlineData", &Shape::Any), ("text", &Shape::Text)]);
    static ROOT: Shape = Shape::Object(&[("parts", &Shape::List(&PART)), ("topK", &Shape::Int)]);

    fn problem(text: &str, names: Names) -> Result<(), Problem> {
        check(&serde_json::from_str(text).unwrap(), &ROOT, names)
    }

    #[test]
    fn proto_names_come_in_both_spellings_and_numbers_as_text() {
        let text = r#"{"parts":[{"inline_data":1},{"inlineData":1}],"top_k":"40"}"#;
        assert_eq!(problem(text, Names::Proto), Ok(()));
        assert!(matches!(problem(text, Names::Exact), Err(Problem::Unknown { path, .. }) if path == "parts[0]"));
    }

    #[test]
    fn an_unknown_name_is_reported_with_its_path() {
        let found = problem(r#"{"parts":[{"text":"x"},{"txt":"y"}]}"#, Names::Proto);
        assert_eq!(found, Err(Problem::Unknown { path: "parts[1]".into(), name: "txt".into() }));
        assert_eq!(problem(r#"{"parts":[{"txt":"y"}]}"#, Names::Lenient), Ok(()));
    }

    #[test]
    fn a_wrong_type_is_reported_with_both_types() {
        let found = problem(r#"{"parts":[{"text":5}]}"#, Names::Exact).unwrap_err();
        assert!(
            matches!(found, Problem::Type { path, wanted: "a string", got: "an integer", .. } if path == "parts[0].text")
        );
    }

    #[test]
    fn strings_without_escapes_are_borrowed() {
        let Json::Object(members) = serde_json::from_str(r#"{"a":"long blob"}"#).unwrap() else { panic!() };
        assert!(matches!(members[0].1, Json::Text(Cow::Borrowed("long blob"))));
    }
}

//! Finds the objects of a reply and the prose around them.
//!
//! A brace that is followed by a key and a colon is an object; if it then cannot be read, the whole reply is unusable:
//! looking further inside would take a part of a broken object for the whole. Any other brace is prose. Attempts are
//! counted, so that a reply of nothing but braces costs no more than its length times a constant.

use super::relaxed::{self, Broken, Value};
use super::{MAX_REPLY, Members, Unusable};

/// Most braces of prose that are tried.
const ATTEMPTS: usize = 1024;

/// A reply taken apart.
pub(super) struct Reply<'a> {
    /// Without thoughts, fences and quotes around all of it.
    pub(super) body: &'a str,
    /// The body without its objects.
    pub(super) prose: String,
    objects: Vec<Value>,
}

impl<'a> Reply<'a> {
    pub(super) fn read(text: &'a str) -> Result<Self, Unusable> {
        let body = body(text)?;
        // An object written as a JSON string, the whole reply being that string.
        let inner = match relaxed::whole(body) {
            Some(Value::Text(inner)) if inner.contains('{') => Some(inner),
            _ => None,
        };
        let (objects, prose) = objects(inner.as_deref().unwrap_or(body))?;
        Ok(Self { body, prose, objects })
    }

    pub(super) fn has_objects(&self) -> bool {
        !self.objects.is_empty()
    }

    /// Every object that has a member under any of the names, those within others included.
    pub(super) fn every_object_with(&self, names: &[&str]) -> Vec<&Members> {
        let mut found = Vec::new();
        for object in &self.objects {
            walk(object, &mut |members| {
                if has(members, names) {
                    found.push(members);
                }
                Go::Deeper
            });
        }
        found
    }

    /// The outermost objects that have a member under any of the names, at any depth, in order.
    pub(super) fn objects_with(&self, names: &[&str]) -> Vec<&Members> {
        let mut found = Vec::new();
        for object in &self.objects {
            walk(object, &mut |members| {
                if !has(members, names) {
                    return Go::Deeper;
                }
                found.push(members);
                Go::Past
            });
        }
        found
    }
}

/// A key with case, white space and punctuation aside.
pub(super) fn normal(key: &str) -> String {
    key.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// The reply without leading thoughts (`<think>`, as open models served raw write them), a fence or a `<caption>` tag
/// around all of it.
pub(super) fn body(text: &str) -> Result<&str, Unusable> {
    if text.len() > MAX_REPLY {
        return Unusable::because(format!("has {} bytes, more than {MAX_REPLY}", text.len()));
    }
    let mut body = text.trim_start_matches('\u{FEFF}').trim();
    if let Some(thoughts) = body.strip_prefix("<think>") {
        match thoughts.split_once("</think>") {
            Some((_, rest)) => body = rest.trim(),
            None => return Unusable::because("ends within its thoughts"),
        }
    }
    body = unfenced(body);
    if let Some(inner) = body.strip_prefix("<caption>").and_then(|rest| rest.strip_suffix("</caption>"))
        && !inner.contains("<caption>")
    {
        body = inner.trim();
    }
    if body.is_empty() { Unusable::because("is blank") } else { Ok(body) }
}

fn unfenced(body: &str) -> &str {
    let Some(inner) = body.strip_prefix("```").and_then(|rest| rest.strip_suffix("```")) else {
        return body;
    };
    if inner.contains("```") {
        return body;
    }
    let language = |c: char| c.is_ascii_alphanumeric() || "+-_".contains(c);
    match inner.split_once('\n') {
        Some((head, rest)) if head.trim().chars().all(language) => rest.trim(),
        _ => inner.trim(),
    }
}

fn objects(body: &str) -> Result<(Vec<Value>, String), Unusable> {
    let mut objects = Vec::new();
    let mut prose = String::new();
    let mut from = 0;
    let mut search = 0;
    let mut attempts = 0;
    while let Some(found) = body[search..].find('{') {
        let start = search + found;
        match relaxed::object_at(body, start) {
            Ok((value, end)) => {
                prose.push_str(&body[from..start]);
                prose.push('\n');
                objects.push(value);
                (from, search) = (end, end);
            }
            Err(Broken::Begun) => {
                return Unusable::because("holds an object that is broken or cut");
            }
            Err(Broken::Prose) => {
                attempts += 1;
                if attempts > ATTEMPTS {
                    return Unusable::because(format!("holds more than {ATTEMPTS} braces that begin no object"));
                }
                search = start + 1;
            }
        }
    }
    prose.push_str(&body[from..]);
    Ok((objects, prose))
}

enum Go {
    Deeper,
    Past,
}

fn has(members: &Members, names: &[&str]) -> bool {
    members.iter().any(|(key, _)| names.contains(&normal(key).as_str()))
}

fn walk<'a>(value: &'a Value, visit: &mut impl FnMut(&'a Members) -> Go) {
    match value {
        Value::Object(members) => {
            if let Go::Deeper = visit(members) {
                for (_, inner) in members {
                    walk(inner, visit);
                }
            }
        }
        Value::List(list) => {
            for inner in list {
                walk(inner, visit);
            }
        }
        _ => {}
    }
}

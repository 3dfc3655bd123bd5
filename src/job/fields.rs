//! Takes typed fields out of a JSON object, one by one, with refusals that name the field.
//!
//! Every unknown field is refused first and together with the known ones: a misspelt `anwser` would otherwise cost a
//! whole corpus its answer check without a word. NUL is refused in every text, since state files, Parquet readers and
//! databases downstream each cut or reject it in their own way; metadata are not looked into.

use serde_json::{Map, Value};

/// The fields of one object that are still to be read.
pub(super) struct Fields {
    map: Map<String, Value>,
    at: String,
}

impl Fields {
    /// Refuses unknown fields. `at` is where the object stands, empty for the line itself.
    pub(super) fn new(map: Map<String, Value>, known: &[&str], at: &str) -> Result<Self, String> {
        let at = if at.is_empty() { String::new() } else { format!("{at}.") };
        let unknown: Vec<String> = map
            .keys()
            .filter(|key| !known.contains(&key.as_str()))
            .take(5)
            .map(|key| format!("{:?}", format!("{at}{}", excerpt(key))))
            .collect();
        if !unknown.is_empty() {
            return Err(format!("unknown field {} (known: {})", unknown.join(", "), known.join(", ")));
        }
        Ok(Self { map, at })
    }

    /// Whatever stands there; null when nothing does.
    pub(super) fn any(&mut self, field: &str) -> Value {
        self.map.remove(field).unwrap_or(Value::Null)
    }

    pub(super) fn text(&mut self, field: &str) -> Result<Option<String>, String> {
        match self.any(field) {
            Value::Null => Ok(None),
            Value::String(text) => self.without_nul(field, text).map(Some),
            other => Err(self.wrong(field, &other, "a string")),
        }
    }

    /// One string or a list of strings that is not empty.
    pub(super) fn texts(&mut self, field: &str) -> Result<Option<Vec<String>>, String> {
        match self.any(field) {
            Value::String(text) => self.without_nul(field, text).map(|text| Some(vec![text])),
            Value::Array(list) if !list.is_empty() => self.strings(field, list).map(Some),
            Value::Null => Ok(None),
            other => Err(self.wrong(field, &other, "a string or a list of strings")),
        }
    }

    pub(super) fn list(&mut self, field: &str) -> Result<Option<Vec<String>>, String> {
        match self.array(field)? {
            Some(list) => self.strings(field, list).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn array(&mut self, field: &str) -> Result<Option<Vec<Value>>, String> {
        match self.any(field) {
            Value::Null => Ok(None),
            Value::Array(list) => Ok(Some(list)),
            other => Err(self.wrong(field, &other, "a list")),
        }
    }

    pub(super) fn flag(&mut self, field: &str) -> Result<Option<bool>, String> {
        match self.any(field) {
            Value::Null => Ok(None),
            Value::Bool(flag) => Ok(Some(flag)),
            other => Err(self.wrong(field, &other, "true or false")),
        }
    }

    pub(super) fn number(&mut self, field: &str) -> Result<Option<u32>, String> {
        let value = self.any(field);
        match value.as_u64().and_then(|number| u32::try_from(number).ok()) {
            Some(number) => Ok(Some(number)),
            None if value.is_null() => Ok(None),
            None => Err(format!("{}{field} is {}, not a whole number from 0 to {}", self.at, shown(&value), u32::MAX)),
        }
    }

    fn strings(&self, field: &str, list: Vec<Value>) -> Result<Vec<String>, String> {
        list.into_iter()
            .map(|value| match value {
                Value::String(text) => self.without_nul(field, text),
                other => Err(format!("{}{field} holds {}, not only strings", self.at, kind(&other))),
            })
            .collect()
    }

    fn without_nul(&self, field: &str, text: String) -> Result<String, String> {
        if text.contains('\0') { Err(format!("{}{field} holds a NUL character", self.at)) } else { Ok(text) }
    }

    fn wrong(&self, field: &str, value: &Value, right: &str) -> String {
        format!("{}{field} is {}, not {right}", self.at, kind(value))
    }
}

/// What kind of JSON a value is, with its article.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(list) if list.is_empty() => "an empty list",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The first 60 characters of a text, for messages.
pub(super) fn excerpt(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        other => kind(other).to_owned(),
    }
}

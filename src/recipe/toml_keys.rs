//! Takes typed values out of TOML tables and collects every mistake instead of stopping at the first.
//!
//! A wrong or missing key is noted and answered with a stand-in, so that the rest is still looked at; nobody sees the
//! stand-in, since a walk with problems never gives a recipe.

use toml::{Table, Value};

/// The keys of one table that are still to be read.
pub(super) struct Keys<'a> {
    table: Table,
    at: String,
    problems: &'a mut Vec<String>,
    asked: Vec<&'static str>,
}

impl<'a> Keys<'a> {
    /// `at` is where the table stands, empty for the file itself.
    pub(super) fn new(table: Table, at: &str, problems: &'a mut Vec<String>) -> Self {
        let at = if at.is_empty() { String::new() } else { format!("{at}.") };
        Self { table, at, problems, asked: Vec::new() }
    }

    pub(super) fn problem(&mut self, problem: &str) {
        self.problems.push(format!("{}{problem}", self.at));
    }

    /// A value of any type, if it is there.
    pub(super) fn optional(&mut self, key: &'static str) -> Option<Value> {
        self.asked.push(key);
        self.table.remove(key)
    }

    fn required(&mut self, key: &'static str) -> Option<Value> {
        let value = self.optional(key);
        if value.is_none() {
            self.problem(&format!("{key} is missing"));
        }
        value
    }

    /// A whole number that fits `T`; the range itself is checked later.
    pub(super) fn whole<T: TryFrom<i64>>(&mut self, key: &'static str, stand_in: T) -> T {
        let Some(value) = self.required(key) else {
            return stand_in;
        };
        let number = value.as_integer().and_then(|number| T::try_from(number).ok());
        number.unwrap_or_else(|| {
            self.problem(&format!("{key} is {}, not a whole number of its range", shown(&value)));
            stand_in
        })
    }

    pub(super) fn flag(&mut self, key: &'static str) -> bool {
        let Some(value) = self.required(key) else {
            return false;
        };
        value.as_bool().unwrap_or_else(|| {
            self.problem(&format!("{key} is {}, not true or false", shown(&value)));
            false
        })
    }

    /// A number, whole or not, if it is there.
    pub(super) fn fraction(&mut self, key: &'static str) -> Option<f64> {
        let value = self.optional(key)?;
        #[expect(clippy::cast_precision_loss, reason = "what is in range is exact")]
        let number = value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64));
        if number.is_none() {
            self.problem(&format!("{key} is {}, not a number", shown(&value)));
        }
        number
    }

    /// A string, if it is there.
    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        let value = self.optional(key)?;
        match value {
            Value::String(text) => Some(text),
            other => {
                self.problem(&format!("{key} is {}, not a string", shown(&other)));
                None
            }
        }
    }

    /// A string that must be there.
    pub(super) fn needed_text(&mut self, key: &'static str) -> Option<String> {
        if !self.table.contains_key(key) {
            self.required(key);
            return None;
        }
        self.text(key)
    }

    /// A table that must be there.
    pub(super) fn table(&mut self, key: &'static str) -> Option<Table> {
        match self.required(key)? {
            Value::Table(table) => Some(table),
            other => {
                self.problem(&format!("{key} is {}, not a table", shown(&other)));
                None
            }
        }
    }

    /// A value read by serde that must be there; `right` says what it can be.
    pub(super) fn value<T: serde::de::DeserializeOwned>(&mut self, key: &'static str, right: &str) -> Option<T> {
        let value = self.required(key)?;
        let shown = shown(&value);
        let read = value.try_into().ok();
        if read.is_none() {
            self.problem(&format!("{key} is {shown}, not {right}"));
        }
        read
    }

    /// The same, if it is there.
    pub(super) fn optional_value<T: serde::de::DeserializeOwned>(
        &mut self,
        key: &'static str,
        right: &str,
    ) -> Option<T> {
        self.asked.push(key);
        if self.table.contains_key(key) { self.value(key, right) } else { None }
    }

    /// Notes every key nobody asked for.
    pub(super) fn finish(self) {
        for key in self.table.keys() {
            self.problems.push(format!("{}{key} is unknown (known: {})", self.at, self.asked.join(", ")));
        }
    }
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::Table(_) => "a table".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        other => other.to_string(),
    };
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

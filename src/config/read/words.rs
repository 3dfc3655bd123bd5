//! Settings that are words: strings, lists of them, choices, amounts, globs.
//!
//! What may turn out to be a secret is read unshown, and shown by its reader once it has been judged.

use globset::{GlobBuilder, GlobMatcher};

use super::{Located, Section, as_list, display};
use crate::config::tree::Value;

impl Section<'_> {
    /// A string; empty if it is missing or wrong.
    pub(in crate::config) fn text(&mut self, name: &'static str) -> Located<String> {
        let origin = self.origin.clone();
        self.optional_text(name).unwrap_or_else(|| {
            self.missing(name);
            Located { value: String::new(), origin }
        })
    }

    /// A string, if it is there.
    pub(in crate::config) fn optional_text(&mut self, name: &'static str) -> Option<Located<String>> {
        let mut node = self.take(name)?;
        if let Value::Raw(text) = node.value {
            node.value = Value::Text(text);
        }
        self.show(name, &node);
        let origin = node.origin.clone();
        if let Value::Text(value) = node.value {
            return Some(Located { value, origin });
        }
        self.refuse(name, &node, "must be a string: put it in quotes".to_owned());
        Some(Located { value: String::new(), origin })
    }

    /// A string that is not shown, since it may hold a secret until it is judged.
    pub(in crate::config) fn unshown_text(&mut self, name: &'static str) -> Option<Located<String>> {
        let node = self.take(name)?;
        if let Value::Text(value) | Value::Raw(value) = node.value {
            return Some(Located { value, origin: node.origin });
        }
        self.sink.mistake(&self.key(name), None, &node.origin, "must be a string: put it in quotes");
        None
    }

    /// A string or a list of strings; not shown, since keys are pasted where names belong.
    pub(in crate::config) fn unshown_texts(&mut self, name: &'static str) -> Option<Located<Vec<String>>> {
        let node = self.take(name)?;
        let node = match &node.value {
            Value::Raw(text) if text.trim_start().starts_with('[') => as_list(node),
            _ => node,
        };
        let origin = node.origin.clone();
        let nodes = match node.value {
            Value::List(nodes) => nodes,
            _ => vec![node],
        };
        let mut texts = Vec::new();
        for node in nodes {
            if let Value::Text(text) | Value::Raw(text) = node.value {
                texts.push(text);
            } else {
                self.sink.mistake(&self.key(name), None, &node.origin, "must be a string or a list of strings");
            }
        }
        Some(Located { value: texts, origin })
    }

    /// One of a few words.
    pub(in crate::config) fn choice<T: Copy>(&mut self, name: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(name);
        let found = choices.iter().find(|(word, _)| *word == text.value).map(|(_, choice)| *choice);
        if found.is_none() && !self.sink.blames(&self.key(name)) {
            let words: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
            let message = format!("must be one of {}", words.join(", "));
            self.sink.mistake(&self.key(name), Some(format!("{:?}", text.value)), &text.origin, message);
        }
        found
    }

    /// An amount of dollars as text, integer or float, exactly as written.
    pub(in crate::config) fn decimal(&mut self, name: &'static str) -> Option<Located<String>> {
        let node = self.required(name)?;
        let origin = node.origin.clone();
        match node.value {
            Value::Text(value) | Value::Raw(value) | Value::Float(value) => Some(Located { value, origin }),
            Value::Integer(number) => Some(Located { value: number.to_string(), origin }),
            _ => {
                let message = "must be an amount of dollars, for example \"12.50\"";
                self.sink.mistake(&self.key(name), Some(display(&node)), &origin, message);
                None
            }
        }
    }

    /// A glob of model names; `{,-a}` may be empty on one side. Also as written.
    pub(in crate::config) fn glob(&mut self, name: &'static str) -> Option<(Located<String>, GlobMatcher)> {
        let pattern = self.text(name);
        if pattern.value.is_empty() {
            let message = "is empty: write a model's name, or \"*\" for all";
            if self.sink.blames(&self.key(name)) {
                return None;
            }
            self.sink.mistake(&self.key(name), None, &pattern.origin, message);
            return None;
        }
        match GlobBuilder::new(&pattern.value).empty_alternates(true).build() {
            Ok(glob) => Some((pattern, glob.compile_matcher())),
            Err(error) => {
                let message = format!("is not a glob: {}", error.kind());
                self.sink.mistake(&self.key(name), Some(format!("{:?}", pattern.value)), &pattern.origin, message);
                None
            }
        }
    }
}

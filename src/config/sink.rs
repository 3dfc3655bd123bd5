//! What reading a configuration leaves behind: mistakes, warnings, and what is to be shown.
//!
//! Readers share it by reference while they walk the tree, hence the cells; it never leaves the thread.

use std::cell::RefCell;

use super::mistake::Mistake;
use super::tree::Origin;

/// One effective setting, ready to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Dotted key, for example `retry.base_ms` or `limits[0]`.
    pub key: String,
    /// The value as TOML; a secret is named, never shown.
    pub value: String,
    /// Where it was set.
    pub origin: Origin,
}

/// What reading leaves behind besides the configuration.
#[derive(Default)]
pub(super) struct Sink {
    pub(super) mistakes: RefCell<Vec<Mistake>>,
    pub(super) warnings: RefCell<Vec<String>>,
    pub(super) entries: RefCell<Vec<Entry>>,
}

impl Sink {
    pub(super) fn mistake(&self, key: &str, value: Option<String>, origin: &Origin, message: impl Into<String>) {
        self.mistakes.borrow_mut().push(Mistake::new(key, value, origin.clone(), message));
    }

    /// Whether this setting has a mistake already.
    pub(super) fn blames(&self, key: &str) -> bool {
        self.mistakes.borrow().iter().any(|mistake| mistake.key == key)
    }

    /// A mistake of a setting that was read before and is already shown.
    pub(super) fn conflict(&self, key: &str, message: impl Into<String>) {
        if let Some(entry) = self.shown(key) {
            self.mistake(key, Some(entry.value), &entry.origin, message);
        }
    }

    /// A mistake of two settings that were read before, of which the first must not be above the second. The one that
    /// is not the default is blamed.
    pub(super) fn out_of_order(&self, low: &str, high: &str) {
        let (Some(first), Some(second)) = (self.shown(low), self.shown(high)) else {
            return;
        };
        let message = format!(
            "but {low} ({}) must not be above {high} ({}): lower the former, or raise the latter",
            first.value, second.value
        );
        let blamed = if first.origin == Origin::Default { second } else { first };
        self.mistake(&blamed.key, Some(blamed.value), &blamed.origin, message);
    }

    /// A setting as shown, unless it has a mistake already.
    fn shown(&self, key: &str) -> Option<Entry> {
        self.entries.borrow().iter().find(|entry| entry.key == key).filter(|_| !self.blames(key)).cloned()
    }

    pub(super) fn warning(&self, message: impl Into<String>) {
        self.warnings.borrow_mut().push(message.into());
    }

    pub(super) fn entry(&self, key: String, value: String, origin: &Origin) {
        self.entries.borrow_mut().push(Entry { key, value, origin: origin.clone() });
    }
}

//! What is wrong with a configuration, all of it at once.
//!
//! A mistake names the key, the value, where it was set and the way out. Stopping at the first one was rejected: a
//! fleet's configuration is tried once per rollout, not once per key. A value that may hold a secret is left out where the
//! mistake is made, not where it is shown.

use std::fmt;

use super::tree::Origin;

/// Longest value shown, in characters.
const SHOWN: usize = 80;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Dotted key; empty for a file as a whole.
    pub key: String,
    /// The value as written; none where it may be a secret or there is none.
    pub value: Option<String>,
    /// Where it was set.
    pub origin: Origin,
    /// What is wrong and the way out.
    pub message: String,
}

impl Mistake {
    pub(super) fn new(key: &str, value: Option<String>, origin: Origin, message: impl Into<String>) -> Self {
        // A quoted TOML key can hold anything, also what drives a terminal.
        let key = key.replace(char::is_control, "?");
        Self { key, value, origin, message: message.into() }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(f, "{} ", self.key)?;
        }
        if let Some(value) = &self.value {
            let cut: String = value.chars().take(SHOWN).collect();
            let rest = if cut.len() < value.len() { "..." } else { "" };
            write!(f, "= {cut}{rest} ")?;
        }
        f.write_str(&self.message)
    }
}

/// Everything that is wrong, in the order of the settings. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "the configuration has {count} mistake{}", if count == 1 { "" } else { "s" })?;
        for (number, mistake) in self.0.iter().enumerate() {
            write!(f, "\n{:>3}. {mistake}", number + 1)?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// The candidate that `word` was probably meant to be: at most a third of its letters (and at least one) differ.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= allowed || candidate.starts_with(word) && word.len() > 2)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Letters to insert, delete or replace (Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (above, letter) in left.chars().enumerate() {
        let mut diagonal = above;
        row[0] = above + 1;
        for (column, other) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_word_finds_its_nearest_and_a_strange_one_nothing() {
        let words = ["concurrency", "attempts", "api_key_env", "api_key_file"];
        for (word, found) in [
            ("concurency", Some("concurrency")),
            ("attempt", Some("attempts")),
            ("api_key", Some("api_key_env")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, words), found, "{word}");
        }
    }

    #[test]
    fn all_mistakes_are_listed_and_numbered() {
        let mistake = |key| Mistake::new(key, Some("0".into()), Origin::Default, "is too small");
        assert_eq!(
            Mistakes(vec![mistake("a.b"), mistake("c")]).to_string(),
            "the configuration has 2 mistakes\n  1. default: a.b = 0 is too small\n  2. default: c = 0 is too small"
        );
    }
}

//! What both protocols' failures have in common: the table of statuses, and how a provider's words become a message.
//!
//! A message is for a log line and a record, and the words in it come from outside: one line, no control characters,
//! cut to [`LONGEST_WORDS`], and without the credential, which some providers and proxies echo. The status is only the
//! first guess; each protocol refines it by its own codes.

use std::time::Duration;

use serde_json::Value;

use super::{Billed, CallError, CallErrorKind};
use crate::quota::NamedLimit;

/// Longest quote of a provider, in characters.
pub const LONGEST_WORDS: usize = 300;

/// Most bytes of an error answer that are looked at.
pub const LONGEST_ERROR_BODY: usize = 256 * 1024;

/// The most tokens one counter is believed: a hundred times the largest context any model has. A report beyond it is a
/// server's mistake, and believed it would empty budgets and stop accounts for months.
pub const MOST_TOKENS: u64 = 1_000_000_000;

/// A failure of an answered call: nothing was billed.
pub(crate) fn answered(kind: CallErrorKind, message: String, retry_after: Option<Duration>) -> CallError {
    CallError { kind, billed: Billed::No, message, retry_after, limit: NamedLimit::default() }
}

/// A reply with a success status that cannot be read: it may well have been paid for.
pub(crate) fn unreadable(status: u16, bytes: &[u8]) -> CallError {
    CallError {
        kind: CallErrorKind::Unavailable,
        billed: Billed::Unknown,
        message: format!("status {status} with a body that is no reply: {}", page(bytes)),
        retry_after: None,
        limit: NamedLimit::default(),
    }
}

/// What a status means where nothing better is known.
///
/// 402 and 407 are somebody's account, not the item; 425 and 499 ask for another attempt, as 408 and 409 do; an answer
/// outside 400..=499 is the server's own trouble (a redirect is none we follow).
pub fn kind_of(status: u16) -> CallErrorKind {
    match status {
        401 | 402 | 403 | 407 => CallErrorKind::KeyRefused,
        404 | 410 => CallErrorKind::ModelUnknown,
        429 => CallErrorKind::Throttled,
        408 | 409 | 425 | 499 => CallErrorKind::Unavailable,
        400..=498 => CallErrorKind::Refused,
        _ => CallErrorKind::Unavailable,
    }
}

/// One line of at most [`LONGEST_WORDS`] characters: white space and control characters become single spaces.
pub fn words(text: &str) -> String {
    let hidden =
        |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    let parts = text.split(|c: char| c.is_whitespace() || c.is_control() || hidden(c)).filter(|word| !word.is_empty());
    let mut line = String::new();
    let mut length = 0;
    for word in parts {
        let space = (length > 0).then_some(' ');
        for c in space.into_iter().chain(word.chars()) {
            if length == LONGEST_WORDS {
                line.push('…');
                return line;
            }
            line.push(c);
            length += 1;
        }
    }
    line
}

/// The text with a secret taken out: whole, or as the part of it that a cut left at the end.
pub fn redact(text: &str, secret: &str) -> String {
    if secret.is_empty() {
        return text.to_owned();
    }
    let clean = text.replace(secret, "[key]");
    let body = clean.strip_suffix('…').unwrap_or(&clean);
    let cut =
        secret.char_indices().map(|(at, _)| &secret[..at]).rev().find(|part| part.len() >= 4 && body.ends_with(part));
    match cut {
        Some(part) if clean.len() > body.len() => {
            format!("{}[key]…", &body[..body.len() - part.len()])
        }
        _ => clean,
    }
}

/// JSON of a body, however it came: with a byte order mark, with broken UTF-8, or as a list of one
/// (Gemini's streaming endpoints wrap errors so).
pub(crate) fn json(bytes: &[u8]) -> Option<Value> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let value =
        serde_json::from_slice(bytes).or_else(|_| serde_json::from_str(&String::from_utf8_lossy(bytes))).ok()?;
    match value {
        Value::Array(mut list) if list.len() == 1 => list.pop(),
        value => Some(value),
    }
}

/// The words of a body that is not the JSON we know: a page's title, or its text without tags.
pub(crate) fn page(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(LONGEST_ERROR_BODY)]);
    let lower = text.to_ascii_lowercase();
    let title = lower.find("<title").and_then(|start| {
        let from = start + lower[start..].find('>')? + 1;
        let to = from + lower[from..].find("</title")?;
        text.get(from..to)
    });
    let found = match title {
        Some(title) => words(title),
        None if text.trim_start().starts_with('<') => words(&without_tags(&text)),
        None => words(&text),
    };
    if found.is_empty() { "(an empty body)".to_owned() } else { found }
}

/// A count in a usage report: numbers, and numbers in strings; anything else, negatives too, is 0. What is above
/// [`MOST_TOKENS`] counts as that.
pub(crate) fn count(object: &Value, key: &str) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float counter saturates, and a negative one is 0"
    )]
    let reported: u64 = match &object[key] {
        Value::Number(number) => number.as_u64().or_else(|| number.as_f64().map(|float| float as u64)).unwrap_or(0),
        Value::String(text) => text.trim().parse().unwrap_or(0),
        _ => 0,
    };
    reported.min(MOST_TOKENS)
}

/// A text of a reply, if it is one and not blank.
pub(crate) fn named(object: &Value, key: &str) -> Option<String> {
    object[key].as_str().map(words).filter(|text| !text.is_empty())
}

fn without_tags(text: &str) -> String {
    let mut plain = String::new();
    let mut inside = false;
    for c in text.chars() {
        match c {
            '<' => inside = true,
            '>' => {
                inside = false;
                plain.push(' ');
            }
            c if !inside => plain.push(c),
            _ => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_are_one_short_line_without_control_characters() {
        assert_eq!(words("  a\r\n\tb\u{1b}[31mc\u{202e}d\0 "), "a b [31mc d");
        let long = words(&"ä".repeat(1000));
        assert_eq!(long.chars().count(), LONGEST_WORDS + 1);
        assert!(long.ends_with('…'));
        assert_eq!(words(&"ab ".repeat(1000)).chars().count(), LONGEST_WORDS + 1);
    }

    #[test]
    fn a_secret_is_taken_out_whole_and_where_a_cut_left_its_beginning() {
        assert_eq!(redact("key sk-secret-1 and sk-secret-1", "sk-secret-1"), "key [key] and [key]");
        assert_eq!(redact("your key sk-sec…", "sk-secret-1"), "your key [key]…");
        assert_eq!(redact("nothing here", ""), "nothing here");
        assert_eq!(redact("ends with sk-s", "sk-secret-1"), "ends with sk-s");
    }

    #[test]
    fn pages_are_quoted_by_their_title_or_their_text() {
        for (body, quoted) in [
            ("<html><head><title>502 Bad\nGateway</title></head><body>x</body></html>", "502 Bad Gateway"),
            ("<h1>Service</h1> <b>Unavailable</b>", "Service Unavailable"),
            ("upstream connect error", "upstream connect error"),
            ("", "(an empty body)"),
            ("<title>unclosed", "unclosed"),
        ] {
            assert_eq!(page(body.as_bytes()), quoted, "{body}");
        }
    }

    #[test]
    fn counters_that_are_no_counts_are_zero_and_absurd_ones_are_cut() {
        let usage = serde_json::json!({"a": 5, "b": "7", "c": -3, "d": 2.9, "e": null, "f": [], "g": 1e300, "i": 10_000_000_000_000_u64});
        let counts: Vec<u64> =
            ["a", "b", "c", "d", "e", "f", "g", "h", "i"].iter().map(|key| count(&usage, key)).collect();
        assert_eq!(counts, [5, 7, 0, 2, 0, 0, MOST_TOKENS, 0, MOST_TOKENS]);
        assert_eq!(count(&Value::Null, "a"), 0);
    }

    #[test]
    fn each_status_has_its_consequence() {
        use CallErrorKind::{KeyRefused, ModelUnknown, Refused, Throttled, Unavailable};
        for (status, kind) in [
            (302, Unavailable),
            (400, Refused),
            (401, KeyRefused),
            (402, KeyRefused),
            (403, KeyRefused),
            (404, ModelUnknown),
            (405, Refused),
            (407, KeyRefused),
            (408, Unavailable),
            (409, Unavailable),
            (413, Refused),
            (422, Refused),
            (429, Throttled),
            (499, Unavailable),
            (500, Unavailable),
            (502, Unavailable),
            (503, Unavailable),
            (504, Unavailable),
            (529, Unavailable),
            (999, Unavailable),
        ] {
            assert_eq!(kind_of(status), kind, "{status}");
        }
    }

    proptest! {
        #[test]
        fn no_body_makes_the_quote_long_or_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600), html in "(<title>|</title>|<|>|é|İ|a| ){0,40}") {
            prop_assert!(page(&bytes).chars().count() <= LONGEST_WORDS + 1);
            prop_assert!(page(html.as_bytes()).chars().count() <= LONGEST_WORDS + 1);
            let _ = json(&bytes);
        }
    }
}

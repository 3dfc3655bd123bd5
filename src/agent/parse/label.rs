//! Scores in plain text: a number that is all there is, or one that the text marks as the score.
//!
//! A mark is the word `score` or `rating` joined to the number by no more than `is`, `of`, a colon and their like, or
//! `/10` and `out of 10` after it. A marked number that is not 1..=10, or that its clause takes back, doubts or widens
//! (`not`, `at least`, `7 or 8`), makes the reply unusable. An unmarked number means nothing: it may count dogs.

use super::Unusable;
use super::relaxed::excerpt;

/// Words of a clause before a marked number after which it is not the score given.
const DOUBTS: &[&str] = &[
    "not",
    "never",
    "no",
    "cannot",
    "than",
    "least",
    "most",
    "below",
    "above",
    "under",
    "over",
    "nearly",
    "almost",
    "around",
    "about",
    "roughly",
    "maybe",
    "perhaps",
    "or",
    "between",
    "if",
    "unless",
    "instead",
    "previous",
    "earlier",
    "example",
    "threshold",
    "maximum",
    "minimum",
    "from",
    "could",
    "might",
    "passing",
    "best",
    "worst",
    "perfect",
    "highest",
    "lowest",
    "top",
    "full",
    "average",
];
/// The only words that may follow it without a comma or stop: any other may make it mean something else.
const FOLLOWS: &[&str] = &["because", "since", "given", "as", "due"];
/// Words that may stand between the mark and its number.
const JOINS: &[&str] = &["is", "of", "a", "an", "would", "be", "this", "as"];

/// The score of a text that is nothing else: `7`, `7.0`, `"7"`, `7/10`, `7 out of 10`; `None` for any other text.
///
/// # Errors
/// It is a number, but no score.
pub(super) fn bare(text: &str) -> Result<Option<u8>, Unusable> {
    let text = plain(text);
    let text = text.trim().trim_matches(['"', '\'']).trim();
    let text = text.strip_suffix(['.', '!']).unwrap_or(text).trim_end();
    match Number::at(text) {
        Some(number) if number.rest.is_empty() => number.score().map(Some),
        Some(number) if !number.rest.contains(char::is_alphabetic) => {
            Unusable::because(format!("is not one score: {}", excerpt(text)))
        }
        _ => Ok(None),
    }
}

/// Every score that a text marks as one.
///
/// # Errors
/// A marked number that is no score, or not meant as the score.
pub(super) fn in_prose(text: &str) -> Result<Vec<u8>, Unusable> {
    let text = plain(text);
    let mut scores = Vec::new();
    for clause in clauses(&text) {
        clause_scores(clause, &mut scores)?;
    }
    Ok(scores)
}

fn clause_scores(clause: &str, scores: &mut Vec<u8>) -> Result<(), Unusable> {
    let (mut doubted, mut marked, mut given) = (false, false, false);
    let mut at = 0;
    while let Some(start) = clause[at..].find(char::is_alphanumeric).map(|offset| at + offset) {
        let gap = &clause[at..start];
        let rest = &clause[start..];
        marked &= gap.chars().all(|c| c.is_whitespace() || ":=-(\u{2013}\u{2014}".contains(c));
        let Some(number) = Number::at(rest) else {
            let word = first_word(rest);
            at = start + word.len();
            let word = word.to_lowercase();
            doubted |= doubts(&word);
            if marks(&word) {
                (marked, at) = (true, after_scale(clause, at));
            } else {
                marked &= JOINS.contains(&word.as_str());
            }
            continue;
        };
        at = clause.len() - number.rest.len();
        let alone = !gap.ends_with(['.', '/', ',', '%', '+', '$', '#']);
        let tail = number.rest.trim_start();
        let out_of_ten = number.of.is_some() && !tail.starts_with(char::is_alphanumeric);
        let uncertain = || Unusable::because(format!("gives no certain score: {}", excerpt(rest)));
        if alone && (marked || out_of_ten) {
            let follows = first_word(tail).to_lowercase();
            let taken_on = !follows.is_empty() && !FOLLOWS.contains(&follows.as_str());
            if doubted || negative(clause, start) || taken_on || ranges(number.rest) {
                return uncertain();
            }
            scores.push(number.score()?);
            given = true;
        } else if given && doubted {
            return uncertain();
        }
        marked = false;
    }
    Ok(())
}

/// The letters, digits and apostrophes a text begins with.
fn first_word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && !"'\u{2019}".contains(c));
    &text[..end.unwrap_or(text.len())]
}

fn doubts(word: &str) -> bool {
    DOUBTS.contains(&word) || word.ends_with("n't") || word.ends_with("n\u{2019}t")
}

/// Whether the number at `start` has a minus directly before it, and the minus no letter or digit.
fn negative(clause: &str, start: usize) -> bool {
    clause[..start].strip_suffix('-').is_some_and(|before| !before.ends_with(char::is_alphanumeric))
}

fn marks(word: &str) -> bool {
    matches!(word, "score" | "rating" | "scored" | "scores")
}

/// Skips a scale in parentheses after a mark: `(1-10)`, `(out of 10)`.
fn after_scale(clause: &str, at: usize) -> usize {
    let rest = clause[at..].trim_start();
    let open = clause.len() - rest.len();
    let Some(inner) = rest.strip_prefix('(') else {
        return at;
    };
    match inner.char_indices().take(24).find(|(_, c)| *c == ')') {
        Some((length, _)) if inner[..length].contains("10") => open + 1 + length + 1,
        _ => at,
    }
}

/// Whether what follows a number makes it a range, a list, a share or another fraction.
fn ranges(rest: &str) -> bool {
    if rest.starts_with(['%', '/', ':', '+', '*', '\u{b0}']) {
        return true;
    }
    let after = rest.trim_start();
    match after.strip_prefix(['-', '\u{2013}', '\u{2014}', '~', ',', '/', '&']) {
        Some(more) => more.trim_start().starts_with(|c: char| c.is_numeric()),
        None => after.starts_with(|c: char| c.is_numeric()),
    }
}

/// A number in ASCII digits, as written.
struct Number<'a> {
    text: &'a str,
    /// What it is out of, where that is said.
    of: Option<&'a str>,
    rest: &'a str,
}

impl<'a> Number<'a> {
    /// The number a text begins with; a leading minus is part of it. Digits with letters after them are a word.
    fn at(text: &'a str) -> Option<Self> {
        let (number, rest) = digits(text)?;
        if rest.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
            return None;
        }
        let tail = rest.trim_start();
        let scale = match tail.strip_prefix('/') {
            Some(scale) => Some(scale),
            None => tail.get(..7).filter(|words| words.eq_ignore_ascii_case("out of ")).map(|_| &tail[7..]),
        };
        match scale.and_then(|scale| digits(scale.trim_start())) {
            Some((of, rest)) => Some(Self { text: number, of: Some(of), rest }),
            None => Some(Self { text: number, of: None, rest }),
        }
    }

    /// 1..=10, written as such a number is written, on the scale of ten.
    fn score(&self) -> Result<u8, Unusable> {
        let whole = match self.text.split_once('.') {
            Some((whole, fraction)) if fraction.bytes().all(|byte| byte == b'0') => whole,
            _ => self.text,
        };
        let score = (1..=10).find(|score: &u8| score.to_string() == whole);
        match score.filter(|_| self.of.is_none_or(|of| of == "10")) {
            Some(score) => Ok(score),
            None => Unusable::because(format!("gives {}, not a whole number from 1 to 10", excerpt(self.text))),
        }
    }
}

/// Digits with an optional minus before and fraction after, and what follows them.
fn digits(text: &str) -> Option<(&str, &str)> {
    let run = |from: usize| from + text[from..].bytes().take_while(u8::is_ascii_digit).count();
    let sign = usize::from(text.starts_with('-'));
    let whole = run(sign);
    if whole == sign {
        return None;
    }
    let fraction = match text.as_bytes().get(whole) {
        Some(b'.') => run(whole + 1),
        _ => whole,
    };
    let end = if fraction > whole + 1 { fraction } else { whole };
    Some(text.split_at(end))
}

/// Sentences and lines; a full stop within a number does not end one.
fn clauses(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let ends = |(index, c): &(usize, char)| match c {
            '\n' | ';' | '!' | '?' => true,
            '.' => !rest[index + 1..].starts_with(|next: char| next.is_ascii_digit()),
            _ => false,
        };
        let (clause, after) = match rest.char_indices().find(ends) {
            Some((index, _)) => (&rest[..index], &rest[index + 1..]),
            None => (rest, ""),
        };
        rest = after;
        Some(clause)
    })
}

/// The text without Markdown's emphasis.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '*' | '`' | '_' | '#' | '\u{200b}')).collect()
}

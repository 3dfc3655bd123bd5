//! A text as the words it is compared by; the rules are in the parent's documentation.

const NUMBERS: [&str; 21] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
];

/// Most words that are looked for in a row, so that a search stays linear.
const MAX_PART: usize = 64;

/// The words of a text, without articles unless nothing else is there.
pub(super) fn words(text: &str) -> Vec<String> {
    let all = all_words(text);
    let article = |word: &String| matches!(word.as_str(), "a" | "an" | "the");
    if all.iter().all(article) { all } else { all.into_iter().filter(|word| !article(word)).collect() }
}

/// The words of a text, articles included.
pub(super) fn all_words(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().map(narrow).flat_map(char::to_lowercase).collect();
    let mut words: Vec<String> = Vec::new();
    let mut word = String::new();
    for (at, &c) in chars.iter().enumerate() {
        let next = |offset: usize| chars.get(at + offset).copied();
        let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
        let after_digit = at > 0 && digit(chars.get(at - 1).copied());
        match c {
            c if c.is_alphanumeric() => word.push(c),
            '\'' | '\u{2019}' | '\u{2018}' if !word.is_empty() => {}
            '.' if after_digit && digit(next(1)) => word.push('.'),
            ',' if after_digit && (1..=3).all(|offset| digit(next(offset))) && !digit(next(4)) => {}
            '-' | '\u{2212}'
                if word.is_empty()
                    && digit(next(1))
                    && at.checked_sub(1).is_none_or(|before| chars[before].is_whitespace()) =>
            {
                word.push('-');
            }
            _ => finish(&mut word, &mut words),
        }
    }
    finish(&mut word, &mut words);
    words
}

/// Whether `part` (its first 64 words) stands in `whole` in a row. False for an empty part.
pub(super) fn contains(whole: &[String], part: &[String]) -> bool {
    let part = &part[..part.len().min(MAX_PART)];
    !part.is_empty() && whole.windows(part.len()).any(|window| window == part)
}

fn finish(word: &mut String, words: &mut Vec<String>) {
    if word.is_empty() {
        return;
    }
    let number = NUMBERS.iter().position(|name| *name == word.as_str());
    words.push(number.map_or_else(|| word.clone(), |number| number.to_string()));
    word.clear();
}

/// Full-width ASCII forms (U+FF01..=U+FF5E) and the ideographic space as ASCII.
fn narrow(c: char) -> char {
    match c {
        '\u{FF01}'..='\u{FF5E}' => char::from_u32(c as u32 - 0xFEE0).unwrap_or(c),
        '\u{3000}' => ' ',
        other => other,
    }
}

//! Turns what stands for a list of steps into texts.
//!
//! An element that says nothing (null, blank) is refused and not dropped: dropping it would shift every later answer to
//! another step.

use super::relaxed::{self, Value};
use super::reply::normal;
use super::{Members, Unusable};

const MAX: usize = 256;

/// The texts of a list, of an object numbered from 1, or of a string of lines.
pub(super) fn list(value: &Value, what: &str) -> Result<Vec<String>, Unusable> {
    let texts = match value {
        Value::List(list) => elements(list.iter(), what)?,
        Value::Object(members) => elements(numbered_members(members, what)?.into_iter(), what)?,
        Value::Text(text) => match relaxed::whole(text) {
            Some(Value::List(list)) => elements(list.iter(), what)?,
            _ => lines(text),
        },
        Value::Bare(_) | Value::Null => {
            return Unusable::because(format!("has no list of {what}s"));
        }
    };
    match texts.len() {
        0 => Unusable::because(format!("has no {what}s")),
        count if count > MAX => Unusable::because(format!("has {count} {what}s, more than {MAX}")),
        _ => Ok(texts),
    }
}

fn elements<'a>(values: impl Iterator<Item = &'a Value>, what: &str) -> Result<Vec<String>, Unusable> {
    let mut texts = Vec::new();
    for (index, value) in values.enumerate() {
        match element(value).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()) {
            Some(text) => texts.push(text),
            None => {
                return Unusable::because(format!("has a {what} {} that says nothing", index + 1));
            }
        }
    }
    Ok(texts)
}

/// A string or number; of an object its one string, beside which only numbers may stand.
fn element(value: &Value) -> Option<String> {
    match value {
        Value::Object(members) => {
            let mut texts = members.iter().filter_map(|(_, value)| value.text());
            let bare = members.iter().all(|(_, value)| matches!(value, Value::Text(_) | Value::Bare(_)));
            match (texts.next(), texts.next(), bare) {
                (Some(only), None, true) => Some(only.to_owned()),
                _ => None,
            }
        }
        other => other.scalar_text(),
    }
}

/// The values of `{"1": .., "2": ..}` or `{"step_1": .., ..}`.
fn numbered_members<'a>(members: &'a Members, what: &str) -> Result<Vec<&'a Value>, Unusable> {
    let number = |key: &str| normal(key).trim_start_matches(|c: char| c.is_ascii_alphabetic()).parse::<usize>().ok();
    if members.iter().enumerate().all(|(index, (key, _))| number(key) == Some(index + 1)) {
        Ok(members.iter().map(|(_, value)| value).collect())
    } else {
        Unusable::because(format!("has {what}s as an object that is not numbered from 1"))
    }
}

/// Numbered lines if they count from 1, with what follows each; else bullets, if every line has one; else the lines.
fn lines(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut numbered: Vec<String> = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        match number(line) {
            Some((count, rest)) if count == numbered.len() + 1 => numbered.push(rest.to_owned()),
            Some(_) => {
                numbered.clear();
                break;
            }
            None => match numbered.last_mut() {
                Some(last) => {
                    if !last.is_empty() {
                        last.push(' ');
                    }
                    last.push_str(line);
                }
                None if index == 0 && line.ends_with(':') && lines.len() > 1 => {}
                None => break,
            },
        }
    }
    if !numbered.is_empty() && numbered.iter().all(|step| !step.is_empty()) {
        return numbered;
    }
    match lines.iter().map(|line| bulleted(line)).collect::<Option<Vec<_>>>() {
        Some(bulleted) => bulleted,
        None => lines.into_iter().map(str::to_owned).collect(),
    }
}

fn bulleted(line: &str) -> Option<String> {
    let rest = ["- ", "* ", "\u{2022} "].iter().find_map(|mark| line.strip_prefix(mark))?.trim();
    (!rest.is_empty()).then(|| rest.to_owned())
}

/// The number of `1. x`, `1) x`, `(1) x`, `1: x` or `Step 1: x`, and `x`.
fn number(line: &str) -> Option<(usize, &str)> {
    let line = line.trim_start_matches(['*', '#', ' ']);
    let line = match line.get(..5) {
        Some(head) if head.eq_ignore_ascii_case("step ") => &line[5..],
        _ => line.strip_prefix('(').unwrap_or(line),
    };
    let end = line.find(|c: char| !c.is_ascii_digit())?;
    let rest = line[end..].strip_prefix(['.', ')', ':'])?;
    let rest = rest.trim_start_matches('*');
    if rest.is_empty() || rest.starts_with(char::is_whitespace) {
        Some((line[..end].parse().ok()?, rest.trim()))
    } else {
        None
    }
}

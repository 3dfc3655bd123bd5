//! Reads JSON as models write it: also Python dictionaries, trailing commas, raw line breaks in strings.
//!
//! A crate for relaxed JSON was rejected: those at hand take numbers through floats, drop repeated keys, or recurse
//! without bound, and each of these would let a reply mean what it does not say. Numbers stay as written, repeated keys
//! are kept, nesting stops at [`DEPTH`].
//!
//! A single quote between two letters or digits is an apostrophe; every other one ends a single-quoted string. Anything
//! that still does not fit is an error and never mended.

/// Deepest nesting that is read.
const DEPTH: usize = 32;
/// Most bytes of a key; a longer one is prose in braces.
const MAX_KEY: usize = 256;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// `null` or `None`.
    Null,
    /// A number or truth value, as written.
    Bare(String),
    /// A string, unescaped, NUL dropped.
    Text(String),
    List(Vec<Value>),
    /// Members in order, repeated keys included.
    Object(Vec<(String, Value)>),
}

impl Value {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A string, number or truth value as text.
    pub(super) fn scalar_text(&self) -> Option<String> {
        match self {
            Self::Text(text) | Self::Bare(text) => Some(text.clone()),
            _ => None,
        }
    }
}

/// Why nothing was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// It never looked like a value: prose.
    Prose,
    /// It had begun as one (a list's element, an object's key and colon) and could not be finished.
    Begun,
}

/// The value that is all of `text`, white space aside.
pub(super) fn whole(text: &str) -> Option<Value> {
    let mut reader = Reader::at(text, 0);
    let value = reader.value(0).ok()?;
    reader.blank();
    (reader.at == text.len()).then_some(value)
}

/// The object that begins with the brace at byte `start`, and the byte after it.
pub(super) fn object_at(text: &str, start: usize) -> Result<(Value, usize), Broken> {
    let mut reader = Reader::at(text, start);
    match reader.value(0) {
        Ok(value) => Ok((value, reader.at)),
        Err(Failed) if reader.begun => Err(Broken::Begun),
        Err(Failed) => Err(Broken::Prose),
    }
}

/// The first 40 characters, for messages.
pub(super) fn excerpt(text: &str) -> &str {
    text.char_indices().nth(40).map_or(text, |(end, _)| &text[..end])
}

struct Failed;

struct Reader<'a> {
    text: &'a str,
    at: usize,
    begun: bool,
}

impl<'a> Reader<'a> {
    fn at(text: &'a str, at: usize) -> Self {
        Self { text, at, begun: false }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blank(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    fn take(&mut self, byte: u8) -> bool {
        self.blank();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn value(&mut self, depth: usize) -> Result<Value, Failed> {
        self.blank();
        match self.peek().ok_or(Failed)? {
            _ if depth > DEPTH => Err(Failed),
            b'{' => self.object(depth),
            b'[' => self.list(depth),
            b'"' | b'\'' => self.string(usize::MAX).map(Value::Text),
            _ => self.bare(),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, Failed> {
        self.at += 1;
        let mut members = Vec::new();
        loop {
            if self.take(b'}') {
                return Ok(Value::Object(members));
            }
            let key = match self.peek().ok_or(Failed)? {
                b'"' | b'\'' => self.string(MAX_KEY)?,
                _ => self.word().ok_or(Failed)?.to_owned(),
            };
            if !self.take(b':') {
                return Err(Failed);
            }
            self.begun = true;
            members.push((key, self.value(depth + 1)?));
            if !self.take(b',')
                && !{
                    self.blank();
                    self.peek() == Some(b'}')
                }
            {
                return Err(Failed);
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, Failed> {
        self.at += 1;
        let mut values = Vec::new();
        loop {
            if self.take(b']') {
                return Ok(Value::List(values));
            }
            values.push(self.value(depth + 1)?);
            if !self.take(b',')
                && !{
                    self.blank();
                    self.peek() == Some(b']')
                }
            {
                return Err(Failed);
            }
        }
    }

    /// A number as written, or a word of JSON or Python.
    fn bare(&mut self) -> Result<Value, Failed> {
        match self.word().ok_or(Failed)? {
            "null" | "None" => Ok(Value::Null),
            "true" | "True" => Ok(Value::Bare("true".into())),
            "false" | "False" => Ok(Value::Bare("false".into())),
            number => {
                let digits = number.trim_start_matches('-');
                let numeric = digits.starts_with(|c: char| c.is_ascii_digit())
                    && digits.chars().all(|c| c.is_ascii_digit() || "+-.eE".contains(c));
                if numeric { Ok(Value::Bare(number.to_owned())) } else { Err(Failed) }
            }
        }
    }

    fn word(&mut self) -> Option<&'a str> {
        let rest = &self.text[self.at..];
        let part = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
        let end = rest.char_indices().take(MAX_KEY).find(|(_, c)| !part(*c)).map_or(rest.len(), |(end, _)| end);
        let word = rest.get(..end.min(MAX_KEY))?;
        self.at += word.len();
        (!word.is_empty()).then_some(word)
    }

    fn string(&mut self, most: usize) -> Result<String, Failed> {
        let quote = char::from(self.peek().ok_or(Failed)?);
        self.at += 1;
        let mut out = String::new();
        let mut before = quote;
        while out.len() <= most {
            let c = self.text[self.at..].chars().next().ok_or(Failed)?;
            self.at += c.len_utf8();
            match c {
                '\\' => self.escape(&mut out)?,
                '\0' => {}
                c if c == quote && !(quote == '\'' && self.apostrophe(before)) => return Ok(out),
                c => out.push(c),
            }
            before = c;
        }
        Err(Failed)
    }

    /// Whether the quote just read stands between letters or digits.
    fn apostrophe(&self, before: char) -> bool {
        before.is_alphanumeric() && self.text[self.at..].starts_with(char::is_alphanumeric)
    }

    /// An escape after its backslash. One that neither JSON nor Python knows stands for itself (LaTeX, paths).
    fn escape(&mut self, out: &mut String) -> Result<(), Failed> {
        let c = self.text[self.at..].chars().next().ok_or(Failed)?;
        self.at += c.len_utf8();
        match c {
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            'b' | 'f' => out.push(' '),
            '"' | '\'' | '\\' | '/' => out.push(c),
            '\n' => {}
            'u' => out.extend(self.unicode()),
            other => out.extend(['\\', other]),
        }
        Ok(())
    }

    /// `\uXXXX`, a pair of surrogates included. NUL is dropped, what is no character becomes U+FFFD.
    fn unicode(&mut self) -> Option<char> {
        let first = self.hex();
        let code = match first {
            Some(high @ 0xD800..=0xDBFF) if self.text[self.at..].starts_with("\\u") => {
                let back = self.at;
                self.at += 2;
                if let Some(low @ 0xDC00..=0xDFFF) = self.hex() {
                    Some(0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00))
                } else {
                    self.at = back;
                    None
                }
            }
            other => other,
        };
        let c = code.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
        (c != '\0').then_some(c)
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        self.at += 4;
        u32::from_str_radix(digits, 16).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Value {
        Value::Text(value.into())
    }

    #[test]
    fn what_models_write_is_read() {
        let bare = |value: &str| Value::Bare(value.into());
        for (written, value) in [
            (r#""a\n\"b\" \u00e9\ud83d\ude00 \/""#, text("a\n\"b\" é😀 /")),
            (r"'it\'s' ", text("it's")),
            ("'the dog's bowl'", text("the dog's bowl")),
            ("\"two\nlines\"", text("two\nlines")),
            (r#""\alpha \u12""#, text("\\alpha \u{FFFD}12")),
            (r#""a\u0000b\ud800""#, text("ab\u{FFFD}")),
            ("[1, 2.50, -3,]", Value::List(vec![bare("1"), bare("2.50"), bare("-3")])),
            ("[True, none]", Value::Null),
            ("[True, None, null]", Value::List(vec![bare("true"), Value::Null, Value::Null])),
            (
                "{score: 7, 'b': [],}",
                Value::Object(vec![("score".into(), bare("7")), ("b".into(), Value::List(vec![]))]),
            ),
            (r#"{"a":1,"a":2}"#, Value::Object(vec![("a".into(), bare("1")), ("a".into(), bare("2"))])),
        ] {
            match whole(written) {
                Some(read) => assert_eq!(read, value, "{written}"),
                None => assert_eq!(value, Value::Null, "{written} is refused"),
            }
        }
    }

    #[test]
    fn what_is_broken_is_refused_and_told_from_prose() {
        for (written, broken) in [
            ("{see below}", Broken::Prose),
            ("{", Broken::Prose),
            ("{}}", Broken::Prose),
            ("{\"a\" 1}", Broken::Prose),
            ("{\"a\": 1", Broken::Begun),
            ("{\"a\": \"cut", Broken::Begun),
            ("{\"a\": say \"x\"}", Broken::Begun),
            ("{\"a\": \"say \"x\" now\"}", Broken::Begun),
            ("{'a': 'dogs', cats'}", Broken::Begun),
            ("{\"a\": 1 \"b\": 2}", Broken::Begun),
        ] {
            match object_at(written, 0) {
                Err(found) => assert_eq!(found, broken, "{written}"),
                Ok((value, end)) => {
                    assert_eq!((value, end), (Value::Object(vec![]), 2), "{written}");
                }
            }
        }
        assert_eq!(whole(&"[".repeat(100_000)), None);
        assert_eq!(object_at(&"{\"a\":".repeat(100_000), 0), Err(Broken::Begun));
    }
}

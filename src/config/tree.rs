//! Settings before they have a meaning: a tree of values that know where they were written.
//!
//! TOML files and environment variables become the same tree, and layers are merged leaf by leaf, so that a file that
//! sets one key of a table keeps the others. An environment value stays text until the schema says what it has to be:
//! guessing its type turns a key of digits into a number. serde was rejected here: it stops at the first mistake and
//! forgets the line.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistake::Mistake;

/// Environment variables that begin like this, in any case, are settings.
pub(super) const PREFIX: &str = "AURELIA__";

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In the configuration compiled in.
    Default,
    /// In a file, on this line (from 1).
    File(Arc<Path>, usize),
    /// By this environment variable.
    Environment(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "file {}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
        }
    }
}

/// A value and where it was set.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Table(Table),
    List(Vec<Node>),
    Text(String),
    Integer(i128),
    /// As written, so that money is read exactly.
    Float(String),
    Bool(bool),
    /// A date or an integer beyond all ranges: no setting takes one.
    Other(String),
    /// From the environment: becomes what the schema asks for.
    Raw(String),
}

pub(super) type Table = BTreeMap<String, Node>;

/// Parses one file. Errors: each syntax mistake, one per line.
pub(super) fn parse(text: &str, origin: &dyn Fn(usize) -> Origin) -> Result<Table, Vec<Mistake>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = Lines::of(text);
    let (root, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(table(root.get_ref(), &lines, origin));
    }
    let mut mistakes: Vec<Mistake> = Vec::new();
    for error in errors {
        let at = origin(lines.number(&error.span().unwrap_or(0..0)));
        if mistakes.iter().all(|known| known.origin != at) {
            let message = error.message().replace('\n', ", ");
            mistakes.push(Mistake::new(
                "",
                None,
                at,
                format!("is not valid TOML: {message}; nothing of this file is used"),
            ));
        }
    }
    Err(mistakes)
}

/// Parses the TOML value of an environment variable, for lists.
pub(super) fn parse_value(text: &str, origin: &Origin) -> Option<Node> {
    let document = format!("value = {text}");
    let mut root = parse(&document, &|_| origin.clone()).ok()?;
    let node = root.remove("value")?;
    root.is_empty().then_some(node)
}

/// The settings among the environment's variables, as one layer per variable; in the order of their names.
pub(super) fn from_environment(env: &[(String, String)]) -> (Vec<(Vec<String>, Node)>, Vec<Mistake>) {
    let mut settings: BTreeMap<String, (String, Node)> = BTreeMap::new();
    let mut mistakes = Vec::new();
    for (name, value) in env {
        let upper = name.to_ascii_uppercase();
        let Some(path) = upper.strip_prefix(PREFIX) else {
            continue;
        };
        let origin = Origin::Environment(name.clone());
        if let Some((first, _)) = settings.get(path) {
            let message = format!("is set by {first} as well, which differs only in case; unset one of them");
            mistakes.push(Mistake::new(&path.to_ascii_lowercase().replace("__", "."), None, origin, message));
            continue;
        }
        let node = Node { value: Value::Raw(value.clone()), origin };
        settings.insert(path.to_owned(), (name.clone(), node));
    }
    let layers = settings
        .into_iter()
        .map(|(path, (_, node))| (path.to_ascii_lowercase().split("__").map(str::to_owned).collect(), node));
    (layers.collect(), mistakes)
}

/// Lays `over` on `base`: tables leaf by leaf, the lists named in `prepended` before those below, all else replaced.
pub(super) fn merge(base: &mut Table, over: Table, prepended: &[&str]) {
    for (key, node) in over {
        match base.get_mut(&key) {
            None => {
                base.insert(key, node);
            }
            Some(below) => match (&mut below.value, node.value) {
                (Value::Table(below), Value::Table(over)) => merge(below, over, &[]),
                (Value::List(below), Value::List(mut over)) if prepended.contains(&key.as_str()) => {
                    over.append(below);
                    *below = over;
                }
                (_, value) => *below = Node { value, origin: node.origin },
            },
        }
    }
}

/// Lays one environment variable on the tree. Names are matched without regard to case.
pub(super) fn set(base: &mut Table, path: &[String], node: Node, prepended: &[&str]) {
    let Some((head, rest)) = path.split_first() else {
        return;
    };
    let key = base.keys().find(|key| key.eq_ignore_ascii_case(head)).unwrap_or(head).clone();
    if rest.is_empty() {
        let node = match &node.value {
            Value::Raw(text) if prepended.contains(&key.as_str()) => parse_value(text, &node.origin).unwrap_or(node),
            _ => node,
        };
        return merge(base, Table::from([(key, node)]), prepended);
    }
    let below =
        base.entry(key).or_insert_with(|| Node { value: Value::Table(Table::new()), origin: node.origin.clone() });
    match &mut below.value {
        Value::Table(below) => set(below, rest, node, &[]),
        // The path goes on where the tree ends: what is there is judged, and the variable is an unknown key of it.
        _ => {
            base.insert(path.join("."), node);
        }
    }
}

fn table(table: &DeTable<'_>, lines: &Lines, origin: &dyn Fn(usize) -> Origin) -> Table {
    let node = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
        let key: &Spanned<std::borrow::Cow<'_, str>> = key;
        (key.get_ref().to_string(), convert(value.get_ref(), lines.number(&key.span()), lines, origin))
    };
    table.iter().map(node).collect()
}

fn convert(value: &DeValue<'_>, line: usize, lines: &Lines, origin: &dyn Fn(usize) -> Origin) -> Node {
    let value = match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(integer) => match i128::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::Other(integer.to_string()),
        },
        DeValue::Float(float) => Value::Float(float.as_str().to_owned()),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Datetime(date) => Value::Other(date.to_string()),
        DeValue::Array(list) => Value::List(
            list.iter().map(|node| convert(node.get_ref(), lines.number(&node.span()), lines, origin)).collect(),
        ),
        DeValue::Table(inner) => Value::Table(table(inner, lines, origin)),
    };
    Node { value, origin: origin(line) }
}

/// Turns byte offsets into line numbers.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect())
    }

    fn number(&self, span: &Range<usize>) -> usize {
        self.0.partition_point(|end| *end < span.start) + 1
    }
}

/// The path a relative one means when it is written at `origin`: beside the file, or in the working directory.
pub(super) fn beside(origin: &Origin, path: &str) -> PathBuf {
    match origin {
        Origin::File(file, _) => file.parent().unwrap_or(Path::new("")).join(path),
        Origin::Default | Origin::Environment(_) => PathBuf::from(path),
    }
}

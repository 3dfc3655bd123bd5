//! The schema's side: takes settings out of the tree by name and type.
//!
//! Each setting is named once, where it is read; what nobody took is unknown. A reader never fails: it notes the mistake,
//! answers with a stand-in and goes on, so that one run finds them all. The stand-ins go nowhere, as a configuration
//! with mistakes is never handed out.

mod numbers;
mod words;

use super::mistake::nearest;
use super::sink::Sink;
use super::tree::{Node, Origin, Table, Value, parse_value};

/// A value and where it was set.
#[derive(Debug, Clone)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) origin: Origin,
}

/// One table that is being read.
pub(super) struct Section<'a> {
    /// Dotted key of the table; empty for the root.
    pub(super) path: String,
    pub(super) origin: Origin,
    pub(super) sink: &'a Sink,
    table: Table,
    known: Vec<&'static str>,
    /// List elements are shown as a whole by their list.
    shown: Shown,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    EachKey,
    AsWhole,
}

impl<'a> Section<'a> {
    pub(super) fn root(table: Table, sink: &'a Sink) -> Self {
        Self { path: String::new(), origin: Origin::Default, sink, table, known: Vec::new(), shown: Shown::EachKey }
    }

    /// The dotted key of a setting of this table.
    pub(super) fn key(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// A table of this table; an empty one if it is missing or no table.
    pub(super) fn section(&mut self, name: &'static str) -> Self {
        let node = self.take(name);
        self.child(self.key(name), node, self.shown)
    }

    /// A table of this table, if it is there.
    pub(super) fn optional_section(&mut self, name: &'static str) -> Option<Self> {
        let node = self.take(name)?;
        Some(self.child(self.key(name), Some(node), self.shown))
    }

    /// The tables of a table, by their own names.
    pub(super) fn sections(&mut self, name: &'static str) -> Vec<(String, Self)> {
        let inner = self.section(name);
        let path = inner.path;
        inner
            .table
            .into_iter()
            .map(|(name, node)| {
                let section = self.child(format!("{path}.{name}"), Some(node), Shown::EachKey);
                (name, section)
            })
            .collect()
    }

    /// The tables of a list, shown as one entry each.
    pub(super) fn list(&mut self, name: &'static str) -> Vec<Self> {
        let Some(node) = self.take(name) else {
            return Vec::new();
        };
        let node = as_list(node);
        let Value::List(nodes) = node.value else {
            let message = format!("must be a list of tables: write [[{}]] before each", self.key(name));
            self.sink.mistake(&self.key(name), Some(display(&node)), &node.origin, message);
            return Vec::new();
        };
        let key = self.key(name);
        let each = |(at, node): (usize, Node)| {
            let key = format!("{key}[{at}]");
            if self.shown == Shown::EachKey {
                self.sink.entry(key.clone(), display(&node), &node.origin);
            }
            self.child(key, Some(node), Shown::AsWhole)
        };
        nodes.into_iter().enumerate().map(each).collect()
    }

    /// Adds a setting that is not there.
    pub(super) fn insert(&mut self, name: &str, node: Node) {
        self.table.entry(name.to_owned()).or_insert(node);
    }

    /// Reports what nobody took. Values of unknown keys are never shown: a pasted key is one of them.
    pub(super) fn finish(self) {
        for (name, node) in &self.table {
            let way_out = match nearest(name, self.known.iter().copied()) {
                Some(known) => format!("did you mean {known}?"),
                None if self.known.is_empty() => "this table has no keys".to_owned(),
                None => format!("known here: {}", self.known.join(", ")),
            };
            self.sink.mistake(&self.key(name), None, &node.origin, format!("is not a known setting; {way_out}"));
        }
    }

    fn child(&self, path: String, node: Option<Node>, shown: Shown) -> Self {
        let origin = node.as_ref().map_or_else(|| self.origin.clone(), |node| node.origin.clone());
        let table = match node {
            Some(Node { value: Value::Table(table), .. }) => table,
            Some(_) => {
                self.sink.mistake(&path, None, &origin, "must be a table: set its keys one by one");
                Table::new()
            }
            None => Table::new(),
        };
        Self { path, origin, sink: self.sink, table, known: Vec::new(), shown }
    }

    /// Takes a node and notes that its name is known.
    fn take(&mut self, name: &'static str) -> Option<Node> {
        self.known.push(name);
        self.table.remove(name)
    }
}

/// A list written in an environment variable, as a list.
fn as_list(node: Node) -> Node {
    match &node.value {
        Value::Raw(text) => parse_value(text, &node.origin).unwrap_or(node),
        _ => node,
    }
}

/// A value as TOML.
pub(super) fn display(node: &Node) -> String {
    match &node.value {
        Value::Table(table) => {
            let pairs: Vec<String> = table.iter().map(|(key, node)| format!("{key} = {}", display(node))).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        Value::List(nodes) => format!("[{}]", nodes.iter().map(display).collect::<Vec<_>>().join(", ")),
        Value::Text(text) => format!("{text:?}"),
        Value::Raw(text) if text.is_empty() => "\"\"".to_owned(),
        Value::Raw(text) => text.escape_debug().to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Float(text) | Value::Other(text) => text.clone(),
        Value::Bool(value) => value.to_string(),
    }
}

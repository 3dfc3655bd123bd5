//! Settings that are numbers and durations.
//!
//! Text from the environment becomes what is asked for here; a value of another type is a mistake that names the type,
//! the range and the value.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Section, Shown, display};
use crate::config::tree::{Node, Value};

impl Section<'_> {
    /// An integer within a range.
    pub(in crate::config) fn whole(&mut self, name: &'static str, range: RangeInclusive<u64>) -> u64 {
        let stand_in = *range.start();
        match self.required(name) {
            Some(node) => self.integer(name, &node, &range).unwrap_or(stand_in),
            None => stand_in,
        }
    }

    /// An integer within a range of 32 bits.
    pub(in crate::config) fn whole32(&mut self, name: &'static str, range: RangeInclusive<u32>) -> u32 {
        let value = self.whole(name, u64::from(*range.start())..=u64::from(*range.end()));
        u32::try_from(value).unwrap_or(u32::MAX)
    }

    /// An integer within a range, if it is there.
    pub(in crate::config) fn optional_whole(&mut self, name: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let node = self.taken(name)?;
        self.integer(name, &node, &range)
    }

    /// Seconds within a range; fractions are allowed.
    pub(in crate::config) fn seconds(&mut self, name: &'static str, range: RangeInclusive<f64>) -> Duration {
        let stand_in = *range.start();
        let seconds = match self.required(name) {
            Some(node) => self.number(name, &node, &range).unwrap_or(stand_in),
            None => stand_in,
        };
        Duration::try_from_secs_f64(seconds).unwrap_or_default()
    }

    /// A number within a range.
    pub(in crate::config) fn required_number(&mut self, name: &'static str, range: &RangeInclusive<f64>) -> f64 {
        let stand_in = *range.start();
        self.required(name).and_then(|node| self.number(name, &node, range)).unwrap_or(stand_in)
    }

    /// A number within a range, if it is there.
    pub(in crate::config) fn optional_number(
        &mut self,
        name: &'static str,
        range: &RangeInclusive<f64>,
    ) -> Option<f64> {
        let node = self.taken(name)?;
        self.number(name, &node, range)
    }

    /// Takes a node and shows it.
    fn taken(&mut self, name: &'static str) -> Option<Node> {
        let node = self.take(name)?;
        self.show(name, &node);
        Some(node)
    }

    pub(super) fn show(&self, name: &str, node: &Node) {
        if self.shown == Shown::EachKey {
            self.sink.entry(self.key(name), display(node), &node.origin);
        }
    }

    pub(super) fn required(&mut self, name: &'static str) -> Option<Node> {
        let node = self.taken(name);
        if node.is_none() {
            self.missing(name);
        }
        node
    }

    pub(super) fn missing(&self, name: &str) {
        self.sink.mistake(&self.key(name), None, &self.origin, "is missing; set it");
    }

    fn integer(&self, name: &str, node: &Node, range: &RangeInclusive<u64>) -> Option<u64> {
        let number = match &node.value {
            Value::Integer(number) => Some(*number),
            Value::Raw(text) => text.trim().replace('_', "").parse().ok(),
            _ => None,
        };
        let Some(number) = number else {
            self.refuse(name, node, format!("must be an integer {}", between(range)));
            return None;
        };
        let fits = u64::try_from(number).ok().filter(|number| range.contains(number));
        if fits.is_none() {
            self.refuse(name, node, format!("is out of range: it must be {}", between(range)));
        }
        fits
    }

    fn number(&self, name: &str, node: &Node, range: &RangeInclusive<f64>) -> Option<f64> {
        let number: Option<f64> = match &node.value {
            Value::Integer(number) => number.to_string().parse().ok(),
            Value::Float(text) => text.parse().ok(),
            Value::Raw(text) => text.trim().parse().ok(),
            _ => None,
        };
        let Some(number) = number else {
            self.refuse(name, node, format!("must be a number {}", between(range)));
            return None;
        };
        if range.contains(&number) {
            return Some(number);
        }
        self.refuse(name, node, format!("is out of range: it must be {}", between(range)));
        None
    }

    pub(super) fn refuse(&self, name: &str, node: &Node, message: String) {
        self.sink.mistake(&self.key(name), Some(display(node)), &node.origin, message);
    }
}

fn between<T: Display>(range: &RangeInclusive<T>) -> String {
    format!("from {} to {}", range.start(), range.end())
}

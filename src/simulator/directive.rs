//! Orders to the simulator inside an item's own text: `[[sim: score=4]]`.
//!
//! Tests need one item of a corpus to misbehave in one way. A table in memory, keyed by item, would be lost when the
//! simulator restarts, and a hint beside the prompt would be something no provider sees. So the order stands in the
//! question, and the simulated roles carry it on in the texts they write, as they carry the scene and the take.

use std::fmt::Write as _;

use super::fault::Fault;
use super::prompt::Seat;

/// How a reply that should be JSON is dressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Style {
    /// The JSON object and nothing else.
    #[default]
    Plain,
    /// In a Markdown fence.
    Fenced,
    /// With a sentence before and after it.
    Prose,
    /// As a Python dictionary with single quotes.
    Python,
    /// Lists written as one numbered text.
    ListInString,
    /// One of the others by the item's hash.
    Varied,
}

impl Style {
    /// The style of this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "plain" => Self::Plain,
            "fenced" => Self::Fenced,
            "prose" => Self::Prose,
            "python" => Self::Python,
            "list-in-string" => Self::ListInString,
            "varied" => Self::Varied,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Fenced => "fenced",
            Self::Prose => "prose",
            Self::Python => "python",
            Self::ListInString => "list-in-string",
            Self::Varied => "varied",
        }
    }
}

/// A fault ordered for some calls of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ordered {
    pub(crate) fault: Fault,
    pub(crate) role: Option<Seat>,
    pub(crate) take: Option<u32>,
    pub(crate) times: Option<u64>,
}

/// One order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    Scores(Vec<i64>),
    Exhaust,
    Leak,
    Style(Style),
    Answer(String),
    LatencyMs(u64),
    Fault(Ordered),
}

/// All orders in `text`, those already in `known` left out.
pub(crate) fn collect(text: &str, known: &mut Vec<Order>) -> Result<(), String> {
    let mut rest = text;
    while let Some(start) = rest.find("[[sim:") {
        let body = &rest[start + 6..];
        let end = body.find("]]").ok_or("a [[sim: directive has no ]]")?;
        for order in parse(&body[..end])? {
            if !known.contains(&order) {
                known.push(order);
            }
        }
        rest = &body[end + 2..];
    }
    Ok(())
}

/// Splits `k=v, k=v flag` into pairs; a word without `=` that is no flag belongs to the value before it.
fn pairs(body: &str) -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for chunk in body.split(',') {
        let mut open = false;
        for word in chunk.split_whitespace() {
            match word.split_once('=') {
                Some((key, value)) => pairs.push((key.to_ascii_lowercase(), value.to_owned())),
                None if open && !matches!(word, "exhaust" | "leak") => {
                    if let Some((_, value)) = pairs.last_mut() {
                        let _ = write!(value, " {word}");
                    }
                }
                None => pairs.push((word.to_ascii_lowercase(), String::new())),
            }
            open = true;
        }
    }
    pairs
}

fn parse(body: &str) -> Result<Vec<Order>, String> {
    let mut orders = Vec::new();
    for (key, value) in pairs(body) {
        let bad = || format!("simulator directive {key}={value:?} is not understood");
        let order = match key.as_str() {
            "score" | "scores" => {
                let scores: Result<Vec<i64>, _> = value.split('/').map(str::parse).collect();
                Order::Scores(scores.map_err(|_| bad())?)
            }
            "exhaust" => Order::Exhaust,
            "leak" => Order::Leak,
            "style" => Order::Style(Style::parse(&value).ok_or_else(bad)?),
            "answer" => Order::Answer(value),
            "latency_ms" => Order::LatencyMs(value.parse().map_err(|_| bad())?),
            "fault" => {
                let fault = Fault::parse(&value).ok_or_else(bad)?;
                Order::Fault(Ordered { fault, role: None, take: None, times: None })
            }
            "role" | "take" | "times" => {
                let Some(Order::Fault(ordered)) = orders.last_mut() else { return Err(bad()) };
                match key.as_str() {
                    "role" => ordered.role = Some(Seat::parse(&value).ok_or_else(bad)?),
                    "take" => ordered.take = Some(value.parse().map_err(|_| bad())?),
                    _ => ordered.times = Some(value.parse().map_err(|_| bad())?),
                }
                continue;
            }
            _ => return Err(bad()),
        };
        orders.push(order);
    }
    Ok(orders)
}

/// The orders that later roles need, as text; what would tell the answer stays behind.
pub(crate) fn carry(orders: &[Order]) -> String {
    let texts: Vec<String> = orders
        .iter()
        .filter_map(|order| match order {
            Order::Scores(scores) => {
                let scores: Vec<String> = scores.iter().map(ToString::to_string).collect();
                Some(format!("scores={}", scores.join("/")))
            }
            Order::Exhaust => Some("exhaust".to_owned()),
            Order::Style(style) => Some(format!("style={}", style.name())),
            Order::LatencyMs(ms) => Some(format!("latency_ms={ms}")),
            Order::Fault(ordered) => Some(carry_fault(ordered)),
            Order::Leak | Order::Answer(_) => None,
        })
        .collect();
    if texts.is_empty() { String::new() } else { format!(" [[sim: {}]]", texts.join(", ")) }
}

fn carry_fault(ordered: &Ordered) -> String {
    let mut text = format!("fault={}", ordered.fault.name());
    if let Some(role) = ordered.role {
        let _ = write!(text, " role={}", role.name());
    }
    if let Some(take) = ordered.take {
        let _ = write!(text, " take={take}");
    }
    if let Some(times) = ordered.times {
        let _ = write!(text, " times={times}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders(text: &str) -> Vec<Order> {
        let mut known = Vec::new();
        collect(text, &mut known).unwrap();
        known
    }

    #[test]
    fn several_directives_and_forms_are_read() {
        let found = orders("Why? [[sim: score=4]] and [[sim: answer=a red kite, leak style=python latency_ms=5]]");
        assert_eq!(
            found,
            [
                Order::Scores(vec![4]),
                Order::Answer("a red kite".into()),
                Order::Leak,
                Order::Style(Style::Python),
                Order::LatencyMs(5)
            ]
        );
    }

    #[test]
    fn a_fault_takes_the_conditions_after_it() {
        let found = orders("[[sim: fault=SAFETY role=evaluator times=3 take=2, fault=503]]");
        let first = Ordered { fault: Fault::Safety, role: Some(Seat::Evaluator), take: Some(2), times: Some(3) };
        let second = Ordered { fault: Fault::Unavailable, role: None, take: None, times: None };
        assert_eq!(found, [Order::Fault(first), Order::Fault(second)]);
    }

    #[test]
    fn what_is_carried_reads_back_the_same_without_the_answer() {
        let text = "[[sim: scores=3/5/9, exhaust, fault=stall role=summarizer take=1, answer=kite, leak]]";
        let carried = carry(&orders(text));
        assert!(!carried.contains("kite"));
        assert_eq!(orders(&carried), orders(text)[..3]);
        let mut both = orders(text);
        collect(&carried, &mut both).unwrap();
        assert_eq!(both, orders(text), "nothing is collected twice");
    }

    #[test]
    fn a_mistyped_directive_is_an_error() {
        for text in
            ["[[sim: scroe=4]]", "[[sim: score=x]]", "[[sim: role=judge]]", "[[sim: fault=NOPE]]", "[[sim: score=1"]
        {
            assert!(collect(text, &mut Vec::new()).is_err(), "{text}");
        }
    }
}

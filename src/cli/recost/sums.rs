//! What the calls of records come to, by model: as recorded, and under the prices at hand.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::cli::Failure;
use crate::config::Config;
use crate::price::{Nano, Price};
use crate::provider::Usage;
use crate::record::{Record, RecordCall};

/// Items named for a model whose calls have no usage.
const NAMED: usize = 10;

/// The sums of one model, or of all.
#[derive(Debug, Clone, Default)]
pub(super) struct Line {
    /// Calls that are paid for in these records and say what was used.
    pub(super) calls: u64,
    pub(super) usage: Usage,
    pub(super) recorded: Nano,
    pub(super) now: Nano,
    /// Calls that are paid for and do not say: they are in no other sum.
    pub(super) unmeasured: u64,
    pub(super) unmeasured_recorded: Nano,
    /// Items of the first of them.
    pub(super) items: Vec<String>,
}

/// The sums of records.
pub(super) struct Sums<'a> {
    config: &'a Config,
    batch: bool,
    prices: BTreeMap<(String, String), &'a Price>,
    lines: BTreeMap<(String, String), Line>,
    pub(super) records: u64,
    /// Replies that were there: paid for in other records, or in another data set.
    pub(super) replayed: u64,
}

impl Line {
    /// What the calls with a known usage cost more now; less, below zero.
    pub(super) fn difference(&self) -> i128 {
        i128::from(self.now.0) - i128::from(self.recorded.0)
    }

    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.usage = self.usage.plus(other.usage);
        self.recorded = self.recorded.saturating_add(other.recorded);
        self.now = self.now.saturating_add(other.now);
        self.unmeasured += other.unmeasured;
        self.unmeasured_recorded = self.unmeasured_recorded.saturating_add(other.unmeasured_recorded);
    }

    fn unmeasured(&mut self, item: &str, call: &RecordCall) {
        self.unmeasured += 1;
        self.unmeasured_recorded = self.unmeasured_recorded.saturating_add(Nano(call.cost_nano_usd));
        if self.items.len() < NAMED && self.items.last().is_none_or(|last| last != item) {
            self.items.push(item.to_owned());
        }
    }

    pub(super) fn json(&self) -> Value {
        let Usage { input_tokens, cached_tokens, audio_tokens, output_tokens, thinking_tokens } = self.usage;
        let difference = i64::try_from(self.difference()).unwrap_or(i64::MAX);
        json!({
            "calls": self.calls,
            "input_tokens": input_tokens, "cached_tokens": cached_tokens, "audio_tokens": audio_tokens,
            "output_tokens": output_tokens, "thinking_tokens": thinking_tokens,
            "recorded_nano_usd": self.recorded.0, "now_nano_usd": self.now.0, "difference_nano_usd": difference,
            "without_usage": { "calls": self.unmeasured, "recorded_nano_usd": self.unmeasured_recorded.0 },
        })
    }
}

impl<'a> Sums<'a> {
    /// Under the prices of `config`; those of batches where `batch` is set.
    pub(super) fn new(config: &'a Config, batch: bool) -> Self {
        Self { config, batch, prices: BTreeMap::new(), lines: BTreeMap::new(), records: 0, replayed: 0 }
    }

    /// Adds the calls of a record. Errors: one of them has no price.
    pub(super) fn add(&mut self, record: &Record) -> Result<(), Failure> {
        self.records += 1;
        for call in record.tries.iter().flat_map(|t| &t.calls) {
            if call.cached {
                self.replayed += 1;
                continue;
            }
            let model = (call.provider.clone(), call.model.clone());
            if call.usage == Usage::default() {
                self.lines.entry(model).or_default().unmeasured(&record.item_id, call);
                continue;
            }
            let price = self.price(&model)?;
            let now = if self.batch { price.cost_batch(&call.usage) } else { price.cost(&call.usage) };
            let line = self.lines.entry(model).or_default();
            line.calls += 1;
            line.usage = line.usage.plus(call.usage);
            line.recorded = line.recorded.saturating_add(Nano(call.cost_nano_usd));
            line.now = line.now.saturating_add(now);
        }
        Ok(())
    }

    fn price(&mut self, model: &(String, String)) -> Result<&'a Price, Failure> {
        if let Some(price) = self.prices.get(model) {
            return Ok(price);
        }
        let (provider, name) = model;
        let Some(section) = self.config.providers.get(provider) else {
            return Err(Failure::setup(format!(
                "calls of model {name:?} were made at provider {provider:?}, which the configuration does not have: add \
                 [providers.{provider}] as it was for the run (kind and base_url), with --config FILE"
            )));
        };
        let found = self.config.prices.find(section.endpoint.protocol, name);
        let price = found.map_err(|error| Failure::setup(format!("{error}, or to a file given with --prices")))?;
        self.prices.insert(model.clone(), price);
        Ok(price)
    }

    /// Each model with its sums, and the sums of all.
    pub(super) fn lines(&self) -> (impl Iterator<Item = (String, &Line)>, Line) {
        let mut all = Line::default();
        self.lines.values().for_each(|line| all.add(line));
        (self.lines.iter().map(|((provider, model), line)| (format!("{provider}/{model}"), line)), all)
    }
}

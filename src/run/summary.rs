//! What a run came to: for a table, for `--json`, and for the exit code.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::Options;
use super::directory::{Directory, Existing};
use super::plan::Plan;
use crate::fault::Halt;
use crate::media::Stats;
use crate::price::Nano;
use crate::provider::Usage;
use crate::quota::ledger::Totals;
use crate::record::{ByTry, Record, Status};

/// Counts of a run as it goes.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Records by status, those of earlier runs included.
    pub by_status: BTreeMap<Status, u64>,
    /// Records written this time.
    pub written: u64,
    /// Records this time will write at most.
    pub wanted: u64,
    /// Accepted records of this time by the try they were accepted at.
    pub accepted_at: BTreeMap<u32, u64>,
    /// The tries of this time's records by their place in the loop.
    pub tries: ByTry,
    /// Exhausted records of this time that were given up by a rule of the recipe.
    pub gave_up: u64,
    /// Failed records of this time by their error's kind.
    pub failures: BTreeMap<&'static str, u64>,
    /// The first of them, with its item.
    pub first_failure: Option<String>,
    /// Tokens of this time.
    pub usage: Usage,
    /// Jobs that ended in a defect of ours.
    pub panicked: u64,
}

impl Tally {
    /// Before the first record of this time.
    pub fn starting(existing: &Existing, plan: &Plan, options: &Options) -> Self {
        let pending = if options.pinned { plan.pending } else { plan.items };
        let wanted = pending.min(options.limit.unwrap_or(u64::MAX));
        Self { by_status: existing.by_status.clone(), wanted, ..Self::default() }
    }

    /// Adds a record that was written.
    pub fn count(&mut self, record: &Record) {
        *self.by_status.entry(record.status).or_default() += 1;
        self.written += 1;
        if let (Status::Accepted, Some(best)) = (record.status, record.best_try) {
            *self.accepted_at.entry(best).or_default() += 1;
        }
        self.tries.add(&record.by_try());
        self.gave_up += u64::from(record.gave_up.is_some());
        if let (Status::Failed, Some(error)) = (record.status, &record.error) {
            *self.failures.entry(error.kind.name()).or_default() += 1;
            self.first_failure.get_or_insert_with(|| format!("{}: {}", record.item_id, error.message));
        }
        self.usage.input_tokens = self.usage.input_tokens.saturating_add(record.usage.input_tokens);
        self.usage.output_tokens = self.usage.output_tokens.saturating_add(record.usage.output_tokens);
    }

    /// Records with a status.
    pub fn of(&self, status: Status) -> u64 {
        self.by_status.get(&status).copied().unwrap_or(0)
    }
}

/// The end of a run.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The run's name.
    pub run: String,
    /// Its directory.
    pub out: String,
    /// Distinct items of the corpus.
    pub items: u64,
    /// Lines that repeat an item.
    pub duplicates: u64,
    /// Lines that are no item.
    pub rejected: u64,
    /// Why, for the first of them.
    pub reasons: Vec<String>,
    /// Counts.
    pub tally: Tally,
    /// Money and calls of the run, over all its restarts.
    pub totals: Totals,
    /// Media work of this time.
    pub media: Stats,
    /// Why it stopped before the end.
    pub halt: Option<Halt>,
    /// How long it took.
    pub took: Duration,
}

impl Summary {
    /// Puts it together.
    pub fn new(
        directory: &Directory,
        plan: &Plan,
        tally: Tally,
        totals: Totals,
        media: Stats,
        halt: Option<Halt>,
        took: Duration,
    ) -> Self {
        Self {
            run: directory.run.clone(),
            out: directory.path.display().to_string(),
            items: plan.items,
            duplicates: plan.duplicates,
            rejected: plan.rejected,
            reasons: plan.reasons.clone(),
            tally,
            totals,
            media,
            halt,
            took,
        }
    }

    /// 0 done; 1 something failed; 64 setup; 75 stopped before the end.
    pub fn exit_code(&self) -> u8 {
        match &self.halt {
            Some(halt) => halt.exit_code(),
            None if self.tally.of(Status::Failed) > 0 || self.rejected > 0 || self.tally.panicked > 0 => 1,
            None => 0,
        }
    }

    /// Money per accepted record, both over all restarts; none: none is accepted.
    pub fn per_accepted(&self) -> Option<Nano> {
        self.totals.spent.over(self.tally.of(Status::Accepted))
    }

    /// One object.
    pub fn json(&self) -> serde_json::Value {
        let tally = &self.tally;
        let statuses = [Status::Accepted, Status::Exhausted, Status::Blocked, Status::Failed];
        let records: BTreeMap<&str, u64> = statuses.iter().map(|s| (s.name(), tally.of(*s))).collect();
        json!({
            "run": self.run, "out": self.out, "items": self.items, "records": records, "written": tally.written,
            "duplicates": self.duplicates, "rejected": self.rejected, "rejected_lines": self.reasons,
            "panicked": tally.panicked, "failed_by_kind": tally.failures,
            "accepted_at_try": tally.accepted_at, "tries": tally.tries, "given_up": tally.gave_up,
            "nano_usd_per_accepted": self.per_accepted().map(|money| money.0), "calls": self.totals.calls,
            "input_tokens": tally.usage.input_tokens, "output_tokens": tally.usage.output_tokens,
            "spent_nano_usd": self.totals.spent.0, "unconfirmed_nano_usd": self.totals.unconfirmed.0,
            "decodes": self.media.decodes, "downloads": self.media.downloads, "seconds": self.took.as_secs_f64(),
            "stopped": self.halt.as_ref().map(ToString::to_string), "exit_code": self.exit_code(),
        })
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let tally = &self.tally;
        let done: u64 = tally.by_status.values().sum();
        let mut rows = vec![("items", format!("{} ({done} with a record, {} new)", self.items, tally.written))];
        for status in [Status::Accepted, Status::Exhausted, Status::Blocked, Status::Failed] {
            let count = tally.of(status);
            let detail = if status == Status::Accepted && !tally.accepted_at.is_empty() {
                format!("{count} (new ones: {})", tally.tries.phrase())
            } else if status == Status::Exhausted && tally.gave_up > 0 {
                format!("{count} (new ones: {} given up)", tally.gave_up)
            } else if let (Status::Failed, Some(first)) = (status, &tally.first_failure) {
                let kinds: Vec<String> = tally.failures.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
                format!("{count} (new ones: {}; the first is {first})", kinds.join(", "))
            } else {
                count.to_string()
            };
            rows.push((status.name(), detail));
        }
        if self.rejected > 0 {
            rows.push(("rejected", format!("{} corpus lines", self.rejected)));
        }
        if self.duplicates > 0 {
            rows.push(("repeated", format!("{} corpus lines", self.duplicates)));
        }
        let unconfirmed = if self.totals.unconfirmed.0 > 0 {
            format!(
                " (of it {} unconfirmed: calls whose end was not seen, at their worst case)",
                self.totals.unconfirmed
            )
        } else {
            String::new()
        };
        rows.push(("calls", self.totals.calls.to_string()));
        let per_accepted =
            self.per_accepted().map_or_else(String::new, |money| format!(", {money} per accepted record"));
        rows.push(("spent", format!("{}{per_accepted}{unconfirmed}", self.totals.spent)));
        rows.push(("took", format!("{:.1} s", self.took.as_secs_f64())));
        rows.push(("output", self.out.clone()));
        rows.iter().fold(String::new(), |table, (name, value)| table + &format!("  {name:<10} {value}\n"))
    }
}

//! What the simulator counts, and the guard that follows one call to its end.
//!
//! A call is billed when its answer is computed, as a provider bills it, and only a body that was handed over whole counts as
//! answered: the guard travels with the response body, and one that is dropped before (a cut, a stall, a client that
//! hung up) books the money as billed but unseen. What was seen before is remembered by 16-byte hashes in two
//! generations, so memory is bounded however long it runs; a repeat is found for at least the last two million requests.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::fault::Fault;
use super::files::FileStats;
use super::prompt::Seat;
use super::window::{LimitUse, Windows};

/// What was counted since the start or the last reset.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Generation calls that arrived.
    pub received: u64,
    /// Calls answered with HTTP 200 whose body was handed over whole, reply faults included.
    pub answered: u64,
    /// The same by role: generator, summarizer, evaluator, plain.
    pub answered_by_role: BTreeMap<String, u64>,
    /// Calls whose body is byte for byte (seed included) one that was answered before.
    pub repeats_of_answered: u64,
    /// Different bodies seen.
    pub distinct_requests: u64,
    /// Refusals and failures by status and kind.
    pub errors: BTreeMap<String, u64>,
    /// Faults made, by name.
    pub faults: BTreeMap<String, u64>,
    /// Requests refused because they came over a limit.
    pub limit_violations: u64,
    /// Calls being worked on.
    pub in_flight: u64,
    /// Most calls that were worked on at once.
    pub peak_concurrency: u64,
    /// Decoded media bytes received.
    pub media_bytes: u64,
    /// Media parts of well-formed calls with a good key, by kind: image, audio, video, document.
    #[serde(default)]
    pub parts_shown: BTreeMap<String, u64>,
    /// Body bytes received.
    pub body_bytes: u64,
    /// Prompt tokens billed.
    pub prompt_tokens: u64,
    /// Output tokens billed, thoughts included.
    pub output_tokens: u64,
    /// Nano-dollars billed, seen or not.
    pub spend_nano_usd: u64,
    /// Calls billed whose answer was not handed over whole.
    pub billed_unseen: u64,
    /// Their nano-dollars, part of the spend.
    pub billed_unseen_nano_usd: u64,
    /// Well-formed calls with a good key, by model; those over a limit included.
    pub by_model: BTreeMap<String, u64>,
    /// The same, by fingerprint of the key.
    pub by_key: BTreeMap<String, u64>,
    /// How each limit was used, per key and model.
    pub limits: Vec<LimitUse>,
    /// Uploads and files, by project.
    #[serde(default)]
    pub files: BTreeMap<String, FileStats>,
}

/// A map that forgets its older half when it is full.
struct Recent<V> {
    new: HashMap<u128, V>,
    old: HashMap<u128, V>,
    most: usize,
}

impl<V: Copy + Default> Recent<V> {
    fn new(most: usize) -> Self {
        Self { new: HashMap::new(), old: HashMap::new(), most }
    }

    fn get(&self, key: u128) -> Option<V> {
        self.new.get(&key).or_else(|| self.old.get(&key)).copied()
    }

    fn set(&mut self, key: u128, value: V) {
        if self.new.len() >= self.most {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(key, value);
    }
}

/// How often one request was seen, and how many drawn faults in a row it met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Met {
    pub(crate) calls: u64,
    pub(crate) in_a_row: u64,
}

/// All counts behind one lock.
pub(crate) struct Books {
    pub(crate) stats: Stats,
    pub(crate) windows: Windows,
    /// Whole-body hash -> answered.
    bodies: Recent<bool>,
    met: Recent<Met>,
    ordered: Recent<u64>,
}

const REMEMBERED: usize = 2_000_000;
const MOST_KEYS: usize = 1_000;

/// The books, shared by every call.
#[derive(Clone)]
pub(crate) struct Ledger(Arc<Mutex<Books>>);

impl Ledger {
    /// Empty books with these windows.
    pub(crate) fn new(windows: Windows) -> Self {
        Self(Arc::new(Mutex::new(Books {
            stats: Stats::default(),
            windows,
            bodies: Recent::new(REMEMBERED),
            met: Recent::new(REMEMBERED),
            ordered: Recent::new(REMEMBERED),
        })))
    }

    /// The books, locked; a panic elsewhere leaves counts that are still good.
    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the counts.
    pub(crate) fn stats(&self) -> Stats {
        let books = self.books();
        Stats { limits: books.windows.usage(), ..books.stats.clone() }
    }

    /// Begins a call.
    pub(crate) fn enter(&self) -> CallGuard {
        let mut books = self.books();
        books.stats.received += 1;
        books.stats.in_flight += 1;
        books.stats.peak_concurrency = books.stats.peak_concurrency.max(books.stats.in_flight);
        CallGuard { ledger: self.clone(), bill: None, body: 0, open: true }
    }
}

impl Books {
    /// Counts to zero; calls in flight stay in flight, and what was seen before is forgotten.
    pub(crate) fn reset(&mut self, windows: Windows) {
        let in_flight = self.stats.in_flight;
        self.stats = Stats { in_flight, peak_concurrency: in_flight, ..Stats::default() };
        self.windows = windows;
        self.bodies = Recent::new(REMEMBERED);
        self.met = Recent::new(REMEMBERED);
        self.ordered = Recent::new(REMEMBERED);
    }

    /// Notes a request body.
    pub(crate) fn see_body(&mut self, body: u128, bytes: u64) {
        self.stats.body_bytes += bytes;
        match self.bodies.get(body) {
            Some(true) => self.stats.repeats_of_answered += 1,
            Some(false) => {}
            None => {
                self.stats.distinct_requests += 1;
                self.bodies.set(body, false);
            }
        }
    }

    /// Notes which key and model a call came with. Of endless different keys only the first thousand are told apart.
    pub(crate) fn see_caller(&mut self, key: &str, model: &str) {
        *self.stats.by_model.entry(model.to_owned()).or_default() += 1;
        let known = self.stats.by_key.contains_key(key) || self.stats.by_key.len() < MOST_KEYS;
        *self.stats.by_key.entry(if known { key } else { "others" }.to_owned()).or_default() += 1;
    }

    /// How often this request was met before.
    pub(crate) fn met(&self, id: u128) -> Met {
        self.met.get(id).unwrap_or_default()
    }

    /// Notes that it was met again.
    pub(crate) fn set_met(&mut self, id: u128, met: Met) {
        self.met.set(id, met);
    }

    /// Whether an ordered fault has turns left (`None`: always); takes one.
    pub(crate) fn take_turn(&mut self, id: u128, times: Option<u64>) -> bool {
        let Some(times) = times else { return true };
        let used = self.ordered.get(id).unwrap_or(0);
        if used < times {
            self.ordered.set(id, used + 1);
        }
        used < times
    }

    /// Counts a refusal or failure.
    pub(crate) fn see_error(&mut self, kind: &str) {
        *self.stats.errors.entry(kind.to_owned()).or_default() += 1;
    }

    /// Counts a fault.
    pub(crate) fn see_fault(&mut self, fault: Fault) {
        self.see_named_fault(fault.name());
    }

    /// Counts a fault by its name.
    pub(crate) fn see_named_fault(&mut self, name: &str) {
        *self.stats.faults.entry(name.to_owned()).or_default() += 1;
    }

    /// Counts a media part.
    pub(crate) fn see_part(&mut self, kind: &str) {
        *self.stats.parts_shown.entry(kind.to_owned()).or_default() += 1;
    }
}

/// Follows one call; dropped early, it books what was billed as unseen.
pub(crate) struct CallGuard {
    ledger: Ledger,
    bill: Option<(u64, Seat)>,
    body: u128,
    open: bool,
}

impl CallGuard {
    /// Books the cost of an answer that was computed.
    pub(crate) fn bill(&mut self, body: u128, seat: Seat, prompt_tokens: u64, output_tokens: u64, cost: u64) {
        let mut books = self.ledger.books();
        books.stats.prompt_tokens += prompt_tokens;
        books.stats.output_tokens += output_tokens;
        books.stats.spend_nano_usd += cost;
        self.body = body;
        self.bill = Some((cost, seat));
    }

    /// The whole body was handed over.
    pub(crate) fn delivered(&mut self) {
        let Some((_, seat)) = self.bill.take() else { return self.close() };
        let mut books = self.ledger.books();
        books.stats.answered += 1;
        *books.stats.answered_by_role.entry(seat.name().to_owned()).or_default() += 1;
        books.bodies.set(self.body, true);
        drop(books);
        self.close();
    }

    fn close(&mut self) {
        if std::mem::take(&mut self.open) {
            let mut books = self.ledger.books();
            books.stats.in_flight = books.stats.in_flight.saturating_sub(1);
            if let Some((cost, _)) = self.bill.take() {
                books.stats.billed_unseen += 1;
                books.stats.billed_unseen_nano_usd += cost;
            }
        }
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_dropped_after_its_bill_is_billed_unseen() {
        let ledger = Ledger::new(Windows::new(&[]));
        let mut seen = ledger.enter();
        seen.bill(1, Seat::Plain, 10, 5, 700);
        let mut lost = ledger.enter();
        lost.bill(2, Seat::Plain, 10, 5, 300);
        seen.delivered();
        drop((seen, lost));
        let stats = ledger.stats();
        assert_eq!((stats.answered, stats.spend_nano_usd), (1, 1_000));
        assert_eq!((stats.billed_unseen, stats.billed_unseen_nano_usd), (1, 300));
        assert_eq!((stats.in_flight, stats.peak_concurrency), (0, 2));
    }

    #[test]
    fn only_a_request_answered_before_is_a_repeat() {
        let ledger = Ledger::new(Windows::new(&[]));
        ledger.books().see_body(1, 9);
        ledger.books().see_body(1, 9);
        assert_eq!(ledger.stats().repeats_of_answered, 0);
        let mut call = ledger.enter();
        call.bill(1, Seat::Plain, 1, 1, 1);
        call.delivered();
        ledger.books().see_body(1, 9);
        let stats = ledger.stats();
        assert_eq!((stats.repeats_of_answered, stats.distinct_requests), (1, 1));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut recent = Recent::new(10);
        (0..100u32).for_each(|n| recent.set(u128::from(n), n));
        assert!(recent.new.len() + recent.old.len() <= 20);
        assert_eq!(recent.get(99), Some(99));
        assert_eq!(recent.get(5), None);
    }
}

//! Which records a data set has, in memory: 16 bytes an item.
//!
//! An item is known by 96 bits of its id's hash (at 10^8 items, two of them are alike with a chance of 10^-13) and by the latest
//! revision and status. What a later revision superseded is kept apart: there is little of it. A table is at most 7/8 full
//! and grows by doubling, so that an item takes 19 to 39 bytes: 10^8 items 2.3 GB. Asking a database for each record was
//! rejected: it would be the slowest part by far, for memory that one machine has.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use super::manifest::Totals;
use crate::record::Status;

/// Bytes of an entry, in memory and in the file of a shard's ids.
pub(super) const ENTRY: usize = 16;
/// Bits of a mark that hold the status.
const STATUS_BITS: u32 = 3;
const STATUSES: [Status; 5] = [Status::Accepted, Status::Exhausted, Status::Blocked, Status::Failed, Status::Cancelled];

/// An item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Item([u8; 12]);

/// A revision and how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(u32);

/// The records that there are.
#[derive(Debug, Default)]
pub(super) struct Index {
    latest: HashMap<Item, Mark, BuildHasherDefault<Prefix>>,
    /// Those before the latest.
    older: HashSet<(Item, u32)>,
}

impl Item {
    pub(super) fn new(item_id: &str) -> Self {
        let mut item = [0; 12];
        item.copy_from_slice(&blake3::hash(item_id.as_bytes()).as_bytes()[..12]);
        Self(item)
    }
}

impl Mark {
    /// None: a revision that no item reaches.
    pub(super) fn new(revision: u32, status: Status) -> Option<Self> {
        let status = STATUSES.iter().position(|known| *known == status)?;
        let status = u32::try_from(status).ok()?;
        (revision < 1 << (32 - STATUS_BITS)).then_some(Self(revision << STATUS_BITS | status))
    }

    pub(super) fn revision(self) -> u32 {
        self.0 >> STATUS_BITS
    }

    pub(super) fn status(self) -> Status {
        STATUSES.get((self.0 & ((1 << STATUS_BITS) - 1)) as usize).copied().unwrap_or(Status::Failed)
    }
}

impl Index {
    /// The latest record of an item.
    pub(super) fn latest(&self, item: Item) -> Option<Mark> {
        self.latest.get(&item).copied()
    }

    /// Whether it has the record of this revision.
    pub(super) fn has(&self, item: Item, revision: u32) -> bool {
        self.latest(item).is_some_and(|mark| mark.revision() == revision) || self.older.contains(&(item, revision))
    }

    /// Adds a record beside what is in `under`, and counts it; false: it was there.
    pub(super) fn add(&mut self, under: Option<&Self>, item: Item, mark: Mark, totals: &mut Totals) -> bool {
        let revision = mark.revision();
        let known = self.latest(item).or_else(|| under.and_then(|under| under.latest(item)));
        let is_older = |index: &Self| index.older.contains(&(item, revision));
        if known.is_some_and(|known| known.revision() == revision) || is_older(self) || under.is_some_and(is_older) {
            return false;
        }
        totals.jobs += 1;
        match known {
            Some(known) if known.revision() > revision => {
                totals.superseded += 1;
                self.older.insert((item, revision));
            }
            known => {
                if let Some(known) = known {
                    totals.superseded += 1;
                    less(&mut totals.by_status, known.status());
                    self.older.insert((item, known.revision()));
                } else {
                    totals.items += 1;
                }
                *totals.by_status.entry(mark.status()).or_default() += 1;
                self.latest.insert(item, mark);
            }
        }
        true
    }
}

fn less(by_status: &mut BTreeMap<Status, u64>, status: Status) {
    if let Some(count) = by_status.get_mut(&status) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            by_status.remove(&status);
        }
    }
}

/// Entries as they lie beside a shard.
pub(super) fn encode(entries: impl Iterator<Item = (Item, Mark)>) -> Vec<u8> {
    entries.flat_map(|(item, mark)| item.0.into_iter().chain(mark.0.to_le_bytes())).collect()
}

/// The same read again.
pub(super) fn decode(bytes: &[u8]) -> impl Iterator<Item = (Item, Mark)> {
    bytes.chunks_exact(ENTRY).map(|entry| {
        let (mut item, mut mark) = ([0; 12], [0; 4]);
        item.copy_from_slice(&entry[..12]);
        mark.copy_from_slice(&entry[12..]);
        (Item(item), Mark(u32::from_le_bytes(mark)))
    })
}

/// A hash of a hash is its beginning.
#[derive(Default)]
pub(super) struct Prefix(u64);

impl Hasher for Prefix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    // The length of an array, which is always the same.
    fn write_usize(&mut self, _: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(revision: u32, status: Status) -> Mark {
        Mark::new(revision, status).unwrap()
    }

    #[test]
    fn the_latest_revision_counts_in_whatever_order_they_come() {
        let all = [(0, Status::Failed), (1, Status::Exhausted), (2, Status::Accepted)];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
            let (mut index, mut totals) = (Index::default(), Totals::default());
            for n in order {
                let (revision, status) = all[n];
                assert!(index.add(None, Item::new("a"), mark(revision, status), &mut totals));
            }
            for (revision, status) in all {
                assert!(!index.add(None, Item::new("a"), mark(revision, status), &mut totals));
            }
            assert_eq!((totals.jobs, totals.items, totals.superseded), (3, 1, 2), "{order:?}");
            assert_eq!(totals.by_status, [(Status::Accepted, 1)].into(), "{order:?}");
        }
    }

    #[test]
    fn a_layer_above_counts_as_the_whole_would() {
        let (mut base, mut totals) = (Index::default(), Totals::default());
        base.add(None, Item::new("a"), mark(0, Status::Failed), &mut totals);
        let mut above = Index::default();
        assert!(!above.add(Some(&base), Item::new("a"), mark(0, Status::Accepted), &mut totals));
        assert!(above.add(Some(&base), Item::new("a"), mark(1, Status::Accepted), &mut totals));
        assert!(above.add(Some(&base), Item::new("b"), mark(0, Status::Blocked), &mut totals));
        assert!(!above.add(Some(&base), Item::new("a"), mark(0, Status::Failed), &mut totals));
        assert_eq!(totals.by_status, [(Status::Accepted, 1), (Status::Blocked, 1)].into());
        assert_eq!(base.latest(Item::new("a")).unwrap().status(), Status::Failed);
    }

    #[test]
    fn ids_are_read_as_they_were_written() {
        let entries = [(Item::new("a"), mark(7, Status::Blocked)), (Item::new("b"), mark(0, Status::Cancelled))];
        let bytes = encode(entries.into_iter());
        assert_eq!(bytes.len(), 2 * ENTRY);
        assert_eq!(decode(&bytes).collect::<Vec<_>>(), entries);
    }

    #[test]
    fn an_item_takes_16_bytes_and_its_place_in_the_table() {
        assert_eq!(size_of::<(Item, Mark)>(), ENTRY);
        let (mut index, mut totals) = (Index::default(), Totals::default());
        let before = resident();
        for n in 0..1_000_000 {
            index.add(None, Item::new(&n.to_string()), mark(0, Status::Accepted), &mut totals);
        }
        let each = resident().saturating_sub(before) / index.latest.len() as u64;
        println!("{each} bytes an item at 10^6");
        // 2^21 places of 17 bytes for 10^6 items; other tests of this process may take some meanwhile.
        assert!((10..=80).contains(&each), "{each} bytes an item");
    }

    fn resident() -> u64 {
        let status = std::fs::read_to_string("/proc/self/statm").unwrap();
        status.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    }
}

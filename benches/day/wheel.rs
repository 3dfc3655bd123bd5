//! The queue of events: one to come for each id, in the order of their times.
//!
//! A calendar wheel with lists through the ids: putting and taking cost the same whatever the size of the fleet, and nothing
//! is allocated.

/// Microseconds of a slot: two to the power of this.
const WIDTH: u32 = 12;
/// Slots; together 67 s. What lies further ahead stays in its slot for another round.
const SLOTS: u64 = 1 << 14;
const NOBODY: usize = usize::MAX;

pub(crate) struct Wheel {
    /// The first id in each slot.
    first: Vec<usize>,
    /// Behind each id, the next one in its slot.
    next: Vec<usize>,
    at: Vec<u64>,
    /// What is left of the open slot, latest first.
    due: Vec<(u64, usize)>,
    open: u64,
}

impl Wheel {
    /// For ids below `ids`, none of them waiting; no time will be before `start`.
    pub(crate) fn new(ids: usize, start: u64) -> Self {
        let slots = usize::try_from(SLOTS).unwrap_or(0);
        Self {
            first: vec![NOBODY; slots],
            next: vec![NOBODY; ids],
            at: vec![0; ids],
            due: Vec::with_capacity(ids),
            open: start >> WIDTH,
        }
    }

    /// Puts `id`, which waits for nothing, at `at`, which is not before the latest event taken.
    pub(crate) fn put(&mut self, id: usize, at: u64) {
        self.at[id] = at;
        if at >> WIDTH > self.open {
            self.link(id);
        } else {
            let place = self.due.partition_point(|later| *later > (at, id));
            self.due.insert(place, (at, id));
        }
    }

    /// Takes the next event. Something must be waiting.
    pub(crate) fn take(&mut self) -> (u64, usize) {
        loop {
            if let Some(event) = self.due.pop() {
                return event;
            }
            self.open += 1;
            let slot = slot(self.open);
            let mut id = std::mem::replace(&mut self.first[slot], NOBODY);
            while id != NOBODY {
                let behind = self.next[id];
                if self.at[id] >> WIDTH == self.open {
                    self.due.push((self.at[id], id));
                } else {
                    self.link(id);
                }
                id = behind;
            }
            self.due.sort_unstable_by(|one, other| other.cmp(one));
        }
    }

    fn link(&mut self, id: usize) {
        let slot = slot(self.at[id] >> WIDTH);
        self.next[id] = std::mem::replace(&mut self.first[slot], id);
    }
}

fn slot(number: u64) -> usize {
    usize::try_from(number % SLOTS).unwrap_or(0)
}

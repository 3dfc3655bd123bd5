//! What is held in memory: base64 is the greater part of a job's footprint, so it is shared and bounded by bytes.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use super::Prepared;
use super::library::Key;

/// Prepared sources by content. Those in use are always found; beyond them the most recently used up to a number of
/// bytes stay.
pub(crate) struct Memory {
    slots: HashMap<Key, Slot>,
    capacity: usize,
    held: usize,
    clock: u64,
}

struct Slot {
    weak: Weak<Prepared>,
    strong: Option<Arc<Prepared>>,
    bytes: usize,
    used: u64,
}

impl Memory {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { slots: HashMap::new(), capacity, held: 0, clock: 0 }
    }

    pub(crate) fn get(&mut self, key: &Key) -> Option<Arc<Prepared>> {
        self.clock += 1;
        let slot = self.slots.get_mut(key)?;
        let prepared = slot.weak.upgrade()?;
        slot.used = self.clock;
        Some(prepared)
    }

    pub(crate) fn insert(&mut self, key: Key, prepared: &Arc<Prepared>) {
        self.clock += 1;
        let bytes = prepared.frames.iter().map(|frame| frame.jpeg.base64.len()).sum::<usize>()
            + prepared.sound.as_ref().map_or(0, |sound| sound.blob.base64.len());
        let slot = Slot { weak: Arc::downgrade(prepared), strong: Some(prepared.clone()), bytes, used: self.clock };
        let before = self.slots.insert(key, slot);
        self.held += bytes;
        self.held -= before.filter(|slot| slot.strong.is_some()).map_or(0, |slot| slot.bytes);
        while self.held > self.capacity {
            let held = self.slots.values_mut().filter(|slot| slot.strong.is_some());
            let Some(oldest) = held.min_by_key(|slot| slot.used) else {
                break;
            };
            oldest.strong = None;
            self.held -= oldest.bytes;
        }
        self.slots.retain(|_, slot| slot.weak.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{Frame, Kind};
    use crate::provider::Blob;

    fn prepared(bytes: usize) -> Arc<Prepared> {
        let jpeg = Blob { mime: "image/jpeg", base64: vec![b'A'; bytes].into() };
        let frames = vec![Frame { at_ms: 0, width: 1, height: 1, jpeg }];
        Arc::new(Prepared { sha256: String::new(), bytes: 0, duration_ms: None, frames, sound: None, clip: None })
    }

    fn key(name: &str) -> Key {
        (name.into(), Kind::Video)
    }

    #[test]
    fn memory_keeps_the_recently_used_within_its_bytes() {
        let mut memory = Memory::new(100);
        memory.insert(key("a"), &prepared(40));
        memory.insert(key("b"), &prepared(40));
        assert!(memory.get(&key("a")).is_some());
        memory.insert(key("c"), &prepared(40));
        let found = ["a", "b", "c"].map(|name| memory.get(&key(name)).is_some());
        assert_eq!((found, memory.held, memory.slots.len()), ([true, false, true], 80, 2));
    }

    #[test]
    fn what_is_in_use_is_found_even_when_memory_is_full() {
        let mut memory = Memory::new(10);
        let in_use = prepared(40);
        memory.insert(key("a"), &in_use);
        assert!(memory.get(&key("a")).is_some_and(|found| Arc::ptr_eq(&found, &in_use)));
        drop(in_use);
        assert!(memory.get(&key("a")).is_none());
        assert_eq!(memory.held, 0);
    }

    #[test]
    fn one_key_kept_twice_counts_once() {
        let mut memory = Memory::new(100);
        memory.insert(key("a"), &prepared(40));
        memory.insert(key("a"), &prepared(30));
        assert_eq!(memory.held, 30);
    }
}

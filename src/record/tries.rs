//! How often tries are scored and accepted, by their place in the loop.

use serde::{Deserialize, Serialize};

use super::{Record, Status};

/// The tries of one place in the loop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// Those that have a score.
    pub scored: u64,
    /// Those that were accepted.
    pub accepted: u64,
}

/// The tries of many records; the first entry is of try 1.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByTry(Vec<Tried>);

impl ByTry {
    /// Those of one record: for each of its tries whether it has a score. An accepted one is the last.
    pub fn of(status: Status, scored: impl Iterator<Item = bool>) -> Self {
        let mut tries: Vec<Tried> = scored.map(|scored| Tried { scored: u64::from(scored), accepted: 0 }).collect();
        if let (Status::Accepted, Some(last)) = (status, tries.last_mut()) {
            last.accepted = 1;
        }
        Self(tries)
    }

    /// Adds those of other records.
    pub fn add(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), Tried::default());
        }
        for (sum, tried) in self.0.iter_mut().zip(&other.0) {
            sum.scored = sum.scored.saturating_add(tried.scored);
            sum.accepted = sum.accepted.saturating_add(tried.accepted);
        }
    }

    /// Each place from 1 with its tries.
    pub fn iter(&self) -> impl Iterator<Item = (usize, Tried)> {
        self.0.iter().enumerate().map(|(at, tried)| (at + 1, *tried))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// For people: `1 of 6 at try 1, 1 of 5 at try 2`. Empty: nothing was scored.
    pub fn phrase(&self) -> String {
        let scored = self.iter().filter(|(_, tried)| tried.scored > 0);
        let phrases: Vec<String> =
            scored.map(|(at, tried)| format!("{} of {} at try {at}", tried.accepted, tried.scored)).collect();
        phrases.join(", ")
    }
}

impl Record {
    /// Its tries by their place.
    pub fn by_try(&self) -> ByTry {
        ByTry::of(self.status, self.tries.iter().map(|t| t.score.is_some()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_are_counted_by_their_place_and_the_last_of_an_accepted_record_is_accepted() {
        let mut all = ByTry::default();
        assert_eq!(all.phrase(), "");
        all.add(&ByTry::of(Status::Accepted, [true, true].into_iter()));
        all.add(&ByTry::of(Status::Accepted, [true].into_iter()));
        all.add(&ByTry::of(Status::Exhausted, [true, true, true].into_iter()));
        all.add(&ByTry::of(Status::Failed, [true, false].into_iter()));
        all.add(&ByTry::of(Status::Failed, std::iter::empty()));
        assert_eq!(all.phrase(), "1 of 4 at try 1, 1 of 2 at try 2, 0 of 1 at try 3");
        let json = serde_json::to_string(&all).unwrap();
        assert!(json.starts_with(r#"[{"scored":4,"accepted":1},"#), "{json}");
        assert_eq!(serde_json::from_str::<ByTry>(&json).unwrap(), all);
    }
}

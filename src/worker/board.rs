//! Which run a free slot takes from: by the weight of its lane, then in turn. Pure.
//!
//! Stride scheduling (Waldspurger and Weihl, 1995): each take moves a run on by the inverse of its weight, and the one that is
//! furthest behind is next. A run that was empty begins where the others are, so it catches up on nothing. Empty queues are
//! asked again at growing distances, since asking one costs as much as taking from it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::shared::runs::Lane;

/// The first and the longest pause before an empty queue is asked again.
const EMPTY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Most jobs that are asked for at once. A queue that gave what it was asked for is asked for twice as many.
const AT_ONCE: usize = 16;
/// Before a queue that is not there is asked again.
const MISSING: Duration = Duration::from_secs(5);

/// The active runs.
#[derive(Debug, Default)]
pub(super) struct Board {
    runs: BTreeMap<String, Place>,
}

#[derive(Debug, Clone)]
struct Place {
    weight: f64,
    pass: f64,
    /// Not asked before this.
    due: Option<Instant>,
    pause: Duration,
    at_once: usize,
}

/// What to do with a free slot.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// Take from this run, so many at most.
    Run(String, usize),
    /// Nothing is due before this.
    At(Instant),
}

impl Board {
    /// Takes note of what is active now.
    pub(super) fn active<'a>(&mut self, runs: impl Iterator<Item = (&'a str, Lane)>) {
        let front = self.front();
        let mut fresh = BTreeMap::new();
        for (name, lane) in runs {
            let known = self.runs.remove(name);
            let new = Place { weight: 1.0, pass: front, due: None, pause: EMPTY.0, at_once: 1 };
            fresh.insert(name.to_owned(), Place { weight: weight(lane), ..known.unwrap_or(new) });
        }
        self.runs = fresh;
    }

    /// Whose turn it is.
    pub(super) fn next(&self, now: Instant) -> Next {
        let due = self.runs.iter().filter(|(_, place)| place.due.is_none_or(|due| due <= now));
        if let Some((name, place)) = due.min_by(|(_, a), (_, b)| a.pass.total_cmp(&b.pass)) {
            return Next::Run(name.clone(), place.at_once);
        }
        let first = self.runs.values().filter_map(|place| place.due).min();
        Next::At(first.unwrap_or(now + EMPTY.1))
    }

    /// It gave a message.
    pub(super) fn took(&mut self, run: &str) {
        let front = self.front();
        if let Some(place) = self.runs.get_mut(run) {
            if place.due.take().is_some() {
                place.pass = place.pass.max(front);
            }
            place.pause = EMPTY.0;
            place.at_once = (place.at_once * 2).min(AT_ONCE);
            place.pass += 1.0 / place.weight;
        }
    }

    /// It has none. `jitter` is drawn from 0..=1.
    pub(super) fn empty(&mut self, run: &str, now: Instant, jitter: f64) {
        if let Some(place) = self.runs.get_mut(run) {
            place.due = Some(now + place.pause.mul_f64(0.5 + jitter / 2.0));
            place.pause = (place.pause * 2).min(EMPTY.1);
            place.at_once = 1;
        }
    }

    /// It has no queue.
    pub(super) fn missing(&mut self, run: &str, now: Instant) {
        if let Some(place) = self.runs.get_mut(run) {
            place.due = Some(now + MISSING);
            place.at_once = 1;
        }
    }

    /// Where the run is that is furthest behind of those that have work.
    fn front(&self) -> f64 {
        let busy = self.runs.values().filter(|place| place.due.is_none()).map(|place| place.pass);
        let all = self.runs.values().map(|place| place.pass);
        busy.min_by(f64::total_cmp).or_else(|| all.max_by(f64::total_cmp)).unwrap_or(0.0)
    }
}

fn weight(lane: Lane) -> f64 {
    match lane {
        Lane::High => 6.0,
        Lane::Normal => 3.0,
        Lane::Low => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(board: &mut Board, count: usize, has: impl Fn(&str) -> bool) -> BTreeMap<String, usize> {
        let now = Instant::now();
        let mut taken = BTreeMap::new();
        for _ in 0..count {
            while let Next::Run(run, _) = board.next(now) {
                if has(&run) {
                    board.took(&run);
                    *taken.entry(run).or_insert(0) += 1;
                    break;
                }
                board.empty(&run, now, 1.0);
            }
        }
        taken
    }

    #[tokio::test]
    async fn lanes_share_by_their_weights_and_runs_of_one_lane_equally() {
        let mut board = Board::default();
        board.active([("h", Lane::High), ("l", Lane::Low), ("n", Lane::Normal)].into_iter());
        let taken = takes(&mut board, 100, |_| true);
        assert_eq!(taken, [("h".to_owned(), 60), ("l".to_owned(), 10), ("n".to_owned(), 30)].into());
        board.active([("a", Lane::Normal), ("b", Lane::Normal)].into_iter());
        let taken = takes(&mut board, 100, |_| true);
        assert_eq!(taken, [("a".to_owned(), 50), ("b".to_owned(), 50)].into());
    }

    #[tokio::test]
    async fn an_empty_run_leaves_its_share_to_the_others_and_catches_up_on_nothing() {
        let mut board = Board::default();
        board.active([("h", Lane::High), ("n", Lane::Normal)].into_iter());
        assert_eq!(takes(&mut board, 50, |run| run == "n"), [("n".to_owned(), 50)].into());
        assert!(matches!(board.next(Instant::now()), Next::Run(run, _) if run == "n"), "h is not due");
        let later = Instant::now() + Duration::from_secs(2);
        assert_eq!(board.next(later), Next::Run("h".to_owned(), 1), "empty so far, it is asked for one");
        board.took("h");
        let taken = takes(&mut board, 90, |_| true);
        assert!((59..=61).contains(&taken["h"]), "{taken:?}");
    }

    #[tokio::test]
    async fn a_run_that_gives_what_it_is_asked_for_is_asked_for_more() {
        let mut board = Board::default();
        board.active([("a", Lane::Normal)].into_iter());
        let asked = |board: &Board| match board.next(Instant::now() + Duration::from_secs(2)) {
            Next::Run(_, at_once) => at_once,
            Next::At(_) => 0,
        };
        let grown: Vec<usize> = (0..6).map(|_| (asked(&board), board.took("a")).0).collect();
        assert_eq!(grown, [1, 2, 4, 8, 16, 16]);
        board.empty("a", Instant::now(), 1.0);
        assert_eq!(asked(&board), 1);
    }

    #[tokio::test]
    async fn a_new_run_begins_where_the_others_are() {
        let mut board = Board::default();
        board.active([("old", Lane::Normal)].into_iter());
        takes(&mut board, 1000, |_| true);
        board.active([("old", Lane::Normal), ("new", Lane::Normal)].into_iter());
        let taken = takes(&mut board, 100, |_| true);
        assert_eq!(taken, [("new".to_owned(), 50), ("old".to_owned(), 50)].into());
    }
}

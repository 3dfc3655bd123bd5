//! What was uploaded, for whom, and who needs it.
//!
//! The table is small (a project keeps 20 GB), so all of it is in memory as well; every change is written before it counts. In
//! a fleet the memory is a copy, brought up to date before anything is uploaded. Who needs a file is known in memory alone: a call that is under way (`uses`), or a
//! job that has handed it over before and still holds its clip.

mod leaving;
mod rows;
mod table;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(super) use self::leaving::{Leaving, Room};
pub(super) use self::rows::Rows;
use crate::media::Clip;
use crate::provider::gemini::files::{FileState, RemoteFile};
use crate::state::StateError;

/// A handle is not used so shortly before its end, or in the last tenth of its life if that is shorter: the call that
/// holds it may take as long.
const MARGIN_SECONDS: i64 = 600;
/// How long files are kept where the provider does not say: two days (Gemini's documentation), a little less here.
const KEPT_SECONDS: i64 = 47 * 3600;
/// The time of a file's last use is written at most so often.
const TOUCH_SECONDS: i64 = 60;

/// Which clip, at which provider, by which credential.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The provider's, as in journal keys.
    pub(super) identity: Arc<str>,
    /// The credential's label.
    pub(super) credential: Arc<str>,
    /// Of the clip.
    pub(super) sha256: Arc<str>,
}

/// How far an upload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Phase {
    /// Begun; its end was not seen.
    Uploading,
    /// There, and being processed.
    Processing,
    /// Ready.
    Active,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    /// The name we chose, by which it is found in the provider's list.
    pub(super) display_name: String,
    pub(super) phase: Phase,
    /// The provider's name; none while it is uploaded.
    pub(super) name: Option<String>,
    pub(super) uri: Option<Arc<str>>,
    pub(super) bytes: u64,
    /// Unix seconds.
    pub(super) expires_at: Option<i64>,
    /// When it was there, or was begun.
    pub(super) since: i64,
    pub(super) last_used: i64,
}

pub(super) struct Registry {
    rows: Rows,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    rows: HashMap<Key, Row>,
    needs: HashMap<Key, Need>,
    /// Taken out of the rows to be deleted; they count until they are gone.
    leaving: Vec<leaving::Entry>,
}

#[derive(Default)]
struct Need {
    uses: usize,
    clips: Vec<Weak<Clip>>,
}

impl Row {
    /// One that is about to be uploaded.
    pub(super) fn begun(display_name: String, bytes: u64) -> Self {
        let now = now();
        let phase = Phase::Uploading;
        Self { display_name, phase, name: None, uri: None, bytes, expires_at: None, since: now, last_used: now }
    }

    /// The same with what the provider says of it.
    pub(super) fn with(self, file: &RemoteFile) -> Self {
        let phase = if file.state == FileState::Active { Phase::Active } else { Phase::Processing };
        let now = now();
        let (since, last_used) = if self.phase == Phase::Uploading { (now, now) } else { (self.since, self.last_used) };
        Self {
            phase,
            name: Some(file.name.clone()),
            uri: Some(file.uri.as_str().into()),
            expires_at: Some(file.expires_at.map_or_else(|| now + KEPT_SECONDS, jiff::Timestamp::as_second)),
            since,
            last_used,
            ..self
        }
    }

    /// For how long it was seen being processed: while it is, its last use is the last look at it.
    pub(super) fn seen(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.last_used - self.since).unwrap_or(0))
    }

    /// The same, seen just now, and being processed for so long: what nobody saw of it is left out.
    pub(super) fn seen_for(self, seen: Duration) -> Self {
        let last_used = now();
        Self { since: last_used - i64::try_from(seen.as_secs()).unwrap_or(0), last_used, ..self }
    }

    /// Whether it is over, or so soon that it is not used any more.
    pub(super) fn ends_soon(&self) -> bool {
        let margin = |end: i64| MARGIN_SECONDS.min((end - self.since).max(0) / 10);
        self.expires_at.is_some_and(|end| end - margin(end) <= now())
    }

    fn is_over(&self) -> bool {
        self.expires_at.unwrap_or(self.since + KEPT_SECONDS) <= now()
    }
}

impl Registry {
    pub(super) async fn open(rows: Rows) -> Result<Self, StateError> {
        let books = Mutex::new(Books { rows: rows.all().await?, ..Books::default() });
        Ok(Self { rows, books })
    }

    /// Waits until no other process brings this clip there, and learns what they brought. Dropped, what it gives lets others.
    pub(super) async fn alone(&self, key: &Key) -> Result<impl Sized + use<>, StateError> {
        let alone = self.rows.alone(key).await?;
        let Some(fresh) = self.rows.of_credential(key).await? else { return Ok(alone) };
        let mut books = self.books();
        books.rows.retain(|known, row| !known.is_of(key) || (known != key && row.phase == Phase::Uploading));
        for (known, row) in fresh {
            books.rows.insert(known, row);
        }
        Ok(alone)
    }

    pub(super) fn get(&self, key: &Key) -> Option<Row> {
        self.books().rows.get(key).cloned()
    }

    /// The address of a file that can be used now.
    pub(super) fn ready(&self, key: &Key) -> Option<Arc<str>> {
        let mut books = self.books();
        let row = books.rows.get_mut(key).filter(|row| row.phase == Phase::Active && !row.ends_soon())?;
        let uri = row.uri.clone();
        let stale = now() - row.last_used >= TOUCH_SECONDS;
        row.last_used = now();
        if stale {
            let row = row.clone();
            drop(books);
            self.rows.write_later(key, row);
        }
        uri
    }

    /// Writes a row; it counts at once, and has failed if this has.
    pub(super) async fn put(&self, key: &Key, row: &Row) -> Result<(), StateError> {
        self.books().rows.insert(key.clone(), row.clone());
        self.rows.write(key, row).await
    }

    /// Forgets a file. What cannot be written is found out by its next use.
    pub(super) async fn forget(&self, key: &Key) {
        let Some(row) = self.books().rows.remove(key) else { return };
        self.forget_named(key, &row.display_name).await;
    }

    /// Takes the row of one upload of a clip out of the state.
    async fn forget_named(&self, key: &Key, display_name: &str) {
        if let Err(error) = self.rows.remove(key, display_name).await {
            tracing::warn!(%error, "an upload could not be forgotten");
        }
    }

    /// Forgets a file, unless there is another one in its place by now.
    pub(super) async fn forget_at(&self, key: &Key, uri: &str) {
        if self.get(key).is_some_and(|row| row.uri.as_deref() == Some(uri)) {
            self.forget(key).await;
        }
    }

    /// A file that was ready is to be looked at again. In memory alone: the next process looks by itself.
    pub(super) fn doubt(&self, key: &Key) {
        if let Some(row) = self.books().rows.get_mut(key).filter(|row| row.phase == Phase::Active) {
            (row.phase, row.since, row.last_used) = (Phase::Processing, now(), now());
        }
    }

    /// Of several lists of keys (the same clips, one credential each) the one with most files there or begun; it is in
    /// use from now on.
    pub(super) fn choose(&self, all: &[Vec<Key>], clips: &[&Arc<Clip>]) -> usize {
        let mut books = self.books();
        let known = |key: &Key| {
            let row = books.rows.get(key).filter(|row| !row.ends_soon());
            let ready = row.is_some_and(|row| row.phase == Phase::Active);
            let begun = row.is_some() || books.needs.get(key).is_some_and(|need| need.uses > 0);
            usize::from(ready) + usize::from(begun)
        };
        let scores = all.iter().map(|keys| keys.iter().map(known).sum::<usize>());
        let best = scores.enumerate().max_by_key(|(index, score)| (*score, std::cmp::Reverse(*index)));
        let chosen = best.map_or(0, |(index, _)| index);
        for (key, clip) in all.get(chosen).into_iter().flatten().zip(clips) {
            let need = books.needs.entry(key.clone()).or_default();
            need.uses += 1;
            need.clips.retain(|known| known.strong_count() > 0);
            if !need.clips.iter().any(|known| known.as_ptr() == Arc::as_ptr(clip)) {
                need.clips.push(Arc::downgrade(clip));
            }
        }
        chosen
    }

    /// One use less.
    pub(super) fn release(&self, key: &Key) {
        let mut books = self.books();
        if let Some(need) = books.needs.get_mut(key) {
            need.uses = need.uses.saturating_sub(1);
        }
        books.needs.retain(|_, need| need.uses > 0 || need.clips.iter().any(|clip| clip.strong_count() > 0));
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::clip_of_file;

    fn key(credential: &str, sha256: &str) -> Key {
        Key { identity: "i".into(), credential: credential.into(), sha256: sha256.into() }
    }

    fn row(bytes: u64, last_used: i64) -> Row {
        let active = (Phase::Active, Some("files/a".to_owned()), Some("https://host/files/a".into()));
        let (phase, name, uri) = active;
        Row { phase, name, uri, expires_at: Some(now() + 3600), last_used, ..Row::begun("d".to_owned(), bytes) }
    }

    fn clip() -> Arc<Clip> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.mp4");
        std::fs::write(&path, "x").unwrap();
        Arc::new(clip_of_file(&path))
    }

    struct Bench {
        dir: tempfile::TempDir,
        registry: Registry,
    }

    impl Bench {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let registry = Self::open(&dir).await;
            Self { dir, registry }
        }

        async fn open(dir: &tempfile::TempDir) -> Registry {
            Registry::open(Rows::Embedded(Arc::new(crate::state::State::open(&dir.path().join("s.sqlite")).unwrap())))
                .await
                .unwrap()
        }

        /// The next process.
        async fn again(self) -> Self {
            let Self { dir, registry } = self;
            drop(registry);
            let registry = Self::open(&dir).await;
            Self { dir, registry }
        }
    }

    #[tokio::test]
    async fn what_was_written_is_there_for_the_next_process_and_what_is_over_is_not() {
        let bench = Bench::new().await;
        let over = Row { expires_at: Some(now() - 1), ..row(1, 0) };
        let begun = Row::begun("d".to_owned(), 7);
        for (name, row) in [("kept", &row(5, 9)), ("over", &over), ("begun", &begun)] {
            bench.registry.put(&key("K", name), row).await.unwrap();
        }
        let found = bench.again().await.registry;
        assert_eq!(found.get(&key("K", "kept")).unwrap().bytes, 5);
        assert_eq!(found.get(&key("K", "begun")), Some(begun));
        assert_eq!((found.get(&key("K", "over")), found.get(&key("L", "kept"))), (None, None));
        assert_eq!(found.ready(&key("K", "begun")), None);
    }

    #[test]
    fn a_handle_is_not_used_near_its_end() {
        for (lived, left, soon) in
            [(0, 172_800, false), (172_000, 601, false), (172_000, 599, true), (9, 2, false), (90, 9, true)]
        {
            let row = Row { since: now() - lived, expires_at: Some(now() + left), ..row(1, 0) };
            assert_eq!(row.ends_soon(), soon, "lived {lived} s, {left} s left");
        }
    }

    #[tokio::test]
    async fn the_credential_that_has_most_or_has_begun_is_chosen_else_the_first() {
        let registry = Bench::new().await.registry;
        let clip = clip();
        let all = |clips: &[&str]| ["K", "L"].map(|k| clips.iter().map(|c| key(k, c)).collect::<Vec<_>>());
        assert_eq!(registry.choose(&all(&["a"]), &[&clip]), 0);
        registry.release(&key("K", "a"));
        registry.put(&key("L", "a"), &Row::begun("d".to_owned(), 1)).await.unwrap();
        assert_eq!(registry.choose(&all(&["a"]), &[&clip]), 1);
        registry.put(&key("K", "a"), &row(1, 0)).await.unwrap();
        assert_eq!(registry.choose(&all(&["a"]), &[&clip]), 0, "ready is more than begun");
        registry.put(&key("L", "a"), &row(1, 0)).await.unwrap();
        registry.put(&key("L", "b"), &row(1, 0)).await.unwrap();
        assert_eq!(registry.choose(&all(&["a", "b"]), &[&clip, &clip]), 1);
    }

    #[tokio::test]
    async fn the_least_recently_used_file_that_nobody_needs_is_the_first_to_go() {
        let registry = Bench::new().await.registry;
        let (wanted, clip) = (key("K", "new"), clip());
        for (name, used) in [("a", 1), ("b", 2), ("c", 3)] {
            registry.put(&key("K", name), &row(10, used)).await.unwrap();
        }
        registry.put(&key("L", "z"), &row(10, 0)).await.unwrap();
        assert_eq!(registry.books().stored_beside(&wanted), 30, "another credential's files are another project's");
        assert_eq!(registry.books().stored_beside(&key("K", "a")), 20);
        let victim =
            |jobs_wait| registry.books().needed_least(&wanted, jobs_wait, i64::MAX).map(|key| key.sha256.to_string());
        registry.choose(&[vec![key("K", "a")]], &[&clip]);
        assert_eq!(victim(false).as_deref(), Some("b"), "a call uses a");
        assert_eq!(victim(true).as_deref(), Some("b"));
        registry.release(&key("K", "a"));
        assert_eq!(victim(false).as_deref(), Some("b"), "its job is not over");
        assert_eq!(victim(true).as_deref(), Some("a"));
        drop(clip);
        assert_eq!(victim(false).as_deref(), Some("a"));
        for name in ["a", "b", "c"] {
            registry.forget(&key("K", name)).await;
        }
        assert_eq!(victim(true), None);
    }

    #[tokio::test]
    async fn a_file_counts_until_it_is_gone_and_its_room_is_taken_only_then() {
        let bench = Bench::new().await;
        let registry = &bench.registry;
        registry.put(&key("K", "old"), &row(60, 1)).await.unwrap();
        let (large, small) = (Row::begun("l".to_owned(), 50), Row::begun("s".to_owned(), 40));
        let Room::After(leaving) = registry.take_room(&key("K", "large"), &large, 100, false) else { panic!() };
        assert_eq!(registry.ready(&key("K", "old")), None, "nobody is given it any more");
        assert!(matches!(registry.take_room(&key("K", "second"), &large, 100, false), Room::Soon));
        // What fits beside it is not held up.
        assert!(matches!(registry.take_room(&key("K", "small"), &small, 100, false), Room::Taken));
        // A delete that failed, or that nobody waits for any more, is for the next one to try.
        drop(leaving);
        let Room::After(leaving) = registry.take_room(&key("K", "large"), &large, 100, false) else { panic!() };
        leaving.gone().await;
        assert!(matches!(registry.take_room(&key("K", "large"), &large, 100, false), Room::Taken));
        assert_eq!(registry.books().stored_beside(&key("K", "other")), 90);
        assert_eq!(bench.again().await.registry.get(&key("K", "old")), None);
    }

    #[tokio::test]
    async fn a_file_that_is_uploaded_again_while_the_old_one_is_deleted_stays() {
        let bench = Bench::new().await;
        let old = Row { display_name: "old".to_owned(), ..row(60, 1) };
        bench.registry.put(&key("K", "a"), &old).await.unwrap();
        let leaving = bench.registry.victim(&key("K", "b"), false).unwrap();
        let new = Row { display_name: "new".to_owned(), ..row(60, 2) };
        bench.registry.put(&key("K", "a"), &new).await.unwrap();
        leaving.gone().await;
        assert_eq!(bench.registry.get(&key("K", "a")).unwrap().display_name, "new");
        assert_eq!(bench.again().await.registry.get(&key("K", "a")).unwrap().display_name, "new");
    }

    #[test]
    fn time_in_which_nobody_saw_a_file_is_left_out() {
        let row = Row { since: now() - 5_000, last_used: now() - 4_990, ..row(1, 0) };
        assert_eq!(row.seen(), Duration::from_secs(10));
        let row = row.seen_for(Duration::from_millis(12_700));
        assert_eq!((row.seen(), row.last_used - row.since), (Duration::from_secs(12), 12));
    }
}

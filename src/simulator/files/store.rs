//! Projects, their files and the uploads under way; pure but for its lock: the caller brings the clock.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::Mutex as AsyncMutex;

use super::super::answer::Refusal;
use super::super::blob::Kind;
use super::super::draw;
use super::super::gemini::errors;
use super::super::settings::Settings;
use super::fault::{FileFault, Memory, Occasion};
use super::held::{FileStats, Held, Place, Project, Shown};
use super::taken::Taken;
use super::wish::Wish;

/// Most uploads under way; the oldest is forgotten for a new one.
const MOST_UPLOADS: usize = 10_000;

/// An upload under way.
pub(crate) struct Upload {
    pub(super) session: String,
    pub(super) project: String,
    /// What faults are drawn from: the same for every upload of the same thing.
    pub(super) id: u128,
    pub(super) wish: Wish,
    pub(super) taken: AsyncMutex<Taken>,
}

#[derive(Default)]
struct Inner {
    projects: BTreeMap<String, Project>,
    uploads: HashMap<String, Arc<Upload>>,
    order: VecDeque<String>,
    memory: Memory,
    made: u64,
}

/// All projects behind one lock.
pub(crate) struct Store {
    inner: Mutex<Inner>,
    epoch: jiff::Timestamp,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self { inner: Mutex::default(), epoch: jiff::Timestamp::now() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts by project.
    pub(crate) fn stats(&self, now_ms: u64) -> BTreeMap<String, FileStats> {
        let mut inner = self.lock();
        let counted = |(name, project): (&String, &mut Project)| {
            let (live_files, live_bytes) = (project.live(now_ms).len() as u64, project.live_bytes(now_ms));
            (name.clone(), FileStats { live_files, live_bytes, ..project.counts.clone() })
        };
        inner.projects.iter_mut().map(counted).collect()
    }

    /// Sets counts to zero; files and uploads stay, what faults were met is forgotten.
    pub(crate) fn reset(&self) {
        let mut inner = self.lock();
        inner.memory = Memory::default();
        inner.projects.values_mut().for_each(|project| project.counts = FileStats::default());
    }

    /// Counts something for a project.
    pub(super) fn count(&self, project: &str, change: impl FnOnce(&mut FileStats)) {
        change(&mut self.lock().projects.entry(project.to_owned()).or_default().counts);
    }

    /// The fault of an occasion of an upload.
    pub(super) fn roll(&self, settings: &Settings, id: u128, occasion: Occasion) -> Option<(FileFault, u64)> {
        self.lock().memory.roll(&settings.files.faults, settings.seed, id, occasion)
    }

    /// Begins an upload: its session, and the fault that meets it.
    pub(super) fn begin(
        &self,
        place: &Place<'_>,
        wish: Wish,
        settings: &Settings,
    ) -> Result<(String, Option<FileFault>), Refusal> {
        let mut inner = self.lock();
        if wish.name.as_ref().is_some_and(|name| inner.has(name, place.now_ms)) {
            return Err(errors::already_exists());
        }
        let project = inner.projects.entry(place.project.to_owned()).or_default();
        if project.live_bytes(place.now_ms).saturating_add(wish.size) > settings.files.storage_bytes {
            return Err(errors::storage_full(settings.files.storage_bytes));
        }
        let title = wish.display_name.as_deref().unwrap_or_default();
        let id = draw::digest(&[place.project.as_bytes(), title.as_bytes(), &wish.size.to_le_bytes()]);
        let fault = inner.memory.roll(&settings.files.faults, settings.seed, id, Occasion::Start);
        if let Some((fault, _)) = fault {
            return Ok((String::new(), Some(fault)));
        }
        inner.made += 1;
        let session = format!("{:032x}", draw::digest(&[b"session", &self.nonce(), &inner.made.to_le_bytes()]));
        if inner.order.len() >= MOST_UPLOADS
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.uploads.remove(&oldest);
        }
        let taken = AsyncMutex::new(Taken::new(wish.size));
        let upload = Upload { session: session.clone(), project: place.project.to_owned(), id, wish, taken };
        inner.uploads.insert(session.clone(), Arc::new(upload));
        inner.order.push_back(session.clone());
        inner.projects.entry(place.project.to_owned()).or_default().counts.started += 1;
        Ok((session, None))
    }

    pub(super) fn upload(&self, session: &str) -> Option<Arc<Upload>> {
        self.lock().uploads.get(session).cloned()
    }

    pub(super) fn forget(&self, session: &str) {
        let mut inner = self.lock();
        inner.uploads.remove(session);
        inner.order.retain(|known| known != session);
    }

    /// Makes a whole upload a file; returns its resource.
    pub(super) fn finalize(
        &self,
        place: &Place<'_>,
        upload: &Upload,
        taken: &Taken,
        settings: &Settings,
    ) -> Result<(Value, Option<FileFault>), Refusal> {
        let mut inner = self.lock();
        let limit = settings.files.storage_bytes;
        let project = inner.projects.entry(upload.project.clone()).or_default();
        if project.live_bytes(place.now_ms).saturating_add(upload.wish.size) > limit {
            return Err(errors::storage_full(limit));
        }
        inner.made += 1;
        let number = inner.made;
        let name = upload.wish.name.clone().unwrap_or_else(|| self.name(number));
        if inner.has(&name, place.now_ms) {
            return Err(errors::already_exists());
        }
        let fault = inner.memory.roll(&settings.files.faults, settings.seed, upload.id, Occasion::Made);
        let fault = fault.map(|(fault, _)| fault);
        let shown = taken.shown(&upload.wish);
        let waits = match (shown.kind, fault) {
            (_, Some(FileFault::LongProcessing)) => {
                settings.files.processing_ms.saturating_add(settings.files.faults.long_processing_ms)
            }
            (Kind::Video, _) => settings.files.processing_ms,
            _ => 0,
        };
        let soon = fault == Some(FileFault::ExpiresSoon);
        let life = if soon { settings.files.faults.short_life_ms } else { settings.files.life_ms };
        let no_video = shown.kind == Kind::Video && shown.measured.format.is_none() && !settings.trust_media;
        let held = Held {
            number,
            upload_id: upload.id,
            wish: upload.wish.clone(),
            created_ms: place.now_ms,
            ready_ms: place.now_ms.saturating_add(waits),
            ends_ms: place.now_ms.saturating_add(life),
            failed: fault == Some(FileFault::Failed) || no_video,
            sha256: taken.sha256(),
            shown,
        };
        let project = inner.projects.entry(upload.project.clone()).or_default();
        project.counts.finalized += 1;
        project.counts.bytes_finalized += upload.wish.size;
        let resource = held.resource(&name, place, self.epoch);
        project.files.insert(name, held);
        Ok((resource, fault))
    }

    pub(super) fn list(&self, place: &Place<'_>, query: &str, settings: &Settings) -> Result<Value, Refusal> {
        let value = |name: &str| {
            query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value)
        };
        self.occasion(place, "list", settings)?;
        let size = match value("pageSize").map(str::parse::<usize>) {
            None | Some(Ok(0)) => 10,
            Some(Ok(size)) => size.min(100),
            Some(Err(_)) => return Err(errors::invalid("Invalid value at 'page_size' (TYPE_INT32)")),
        };
        let before = match value("pageToken").filter(|token| !token.is_empty()) {
            None => u64::MAX,
            Some(token) => u64::from_str_radix(token, 16).map_err(|_| errors::invalid("Page token is invalid."))?,
        };
        let mut inner = self.lock();
        let project = inner.projects.entry(place.project.to_owned()).or_default();
        project.counts.lists += 1;
        let files = project.live(place.now_ms);
        let mut older: Vec<_> = files.iter().filter(|(_, held)| held.number < before).collect();
        older.sort_by_key(|(_, held)| std::cmp::Reverse(held.number));
        let page: Vec<Value> =
            older.iter().take(size).map(|(name, held)| held.resource(name, place, self.epoch)).collect();
        let mut answer = if page.is_empty() { json!({}) } else { json!({ "files": page }) };
        if older.len() > size && size > 0 {
            answer["nextPageToken"] = format!("{:x}", older[size - 1].1.number).into();
        }
        Ok(answer)
    }

    pub(super) fn get(&self, place: &Place<'_>, id: &str, settings: &Settings) -> Result<Value, Refusal> {
        self.occasion(place, "get", settings)?;
        let mut inner = self.lock();
        let project = inner.projects.entry(place.project.to_owned()).or_default();
        project.counts.gets += 1;
        let held = project.live(place.now_ms).get(id).ok_or_else(|| errors::no_file(id))?;
        Ok(held.resource(id, place, self.epoch))
    }

    pub(super) fn delete(&self, place: &Place<'_>, id: &str, settings: &Settings) -> Result<Value, Refusal> {
        self.occasion(place, "delete", settings)?;
        let mut inner = self.lock();
        let project = inner.projects.entry(place.project.to_owned()).or_default();
        project.live(place.now_ms).remove(id).ok_or_else(|| errors::no_file(id))?;
        project.counts.deletes += 1;
        Ok(json!({}))
    }

    /// The file of this name for a call of this project, and whether it vanished just now.
    pub(super) fn show(
        &self,
        place: &Place<'_>,
        id: &str,
        settings: &Settings,
    ) -> Result<(Shown, Option<FileFault>), Refusal> {
        let mut inner = self.lock();
        let Inner { projects, memory, .. } = &mut *inner;
        let project = projects.get_mut(place.project).ok_or_else(|| errors::no_file(id))?;
        let held = project.live(place.now_ms).get(id).ok_or_else(|| errors::no_file(id))?;
        if held.failed || place.now_ms < held.ready_ms {
            return Err(errors::not_active(id));
        }
        let shown = held.shown;
        let fault = memory.roll(&settings.files.faults, settings.seed, held.upload_id, Occasion::Shown);
        if let Some((fault, _)) = fault {
            project.files.remove(id);
            return Ok((shown, Some(fault)));
        }
        project.counts.shown += 1;
        Ok((shown, None))
    }

    fn occasion(&self, place: &Place<'_>, what: &str, settings: &Settings) -> Result<(), Refusal> {
        let id = draw::digest(&[place.project.as_bytes(), what.as_bytes()]);
        self.roll(settings, id, Occasion::Resource).map_or(Ok(()), |_| Err(errors::overloaded()))
    }

    fn nonce(&self) -> [u8; 16] {
        self.epoch.as_nanosecond().to_le_bytes()
    }

    /// Twelve characters as the real service makes them up.
    fn name(&self, number: u64) -> String {
        let id = draw::digest(&[b"file", &self.nonce(), &number.to_le_bytes()]);
        let letter = |at: u32| char::from_digit(u32::try_from(id / 36_u128.pow(at) % 36).unwrap_or(0), 36);
        (0..12).filter_map(letter).collect()
    }
}

impl Inner {
    fn has(&mut self, name: &str, now_ms: u64) -> bool {
        self.projects.values_mut().any(|project| project.live(now_ms).contains_key(name))
    }
}

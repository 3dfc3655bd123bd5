//! What can be set of uploads and files.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::fault;

/// Uploads and files. The default is the real service's limits, without faults and without processing time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileSettings {
    /// Which project a key belongs to; a key that is not named has a project of its own.
    pub projects: Projects,
    /// How long a video is in PROCESSING, in milliseconds; images and sound are ACTIVE at once.
    pub processing_ms: u64,
    /// How long a file lives, in milliseconds (real: 48 hours).
    pub life_ms: u64,
    /// Most bytes of all files of a project (real: 20 GiB).
    pub storage_bytes: u64,
    /// Most bytes of one file (real: 2 GB).
    pub max_file_bytes: u64,
    /// Chunks but the last must be multiples of this; told with each start.
    pub granularity: u64,
    /// A chunk that breaks off is kept in whole multiples of this many bytes; at least 1, at most 1 MiB.
    pub kept_multiple: u64,
    /// What goes wrong.
    pub faults: FileFaults,
}

impl Default for FileSettings {
    fn default() -> Self {
        Self {
            projects: Projects::default(),
            processing_ms: 0,
            life_ms: 48 * 3_600_000,
            storage_bytes: 20 << 30,
            max_file_bytes: 2 << 30,
            granularity: 256 * 1024,
            kept_multiple: 64 * 1024,
            faults: FileFaults::default(),
        }
    }
}

/// Key to project. `Debug` shows no key.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Projects(pub BTreeMap<String, String>);

impl fmt::Debug for Projects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Projects({} keys)", self.0.len())
    }
}

/// What goes wrong with uploads and files, how often. Names: `start_503`, `start_cut`, `chunk_503` (answered after a part of
/// the bytes was kept), `chunk_cut` (the connection is cut after a part), `chunk_slow`, `session_lost` (404), `final_503` (all
/// bytes kept, not finalized), `final_lost` (finalized, its answer never comes), `final_gone` (the same, and the session is
/// unknown after it), `long_processing`, `failed`, `expires_soon`, `vanished` (gone when it is used), `resource_503` (get,
/// list, delete); groups `transport`, `life`, `all`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileFaults {
    /// Share of occasions hit, 0 to 1.
    pub rate: f64,
    /// Names and groups, drawn evenly among those that suit the occasion.
    pub kinds: Vec<String>,
    /// At most this many drawn faults in a row on one occasion of one upload; 0: no bound.
    pub max_consecutive: u64,
    /// A cut comes after this many bytes of the chunk; absent: anywhere in it, by the seed.
    pub cut_at_bytes: Option<u64>,
    /// Added to the processing time by `long_processing`, in milliseconds.
    pub long_processing_ms: u64,
    /// How long a file lives that `expires_soon`, in milliseconds.
    pub short_life_ms: u64,
    /// How long a slow chunk takes longer, in milliseconds.
    pub slow_ms: u64,
    /// Faults in a set order, before any are drawn: each is used up at the first occasions that suit it.
    pub script: Vec<Scripted>,
}

impl Default for FileFaults {
    fn default() -> Self {
        Self {
            rate: 0.0,
            kinds: vec!["all".to_owned()],
            max_consecutive: 2,
            cut_at_bytes: None,
            long_processing_ms: 60_000,
            short_life_ms: 1_000,
            slow_ms: 2_000,
            script: Vec::new(),
        }
    }
}

/// One ordered fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scripted {
    /// Its name.
    pub fault: String,
    /// How many times.
    #[serde(default = "once")]
    pub times: u64,
}

fn once() -> u64 {
    1
}

impl FileSettings {
    /// Checks what the types cannot say.
    pub(crate) fn check(&self) -> Result<(), String> {
        let faults = &self.faults;
        if !(0.0..=1.0).contains(&faults.rate) {
            return Err(format!("files.faults.rate {} is not between 0 and 1", faults.rate));
        }
        fault::expand(&faults.kinds)?;
        for scripted in &faults.script {
            fault::FileFault::parse(&scripted.fault)?;
        }
        if self.granularity == 0 || !(1..=1 << 20).contains(&self.kept_multiple) {
            let (granularity, kept) = (self.granularity, self.kept_multiple);
            return Err(format!(
                "files.granularity {granularity} is 0, or files.kept_multiple {kept} is not within 1 MiB"
            ));
        }
        Ok(())
    }
}

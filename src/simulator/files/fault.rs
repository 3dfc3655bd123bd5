//! Every way an upload or a file can go wrong, by name, and when each has its turn.
//!
//! As with calls, a draw is a function of what it is about and how often that was seen, so a rerun of the same uploads
//! meets the same faults. An occasion is a stage of an upload (start, chunk, finalizing, what becomes of the file) or a use of
//! the file; the bound on faults in a row holds for each occasion of each upload apart.

use std::collections::HashMap;

use super::super::draw;
use super::settings::{FileFaults, Scripted};

/// One way to go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum FileFault {
    Start503,
    CutStart,
    Chunk503,
    CutChunk,
    SlowChunk,
    SessionLost,
    Final503,
    FinalLost,
    FinalGone,
    LongProcessing,
    Failed,
    ExpiresSoon,
    Vanished,
    Resource503,
}

use FileFault::{
    Chunk503, CutChunk, CutStart, ExpiresSoon, Failed, Final503, FinalGone, FinalLost, LongProcessing, Resource503,
    SessionLost, SlowChunk, Start503, Vanished,
};

const TRANSPORT: [FileFault; 10] =
    [Start503, CutStart, Chunk503, CutChunk, SlowChunk, SessionLost, Final503, FinalLost, FinalGone, Resource503];
const LIFE: [FileFault; 4] = [LongProcessing, Failed, ExpiresSoon, Vanished];

/// When a fault can come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Occasion {
    Start,
    Chunk,
    Final,
    /// What becomes of a finalized file.
    Made,
    /// A call that shows it.
    Shown,
    /// Get, list, delete.
    Resource,
}

impl FileFault {
    /// Its name in settings and statistics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Start503 => "start_503",
            CutStart => "start_cut",
            Chunk503 => "chunk_503",
            CutChunk => "chunk_cut",
            SlowChunk => "chunk_slow",
            SessionLost => "session_lost",
            Final503 => "final_503",
            FinalLost => "final_lost",
            FinalGone => "final_gone",
            LongProcessing => "long_processing",
            Failed => "failed",
            ExpiresSoon => "expires_soon",
            Vanished => "vanished",
            Resource503 => "resource_503",
        }
    }

    /// The fault of this name; the error lists all names.
    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        let all = || TRANSPORT.iter().chain(&LIFE);
        all().copied().find(|fault| fault.name() == name).ok_or_else(|| {
            let known: Vec<_> = all().map(|fault| fault.name()).collect();
            format!("unknown fault of files {name:?}; known: transport, life, all, {}", known.join(", "))
        })
    }

    fn occasion(self) -> Occasion {
        match self {
            Start503 | CutStart => Occasion::Start,
            Chunk503 | CutChunk | SlowChunk | SessionLost => Occasion::Chunk,
            Final503 | FinalLost | FinalGone => Occasion::Final,
            LongProcessing | Failed | ExpiresSoon => Occasion::Made,
            Vanished => Occasion::Shown,
            Resource503 => Occasion::Resource,
        }
    }
}

/// Expands groups and names.
pub(crate) fn expand(kinds: &[String]) -> Result<Vec<FileFault>, String> {
    let mut faults = Vec::new();
    for kind in kinds {
        match kind.as_str() {
            "transport" => faults.extend(TRANSPORT),
            "life" => faults.extend(LIFE),
            "all" => faults.extend(TRANSPORT.iter().chain(&LIFE)),
            name => faults.push(FileFault::parse(name)?),
        }
    }
    Ok(faults)
}

/// Most occasions that are remembered; beyond it counting begins anew.
const REMEMBERED: usize = 100_000;

/// What was met before: how often each occasion of each upload, and how far the script is used up.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    met: HashMap<(u128, Occasion), (u64, u64)>,
    script: Vec<Scripted>,
    used: Vec<u64>,
}

impl Memory {
    /// The fault of this occasion of this upload, and a number drawn for it.
    pub(crate) fn roll(
        &mut self,
        settings: &FileFaults,
        seed: u64,
        id: u128,
        occasion: Occasion,
    ) -> Option<(FileFault, u64)> {
        if self.script != settings.script {
            self.script.clone_from(&settings.script);
            self.used = vec![0; self.script.len()];
        }
        if self.met.len() >= REMEMBERED {
            self.met.clear();
        }
        let (count, in_a_row) = self.met.entry((id, occasion)).or_default();
        let seeded = draw::digest(&[&id.to_le_bytes(), &seed.to_le_bytes(), format!("{occasion:?}").as_bytes()]);
        let number = draw::bits(seeded, "where", *count);
        let nth = *count;
        *count += 1;
        for (scripted, used) in self.script.iter().zip(&mut self.used) {
            let fault = FileFault::parse(&scripted.fault).ok().filter(|fault| fault.occasion() == occasion);
            if let Some(fault) = fault.filter(|_| *used < scripted.times) {
                *used += 1;
                return Some((fault, number));
            }
        }
        let may_fail = settings.max_consecutive == 0 || *in_a_row < settings.max_consecutive;
        let hit = may_fail && draw::unit(seeded, "fault", nth) < settings.rate;
        let suited = || expand(&settings.kinds).unwrap_or_default().into_iter().filter(|it| it.occasion() == occasion);
        let drawn = if hit {
            let all: Vec<FileFault> = suited().collect();
            let at = draw::bits(seeded, "which fault", nth) % u64::try_from(all.len()).ok()?.max(1);
            all.get(usize::try_from(at).ok()?).copied()
        } else {
            None
        };
        *in_a_row = if drawn.is_some() { *in_a_row + 1 } else { 0 };
        drawn.map(|fault| (fault, number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_comes_first_and_is_used_up() {
        let script = vec![
            Scripted { fault: "chunk_cut".to_owned(), times: 2 },
            Scripted { fault: "start_503".to_owned(), times: 1 },
            Scripted { fault: "chunk_503".to_owned(), times: 1 },
        ];
        let settings = FileFaults { script, ..FileFaults::default() };
        let mut memory = Memory::default();
        let mut chunk = || memory.roll(&settings, 0, 1, Occasion::Chunk).map(|(fault, _)| fault.name());
        assert_eq!(
            [chunk(), chunk(), chunk(), chunk()],
            [Some("chunk_cut"), Some("chunk_cut"), Some("chunk_503"), None]
        );
        assert_eq!(memory.roll(&settings, 0, 1, Occasion::Start).unwrap().0, Start503);
        assert_eq!(memory.roll(&settings, 0, 1, Occasion::Start), None);
    }

    #[test]
    fn drawn_faults_end_after_the_most_in_a_row_and_repeat_with_the_seed() {
        let settings = FileFaults { rate: 1.0, max_consecutive: 3, ..FileFaults::default() };
        let draws = |seed| {
            let mut memory = Memory::default();
            (0..40).map(|_| memory.roll(&settings, seed, 7, Occasion::Chunk)).collect::<Vec<_>>()
        };
        let first = draws(1);
        assert!(first.iter().enumerate().all(|(at, fault)| fault.is_none() == (at % 4 == 3)));
        assert_eq!(first, draws(1));
        assert_ne!(first, draws(2));
    }

    #[test]
    fn every_name_is_found_and_an_unknown_one_lists_them() {
        for fault in expand(&["all".to_owned()]).unwrap() {
            assert_eq!(FileFault::parse(fault.name()), Ok(fault));
        }
        assert!(expand(&["nope".to_owned()]).unwrap_err().contains("transport, life, all, start_503"));
    }
}

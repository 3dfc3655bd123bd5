//! Lines that were not enqueued: to a file, and the first to standard error.

use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Text;
use super::offsets::Offsets;
use super::show::Summary;
use crate::cli::{Failure, say, visible};

/// Told one by one.
const TOLD: u64 = 20;

/// A line that was not enqueued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Reject {
    /// As the corpus was named.
    corpus: Text,
    /// Its number there.
    line: u64,
    /// Why.
    reason: String,
    /// The line, or its beginning, where it is no item.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

impl Reject {
    pub(super) fn new(corpus: &Text, line: u64, reason: String, text: Option<String>) -> Self {
        Self { corpus: corpus.clone(), line, reason, text }
    }

    pub(super) fn tell(&self) {
        say(&visible(&format!("rejected {} line {}: {}\n", self.corpus, self.line, self.reason)));
    }
}

/// How much of the file belongs to what was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    path: PathBuf,
    bytes: u64,
}

impl Mark {
    /// Whether the file has what it had.
    pub(super) fn stands(&self, path: Option<&Path>) -> bool {
        path == Some(&self.path) && std::fs::metadata(&self.path).is_ok_and(|found| found.len() >= self.bytes)
    }
}

/// Where they go.
pub(super) struct Rejects {
    file: Option<(PathBuf, File, u64)>,
    told: u64,
}

impl Rejects {
    /// Opens the file behind what was written of lines that are not read again.
    pub(super) fn open(path: Option<&Path>, offsets: &Offsets) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self { file: None, told: 0 }) };
        let keep = offsets.rejects().map_or(0, |mark| mark.bytes);
        let open = || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
            file.set_len(keep)?;
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        };
        let file = open().map_err(|error| failed(path, &error))?;
        Ok(Self { file: Some((path.to_owned(), file, keep)), told: 0 })
    }

    /// Writes some more.
    pub(super) fn add(&mut self, rejects: &[Reject]) -> Result<(), Failure> {
        for reject in rejects {
            self.told += 1;
            if self.told <= TOLD {
                reject.tell();
            }
        }
        let Some((path, file, bytes)) = &mut self.file else { return Ok(()) };
        let mut text = Vec::new();
        for reject in rejects {
            text.extend(serde_json::to_vec(reject).unwrap_or_default());
            text.push(b'\n');
        }
        file.write_all(&text).map_err(|error| failed(path, &error))?;
        *bytes += text.len() as u64;
        Ok(())
    }

    /// How much there is of it.
    pub(super) fn mark(&self) -> Option<Mark> {
        self.file.as_ref().map(|(path, _, bytes)| Mark { path: path.clone(), bytes: *bytes })
    }

    /// Says how many were not told.
    pub(super) fn tell(&self, summary: &Summary) {
        let before = summary.rejected - self.told;
        if self.told > TOLD {
            say(&format!("rejected {} more lines\n", self.told - TOLD));
        }
        if before > 0 {
            say(&format!("rejected {before} lines of what was read before; the file given to --rejects has them\n"));
        }
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("--rejects {}: {error}", path.display()))
}

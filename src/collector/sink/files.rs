//! A directory: a temporary file, fsync, a rename that replaces nothing, fsync of the folder.
//!
//! The manifest is compared and replaced under a lock of the operating system's, which a killed process leaves by itself.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::Version;
use crate::collector::manifest;
use crate::run::records::readable_by_all;

const LOCK: &str = ".manifest.lock";
/// How the names of unfinished files end.
const UNFINISHED: &str = ".tmp";
/// Bytes that a disk which is full has no room for.
const PROBE: usize = 4096;

/// Whether it is one of those.
pub(super) fn is_unfinished(name: &str) -> bool {
    name.strip_prefix('.').is_some_and(|name| name.strip_suffix(UNFINISHED).is_some())
}

/// Data sets in a directory.
#[derive(Debug, Clone)]
pub struct Files {
    root: PathBuf,
}

impl Files {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) fn path(&self, run: &str, name: &str) -> PathBuf {
        self.root.join(run).join(name)
    }

    pub(super) async fn create(&self, run: &str, name: &str, content: Bytes) -> Result<bool, String> {
        let path = self.path(run, name);
        blocking(path, move |path| {
            let folder = folder(path)?;
            match written(&folder, &content)?.persist_noclobber(path) {
                Ok(_) => File::open(&folder)?.sync_all().map(|()| true),
                Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Ok(false),
                Err(error) => Err(error.error),
            }
        })
        .await
    }

    pub(super) async fn read(&self, run: &str, name: &str) -> Result<Option<Bytes>, String> {
        blocking(self.path(run, name), |path| found(fs::read(path)).map(|content| content.map(Bytes::from))).await
    }

    pub(super) async fn list(&self, run: &str) -> Result<Vec<String>, String> {
        blocking(self.root.join(run), |path| {
            let Some(entries) = found(fs::read_dir(path))? else { return Ok(Vec::new()) };
            let mut names = Vec::new();
            for entry in entries {
                names.extend(entry?.file_name().into_string().ok().filter(|name| name != LOCK));
            }
            Ok(names)
        })
        .await
    }

    pub(super) async fn remove(&self, run: &str, name: &str) -> Result<(), String> {
        blocking(self.path(run, name), |path| found(fs::remove_file(path)).map(|_| ())).await
    }

    /// Writes a file into the root, and removes it.
    pub(super) async fn probe(&self) -> Result<(), String> {
        blocking(self.root.clone(), |root| {
            let mut file =
                tempfile::Builder::new().prefix(".probe").suffix(UNFINISHED).tempfile_in(folder(&root.join("_"))?)?;
            file.write_all(&[0; PROBE])?;
            file.as_file().sync_all()?;
            file.close()
        })
        .await
    }

    pub(super) async fn manifest(&self, run: &str) -> Result<Option<(Bytes, Version)>, String> {
        let content = self.read(run, manifest::NAME).await?;
        Ok(content.map(|content| {
            let version = version(&content);
            (content, version)
        }))
    }

    pub(super) async fn swap(
        &self,
        run: &str,
        known: Option<&Version>,
        content: Bytes,
    ) -> Result<Option<Version>, String> {
        let known = known.cloned();
        blocking(self.path(run, manifest::NAME), move |path| {
            let folder = folder(path)?;
            let lock = OpenOptions::new().create(true).append(true).open(folder.join(LOCK))?;
            lock.lock()?;
            if found(fs::read(path))?.map(|there| version(&there)) != known {
                return Ok(None);
            }
            written(&folder, &content)?.persist(path).map_err(|error| error.error)?;
            File::open(&folder)?.sync_all()?;
            Ok(Some(version(&content)))
        })
        .await
    }
}

/// A whole and durable file that has no name yet.
fn written(folder: &Path, content: &[u8]) -> io::Result<tempfile::NamedTempFile> {
    let mut file = readable_by_all().prefix(".").suffix(UNFINISHED).tempfile_in(folder)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// The folder of a file, made durable if it is new.
fn folder(path: &Path) -> io::Result<PathBuf> {
    let folder = path.parent().unwrap_or(Path::new(".")).to_owned();
    if !folder.is_dir() {
        fs::create_dir_all(&folder)?;
        if let Some(above) = folder.parent() {
            File::open(above)?.sync_all()?;
        }
    }
    Ok(folder)
}

fn version(content: &[u8]) -> Version {
    Version(blake3::hash(content).to_hex().to_string())
}

fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

async fn blocking<T: Send + 'static>(
    path: PathBuf,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T, String> {
    let work = move || work(&path).map_err(|error| format!("{}: {error}", path.display()));
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}

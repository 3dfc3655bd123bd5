//! The course of one upload: start, chunks, and after each break the question how far it came.
//!
//! Progress is what pays for patience: failures are counted since the session last held more than before, and lost sessions
//! since any held more than ever before. So a line that breaks every few megabytes still brings a large clip over, and one
//! that brings nothing ends soon. What may be sent in all is bounded too, since a server that loses what it has acknowledged
//! would otherwise be fed for ever.

use std::fs::File;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::exchange::broken;
use super::session::{self, LARGEST_STEP, Session, Standing, Wish};
use super::{Files, FilesError, RemoteFile, Uploaded, resource};
use crate::provider::{CallError, failure};

/// What the official SDK sends at once.
pub(super) const CHUNK: u64 = 8 << 20;
/// Longest display name, in characters.
const LONGEST_TITLE: usize = 512;

struct Job<'a> {
    files: &'a Files,
    file: Arc<File>,
    wish: Wish<'a>,
    begun: jiff::Timestamp,
    sent: Arc<AtomicU64>,
    /// The most any session held.
    best: u64,
    /// Sessions lost since then.
    losses: u32,
    /// Failures since the session held more than before.
    failures: u32,
    /// Whether the request that makes it a file was ever sent.
    closed: bool,
}

/// Uploads a file whose size is in bounds.
pub(super) async fn run(
    files: &Files,
    file: File,
    bytes: u64,
    mime: &str,
    display_name: &str,
) -> Result<Uploaded, FilesError> {
    let title = display_name.chars().take(LONGEST_TITLE).collect();
    let mut job = Job {
        files,
        file: Arc::new(file),
        wish: Wish { name: name(), title, mime, bytes },
        begun: jiff::Timestamp::now(),
        sent: Arc::default(),
        best: 0,
        losses: 0,
        failures: 0,
        closed: false,
    };
    let file = job.course().await?;
    let bytes_sent = job.sent.load(Ordering::Relaxed);
    if file.bytes == bytes || file.bytes == 0 {
        return Ok(Uploaded { file, bytes_sent });
    }
    let words = format!("{}: the uploaded file has {} of {bytes} bytes", files.endpoint, file.bytes);
    Err(FilesError::Unavailable(words))
}

impl Job<'_> {
    async fn course(&mut self) -> Result<RemoteFile, FilesError> {
        loop {
            let Some(session) = self.start().await? else {
                // The name is taken, and nobody else draws it: an answer was lost.
                if let Some(file) = self.find().await? {
                    return Ok(file);
                }
                self.wish.name = name();
                continue;
            };
            if let Some(file) = self.chunks(&session).await? {
                return Ok(file);
            }
            if self.closed
                && let Some(file) = self.find().await?
            {
                return Ok(file);
            }
            self.losses += 1;
            self.failures = self.losses - 1;
            self.setback(broken("the upload's session is lost".to_owned())).await?;
        }
    }

    /// A new session; none if the name is taken.
    async fn start(&mut self) -> Result<Option<Session>, FilesError> {
        loop {
            let error = match session::start(self.files, &self.wish).await {
                Ok(answer) if answer.is_success() => match Session::read(self.files, &answer) {
                    Ok(session) => return Ok(Some(session)),
                    Err(message) => broken(message),
                },
                Ok(answer) if answer.status == 409 => {
                    self.setback(answer.failure()).await?;
                    return Ok(None);
                }
                Ok(answer) => answer.failure(),
                Err(error) => error,
            };
            self.setback(error).await?;
        }
    }

    /// Sends what is missing; none if the session is lost, or its file cannot be found.
    async fn chunks(&mut self, session: &Session) -> Result<Option<RemoteFile>, FilesError> {
        let (mut offset, mut held) = (0, 0);
        loop {
            self.check_bound()?;
            let (standing, file) = self.chunk(session, offset).await?;
            match (standing, file) {
                (_, Some(file)) => return Ok(Some(file)),
                (Standing::Active(next), None) => {
                    if next > held {
                        (held, self.failures) = (next, 0);
                    }
                    if next > self.best {
                        (self.best, self.losses) = (next, 0);
                    }
                    offset = next;
                }
                (Standing::Final, None) => {
                    self.closed = true;
                    return self.find().await;
                }
                (Standing::Lost, None) => return Ok(None),
            }
        }
    }

    /// Sends one chunk, and asks about it if it went wrong: how the upload stands, and the file it became if that was told.
    async fn chunk(&mut self, session: &Session, offset: u64) -> Result<(Standing, Option<RemoteFile>), FilesError> {
        let length = session.chunk.min(self.wish.bytes - offset);
        let chunk = self.read(offset, length).await?;
        let last = offset + length == self.wish.bytes;
        self.closed |= last;
        let error = match session.put(self.files, offset, chunk, last, &self.sent).await {
            // A chunk that is taken is taken whole, where the answer does not say how much.
            Ok(answer) if answer.is_success() => {
                match session::standing(&answer, self.wish.bytes, Some(offset + length)) {
                    Ok(Standing::Final) => {
                        let body = failure::json(&answer.body);
                        return Ok((Standing::Final, body.and_then(|body| resource::read(&body["file"]))));
                    }
                    // Nothing was gained by an answer in order: it counts as a failure, or circles would have no end.
                    Ok(Standing::Active(next)) if next <= offset => {
                        broken(format!("a chunk was answered, and {next} bytes are there as before"))
                    }
                    Ok(standing) => return Ok((standing, None)),
                    Err(message) => broken(message),
                }
            }
            Ok(answer) => match session::lost(&answer) {
                Some(standing) => return Ok((standing, None)),
                None => session::refusal(&answer),
            },
            Err(error) => error,
        };
        self.setback(error).await?;
        Ok((self.ask(session).await?, None))
    }

    /// Asks how far an upload came, as often as patience allows.
    async fn ask(&mut self, session: &Session) -> Result<Standing, FilesError> {
        loop {
            let error = match session.query(self.files).await {
                Ok(answer) if answer.is_success() => match session::standing(&answer, self.wish.bytes, None) {
                    Ok(standing) => return Ok(standing),
                    Err(message) => broken(message),
                },
                Ok(answer) => match session::lost(&answer) {
                    Some(standing) => return Ok(standing),
                    None => answer.failure(),
                },
                Err(error) => error,
            };
            self.setback(error).await?;
        }
    }

    /// What a service may be sent in all: four times the file and a little.
    fn check_bound(&self) -> Result<(), FilesError> {
        let (sent, bytes) = (self.sent.load(Ordering::Relaxed), self.wish.bytes);
        if sent <= bytes.saturating_mul(4).saturating_add(LARGEST_STEP) {
            return Ok(());
        }
        let name = &self.files.endpoint;
        let words = format!("{name}: {sent} bytes were sent of a file of {bytes}, and it is not there yet");
        Err(FilesError::Unavailable(words))
    }

    async fn read(&self, offset: u64, length: u64) -> Result<Bytes, FilesError> {
        let file = Arc::clone(&self.file);
        let read = tokio::task::spawn_blocking(move || {
            let mut chunk = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
            file.read_exact_at(&mut chunk, offset).map(|()| Bytes::from(chunk))
        });
        let read = read.await.map_err(|error| FilesError::Local(format!("the clip cannot be read: {error}")))?;
        read.map_err(|error| FilesError::Local(format!("the clip cannot be read at byte {offset}: {error}")))
    }

    /// The finished file by the name it was to have, or by what is known of it where the service gave it another. It
    /// may show a little after it was made.
    async fn find(&mut self) -> Result<Option<RemoteFile>, FilesError> {
        for wait in [0, 1, 2] {
            tokio::time::sleep(self.files.patience.base * wait).await;
            match self.files.get(&self.wish.name).await {
                Ok(file) => return Ok(Some(file)),
                Err(FilesError::Gone) => {}
                Err(error) => return Err(error),
            }
        }
        // A minute for clocks that differ.
        let since = self.begun.as_second() - 60;
        let title = failure::words(&self.wish.title);
        let is_ours = |file: &RemoteFile| {
            let made = file.created_at.is_some_and(|made| made.as_second() >= since);
            made && !title.is_empty() && file.display_name == title && file.bytes == self.wish.bytes
        };
        let mut files = self.files.list().await?;
        files.retain(is_ours);
        Ok(files.into_iter().max_by_key(|file| file.created_at))
    }

    /// Waits after a failure, or gives up.
    async fn setback(&mut self, error: CallError) -> Result<(), FilesError> {
        self.failures += 1;
        match self.files.pause(self.files.patience, self.failures, &error) {
            Some(wait) => tokio::time::sleep(wait).await,
            None => return Err(self.files.no_api(self.files.fault(&error))),
        }
        Ok(())
    }
}

/// A name that nobody else draws: 120 bits. The standard library seeds its hash maps from the system's randomness.
fn name() -> String {
    let random = || RandomState::new().build_hasher().finish().to_le_bytes();
    let now = jiff::Timestamp::now().as_nanosecond().to_le_bytes();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&random()).update(&random()).update(&now).update(&std::process::id().to_le_bytes());
    format!("files/a{}", &hasher.finalize().to_hex()[..30])
}

/// From 0 to 1: retries need to be apart, not unpredictable.
pub(super) fn draw() -> f64 {
    let bits = RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(bits >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}

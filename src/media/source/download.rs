//! One content from a server into a file: in as many attempts as it takes, each byte once.
//!
//! After a break the rest is asked for with `Range`, on condition of a strong tag (`If-Range`, or `If-Match` of S3), so that a content that changed in
//! between comes whole and never mixed; without such a tag it begins again. Attempts are counted only while they bring
//! nothing, and all of them together have one deadline, which begins with the first. A server that uses them up is down: what
//! follows is not decided here. The digest is made while the bytes come in.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::answer::{Asked, Body, Down, Failure, Got, Head};
use super::remote::{Remote, data};
use super::way::{Stream, Way};
use super::{Origin, hex};
use crate::media::cache::{Making, failed, on_disk};
use crate::media::library::blocking;
use crate::media::{MediaError, MediaErrorKind};
use crate::provider::{Billed, CallError, CallErrorKind};
use crate::quota::NamedLimit;
use crate::retry;

/// Bytes are written in pieces of about this size.
const PIECE: usize = 1 << 20;
/// Room that is set aside at a time where the server tells no length.
const STEP: u64 = 4 << 20;
/// What an entry takes beside its content: its directory and its manifest.
const OVERHEAD: u64 = 2 * 4096;
/// Between two looks at whether there is room by now.
const LOOK: Duration = Duration::from_millis(200);

/// What has come so far.
struct Part {
    file: File,
    hasher: Sha256,
    bytes: u64,
    /// Set aside in the cache.
    reserved: u64,
    /// As the server says.
    total: Option<u64>,
    etag: Option<String>,
}

/// Fetches a source into an entry. Cancel safe: what has come is then lost. Errors: [`MediaErrorKind`]; the item's for all that
/// the server does, with [`MediaErrorKind::Unavailable`] for what may pass.
pub(super) async fn run(
    remote: &Remote,
    origin: &Origin,
    making: Arc<Making>,
    known: Option<String>,
    deadline: Instant,
) -> Result<Got, MediaError> {
    let (space, here) = (remote.space.clone(), making.clone());
    let file = blocking(move || space.with_room(on_disk(1), || File::create(data(&here.entry()?)))).await?;
    let part = Part { file, hasher: Sha256::new(), bytes: 0, reserved: 0, total: None, etag: None };
    let mut transfer = Transfer { remote, origin, making, known, deadline, way: None, part: Some(part) };
    let mut policy = remote.store.policy;
    let host = origin.place();
    if remote.outages.is_down(&host, Instant::now()) {
        policy.attempts = 1;
    }
    let (mut attempt, mut furthest) = (1, 0);
    loop {
        let (message, hint) = match transfer.attempt().await {
            Ok(head) => {
                remote.outages.end(&host);
                let unchanged = head == Head::Unchanged;
                return if unchanged { Ok(Got::Unchanged) } else { transfer.finish().await.map(Got::Body) };
            }
            Err(Failure::Final(error)) => {
                // Whoever refuses, answers.
                if matches!(error.kind, MediaErrorKind::NotFound | MediaErrorKind::Denied) {
                    remote.outages.end(&host);
                }
                return Err(error);
            }
            Err(Failure::Again { message, hint }) => (message, hint),
            Err(Failure::Restart { message }) => {
                transfer.restart(None, None).await?;
                (message, None)
            }
        };
        // A server that lets everything begin again gets nowhere, however much it sends.
        if transfer.came() > furthest {
            (attempt, furthest, policy) = (1, transfer.came(), remote.store.policy);
        }
        let error = CallError {
            kind: CallErrorKind::Unavailable,
            billed: Billed::No,
            message,
            retry_after: hint,
            limit: NamedLimit::default(),
        };
        // A long wait is for those who hold nothing meanwhile.
        let short = hint.is_none_or(|hint| hint <= policy.max);
        let wait = policy.delay(attempt, &error, retry::jitter()).filter(|_| short);
        let at = Instant::now().checked_add(wait.unwrap_or_default()).filter(|at| *at < deadline);
        let (Some(wait), Some(at)) = (wait, at) else {
            let down = at.and_then(|_| Down::of(&error.message, hint));
            return down.map(Got::Down).ok_or_else(|| origin.unavailable(&error.message));
        };
        tracing::debug!(%host, attempt, ?wait, reason = %error.message, "a source is asked for again");
        sleep_until(at).await;
        attempt += 1;
    }
}

struct Transfer<'a> {
    remote: &'a Remote,
    origin: &'a Origin,
    making: Arc<Making>,
    known: Option<String>,
    deadline: Instant,
    /// Once the host's addresses are judged.
    way: Option<Way<'a>>,
    /// Away only while it is written.
    part: Option<Part>,
}

impl Transfer<'_> {
    fn came(&self) -> u64 {
        self.part.as_ref().map_or(0, |part| part.bytes)
    }

    async fn attempt(&mut self) -> Result<Head, Failure> {
        let way = match self.way {
            Some(way) => way,
            None => self
                .remote
                .ways
                .to(self.origin, &self.remote.store)
                .await
                .map_err(Failure::Final)?
                .map_err(Failure::again)?,
        };
        self.way = Some(way);
        let part = self.part.as_ref();
        let from = part.map_or(0, |part| part.bytes);
        let tag = part.and_then(|part| part.etag.clone()).filter(|_| from > 0);
        let asked = match (&tag, &self.known) {
            (Some(tag), _) => Asked::Rest(from, tag),
            (None, Some(known)) => Asked::IfChanged(known),
            (None, None) => Asked::Whole,
        };
        let limit = self.deadline.min(Instant::now() + self.remote.store.first_byte);
        let Ok(answer) = timeout_at(limit, way.ask(asked)).await else {
            let first_byte = self.remote.store.first_byte;
            return Err(Failure::again(late("begins no answer", "first_byte_seconds", first_byte)));
        };
        let answer = answer?;
        match &answer.head {
            Head::Unchanged => return Ok(answer.head),
            Head::Whole { etag } => {
                self.restart(etag.clone(), answer.total).await.map_err(Failure::Final)?;
            }
            Head::Rest { total } => {
                if part.and_then(|part| part.total).is_some_and(|known| known != *total) {
                    return Err(Failure::Restart { message: "its server changes its length".to_owned() });
                }
            }
        }
        self.body(answer.body).await?;
        Ok(answer.head)
    }

    /// Takes what comes until the end, or says why it is none.
    async fn body(&mut self, mut body: Stream) -> Result<(), Failure> {
        let mut piece = Vec::new();
        let end = loop {
            let idle = self.remote.store.idle;
            let chunk = match timeout_at(self.deadline.min(Instant::now() + idle), body.chunk()).await {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => break Ok(()),
                Ok(Err(error)) => break Err(format!("the answer is cut: {error}")),
                Err(_) if Instant::now() >= self.deadline => {
                    break Err(late("is not whole", "total_seconds", self.remote.store.total));
                }
                Err(_) => break Err(late("stalls", "idle_seconds", idle)),
            };
            if self.came() + (piece.len() + chunk.len()) as u64 > self.remote.max_bytes {
                return Err(Failure::Final(self.too_large(None)));
            }
            piece.extend_from_slice(&chunk);
            if piece.len() >= PIECE {
                self.write(std::mem::take(&mut piece)).await.map_err(Failure::Final)?;
            }
        };
        // What came before a break is kept: the rest is all that is asked for.
        self.write(piece).await.map_err(Failure::Final)?;
        end.map_err(Failure::again)?;
        let (came, total) = (self.came(), self.part.as_ref().and_then(|part| part.total));
        match total.filter(|total| *total != came) {
            Some(total) => Err(Failure::again(format!("the answer is cut: {came} of {total} bytes came"))),
            None if came == 0 => Err(Failure::Final(MediaError::invalid("is empty"))),
            None => Ok(()),
        }
    }

    /// Begins a content from its start.
    async fn restart(&mut self, etag: Option<String>, total: Option<u64>) -> Result<(), MediaError> {
        if let Some(total) = total.filter(|total| *total > self.remote.max_bytes) {
            return Err(self.too_large(Some(total)));
        }
        if let Some(part) = &mut self.part {
            part.file
                .set_len(0)
                .and_then(|()| part.file.rewind())
                .map_err(|error| failed(self.remote.space.root(), 0, &error))?;
            part.hasher = Sha256::new();
            (part.bytes, part.etag, part.total) = (0, etag, total);
        }
        self.reserve(total.unwrap_or(0)).await
    }

    async fn write(&mut self, piece: Vec<u8>) -> Result<(), MediaError> {
        if piece.is_empty() {
            return Ok(());
        }
        let reserved = self.part.as_ref().map_or(0, |part| part.reserved);
        let needed = self.came() + piece.len() as u64;
        if needed > reserved {
            let most = self.remote.space.cap().unwrap_or(u64::MAX).saturating_sub(OVERHEAD).min(self.remote.max_bytes);
            self.reserve(needed.saturating_add(STEP).min(most).max(needed)).await?;
        }
        let Some(mut part) = self.part.take() else { return Ok(()) };
        self.remote.counts.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
        let space = self.remote.space.clone();
        let part = blocking(move || {
            // At its offset, so that a second try after a full disk overwrites what the first left.
            space.with_room(piece.len() as u64, || part.file.write_all_at(&piece, part.bytes))?;
            part.hasher.update(&piece);
            part.bytes += piece.len() as u64;
            Ok(part)
        });
        self.part = Some(part.await?);
        Ok(())
    }

    /// Waits for room below the cap. Others need it only while they work, and none of them waits for room while it holds some
    /// but those who fetch: they give up at their deadline.
    async fn reserve(&mut self, bytes: u64) -> Result<(), MediaError> {
        let bytes = on_disk(bytes).saturating_add(OVERHEAD);
        if let Some(cap) = self.remote.space.cap().filter(|cap| bytes > *cap) {
            let (mib, cap) = (bytes.div_ceil(1 << 20), cap >> 20);
            return Err(MediaError::invalid(format!(
                "has {mib} MiB or more, and the media cache holds {cap} (media.cache_gib)"
            )));
        }
        loop {
            let (space, making) = (self.remote.space.clone(), self.making.clone());
            if blocking(move || space.reserve(&making, bytes)).await? {
                break;
            }
            if Instant::now() + LOOK >= self.deadline {
                return Err(MediaError::worker(format!(
                    "the media cache {} has no room for {bytes} bytes: all of it is in use; raise media.cache_gib",
                    self.remote.space.root().display()
                )));
            }
            tokio::time::sleep(LOOK).await;
        }
        if let Some(part) = &mut self.part {
            part.reserved = bytes;
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<Body, MediaError> {
        if self.part.as_ref().is_some_and(|part| part.total.is_none()) {
            self.reserve(self.came()).await?;
        }
        let Some(part) = self.part.take() else { return Err(MediaError::worker("a fetched file is lost")) };
        let Part { mut file, hasher, bytes, etag, .. } = part;
        let root = self.remote.space.root().to_owned();
        blocking(move || {
            let synced =
                file.seek(SeekFrom::End(0)).and_then(|end| if end == bytes { Ok(()) } else { file.set_len(bytes) });
            synced.and_then(|()| file.sync_all()).map_err(|error| failed(&root, bytes, &error))?;
            Ok(Body { sha256: hex(&hasher.finalize()), bytes, etag })
        })
        .await
    }

    fn too_large(&self, total: Option<u64>) -> MediaError {
        let most = self.remote.max_bytes >> 20;
        MediaError::invalid(match total {
            Some(total) => format!("has {} MiB, more than {most} (max_source_mib)", total.div_ceil(1 << 20)),
            None => format!("has more than {most} MiB (max_source_mib)"),
        })
    }
}

fn late(what: &str, setting: &str, limit: Duration) -> String {
    format!("its server {what} within {} s ({setting})", limit.as_secs_f64())
}

//! Gemini's Files API as a client: whole clips go up in pieces, and what became of them is asked for, listed and deleted.
//!
//! The protocol is resumable (wire.md 1.4), and it is used as such: after any break the service is asked how far it came, and
//! the upload goes on from there, so that nothing is sent twice but what was really lost. The official SDK never asks: it sends a
//! chunk again up to three times and gives up. The file's name is drawn here before the first byte leaves, so that a
//! finished upload whose answer is lost is found by its name and not made again. Whole-body uploads without chunks were
//! rejected: a piece of a known size can be read ahead by one blocking read, and a proxy that buffers bodies then buffers
//! eight megabytes and not two gigabytes. The address an upload goes to holds its secret, so it is shown nowhere, and only
//! its path is believed: requests go to the endpoint's own origin, as the key does.
//!
//! Waiting for a file to be processed, sharing uploads and freeing space are not done here.

mod exchange;
mod resource;
mod session;
mod upload;

use std::fmt;
use std::fs::File;
use std::time::Duration;

use reqwest::{Method, Url};
use tokio_util::sync::CancellationToken;

use super::errors;
use crate::provider::credentials::Credential;
use crate::provider::http::Client;
use crate::provider::{CallError, CallErrorKind, Endpoint, HttpSettings, failure};
use crate::retry::Policy;

pub use resource::{FileState, RemoteFile};

/// The service takes no larger file: 2 GB, read as 2^31 bytes.
pub const MAX_FILE_BYTES: u64 = 2 << 30;

/// Attempts without progress of one upload, and the waits between them.
const PATIENCE: Policy = Policy { attempts: 8, base: Duration::from_millis(500), max: Duration::from_secs(20) };
/// Attempts of a request that changes or shows one thing.
const ATTEMPTS: u32 = 4;
/// Most pages of a list, a hundred files each: more than a project's 20 GB can hold of any clip worth uploading.
const MOST_PAGES: usize = 100;

/// One project's files at one endpoint. A clone shares the pool of connections.
#[derive(Clone)]
pub struct Files {
    http: reqwest::Client,
    deadlines: HttpSettings,
    /// The endpoint's name, for messages.
    endpoint: String,
    /// Scheme, host and port, and the path in front of the version; `None`: it is no http or https address.
    base: Option<Url>,
    version: String,
    credential: Credential,
    patience: Policy,
    /// What is sent at once, in bytes, where the service's own step is no larger.
    chunk: u64,
}

/// `Debug` shows neither the credential nor an address.
impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Files({}, {})", self.endpoint, self.credential.label)
    }
}

/// A finished upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// The file, in whatever state: a video is processed before it can be used.
    pub file: RemoteFile,
    /// Bytes of the file handed to connections, those lost on the way included.
    pub bytes_sent: u64,
}

/// Why a file could not be uploaded, shown, listed or deleted. No message holds a key or an upload's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilesError {
    /// The project's store is full (429 naming `file_storage_bytes`): delete files, then upload again.
    #[error("{message}")]
    StorageFull {
        /// The service's words.
        message: String,
    },
    /// The credential is refused: the run's fault.
    #[error("{0}")]
    KeyRefused(String),
    /// The file is not there, or is another project's: the service does not tell which.
    #[error("the file is gone, or belongs to another project")]
    Gone,
    /// The service will never take it.
    #[error("{0}")]
    Refused(String),
    /// Too fast, or a quota is used up.
    #[error("the service asks for a pause")]
    Throttled {
        /// When to come back, if it says.
        retry_after: Option<Duration>,
    },
    /// The service or the way to it failed, attempts included.
    #[error("{0}")]
    Unavailable(String),
    /// The file here cannot be read.
    #[error("{0}")]
    Local(String),
    /// It was told to stop.
    #[error("stopped")]
    Stopped,
}

impl Files {
    /// The files that `credential` owns at `endpoint`. Cheap: it opens nothing. A `base_url` that is no http or https
    /// address shows with the first request.
    pub fn new(client: &Client, endpoint: &Endpoint, credential: &Credential) -> Self {
        let (http, deadlines) = client.parts();
        let base = Url::parse(endpoint.base_url.trim_end_matches('/')).ok();
        Self {
            http: http.clone(),
            deadlines: deadlines.clone(),
            endpoint: endpoint.name.clone(),
            base: base.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host()),
            version: endpoint.api_version.clone(),
            credential: credential.clone(),
            patience: PATIENCE,
            chunk: upload::CHUNK,
        }
    }

    /// The same with another patience: `attempts` without progress, and the waits between them.
    pub fn with_patience(mut self, patience: Policy) -> Self {
        self.patience = patience;
        self
    }

    /// Uploads `bytes` bytes from the beginning of `file`, in resumable chunks of 8 MiB (or what the service asks for),
    /// one of which is in memory at a time. `display_name` is cut to 512 characters.
    ///
    /// A break, a 5xx and a lost answer are mended within the patience; each byte gained renews it. Errors: `Refused` for
    /// an empty file and one over [`MAX_FILE_BYTES`], before anything is sent, and for what the service will not take;
    /// `Local` when the file cannot be read or is shorter; the others as they come.
    ///
    /// Cancel safety: dropping it, like `stop`, closes the connection at once; what was sent stays with the service until the
    /// session expires there, and a file that was finished just then stays until it expires or is deleted.
    pub async fn upload(
        &self,
        file: &File,
        bytes: u64,
        mime: &str,
        display_name: &str,
        stop: &CancellationToken,
    ) -> Result<Uploaded, FilesError> {
        if bytes == 0 {
            return Err(FilesError::Refused(format!("{}: an empty file cannot be uploaded", self.endpoint)));
        }
        if bytes > MAX_FILE_BYTES {
            return Err(FilesError::Refused(format!(
                "{}: a file of {bytes} bytes is over the {MAX_FILE_BYTES} bytes the Files API takes; set clip_mib in the \
                 recipe to have it made smaller",
                self.endpoint
            )));
        }
        let own = file.try_clone().map_err(|error| FilesError::Local(format!("the clip cannot be read: {error}")))?;
        let work = upload::run(self, own, bytes, mime, display_name);
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(FilesError::Stopped),
            done = work => done,
        }
    }

    /// The file `name` (`files/<id>`) as it stands. Errors: `Gone` when it is not there for this project.
    pub async fn get(&self, name: &str) -> Result<RemoteFile, FilesError> {
        let path = self.path_of(name)?;
        let answer = self.patiently(|| exchange::bare(self, Method::GET, &path, &[])).await?;
        resource::read(&answer.json()?).ok_or_else(|| self.unreadable("a file"))
    }

    /// Deletes the file `name`; one that is gone already is no error.
    pub async fn delete(&self, name: &str) -> Result<(), FilesError> {
        let path = self.path_of(name)?;
        match self.patiently(|| exchange::bare(self, Method::DELETE, &path, &[])).await {
            Ok(_) | Err(FilesError::Gone) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// All files of the project, newest first as the service lists them. Errors: `Unavailable` for a list without end.
    pub async fn list(&self) -> Result<Vec<RemoteFile>, FilesError> {
        let path = format!("/{}/files", self.version);
        let (mut files, mut token) = (Vec::new(), String::new());
        for _ in 0..MOST_PAGES {
            let query = [("pageSize", "100"), ("pageToken", token.as_str())];
            let query = if token.is_empty() { &query[..1] } else { &query[..] };
            let page = self.patiently(|| exchange::bare(self, Method::GET, &path, query)).await;
            let page = page.map_err(|error| self.no_api(error))?.json()?;
            files.extend(page["files"].as_array().into_iter().flatten().filter_map(resource::read));
            match page["nextPageToken"].as_str().unwrap_or_default() {
                "" => return Ok(files),
                next if next == token => return Err(self.unreadable("a list that ends")),
                next => next.clone_into(&mut token),
            }
        }
        Err(self.unreadable("a list that ends"))
    }

    /// Where no file is asked for, none can be gone: the address is wrong.
    fn no_api(&self, error: FilesError) -> FilesError {
        match error {
            FilesError::Gone => self.unreadable("one of the Files API (check base_url and api_version)"),
            error => error,
        }
    }

    fn unreadable(&self, what: &str) -> FilesError {
        FilesError::Unavailable(format!("{}: the answer is not {what}", self.endpoint))
    }

    /// Sends a request again while that can help.
    async fn patiently<F>(&self, ask: impl Fn() -> F) -> Result<exchange::Answer, FilesError>
    where
        F: Future<Output = Result<exchange::Answer, CallError>>,
    {
        let policy = Policy { attempts: self.patience.attempts.min(ATTEMPTS), ..self.patience };
        let mut attempt = 1;
        loop {
            let error = match ask().await {
                Ok(answer) if answer.is_success() => return Ok(answer),
                Ok(answer) => answer.failure(),
                Err(error) => error,
            };
            match self.pause(policy, attempt, &error) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(self.fault(&error)),
            }
            attempt += 1;
        }
    }

    /// How long to wait after a failure; a pause of the service's that is longer than ours is for the caller to wait.
    fn pause(&self, policy: Policy, attempt: u32, error: &CallError) -> Option<Duration> {
        let hinted = error.retry_after.is_some_and(|hint| hint > self.patience.max);
        if hinted || is_full(error) { None } else { policy.delay(attempt, error, upload::draw()) }
    }

    /// What a failure means to whoever asked.
    fn fault(&self, error: &CallError) -> FilesError {
        let message = failure::redact(&error.message, self.credential.expose());
        let message = format!("{}: {message}", self.endpoint);
        match error.kind {
            _ if is_full(error) => FilesError::StorageFull { message },
            _ if is_gone(error) => FilesError::Gone,
            CallErrorKind::Throttled | CallErrorKind::DayExhausted => {
                FilesError::Throttled { retry_after: error.retry_after }
            }
            CallErrorKind::FileGone => FilesError::Gone,
            CallErrorKind::Unavailable | CallErrorKind::FileNotReady => FilesError::Unavailable(message),
            CallErrorKind::Refused | CallErrorKind::ModelUnknown => FilesError::Refused(message),
            CallErrorKind::KeyRefused => FilesError::KeyRefused(message),
        }
    }

    /// The path of a file, if the name is one: it must not lead elsewhere.
    fn path_of(&self, name: &str) -> Result<String, FilesError> {
        if resource::is_name(name) {
            Ok(format!("/{}/{name}", self.version))
        } else {
            Err(FilesError::Refused(format!("{}: {:?} is no name of a file", self.endpoint, failure::words(name))))
        }
    }
}

fn is_full(error: &CallError) -> bool {
    error.kind == CallErrorKind::Throttled && error.message.contains(exchange::FULL)
}

/// 403 in the words for files, and 404.
fn is_gone(error: &CallError) -> bool {
    matches!(error.kind, CallErrorKind::ModelUnknown | CallErrorKind::FileGone)
}

#[cfg(test)]
mod tests;

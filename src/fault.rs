//! Whose fault it is decides what happens: one function for each question.
//!
//! The job's fault ends the job as a `failed` record at once. The world's (a provider that is down or throttles) is
//! waited out. The run's or the worker's (a refused key, a missing ffmpeg, a spent budget) ends the run and no job gets
//! a record for it, or one revoked key would bury a whole corpus under failures.

use crate::media::{MediaError, MediaErrorKind};
use crate::record::{ErrorKind, RecordError};

/// Why a run goes no further. None of it is any job's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// A signal, or the end of the process.
    #[error("stopped; run the same command again to go on")]
    Stopped,
    /// The next call does not fit into what is left of the budget.
    #[error("{0}")]
    Budget(String),
    /// A quota, or a day's money, comes back later than the user wants to wait.
    #[error("{why}")]
    Wait {
        /// For what, in one word: `quota` or `budget`.
        reason: &'static str,
        /// When it does.
        until: jiff::Timestamp,
        /// What is waited for, and what to do.
        why: String,
    },
    /// No credential of a provider is accepted, it lacks the model, or the media cache cannot be written to.
    #[error("{0}")]
    Setup(String),
    /// This machine cannot work: ffmpeg is missing, the disk is full.
    #[error("{0}")]
    Worker(String),
}

impl Halt {
    /// The exit code a run ends with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Stopped | Self::Budget(_) | Self::Wait { .. } | Self::Worker(_) => 75,
            Self::Setup(_) => 64,
        }
    }
}

/// What a medium's failure means: the job's record, or the end of the run.
pub fn of_media(error: &MediaError) -> Result<RecordError, Halt> {
    let kind = match error.kind {
        MediaErrorKind::NotFound => ErrorKind::NotFound,
        MediaErrorKind::Invalid | MediaErrorKind::Killed => ErrorKind::InvalidMedia,
        MediaErrorKind::Denied => ErrorKind::Denied,
        MediaErrorKind::Unavailable => ErrorKind::Unavailable,
        MediaErrorKind::Setup => return Err(Halt::Setup(error.message.clone())),
        MediaErrorKind::Worker => return Err(Halt::Worker(error.message.clone())),
    };
    Ok(RecordError { kind, message: error.message.clone(), role: None, try_index: None })
}

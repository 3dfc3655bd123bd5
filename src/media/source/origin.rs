//! Where on a server a source is: one seam for every protocol, so that what keeps, queues and resumes knows of none.

use std::fmt;

use super::object::Object;
use super::{Allowed, Store, WebUrl};
use crate::media::{MediaError, MediaErrorKind};

/// A source that is fetched. Neither `Debug` nor any message shows what may be a credential.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// On an https server.
    Web(WebUrl),
    /// In a bucket of S3.
    Bucket(Object),
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Web(url) => url.fmt(f),
            Self::Bucket(object) => object.fmt(f),
        }
    }
}

impl Origin {
    /// What is down when it does not answer, as messages and settings name it: a host, or `s3://bucket`.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Web(url) => url.place(),
            Self::Bucket(object) => object.place(),
        }
    }

    /// A source that cannot be had for now.
    pub(super) fn unavailable(&self, message: &str) -> MediaError {
        MediaError::new(MediaErrorKind::Unavailable, format!("cannot be fetched from {}: {message}", self.place()))
    }

    /// The error of a source of which no prefix is allowed.
    pub(super) fn not_allowed(&self) -> MediaError {
        let message = match self {
            Self::Web(url) => {
                let place = url.place();
                format!(
                    "nothing of https://{place} with this path is allowed; add \"https://{place}/\" to [store] allow"
                )
            }
            Self::Bucket(object) => {
                let (place, folder) = (object.place(), object.folder());
                format!("nothing of {place} with this key is allowed; add \"{folder}\" to [store] allow")
            }
        };
        MediaError::new(MediaErrorKind::Denied, message)
    }
}

/// The error of a source where no server is allowed at all.
pub(crate) fn refused(origin: &Origin) -> MediaError {
    match Store::default().check(origin) {
        Err(error) => error,
        Ok(()) => origin.not_allowed(),
    }
}

/// Whether anything of the list is on a server.
pub(crate) fn any_remote(allow: &[Allowed]) -> bool {
    allow.iter().any(|allowed| !matches!(allowed, Allowed::Files(_)))
}

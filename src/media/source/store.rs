//! Settings of the sources: what may be read, and how patient a fetch is.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::address::Reach;
use super::allow::{Allowed, Roots};
use super::web::WebUrl;
use super::{Origin, Place, display_name, locate, s3};
use crate::media::{MediaError, MediaErrorKind};
use crate::retry::Policy;

/// The `[store]` section of the configuration. None of it changes the bytes of a result.
#[derive(Debug, Clone)]
pub struct Store {
    /// What may be read; all else is refused.
    pub allow: Vec<Allowed>,
    /// `host:port` of https servers that may have a private or loopback address. They must be allowed as well.
    pub private_hosts: Vec<String>,
    /// Until a connection stands, names and TLS included.
    pub connect: Duration,
    /// From a request until the head of its answer.
    pub first_byte: Duration,
    /// Between two pieces of an answer.
    pub idle: Duration,
    /// One download, from its first request to its last byte, with its attempts and the waits between them.
    pub total: Duration,
    /// How long the sources of a server that is down wait for it; zero: not at all.
    pub outage: Duration,
    /// Fetched at once.
    pub downloads: usize,
    /// Attempts in a row that bring nothing.
    pub policy: Policy,
    /// A PEM bundle trusted beside the system's certificates.
    pub extra_ca_file: Option<PathBuf>,
    /// How names become addresses.
    pub lookup: Lookup,
    /// The client of all buckets; none: one from the standard chain of credentials and the `AWS_*` variables.
    #[cfg(feature = "fleet")]
    pub s3: Option<crate::s3::Connected>,
}

impl Default for Store {
    /// Every file of this machine, and no server.
    fn default() -> Self {
        Self {
            allow: vec![Allowed::Files(PathBuf::from("/"))],
            private_hosts: Vec::new(),
            connect: Duration::from_secs(10),
            first_byte: Duration::from_mins(1),
            idle: Duration::from_secs(30),
            total: Duration::from_hours(1),
            outage: Duration::from_mins(10),
            downloads: 4,
            policy: Policy { attempts: 6, base: Duration::from_millis(500), max: Duration::from_secs(30) },
            extra_ca_file: None,
            lookup: Lookup::System,
            #[cfg(feature = "fleet")]
            s3: None,
        }
    }
}

impl Store {
    /// Where a URI leads without opening or asking anything: a path, or none for what is on a server. Errors: it may not be
    /// read, or is no URI. Blocking.
    pub fn local_path(&self, uri: &str) -> Result<Option<PathBuf>, MediaError> {
        let place = match locate(uri) {
            Ok(Place::Local(path)) => Roots::of(&self.allow).check(&path).map(|()| Some(path)),
            Ok(Place::Remote(origin)) => self.check(&origin).map(|()| None),
            Err(error) => Err(error),
        };
        place.map_err(|error| error.about(&display_name(uri)))
    }

    /// Whether an origin may be asked at all; nothing is looked up.
    pub(super) fn check(&self, origin: &Origin) -> Result<(), MediaError> {
        if let (Origin::Bucket(_), Some(lacks)) = (origin, s3::LACKS) {
            return Err(MediaError::new(MediaErrorKind::Denied, lacks));
        }
        if !self.allow.iter().any(|allowed| allowed.allows(origin)) {
            return Err(origin.not_allowed());
        }
        match origin {
            Origin::Web(url) => url.check_host(self.reach(url)),
            // Where buckets are is the setup's word, not the corpus's.
            Origin::Bucket(_) => Ok(()),
        }
    }

    pub(super) fn reach(&self, url: &WebUrl) -> Reach {
        let full = format!("{}:{}", url.url().host_str().unwrap_or_default(), url.port());
        let named = self.private_hosts.iter().any(|host| host.eq_ignore_ascii_case(&full));
        if named { Reach::Private } else { Reach::Public }
    }

    /// Reads an entry of `private_hosts`: `host:port`, in plain form. Errors: one sentence that says what to write.
    pub fn private_host(text: &str) -> Result<String, String> {
        let url = WebUrl::read(&format!("https://{text}/")).map_err(|error| error.message)?;
        let full = format!("{}:{}", url.url().host_str().unwrap_or_default(), url.port());
        let whole = text.eq_ignore_ascii_case(&full);
        if whole { Ok(full) } else { Err("must be host:port, for example \"10.0.0.5:8443\"".to_owned()) }
    }
}

/// The addresses of a name.
type Given = dyn Fn(&str) -> Vec<IpAddr> + Send + Sync;

/// How names become addresses.
#[derive(Clone)]
pub enum Lookup {
    /// As the system does it.
    System,
    /// By this function: for tests, and for networks with names of their own. What it gives is judged all the same.
    Given(Arc<Given>),
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "System",
            Self::Given(_) => "Given",
        })
    }
}

#[cfg(all(test, not(feature = "fleet")))]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_s3_says_so_whatever_is_allowed() {
        let allowing = Store { allow: vec!["s3://clips/".parse().unwrap()], ..Store::default() };
        for store in [Store::default(), allowing] {
            let error = store.local_path("s3://clips/a.mp4").unwrap_err();
            assert_eq!(error.kind, MediaErrorKind::Denied);
            assert!(error.message.contains("this build has no S3"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_library_of_such_a_build_refuses_objects_and_reads_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let allow = vec!["s3://clips/".parse().unwrap(), "file:///".parse().unwrap()];
        let (cache, store) = (dir.path().to_owned(), Store { allow, ..Store::default() });
        let (settings, wants) = (crate::media::Settings::default(), crate::media::Wants::default());
        let limits = crate::media::Limits::default();
        let library = crate::media::Library::with_store(cache, settings, wants, limits, store).unwrap();
        let kind = |error: MediaError| error.kind;
        let object = library.prepare("s3://clips/a.mp4", crate::media::Kind::Video).await;
        assert_eq!(object.map_err(kind).unwrap_err(), MediaErrorKind::Denied);
        let absent = library.prepare("/absent.mp4", crate::media::Kind::Video).await;
        assert_eq!(absent.map_err(kind).unwrap_err(), MediaErrorKind::NotFound);
    }
}

//! What may be read at all: URL prefixes, compared by whole path segments.
//!
//! A list of what is allowed, not of what is forbidden, as only the first can be complete. Scheme, host and port must be
//! equal; wildcards for hosts were rejected, since `*.example.org` hands the decision to whoever may make names there.

use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use super::web::WebUrl;
use super::{Origin, object, outside};
use crate::media::MediaError;

/// One prefix of `[store] allow`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// Files below this directory once symbolic links and `..` are resolved; `/` is every file.
    Files(PathBuf),
    /// What a server has below a path.
    Web {
        /// In small letters, an IPv6 address without brackets.
        host: String,
        /// Its port, 443 if none is written.
        port: u16,
        /// Begins with a slash and ends without one.
        path: String,
    },
    /// What a bucket of S3 has below a prefix.
    Bucket {
        /// Its name.
        bucket: String,
        /// Whole segments, without a slash at either end; empty: the whole bucket.
        prefix: String,
    },
}

impl Allowed {
    pub(crate) fn allows(&self, origin: &Origin) -> bool {
        match (self, origin) {
            (Self::Web { host, port, path }, Origin::Web(url)) => {
                host == url.host() && *port == url.port() && below(url.url().path(), path)
            }
            (Self::Bucket { bucket, prefix }, Origin::Bucket(object)) => {
                bucket == object.bucket() && (prefix.is_empty() || below(object.key(), prefix))
            }
            _ => false,
        }
    }
}

/// Whether a path is a prefix or goes on behind it with a new segment.
fn below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl FromStr for Allowed {
    type Err = String;

    /// Errors: one sentence that says what to write.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("file://") {
            return if path.starts_with('/') && !path.contains('%') {
                Ok(Self::Files(PathBuf::from(path)))
            } else {
                Err("must be file:///DIRECTORY, with three slashes and no percent codes".to_owned())
            };
        }
        let is_s3 = text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("s3://"));
        if text.contains('*') && is_s3 {
            return Err("holds a wildcard; prefixes are whole segments of keys".to_owned());
        }
        if is_s3 {
            return object::prefix(text).map(|(bucket, prefix)| Self::Bucket { bucket, prefix });
        }
        if !text.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://")) {
            return Err("must begin with file:///, https:// or s3://".to_owned());
        }
        if text.contains('*') {
            return Err("holds a wildcard; hosts are allowed one by one".to_owned());
        }
        if text.contains('?') {
            return Err("holds a query; a prefix is scheme, host, port and path".to_owned());
        }
        let url = WebUrl::read(text).map_err(|error| error.message)?;
        let path = url.url().path().trim_end_matches('/').to_owned();
        Ok(Self::Web { host: url.host().to_owned(), port: url.port(), path })
    }
}

/// The directories whose files may be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Roots {
    All,
    These(Vec<PathBuf>),
}

impl Roots {
    pub(crate) fn of(allow: &[Allowed]) -> Self {
        let roots = allow.iter().filter_map(|allowed| match allowed {
            Allowed::Files(path) => Some(path.clone()),
            Allowed::Web { .. } | Allowed::Bucket { .. } => None,
        });
        let roots: Vec<PathBuf> = roots.collect();
        if roots.iter().any(|root| root == Path::new("/")) { Self::All } else { Self::These(roots) }
    }

    /// Fails if a path leads out of the roots. Of what lies outside not even its absence is told. Blocking.
    pub(crate) fn check(&self, path: &Path) -> Result<(), MediaError> {
        if *self == Self::All {
            return Ok(());
        }
        let Ok(whole) = std::path::absolute(path) else { return Err(outside()) };
        let there = whole.ancestors().find_map(|part| part.canonicalize().ok());
        // `a/../b` of an `a` that is not there leads nowhere, and its end may not be guessed.
        let guessed = whole.components().any(|part| part == Component::ParentDir) && whole.canonicalize().is_err();
        if !guessed && there.is_some_and(|there| self.hold(&there)) { Ok(()) } else { Err(outside()) }
    }

    /// Whether a real path lies in one of the directories, as they are now. Blocking.
    pub(crate) fn hold(&self, real: &Path) -> bool {
        match self {
            Self::All => true,
            Self::These(roots) => {
                roots.iter().filter_map(|root| root.canonicalize().ok()).any(|root| real.starts_with(root))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Place, locate};
    use super::*;

    #[test]
    fn a_prefix_allows_whole_path_segments_of_the_same_host_and_port() {
        let allows = |prefix: &str, uri: &str| {
            let Ok(Place::Remote(origin)) = locate(uri) else { panic!("{uri}") };
            prefix.parse::<Allowed>().unwrap().allows(&origin)
        };
        for (prefix, url, allowed) in [
            ("https://a.org", "https://a.org/x", true),
            ("https://a.org/", "https://a.org/x?sig=1", true),
            ("https://A.org/corpus/", "https://a.org/corpus/x", true),
            ("https://a.org/corpus", "https://a.org:443/corpus", true),
            ("https://a.org/corpus/", "https://a.org/corpus2/x", false),
            ("https://a.org/corpus/", "https://a.org/corpus/../x", false),
            ("https://a.org/corpus/", "https://a.org/corpus/%2e%2e/x", false),
            ("https://a.org/corpus/", "https://a.org/Corpus/x", false),
            ("https://a.org/", "https://a.org:8443/x", false),
            ("https://a.org:8443/", "https://a.org:8443/x", true),
            ("https://a.org/", "https://b.a.org/x", false),
            ("https://a.org/", "https://a.org.evil.org/x", false),
            ("file:///", "https://a.org/x", false),
            ("file:///", "s3://clips/x", false),
            ("https://clips/", "s3://clips/x", false),
            ("s3://clips", "https://clips/x", false),
            ("s3://clips", "s3://clips/x", true),
            ("s3://clips/", "s3://clips/x/y", true),
            ("s3://clips/", "s3://clips2/x", false),
            ("s3://clips/a/", "s3://clips/a/x", true),
            ("s3://clips/a", "s3://clips/a/b/x", true),
            ("s3://clips/a/", "s3://clips/a", true),
            ("s3://clips/a/", "s3://clips/ab", false),
            ("s3://clips/a/", "s3://clips/A/x", false),
            ("s3://clips/a/", "s3://clips/b/a/x", false),
        ] {
            assert_eq!(allows(prefix, url), allowed, "{prefix} {url}");
        }
    }

    #[test]
    fn a_prefix_that_could_mean_more_than_it_says_is_refused() {
        for (text, words) in [
            ("", "must begin"),
            ("http://a.org/", "must begin"),
            ("/data", "must begin"),
            ("file://data", "three slashes"),
            ("https://*.org/", "wildcard"),
            ("https://*", "wildcard"),
            ("https://u@a.org/", "user name"),
            ("https://a.org/?x", "query"),
            ("https://127.1/", "plain form"),
            ("s3://", "no name"),
            ("s3://clips/*", "wildcard"),
            ("s3://*/", "wildcard"),
            ("s3://clips/a/../b/", "upwards"),
            ("s3://clips//a/", "empty part"),
            ("s3://clips/?x", "query"),
            ("s3://key:secret@clips/", "user name"),
        ] {
            let error = text.parse::<Allowed>().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn one_root_is_not_all_roots() {
        let roots = |list: &[&str]| Roots::of(&list.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>());
        assert_eq!(roots(&["file:///data", "file:///"]), Roots::All);
        assert_eq!(roots(&["https://a.org/", "file:///data/"]), Roots::These(vec!["/data/".into()]));
        assert!(!roots(&[]).hold(Path::new("/")));
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().canonicalize().unwrap();
        let these = Roots::These(vec![here.join("a")]);
        std::fs::create_dir(here.join("a")).unwrap();
        assert!(these.hold(&here.join("a/b/c")) && !these.hold(&here.join("ab")) && !these.hold(&here));
    }
}

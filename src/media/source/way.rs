//! How an origin is asked, whatever its protocol: one request for what is still missing, and what comes of it.
//!
//! What a protocol's answer means is decided on its side of this seam; attempts, deadlines and the file are the download's.

use bytes::Bytes;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, IF_NONE_MATCH, IF_RANGE, RANGE};

use super::answer::{Asked, Failure, Head, judge};
use super::object::Object;
use super::pins::Lines;
use super::s3;
use super::web::digest;
use super::{Origin, Store, WebUrl};
use crate::media::MediaError;
use crate::provider::http::chain;

/// The ways to all origins.
#[derive(Debug)]
pub(super) struct Ways {
    lines: Lines,
    buckets: s3::Buckets,
}

/// A way to an origin, judged and ready.
#[derive(Clone, Copy)]
pub(super) enum Way<'a> {
    Web(&'a reqwest::Client, &'a WebUrl),
    Bucket(&'a s3::Client, &'a Object),
}

/// An answer that is no failure.
pub(super) struct Answer {
    pub(super) head: Head,
    /// The length of a content that comes from its start, where the server tells.
    pub(super) total: Option<u64>,
    pub(super) body: Stream,
}

/// What follows the head of an answer.
pub(super) enum Stream {
    Web(reqwest::Response),
    #[cfg_attr(not(feature = "fleet"), expect(dead_code, reason = "a build without S3 has no such answer"))]
    Bucket(s3::Stream),
}

impl Ways {
    /// Errors: an `extra_ca_file` that cannot be used.
    pub(super) fn new(store: &Store) -> Result<Self, String> {
        Ok(Self { lines: Lines::new(store)?, buckets: s3::Buckets::new(store) })
    }

    /// The way to an origin: for a URL the connections to judged addresses ([`Lines::judged`]), for an object the client.
    pub(super) async fn to<'a>(
        &'a self,
        origin: &'a Origin,
        store: &Store,
    ) -> Result<Result<Way<'a>, String>, MediaError> {
        match origin {
            Origin::Web(url) => Ok(self.lines.judged(url, store).await?.map(|client| Way::Web(client, url))),
            Origin::Bucket(object) => Ok(Ok(Way::Bucket(self.buckets.client().await?, object))),
        }
    }

    /// A name for what an origin has, that tells nothing of it.
    pub(super) async fn key(&self, origin: &Origin) -> Result<String, MediaError> {
        Ok(match origin {
            Origin::Web(url) => url.digest(),
            Origin::Bucket(object) => digest(&self.buckets.client().await?.name(object)),
        })
    }
}

impl Way<'_> {
    /// Asks once. Cancel safe.
    pub(super) async fn ask(&self, asked: Asked<'_>) -> Result<Answer, Failure> {
        match self {
            Self::Web(client, url) => web(client, url, asked).await,
            Self::Bucket(client, object) => client.ask(object, asked).await,
        }
    }
}

impl Stream {
    /// The next piece, or none at the end. Errors: why it breaks off.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, String> {
        match self {
            Self::Web(response) => response.chunk().await.map_err(|error| chain(&error.without_url())),
            Self::Bucket(stream) => stream.chunk().await,
        }
    }
}

async fn web(client: &reqwest::Client, url: &WebUrl, asked: Asked<'_>) -> Result<Answer, Failure> {
    let request = client.get(url.url().clone()).header(ACCEPT, "*/*").header(ACCEPT_ENCODING, "identity");
    let request = match asked {
        Asked::Whole => request,
        Asked::IfChanged(tag) => request.header(IF_NONE_MATCH, tag),
        Asked::Rest(from, tag) => request.header(RANGE, format!("bytes={from}-")).header(IF_RANGE, tag),
    };
    let response = request.send().await.map_err(|error| Failure::again(chain(&error.without_url())))?;
    let head = judge(response.status().as_u16(), response.headers(), asked)?;
    Ok(Answer { head, total: response.content_length(), body: Stream::Web(response) })
}

//! How an origin is asked, whatever its protocol: one request for what is still missing, and what comes of it.
//!
//! What a protocol's answer means is decided on its side of this seam; attempts, deadlines and the file are the download's.

use bytes::Bytes;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, IF_NONE_MATCH, IF_RANGE, RANGE};

use super::WebUrl;
use super::answer::{Asked, Failure, Head, judge};
use super::object::Object;
use super::s3;
use crate::provider::http::chain;

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

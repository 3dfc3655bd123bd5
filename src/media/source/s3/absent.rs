//! What stands for S3 in a build without it: nothing of it can be opened, which the types say.

use std::convert::Infallible;

use bytes::Bytes;

use super::Store;
use super::answer::{Asked, Failure};
use super::object::Object;
use super::way::Answer;
use crate::media::{MediaError, MediaErrorKind};

/// Why this build cannot fetch from S3.
pub(super) const LACKS: Option<&str> =
    Some("this build has no S3; build aurelia with its cargo feature fleet (on by default) to fetch s3:// sources");

#[derive(Debug)]
pub(super) struct Buckets;

#[derive(Debug)]
pub(super) struct Client(Infallible);

pub(super) struct Stream(Infallible);

impl Buckets {
    pub(super) fn new(_: &Store) -> Self {
        Self
    }

    #[expect(clippy::unused_async, reason = "it is one in a build with S3")]
    pub(super) async fn client(&self) -> Result<&Client, MediaError> {
        Err(MediaError::new(MediaErrorKind::Denied, LACKS.unwrap_or_default()))
    }
}

impl Client {
    pub(super) fn name(&self, _: &Object) -> String {
        match self.0 {}
    }

    #[expect(clippy::unused_async, reason = "it is one in a build with S3")]
    pub(super) async fn ask(&self, _: &Object, _: Asked<'_>) -> Result<Answer, Failure> {
        match self.0 {}
    }
}

impl Stream {
    #[expect(clippy::unused_async, reason = "it is one in a build with S3")]
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, String> {
        match self.0 {}
    }
}

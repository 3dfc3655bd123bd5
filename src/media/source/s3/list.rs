//! The names under a prefix, a page at a time.

use std::time::Duration;

use aws_sdk_s3::Client;
use tokio::time::{sleep, timeout};

use super::super::Store;
use super::super::answer::{Asked, Failure};
use super::fault;
use crate::media::{MediaError, MediaErrorKind};
use crate::retry::{Policy, jitter};

/// A listing under way.
#[derive(Debug)]
pub struct Listing {
    client: Client,
    bucket: String,
    prefix: String,
    policy: Policy,
    first_byte: Duration,
    /// The end of the page before; none: at the start.
    after: Option<String>,
    ended: bool,
}

impl Listing {
    /// What lies under `s3://bucket/prefix`, asked for as `store` and the `AWS_*` variables say.
    ///
    /// # Errors
    /// It is no such address, or S3 is not set up.
    pub async fn open(store: &Store, address: &str) -> Result<Self, MediaError> {
        let (bucket, prefix) = address.strip_prefix("s3://").and_then(|rest| rest.split_once('/')).unwrap_or_default();
        if bucket.is_empty() {
            let message =
                format!("{address:?} is no prefix of a bucket: write s3://BUCKET/PREFIX/, or s3://BUCKET/ for all");
            return Err(MediaError::new(MediaErrorKind::Setup, message));
        }
        let connected = crate::s3::connect(store.connect, store.extra_ca_file.clone()).await;
        let client = connected.map_err(|message| MediaError::new(MediaErrorKind::Setup, message))?.client;
        let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
        Ok(Self {
            client,
            bucket,
            prefix,
            policy: store.policy,
            first_byte: store.first_byte,
            after: None,
            ended: false,
        })
    }

    /// The bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The next names, in their order; none: that was all. Cancel safe: what is dropped is asked again.
    ///
    /// # Errors
    /// S3 refuses, or has not answered in all attempts of `[retry]`.
    pub async fn next_page(&mut self) -> Result<Option<Vec<String>>, MediaError> {
        if self.ended {
            return Ok(None);
        }
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (message, hint) = match self.page().await {
                Ok(page) => return Ok(Some(page)),
                Err(Failure::Final(error)) => return Err(self.failed(error.kind, &error.message)),
                Err(Failure::Again { message, hint }) => (message, hint),
                Err(Failure::Restart { message }) => (message, None),
            };
            if attempt >= self.policy.attempts {
                return Err(self.failed(MediaErrorKind::Unavailable, &message));
            }
            let longest = self.policy.base.saturating_mul(1 << attempt.min(16)).min(self.policy.max);
            sleep(hint.unwrap_or_else(|| longest.mul_f64(jitter()))).await;
        }
    }

    async fn page(&mut self) -> Result<Vec<String>, Failure> {
        let request = self.client.list_objects_v2().bucket(&self.bucket).prefix(&self.prefix);
        let request = request.set_continuation_token(self.after.clone());
        let answer = timeout(self.first_byte, request.send()).await;
        let answer = answer.map_err(|_| Failure::again(format!("no answer within {} s", self.first_byte.as_secs())))?;
        let page = match answer {
            Ok(page) => page,
            Err(error) => {
                return Err(fault::of(&error, Asked::Whole).err().unwrap_or_else(|| Failure::again("no answer")));
            }
        };
        self.after = page.next_continuation_token;
        self.ended = self.after.is_none();
        Ok(page.contents.unwrap_or_default().into_iter().filter_map(|object| object.key).collect())
    }

    fn failed(&self, kind: MediaErrorKind, message: &str) -> MediaError {
        MediaError::new(kind, format!("s3://{}/{} cannot be listed: {message}", self.bucket, self.prefix))
    }
}

//! A bucket: conditional PUT (`If-None-Match: *`, `If-Match`) is all the locking that there is.
//!
//! A server that does not heed the two conditions cannot be used; Amazon's, `MinIO`, Ceph (since Squid) and R2 do. Only codes and
//! statuses of failures are shown, as S3's sentences repeat what was sent.

use std::time::Duration;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use tokio::time::timeout;

use super::Version;
use crate::collector::manifest;
use crate::config::Config;
use crate::provider::failure;
use crate::provider::http::chain;

/// The slowest way on which a body still moves, in bytes per second: a shard is tens of MB at most.
const SLOWEST: u64 = 256 * 1024;
/// A folder that is no run's, and an object in it.
const PROBE: (&str, &str) = (".aurelia", "probe");

/// Data sets in a bucket.
#[derive(Debug, Clone)]
pub struct Bucket {
    client: aws_sdk_s3::Client,
    name: String,
    /// Empty, or with a slash at its end.
    prefix: String,
    /// How long an answer may take, bodies left out.
    first_byte: Duration,
}

/// Why a request did not do what was asked.
struct Refused {
    status: Option<u16>,
    message: String,
}

impl Bucket {
    pub(super) async fn open(place: &str, config: &Config) -> Result<Self, String> {
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket.is_empty() {
            return Err("collector.output names no bucket: write s3://BUCKET/PREFIX".to_owned());
        }
        let connected = crate::s3::connect(config.store.connect, config.http.extra_ca_file.clone()).await?;
        Ok(Self::new(connected.client, bucket, prefix, config.store.first_byte))
    }

    pub(super) fn new(client: aws_sdk_s3::Client, bucket: &str, prefix: &str, first_byte: Duration) -> Self {
        let prefix = prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Self { client, name: bucket.to_owned(), prefix, first_byte }
    }

    pub(super) fn path(&self, run: &str, name: &str) -> String {
        format!("s3://{}/{}", self.name, self.key(run, name))
    }

    pub(super) async fn create(&self, run: &str, name: &str, content: Bytes) -> Result<bool, String> {
        let put = self.client.put_object().bucket(&self.name).key(self.key(run, name)).if_none_match("*");
        let patience = self.patience(content.len() as u64);
        match asked(patience, put.body(ByteStream::from(content)).send()).await {
            Ok(_) => Ok(true),
            // 409: another one is creating it just now.
            Err(Refused { status: Some(409 | 412), .. }) => Ok(false),
            Err(refused) => Err(self.failed(run, name, &refused)),
        }
    }

    /// Makes an object where no run can be, and removes it. That it is there (left behind, or another collector's) is as good.
    pub(super) async fn probe(&self) -> Result<(), String> {
        self.create(PROBE.0, PROBE.1, Bytes::new()).await?;
        self.remove(PROBE.0, PROBE.1).await
    }

    pub(super) async fn read(&self, run: &str, name: &str) -> Result<Option<(Bytes, Version)>, String> {
        let get = self.client.get_object().bucket(&self.name).key(self.key(run, name));
        let got = match asked(self.first_byte, get.send()).await {
            Ok(got) => got,
            Err(Refused { status: Some(404), message }) if !message.contains("NoSuchBucket") => return Ok(None),
            Err(refused) => return Err(self.failed(run, name, &refused)),
        };
        let version = Version(got.e_tag().unwrap_or_default().to_owned());
        let failed = |why: String| self.failed(run, name, &Refused { status: None, message: why });
        let patience = self.patience(got.content_length().and_then(|length| u64::try_from(length).ok()).unwrap_or(0));
        match timeout(patience, got.body.collect()).await {
            Ok(Ok(body)) => Ok(Some((body.into_bytes(), version))),
            Ok(Err(error)) => Err(failed(chain(&error))),
            Err(_) => Err(failed(late(patience))),
        }
    }

    pub(super) async fn list(&self, run: &str) -> Result<Vec<String>, String> {
        let folder = self.key(run, "");
        let (mut names, mut more) = (Vec::new(), None);
        loop {
            let list = self.client.list_objects_v2().bucket(&self.name).prefix(&folder);
            let page = asked(self.first_byte, list.set_continuation_token(more).send()).await;
            let page = page.map_err(|refused| self.failed(run, "", &refused))?;
            let keys = page.contents().iter().filter_map(|object| object.key());
            names.extend(keys.filter_map(|key| key.strip_prefix(&folder)).map(str::to_owned));
            more = page.next_continuation_token().map(str::to_owned);
            if more.is_none() {
                return Ok(names);
            }
        }
    }

    pub(super) async fn remove(&self, run: &str, name: &str) -> Result<(), String> {
        let delete = self.client.delete_object().bucket(&self.name).key(self.key(run, name));
        match asked(self.first_byte, delete.send()).await {
            Ok(_) | Err(Refused { status: Some(404), .. }) => Ok(()),
            Err(refused) => Err(self.failed(run, name, &refused)),
        }
    }

    pub(super) async fn swap(
        &self,
        run: &str,
        known: Option<&Version>,
        content: Bytes,
    ) -> Result<Option<Version>, String> {
        let put = self.client.put_object().bucket(&self.name).key(self.key(run, manifest::NAME));
        let put = match known {
            Some(Version(tag)) => put.if_match(tag),
            None => put.if_none_match("*"),
        };
        let patience = self.patience(content.len() as u64);
        match asked(patience, put.body(ByteStream::from(content)).send()).await {
            Ok(put) => Ok(Some(Version(put.e_tag().unwrap_or_default().to_owned()))),
            // 404: the one that was known is gone.
            Err(Refused { status: Some(409 | 412), .. }) => Ok(None),
            Err(Refused { status: Some(404), message }) if known.is_some() && !message.contains("NoSuchBucket") => {
                Ok(None)
            }
            Err(refused) => Err(self.failed(run, manifest::NAME, &refused)),
        }
    }

    /// How long a request with a body of so many bytes may take.
    fn patience(&self, bytes: u64) -> Duration {
        self.first_byte + Duration::from_secs(bytes / SLOWEST)
    }

    fn key(&self, run: &str, name: &str) -> String {
        format!("{}{run}/{name}", self.prefix)
    }

    fn failed(&self, run: &str, name: &str, refused: &Refused) -> String {
        format!("{}: {}", self.path(run, name), refused.message)
    }
}

async fn asked<T, E>(
    patience: Duration,
    request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
) -> Result<T, Refused>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let error = match timeout(patience, Box::pin(request)).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error)) => error,
        Err(_) => return Err(Refused { status: None, message: late(patience) }),
    };
    let status = error.raw_response().map(|response| response.status().as_u16());
    let message = match status {
        Some(status) => format!("status {status}, {}", failure::words(error.code().unwrap_or("without a code"))),
        None => chain(&error),
    };
    Err(Refused { status, message })
}

fn late(patience: Duration) -> String {
    format!("no answer within {} s", patience.as_secs())
}

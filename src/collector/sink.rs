//! Where data sets are kept: a directory, or a bucket. Both promise the same, and one suite of tests asks it of both.
//!
//! - What is created is whole or not there, and durable when `create` returns; a name is created once.
//! - The manifest is replaced only by who knows what is there now: of two who replace one manifest, one is told no.
//! - An error says nothing about whether it was done. Done again, `create` then says that the name is taken and `swap` that it
//!   lost, which both callers look into anyway.

mod bucket;
mod files;

use std::path::PathBuf;

use bytes::Bytes;

use crate::config::Config;

use bucket::Bucket;
use files::Files;

/// A place for data sets. Clones share it.
#[derive(Debug, Clone)]
pub enum Sink {
    /// A directory.
    Files(Files),
    /// A bucket of S3.
    Bucket(Bucket),
}

/// A manifest as it was read or written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(String);

/// Whether a name in a folder is that of a file that was being written.
pub(super) fn is_unfinished(name: &str) -> bool {
    files::is_unfinished(name)
}

impl Sink {
    /// The one that `collector.output` names.
    ///
    /// # Errors
    /// One sentence: there is none, or S3 is not set up.
    pub async fn open(config: &Config) -> Result<Self, String> {
        let output = &config.collector.output;
        match output.strip_prefix("s3://") {
            Some(place) => Ok(Self::Bucket(Bucket::open(place, config).await?)),
            None if output.is_empty() => Err("collector.output is not set: where data sets go; set \
                 AURELIA__COLLECTOR__OUTPUT to a directory, or to s3://BUCKET/PREFIX"
                .to_owned()),
            None => Ok(Self::directory(PathBuf::from(output))),
        }
    }

    /// A directory.
    pub fn directory(path: PathBuf) -> Self {
        Self::Files(Files::new(path))
    }

    /// A bucket, by a client that is set up.
    pub fn bucket(client: aws_sdk_s3::Client, bucket: &str, prefix: &str) -> Self {
        Self::Bucket(Bucket::new(client, bucket, prefix, std::time::Duration::from_secs(5)))
    }

    /// What a file of a run is called in messages.
    pub fn path(&self, run: &str, name: &str) -> String {
        match self {
            Self::Files(files) => files.path(run, name).display().to_string(),
            Self::Bucket(bucket) => bucket.path(run, name),
        }
    }

    /// Creates a file; false: the name is taken.
    pub async fn create(&self, run: &str, name: &str, content: Bytes) -> Result<bool, String> {
        match self {
            Self::Files(files) => files.create(run, name, content).await,
            Self::Bucket(bucket) => bucket.create(run, name, content).await,
        }
    }

    /// The content of a file.
    pub async fn read(&self, run: &str, name: &str) -> Result<Option<Bytes>, String> {
        match self {
            Self::Files(files) => files.read(run, name).await,
            Self::Bucket(bucket) => bucket.read(run, name).await.map(|found| found.map(|(content, _)| content)),
        }
    }

    /// The names in a run's folder.
    pub async fn list(&self, run: &str) -> Result<Vec<String>, String> {
        match self {
            Self::Files(files) => files.list(run).await,
            Self::Bucket(bucket) => bucket.list(run).await,
        }
    }

    /// Removes a file, if it is there.
    pub async fn remove(&self, run: &str, name: &str) -> Result<(), String> {
        match self {
            Self::Files(files) => files.remove(run, name).await,
            Self::Bucket(bucket) => bucket.remove(run, name).await,
        }
    }

    /// Whether files can be made and removed.
    pub async fn probe(&self) -> Result<(), String> {
        match self {
            Self::Files(files) => files.probe().await,
            Self::Bucket(bucket) => bucket.probe().await,
        }
    }

    /// The manifest of a run.
    pub async fn manifest(&self, run: &str) -> Result<Option<(Bytes, Version)>, String> {
        match self {
            Self::Files(files) => files.manifest(run).await,
            Self::Bucket(bucket) => bucket.read(run, super::manifest::NAME).await,
        }
    }

    /// Replaces the manifest that is `known` (none: there is none yet); none: another one is there.
    pub async fn swap(&self, run: &str, known: Option<&Version>, content: Bytes) -> Result<Option<Version>, String> {
        match self {
            Self::Files(files) => files.swap(run, known, content).await,
            Self::Bucket(bucket) => bucket.swap(run, known, content).await,
        }
    }
}

//! The client: built once, from the standard chain of credentials and the `AWS_*` variables.

use std::path::PathBuf;
use std::time::Duration;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use tokio::sync::OnceCell;

use super::super::Store;
use super::super::answer::{Asked, Failure, Head, part, strong};
use super::super::object::Object;
use super::super::way::{self, Answer};
use super::fault;
use crate::media::{MediaError, MediaErrorKind};
use crate::provider::http::chain;
use crate::s3::{Connected, connect};

/// The way to all buckets.
#[derive(Debug)]
pub(in super::super) struct Buckets {
    connect: Duration,
    extra_ca_file: Option<PathBuf>,
    client: OnceCell<Client>,
}

/// A client that is set up.
#[derive(Debug)]
pub(in super::super) struct Client(Connected);

/// The content of an object as it comes.
pub(in super::super) struct Stream(ByteStream);

impl Buckets {
    pub(in super::super) fn new(store: &Store) -> Self {
        let client = store.s3.clone().map(Client);
        Self { connect: store.connect, extra_ca_file: store.extra_ca_file.clone(), client: OnceCell::new_with(client) }
    }

    /// The client, built by whoever wants it first. Errors: [`MediaErrorKind::Setup`] for what no bucket would do without.
    pub(in super::super) async fn client(&self) -> Result<&Client, MediaError> {
        self.client.get_or_try_init(|| self.build()).await
    }

    async fn build(&self) -> Result<Client, MediaError> {
        let connected = connect(self.connect, self.extra_ca_file.clone()).await;
        connected.map(Client).map_err(|message| MediaError::new(MediaErrorKind::Setup, message))
    }
}

impl Client {
    /// What the content of an object is known under: a bucket of the same name elsewhere is another one.
    pub(in super::super) fn name(&self, object: &Object) -> String {
        format!("s3 {} {} {}", self.0.endpoint, object.bucket(), object.key())
    }

    /// Asks for an object once. Cancel safe.
    pub(in super::super) async fn ask(&self, object: &Object, asked: Asked<'_>) -> Result<Answer, Failure> {
        let request = self.0.client.get_object().bucket(object.bucket()).key(object.key());
        let request = match asked {
            Asked::Whole => request,
            Asked::IfChanged(tag) => request.if_none_match(tag),
            Asked::Rest(from, tag) => request.range(format!("bytes={from}-")).if_match(tag),
        };
        match request.send().await {
            Ok(output) => {
                let (head, total) = (head(&output, asked)?, output.content_length);
                let total = total.and_then(|total| u64::try_from(total).ok());
                Ok(Answer { head, total, body: way::Stream::Bucket(Stream(output.body)) })
            }
            Err(error) => match fault::of(&error, asked) {
                Ok(head) => Ok(Answer { head, total: None, body: way::Stream::Bucket(Stream(ByteStream::default())) }),
                Err(failure) => Err(failure),
            },
        }
    }
}

impl Stream {
    pub(in super::super) async fn chunk(&mut self) -> Result<Option<Bytes>, String> {
        self.0.try_next().await.map_err(|error| chain(&error))
    }
}

/// What comes. An answer to a request for the rest that has no range is the whole.
fn head(output: &GetObjectOutput, asked: Asked<'_>) -> Result<Head, Failure> {
    match &output.content_range {
        Some(range) => part(Some(range), output.e_tag(), asked),
        None => Ok(Head::Whole { etag: strong(output.e_tag()) }),
    }
}

//! The client: built once, from the standard chain of credentials and the `AWS_*` variables.

use std::path::PathBuf;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::SharedHttpClient;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_types::service_config::ServiceConfigKey;
use bytes::Bytes;
use tokio::sync::OnceCell;

use super::super::Store;
use super::super::answer::{Asked, Failure, Head, part, strong};
use super::super::object::Object;
use super::super::way::{self, Answer};
use super::fault;
use crate::media::library::blocking;
use crate::media::{MediaError, MediaErrorKind};
use crate::provider::http::chain;

/// The region of servers that have none, as their makers write it.
const ANY_REGION: &str = "us-east-1";

/// The way to all buckets.
#[derive(Debug)]
pub(in super::super) struct Buckets {
    connect: Duration,
    extra_ca_file: Option<PathBuf>,
    client: OnceCell<Client>,
}

/// A client that is set up.
#[derive(Debug)]
pub(in super::super) struct Client {
    client: aws_sdk_s3::Client,
    /// Empty: that of the region.
    endpoint: String,
}

/// The content of an object as it comes.
pub(in super::super) struct Stream(ByteStream);

impl Buckets {
    pub(in super::super) fn new(store: &Store) -> Self {
        Self { connect: store.connect, extra_ca_file: store.extra_ca_file.clone(), client: OnceCell::new() }
    }

    /// The client, built by whoever wants it first. Errors: [`MediaErrorKind::Setup`] for what no bucket would do without.
    pub(in super::super) async fn client(&self) -> Result<&Client, MediaError> {
        self.client.get_or_try_init(|| self.build()).await
    }

    async fn build(&self) -> Result<Client, MediaError> {
        let (client, endpoint) = connect(self.connect, self.extra_ca_file.clone()).await?;
        Ok(Client { client, endpoint })
    }
}

/// A client as the `AWS_*` variables and profiles say, and the endpoint they set, empty for that of the region. It has no
/// attempts and no deadlines but for connecting: those are its user's. Errors: [`MediaErrorKind::Setup`].
pub(super) async fn connect(
    connect: Duration,
    extra_ca_file: Option<PathBuf>,
) -> Result<(aws_sdk_s3::Client, String), MediaError> {
    let http = blocking(move || connections(extra_ca_file)).await?;
    let shared = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(connect).build())
        // A stalled body is ended by store.idle_seconds, as everywhere.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .load()
        .await;
    let endpoint = endpoint(&shared).map(|endpoint| plain(&endpoint).map(|()| endpoint)).transpose()?;
    let mut config = aws_sdk_s3::config::Builder::from(&shared);
    if endpoint.is_some() {
        // Names of buckets are no hosts of a server of one's own.
        config = config.force_path_style(true);
    }
    if shared.region().is_none() {
        if endpoint.is_none() {
            return Err(setup("S3 has no region; set AWS_REGION, or AWS_ENDPOINT_URL for a server of your own"));
        }
        config = config.region(Region::from_static(ANY_REGION));
    }
    Ok((aws_sdk_s3::Client::from_conf(config.build()), endpoint.unwrap_or_default()))
}

impl Client {
    /// What the content of an object is known under: a bucket of the same name elsewhere is another one.
    pub(in super::super) fn name(&self, object: &Object) -> String {
        format!("s3 {} {} {}", self.endpoint, object.bucket(), object.key())
    }

    /// Asks for an object once. Cancel safe.
    pub(in super::super) async fn ask(&self, object: &Object, asked: Asked<'_>) -> Result<Answer, Failure> {
        let request = self.client.get_object().bucket(object.bucket()).key(object.key());
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

/// TLS as everywhere: the system's certificates and those of `http.extra_ca_file`; no proxy. Blocking.
fn connections(extra_ca_file: Option<PathBuf>) -> Result<SharedHttpClient, MediaError> {
    let mut trusted = TrustStore::default();
    if let Some(file) = extra_ca_file {
        let pem = std::fs::read(&file)
            .map_err(|error| setup(format!("cannot read http.extra_ca_file {}: {error}", file.display())))?;
        trusted.add_pem_certificate(pem);
    }
    let context = TlsContext::builder().with_trust_store(trusted).build();
    let context = context.map_err(|error| setup(format!("TLS to S3 cannot be set up: {error}")))?;
    let client = aws_smithy_http_client::Builder::new().tls_provider(Provider::rustls(CryptoMode::Ring));
    Ok(client.tls_context(context).build_https())
}

/// The address that is set instead of that of the region: `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, or the profile's.
fn endpoint(shared: &SdkConfig) -> Option<String> {
    let key = ServiceConfigKey::builder().service_id("S3").env("AWS_ENDPOINT_URL").profile("endpoint_url").build();
    let own = shared.service_config().and_then(|config| config.load_config(key.ok()?));
    own.or_else(|| shared.endpoint_url().map(str::to_owned))
}

/// Fails for an address that no request could be sent to. It may hold a password, so it is not shown.
fn plain(endpoint: &str) -> Result<(), MediaError> {
    let url =
        reqwest::Url::parse(endpoint).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    match url {
        Some(url) if url.username().is_empty() && url.password().is_none() && url.query().is_none() => Ok(()),
        Some(_) => Err(setup("AWS_ENDPOINT_URL holds a user name or a query; write http(s)://host:port alone")),
        None => Err(setup("AWS_ENDPOINT_URL is not of the form http(s)://host:port")),
    }
}

fn setup(message: impl Into<String>) -> MediaError {
    MediaError::new(MediaErrorKind::Setup, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_nothing_could_be_sent_to_is_told_without_its_password() {
        for (endpoint, words) in [
            ("http://127.0.0.1:9000", ""),
            ("https://s3.example.org/base/", ""),
            ("localhost:9000", "form"),
            ("s3.example.org", "form"),
            ("", "form"),
            ("ftp://s3.example.org", "form"),
            ("http://user:sesame@s3.example.org", "user name"),
            ("http://s3.example.org/?key=sesame", "query"),
        ] {
            let told = plain(endpoint).map_or_else(|error| error.message, |()| String::new());
            assert!(told.contains(words) && told.is_empty() == words.is_empty(), "{endpoint}: {told}");
            assert!(!told.contains("sesame"), "{told}");
        }
    }
}

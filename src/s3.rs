//! S3's official client, set up once for all who use it: from the standard chain of credentials and the `AWS_*` variables.
//!
//! It has no retries, no time limits and no watch over slow streams of its own: attempts, deadlines and outages are those of
//! whoever asks, and two budgets on top of each other would multiply.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_sdk_s3::config::SharedHttpClient;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_types::service_config::ServiceConfigKey;

/// The region of servers that have none, as their makers write it.
const ANY_REGION: &str = "us-east-1";

/// A client, and where it leads.
#[derive(Debug, Clone)]
pub struct Connected {
    pub(crate) client: aws_sdk_s3::Client,
    /// Empty: that of the region.
    pub(crate) endpoint: String,
}

impl Connected {
    /// A client of the server at `endpoint` (`http://host:port`) with keys of one's own, whatever the environment says.
    pub fn with_keys(endpoint: &str, access_key: &str, secret_key: &str) -> Self {
        let http = aws_smithy_http_client::Builder::new().build_http();
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http)
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .credentials_provider(Credentials::new(access_key, secret_key, None, None, "given"))
            .region(Region::from_static(ANY_REGION))
            .endpoint_url(endpoint)
            .force_path_style(true)
            .build();
        Self { client: aws_sdk_s3::Client::from_conf(config), endpoint: endpoint.to_owned() }
    }
}

/// Sets a client up; nothing is asked yet.
///
/// # Errors
/// One sentence: what no bucket would do without.
pub(crate) async fn connect(connect: Duration, extra_ca_file: Option<PathBuf>) -> Result<Connected, String> {
    let http = tokio::task::spawn_blocking(move || connections(extra_ca_file.as_deref()));
    let http = http.await.map_err(|error| error.to_string())??;
    let shared = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(connect).build())
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
            return Err("S3 has no region; set AWS_REGION, or AWS_ENDPOINT_URL for a server of your own".to_owned());
        }
        config = config.region(Region::from_static(ANY_REGION));
    }
    let client = aws_sdk_s3::Client::from_conf(config.build());
    Ok(Connected { client, endpoint: endpoint.unwrap_or_default() })
}

/// TLS as everywhere: the system's certificates and those of `http.extra_ca_file`; no proxy. Blocking.
fn connections(extra_ca_file: Option<&Path>) -> Result<SharedHttpClient, String> {
    let mut trusted = TrustStore::default();
    if let Some(file) = extra_ca_file {
        let pem = std::fs::read(file)
            .map_err(|error| format!("cannot read http.extra_ca_file {}: {error}", file.display()))?;
        trusted.add_pem_certificate(pem);
    }
    let context = TlsContext::builder().with_trust_store(trusted).build();
    let context = context.map_err(|error| format!("TLS to S3 cannot be set up: {error}"))?;
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
fn plain(endpoint: &str) -> Result<(), String> {
    let url =
        reqwest::Url::parse(endpoint).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    match url {
        Some(url) if url.username().is_empty() && url.password().is_none() && url.query().is_none() => Ok(()),
        Some(_) => Err("AWS_ENDPOINT_URL holds a user name or a query; write http(s)://host:port alone".to_owned()),
        None => Err("AWS_ENDPOINT_URL is not of the form http(s)://host:port".to_owned()),
    }
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
            let told = plain(endpoint).map_or_else(|error| error, |()| String::new());
            assert!(told.contains(words) && told.is_empty() == words.is_empty(), "{endpoint}: {told}");
            assert!(!told.contains("sesame"), "{told}");
        }
    }
}

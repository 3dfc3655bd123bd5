//! The one place that waits for a provider: one attempt, four deadlines, and a verdict on whether money may have gone.
//!
//! Nothing is resent here; that is decided by [`crate::retry`] with the whole error in view. A body is watched as it leaves: while its last piece has
//! not been handed to the connection the provider cannot have understood the request, so such a failure cost nothing;
//! after that only an answer tells. (hyper resends by itself only what was never written to a pooled connection that
//! turned out closed.) Rejected: `reqwest`'s own timeouts but for connecting (they do not say which stage was late, and the
//! total one cannot be told from the others), HTTP/2 (one connection's flow control and one lost packet would hold up
//! hundreds of megabyte uploads), redirects (a credential must not follow them).

pub(in crate::provider) mod fault;
pub(in crate::provider) mod progress;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

pub(crate) use self::fault::chain;
use self::fault::{late, lost, named, redirect, without_secret};
use self::progress::{Progress, Watched};
use super::body::Body;
use super::credentials::Credential;
use super::{
    Billed, CallError, CallErrorKind, Endpoint, HttpSettings, Protocol, Reply, Request, failure, gemini, openai,
};
use crate::quota::NamedLimit;

/// Pooled connections are closed after this: before the servers' own idle limits, so that no call is sent into a closing one.
const POOL_IDLE: Duration = Duration::from_secs(30);
/// Dead peers are noticed by probes while a model thinks.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A pool of connections to all providers. Clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    inner: reqwest::Client,
    settings: HttpSettings,
    has_certificates: bool,
    /// Names of endpoints that answered anything.
    answered: Arc<Mutex<BTreeSet<String>>>,
}

/// What a provider answered, whatever its status. An answer that is not a success may be cut.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status line's number.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, at most `max_reply_bytes` long.
    pub body: Bytes,
    /// From the first byte sent to the last received, in milliseconds.
    pub latency_ms: u64,
}

impl Client {
    /// A client with these deadlines. Proxies come from the environment (`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`,
    /// `NO_PROXY`), trust from the system's certificates (`SSL_CERT_FILE`, `SSL_CERT_DIR`) and `extra_ca_file`.
    ///
    /// A system without certificates is no error, since plain http needs none; calls over https then fail and say so.
    /// Errors: an `extra_ca_file` that cannot be read or holds no certificate.
    pub fn new(settings: &HttpSettings) -> Result<Self, String> {
        Self::build(settings, |builder| builder)
    }

    /// One that goes straight to its peers, whatever the environment says.
    #[cfg(test)]
    pub(in crate::provider) fn direct(settings: &HttpSettings) -> Self {
        Self::build(settings, reqwest::ClientBuilder::no_proxy).unwrap()
    }

    fn build(
        settings: &HttpSettings,
        adjust: impl Fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
    ) -> Result<Self, String> {
        let (inner, has_certificates) = connections(settings, adjust)?;
        Ok(Self { inner, settings: settings.clone(), has_certificates, answered: Arc::default() })
    }

    /// The pool and the deadlines, for protocols that are no model calls.
    pub(in crate::provider) fn parts(&self) -> (&reqwest::Client, &HttpSettings) {
        (&self.inner, &self.settings)
    }

    /// Whether anything at this endpoint ever answered this client, with whatever status.
    pub fn has_answered(&self, endpoint: &Endpoint) -> bool {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).contains(&endpoint.name)
    }

    /// Takes note that something at this endpoint answered another client.
    pub(crate) fn heard(&self, endpoint: &Endpoint) {
        if !self.has_answered(endpoint) {
            self.answered.lock().unwrap_or_else(PoisonError::into_inner).insert(endpoint.name.clone());
        }
    }

    /// One attempt of one call.
    ///
    /// Errors: [`CallError`], its message begins with the endpoint's name. `Billed::No` when the request did not leave whole or
    /// was answered with an error status, else `Billed::Unknown`.
    ///
    /// Cancel safety: dropping the future closes its connection and loses the reply, which may be billed all the same.
    pub async fn call(
        &self,
        endpoint: &Endpoint,
        credential: &Credential,
        request: &Request,
    ) -> Result<Reply, CallError> {
        let (path, body) = match endpoint.protocol {
            Protocol::Gemini => (gemini::path(endpoint, &request.model), gemini::body(request)),
            Protocol::Openai => (openai::PATH.to_owned(), openai::body(request)),
        };
        let answer = self.send(endpoint, credential, &path, body).await?;
        let parse = match endpoint.protocol {
            Protocol::Gemini => gemini::parse,
            Protocol::Openai => openai::parse,
        };
        match parse(answer.status, &answer.headers, &answer.body) {
            Ok(reply) => Ok(Reply { latency_ms: answer.latency_ms, ..reply }),
            Err(error) => Err(named(endpoint, credential, error, &redirect(&answer))),
        }
    }

    /// Posts a JSON body below the endpoint's base URL and returns whatever is answered; see [`Self::call`].
    pub async fn send(
        &self,
        endpoint: &Endpoint,
        credential: &Credential,
        path: &str,
        body: Body,
    ) -> Result<Answer, CallError> {
        let progress = Progress::new();
        let sent = match self.post(endpoint, credential, path, Watched::new(body, progress.clone())) {
            Ok(request) => self.exchange(request, &progress, endpoint, credential).await,
            Err(error) => Err(error),
        };
        sent.map_err(|error| named(endpoint, credential, error, ""))
    }

    fn post(
        &self,
        endpoint: &Endpoint,
        credential: &Credential,
        path: &str,
        body: Watched,
    ) -> Result<reqwest::Request, CallError> {
        let refused = |kind, message| CallError {
            kind,
            billed: Billed::No,
            message,
            retry_after: None,
            limit: NamedLimit::default(),
        };
        let url = format!("{}{path}", endpoint.base_url.trim_end_matches('/'));
        let url =
            reqwest::Url::parse(&url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let Some(url) = url else {
            let message = "its base_url is not an http or https address".to_owned();
            return Err(refused(CallErrorKind::ModelUnknown, message));
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some((name, value)) = authorization(endpoint.protocol, credential) {
            let Ok(mut value) = HeaderValue::from_str(&value) else {
                let message = format!("{} holds characters that no header can carry", credential.label);
                return Err(refused(CallErrorKind::KeyRefused, message));
            };
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let request = self.inner.post(url).headers(headers).body(reqwest::Body::wrap(body)).build();
        request.map_err(|error| refused(CallErrorKind::ModelUnknown, chain(&error.without_url())))
    }

    async fn exchange(
        &self,
        request: reqwest::Request,
        progress: &Progress,
        endpoint: &Endpoint,
        credential: &Credential,
    ) -> Result<Answer, CallError> {
        let begun = Instant::now();
        let deadline = begun + self.settings.total;
        let secure = request.url().scheme() == "https";
        let head = tokio::select! {
            head = self.inner.execute(request) => head,
            () = tokio::time::sleep_until(deadline) => {
                return Err(lost(progress.billed(), late("no reply", "total", self.settings.total)));
            }
            () = progress.overdue(self.settings.first_byte) => {
                return Err(lost(progress.billed(), late("no reply began", "first byte", self.settings.first_byte)));
            }
        };
        let response = head.map_err(|error| self.unsent(error, progress, secure))?;
        self.heard(endpoint);
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = if response.status().is_success() {
            self.whole_body(response, deadline).await.map_err(|message| lost(Billed::Unknown, message))?
        } else {
            without_secret(self.start_of_body(response, deadline).await, credential)
        };
        let begun = progress.begun().unwrap_or(begun);
        let latency_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(Answer { status, headers, body, latency_ms })
    }

    /// The body of a success: whole, or the reason why not.
    async fn whole_body(&self, mut response: reqwest::Response, deadline: Instant) -> Result<Bytes, String> {
        let limit = self.settings.max_reply_bytes;
        let too_long = || format!("the reply is longer than {limit} bytes (max_reply_bytes)");
        if response.content_length().is_some_and(|length| length > limit as u64) {
            return Err(too_long());
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = self.chunk(&mut response, deadline).await? {
            if body.len() + chunk.len() > limit {
                return Err(too_long());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    /// The body of an error as far as it comes: the status alone already decides, so a cut or a stall changes nothing.
    async fn start_of_body(&self, mut response: reqwest::Response, deadline: Instant) -> Bytes {
        let limit = self.settings.max_reply_bytes.min(failure::LONGEST_ERROR_BODY);
        let mut body = BytesMut::new();
        while let Ok(Some(chunk)) = self.chunk(&mut response, deadline).await {
            body.extend_from_slice(&chunk[..chunk.len().min(limit - body.len())]);
            if body.len() == limit {
                break;
            }
        }
        body.freeze()
    }

    async fn chunk(&self, response: &mut reqwest::Response, deadline: Instant) -> Result<Option<Bytes>, String> {
        let idle = Instant::now() + self.settings.idle;
        match tokio::time::timeout_at(idle.min(deadline), response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => Err(format!("the reply is cut: {}", chain(&error.without_url()))),
            Err(_) if deadline <= idle => Err(late("the reply is not whole", "total", self.settings.total)),
            Err(_) => Err(late("the reply stalls", "idle", self.settings.idle)),
        }
    }

    /// The failure of a request without a response head.
    fn unsent(&self, error: reqwest::Error, progress: &Progress, secure: bool) -> CallError {
        let error = error.without_url();
        let cause = chain(&error);
        if !error.is_connect() {
            return lost(progress.billed(), format!("the connection broke: {cause}"));
        }
        let what = if error.is_timeout() {
            format!("{}: {cause}", late("no connection", "connect", self.settings.connect))
        } else {
            format!("no connection: {cause}")
        };
        let advice = if secure && !self.has_certificates {
            " (the system has no CA certificates: install them, or name a bundle in extra_ca_file)"
        } else {
            ""
        };
        lost(Billed::No, format!("{what}{advice}"))
    }
}

/// A pool of connections with this program's trust, and whether there is any: the system's certificates and
/// `extra_ca_file`. No redirects, no cookies.
pub(crate) fn connections(
    settings: &HttpSettings,
    adjust: impl Fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
) -> Result<(reqwest::Client, bool), String> {
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    let extra = extra_certificates(settings)?;
    let builder = || {
        adjust(reqwest::Client::builder())
            .user_agent(concat!("aurelia/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(settings.connect)
            .pool_max_idle_per_host(usize::MAX)
            .pool_idle_timeout(POOL_IDLE)
            .tcp_nodelay(true)
            .tcp_keepalive(KEEPALIVE)
    };
    Ok(match builder().tls_certs_merge(extra.clone()).build() {
        Ok(client) => (client, true),
        // The verifier refuses to exist without a single certificate; an empty store refuses each connection.
        Err(_) => (builder().tls_certs_only(extra).build().map_err(|error| chain(&error))?, false),
    })
}

fn authorization(protocol: Protocol, credential: &Credential) -> Option<(HeaderName, String)> {
    match (protocol, credential.expose()) {
        (_, "") => None,
        (Protocol::Gemini, key) => Some((HeaderName::from_static("x-goog-api-key"), key.to_owned())),
        (Protocol::Openai, key) => Some((AUTHORIZATION, format!("Bearer {key}"))),
    }
}

fn extra_certificates(settings: &HttpSettings) -> Result<Vec<reqwest::Certificate>, String> {
    let Some(file) = &settings.extra_ca_file else {
        return Ok(Vec::new());
    };
    let name = file.display();
    let pem = std::fs::read(file).map_err(|error| format!("extra_ca_file {name} cannot be read: {error}"))?;
    let found = reqwest::Certificate::from_pem_bundle(&pem)
        .map_err(|error| format!("extra_ca_file {name} is not a PEM bundle: {}", chain(&error)))?;
    if found.is_empty() {
        return Err(format!("extra_ca_file {name} holds no certificate; it must be a PEM bundle"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests;

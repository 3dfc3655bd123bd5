//! An S3 server on a free port: it verifies signatures, heeds conditions and ranges, fails as a test says, and counts.
//!
//! The protocol is that of the `s3s` crate; what is kept, and how it goes wrong, is here.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::serve::ListenerExt as _;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use s3s::auth::SimpleAuth;
use s3s::dto::{
    DeleteObjectInput, DeleteObjectOutput, ETag, ETagCondition, GetObjectInput, GetObjectOutput, ListObjectsV2Input,
    ListObjectsV2Output, PutObjectInput, PutObjectOutput, StreamingBlob,
};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use super::Aurelia;

pub(crate) const ACCESS_KEY: &str = "AKIAHARNESS4F1D9C";
/// Named as a secret where it is used, so that every test looks for it.
pub(crate) const SECRET_KEY: &str = "harness-s3-secret-5b77ab02";
/// Bodies are sent in pieces of this size.
const PIECE: usize = 16 << 10;

/// Names on a page of a listing.
const PAGE: usize = 7;

/// A GET of an object.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// `bucket/key`.
    pub(crate) name: String,
    /// How often it was asked for before.
    pub(crate) before: usize,
    pub(crate) range: Option<String>,
    pub(crate) if_match: Option<String>,
    pub(crate) if_none_match: Option<String>,
}

/// What happens to an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// Nothing follows so many bytes of the body.
    Stall(usize),
    /// 503.
    SlowDown,
    /// 403, whatever the signature.
    AccessDenied,
    /// The answer begins after so long.
    Late(Duration),
}

type Plan = dyn Fn(&Asked) -> Fault + Send + Sync;

/// What it has, and what it saw.
pub(crate) struct Shared {
    objects: Mutex<BTreeMap<String, Bytes>>,
    asked: Mutex<Vec<Asked>>,
    body_bytes: AtomicU64,
    accepted: AtomicU64,
    /// Nothing can be put just now.
    away: AtomicBool,
    plan: Box<Plan>,
}

/// A server that runs.
pub(crate) struct S3 {
    port: u16,
    shared: Arc<Shared>,
    _runtime: Runtime,
}

impl S3 {
    /// One that does nothing wrong.
    pub(crate) fn start() -> Self {
        Self::with(|_, _| Fault::None)
    }

    /// One that does as `plan` says, which sees each request and may put other objects.
    pub(crate) fn with(plan: impl Fn(&Asked, &S3Objects) -> Fault + Send + Sync + 'static) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let shared = Arc::new_cyclic(|weak: &std::sync::Weak<Shared>| {
            let objects = S3Objects(weak.clone());
            Shared {
                objects: Mutex::default(),
                asked: Mutex::default(),
                body_bytes: AtomicU64::new(0),
                accepted: AtomicU64::new(0),
                away: AtomicBool::new(false),
                plan: Box::new(move |asked| plan(asked, &objects)),
            }
        });
        let mut builder = S3ServiceBuilder::new(Backend(Arc::clone(&shared)));
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let router = Router::new().fallback(pass).with_state(builder.build());
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let port = listener.local_addr().unwrap().port();
        let counted = Arc::clone(&shared);
        let listener = listener.tap_io(move |_| {
            counted.accepted.fetch_add(1, Ordering::Relaxed);
        });
        runtime.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { port, shared, _runtime: runtime }
    }

    /// Puts an object at `bucket/key`; its address.
    pub(crate) fn put(&self, name: &str, content: &[u8]) -> String {
        self.shared.put(name, content);
        format!("s3://{name}")
    }

    /// What is below `bucket/`, by key.
    pub(crate) fn all(&self, bucket: &str) -> BTreeMap<String, Bytes> {
        let objects = self.shared.objects.lock().unwrap();
        let below = |(name, content): (&String, &Bytes)| {
            Some((name.strip_prefix(bucket)?.strip_prefix('/')?.to_owned(), content.clone()))
        };
        objects.iter().filter_map(below).collect()
    }

    /// Whether it refuses to take anything.
    pub(crate) fn set_away(&self, away: bool) {
        self.shared.away.store(away, Ordering::Relaxed);
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// All GETs, in order of arrival.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// Connections that arrived.
    pub(crate) fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Bytes of bodies that were sent.
    pub(crate) fn body_bytes(&self) -> u64 {
        self.shared.body_bytes.load(Ordering::Relaxed)
    }

    /// A command with what it takes to ask this server for what `allow` says.
    pub(crate) fn told<'a>(&self, aurelia: Aurelia<'a>, allow: &str) -> Aurelia<'a> {
        aurelia
            .config(&format!("[store]\nallow = [\"file:///\", \"{allow}\"]\noutage_seconds = 0\n"))
            .env("AWS_ENDPOINT_URL", &self.endpoint())
            .env("AWS_REGION", "us-east-1")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .secret("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    }
}

/// The objects of a server, for its plan.
pub(crate) struct S3Objects(std::sync::Weak<Shared>);

impl S3Objects {
    pub(crate) fn put(&self, name: &str, content: &[u8]) {
        self.0.upgrade().unwrap().put(name, content);
    }
}

impl Shared {
    fn put(&self, name: &str, content: &[u8]) {
        self.objects.lock().unwrap().insert(name.to_owned(), Bytes::copy_from_slice(content));
    }

    fn note(&self, input: &GetObjectInput) -> Asked {
        let name = format!("{}/{}", input.bucket, input.key);
        let condition = |condition: &Option<ETagCondition>| match condition {
            Some(ETagCondition::ETag(tag)) => Some(tag.value().to_owned()),
            Some(ETagCondition::Any) => Some("*".to_owned()),
            None => None,
        };
        let mut all = self.asked.lock().unwrap();
        let asked = Asked {
            before: all.iter().filter(|asked| asked.name == name).count(),
            name,
            range: input.range.as_ref().map(s3s::dto::Range::to_header_string),
            if_match: condition(&input.if_match),
            if_none_match: condition(&input.if_none_match),
        };
        all.push(asked.clone());
        asked
    }
}

struct Backend(Arc<Shared>);

#[async_trait::async_trait]
impl s3s::S3 for Backend {
    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let start = format!("{}/{}", input.bucket, input.prefix.unwrap_or_default());
        let after = input.continuation_token.unwrap_or_default();
        let objects = self.0.objects.lock().unwrap();
        let all = objects.keys().filter(|name| name.starts_with(&start) && **name > after);
        let page: Vec<String> = all.take(PAGE).cloned().collect();
        let next = (page.len() == PAGE).then(|| page[PAGE - 1].clone());
        let key = |name: &String| name.split_once('/').map(|(_, key)| key.to_owned());
        let contents = page.iter().map(|name| s3s::dto::Object { key: key(name), ..Default::default() }).collect();
        Ok(S3Response::new(ListObjectsV2Output {
            is_truncated: Some(next.is_some()),
            next_continuation_token: next,
            contents: Some(contents),
            ..ListObjectsV2Output::default()
        }))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let asked = self.0.note(&input);
        let fault = (self.0.plan)(&asked);
        match fault {
            Fault::SlowDown => return Err(s3_error!(SlowDown, "reduce your request rate")),
            Fault::AccessDenied => return Err(s3_error!(AccessDenied, "access denied")),
            Fault::Late(pause) => tokio::time::sleep(pause).await,
            Fault::None | Fault::Cut(_) | Fault::Stall(_) => {}
        }
        let (content, bucket_known) = {
            let objects = self.0.objects.lock().unwrap();
            let bucket = format!("{}/", input.bucket);
            (objects.get(&asked.name).cloned(), objects.keys().any(|name| name.starts_with(&bucket)))
        };
        let Some(content) = content else {
            let code = if bucket_known { S3ErrorCode::NoSuchKey } else { S3ErrorCode::NoSuchBucket };
            return Err(S3Error::with_message(code, "it is not there"));
        };
        let tag = tag(&content);
        if asked.if_match.as_ref().is_some_and(|known| *known != tag) {
            return Err(s3_error!(PreconditionFailed));
        }
        if asked.if_none_match.as_ref() == Some(&tag) {
            return Err(s3_error!(NotModified));
        }
        let whole = content.len();
        let range = input.range.map(|range| range.check(whole as u64)).transpose()?;
        let part = range.clone().map_or(content.clone(), |range| {
            content.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap())
        });
        Ok(S3Response::new(GetObjectOutput {
            content_length: Some(i64::try_from(part.len()).unwrap()),
            content_range: range.map(|range| format!("bytes {}-{}/{whole}", range.start, range.end - 1)),
            e_tag: Some(ETag::Strong(tag)),
            body: Some(body(Arc::clone(&self.0), &part, fault)),
            ..GetObjectOutput::default()
        }))
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let mut input = request.input;
        if self.0.away.load(Ordering::Relaxed) {
            return Err(s3_error!(SlowDown, "reduce your request rate"));
        }
        let mut content = Vec::new();
        while let Some(piece) = input.body.as_mut().unwrap().next().await {
            content.extend_from_slice(&piece.map_err(|_| s3_error!(IncompleteBody))?);
        }
        let name = format!("{}/{}", input.bucket, input.key);
        let mut objects = self.0.objects.lock().unwrap();
        let there = objects.get(&name).map(|there| tag(there));
        match &input.if_match {
            Some(ETagCondition::ETag(known)) if there.is_none() => {
                return Err(s3_error!(NoSuchKey, "there is no {known:?}"));
            }
            Some(ETagCondition::ETag(known)) if there.as_deref() != Some(known.value()) => {
                return Err(s3_error!(PreconditionFailed));
            }
            _ => {}
        }
        if matches!(input.if_none_match, Some(ETagCondition::Any)) && there.is_some() {
            return Err(s3_error!(PreconditionFailed));
        }
        let e_tag = Some(ETag::Strong(tag(&content)));
        objects.insert(name, content.into());
        Ok(S3Response::new(PutObjectOutput { e_tag, ..PutObjectOutput::default() }))
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let name = format!("{}/{}", request.input.bucket, request.input.key);
        self.0.objects.lock().unwrap().remove(&name);
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }
}

fn tag(content: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(content)[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A body as the fault leaves it.
fn body(shared: Arc<Shared>, part: &Bytes, fault: Fault) -> StreamingBlob {
    let sent = match fault {
        Fault::Cut(bytes) | Fault::Stall(bytes) => part.slice(..bytes.min(part.len())),
        _ => part.clone(),
    };
    let pieces: Vec<Bytes> =
        (0..sent.len()).step_by(PIECE).map(|at| sent.slice(at..sent.len().min(at + PIECE))).collect();
    let pieces = stream::iter(pieces).then(move |piece| {
        let shared = Arc::clone(&shared);
        async move {
            // What was sent before has left by now.
            tokio::task::yield_now().await;
            shared.body_bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
            Ok(piece)
        }
    });
    let end = stream::once(async move {
        tokio::task::yield_now().await;
        match fault {
            Fault::Stall(_) => std::future::pending().await,
            _ => Err(io::Error::other("cut")),
        }
    });
    match fault {
        Fault::Cut(_) | Fault::Stall(_) => StreamingBlob::wrap(pieces.chain(end)),
        _ => StreamingBlob::wrap(pieces),
    }
}

async fn pass(State(service): State<S3Service>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let reply = service.call(axum::http::Request::from_parts(parts, s3s::Body::from(body))).await;
    reply.map_or_else(|_| Response::builder().status(500).body(Body::empty()).unwrap(), |reply| reply.map(Body::new))
}

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State as Shared};
use axum::response::Response;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;
use crate::config;
use crate::media::clip_of_file;
use crate::simulator::{FileSettings, Settings, Simulator};

/// Nothing that a test waits for takes so long, and less than any deadline of a request.
const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway before the simulator that does not answer some methods.
struct Gateway {
    base_url: String,
    shared: Arc<Passing>,
    simulator: Simulator,
    _tasks: JoinSet<()>,
}

struct Passing {
    target: String,
    client: reqwest::Client,
    mute: BTreeSet<&'static str>,
    /// How many requests hang.
    hanging: tokio::sync::watch::Sender<usize>,
}

impl Gateway {
    async fn start(files: FileSettings, mute: &[&'static str]) -> Self {
        // Another test may have installed it already.
        drop(rustls::crypto::ring::default_provider().install_default());
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let simulator =
            Simulator::start(Settings { files, trust_media: true, ..Settings::default() }, here).await.unwrap();
        let shared = Arc::new(Passing {
            target: simulator.base_url(),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            mute: mute.iter().copied().collect(),
            hanging: tokio::sync::watch::channel(0).0,
        });
        let router = Router::new().fallback(pass).with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind(here).await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { base_url, shared, simulator, _tasks: tasks }
    }

    async fn hangs(&self) {
        let mut hanging = self.shared.hanging.subscribe();
        timeout(PATIENCE, hanging.wait_for(|hanging| *hanging > 0)).await.unwrap().unwrap();
    }

    fn live_bytes(&self) -> u64 {
        self.simulator.stats().files.values().map(|files| files.live_bytes).sum()
    }
}

async fn pass(Shared(shared): Shared<Arc<Passing>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if shared.mute.contains(parts.method.as_str()) {
        shared.hanging.send_modify(|hanging| *hanging += 1);
        return std::future::pending().await;
    }
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let mut headers = parts.headers;
    headers.remove("host");
    let url = format!("{}{}", shared.target, parts.uri.path_and_query().unwrap());
    let answer = shared.client.request(parts.method, url).headers(headers).body(body).send().await.unwrap();
    let mut response = Response::builder().status(answer.status());
    response.headers_mut().unwrap().extend(answer.headers().clone());
    response.body(Body::from(answer.bytes().await.unwrap())).unwrap()
}

struct Bench {
    dir: tempfile::TempDir,
    uploads: Uploads,
    endpoint: Endpoint,
    credential: Credential,
    stop: CancellationToken,
}

impl Bench {
    async fn new(gateway: &Gateway, storage_bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = config::load(&[], &[]).unwrap().config;
        let endpoint = Endpoint { base_url: gateway.base_url.clone(), ..config.providers["gemini"].endpoint.clone() };
        let state = Arc::new(State::open(&dir.path().join("state.sqlite")).unwrap());
        let bounds = Bounds { deadline: Duration::from_mins(10), storage_bytes };
        let bounds = [("gemini".to_owned(), bounds)].into();
        let uploads = Uploads::open(state, Client::new(&config.http).unwrap(), bounds).await.unwrap();
        let credential = Credential::new("KEY", "AIza-secret");
        Self { dir, uploads, endpoint, credential, stop: CancellationToken::new() }
    }

    fn clip(&self, name: &str, bytes: usize) -> Arc<Clip> {
        let path = self.dir.path().join(name);
        std::fs::write(&path, vec![u8::try_from(bytes % 251).unwrap(); bytes]).unwrap();
        Arc::new(clip_of_file(&path))
    }

    /// Has a clip there, as long as it is used.
    async fn up(&self, clip: &Arc<Clip>) -> Result<(Use, Arc<str>), NotUploaded> {
        let (_, mut uses) = self.uploads.choose(&self.endpoint, &[&self.credential], &[clip]);
        let wanted = uses.remove(0);
        let uri = wanted.uri(&self.endpoint, &self.credential, &self.stop).await?;
        Ok((wanted, uri))
    }
}

/// A stop while `work` hangs at the provider ends it.
async fn stopped<T>(gateway: &Gateway, bench: &Bench, work: impl Future<Output = Result<T, NotUploaded>>) {
    let stopping = async {
        gateway.hangs().await;
        bench.stop.cancel();
    };
    let (ended, ()) = timeout(PATIENCE, async { tokio::join!(work, stopping) }).await.expect("it waits on");
    assert!(matches!(ended, Err(NotUploaded::Stopped)));
}

#[tokio::test]
async fn a_stop_ends_a_look_at_a_file_a_list_and_a_delete_that_hang() {
    let processed = FileSettings { processing_ms: 600_000, ..FileSettings::default() };
    let gateway = Gateway::start(processed, &["GET"]).await;
    let bench = Bench::new(&gateway, 1 << 30).await;
    let clip = bench.clip("a", 10);
    stopped(&gateway, &bench, bench.up(&clip)).await;

    // A row whose upload was not seen to end: the list is asked for it.
    let gateway = Gateway::start(FileSettings::default(), &["GET"]).await;
    let bench = Bench::new(&gateway, 1 << 30).await;
    let (identity, credential) = (bench.endpoint.identity.as_str().into(), "KEY".into());
    let key = Key { identity, credential, sha256: Arc::clone(&clip.sha256) };
    bench.uploads.0.registry.put(&key, &registry::Row::begun("d".to_owned(), 10)).await.unwrap();
    stopped(&gateway, &bench, bench.up(&clip)).await;

    let gateway = Gateway::start(FileSettings::default(), &["DELETE"]).await;
    let bench = Bench::new(&gateway, 100).await;
    drop(bench.up(&bench.clip("old", 60)).await.unwrap());
    let clip = bench.clip("new", 50);
    stopped(&gateway, &bench, bench.up(&clip)).await;
}

#[tokio::test]
async fn a_delete_that_hangs_holds_up_no_upload_that_has_room() {
    let gateway = Gateway::start(FileSettings::default(), &["DELETE"]).await;
    let bench = Bench::new(&gateway, 100).await;
    drop(bench.up(&bench.clip("old", 60)).await.unwrap());
    let (large, small) = (bench.clip("large", 50), bench.clip("small", 40));
    let mut waiting = Box::pin(bench.up(&large));
    tokio::select! {
        _ = &mut waiting => panic!("there is no room before the old one is gone"),
        () = gateway.hangs() => {}
    }
    timeout(PATIENCE, bench.up(&small)).await.expect("it is held up").unwrap();
    assert!((&mut waiting).now_or_never().is_none());
    assert_eq!(gateway.live_bytes(), 100, "never more than is kept");
}

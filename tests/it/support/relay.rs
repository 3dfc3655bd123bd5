//! A relay before the simulator: it keeps what was sent, and can put other words into replies.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::Sim;

/// What was sent: the path with its query, and the body.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) path: String,
    pub(crate) body: Value,
}

/// Gets a request and the text of its reply; what it returns is the reply's text instead.
type Rewrite = Box<dyn Fn(&Sent, &str) -> Option<String> + Send + Sync>;

struct Shared {
    target: String,
    client: reqwest::Client,
    sent: Mutex<Vec<Sent>>,
    rewrite: Rewrite,
}

/// A client for what is asked past the program.
pub(crate) fn client() -> reqwest::Client {
    // Somebody may have installed it already.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// A relay that runs.
pub(crate) struct Relay {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// A relay that changes nothing.
    pub(crate) fn quiet(sim: &Sim) -> Self {
        Self::start(sim, |_, _| None)
    }

    /// A relay before `sim`; `rewrite` sees each request that was answered, with the text of the reply.
    pub(crate) fn start(sim: &Sim, rewrite: impl Fn(&Sent, &str) -> Option<String> + Send + Sync + 'static) -> Self {
        let client = client();
        let shared =
            Arc::new(Shared { target: sim.base_url(), client, sent: Mutex::default(), rewrite: Box::new(rewrite) });
        let router = Router::new().fallback(pass).with_state(Arc::clone(&shared));
        let listener = sim.runtime().block_on(TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))).unwrap();
        let addr = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        let serve = async move { axum::serve(listener, router).await.unwrap() };
        tasks.spawn_on(serve, sim.runtime().handle());
        Self { addr, shared, _tasks: tasks }
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Everything that was sent, in order of arrival.
    pub(crate) fn sent(&self) -> Vec<Sent> {
        self.shared.sent.lock().unwrap().clone()
    }
}

impl Sent {
    /// All texts of the request, in order.
    pub(crate) fn texts(&self) -> Vec<String> {
        let mut found = Vec::new();
        texts(&self.body, &mut found);
        found
    }

    /// All texts in one.
    pub(crate) fn text(&self) -> String {
        self.texts().join("\n")
    }

    /// The JSON between `<name>` and `</name>` of the prompt.
    pub(crate) fn tag(&self, name: &str) -> Option<Value> {
        let text = self.text();
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        serde_json::from_str(rest.split_once(&format!("</{name}>"))?.0).ok()
    }

    /// `generator`, `summarizer` or `evaluator`, by what the prompt holds.
    pub(crate) fn role(&self) -> &'static str {
        match (self.tag("caption"), self.tag("steps")) {
            (Some(_), _) => "evaluator",
            (None, Some(_)) => "summarizer",
            (None, None) => "generator",
        }
    }

    /// The maximum output asked for.
    pub(crate) fn max_output(&self) -> u64 {
        let asked = [
            &self.body["generationConfig"]["maxOutputTokens"],
            &self.body["max_tokens"],
            &self.body["max_completion_tokens"],
        ];
        asked.into_iter().find_map(Value::as_u64).unwrap()
    }
}

fn texts(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(text) if name == "text" || name == "content" => found.push(text.clone()),
                    // A schema's property may have any name.
                    _ if name == "generationConfig" || name == "response_format" => {}
                    _ => texts(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
        _ => {}
    }
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().unwrap().to_string();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let sent = Sent { path, body: serde_json::from_slice(&body).unwrap() };
    shared.sent.lock().unwrap().push(sent.clone());
    let mut headers = parts.headers;
    headers.remove("host");
    headers.remove("content-length");
    let url = format!("{}{}", shared.target, sent.path);
    let Ok(reply) = shared.client.request(parts.method, url).headers(headers).body(body).send().await else {
        return Response::builder().status(StatusCode::BAD_GATEWAY).body(Body::empty()).unwrap();
    };
    let (status, headers) = (reply.status(), reply.headers().clone());
    let mut bytes = reply.bytes().await.unwrap().to_vec();
    if status == StatusCode::OK {
        let mut value: Value = serde_json::from_slice(&bytes).unwrap();
        let pointers = ["/candidates/0/content/parts/0/text", "/choices/0/message/content"];
        let text = pointers.into_iter().find(|pointer| value.pointer(pointer).is_some_and(Value::is_string));
        if let Some(text) = text.and_then(|pointer| value.pointer_mut(pointer))
            && let Some(other) = (shared.rewrite)(&sent, text.as_str().unwrap())
        {
            *text = Value::String(other);
            bytes = serde_json::to_vec(&value).unwrap();
        }
    }
    let mut response = Response::builder().status(status);
    for (name, value) in headers.iter().filter(|(name, _)| *name != "content-length" && *name != "transfer-encoding") {
        response = response.header(name, value);
    }
    response.body(Body::from(bytes)).unwrap()
}

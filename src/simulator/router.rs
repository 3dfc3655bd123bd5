//! Addresses to calls: both protocols, and the simulator's own few.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::answer::{Delivery, Refusal};
use super::call::{self, Arrived};
use super::gemini::errors::MAX_BODY;
use super::line::{Cutter, Lines};
use super::models::{self, Model};
use super::{Shared, files, gemini, openai, respond};
use crate::provider::Protocol;

/// Serves until `stop`.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener, stop: CancellationToken) {
    let app = axum::Router::new().fallback(dispatch).with_state(shared);
    let lines = Lines { listener, stop: stop.clone() };
    let service = app.into_make_service_with_connect_info::<Cutter>();
    let served = axum::serve(lines, service).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "the simulator's listener ends");
    }
}

async fn dispatch(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(Cutter(cut)): ConnectInfo<Cutter>,
    request: Request,
) -> Response {
    let path = request.uri().path().replace("%3A", ":");
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (request.method().as_str(), parts.as_slice()) {
        ("GET", ["healthz"]) => plain(200, "ok"),
        ("GET", ["stats"]) => own(200, &json!(shared.stats())),
        ("POST", ["stats", "reset"]) => {
            shared.reset();
            own(200, &json!({}))
        }
        ("POST", ["control"]) => control(&shared, request).await,
        ("POST", ["v1", "chat", "completions"]) => chat(&shared, request, cut).await,
        ("GET", [version @ ("v1" | "v1beta" | "v1alpha"), "models", rest @ ..]) => {
            list(&shared, &request, version, rest)
        }
        ("POST", ["upload", version @ ("v1" | "v1beta" | "v1alpha"), "files"]) => {
            files::upload(&shared, request, cut, version).await
        }
        (_, [version @ ("v1" | "v1beta" | "v1alpha"), "files", name @ ..]) => {
            files::resource(&shared, &request, version, name)
        }
        ("POST", [version @ ("v1" | "v1beta" | "v1alpha"), "models", name]) => match name.split_once(':') {
            Some((model, method)) => {
                let (version, model, method) = (version.to_string(), model.to_owned(), method.to_owned());
                generate(&shared, request, cut, &version, &model, &method).await
            }
            None => not_found(&path),
        },
        (method, ["v1", ..]) => {
            let refusal = openai::errors::no_url(method, &path);
            text(refusal.status, "application/json", refusal.body)
        }
        _ => not_found(&path),
    }
}

async fn generate(
    shared: &Shared,
    request: Request,
    cut: CancellationToken,
    version: &str,
    model: &str,
    method: &str,
) -> Response {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let delivery = match method {
        "generateContent" | "countTokens" => Delivery::Whole,
        "streamGenerateContent" if query.split('&').any(|pair| pair == "alt=sse") => Delivery::Events,
        "streamGenerateContent" => Delivery::Array,
        _ => return not_found(request.uri().path()),
    };
    let header = request.headers().get("x-goog-api-key").and_then(|value| value.to_str().ok());
    let in_query = || query.split('&').find_map(|pair| pair.strip_prefix("key="));
    let key = header.or_else(in_query).map(str::to_owned);
    let path = request.uri().path().to_owned();
    let find = |settings: &super::Settings| -> Result<Model, Refusal> {
        let found = models::find(&settings.models, Protocol::Gemini, model);
        found.ok_or_else(|| gemini::errors::no_model(version, &super::shape::clip(model), method))
    };
    let settings = shared.settings();
    if method == "countTokens" {
        let Some(body) = read_body(request).await else { return text(400, "application/json", too_large().body) };
        let view = files::View::new(shared, &settings, key.as_deref());
        let counted = find(&settings).and_then(|model| gemini::parse_count(&body, model, &settings, &view));
        return match counted {
            _ if key.is_none_or(|key| key.is_empty()) => text(403, "application/json", gemini::errors::no_key().body),
            Ok(call) => own(200, &gemini::reply::count(call.prompt_tokens())),
            Err(refusal) => text(refusal.status, "application/json", refusal.body),
        };
    }
    let guard = shared.ledger.enter();
    let Some(body) = read_body(request).await else {
        return respond::refuse(shared, &settings, Protocol::Gemini, too_large(), guard);
    };
    let view = files::View::new(shared, &settings, key.as_deref());
    let arrived = Arrived { protocol: Protocol::Gemini, key, path, body, cut };
    let parse =
        |body: &[u8], settings: &super::Settings| gemini::parse(body, find(settings)?, delivery, settings, &view);
    call::answer(shared, arrived, guard, parse).await
}

fn too_large() -> Refusal {
    gemini::errors::invalid(&format!("Request payload size exceeds the limit: {MAX_BODY} bytes."))
}

async fn chat(shared: &Shared, request: Request, cut: CancellationToken) -> Response {
    let key = bearer(&request);
    let path = request.uri().path().to_owned();
    let guard = shared.ledger.enter();
    let Some(body) = read_body(request).await else {
        return respond::refuse(shared, &shared.settings(), Protocol::Openai, openai::errors::too_large(), guard);
    };
    let arrived = Arrived { protocol: Protocol::Openai, key, path, body, cut };
    call::answer(shared, arrived, guard, openai::parse).await
}

fn bearer(request: &Request) -> Option<String> {
    let value = request.headers().get("authorization")?.to_str().ok()?;
    value.strip_prefix("Bearer ").map(|key| key.trim().to_owned())
}

/// The body as it streams in; `None` when it is over the limit or breaks off. What is over the limit is read on for a
/// while and thrown away, since a client that is still writing would see a reset instead of the refusal.
async fn read_body(request: Request) -> Option<Bytes> {
    let mut stream = request.into_body().into_data_stream();
    let first = stream.next().await.transpose().ok()?.unwrap_or_default();
    let Some(second) = stream.next().await else { return Some(first) };
    let mut body = BytesMut::from(first);
    body.extend_from_slice(&second.ok()?);
    let mut surplus = 0;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.ok()?;
        if surplus > 0 || body.len() + chunk.len() > MAX_BODY {
            surplus += chunk.len();
        } else {
            body.extend_from_slice(&chunk);
        }
        if surplus > MAX_BODY {
            return None;
        }
    }
    (surplus == 0).then(|| body.freeze())
}

/// Models: `/v1/models` is both protocols' address, told apart by how the key is sent.
fn list(shared: &Shared, request: &Request, version: &str, rest: &[&str]) -> Response {
    let settings = shared.settings();
    let is_gemini = version != "v1" || request.headers().contains_key("x-goog-api-key");
    let protocol = if is_gemini { Protocol::Gemini } else { Protocol::Openai };
    let has_key = if is_gemini {
        request.headers().contains_key("x-goog-api-key") || request.uri().query().is_some_and(|q| q.contains("key="))
    } else {
        bearer(request).is_some() || settings.openai_flavour == super::Flavour::Vllm
    };
    if !has_key {
        let refusal = if is_gemini { gemini::errors::no_key() } else { openai::errors::no_key() };
        return text(refusal.status, "application/json", refusal.body);
    }
    let describe = |model: &Model| match protocol {
        Protocol::Openai => openai::reply::model(&model.name),
        Protocol::Gemini => json!({
            "name": format!("models/{}", model.name), "displayName": model.name, "version": "001",
            "inputTokenLimit": 1_048_576, "outputTokenLimit": 65_536,
            "supportedGenerationMethods": ["generateContent", "countTokens"],
        }),
    };
    match rest {
        [] => {
            let all: Vec<Value> = settings
                .models
                .iter()
                .cloned()
                .chain(models::built_in())
                .filter(|model| model.protocol == protocol)
                .map(|model| describe(&model))
                .collect();
            own(200, &if is_gemini { json!({ "models": all }) } else { json!({ "object": "list", "data": all }) })
        }
        [name] => {
            if let Some(model) = models::find(&settings.models, protocol, name) {
                return own(200, &describe(&model));
            }
            let refusal = if is_gemini {
                gemini::errors::no_model(version, name, "getModel")
            } else {
                openai::errors::no_model(name)
            };
            text(refusal.status, "application/json", refusal.body)
        }
        _ => not_found(request.uri().path()),
    }
}

async fn control(shared: &Shared, request: Request) -> Response {
    let Some(body) = read_body(request).await else { return plain(413, "the patch is too large") };
    let patched = serde_json::from_slice::<Value>(&body)
        .map_err(|error| format!("the patch is no JSON: {error}"))
        .and_then(|patch| shared.settings().patched(&patch))
        .and_then(|settings| shared.set(settings));
    match patched {
        Ok(()) => own(200, &json!({})),
        Err(error) => own(400, &json!({ "error": error })),
    }
}

/// Google's front end answers an unknown address with a page, not with JSON.
fn not_found(path: &str) -> Response {
    let safe: String = path.chars().filter(|c| !matches!(c, '<' | '>' | '&')).take(200).collect();
    let page = format!(
        "<!DOCTYPE html>\n<html lang=en>\n<title>Error 404 (Not Found)!!1</title>\n<p>The requested URL \
                        <code>{safe}</code> was not found on this server.\n"
    );
    text(404, "text/html; charset=UTF-8", page)
}

fn own(status: u16, value: &Value) -> Response {
    text(status, "application/json; charset=UTF-8", value.to_string())
}

fn plain(status: u16, body: &str) -> Response {
    text(status, "text/plain; charset=UTF-8", body.to_owned())
}

fn text(status: u16, mime: &str, body: String) -> Response {
    let response = Response::builder().status(status).header("content-type", mime).body(Body::from(body));
    response.unwrap_or_else(|_| Response::new(Body::empty()))
}

//! Responses: a refusal, a good answer, or what a fault makes of its way to the client.

use std::fmt::Write as _;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body::Body as _;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, Delivery, Refusal};
use super::books::CallGuard;
use super::call::{Admitted, Arrived};
use super::fault::Fault;
use super::line::{Script, Step};
use super::settings::{Flavour, Settings};
use super::window::Room;
use super::{Shared, gemini, openai};
use crate::provider::Protocol;

/// A refusal as a response.
pub(crate) fn refuse(
    shared: &Shared,
    settings: &Settings,
    protocol: Protocol,
    refusal: Refusal,
    guard: CallGuard,
) -> Response {
    shared.ledger.books().see_error(&format!("{} {}", refusal.status, refusal.kind));
    let mime =
        if refusal.body.starts_with("<!") { "text/html; charset=UTF-8" } else { "application/json; charset=UTF-8" };
    let mut refusal = refusal;
    if protocol == Protocol::Openai {
        refusal = openai::errors::in_flavour(refusal, settings.openai_flavour);
    }
    let mut headers = refusal.headers;
    headers.extend(shared.request_headers(settings, protocol));
    respond(refusal.status, mime, headers, [Step::Send(refusal.body.into())], guard)
}

/// The good answer, or what the fault makes of its way.
pub(crate) fn deliver(
    shared: &Shared,
    settings: &Settings,
    arrived: &Arrived,
    admitted: &Admitted,
    answer: &Answer,
    guard: CallGuard,
) -> Response {
    let (mime, body) = render(settings, arrived, admitted, answer);
    let mut headers = shared.request_headers(settings, arrived.protocol);
    if arrived.protocol == Protocol::Openai && settings.openai_flavour == Flavour::Openai {
        headers.extend(rate_headers(admitted.room));
        headers.push(("openai-processing-ms", admitted.latency_ms.to_string()));
    }
    let half = body.len() / 2;
    match admitted.fault {
        Some(Fault::CutAfter) => cut(&arrived.cut),
        Some(Fault::CutBody) => {
            headers.push(("content-length", body.len().to_string()));
            // The wait lets the first half leave before the connection breaks.
            let steps = [Step::Send(body.slice(..half)), Step::Wait(Duration::from_millis(20)), Step::Fail];
            respond(200, mime, headers, steps, guard)
        }
        Some(Fault::WrongLength) => {
            headers.push(("content-length", (body.len() + 64).to_string()));
            let steps = [Step::Send(body), Step::Wait(Duration::from_millis(20)), Step::Fail];
            respond(200, mime, headers, steps, guard)
        }
        Some(Fault::Slow) => {
            let wait = Duration::from_millis(settings.faults.slow_ms / 16);
            let size = body.len().div_ceil(16).max(1);
            let starts: Vec<usize> = (0..body.len()).step_by(size).collect();
            let steps = starts
                .iter()
                .flat_map(|&start| [Step::Wait(wait), Step::Send(body.slice(start..(start + size).min(body.len())))]);
            respond(200, mime, headers, steps.collect::<Vec<_>>(), guard)
        }
        _ => respond(200, mime, headers, [Step::Send(body)], guard),
    }
}

/// The body in the protocol's form and the delivery asked for.
fn render(settings: &Settings, arrived: &Arrived, admitted: &Admitted, answer: &Answer) -> (&'static str, Bytes) {
    const JSON: &str = "application/json; charset=UTF-8";
    const EVENTS: &str = "text/event-stream";
    let (call, id, flavour) = (&admitted.call, admitted.body_id, settings.openai_flavour);
    let name = &call.model.name;
    let events = |chunks: Vec<Value>, end: &str| {
        let mut text = String::new();
        for chunk in chunks {
            // Writing to a text cannot fail.
            let _ = write!(text, "data: {chunk}\n\n");
        }
        text.push_str(end);
        text.into()
    };
    match (arrived.protocol, call.delivery) {
        (Protocol::Gemini, Delivery::Whole) => (JSON, gemini::reply::body(answer, name, id).to_string().into()),
        (Protocol::Gemini, Delivery::Events) => (EVENTS, events(gemini::reply::chunks(answer, name, id), "")),
        (Protocol::Gemini, Delivery::Array) => {
            (JSON, Value::Array(gemini::reply::chunks(answer, name, id)).to_string().into())
        }
        (Protocol::Openai, Delivery::Whole | Delivery::Array) => {
            (JSON, openai::reply::body(answer, call, id, flavour).to_string().into())
        }
        (Protocol::Openai, Delivery::Events) => {
            (EVENTS, events(openai::reply::chunks(answer, call, id, flavour), "data: [DONE]\n\n"))
        }
    }
}

/// What OpenAI tells of its limits with each answer; without a limit here, a generous one.
fn rate_headers((requests, tokens): (Option<Room>, Option<Room>)) -> Vec<(&'static str, String)> {
    let generous = |limit| Room { limit, remaining: limit - 1, full_in_us: 6_000 };
    let (requests, tokens) = (requests.unwrap_or(generous(10_000)), tokens.unwrap_or(generous(30_000_000)));
    let reset = |room: Room| gemini::errors::go_duration(room.full_in_us.div_ceil(1_000) * 1_000);
    vec![
        ("x-ratelimit-limit-requests", requests.limit.to_string()),
        ("x-ratelimit-remaining-requests", requests.remaining.to_string()),
        ("x-ratelimit-reset-requests", reset(requests)),
        ("x-ratelimit-limit-tokens", tokens.limit.to_string()),
        ("x-ratelimit-remaining-tokens", tokens.remaining.to_string()),
        ("x-ratelimit-reset-tokens", reset(tokens)),
    ]
}

/// Cuts the connection; the response is never written.
pub(crate) fn cut(line: &CancellationToken) -> Response {
    line.cancel();
    Response::new(Body::empty())
}

/// A response of these steps; the length is told unless a header already lies about it.
pub(crate) fn respond(
    status: u16,
    mime: &'static str,
    headers: Vec<(&'static str, String)>,
    steps: impl IntoIterator<Item = Step>,
    guard: CallGuard,
) -> Response {
    let script = Script::new(steps, guard);
    let exact = script.size_hint().exact();
    let mut builder = Response::builder().status(status).header("content-type", mime);
    for (name, value) in headers {
        builder = builder.header(name, value);
    }
    if let Some(length) = exact {
        builder = builder.header("content-length", length);
    }
    // Only a header that is no header could fail here, and all of them are written in this file.
    builder.body(Body::new(script)).unwrap_or_else(|_| Response::new(Body::empty()))
}

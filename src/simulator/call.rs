//! One generation call from its first byte to its last.
//!
//! The order is the real one: who are you, what do you ask, is there room for it, then the work. A refusal costs nothing; from
//! the moment the answer is computed the call is billed, whatever becomes of the connection.

use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::answer::{Call, Refusal, compose};
use super::books::{CallGuard, Met};
use super::directive::Order;
use super::draw;
use super::fault::{self, Fault};
use super::line::Step;
use super::prompt::{self, Prompt};
use super::respond::{cut, deliver, refuse, respond};
use super::settings::{Flavour, Settings};
use super::window::Room;
use super::{Shared, gemini, openai};
use crate::provider::Protocol;

/// What a call came with.
pub(crate) struct Arrived {
    pub(crate) protocol: Protocol,
    /// `None`: no key was given.
    pub(crate) key: Option<String>,
    /// Path of the request; with the body it is the call's whole identity.
    pub(crate) path: String,
    pub(crate) body: Bytes,
    pub(crate) cut: CancellationToken,
}

/// A call that is understood and let in.
pub(crate) struct Admitted {
    pub(crate) call: Call,
    pub(crate) prompt: Prompt,
    pub(crate) fault: Option<Fault>,
    pub(crate) latency_ms: u64,
    /// Of the whole body.
    pub(crate) body_id: u128,
    pub(crate) room: (Option<Room>, Option<Room>),
}

/// Answers a call. `parse` reads the body for its protocol.
/// Cancel safety: dropping it ends the call as a client that hung up does; what was billed stays billed.
pub(crate) async fn answer(
    shared: &Shared,
    arrived: Arrived,
    mut guard: CallGuard,
    parse: impl FnOnce(&[u8], &Settings) -> Result<Call, Refusal>,
) -> Response {
    let settings = shared.settings();
    let admitted = match admit(shared, &settings, &arrived, parse) {
        Ok(admitted) => admitted,
        Err(refusal) => return refuse(shared, &settings, arrived.protocol, refusal, guard),
    };
    if let Some(fault) = admitted.fault {
        shared.ledger.books().see_fault(fault);
    }
    let fault = admitted.fault.filter(|fault| !fault.is_processed());
    if let Some(refusal) = fault.and_then(|fault| fault_refusal(fault, &arrived, &admitted, &settings)) {
        if refusal.status >= 500 {
            pause(admitted.latency_ms).await;
        }
        return refuse(shared, &settings, arrived.protocol, refusal, guard);
    }
    match fault {
        Some(Fault::CutBefore) => {
            shared.ledger.books().see_error("cut");
            return cut(&arrived.cut);
        }
        Some(Fault::Garbage) => {
            let garbage = Bytes::from_static(b"\x00\x01<<<not json>>>\xff{\"candidates\":[");
            return respond(200, "application/json", Vec::new(), [Step::Send(garbage)], guard);
        }
        _ => {}
    }
    let answer = compose(&admitted.call, &admitted.prompt, settings.style, admitted.fault);
    let (prompt_tokens, output) = (answer.prompt.total(), answer.output + answer.thoughts);
    let cost = admitted.call.model.cost(answer.prompt, output);
    guard.bill(admitted.body_id, admitted.prompt.seat, prompt_tokens, output, cost);
    pause(admitted.latency_ms).await;
    if admitted.fault == Some(Fault::Stall) {
        pause(settings.faults.stall_ms).await;
    }
    deliver(shared, &settings, &arrived, &admitted, &answer, guard)
}

async fn pause(ms: u64) {
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

/// Key, request, directives, limits, fate; in that order.
fn admit(
    shared: &Shared,
    settings: &Settings,
    arrived: &Arrived,
    parse: impl FnOnce(&[u8], &Settings) -> Result<Call, Refusal>,
) -> Result<Admitted, Refusal> {
    let key = check_key(settings, arrived.protocol, arrived.key.as_deref())?;
    let body_id = draw::digest(&[arrived.path.as_bytes(), &arrived.body]);
    shared.ledger.books().see_body(body_id, arrived.body.len() as u64);
    let call = parse(&arrived.body, settings)?;
    let media: Vec<u128> = call.media.iter().map(|medium| medium.digest).collect();
    let prompt = prompt::read(&call.text, &media, &call.properties()).map_err(|text| match arrived.protocol {
        Protocol::Gemini => gemini::errors::invalid(&text),
        Protocol::Openai => openai::errors::invalid(&text, Some("messages"), None),
    })?;
    let tokens = match arrived.protocol {
        Protocol::Gemini => call.prompt_tokens().total(),
        Protocol::Openai => call.prompt_tokens().total() + call.max_output.unwrap_or(0),
    };
    let id = call.identity();
    let now = shared.now_us();
    let mut books = shared.ledger.books();
    books.see_caller(&key, &call.model.name);
    books.stats.media_bytes += call.media_bytes();
    call.media.iter().for_each(|medium| books.see_part(medium.kind.name()));
    if let Err(denied) = books.windows.admit(now, &key, &call.model.name, tokens) {
        books.stats.limit_violations += 1;
        drop(books);
        let bare = denied.limit.bare.then_some(Fault::RateBare);
        let bare = bare.and_then(|bare| match arrived.protocol {
            Protocol::Gemini => gemini::errors::fault(bare, &call.model.name, 0),
            Protocol::Openai => openai::errors::fault(bare, &call.model.name, 0),
        });
        return Err(bare.unwrap_or_else(|| match arrived.protocol {
            Protocol::Gemini => gemini::errors::over_limit(&call.model.name, &denied),
            Protocol::Openai => openai::errors::over_limit(&call.model.name, &denied),
        }));
    }
    let room = books.windows.room(now, &key, &call.model.name);
    let seeded = draw::digest(&[&id.to_le_bytes(), &settings.seed.to_le_bytes()]);
    let met = books.met(id);
    let ordered = ordered_fault(&mut books, &prompt, id);
    let most = settings.faults.max_consecutive;
    let may_fail = ordered.is_none() && (most == 0 || met.in_a_row < most);
    let kinds = &shared.kinds(settings);
    let drawn = may_fail.then(|| fault::roll(settings.faults.rate, kinds, prompt.seat, seeded, met.calls)).flatten();
    let in_a_row = if drawn.is_some() { met.in_a_row + 1 } else { 0 };
    books.set_met(id, Met { calls: met.calls + 1, in_a_row });
    drop(books);
    let told = prompt.orders.iter().find_map(|order| if let Order::LatencyMs(ms) = order { Some(*ms) } else { None });
    let latency_ms = told.unwrap_or_else(|| settings.latency.draw(seeded, met.calls));
    Ok(Admitted { call, prompt, fault: ordered.or(drawn), latency_ms, body_id, room })
}

/// The first ordered fault that fits this role and take and has turns left.
fn ordered_fault(books: &mut super::books::Books, prompt: &Prompt, id: u128) -> Option<Fault> {
    prompt.orders.iter().enumerate().find_map(|(at, order)| {
        let Order::Fault(ordered) = order else { return None };
        let fits =
            ordered.role.is_none_or(|role| role == prompt.seat) && ordered.take.is_none_or(|take| take == prompt.take);
        let turn = draw::digest(&[&id.to_le_bytes(), &(at as u64).to_le_bytes()]);
        (fits && books.take_turn(turn, ordered.times)).then_some(ordered.fault)
    })
}

/// The key's fingerprint, or why it is refused.
pub(crate) fn check_key(settings: &Settings, protocol: Protocol, key: Option<&str>) -> Result<String, Refusal> {
    let gemini = protocol == Protocol::Gemini;
    let needed = gemini || settings.openai_flavour == Flavour::Openai;
    let key = match key.filter(|key| !key.is_empty()) {
        Some(key) => key,
        None if !needed => "",
        None if gemini => return Err(gemini::errors::no_key()),
        None => return Err(openai::errors::no_key()),
    };
    if settings.keys.revoked.contains(key) {
        return Err(if gemini { gemini::errors::bad_key() } else { openai::errors::bad_key() });
    }
    if settings.keys.no_billing.contains(key) {
        return Err(if gemini { gemini::errors::no_billing() } else { openai::errors::no_billing() });
    }
    Ok(format!("{:08x}", draw::digest(&[b"key", key.as_bytes()]) & 0xffff_ffff))
}

/// The refusal a fault stands for, in the protocol's words; a 502 is a front end's page in either.
fn fault_refusal(fault: Fault, arrived: &Arrived, admitted: &Admitted, settings: &Settings) -> Option<Refusal> {
    if fault == Fault::BadGateway {
        let page = "<!DOCTYPE html>\n<html lang=en>\n<title>Error 502 (Server Error)!!1</title>\n<p><b>502.</b> \
                    <ins>That's an error.</ins>\n<p>The server encountered a temporary error and could not complete your \
                    request.</html>\n";
        return Some(Refusal { status: 502, kind: "html", headers: Vec::new(), body: page.to_owned() });
    }
    let (model, delay) = (&admitted.call.model.name, settings.faults.retry_delay_ms);
    match arrived.protocol {
        Protocol::Gemini => gemini::errors::fault(fault, model, delay),
        Protocol::Openai => openai::errors::fault(fault, model, delay),
    }
}

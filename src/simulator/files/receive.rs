//! Bytes of an upload as they arrive: hashed, measured, and forgotten.

use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::super::Shared;
use super::super::respond::cut;
use super::super::settings::Settings;
use super::fault::{FileFault, Occasion};
use super::held::Place;
use super::store::Upload;
use super::taken::{Standing, Taken};
use super::{answers, base, header, refused};

/// Most surplus bytes that are read and thrown away, so that a refusal can be seen before the connection ends.
const MOST_SURPLUS: u64 = 64 << 20;

/// Answers a command on a session.
pub(super) async fn command(
    shared: &Shared,
    settings: &Settings,
    request: Request,
    line: CancellationToken,
    session: &str,
    commands: &[String],
) -> Response {
    let Some(upload) = shared.files.upload(session) else {
        drain(shared, request, None).await;
        return failed(shared, 404, "Upload session is not known.", None);
    };
    let mut taken = upload.taken.lock().await;
    // The chunk before broke off.
    lose(shared, &upload, taken.lose_open());
    let words: Vec<&str> = commands.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["query"] => {
            shared.files.count(&upload.project, |counts| counts.queries += 1);
            let standing = match taken.standing {
                Standing::Active => "active",
                Standing::Final => "final",
                Standing::Cancelled => "cancelled",
            };
            answers::standing(standing, taken.kept)
        }
        _ if taken.standing != Standing::Active => {
            drain(shared, request, Some(&upload)).await;
            failed(shared, 400, "Upload has already been terminated.", Some("final"))
        }
        ["cancel"] => {
            shared.files.count(&upload.project, |counts| counts.cancels += 1);
            taken.standing = Standing::Cancelled;
            lose(shared, &upload, taken.kept);
            answers::standing("cancelled", taken.kept)
        }
        ["upload" | "finalize"] | ["upload", "finalize"] => {
            let last = words.contains(&"finalize");
            let place = (base(&request), version(&request));
            if let Err(response) = chunk(shared, settings, request, &line, &upload, &mut taken, last).await {
                return response;
            }
            if last {
                finish(shared, settings, &line, &upload, &mut taken, &place)
            } else {
                answers::standing("active", taken.kept)
            }
        }
        _ => {
            drain(shared, request, Some(&upload)).await;
            failed(shared, 400, "Invalid upload command.", Some("active"))
        }
    }
}

fn version(request: &Request) -> String {
    request.uri().path().split('/').nth(2).unwrap_or("v1beta").to_owned()
}

fn number(request: &Request, name: &str) -> Option<u64> {
    header(request, name)?.trim().parse().ok()
}

/// Takes a chunk's bytes; the error is the answer of one that is refused or goes wrong.
async fn chunk(
    shared: &Shared,
    settings: &Settings,
    request: Request,
    line: &CancellationToken,
    upload: &Upload,
    taken: &mut Taken,
    last: bool,
) -> Result<(), Response> {
    let (offset, length) = (number(&request, "x-goog-upload-offset"), number(&request, "content-length").unwrap_or(0));
    if let Some(words) = misfit(upload, taken, offset, length, last, settings.files.granularity) {
        drain(shared, request, Some(upload)).await;
        return Err(failed(shared, 400, &words, Some("active")));
    }
    let fault = if length > 0 { shared.files.roll(settings, upload.id, Occasion::Chunk) } else { None };
    let at = |number: u64| settings.files.faults.cut_at_bytes.unwrap_or_else(|| number % length.max(1)).min(length);
    let (fault, limit) = match fault {
        Some((fault @ (FileFault::CutChunk | FileFault::Chunk503), number)) => (Some(fault), at(number)),
        Some((fault, _)) => (Some(fault), u64::MAX),
        None => (None, u64::MAX),
    };
    if let Some(fault) = fault {
        shared.ledger.books().see_named_fault(fault.name());
    }
    if fault == Some(FileFault::SessionLost) {
        drain(shared, request, Some(upload)).await;
        lose(shared, upload, taken.kept);
        shared.files.forget(&upload.session);
        return Err(failed(shared, 404, "Upload session is not known.", None));
    }
    let (mut arrived, mut pauses) = (0_u64, 0);
    let mut stream = request.into_body().into_data_stream();
    loop {
        if fault == Some(FileFault::CutChunk) && arrived >= limit {
            return Err(cut(line));
        }
        let Some(piece) = stream.next().await else { break };
        // The connection broke: nobody will read the answer.
        let Ok(piece) = piece else { return Err(failed(shared, 400, "The body is cut.", None)) };
        let size = piece.len() as u64;
        let useful = limit.saturating_sub(arrived).min(size);
        shared.files.count(&upload.project, |counts| {
            counts.bytes_received += size;
            counts.bytes_lost += size - useful;
        });
        arrived += size;
        if taken.kept + taken.open.len() as u64 + useful > upload.wish.size {
            lose(shared, upload, useful);
            return Err(failed(shared, 400, "The upload is longer than its start said.", Some("active")));
        }
        taken.arrive(&piece[..usize::try_from(useful).unwrap_or(piece.len())], settings.files.kept_multiple);
        if fault == Some(FileFault::SlowChunk) && pauses < 16 {
            pauses += 1;
            tokio::time::sleep(Duration::from_millis(settings.files.faults.slow_ms / 16)).await;
        }
    }
    if fault == Some(FileFault::Chunk503) {
        lose(shared, upload, taken.lose_open());
        return Err(failed(shared, 503, "Service Unavailable", None));
    }
    taken.keep(taken.open.len());
    Ok(())
}

/// Why a chunk is refused before its bytes are looked at.
fn misfit(
    upload: &Upload,
    taken: &Taken,
    offset: Option<u64>,
    length: u64,
    last: bool,
    granularity: u64,
) -> Option<String> {
    let (kept, size) = (taken.kept, upload.wish.size);
    let Some(offset) = offset else { return Some("X-Goog-Upload-Offset is missing or no number.".to_owned()) };
    if offset != kept {
        return Some(format!("The upload offset is {offset} bytes, but {kept} bytes were received."));
    }
    if offset.saturating_add(length) > size {
        return Some(format!("{length} bytes at offset {offset} are more than the {size} bytes the start said."));
    }
    if last && offset + length != size {
        return Some(format!("The upload ends at {} bytes, but its start said {size} bytes.", offset + length));
    }
    (!last && !length.is_multiple_of(granularity))
        .then(|| format!("A chunk of {length} bytes is no multiple of {granularity}."))
}

/// Makes the upload a file, and answers; or does not, as a fault has it.
fn finish(
    shared: &Shared,
    settings: &Settings,
    line: &CancellationToken,
    upload: &Upload,
    taken: &mut Taken,
    (base, version): &(String, String),
) -> Response {
    if taken.kept != upload.wish.size {
        return failed(shared, 400, "The upload is shorter than its start said.", Some("active"));
    }
    let fault = shared.files.roll(settings, upload.id, Occasion::Final).map(|(fault, _)| fault);
    if let Some(fault) = fault {
        shared.ledger.books().see_named_fault(fault.name());
    }
    if fault == Some(FileFault::Final503) {
        return failed(shared, 503, "Service Unavailable", None);
    }
    let place = Place { project: &upload.project, base, version, now_ms: shared.now_us() / 1_000 };
    let (file, made): (Value, _) = match shared.files.finalize(&place, upload, taken, settings) {
        Ok(made) => made,
        Err(refusal) => {
            taken.standing = Standing::Cancelled;
            lose(shared, upload, taken.kept);
            return refused(shared, refusal);
        }
    };
    if let Some(fault) = made {
        shared.ledger.books().see_named_fault(fault.name());
    }
    taken.standing = Standing::Final;
    if fault == Some(FileFault::FinalGone) {
        shared.files.forget(&upload.session);
    }
    if fault.is_some() { cut(line) } else { answers::finalized(&json!({ "file": file }), taken.kept) }
}

fn lose(shared: &Shared, upload: &Upload, bytes: u64) {
    shared.files.count(&upload.project, |counts| counts.bytes_lost += bytes);
}

fn failed(shared: &Shared, status: u16, words: &str, standing: Option<&str>) -> Response {
    shared.ledger.books().see_error(&format!("{status} upload"));
    answers::upload_refused(status, words, standing)
}

/// Reads on and throws away: a client that is still writing would see a reset instead of the refusal.
async fn drain(shared: &Shared, request: Request, upload: Option<&Upload>) {
    let mut stream = request.into_body().into_data_stream();
    let mut surplus = 0;
    while let Some(Ok(piece)) = stream.next().await {
        let size = piece.len() as u64;
        if let Some(upload) = upload {
            shared.files.count(&upload.project, |counts| {
                counts.bytes_received += size;
                counts.bytes_lost += size;
            });
        }
        surplus += size;
        if surplus > MOST_SURPLUS {
            return;
        }
    }
}

//! Gemini's Files API: resumable uploads, the files they become, and what can go wrong with either.
//!
//! A file is never kept: its bytes are hashed and measured as they stream in, so a two gigabyte upload costs a few hundred
//! kilobytes of memory. What is kept of it is what the real service tells, and what an answer is made from: two digests, a
//! length, a type. Bytes of a chunk that breaks off count as far as they came, rounded down to what the settings say,
//! since a client must ask for the offset and not guess it. Refusals of a known wording are word for word; those of the
//! upload protocol itself are modelled on Google's other services that speak it (Photos, Street View), whose documents
//! give the headers and not the texts.

mod answers;
mod fault;
mod held;
mod receive;
mod settings;
mod store;
mod taken;
mod wish;

use axum::extract::Request;
use axum::response::Response;
use tokio_util::sync::CancellationToken;

pub use held::FileStats;
pub(crate) use held::{Place, Shown};
pub use settings::{FileFaults, FileSettings, Projects, Scripted};
pub(crate) use store::Store;

use super::Shared;
use super::answer::Refusal;
use super::call;
use super::gemini::errors;
use super::settings::Settings;
use crate::provider::Protocol;

/// Longest JSON body of a start request.
const MAX_START: usize = 64 * 1024;

/// Answers `POST /upload/{version}/files`: a start, or a command on a session.
pub(crate) async fn upload(shared: &Shared, request: Request, cut: CancellationToken, version: &str) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let id = query.split('&').find_map(|pair| pair.strip_prefix("upload_id=")).map(str::to_owned);
    let commands = commands(&request);
    let settings = shared.settings();
    match id {
        Some(id) => receive::command(shared, &settings, request, cut, &id, &commands).await,
        None if commands == ["start"] => match start(shared, &settings, request, &cut, version).await {
            Ok(response) => response,
            Err(refusal) => refused(shared, refusal),
        },
        None => refused(shared, errors::invalid("Invalid upload command: a new upload begins with `start`.")),
    }
}

/// Answers everything below `/{version}/files`.
pub(crate) fn resource(shared: &Shared, request: &Request, version: &str, name: &[&str]) -> Response {
    let settings = shared.settings();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let answered = match project(&settings, request) {
        Err(refusal) => Err(refusal),
        Ok(project) => {
            let store = &shared.files;
            let place = Place { project: &project, base: &base(request), version, now_ms: shared.now_us() / 1_000 };
            match (request.method().as_str(), name) {
                ("GET", []) => store.list(&place, &query, &settings),
                ("GET", [id]) => store.get(&place, id, &settings),
                ("DELETE", [id]) => store.delete(&place, id, &settings),
                _ => Err(errors::invalid("Method not found.")),
            }
        }
    };
    match answered {
        Ok(value) => answers::json(200, &value, &[]),
        Err(refusal) => refused(shared, refusal),
    }
}

async fn start(
    shared: &Shared,
    settings: &Settings,
    request: Request,
    cut: &CancellationToken,
    version: &str,
) -> Result<Response, Refusal> {
    let project = project(settings, &request)?;
    if header(&request, "x-goog-upload-protocol").as_deref() != Some("resumable") {
        return Err(errors::invalid("Unsupported upload protocol: only `resumable` is served."));
    }
    let length = header(&request, "x-goog-upload-header-content-length");
    let mime = header(&request, "x-goog-upload-header-content-type");
    let base = base(&request);
    let body = axum::body::to_bytes(request.into_body(), MAX_START).await;
    let body = body.map_err(|_| errors::invalid("Request payload size exceeds the limit."))?;
    let wish = wish::Wish::read(&body, length.as_deref(), mime.as_deref(), &settings.files)?;
    let place = Place { project: &project, base: &base, version, now_ms: shared.now_us() / 1_000 };
    let (session, fault) = shared.files.begin(&place, wish, settings)?;
    if let Some(fault) = fault {
        shared.ledger.books().see_named_fault(fault.name());
        if fault == fault::FileFault::CutStart {
            return Ok(super::respond::cut(cut));
        }
        return Err(errors::overloaded());
    }
    Ok(answers::started(&base, version, &session, settings.files.granularity))
}

/// The files a generation call may show.
pub(crate) struct View<'a> {
    shared: &'a Shared,
    settings: &'a Settings,
    project: String,
}

impl<'a> View<'a> {
    /// For a call with this key. What the key itself is worth is checked elsewhere.
    pub(crate) fn new(shared: &'a Shared, settings: &'a Settings, key: Option<&str>) -> Self {
        let print = call::check_key(settings, Protocol::Gemini, key).unwrap_or_default();
        Self { shared, settings, project: project_of(settings, key.unwrap_or_default(), print) }
    }

    /// The file of this name. Errors: as the real service refuses one that is unknown, another's, or not active.
    pub(crate) fn show(&self, id: &str) -> Result<Shown, Refusal> {
        let place = Place { project: &self.project, base: "", version: "", now_ms: self.shared.now_us() / 1_000 };
        let (shown, fault) = self.shared.files.show(&place, id, self.settings)?;
        match fault {
            None => Ok(shown),
            Some(fault) => {
                self.shared.ledger.books().see_named_fault(fault.name());
                Err(errors::no_file(id))
            }
        }
    }
}

fn header(request: &Request, name: &str) -> Option<String> {
    request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// The commands of a request, in lower case.
fn commands(request: &Request) -> Vec<String> {
    let header = header(request, "x-goog-upload-command");
    header.unwrap_or_default().split(',').map(|word| word.trim().to_ascii_lowercase()).collect()
}

/// The address the client knows the simulator by.
fn base(request: &Request) -> String {
    format!("http://{}", header(request, "host").as_deref().unwrap_or("localhost"))
}

/// The project of the request's key, or why the key is refused.
fn project(settings: &Settings, request: &Request) -> Result<String, Refusal> {
    let header = request.headers().get("x-goog-api-key").and_then(|value| value.to_str().ok());
    let query = request.uri().query().unwrap_or_default();
    let key = header.or_else(|| query.split('&').find_map(|pair| pair.strip_prefix("key=")));
    let print = call::check_key(settings, Protocol::Gemini, key)?;
    Ok(project_of(settings, key.unwrap_or_default(), print))
}

/// The project a key belongs to: the one the settings name, else one of its own by its fingerprint.
pub(crate) fn project_of(settings: &Settings, key: &str, fingerprint: String) -> String {
    settings.files.projects.0.get(key).cloned().unwrap_or(fingerprint)
}

fn refused(shared: &Shared, refusal: Refusal) -> Response {
    shared.ledger.books().see_error(&format!("{} {}", refusal.status, refusal.kind));
    answers::text(refusal.status, "application/json; charset=UTF-8", refusal.body, &[])
}

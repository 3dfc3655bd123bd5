//! Answers of the upload protocol: their headers say how an upload stands.

use axum::body::Body;
use axum::response::Response;
use serde_json::Value;

const STATUS: &str = "x-goog-upload-status";

/// A new upload: where its bytes go.
pub(super) fn started(base: &str, version: &str, session: &str, granularity: u64) -> Response {
    let url = format!("{base}/upload/{version}/files?upload_id={session}&upload_protocol=resumable");
    let headers = [
        ("x-goog-upload-url", url.clone()),
        ("x-goog-upload-control-url", url),
        ("x-goog-upload-chunk-granularity", granularity.to_string()),
        (STATUS, "active".to_owned()),
    ];
    text(200, "text/plain; charset=utf-8", String::new(), &headers)
}

/// An upload as it stands: `active`, `final` or `cancelled`, and how many bytes are kept.
pub(super) fn standing(status: &str, size: u64) -> Response {
    let headers = [(STATUS, status.to_owned()), ("x-goog-upload-size-received", size.to_string())];
    text(200, "text/plain; charset=utf-8", String::new(), &headers)
}

/// The finalized file.
pub(super) fn finalized(file: &Value, size: u64) -> Response {
    let headers = [(STATUS, "final".to_owned()), ("x-goog-upload-size-received", size.to_string())];
    json(200, file, &headers)
}

/// A refusal of the upload protocol, in plain text as its front end writes it. `status`: how the upload stands, if it does.
pub(super) fn upload_refused(status: u16, words: &str, standing: Option<&str>) -> Response {
    let headers: Vec<_> = standing.map(|standing| (STATUS, standing.to_owned())).into_iter().collect();
    text(status, "text/plain; charset=utf-8", words.to_owned(), &headers)
}

pub(super) fn json(status: u16, value: &Value, headers: &[(&str, String)]) -> Response {
    text(status, "application/json; charset=UTF-8", format!("{value:#}\n"), headers)
}

pub(super) fn text(status: u16, mime: &str, body: String, headers: &[(&str, String)]) -> Response {
    let mut builder = Response::builder().status(status).header("content-type", mime);
    for (name, value) in headers {
        builder = builder.header(*name, value);
    }
    builder.body(Body::from(body)).unwrap_or_else(|_| Response::new(Body::empty()))
}

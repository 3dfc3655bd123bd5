//! What the head of a server's answer means for a source that is fetched: pure, so that it can be tested as a table.
//!
//! RFC 9110, sections 8.8.3 (entity tags), 13 (conditions), 14 (ranges). Only strong tags count: a weak one may name two
//! contents, and half of each would be put together. Dates were rejected as validators for the same reason.

use std::time::Duration;

use reqwest::header::{CONTENT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, LOCATION};

use crate::media::{MediaError, MediaErrorKind};
use crate::provider::{failure, hints};

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked<'a> {
    /// All of it.
    Whole,
    /// All of it, unless it still has this tag.
    IfChanged(&'a str),
    /// What follows this many bytes, if it still has this tag.
    Rest(u64, &'a str),
}

/// What comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Head {
    /// Nothing, as it is the content that is known.
    Unchanged,
    /// The content from its start.
    Whole { etag: Option<String> },
    /// The rest of a content of so many bytes.
    Rest { total: u64 },
}

/// Why nothing comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// Another attempt would end the same.
    Final(MediaError),
    /// It may pass; the server's hint when.
    Again { message: String, hint: Option<Duration> },
    /// What is there does not go on; from the start it may.
    Restart { message: String },
}

/// How a fetch ended.
#[derive(Debug)]
pub(super) enum Got {
    /// It is the content whose tag was given.
    Unchanged,
    /// A content, in the file `data` of the entry, synced.
    Body(Body),
    /// Not at all for now: the server is down.
    Down(Down),
}

/// A server that does not answer, or only with its own failures.
#[derive(Debug)]
pub(super) struct Down {
    pub(super) message: String,
    /// Not to be asked before, by its own account.
    pub(super) hint: Option<Duration>,
}

/// A content that came whole.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) sha256: String,
    pub(super) bytes: u64,
    pub(super) etag: Option<String>,
}

impl Down {
    /// None where waiting helps nobody: a server that is not the one it says.
    pub(super) fn of(message: &str, hint: Option<Duration>) -> Option<Self> {
        (!message.contains("invalid peer certificate")).then(|| Self { message: message.to_owned(), hint })
    }
}

impl Failure {
    pub(super) fn again(message: impl Into<String>) -> Self {
        Self::Again { message: message.into(), hint: None }
    }

    pub(super) fn last(kind: MediaErrorKind, message: impl Into<String>) -> Self {
        Self::Final(MediaError::new(kind, message))
    }
}

/// The meaning of an answer's status and headers.
pub(super) fn judge(status: u16, headers: &HeaderMap, asked: Asked<'_>) -> Result<Head, Failure> {
    match status {
        304 if matches!(asked, Asked::IfChanged(_)) => Ok(Head::Unchanged),
        300..=399 => Err(redirected(status, headers)),
        200 | 206 => body(status, headers, asked),
        _ => Err(meaning(status, "", hints::in_headers(headers))),
    }
}

/// The meaning of a status with which no content comes. `code`: the server's own name for it, or none; `hint`: when it
/// wants to be asked again.
pub(super) fn meaning(status: u16, code: &str, hint: Option<Duration>) -> Failure {
    let code = if code.is_empty() { String::new() } else { format!(", {code}") };
    let told = format!("(status {status}{code})");
    match status {
        401 | 403 | 407 | 451 => Failure::last(MediaErrorKind::Denied, format!("its server refuses it {told}")),
        404 | 410 => Failure::last(MediaErrorKind::NotFound, format!("its server has no such file {told}")),
        416 => Failure::Restart { message: format!("its server has less of it than before {told}") },
        408 | 425 | 429 | 500..=599 => Failure::Again { message: format!("its server fails {told}"), hint },
        400..=499 => Failure::last(MediaErrorKind::Denied, format!("its server takes no such request {told}")),
        _ => Failure::last(MediaErrorKind::Unavailable, format!("its server answers with no file {told}")),
    }
}

/// Where to, without what may be a credential. An address on another host was never allowed.
fn redirected(status: u16, headers: &HeaderMap) -> Failure {
    let target = headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let target = target.split(['?', '#']).next().unwrap_or_default();
    let target =
        target.split_once("://").map_or(target, |(_, rest)| rest.rsplit_once('@').map_or(rest, |(_, rest)| rest));
    let target = if target.is_empty() { String::new() } else { format!(" to {}", failure::words(target)) };
    Failure::last(
        MediaErrorKind::Denied,
        format!(
            "its server redirects{target} (status {status}), and redirects are not followed; name the final address"
        ),
    )
}

fn body(status: u16, headers: &HeaderMap, asked: Asked<'_>) -> Result<Head, Failure> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    if let Some(encoding) = text(CONTENT_ENCODING).filter(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        let message = format!("its server sends it packed ({}), which was not asked for", failure::words(encoding));
        return Err(Failure::last(MediaErrorKind::Denied, message));
    }
    if status == 200 {
        return Ok(Head::Whole { etag: strong(text(ETAG)) });
    }
    part(text(CONTENT_RANGE), text(ETAG), asked)
}

/// The meaning of a part, by its `Content-Range` and its tag.
pub(super) fn part(given: Option<&str>, etag: Option<&str>, asked: Asked<'_>) -> Result<Head, Failure> {
    let Asked::Rest(from, known) = asked else {
        return Err(Failure::again("its server sends a part, where the whole was asked for (status 206)"));
    };
    match given.and_then(range) {
        Some((first, total)) if first == from && strong(etag).is_none_or(|etag| etag == known) => {
            Ok(Head::Rest { total })
        }
        _ => Err(Failure::Restart {
            message: "its server sends another part than was asked for (status 206)".to_owned(),
        }),
    }
}

/// First byte and complete length of `bytes 5-9/10`, if it goes to the end.
fn range(text: &str) -> Option<(u64, u64)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, total): (u64, u64, u64) = (first.parse().ok()?, last.parse().ok()?, total.parse().ok()?);
    (first <= last && last.checked_add(1)? == total).then_some((first, total))
}

/// A tag that names one content only.
pub(super) fn strong(etag: Option<&str>) -> Option<String> {
    etag.filter(|etag| is_strong(etag)).map(str::to_owned)
}

fn is_strong(etag: &str) -> bool {
    let inner = etag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.is_some_and(|inner| etag.len() <= 1024 && inner.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    const REST: Asked<'_> = Asked::Rest(5, "\"a\"");

    #[test]
    fn a_body_is_taken_only_if_it_is_what_was_asked_for() {
        let whole = |etag: Option<&str>| Ok(Head::Whole { etag: etag.map(str::to_owned) });
        let restart = || {
            Err(Failure::Restart { message: "its server sends another part than was asked for (status 206)".into() })
        };
        let part = |range: &'static str| headers(&[("content-range", range)]);
        let part_of = |range: &'static str, etag: &'static str| headers(&[("content-range", range), ("etag", etag)]);
        for (name, status, headers, asked, expected) in [
            ("whole", 200, headers(&[("etag", "\"a\"")]), Asked::Whole, whole(Some("\"a\""))),
            ("a weak tag is none", 200, headers(&[("etag", "W/\"a\"")]), Asked::Whole, whole(None)),
            ("no tag at all", 200, headers(&[("etag", "a\"b")]), Asked::Whole, whole(None)),
            ("identity", 200, headers(&[("content-encoding", "Identity")]), Asked::Whole, whole(None)),
            ("changed", 200, headers(&[("etag", "\"b\"")]), REST, whole(Some("\"b\""))),
            ("not changed", 304, headers(&[]), Asked::IfChanged("\"a\""), Ok(Head::Unchanged)),
            ("the rest", 206, part("bytes 5-9/10"), REST, Ok(Head::Rest { total: 10 })),
            ("the rest, same tag", 206, part_of("bytes 5-9/10", "\"a\""), REST, Ok(Head::Rest { total: 10 })),
            ("the rest of another", 206, part_of("bytes 5-9/10", "\"b\""), REST, restart()),
            ("another part", 206, part("bytes 0-9/10"), REST, restart()),
            ("a short part", 206, part("bytes 5-8/10"), REST, restart()),
            ("an unknown length", 206, part("bytes 5-9/*"), REST, restart()),
            ("an overflow", 206, part("bytes 5-18446744073709551615/0"), REST, restart()),
            ("no range", 206, headers(&[]), REST, restart()),
        ] {
            assert_eq!(judge(status, &headers, asked), expected, "{name}");
        }
    }

    #[test]
    fn what_is_no_body_ends_or_is_asked_again_by_its_status() {
        use MediaErrorKind::{Denied, NotFound, Unavailable};
        for (status, kind) in [
            (301, Some(Denied)),
            (302, Some(Denied)),
            (307, Some(Denied)),
            (308, Some(Denied)),
            (304, Some(Denied)),
            (400, Some(Denied)),
            (401, Some(Denied)),
            (403, Some(Denied)),
            (404, Some(NotFound)),
            (410, Some(NotFound)),
            (204, Some(Unavailable)),
            (408, None),
            (429, None),
            (500, None),
            (503, None),
            (599, None),
            (206, None),
        ] {
            match judge(status, &headers(&[]), Asked::Whole) {
                Err(Failure::Final(error)) => assert_eq!(Some(error.kind), kind, "{status}"),
                Err(Failure::Again { .. }) => assert_eq!(None, kind, "{status}"),
                other => panic!("{status}: {other:?}"),
            }
        }
        let hinted = judge(503, &headers(&[("retry-after", "7")]), Asked::Whole).unwrap_err();
        assert!(
            matches!(hinted, Failure::Again { hint: Some(hint), .. } if hint == Duration::from_secs(7)),
            "{hinted:?}"
        );
        assert!(matches!(judge(416, &headers(&[]), REST), Err(Failure::Restart { .. })));
    }

    #[test]
    fn a_packed_body_and_a_redirect_are_refused_without_their_secrets() {
        let packed = judge(200, &headers(&[("content-encoding", "gzip")]), Asked::Whole).unwrap_err();
        assert!(matches!(&packed, Failure::Final(error) if error.message.contains("gzip")), "{packed:?}");
        let location = [("location", "https://user:word@inner.example/a?token=sesame")];
        let Err(Failure::Final(error)) = judge(302, &headers(&location), Asked::Whole) else { panic!() };
        assert!(error.message.contains("redirects to inner.example/a (status 302)"), "{error}");
        assert!(!error.message.contains("sesame") && !error.message.contains("word"), "{error}");
    }
}

//! An `https://` URL, read so strictly that everybody who reads it reads the same.
//!
//! Two parsers that disagree about where the host is are how a check is passed and another host asked. So the text must
//! already be in the plain form that the WHATWG parser (the one that connects) would give it: small ASCII, a host as
//! written, no user name, no backslash, no fragment. Whatever needs interpreting is refused with what is wrong with it, not
//! repaired.

use std::fmt;
use std::net::IpAddr;

use reqwest::Url;

use super::address::{Reach, name_refusal, refusal};
use crate::media::{MediaError, MediaErrorKind};

/// A URL in plain form. Its query may be a credential: neither `Debug` nor any message shows it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct WebUrl {
    url: Url,
    /// In small letters; an IPv6 address without brackets.
    host: String,
    port: u16,
}

impl fmt::Debug for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.place())
    }
}

impl WebUrl {
    /// Reads a URL. Errors: [`MediaErrorKind::Denied`] with what is not plain about it.
    pub(crate) fn read(text: &str) -> Result<Self, MediaError> {
        let rest = text.get(8..).filter(|_| text[..8].eq_ignore_ascii_case("https://"));
        let rest = rest.ok_or_else(|| denied("is not of the form https://host/path"))?;
        if let Some(odd) = text.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(denied(format!("holds {odd:?}, which no URL may; write it in percent codes")));
        }
        if text.contains('\\') {
            return Err(denied("holds a backslash, which some take for a slash"));
        }
        if text.contains('#') {
            return Err(denied("has a fragment (#), which names no file; leave it out"));
        }
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(denied("has a user name before its host (@); credentials do not belong in URLs"));
        }
        if authority.contains('%') {
            return Err(denied("has a host in percent codes; write the host itself"));
        }
        if authority.is_empty() || authority.starts_with(':') {
            return Err(denied("has no host"));
        }
        let url = Url::parse(text).map_err(|error| denied(format!("is not a URL ({error})")))?;
        let (written, port) = split_port(authority)?;
        let written = written.to_ascii_lowercase();
        if url.host_str() != Some(&written) {
            let canonical = url.host_str().unwrap_or_default();
            return Err(denied(format!("has a host that is not in plain form; it stands for {canonical}")));
        }
        if written.ends_with('.') {
            return Err(denied("has a dot behind its host; leave it out"));
        }
        if steps_upwards(url.path()) {
            return Err(denied("has a path with steps upwards (..)"));
        }
        let host = written.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { url, host, port })
    }

    /// What is connected to, for messages and settings: `host`, or `host:port` where it is not 443.
    pub(crate) fn place(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        if self.port == 443 { host.to_owned() } else { format!("{host}:{}", self.port) }
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The address, where the host is written as one.
    pub(crate) fn literal(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// A name for this URL that tells nothing of it.
    pub(crate) fn digest(&self) -> String {
        digest(self.url.as_str())
    }

    /// Fails if the host, as it is written, lies inside. What a name resolves to is judged when it is resolved.
    pub(crate) fn check_host(&self, reach: Reach) -> Result<(), MediaError> {
        let what = match self.literal() {
            Some(address) => refusal(address, reach).map(|what| format!("is {what}")),
            None if reach == Reach::Private => None,
            None => name_refusal(&self.host).map(str::to_owned),
        };
        what.map_or(Ok(()), |what| Err(inside(&self.place(), &what)))
    }
}

/// A name for a text that tells nothing of it.
pub(super) fn digest(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..32].to_owned()
}

/// A host that may not be asked since of where it is.
pub(crate) fn inside(place: &str, what: &str) -> MediaError {
    let named = if place.contains(':') && !place.ends_with(']') { place.to_owned() } else { format!("{place}:443") };
    denied(format!(
        "its host {place} {what}; only public hosts are asked, and those of your own that are named in [store] \
         private_hosts ({named:?})"
    ))
}

fn denied(message: impl Into<String>) -> MediaError {
    MediaError::new(MediaErrorKind::Denied, message)
}

/// Host and port of an authority; the port in plain decimal.
fn split_port(authority: &str) -> Result<(&str, u16), MediaError> {
    let after_bracket = authority.rfind(']').map_or(0, |at| at + 1);
    let Some(colon) = authority[after_bracket..].find(':') else {
        return Ok((authority, 443));
    };
    let (host, port) = authority.split_at(after_bracket + colon);
    let port = &port[1..];
    let plain = port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0');
    match port.parse() {
        Ok(port) if plain => Ok((host, port)),
        _ => Err(denied("has a port that is not a number from 1 to 65535")),
    }
}

/// A server may decode what looks harmless to a check of prefixes: no step upwards in any number of percent codes.
pub(super) fn steps_upwards(path: &str) -> bool {
    let mut text = path.to_owned();
    for _ in 0..4 {
        if text.split(['/', '\\']).any(|segment| matches!(segment, "." | ".." | "..;")) {
            return true;
        }
        text = decoded(&text);
    }
    false
}

/// Percent codes of ASCII decoded once; all else is left.
fn decoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 3).and_then(|code| u8::from_str_radix(code, 16).ok());
        if let Some(byte) = code.filter(u8::is_ascii) {
            out.push(char::from(byte));
            rest = &rest[at + 3..];
        } else {
            out.push('%');
            rest = &rest[at + 1..];
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_url_is_taken_apart() {
        for (text, host, port, place) in [
            ("https://media.example.org/a.mp4?sig=x", "media.example.org", 443, "media.example.org"),
            ("HTTPS://Media.Example.org/a.mp4", "media.example.org", 443, "media.example.org"),
            ("https://example.org:8443", "example.org", 8443, "example.org:8443"),
            ("https://8.8.8.8:443/a", "8.8.8.8", 443, "8.8.8.8"),
            ("https://[2606:4700::1111]:8443/a", "2606:4700::1111", 8443, "[2606:4700::1111]:8443"),
            ("https://example.org/%C3%BC/a%2Fb.mp4?x=..", "example.org", 443, "example.org"),
        ] {
            let url = WebUrl::read(text).unwrap();
            assert_eq!((url.host(), url.port(), &*url.place()), (host, port, place), "{text}");
        }
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for (text, words) in [
            ("https://good.org@evil.org/", "user name"),
            ("https://good.org:443@evil.org/", "user name"),
            ("https://u:p@good.org/", "user name"),
            ("https://good.org\\@evil.org/", "backslash"),
            ("https://evil.org\\.good.org/", "backslash"),
            ("https://good.org#@evil.org/", "fragment"),
            ("https://evil.org/#good.org", "fragment"),
            ("https://go\tod.org/", "'\\t'"),
            ("https://good.org/\r\nHost: x", "'\\r'"),
            (" https://good.org/", "form"),
            ("https://go od.org/", "' '"),
            ("https://ⓖood.org/", "which no URL may"),
            ("https://１２７.0.0.1/", "which no URL may"),
            ("https://good。org/", "which no URL may"),
            ("https://%31%32%37.0.0.1/", "percent codes"),
            ("https://127.1/", "it stands for 127.0.0.1"),
            ("https://2130706433/", "it stands for 127.0.0.1"),
            ("https://0x7f.1/", "it stands for 127.0.0.1"),
            ("https://0x7f000001/", "it stands for 127.0.0.1"),
            ("https://017700000001/", "it stands for 127.0.0.1"),
            ("https://0177.0.0.01/", "it stands for 127.0.0.1"),
            ("https://127.0.0.1./", "it stands for 127.0.0.1"),
            ("https://[0:0:0:0:0:0:0:1]/", "it stands for [::1]"),
            ("https://[::127.0.0.1]/", "it stands for [::7f00:1]"),
            ("https://[fe80::1%25eth0]/", "percent codes"),
            ("https://999.1.1.1/", "not a URL"),
            ("https://good.org./a", "dot behind"),
            ("https:///a", "no host"),
            ("https://:443/a", "no host"),
            ("https://", "no host"),
            ("https://good.org:/a", "port"),
            ("https://good.org:0/a", "port"),
            ("https://good.org:0443/a", "port"),
            ("https://good.org:65536/a", "port"),
            ("https://good.org:443:8443/a", "port"),
            ("https://good.org:+443/a", "port"),
            ("http://good.org/a", "form"),
            ("https:/good.org/a", "form"),
            ("https://good.org/a/%2e%2e%2fb", "upwards"),
            ("https://good.org/a/..%2fb", "upwards"),
            ("https://good.org/a/%252e%252e%252fb", "upwards"),
            ("https://good.org/a/..%5cb", "upwards"),
        ] {
            let error = WebUrl::read(text).unwrap_err();
            assert_eq!(error.kind, MediaErrorKind::Denied, "{text}");
            assert!(error.message.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn no_message_shows_a_query() {
        for text in ["https://good.org/a?sig=sesame", "https://u@good.org/?sig=sesame", "https://127.1/?sig=sesame"] {
            let shown = WebUrl::read(text).map_or_else(|error| error.to_string(), |url| format!("{url:?}"));
            assert!(!shown.contains("sesame"), "{shown}");
        }
    }
}

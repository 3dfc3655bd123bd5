//! `[providers.NAME]`: where models are, and the keys to them.
//!
//! Keys are read here and nowhere else, straight into a type that does not print them. A setting names a variable or a
//! file, never a key: configuration is shown, copied and committed. What is not the name of a variable is therefore
//! refused without being repeated, as it may be a key that was pasted in the wrong place. `api_key_env` is one setting
//! with alternatives inside (`A|B`) rather than a list and a fallback list: overriding it replaces the whole rule, and no
//! key of another account is picked up behind the user's back.

use std::collections::BTreeMap;

use reqwest::Url;

use super::keys;
use super::prices::PROTOCOLS;
use super::read::{Located, Section};
use super::tree::{Node, Table, Value};
use crate::price::protocol_name;
use crate::provider::credentials::Credential;
use crate::provider::{Endpoint, Protocol, VideoWay};
use crate::upload::Bounds;

/// A provider and the keys found for it.
#[derive(Debug, Clone)]
pub struct ProviderSection {
    /// Where it is and what it speaks.
    pub endpoint: Endpoint,
    /// The keys, each an account of its own; empty when none is set.
    pub credentials: Vec<Credential>,
    /// Where keys were looked for, to tell the user when there are none. Empty: it is asked without a key.
    pub key_sources: Vec<String>,
    /// Bounds of uploads.
    pub uploads: Bounds,
}

pub(super) fn read(
    root: &mut Section<'_>,
    defaults: &Table,
    env: &[(String, String)],
) -> BTreeMap<String, ProviderSection> {
    let mut providers = BTreeMap::new();
    for (name, mut section) in root.sections("providers") {
        if !is_name(&name) {
            let message = "is not a provider's name: use small letters, digits, - and _, a letter first, 64 at most";
            section.sink.mistake(&section.path, None, &section.origin, message);
        }
        let protocol = section.choice("kind", &PROTOCOLS);
        for key in ["base_url", "api_version"] {
            if let Some(node) = protocol.and_then(|protocol| default_of(defaults, protocol, key)) {
                section.insert(key, node);
            }
        }
        for key in ["video", "inline_mib", "upload_deadline_seconds", "storage_gb"] {
            if let Some(node) = default_of(defaults, protocol.unwrap_or(Protocol::Openai), key) {
                section.insert(key, node);
            }
        }
        // A provider without a kind is kept, so that its limits are not mistakes as well.
        let endpoint = endpoint(&mut section, name.clone(), protocol.unwrap_or(Protocol::Openai));
        let uploads = Bounds {
            deadline: section.seconds("upload_deadline_seconds", 1.0..=172_800.0),
            storage_bytes: gigabytes(&mut section, "storage_gb"),
        };
        let (credentials, key_sources) = keys::read(&mut section, env);
        warn_of_plain_http(&section, &endpoint, &credentials);
        providers.insert(name, ProviderSection { endpoint, credentials, key_sources, uploads });
        section.finish();
    }
    providers
}

fn endpoint(section: &mut Section<'_>, name: String, protocol: Protocol) -> Endpoint {
    let base = base_url(section);
    let api_version = section.optional_text("api_version").map(|text| text.value).unwrap_or_default();
    let segment = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if !segment(&api_version) || (api_version.is_empty() && protocol == Protocol::Gemini) {
        let message = "is not one path segment: write for example \"v1beta\"";
        section.sink.conflict(&section.key("api_version"), message);
    }
    let set = section.unshown_text("identity").filter(|identity| !identity.value.is_empty());
    let mut endpoint = Endpoint {
        name,
        protocol,
        base_url: String::new(),
        api_version,
        identity: String::new(),
        video: video(section, protocol),
        inline_bytes: section.whole("inline_mib", 0..=64) << 20,
    };
    if let Some(base) = base {
        warn_of_version(section, &base.value, &endpoint);
        section.sink.entry(section.key("base_url"), format!("{:?}", trimmed(&base.value)), &base.origin);
        endpoint.base_url = trimmed(&base.value);
        let identity = set.unwrap_or_else(|| Located { value: origin_of(&base.value), origin: base.origin });
        section.sink.entry(section.key("identity"), format!("{:?}", identity.value), &identity.origin);
        endpoint.identity = identity.value;
    }
    endpoint
}

/// Bytes of a number of GB; fractions are allowed.
fn gigabytes(section: &mut Section<'_>, name: &'static str) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is far below 2^52 bytes")]
    section.optional_number(name, &(0.000_001..=100_000.0)).map_or(0, |gb| (gb * 1e9) as u64)
}

fn video(section: &mut Section<'_>, protocol: Protocol) -> VideoWay {
    const WAYS: [(&str, VideoWay); 4] =
        [("none", VideoWay::None), ("inline", VideoWay::Inline), ("url", VideoWay::Url), ("upload", VideoWay::Upload)];
    let way = section.choice("video", &WAYS).unwrap_or(VideoWay::None);
    if way == VideoWay::Upload && protocol != Protocol::Gemini {
        let message =
            "is only for kind \"gemini\": write \"inline\", or \"url\" for a server that fetches https addresses";
        section.sink.conflict(&section.key("video"), message);
    }
    way
}

/// The base URL, if it is one. What is wrong with it is said without repeating it: it may hold a password.
fn base_url(section: &mut Section<'_>) -> Option<Located<Url>> {
    let key = section.key("base_url");
    let Some(text) = section.unshown_text("base_url") else {
        if !section.sink.blames(&key) && !section.sink.blames(&section.key("kind")) {
            section.sink.mistake(&key, None, &section.origin, "is missing; set it");
        }
        return None;
    };
    let refuse = |message: &str| {
        section.sink.mistake(&key, None, &text.origin, message);
        None
    };
    let Ok(url) = Url::parse(text.value.trim()) else {
        return refuse("is not a URL: write for example \"https://host/v1\"");
    };
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return refuse("must begin with https:// or http:// and name a host");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("holds a user name or password: secrets do not belong in URLs; use api_key_env or api_key_file");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refuse("has a query or fragment: leave out everything from ? or # on; keys belong in api_key_env");
    }
    Some(Located { value: url, origin: text.origin })
}

/// Scheme, host and port, the port also where it is the scheme's own.
fn origin_of(url: &Url) -> String {
    let port = url.port_or_known_default().map_or_else(String::new, |port| format!(":{port}"));
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
}

fn trimmed(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

fn default_of(defaults: &Table, protocol: Protocol, key: &str) -> Option<Node> {
    let inner = |table: &Table, name: &str| match &table.get(name)?.value {
        Value::Table(inner) => Some(inner.clone()),
        _ => None,
    };
    inner(&inner(defaults, "providers")?, protocol_name(protocol))?.get(key).cloned()
}

fn warn_of_version(section: &Section<'_>, url: &Url, endpoint: &Endpoint) {
    let path = url.path().trim_end_matches('/');
    let last = path.rsplit('/').next().unwrap_or_default();
    let warning = match endpoint.protocol {
        Protocol::Gemini if !last.is_empty() && last == endpoint.api_version => {
            format!("ends in {last:?}, which api_version adds once more: leave it out")
        }
        Protocol::Openai if path.is_empty() => "has no path: most servers expect /v1 at its end".to_owned(),
        Protocol::Gemini | Protocol::Openai => return,
    };
    section.sink.warning(format!("{} {warning}", section.key("base_url")));
}

fn warn_of_plain_http(section: &Section<'_>, endpoint: &Endpoint, credentials: &[Credential]) {
    let Ok(url) = Url::parse(&endpoint.base_url) else {
        return;
    };
    let host = url.host_str().unwrap_or_default();
    let local = host == "localhost" || host == "[::1]" || host.starts_with("127.");
    if url.scheme() == "http" && !local && !credentials.is_empty() {
        section.sink.warning(format!(
            "{} is plain http: the key of {} travels unencrypted",
            section.key("base_url"),
            endpoint.name
        ));
    }
}

fn is_name(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    name.len() <= 64 && name.bytes().all(letter) && name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase())
}

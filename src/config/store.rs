//! `[store]`: what sources may be read, and how patient a fetch is.
//!
//! Attempts and waits are those of `[retry]` and trust is that of `[http]`, as nobody would want two of them.

use super::read::Section;
use super::sections::{RetrySection, YEAR};
use crate::media::{Lookup, Store};
use crate::provider::HttpSettings;
use crate::retry::Policy;

pub(super) fn read(root: &mut Section<'_>, retry: &RetrySection, http: &HttpSettings) -> Store {
    let mut section = root.section("store");
    let store = Store {
        allow: each(&mut section, "allow", str::parse),
        private_hosts: each(&mut section, "private_hosts", Store::private_host),
        connect: section.seconds("connect_seconds", 0.001..=3600.0),
        first_byte: section.seconds("first_byte_seconds", 0.001..=86_400.0),
        idle: section.seconds("idle_seconds", 0.001..=86_400.0),
        total: section.seconds("total_seconds", 0.001..=YEAR),
        outage: section.seconds("outage_seconds", 0.0..=YEAR),
        downloads: section.whole32("downloads", 1..=4096) as usize,
        policy: Policy { attempts: retry.attempts, base: retry.base, max: retry.max },
        extra_ca_file: http.extra_ca_file.clone(),
        lookup: Lookup::System,
        #[cfg(feature = "fleet")]
        s3: None,
    };
    let parts =
        [("connect_seconds", store.connect), ("first_byte_seconds", store.first_byte), ("idle_seconds", store.idle)];
    for (name, _) in parts.into_iter().filter(|(_, part)| *part > store.total) {
        section.sink.out_of_order(&section.key(name), "store.total_seconds");
    }
    section.finish();
    store
}

/// A list of words that are shown once they are judged: a URL with a credential in it is not.
fn each<T>(section: &mut Section<'_>, name: &'static str, read: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
    let key = section.key(name);
    let Some(words) = section.unshown_texts(name) else {
        section.sink.mistake(&key, None, &section.origin, "is missing; set it");
        return Vec::new();
    };
    let mut all = Vec::new();
    for (number, word) in words.value.iter().enumerate() {
        match read(word) {
            Ok(value) => all.push(value),
            Err(error) => {
                section.sink.mistake(&key, None, &words.origin, format!("entry {} {error}", number + 1));
            }
        }
    }
    if all.len() == words.value.len() {
        section.sink.entry(key, format!("{:?}", words.value), &words.origin);
    }
    all
}

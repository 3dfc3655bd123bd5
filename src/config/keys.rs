//! API keys: found by name, kept out of sight.
//!
//! A key is never part of a message: what is wrong with one is said by its label, the variable or the line of the file
//! it came from.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::read::{Located, Section};
use super::sink::Sink;
use super::tree::{Origin, beside};
use crate::provider::credentials::Credential;

/// A key file is smaller than this, in bytes.
const MOST_BYTES: u64 = 1 << 20;
/// A key is shorter than this, in bytes: longer ones do not fit into a request header.
const MOST_KEY_BYTES: usize = 4096;

/// The keys of one provider, and where they were looked for.
pub(super) fn read(section: &mut Section<'_>, env: &[(String, String)]) -> (Vec<Credential>, Vec<String>) {
    let mut found = Found { section: section.path.clone(), sink: section.sink, credentials: Vec::new() };
    let mut sources = Vec::new();
    if let Some(names) = section.unshown_texts("api_key_env") {
        from_environment(&mut found, &names, env, &mut sources);
    }
    let file = section.unshown_text("api_key_file");
    if let Some(file) = file {
        section.sink.entry(section.key("api_key_file"), format!("{:?}", file.value), &file.origin);
        if !file.value.trim().is_empty() {
            let path = beside(&file.origin, file.value.trim());
            sources.push(path.display().to_string());
            from_file(&mut found, &path, &file.origin);
        }
    }
    (found.credentials, sources)
}

struct Found<'a> {
    section: String,
    sink: &'a Sink,
    credentials: Vec<Credential>,
}

impl Found<'_> {
    /// Adds a key, unless it cannot be one.
    fn add(&mut self, label: &str, key: &str, origin: &Origin) {
        let credential = Credential::new(label, key);
        let secret = credential.expose();
        let wrong = if secret.bytes().any(|byte| !(b' '..=b'~').contains(&byte)) {
            "has a control character or a letter outside ASCII, which no header can carry"
        } else if secret.len() > MOST_KEY_BYTES {
            "is too long for a key"
        } else {
            if let Some(twin) = self.credentials.iter().find(|known| known.expose() == secret) {
                let message =
                    format!("{}: {label} holds the same key as {}; it is used once", self.section, twin.label);
                return self.sink.warning(message);
            }
            self.sink.entry(
                format!("{}.credentials[{}]", self.section, self.credentials.len()),
                format!("{label} (hidden)"),
                origin,
            );
            return self.credentials.push(credential);
        };
        let message = format!("the key of {label} {wrong}: copy it again");
        self.sink.mistake(&self.section, None, origin, message);
    }
}

fn from_environment(
    found: &mut Found<'_>,
    names: &Located<Vec<String>>,
    env: &[(String, String)],
    sources: &mut Vec<String>,
) {
    let key = format!("{}.api_key_env", found.section);
    let entries = || names.value.iter().filter(|entry| !entry.trim().is_empty());
    if !entries().all(|entry| entry.split('|').all(|name| is_variable(name.trim()))) {
        let message = "does not hold names of variables (capital letters, digits and _), and is not shown, as it may be a key: \
                       put the key into a variable or into api_key_file, and name that here";
        return found.sink.mistake(&key, None, &names.origin, message);
    }
    found.sink.entry(key, format!("{:?}", names.value), &names.origin);
    for entry in entries() {
        let mut alternatives = entry.split('|').map(str::trim);
        sources.extend(alternatives.clone().map(str::to_owned));
        let set = |name| env.iter().find(|(known, value)| known == name && !value.trim().is_empty());
        if let Some((name, value)) = alternatives.find_map(set) {
            found.add(name, value, &Origin::Environment(name.clone()));
        }
    }
}

fn from_file(found: &mut Found<'_>, path: &Path, origin: &Origin) {
    let key = format!("{}.api_key_file", found.section);
    let shown = path.display();
    let text = match read_text(path) {
        Ok(text) => text,
        Err(error) => {
            let message = format!("cannot read {shown}: {error}; correct the path, or leave it empty");
            return found.sink.mistake(&key, None, origin, message);
        }
    };
    warn_if_readable_by_all(found.sink, path);
    let mut any = false;
    let name = path.file_name().map_or_else(|| shown.to_string(), |name| name.to_string_lossy().into_owned());
    for (at, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        any = true;
        found.add(&format!("{name}:{}", at + 1), line, &Origin::File(path.into(), at + 1));
    }
    if !any {
        found.sink.mistake(&key, None, origin, format!("{shown} holds no key: write one per line"));
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let file = File::open(path).map_err(|error| error.kind().to_string())?;
    let meta = file.metadata().map_err(|error| error.kind().to_string())?;
    if meta.is_dir() {
        return Err("it is a directory".to_owned());
    }
    let mut text = String::new();
    let read = file.take(MOST_BYTES).read_to_string(&mut text).map_err(|error| error.kind().to_string())?;
    if u64::try_from(read).is_ok_and(|read| read >= MOST_BYTES) {
        return Err("it is too large for a file of keys".to_owned());
    }
    Ok(text.trim_start_matches('\u{feff}').to_owned())
}

#[cfg(unix)]
fn warn_if_readable_by_all(sink: &Sink, path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if let Ok(meta) = std::fs::metadata(path)
        && meta.permissions().mode() & 0o004 != 0
    {
        sink.warning(format!("{} can be read by every user of this machine: chmod 600 it", path.display()));
    }
}

#[cfg(not(unix))]
fn warn_if_readable_by_all(_: &Sink, _: &Path) {}

/// Capitals only: keys of all providers have small letters or other characters in them.
fn is_variable(name: &str) -> bool {
    name.len() <= 128
        && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
        && name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit())
}

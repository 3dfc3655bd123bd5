//! An `s3://bucket/key` address, read so strictly that it means the same to S3 and to everything that speaks its protocol.
//!
//! To S3 a key is only a name: `a/../b` is an object of that name. Proxies and servers that keep objects as files take it
//! for a path and step upwards, so a key that could leave its prefix anywhere is refused, not repaired. The key is taken
//! as written, without percent codes, as the tools of S3 do.

use std::fmt;

use super::web::steps_upwards;
use crate::media::{MediaError, MediaErrorKind};

/// The most bytes that a key has.
const LONGEST_KEY: usize = 1024;

/// An object of a bucket.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Object {
    bucket: String,
    key: String,
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place())
    }
}

impl Object {
    /// Reads an address. Errors: [`MediaErrorKind::Denied`] with what is not plain about it.
    pub(crate) fn read(text: &str) -> Result<Self, MediaError> {
        let (bucket, key) = split(text).map_err(denied)?;
        if key.is_empty() || key.ends_with('/') {
            return Err(denied("names no object; write s3://bucket/key"));
        }
        Ok(Self { bucket: bucket.to_owned(), key: key.to_owned() })
    }

    pub(super) fn bucket(&self) -> &str {
        &self.bucket
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// The bucket, as messages name it.
    pub(super) fn place(&self) -> String {
        format!("s3://{}", self.bucket)
    }

    /// The narrowest prefix of whole segments that this object is in.
    pub(super) fn folder(&self) -> String {
        let folder = self.key.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
        format!("s3://{}/{folder}", self.bucket)
    }
}

/// Bucket and prefix of an entry of `[store] allow`; the prefix has no slash at its end. Errors: what to write.
pub(super) fn prefix(text: &str) -> Result<(String, String), String> {
    let (bucket, key) = split(text)?;
    Ok((bucket.to_owned(), key.trim_end_matches('/').to_owned()))
}

/// Bucket and key, both in plain form.
fn split(text: &str) -> Result<(&str, &str), String> {
    let rest = text.get(5..).filter(|_| text[..5].eq_ignore_ascii_case("s3://"));
    let rest = rest.ok_or("is not of the form s3://bucket/key")?;
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.contains('@') {
        return Err("has a user name before its bucket (@); credentials do not belong in URIs".to_owned());
    }
    check_bucket(bucket)?;
    check_key(key)?;
    Ok((bucket, key))
}

/// A bucket's name becomes part of a host: only what S3 itself calls a name, so that it leads to no other host.
fn check_bucket(bucket: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = bucket.bytes().next().is_some_and(plain) && bucket.bytes().last().is_some_and(plain);
    let all = bucket.bytes().all(|byte| plain(byte) || byte == b'-' || byte == b'.');
    if (3..=63).contains(&bucket.len()) && ends && all && !bucket.contains("..") {
        return Ok(());
    }
    Err("has a bucket that is no name: 3 to 63 small letters, digits, dots and hyphens".to_owned())
}

fn check_key(key: &str) -> Result<(), String> {
    if key.len() > LONGEST_KEY {
        return Err(format!("has a key of {} bytes, more than {LONGEST_KEY}", key.len()));
    }
    if let Some(odd) = key.chars().find(|c| c.is_control() || *c == '\\') {
        return Err(format!("has {odd:?} in its key, which some take for something else; name the object otherwise"));
    }
    if let Some(mark) = key.chars().find(|c| matches!(c, '?' | '#')) {
        return Err(format!(
            "has a query or fragment ({mark}); name the object alone, access is the credentials' matter"
        ));
    }
    if key.starts_with('/') || key.contains("//") {
        return Err("has an empty part in its key (//), which some leave out; name the object otherwise".to_owned());
    }
    if steps_upwards(key) {
        return Err("has a key with steps upwards (..)".to_owned());
    }
    Ok(())
}

fn denied(message: impl Into<String>) -> MediaError {
    MediaError::new(MediaErrorKind::Denied, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart_and_its_key_kept_as_written() {
        for (text, bucket, key, folder) in [
            ("s3://clips/a.mp4", "clips", "a.mp4", "s3://clips/"),
            ("S3://my.clips-1/x/y z%20+ü.mp4", "my.clips-1", "x/y z%20+ü.mp4", "s3://my.clips-1/x/"),
            ("s3://clips/a..b/...mp4", "clips", "a..b/...mp4", "s3://clips/a..b/"),
        ] {
            let object = Object::read(text).unwrap();
            assert_eq!((object.bucket(), object.key(), &*object.folder()), (bucket, key, folder), "{text}");
        }
    }

    #[test]
    fn what_could_lead_elsewhere_is_refused_without_its_secrets() {
        for (text, words) in [
            ("s3:/clips/a", "form"),
            ("s3:clips/a", "form"),
            (" s3://clips/a", "form"),
            ("s3://", "no name"),
            ("s3:///a", "no name"),
            ("s3://ab/a", "no name"),
            ("s3://Clips/a", "no name"),
            ("s3://clips.evil.org:80/a", "no name"),
            ("s3://clips%2f/a", "no name"),
            ("s3://clips..x/a", "no name"),
            ("s3://-clips/a", "no name"),
            ("s3://arn:aws:s3:::clips/a", "no name"),
            ("s3://AKIA:sesame@clips/a", "user name"),
            ("s3://clips", "no object"),
            ("s3://clips/", "no object"),
            ("s3://clips/a/", "no object"),
            ("s3://clips//a", "empty part"),
            ("s3://clips/a//b", "empty part"),
            ("s3://clips/a/../b", "upwards"),
            ("s3://clips/./b", "upwards"),
            ("s3://clips/..", "upwards"),
            ("s3://clips/a/%2e%2e/b", "upwards"),
            ("s3://clips/a/%252e%252e%252fb", "upwards"),
            ("s3://clips/a\\..\\b", "'\\\\'"),
            ("s3://clips/a\nb", "'\\n'"),
            ("s3://clips/a?X-Amz-Signature=sesame", "query"),
            ("s3://clips/a#sesame", "query or fragment"),
        ] {
            let error = Object::read(text).unwrap_err();
            assert_eq!(error.kind, MediaErrorKind::Denied, "{text}");
            assert!(error.message.contains(words) && !error.message.contains("sesame"), "{text}: {error}");
        }
        assert!(Object::read(&format!("s3://clips/{}", "x".repeat(1025))).is_err());
    }
}

//! Reads a corpus of JSON lines, one item at a time.
//!
//! Memory does not grow with the file: one line is held, and never more than [`MAX_LINE`] bytes of it. A bad line is a
//! result with its number and reason, and the rest goes on; only a file that cannot be read on ends the reading, as an
//! error of its own kind, because a corpus cut short must not look like a finished one. Plain blocking iterator: one
//! thread reads faster than any fleet can ask, and async file reading would only hide the same thread.
//!
//! A relative path is resolved against the corpus file's folder, so a corpus and its clips move together. What carries
//! a scheme (`s3://`, or a mistaken `C:`) is left as it is for the media stores to take or to refuse by name.

#[cfg(feature = "fleet")]
mod cells;
#[cfg(feature = "fleet")]
mod csv;
mod lines;
#[cfg(feature = "fleet")]
mod parquet;
#[cfg(feature = "fleet")]
mod prefix;
#[cfg(feature = "fleet")]
pub mod reader;

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use crate::job::Item;
use lines::{Lines, Raw};

/// Most bytes of one line; a longer one is reported and skipped.
pub const MAX_LINE: usize = 1024 * 1024;

/// One line of a corpus that was not blank.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Counted from 1, blank lines included.
    pub number: u64,
    /// The item, or what is wrong with the line.
    pub result: Result<Item, String>,
}

/// The lines of one corpus.
#[derive(Debug)]
pub struct Corpus<R> {
    lines: Lines<R>,
    folder: String,
    failed: bool,
}

impl Corpus<BufReader<File>> {
    /// Opens a corpus file.
    ///
    /// # Errors
    /// The file cannot be opened, or its folder's name is not UTF-8 (paths travel as JSON).
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a folder, not a file of JSON lines"));
        }
        let folder = folder(path)?;
        Ok(Self::new(BufReader::with_capacity(64 * 1024, file), &folder))
    }
}

/// What relative paths in a corpus are relative to.
fn folder(path: &Path) -> io::Result<String> {
    let absolute = std::path::absolute(path)?;
    let folder = absolute.parent().unwrap_or(&absolute).to_str();
    folder
        .map(str::to_owned)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "its folder's name is not UTF-8"))
}

impl<R: BufRead> Corpus<R> {
    /// Reads from `reader`; relative paths are taken to lie in `folder`.
    pub fn new(reader: R, folder: &str) -> Self {
        Self { lines: Lines::new(reader, MAX_LINE), folder: folder.to_owned(), failed: false }
    }
}

impl<R: BufRead> Iterator for Corpus<R> {
    type Item = io::Result<Line>;

    /// The next line that is not blank. After an `Err` there is none.
    fn next(&mut self) -> Option<io::Result<Line>> {
        if self.failed {
            return None;
        }
        let (number, raw) = match self.lines.next_line().transpose()? {
            Ok(line) => line,
            Err(error) => {
                self.failed = true;
                return Some(Err(error));
            }
        };
        let result = match raw {
            Raw::TooLong(bytes) => Err(format!("the line has {bytes} bytes, more than {MAX_LINE}")),
            Raw::Text(bytes) => item(bytes, &self.folder),
        };
        Some(Ok(Line { number, result }))
    }
}

fn item(bytes: &[u8], folder: &str) -> Result<Item, String> {
    let line = str::from_utf8(bytes)
        .map_err(|error| format!("the line is not UTF-8 from byte {}", error.valid_up_to() + 1))?;
    let mut item = Item::from_line(line)?;
    resolve(&mut item, folder);
    Ok(item)
}

/// Resolves the relative paths of an item against a folder. Absolute paths and URIs with a scheme stay.
pub fn resolve(item: &mut Item, folder: &str) {
    for medium in &mut item.media {
        if is_relative(&medium.uri) {
            medium.resolved = Some(format!("{}/{}", folder.trim_end_matches('/'), medium.uri));
        }
    }
}

/// Whether a URI is a path without a root. A scheme is a letter and then letters, digits, `+`, `-` or `.` up to a colon
/// (RFC 3986, section 3.1); a file whose name looks so can be written as `./name`.
fn is_relative(uri: &str) -> bool {
    if uri.starts_with(['/', '\\']) {
        return false;
    }
    let Some((scheme, _)) = uri.split_once(':') else {
        return true;
    };
    let tail = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    !(scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Vec<Line> {
        Corpus::new(bytes, "/data").map(Result::unwrap).collect()
    }

    fn reason(line: &Line) -> &str {
        line.result.as_ref().unwrap_err()
    }

    #[test]
    fn a_bad_line_is_reported_by_number_and_the_rest_goes_on() {
        let text = "{\"video\":\"a.mp4\",\"query\":\"x\"}\n\nnot json\n[1]\n{\"video\":\"b.mp4\",\"query\":\"y\"}";
        let lines = read(text.as_bytes());
        assert_eq!(lines.iter().map(|line| line.number).collect::<Vec<_>>(), [1, 3, 4, 5]);
        assert!(lines[0].result.is_ok() && lines[3].result.is_ok());
        assert_eq!(reason(&lines[1]), "invalid JSON at column 2: expected ident");
        assert_eq!(reason(&lines[2]), "a line is a list, not a JSON object");
    }

    #[test]
    fn a_mark_and_carriage_returns_and_blank_lines_are_tolerated() {
        let lines = read(
            b"\xEF\xBB\xBF{\"video\":\"a.mp4\",\"query\":\"x\"}\r\n \t\r\n{\"video\":\"b.mp4\",\"query\":\"y\"}\r\n",
        );
        assert_eq!(lines.iter().map(|line| line.number).collect::<Vec<_>>(), [1, 3]);
        assert!(lines.iter().all(|line| line.result.is_ok()), "{lines:?}");
    }

    #[test]
    fn a_line_that_is_not_utf8_is_reported_with_its_byte() {
        let lines = read(b"{\"video\":\"\xFF.mp4\",\"query\":\"x\"}\n{\"video\":\"b\",\"query\":\"y\"}\n");
        assert_eq!(reason(&lines[0]), "the line is not UTF-8 from byte 11");
        assert!(lines[1].result.is_ok());
    }

    #[test]
    fn a_line_too_long_is_reported_with_its_size_and_skipped() {
        let mut text = format!("{{\"video\":\"{}\"}}", "v".repeat(2 * MAX_LINE));
        let size = text.len();
        text.push_str("\n{\"video\":\"b\",\"query\":\"y\"}\n");
        let lines = read(text.as_bytes());
        assert_eq!(reason(&lines[0]), format!("the line has {size} bytes, more than {MAX_LINE}"));
        assert_eq!((lines[1].number, lines[1].result.is_ok()), (2, true));
    }

    #[test]
    fn a_read_error_ends_the_corpus_as_an_error() {
        struct Broken(bool);
        impl io::Read for Broken {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if std::mem::replace(&mut self.0, true) {
                    return Err(io::Error::other("disk gone"));
                }
                let line = b"{\"video\":\"b\",\"query\":\"y\"}\n{\"vid";
                buffer[..line.len()].copy_from_slice(line);
                Ok(line.len())
            }
        }
        let mut corpus = Corpus::new(BufReader::new(Broken(false)), "/");
        assert!(corpus.next().unwrap().unwrap().result.is_ok());
        assert_eq!(corpus.next().unwrap().unwrap_err().to_string(), "disk gone");
        assert!(corpus.next().is_none());
    }

    #[test]
    fn only_relative_paths_are_resolved() {
        for (uri, location) in [
            ("a.mp4", "/data/a.mp4"),
            ("../x/a.mp4", "/data/../x/a.mp4"),
            ("./a:b.mp4", "/data/./a:b.mp4"),
            ("at 12:30.mp4", "/data/at 12:30.mp4"),
            ("/abs/a.mp4", "/abs/a.mp4"),
            ("s3://bucket/a.mp4", "s3://bucket/a.mp4"),
            ("https://host/a.mp4", "https://host/a.mp4"),
            ("file:///a.mp4", "file:///a.mp4"),
            ("C:\\clips\\a.mp4", "C:\\clips\\a.mp4"),
            ("\\\\host\\a.mp4", "\\\\host\\a.mp4"),
            ("odd:thing", "odd:thing"),
        ] {
            let mut item = Item::from_line(&serde_json::json!({"video": uri, "query": "q"}).to_string()).unwrap();
            let before = item.digest();
            resolve(&mut item, "/data");
            assert_eq!(item.media[0].location(), location);
            assert_eq!(item.media[0].uri, uri);
            assert_eq!(item.digest(), before, "a resolved path must not change the digest");
        }
    }

    #[test]
    fn a_corpus_file_resolves_against_its_own_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("corpus.jsonl");
        std::fs::write(&path, "{\"video\":\"clips/a.mp4\",\"query\":\"x\"}\n").unwrap();
        let line = Corpus::open(&path).unwrap().next().unwrap().unwrap();
        let item = line.result.unwrap();
        assert_eq!(Path::new(item.media[0].location()), folder.path().join("clips/a.mp4"));
        assert!(Corpus::open(folder.path()).is_err());
    }
}

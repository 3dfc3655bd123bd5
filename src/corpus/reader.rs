//! One corpus of any format, row by row, from any place in it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek as _, SeekFrom};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::csv::Table;
use super::lines::Lines;
use super::parquet::Rows;
pub use super::prefix::{Prefix, Question};
use super::{Corpus, MAX_LINE, folder, resolve};
use crate::job::Item;

/// Most of a refused row that is repeated.
const SHOWN: usize = 2000;

/// How much of a corpus was read: lines or rows, and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The number of the last line or row that was read; of CSV, of the line on which the next row begins.
    pub number: u64,
    /// Bytes before the next one.
    pub bytes: u64,
}

/// One line or row.
#[derive(Debug)]
pub struct Row {
    /// Counted from 1: lines of JSON lines (blank ones too) and of CSV, rows of Parquet, objects under a prefix.
    pub number: u64,
    /// The item, or what is wrong.
    pub result: Result<Item, Refused>,
}

/// A row that is no item.
#[derive(Debug)]
pub struct Refused {
    /// What is wrong, and what would be right.
    pub reason: String,
    /// The row, or its beginning.
    pub text: String,
}

impl Refused {
    pub(super) fn new(reason: String, text: &[u8]) -> Self {
        Self { reason, text: String::from_utf8_lossy(&text[..text.len().min(SHOWN)]).into_owned() }
    }
}

/// The rows of one corpus. Blocking.
#[derive(Debug)]
pub struct Reader {
    format: Format,
    folder: String,
    failed: bool,
}

enum Format {
    Lines(Corpus<Box<dyn BufRead + Send>>),
    Csv(Box<Table>),
    Parquet(Rows),
    Prefix(Box<Prefix>),
}

impl Reader {
    /// Opens a file by the format that its name ends in, and goes on after `from`.
    ///
    /// # Errors
    /// It cannot be read, is of no known format, or has columns that no item has.
    pub fn open(path: &Path, from: Place) -> io::Result<Self> {
        let folder = folder(path)?;
        if path.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a folder, not a corpus"));
        }
        let extension = path.extension().and_then(|end| end.to_str()).unwrap_or_default().to_ascii_lowercase();
        let format = match extension.as_str() {
            "csv" => Format::Csv(Box::new(Table::open(path, from)?)),
            "parquet" => Format::Parquet(Rows::open(path, from)?),
            "jsonl" | "ndjson" | "json" => {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(from.bytes))?;
                Format::Lines(lines(Box::new(BufReader::with_capacity(64 * 1024, file)), &folder, from))
            }
            _ => {
                let message = "is of no known format; its name has to end in .jsonl, .csv or .parquet";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
        };
        Ok(Self { format, folder, failed: false })
    }

    /// JSON lines from standard input; relative paths are relative to the working directory.
    ///
    /// # Errors
    /// There is no working directory.
    pub fn stdin() -> io::Result<Self> {
        let folder = folder(Path::new("stdin"))?;
        let input = Box::new(BufReader::with_capacity(64 * 1024, io::stdin()));
        Ok(Self { format: Format::Lines(lines(input, &folder, Place::default())), folder, failed: false })
    }

    /// The objects under a prefix of a bucket.
    pub fn prefix(prefix: Prefix) -> Self {
        Self { format: Format::Prefix(Box::new(prefix)), folder: "/".to_owned(), failed: false }
    }

    /// How much was read.
    pub fn place(&self) -> Place {
        match &self.format {
            Format::Lines(corpus) => {
                let (number, bytes) = corpus.lines.place();
                Place { number, bytes }
            }
            Format::Csv(table) => table.place(),
            Format::Parquet(rows) => rows.place(),
            Format::Prefix(prefix) => Place { number: prefix.number(), bytes: 0 },
        }
    }
}

fn lines(reader: Box<dyn BufRead + Send>, folder: &str, from: Place) -> Corpus<Box<dyn BufRead + Send>> {
    let lines = Lines::after(reader, MAX_LINE, from.number, from.bytes);
    Corpus { lines, folder: folder.to_owned(), failed: false }
}

impl Iterator for Reader {
    type Item = io::Result<Row>;

    /// The next row. After an `Err` there is none.
    fn next(&mut self) -> Option<io::Result<Row>> {
        if self.failed {
            return None;
        }
        let row = match &mut self.format {
            Format::Lines(corpus) => corpus.next()?.map(|line| {
                let refused = |reason| Refused::new(reason, corpus.lines.last());
                Row { number: line.number, result: line.result.map_err(refused) }
            }),
            Format::Csv(table) => resolved(table.next()?, &self.folder),
            Format::Parquet(rows) => resolved(rows.next()?, &self.folder),
            Format::Prefix(prefix) => prefix.next()?,
        };
        self.failed = row.is_err();
        Some(row)
    }
}

fn resolved(row: io::Result<Row>, folder: &str) -> io::Result<Row> {
    row.map(|mut row| {
        if let Ok(item) = &mut row.result {
            resolve(item, folder);
        }
        row
    })
}

impl std::fmt::Debug for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Lines(_) => "JSON lines",
            Self::Csv(_) => "CSV",
            Self::Parquet(_) => "Parquet",
            Self::Prefix(_) => "a prefix",
        })
    }
}

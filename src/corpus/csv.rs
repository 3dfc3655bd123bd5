//! A corpus as CSV: a header, and one item a row.
//!
//! A quote that is never closed makes a row of the whole rest; so a row may take no more bytes than a line may, and what
//! takes more ends the reading.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use csv::{ByteRecord, Position, Reader, ReaderBuilder};
use serde_json::Value;

use super::reader::{Place, Refused, Row};
use super::{MAX_LINE, cells};

/// The rows of one file.
#[derive(Debug)]
pub(super) struct Table {
    reader: Reader<Bounded>,
    columns: Vec<String>,
    record: ByteRecord,
}

/// A file of which one row reads no more than it may.
#[derive(Debug)]
struct Bounded {
    file: File,
    left: usize,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let message = format!("a row has more than {MAX_LINE} bytes: a quote may not be closed");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let most = buffer.len().min(self.left);
        let read = self.file.read(&mut buffer[..most])?;
        self.left -= read;
        Ok(read)
    }
}

impl io::Seek for Bounded {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl Table {
    pub(super) fn open(path: &Path, from: Place) -> io::Result<Self> {
        let file = Bounded { file: File::open(path)?, left: MAX_LINE };
        let mut reader = ReaderBuilder::new().flexible(true).buffer_capacity(64 * 1024).from_reader(file);
        let header = reader.byte_headers()?.clone();
        let columns: Vec<String> = header
            .iter()
            .map(|name| String::from_utf8_lossy(name).trim_start_matches('\u{feff}').trim().to_owned())
            .collect();
        cells::check(&columns).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if from != Place::default() {
            let mut position = Position::new();
            position.set_byte(from.bytes).set_line(from.number).set_record(1);
            reader.seek(position)?;
        }
        Ok(Self { reader, columns, record: ByteRecord::new() })
    }

    /// The line on which the next row begins, and its byte.
    pub(super) fn place(&self) -> Place {
        Place { number: self.reader.position().line(), bytes: self.reader.position().byte() }
    }

    pub(super) fn next(&mut self) -> Option<io::Result<Row>> {
        self.reader.get_mut().left = MAX_LINE;
        match self.reader.read_byte_record(&mut self.record) {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => return Some(Err(error.into())),
        }
        let number = self.record.position().map_or(0, Position::line);
        let result = self.item().map_err(|reason| {
            let text: Vec<_> = self.record.iter().map(String::from_utf8_lossy).collect();
            Refused::new(reason, text.join(",").as_bytes())
        });
        Some(Ok(Row { number, result }))
    }

    fn item(&self) -> Result<crate::job::Item, String> {
        let (found, wanted) = (self.record.len(), self.columns.len());
        if found != wanted {
            return Err(format!("the row has {found} cells, and the header has {wanted}"));
        }
        let mut row = Vec::with_capacity(wanted);
        for (name, cell) in self.columns.iter().zip(&self.record) {
            let text = str::from_utf8(cell).map_err(|_| format!("{name} is not UTF-8"))?;
            row.push((name.clone(), Value::from(text)));
        }
        cells::item(row)
    }
}

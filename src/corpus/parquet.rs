//! A corpus as Parquet: one item a row, with the columns of a CSV, lists and structs taken as they are.
//!
//! Row groups are read one after the other, and within one a thousand values of a column at a time.

use std::fs::File;
use std::io;
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::serialized_reader::ReadOptionsBuilder;
use parquet::record::reader::RowIter;
use serde_json::Value;

use super::cells;
use super::reader::{Place, Refused, Row};

/// The rows of one file.
pub(super) struct Rows {
    left: RowIter<'static>,
    number: u64,
    total: u64,
    bytes: u64,
}

impl Rows {
    pub(super) fn open(path: &Path, from: Place) -> io::Result<Self> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let whole = SerializedFileReader::new(file.try_clone()?).map_err(io::Error::other)?;
        let meta = whole.metadata();
        let columns: Vec<String> =
            meta.file_metadata().schema().get_fields().iter().map(|field| field.name().to_owned()).collect();
        cells::check(&columns).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let sizes: Vec<u64> =
            meta.row_groups().iter().map(|group| u64::try_from(group.num_rows()).unwrap_or(0)).collect();
        // Whole groups are passed over unread, and the rest of one row by row.
        let (mut first, mut before) = (0, 0);
        while first < sizes.len() && before + sizes[first] <= from.number {
            before += sizes[first];
            first += 1;
        }
        let mut group = 0;
        let wanted = move |_: &_, _: usize| {
            group += 1;
            group > first
        };
        let options = ReadOptionsBuilder::new().with_predicate(Box::new(wanted)).build();
        let reader = SerializedFileReader::new_with_options(file, options).map_err(io::Error::other)?;
        let mut rows =
            Self { left: RowIter::from_file_into(Box::new(reader)), number: before, total: sizes.iter().sum(), bytes };
        while rows.number < from.number && rows.left.next().transpose().map_err(io::Error::other)?.is_some() {
            rows.number += 1;
        }
        Ok(rows)
    }

    /// Rows read so far; the bytes are an estimate, for the eye.
    pub(super) fn place(&self) -> Place {
        let bytes = u128::from(self.bytes) * u128::from(self.number) / u128::from(self.total.max(1));
        Place { number: self.number, bytes: u64::try_from(bytes).unwrap_or(self.bytes) }
    }

    pub(super) fn next(&mut self) -> Option<io::Result<Row>> {
        let row = match self.left.next()? {
            Ok(row) => row,
            Err(error) => return Some(Err(io::Error::other(error))),
        };
        self.number += 1;
        let value = row.to_json_value();
        let result = match value.clone() {
            Value::Object(fields) => cells::item(fields),
            _ => Err("the row has no fields".to_owned()),
        };
        let result = result.map_err(|reason| Refused::new(reason, value.to_string().as_bytes()));
        Some(Ok(Row { number: self.number, result }))
    }
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rows({} of {})", self.number, self.total)
    }
}

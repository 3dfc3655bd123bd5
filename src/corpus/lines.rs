//! Splits a byte stream into lines of bounded size.
//!
//! `BufRead::read_until` would buffer a line of any length, so a file without line ends would be read into memory
//! whole. Here the buffer stops growing at the limit and the rest of the line is only counted.

use std::io::{self, BufRead};

const MARK: &[u8] = b"\xEF\xBB\xBF";

/// Reads lines into one buffer that is used again.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: R,
    most: usize,
    number: u64,
    offset: u64,
    buffer: Vec<u8>,
}

/// One line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Raw<'a> {
    /// Its bytes.
    Text(&'a [u8]),
    /// It has this many bytes, more than the limit.
    TooLong(u64),
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R, most: usize) -> Self {
        Self::after(reader, most, 0, 0)
    }

    /// Goes on after so many lines and bytes, which `reader` has passed.
    pub(super) fn after(reader: R, most: usize, number: u64, offset: u64) -> Self {
        Self { reader, most, number, offset, buffer: Vec::new() }
    }

    /// Lines and bytes read so far.
    #[cfg(feature = "fleet")]
    pub(super) fn place(&self) -> (u64, u64) {
        (self.number, self.offset)
    }

    /// The line read last, or its beginning.
    #[cfg(feature = "fleet")]
    pub(super) fn last(&self) -> &[u8] {
        self.buffer.trim_ascii()
    }

    /// The next line that holds anything but white space, with its number from 1; `None` at the end.
    pub(super) fn next_line(&mut self) -> io::Result<Option<(u64, Raw<'_>)>> {
        loop {
            let Some(length) = self.fill()? else {
                return Ok(None);
            };
            self.number += 1;
            if self.number == 1 && self.buffer.starts_with(MARK) {
                self.buffer.drain(..MARK.len());
            }
            if length > self.most as u64 {
                return Ok(Some((self.number, Raw::TooLong(length))));
            }
            if !self.buffer.trim_ascii().is_empty() {
                break;
            }
        }
        Ok(Some((self.number, Raw::Text(self.buffer.trim_ascii()))))
    }

    /// Fills the buffer with one line, up to a little more than the limit, and gives its whole length.
    fn fill(&mut self) -> io::Result<Option<u64>> {
        self.buffer.clear();
        let mut length = 0;
        let mut any = false;
        loop {
            let chunk = match self.reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if chunk.is_empty() {
                return Ok(any.then_some(length));
            }
            any = true;
            let end = chunk.iter().position(|&byte| byte == b'\n');
            let piece = &chunk[..end.unwrap_or(chunk.len())];
            let room = (self.most + 1).saturating_sub(self.buffer.len());
            self.buffer.extend_from_slice(&piece[..piece.len().min(room)]);
            length += piece.len() as u64;
            let used = piece.len() + usize::from(end.is_some());
            self.reader.consume(used);
            self.offset += used as u64;
            if end.is_some() {
                return Ok(Some(length));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_never_outgrows_the_limit() {
        let text = format!("{}\nshort\n", "x".repeat(100_000));
        let mut lines = Lines::new(io::BufReader::with_capacity(7, text.as_bytes()), 10);
        assert_eq!(lines.next_line().unwrap(), Some((1, Raw::TooLong(100_000))));
        assert!(lines.buffer.capacity() <= 32, "{}", lines.buffer.capacity());
        assert_eq!(lines.next_line().unwrap(), Some((2, Raw::Text(b"short"))));
        assert_eq!(lines.next_line().unwrap(), None);
    }

    #[test]
    fn a_line_of_exactly_the_limit_passes_and_a_last_line_needs_no_end() {
        let mut lines = Lines::new(&b"0123456789\n01234567890\nend"[..], 10);
        assert_eq!(lines.next_line().unwrap(), Some((1, Raw::Text(b"0123456789"))));
        assert_eq!(lines.next_line().unwrap(), Some((2, Raw::TooLong(11))));
        assert_eq!(lines.next_line().unwrap(), Some((3, Raw::Text(b"end"))));
        assert_eq!(lines.next_line().unwrap(), None);
    }
}

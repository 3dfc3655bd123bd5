//! The few boxes of MP4 and Matroska that tell how long a clip lasts and what tracks it has, read as they pass.
//!
//! Containers are entered by dropping their header and reading on; everything else is skipped by its stated size. So there
//! is no stack, no recursion, and at most a few dozen bytes are held, whatever a file claims of itself.

/// What a container told.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Told {
    pub(super) ms: Option<u64>,
    pub(super) sound: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grammar {
    Mp4,
    Matroska,
}

/// What to do with what is held.
enum Next {
    /// Hold so many bytes in all, then look again.
    Hold(usize),
    /// Drop what is held, and skip so many bytes after it.
    Skip(u64),
    /// Nothing more can be told.
    End,
}

/// Reads a container's headers as its bytes go by.
#[derive(Debug)]
pub(super) struct Walker {
    grammar: Option<Grammar>,
    held: Vec<u8>,
    skip: u64,
    /// Units per second (MP4), nanoseconds per unit (Matroska).
    scale: u64,
    ms: Option<u64>,
    length: Option<f64>,
    tracks: bool,
    sound: bool,
}

impl Walker {
    /// For bytes that begin so; at least 12 of them.
    pub(super) fn for_head(head: &[u8]) -> Self {
        let grammar = if head.starts_with(&[0x1a, 0x45, 0xdf, 0xa3]) {
            Some(Grammar::Matroska)
        } else {
            let name = head.get(4..8).unwrap_or_default();
            [b"ftyp", b"moov", b"mdat", b"wide", b"free"].iter().any(|known| name == *known).then_some(Grammar::Mp4)
        };
        let (held, ms, length) = (Vec::new(), None, None);
        Self { grammar, held, skip: 0, scale: 1_000_000, ms, length, tracks: false, sound: false }
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while let (Some(grammar), false) = (self.grammar, bytes.is_empty()) {
            if self.skip > 0 {
                let over = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
                self.skip -= over as u64;
                bytes = &bytes[over..];
                continue;
            }
            self.held.push(bytes[0]);
            bytes = &bytes[1..];
            self.settle(grammar);
        }
    }

    fn settle(&mut self, grammar: Grammar) {
        let next = match grammar {
            Grammar::Mp4 => self.mp4(),
            Grammar::Matroska => self.matroska(),
        };
        match next {
            Some(Next::Skip(count)) => {
                self.skip = count;
                self.held.clear();
            }
            Some(Next::Hold(most)) if most <= 64 => {}
            Some(Next::Hold(_) | Next::End) | None => self.grammar = None,
        }
    }

    pub(super) fn told(&self) -> Told {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float-to-int cast saturates, and a length is an estimate"
        )]
        let from_length = self.length.map(|length| (length * self.scale as f64 / 1e6) as u64);
        let ms = self.ms.or(from_length).filter(|ms| *ms > 0);
        Told { ms, sound: self.tracks.then_some(self.sound) }
    }

    /// `None`: what is held makes no sense.
    fn mp4(&mut self) -> Option<Next> {
        let held = self.held.as_slice();
        if held.len() < 8 {
            return Some(Next::Hold(8));
        }
        let (start, size) = match uint(&held[..4]) {
            1 if held.len() < 16 => return Some(Next::Hold(16)),
            1 => (16, uint(&held[8..16])),
            0 => (8, u64::MAX),
            size => (8, size),
        };
        let payload = size.checked_sub(start as u64)?;
        let want = match &held[4..8] {
            b"moov" | b"trak" | b"mdia" | b"mvex" => return Some(Next::Skip(0)),
            b"mvhd" => 32,
            b"mehd" | b"hdlr" => 12,
            _ => return Some(Next::Skip(payload)),
        };
        let want = start + usize::try_from(payload).unwrap_or(usize::MAX).min(want);
        if held.len() < want {
            return Some(Next::Hold(want));
        }
        let field = |from: usize, to: usize| held.get(start + from..start + to).map(uint);
        let wide = held.get(start) == Some(&1);
        match &held[4..8] {
            b"mvhd" => {
                let (scale, length) =
                    if wide { (field(20, 24), field(24, 32)) } else { (field(12, 16), field(16, 20)) };
                self.scale = scale?;
                self.ms = in_ms(length?, self.scale);
            }
            b"mehd" => {
                let length = if wide { field(4, 12) } else { field(4, 8) };
                self.ms = in_ms(length?, self.scale).or(self.ms);
            }
            _ => {
                self.tracks = true;
                self.sound |= held.get(start + 8..start + 12) == Some(b"soun");
            }
        }
        Some(Next::Skip(size - held.len() as u64))
    }

    fn matroska(&mut self) -> Option<Next> {
        let held = self.held.as_slice();
        let id_length = held.first()?.leading_zeros() as usize + 1;
        let first = held.get(id_length);
        let Some(first) = first else { return (id_length <= 4).then_some(Next::Hold(id_length + 1)) };
        let size_length = first.leading_zeros() as usize + 1;
        let start = id_length + size_length;
        if size_length > 8 || held.len() < start {
            return (size_length <= 8).then_some(Next::Hold(start));
        }
        let most = (1_u64 << (7 * size_length)) - 1;
        let size = uint(&held[id_length..start]) & most;
        match uint(&held[..id_length]) {
            // Segment, Info, Tracks, TrackEntry.
            0x1853_8067 | 0x1549_a966 | 0x1654_ae6b | 0xae => return Some(Next::Skip(0)),
            // Clusters: the media themselves; what tells of them stands before.
            0x1f43_b675 => return Some(Next::End),
            0x002a_d7b1 | 0x4489 | 0x83 if size <= 8 => {}
            _ if size == most => return Some(Next::End),
            _ => return Some(Next::Skip(size)),
        }
        let end = start + usize::try_from(size).ok()?;
        if held.len() < end {
            return Some(Next::Hold(end));
        }
        let value = &held[start..end];
        match (uint(&held[..id_length]), value.len()) {
            (0x4489, 4) => self.length = Some(f64::from(f32::from_be_bytes(value.try_into().ok()?))),
            (0x4489, 8) => self.length = Some(f64::from_be_bytes(value.try_into().ok()?)),
            (0x002a_d7b1, _) => self.scale = uint(value),
            (0x83, _) => {
                self.tracks = true;
                self.sound |= uint(value) == 2;
            }
            _ => {}
        }
        Some(Next::Skip(0))
    }
}

fn in_ms(length: u64, per_second: u64) -> Option<u64> {
    let unknown = length == 0 || length == u64::from(u32::MAX) || length == u64::MAX;
    if unknown { None } else { (u128::from(length) * 1_000).checked_div(per_second.into())?.try_into().ok() }
}

/// Big-endian, of at most eight bytes.
fn uint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Milliseconds by the main header of an AVI file: microseconds per frame times frames.
pub(super) fn avi_ms(head: &[u8]) -> Option<u64> {
    let at = |from: usize| Some(u64::from(u32::from_le_bytes(head.get(from..from + 4)?.try_into().ok()?)));
    (head.get(24..28)? == b"avih").then_some(())?;
    Some(at(32)? * at(48)? / 1_000).filter(|ms| *ms > 0)
}

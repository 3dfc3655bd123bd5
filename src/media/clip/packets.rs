//! All packets of a source, read and not decoded: how many there are, and where each stream ends.
//!
//! A clip that is handed over as it is has never been decoded here, so this is all that is known of it: whether it is cut
//! off, how long it is, how many pictures it holds. Decoding it was rejected: it takes as long as key frames do, and what is
//! torn inside, with its end still there, is met by the provider, who refuses it at no cost but the upload's. A file that
//! ends early is what happens to files (a copy or a download that stopped), and its packets say so.
//!
//! ffmpeg prints a line per packet (its `framecrc` format) on its own time line, the one that copies and encodings have as
//! well. ffprobe has another where a transport stream begins anew; ffmpeg's progress report has no time per stream, and
//! sound that is whole would hide a picture that ends early.

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::ChildStdout;

use super::super::decode::lost;
use super::super::probe::Plan;
use super::super::whole::{self, Reach};
use super::super::{Limits, MediaError};

/// What is asked of ffmpeg, once the streams are named. Packets before the first key frame count as well.
pub(super) const ARGUMENTS: &str = "-copyinkf -c copy -f framecrc -y pipe:1";
const LINE_BYTES: u64 = 4096;
/// In milliseconds: units do not add up exactly, and a whole number of them is no further one.
const ROUNDING: f64 = 1e-6;
/// What ffmpeg prints where there is no time.
const NO_TIME: i64 = i64::MIN;
/// The flag of a packet that the container knows to be damaged or cut.
const CORRUPT: u32 = 2;

/// What was read. The picture comes first, then the sound.
#[derive(Debug, Default)]
pub(super) struct Packets {
    picture: Track,
    sound: Track,
    /// Whether one of them is damaged by the container's own account.
    corrupt: bool,
}

/// One stream; times in seconds after the start of the source.
#[derive(Debug, Default, PartialEq)]
struct Track {
    /// Seconds of one unit of its times.
    unit: f64,
    packets: u64,
    /// The latest time that a packet is shown at.
    last: f64,
    /// The latest end of a packet, where packets tell their length.
    end: f64,
    /// Greatest distance between two packets in a row.
    gap: f64,
    /// When the packet before was due.
    before: Option<f64>,
}

impl Packets {
    /// Reads ffmpeg's lines to their end. Errors: more pictures than one source may have.
    pub(super) async fn read(stdout: ChildStdout, limits: &Limits) -> Result<Self, MediaError> {
        let (mut reader, mut line) = (BufReader::with_capacity(64 << 10, stdout), Vec::new());
        let mut packets = Self::default();
        loop {
            line.clear();
            let read = (&mut reader).take(LINE_BYTES).read_until(b'\n', &mut line).await;
            if read.map_err(|error| lost(&error))? == 0 {
                return Ok(packets);
            }
            packets.take(&String::from_utf8_lossy(&line));
            if packets.picture.packets > limits.max_frames_decoded {
                return Err(limits.too_many_frames());
            }
        }
    }

    /// Takes a line: `#tb STREAM: UNIT` or `STREAM, due, shown, length, bytes, checksum[, F=flags]`.
    fn take(&mut self, line: &str) {
        if let Some((stream, unit)) = line.strip_prefix("#tb ").and_then(|rest| rest.split_once(':')) {
            let unit = unit.trim().split_once('/').and_then(|(n, d)| Some((n.parse().ok()?, d.parse().ok()?)));
            if let (Some(track), Some((number, of))) = (self.track(stream), unit) {
                let (number, of): (f64, f64) = (number, of);
                track.unit = if of > 0.0 { number / of } else { 0.0 };
            }
            return;
        }
        let mut fields = line.split(',').map(str::trim);
        let Some(stream) = fields.next() else { return };
        let mut number = || fields.next().and_then(|field| field.parse::<i64>().ok());
        let (Some(due), Some(shown), Some(length)) = (number(), number(), number()) else { return };
        let flags = fields.find_map(|field| u32::from_str_radix(field.strip_prefix("F=0x")?, 16).ok());
        self.corrupt |= flags.is_some_and(|flags| flags & CORRUPT != 0);
        if let Some(track) = self.track(stream) {
            track.add(due, shown, length);
        }
    }

    fn track(&mut self, stream: &str) -> Option<&mut Track> {
        match stream {
            "0" => Some(&mut self.picture),
            "1" => Some(&mut self.sound),
            _ => None,
        }
    }

    /// Where the last packet ends, in milliseconds, rounded up.
    pub(super) fn length_ms(&self) -> u64 {
        let end = self.picture.end.max(self.sound.end);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of a float saturates")]
        let ms = (end * 1000.0 - ROUNDING).ceil() as u64;
        ms
    }

    /// Fails if the source holds no picture, or ends before it says. `log` is what ffmpeg complained about.
    pub(super) fn check_whole(&self, plan: &Plan, log: &str) -> Result<(), MediaError> {
        if self.picture.packets == 0 {
            return Err(MediaError::invalid("holds no picture"));
        }
        let picture = Some(self.picture.reach());
        let sound = plan.audio.map(|_| Reach { slack: 0.0, single: false, ..self.sound.reach() });
        whole::check_ends(plan, picture, sound, self.corrupt || !log.is_empty(), log)
    }
}

impl Track {
    #[expect(clippy::cast_precision_loss, reason = "times are far below 2^52 units")]
    fn add(&mut self, due: i64, shown: i64, length: i64) {
        let [due, shown] = [(due, shown), (shown, due)].map(|(time, other)| if time == NO_TIME { other } else { time });
        self.packets += 1;
        if due == NO_TIME {
            return;
        }
        let [due, shown, length] = [due, shown, length.max(0)].map(|units| units as f64 * self.unit);
        self.gap = self.before.map_or(self.gap, |before| self.gap.max(due - before));
        self.before = Some(due);
        self.last = self.last.max(shown);
        self.end = self.end.max(shown + length);
    }

    /// A packet without a length lasts as long as the longest before it.
    fn reach(&self) -> Reach {
        Reach { end: self.end.max(self.last + self.gap), slack: self.gap, single: self.packets == 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::probe::Stream;
    use super::*;

    fn read(lines: &[&str]) -> Packets {
        let mut packets = Packets::default();
        for line in lines {
            packets.take(line);
        }
        packets
    }

    fn plan(picture: Option<f64>, sound: Option<f64>, whole: Option<f64>) -> Plan {
        let [video, audio] = [(0, picture), (1, sound)].map(|(index, end)| Some(Stream { index, end }));
        Plan { video, picture: None, audio, duration: whole }
    }

    #[test]
    fn each_stream_ends_with_its_latest_packet() {
        let packets = read(&[
            "#software: Lavf",
            "#tb 0: 1/10\n",
            "#tb 1: 1/1000\n",
            "0,          0,          0,        1,    10253, 0x3824f91e\n",
            "1,      -1024,      -1024,     1024,      258, 0x2c5b786a, F=0x5, S=1,       10\n",
            "0,          1,          4,        1,      718, 0x9be95926, F=0x0\n",
            "0,          4,          2,        0,      718, 0x9be95926, F=0x0\n",
            "1,       7000,       7000,      250,      209, 0x66845d58\n",
            "2,       9000,       9000,      250,      209, 0x66845d58\n",
            "0, x, y\n",
            "",
        ]);
        let Packets { picture, sound, corrupt } = &packets;
        assert_eq!((picture.packets, picture.last, picture.end, corrupt), (3, 0.4, 0.5, &false));
        assert!((picture.gap - 0.3).abs() < 1e-9, "{picture:?}");
        assert_eq!((sound.packets, sound.last, sound.end), (2, 7.0, 7.25));
        assert_eq!(packets.length_ms(), 7250);
    }

    #[test]
    fn a_packet_without_a_time_counts_and_moves_nothing() {
        let none = NO_TIME.to_string();
        let line = |due: &str, shown: &str| format!("0, {due}, {shown}, 1, 9, 0x0");
        let packets =
            read(&["#tb 0: 1/10", &line("0", "0"), &line(&none, &none), &line("5", &none), &line(&none, "8")]);
        assert_eq!((packets.picture.packets, packets.picture.last, packets.length_ms()), (4, 0.8, 900));
    }

    #[test]
    fn a_source_is_cut_off_where_either_stream_ends_early() {
        let lines = |picture: u32, sound: u32, flag: &str| {
            let of = |stream: u32, end: u32| (0..end).map(move |at| format!("{stream}, {at}, {at}, 1, 9, 0x0"));
            let mut lines = vec!["#tb 0: 1/10".to_owned(), "#tb 1: 1/10".to_owned()];
            lines.extend(of(0, picture).chain(of(1, sound)));
            lines.push(format!("0, {picture}, {picture}, 1, 9, 0x0{flag}"));
            read(&lines.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let (told, untold) = (plan(Some(10.0), Some(10.0), Some(10.0)), plan(None, None, Some(10.0)));
        for (name, plan, packets, log, cut) in [
            ("whole", &told, lines(100, 100, ""), "", false),
            ("whole, with complaints", &told, lines(100, 100, ", F=0x2"), "missing picture", false),
            ("picture at half, sound whole", &told, lines(50, 100, ""), "", true),
            ("sound at half, picture whole", &told, lines(100, 50, ""), "", true),
            ("a little short", &told, lines(90, 90, ""), "", false),
            ("a little short, with a torn packet", &told, lines(90, 90, ", F=0x2"), "", true),
            ("a little short, with complaints", &told, lines(90, 90, ""), "partial file", true),
            ("no end per stream, half", &untold, lines(50, 50, ""), "", true),
            ("no end per stream, whole", &untold, lines(50, 100, ""), "", false),
            ("no end at all", &plan(None, None, None), lines(50, 50, ""), "", false),
        ] {
            assert_eq!(packets.check_whole(plan, log).is_err(), cut, "{name}");
        }
        let still = read(&["#tb 0: 1/1", "0, 0, 0, 0, 9, 0x0"]);
        assert!(still.check_whole(&plan(None, None, Some(200.0)), "").is_ok(), "a single picture may stand for long");
        assert!(read(&[]).check_whole(&told, "").unwrap_err().message.contains("no picture"));
    }
}

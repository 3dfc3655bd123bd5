//! The clip as a whole, as it is handed to a provider: the source itself where that will do, else a file made of it.
//!
//! The source will do when it is in a container that providers take, within the recipe's size and length, and is to be
//! heard as it is. Otherwise streams are copied into an mp4 where that is enough (another container, a cut, silence), which
//! is cheap and loses nothing; only a clip that is too large, or whose codecs no mp4 holds, is encoded anew.
//! Making every clip anew was rejected: it costs minutes of processor time, loses quality, and makes of one digest another.
//!
//! The length decides what a call may cost, and a container can lie about its own, so it is measured by reading all
//! packets (a tenth of a second, nothing is decoded) and the larger figure counts. The same pass tells a source that is
//! cut off, which is refused before anybody is paid to look at it: see `packets`.

mod container;
pub(crate) mod kept;
mod packets;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use self::packets::Packets;
use super::child::{self, Caps};
use super::decode::{self, milliseconds};
use super::probe::{self, Plan};
use super::{Kind, Limits, MediaError, Settings};

const FILE: &str = "clip.mp4";
const COPY: &str = "mp4 of the same streams";
/// A second attempt aims so much lower than the first one missed.
const AGAIN: f64 = 0.85;
/// Of the size allowed, what the streams aim at: the container and the encoder's overshoot take the rest.
const AIM: f64 = 0.9;
/// A file is never asked to be smaller than this, in bits per second of picture: below it nothing is left to see.
const LEAST_RATE: u64 = 16_000;

/// What a content is handed over as. The same for every file of that content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Shape {
    pub(crate) mime: &'static str,
    /// Length of what is handed over, in milliseconds.
    pub(crate) duration_ms: u64,
    /// Length of the source.
    pub(crate) source_ms: u64,
    /// Whether the source was longer.
    pub(crate) trimmed: bool,
    /// Whether it was encoded with less detail than the source has.
    pub(crate) smaller: bool,
    /// Whether there is sound in it.
    pub(crate) sound: bool,
}

/// A source that is to become a clip.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) file: &'a File,
    pub(crate) bytes: u64,
    /// Whether its own sound is left out.
    pub(crate) silent: bool,
    /// An empty directory for this work alone.
    pub(crate) dir: &'a Path,
    pub(crate) settings: &'a Settings,
    pub(crate) limits: &'a Limits,
}

/// The shape of a source's clip, and the file made for it in `dir`; none: the source itself. Cancel safe: dropping the
/// future kills the child.
pub(crate) async fn make(source: Source<'_>) -> Result<(Shape, Option<PathBuf>), MediaError> {
    let plan = probe::run(source.input()?, source.dir, Kind::Video, source.limits).await?;
    let sound = plan.audio.is_some() && !source.silent;
    let (packets, log) = source.packets(source.input()?, &plan).await?;
    packets.check_whole(&plan, &log)?;
    let whole_ms = source.length(&packets, &plan)?;
    let most_ms = u64::from(source.settings.clip_seconds) * 1000;
    let trimmed = most_ms > 0 && whole_ms > most_ms;
    let kept_ms = if trimmed { most_ms } else { whole_ms };
    let shape = Shape {
        mime: container::of(&container::head(source.file)?).unwrap_or("video/mp4"),
        duration_ms: kept_ms,
        source_ms: whole_ms,
        trimmed,
        smaller: false,
        sound,
    };
    let most = source.most_bytes();
    let heard_as_it_is = plan.audio.is_none() || !source.silent;
    if !trimmed && heard_as_it_is && source.bytes <= most && container::of(&container::head(source.file)?).is_some() {
        return Ok((shape, None));
    }
    let shape = Shape { mime: "video/mp4", ..shape };
    // What of the source is kept, if its bytes are spread evenly: a copy much above the limit is not worth its writing.
    let share = u128::from(source.bytes) * u128::from(kept_ms.max(1)) / u128::from(whole_ms.max(1));
    if share <= u128::from(most) + u128::from(most / 8)
        && let Some(found) = source.copied(&plan, &shape).await?
    {
        return Ok(found);
    }
    source.encoded(&plan, shape).await
}

impl Source<'_> {
    fn input(&self) -> Result<File, MediaError> {
        self.file.try_clone().map_err(|error| MediaError::worker(format!("cannot share a file: {error}")))
    }

    /// The recipe's greatest size.
    fn most_bytes(&self) -> u64 {
        match u64::from(self.settings.clip_mib) {
            0 => u64::MAX,
            mib => mib << 20,
        }
    }

    fn caps(&self, file_bytes: u64) -> Caps {
        Caps {
            wall: self.limits.prepare_timeout(),
            wall_name: "prepare_timeout_seconds",
            cpu_seconds: self.limits.cpu_seconds,
            memory_mib: self.limits.memory_mib,
            file_bytes,
            stdout_bytes: 1 << 20,
        }
    }

    /// The packets of the planned streams, and what ffmpeg complained about.
    async fn packets(&self, input: File, plan: &Plan) -> Result<(Packets, String), MediaError> {
        let mut args = self.opening();
        args.extend(streams(plan, true));
        args.extend(words(packets::ARGUMENTS));
        let read = |stdout| Packets::read(stdout, self.limits);
        child::run_reading(&self.limits.ffmpeg, &args, input, self.dir, &self.caps(0), |_| false, read).await
    }

    /// The length in milliseconds: where the last packet ends, or what the container states if that is more.
    fn length(&self, packets: &Packets, plan: &Plan) -> Result<u64, MediaError> {
        let length = packets.length_ms().max(plan.duration.map_or(0, milliseconds));
        let most = self.limits.max_duration_seconds;
        if length == 0 {
            return Err(MediaError::invalid("holds no moving picture of any length"));
        }
        if length > most.saturating_mul(1000) {
            let seconds = length / 1000;
            return Err(MediaError::invalid(format!("lasts {seconds} s, more than {most} (max_duration_seconds)")));
        }
        Ok(length)
    }

    /// The streams as they are in an mp4; none where that cannot be, or is too large all the same.
    async fn copied(&self, plan: &Plan, shape: &Shape) -> Result<Option<(Shape, Option<PathBuf>)>, MediaError> {
        let mut args = self.opening();
        args.extend(streams(plan, shape.sound));
        args.extend(self.cut(shape));
        args.extend(words("-c copy"));
        args.extend(ending());
        let caps = self.caps(self.limits.max_output_bytes());
        match child::run(&self.limits.ffmpeg, &args, self.input()?, self.dir, &caps, |_| false).await {
            Ok(_) => {}
            Err(error) if error.kind == super::MediaErrorKind::Invalid => {
                tracing::debug!(%error, "no {COPY} can be made; it is encoded");
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        let made = self.dir.join(FILE);
        if size(&made)? > self.most_bytes() {
            return Ok(None);
        }
        let duration_ms = self.made_length(&made).await?;
        // A copy is cut between key frames of the codec: a cut that is far off is made by encoding.
        let near = duration_ms.abs_diff(shape.duration_ms) <= 500;
        Ok((near || !shape.trimmed).then_some((Shape { duration_ms, ..*shape }, Some(made))))
    }

    /// H.264 and AAC within the recipe's size. What comes out too large is made once more, smaller.
    async fn encoded(&self, plan: &Plan, shape: Shape) -> Result<(Shape, Option<PathBuf>), MediaError> {
        let most = self.most_bytes();
        let mut rate = (most < u64::MAX).then(|| rate_of(most, shape.duration_ms, shape.sound));
        let made = self.dir.join(FILE);
        let mut got = 0;
        for _ in 0..2 {
            let mut args = self.opening();
            args.extend(streams(plan, shape.sound));
            args.extend(self.cut(&shape));
            args.extend(encoding(rate, shape.sound));
            args.extend(ending());
            let caps = self.caps(self.limits.max_output_bytes());
            child::run(&self.limits.ffmpeg, &args, self.input()?, self.dir, &caps, |_| false).await?;
            got = size(&made)?;
            if got <= most {
                let duration_ms = self.made_length(&made).await?;
                return Ok((Shape { duration_ms, smaller: rate.is_some(), ..shape }, Some(made)));
            }
            rate = rate.map(|rate| scaled(rate, most, got));
        }
        let (mib, seconds) = (most >> 20, shape.duration_ms / 1000);
        Err(MediaError::invalid(format!(
            "cannot be made as small as {mib} MiB (clip_mib): {seconds} s still take {} KiB; set clip_seconds, or a larger clip_mib",
            got >> 10
        )))
    }

    /// The length of a file made here.
    async fn made_length(&self, made: &Path) -> Result<u64, MediaError> {
        let open = || File::open(made).map_err(|error| unread(made, &error));
        let plan = probe::run(open()?, self.dir, Kind::Video, self.limits).await?;
        let (packets, _) = self.packets(open()?, &plan).await?;
        self.length(&packets, &plan)
    }

    /// As every decoder's: a clip is read under the same bounds, whatever becomes of it.
    fn opening(&self) -> Vec<OsString> {
        decode::words(&decode::input_arguments(self.limits))
    }

    fn cut(&self, shape: &Shape) -> Vec<OsString> {
        if shape.trimmed { words(&format!("-t {}", self.settings.clip_seconds)) } else { Vec::new() }
    }
}

/// Which streams of the source are taken.
fn streams(plan: &Plan, sound: bool) -> Vec<OsString> {
    let wanted = [plan.video, plan.audio.filter(|_| sound)];
    wanted.into_iter().flatten().flat_map(|stream| words(&format!("-map 0:{}", stream.index))).collect()
}

fn ending() -> Vec<OsString> {
    words(&format!("-map_metadata -1 -map_chapters -1 -dn -sn -fflags +bitexact -movflags +faststart -f mp4 -y {FILE}"))
}

/// Bits per second of the picture for a file of `most` bytes.
fn rate_of(most: u64, duration_ms: u64, sound: bool) -> u64 {
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an aim")]
    let all = (most as f64 * 8.0 * AIM * 1000.0 / duration_ms.max(1) as f64) as u64;
    all.saturating_sub(if sound { sound_rate(Some(all)) } else { 0 }).clamp(LEAST_RATE, 20_000_000)
}

/// What the second attempt aims at.
fn scaled(rate: u64, most: u64, got: u64) -> u64 {
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an aim")]
    let next = (rate as f64 * AGAIN * most as f64 / got.max(1) as f64) as u64;
    next.max(LEAST_RATE)
}

/// Bits per second of the sound beside a whole of so many.
fn sound_rate(all: Option<u64>) -> u64 {
    match all {
        Some(all) if all < 160_000 => 24_000,
        Some(all) if all < 400_000 => 48_000,
        _ => 96_000,
    }
}

/// Longest side of a picture that so many bits per second can fill, and its most frames per second: a sharp small
/// picture says more than a large one of blocks, and models look at a frame a second.
fn picture_of(rate: u64) -> (u32, u32) {
    match rate {
        0..60_000 => (320, 5),
        60_000..150_000 => (426, 10),
        150_000..400_000 => (640, 15),
        400_000..1_200_000 => (960, 25),
        1_200_000..3_000_000 => (1280, 30),
        3_000_000.. => (1920, 30),
    }
}

fn encoding(rate: Option<u64>, sound: bool) -> Vec<OsString> {
    let (side, fps) = rate.map_or((1920, 30), picture_of);
    let mut args = words(&format!(
        "-vf scale=w='min(iw,{side})':h='min(ih,{side})':force_original_aspect_ratio=decrease:force_divisible_by=2 \
         -fpsmax {fps} -pix_fmt yuv420p -c:v libx264 -preset veryfast -threads 1 -flags:v +bitexact"
    ));
    args.extend(match rate {
        Some(rate) => words(&format!("-b:v {rate} -maxrate {rate} -bufsize {rate}")),
        None => words("-crf 23"),
    });
    if sound {
        let rate = sound_rate(rate);
        let low = if rate < 96_000 { " -ac 1 -ar 16000" } else { " -ac 2" };
        args.extend(words(&format!("-c:a aac -b:a {rate}{low} -flags:a +bitexact")));
    }
    args
}

/// No word holds a space: none comes from outside.
fn words(text: &str) -> Vec<OsString> {
    text.split_ascii_whitespace().map(OsString::from).collect()
}

fn size(made: &Path) -> Result<u64, MediaError> {
    std::fs::metadata(made).map(|found| found.len()).map_err(|error| unread(made, &error))
}

fn unread(made: &Path, error: &io::Error) -> MediaError {
    MediaError::worker(format!("cannot read {}, which was just made: {error}", made.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_aim_leaves_room_for_sound_and_never_falls_to_nothing() {
        // 1 MiB over 60 s: about 126 kbit/s, of which 24 are sound.
        let silent = rate_of(1 << 20, 60_000, false);
        assert!((120_000..130_000).contains(&silent), "{silent}");
        assert_eq!(rate_of(1 << 20, 60_000, true), silent - 24_000);
        assert_eq!(rate_of(1 << 20, 86_400_000, true), LEAST_RATE);
        assert!(scaled(100_000, 900, 1000) < 90_000);
        assert_eq!(scaled(LEAST_RATE, 1, 1000), LEAST_RATE);
        let sides: Vec<u32> = [16_000, 100_000, 300_000, 900_000, 2_000_000, 9_000_000].map(|r| picture_of(r).0).into();
        assert!(sides.is_sorted(), "{sides:?}");
    }
}

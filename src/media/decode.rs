//! One ffmpeg run over a source: candidate frames and the sound together.
//!
//! Frames come through the pipe, since one cap then bounds them all; the sound goes into a file, whose greatest size is
//! known beforehand. Both in one process, as starting ffmpeg costs 0.1 s and 56 MiB each time.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::Path;

use super::child::{self, Caps, FORMATS, INPUT};
use super::frames::{self, Seen};
use super::jpeg;
use super::probe::Plan;
use super::{Limits, MediaError, Settings, whole};

const SOUND_FILE: &str = "sound.pcm";
const BYTES_PER_SAMPLE: u64 = 2;

/// What one run gives.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) frames: Vec<DecodedFrame>,
    pub(crate) sound: Option<DecodedSound>,
}

/// One chosen frame.
#[derive(Debug)]
pub(crate) struct DecodedFrame {
    pub(crate) at_ms: u64,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) jpeg: Vec<u8>,
}

/// Mono samples, 16 bits, little endian.
#[derive(Debug)]
pub(crate) struct DecodedSound {
    pub(crate) samples: Vec<u8>,
    pub(crate) trimmed: bool,
}

/// Runs ffmpeg on `input` in `dir`, an empty directory of its own. Cancel safe: dropping the future kills the child.
pub(crate) async fn run(
    input: File,
    dir: &Path,
    plan: &Plan,
    settings: &Settings,
    limits: &Limits,
) -> Result<Decoded, MediaError> {
    let plan = wanted(plan, settings);
    let mut seen = Seen::default();
    if plan.video.is_none() && plan.audio.is_none() {
        return Ok(Decoded { frames: Vec::new(), sound: None });
    }
    let caps = Caps {
        wall: limits.prepare_timeout(),
        wall_name: "prepare_timeout_seconds",
        cpu_seconds: limits.cpu_seconds,
        memory_mib: limits.memory_mib,
        file_bytes: asked_sound_bytes(settings).saturating_add(1 << 16).min(limits.max_output_bytes()),
        stdout_bytes: limits.max_output_bytes(),
    };
    let args = arguments(&plan, settings, limits);
    let output = child::run(&limits.ffmpeg, &args, input, dir, &caps, |line| seen.take(line)).await?;
    let sound = match plan.audio {
        None => None,
        Some(_) => read_sound(&dir.join(SOUND_FILE), settings).await?,
    };
    let reached =
        sound.as_ref().map(|sound| whole::Sound { seconds: seconds_of(sound, settings), trimmed: sound.trimmed });
    let most = limits.max_duration_seconds;
    whole::check(&plan, &seen, reached, &output.log, most)?;
    let frames = if plan.video.is_some() { chosen_frames(&output.stdout, &seen, settings)? } else { Vec::new() };
    Ok(Decoded { frames, sound })
}

/// The plan without what the settings leave no room for.
fn wanted(plan: &Plan, settings: &Settings) -> Plan {
    Plan {
        video: plan.video.filter(|_| settings.max_frames > 0 && settings.frame_size > 0),
        audio: plan.audio.filter(|_| settings.audio_seconds > 0 && settings.audio_rate > 0),
        duration: plan.duration,
    }
}

fn arguments(plan: &Plan, settings: &Settings, limits: &Limits) -> Vec<OsString> {
    // A frame may turn out greater than the container says, so the decoder is told as well. Its type is int.
    let pixels = limits.max_pixels.min(i32::MAX.unsigned_abs().into());
    let mut parts = vec![format!(
        "-nostdin -hide_banner -nostats -v error -max_error_rate 0.1 -filter_threads 1 -filter_complex_threads 1 \
         -protocol_whitelist file -format_whitelist {FORMATS} -threads 1 -max_pixels {pixels} -i {INPUT}"
    )];
    if let Some(video) = plan.video {
        let (frames, size) = (settings.max_frames, settings.frame_size);
        let filter = frames::filter(video.index, plan.duration, frames, size);
        parts.push(format!(
            "-filter_complex {filter} -map [picked] -fps_mode passthrough -map_metadata -1 -fflags +bitexact \
             -flags:v +bitexact -c:v mjpeg -q:v 3 -threads 1 -f image2pipe -y pipe:1"
        ));
    }
    if let Some(audio) = plan.audio {
        // One second more than is kept tells whether there is more.
        let (index, rate) = (audio.index, settings.audio_rate);
        let seconds = u64::from(settings.audio_seconds) + 1;
        parts.push(format!(
            "-map 0:{index} -ac 1 -ar {rate} -t {seconds} -map_metadata -1 -c:a pcm_s16le -f s16le -y {SOUND_FILE}"
        ));
    }
    // No word holds a space: the filter has none, and no name of a file is among them.
    parts.iter().flat_map(|part| part.split_ascii_whitespace()).map(OsString::from).collect()
}

fn kept_sound_bytes(settings: &Settings) -> u64 {
    u64::from(settings.audio_seconds) * u64::from(settings.audio_rate) * BYTES_PER_SAMPLE
}

fn asked_sound_bytes(settings: &Settings) -> u64 {
    (u64::from(settings.audio_seconds) + 1) * u64::from(settings.audio_rate) * BYTES_PER_SAMPLE
}

async fn read_sound(path: &Path, settings: &Settings) -> Result<Option<DecodedSound>, MediaError> {
    let mut samples = match tokio::fs::read(path).await {
        Ok(samples) => samples,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            return Err(MediaError::worker(format!("cannot read the decoded sound: {error}")));
        }
    };
    let kept = usize::try_from(kept_sound_bytes(settings)).unwrap_or(usize::MAX);
    let trimmed = samples.len() > kept;
    samples.truncate(kept);
    Ok((!samples.is_empty()).then_some(DecodedSound { samples, trimmed }))
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52 samples")]
fn seconds_of(sound: &DecodedSound, settings: &Settings) -> f64 {
    (sound.samples.len() as u64 / BYTES_PER_SAMPLE) as f64 / f64::from(settings.audio_rate)
}

fn chosen_frames(stream: &[u8], seen: &Seen, settings: &Settings) -> Result<Vec<DecodedFrame>, MediaError> {
    let pictures = jpeg::split(stream).filter(|pictures| pictures.len() == seen.candidates.len());
    let Some(pictures) = pictures.filter(|pictures| !pictures.is_empty()) else {
        return Err(MediaError::invalid("gives frames that cannot be told apart"));
    };
    let max = usize::try_from(settings.max_frames).unwrap_or(usize::MAX);
    let frame = |i: usize| {
        let picture = &pictures[i];
        DecodedFrame {
            at_ms: milliseconds(seen.candidates[i].at),
            width: picture.width,
            height: picture.height,
            jpeg: stream[picture.bytes.clone()].to_vec(),
        }
    };
    let mut frames: Vec<_> = frames::choose(&seen.candidates, seen.end(), max).into_iter().map(frame).collect();
    frames.sort_by_key(|frame| frame.at_ms);
    Ok(frames)
}

/// Seconds to whole milliseconds, rounded; what is negative or not finite is 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of a float saturates")]
pub(crate) fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1000.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_never_wrap() {
        for (seconds, expected) in [(1.2345, 1235), (-1.0, 0), (f64::NAN, 0)] {
            assert_eq!(milliseconds(seconds), expected);
        }
    }
}

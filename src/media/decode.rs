//! One ffmpeg run over a source: key frames and the sound together.
//!
//! Raw frames for the measure come through the pipe; sound, and pictures that ffmpeg picked, go into files, whose greatest
//! sizes are known beforehand. All in one process, as starting ffmpeg costs 0.1 s and 56 MiB each time. In `faithful` the chosen
//! frames lie raw in a spool, and a second, short run encodes them.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::Path;

use super::child::{self, CODECS, Caps, FORMATS, INPUT, Taken};
use super::frames::{self, Seen, Wanted};
use super::jpeg;
use super::library::blocking;
use super::look::{Run, Shot, raw_arguments, watch};
use super::probe::Plan;
use super::select::Picture;
use super::select::stream::Watched;
use super::{Limits, MediaError, Selection, Settings, Wants, sound, whole};

const SOUND_FILE: &str = "sound.pcm";
const PICKED_FILE: &str = "picked.mjpeg";
const BYTES_PER_SAMPLE: u64 = 2;

/// What one run gives.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) frames: Vec<DecodedFrame>,
    pub(crate) sound: Option<sound::Encoded>,
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
    wants: Wants,
    limits: &Limits,
) -> Result<Decoded, MediaError> {
    let plan = wanted(plan, settings, wants);
    let mut seen = Seen::default();
    let shot = plan.video.zip(plan.picture.as_ref()).map(|(stream, picture)| Shot::new(stream, picture, settings));
    if shot.is_none() && plan.audio.is_none() {
        return Ok(Decoded { frames: Vec::new(), sound: None });
    }
    let args = arguments(&plan, shot.as_ref(), settings, limits);
    let caps = caps(settings, limits, shot.is_some());
    let (watched, log) = match &shot {
        None => {
            let output = child::run(&limits.ffmpeg, &args, input, dir, &caps, |line| seen.take(line, |_| {})).await?;
            (None, output.log)
        }
        Some(shot) => {
            let source = shot.source(dir, settings, plan.duration).await?;
            let run = Run { args: &args, caps: &caps, dir, limits };
            let (watched, log) = watch(run, input, shot, source, &mut seen).await?;
            (Some(watched), log)
        }
    };
    let sound = match plan.audio {
        None => None,
        Some(_) => read_sound(&dir.join(SOUND_FILE), settings).await?,
    };
    let reached =
        sound.as_ref().map(|sound| whole::Sound { seconds: seconds_of(sound, settings), trimmed: sound.trimmed });
    let most = limits.max_duration_seconds;
    whole::check(&plan, &seen, reached, &log, most)?;
    let sound = match sound {
        None => None,
        Some(sound) => Some(sound::encode(sound, dir, settings, limits).await?),
    };
    let frames = match (shot, watched) {
        (Some(shot), Some(watched)) => chosen_frames(watched, &shot, seen.end(), dir, settings, limits).await?,
        _ => Vec::new(),
    };
    Ok(Decoded { frames, sound })
}

pub(crate) fn caps(settings: &Settings, limits: &Limits, pictures: bool) -> Caps {
    let sound = asked_sound_bytes(settings).saturating_add(1 << 16).min(limits.max_output_bytes());
    Caps {
        wall: limits.prepare_timeout(),
        wall_name: "prepare_timeout_seconds",
        cpu_seconds: limits.cpu_seconds,
        memory_mib: limits.memory_mib,
        file_bytes: if pictures { limits.max_output_bytes() } else { sound },
        stdout_bytes: limits.max_output_bytes(),
    }
}

pub(crate) fn lost(error: &io::Error) -> MediaError {
    MediaError::worker(format!("lost the frames of a child process: {error}"))
}

/// Ends the child when it has decoded more frames than one source may have.
pub(crate) fn bounded(taken: bool, seen: &Seen, limits: &Limits) -> Taken {
    if taken && seen.frames > limits.max_frames_decoded { Taken::Stop(limits.too_many_frames()) } else { taken.into() }
}

/// The plan without what nobody is shown or the settings leave no room for.
fn wanted(plan: &Plan, settings: &Settings, wants: Wants) -> Plan {
    let frames = wants.frames && settings.max_frames > 0 && settings.frame_size > 0;
    Plan {
        video: plan.video.filter(|_| frames),
        picture: plan.picture.clone().filter(|_| frames),
        audio: plan.audio.filter(|_| wants.sound && settings.audio_seconds > 0 && settings.audio_rate > 0),
        duration: plan.duration,
    }
}

pub(crate) fn input_arguments(limits: &Limits) -> Vec<String> {
    // A frame may turn out greater than the container says, so the decoder is told as well.
    let (pixels, streams) = (limits.max_pixels_option(), limits.max_streams);
    vec![format!(
        "-nostdin -hide_banner -nostats -v error -max_error_rate 0.1 -filter_threads 1 -filter_complex_threads 1 \
         -protocol_whitelist file -format_whitelist {FORMATS} -codec_whitelist {CODECS} -max_streams {streams} \
         -threads 1 -max_pixels {pixels} -i {INPUT}"
    )]
}

/// No word holds a space: the filter has none, and no name of a file is among them.
pub(crate) fn words(parts: &[String]) -> Vec<OsString> {
    parts.iter().flat_map(|part| part.split_ascii_whitespace()).map(OsString::from).collect()
}

fn arguments(plan: &Plan, shot: Option<&Shot<'_>>, settings: &Settings, limits: &Limits) -> Vec<OsString> {
    let mut parts = input_arguments(limits);
    if let Some(shot) = shot {
        let (frames, size) = (settings.max_frames, settings.frame_size);
        let picked = matches!(shot.selection, Selection::Fast);
        parts.push(raw_arguments(shot, picked.then_some(Wanted { frames, size, duration: plan.duration })));
        if picked {
            parts.push(format!("-map [picked] -fps_mode passthrough {JPEG} -f image2pipe -y {PICKED_FILE}"));
        }
    }
    if let Some(audio) = plan.audio {
        // One second more than is kept tells whether there is more.
        let (index, rate) = (audio.index, settings.audio_rate);
        let seconds = u64::from(settings.audio_seconds) + 1;
        parts.push(format!(
            "-map 0:{index} -ac 1 -ar {rate} -t {seconds} -map_metadata -1 -c:a pcm_s16le -f s16le -y {SOUND_FILE}"
        ));
    }
    words(&parts)
}

/// An encoder that writes nothing about itself.
const JPEG: &str = "-map_metadata -1 -fflags +bitexact -flags:v +bitexact -c:v mjpeg -q:v 3 -threads 1";

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

async fn chosen_frames(
    watched: Watched,
    shot: &Shot<'_>,
    end: f64,
    dir: &Path,
    settings: &Settings,
    limits: &Limits,
) -> Result<Vec<DecodedFrame>, MediaError> {
    let Watched { candidates, spool, matched, found, dropped } = watched;
    tracing::debug!(found, dropped, candidates = candidates.len(), "looked for key frames");
    let max = usize::try_from(settings.max_frames).unwrap_or(usize::MAX);
    let chosen = frames::choose(&candidates, end, max);
    let (stream, shown, expected) = match spool {
        None => {
            let path = dir.join(PICKED_FILE);
            let stream = tokio::fs::read(path).await.map_err(|error| lost(&error))?;
            (stream, chosen.clone(), candidates.len())
        }
        Some(mut spool) => {
            let (count, dir_of_file, places) = (chosen.len(), dir.to_owned(), chosen.clone());
            let file = blocking(move || spool.extract(&dir_of_file, &places)).await?;
            (encode(file, shot, dir, settings, limits).await?, (0..count).collect(), count)
        }
    };
    let pictures = jpeg::split(&stream).filter(|pictures| pictures.len() == expected && matched);
    let Some(pictures) = pictures.filter(|pictures| !pictures.is_empty()) else {
        return Err(MediaError::invalid("gives frames that cannot be told apart"));
    };
    let frame = |(place, i): (usize, usize)| {
        let picture = &pictures[i];
        DecodedFrame {
            at_ms: milliseconds(candidates[place].at),
            width: picture.width,
            height: picture.height,
            jpeg: stream[picture.bytes.clone()].to_vec(),
        }
    };
    let mut frames: Vec<_> = chosen.into_iter().zip(shown).map(frame).collect();
    frames.sort_by_key(|frame| frame.at_ms);
    Ok(frames)
}

/// The raw frames in `file` as JPEGs, one after the other.
async fn encode(
    file: File,
    shot: &Shot<'_>,
    dir: &Path,
    settings: &Settings,
    limits: &Limits,
) -> Result<Vec<u8>, MediaError> {
    let Picture { width, height, aspect: (x, y), .. } = shot.picture;
    let (format, scale) = (shot.layout.format(), frames::scale(settings.frame_size));
    let range = if shot.picture.full { "pc" } else { "tv" };
    let args = format!(
        "-nostdin -hide_banner -nostats -v error -filter_threads 1 -protocol_whitelist file -format_whitelist rawvideo \
         -f rawvideo -pixel_format {format} -video_size {width}x{height} -framerate 25 -color_range {range} -threads 1 \
         -i {INPUT} -vf setsar={x}/{y},{scale} -fps_mode passthrough {JPEG} -f image2pipe -y pipe:1"
    );
    let args = words(&[args]);
    let caps = Caps { file_bytes: 0, ..caps(settings, limits, true) };
    Ok(child::run(&limits.ffmpeg, &args, file, dir, &caps, |_| false).await?.stdout)
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

//! The sound as it is sent: WAV written here, FLAC and MP3 by a second, short ffmpeg.
//!
//! The samples are cut to length and rate before they are encoded, so that all formats hold the same sound, to the sample
//! for FLAC, and so that what the record says of its length is true of the samples and not of an encoder's padding. One
//! process for decoding and encoding was rejected: whether the source is longer than what is kept is known only after it
//! was decoded, and a trim inside the encoder would count its padding. The second start costs 0.1 s, only where
//! the format asks for it. Nothing in the result tells when, from what or by which version it was made: the same sound
//! gives the same bytes.

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;

use super::child::{self, Caps, INPUT};
use super::decode::DecodedSound;
use super::{AudioFormat, Limits, MediaError, MediaErrorKind, Settings, wav};

const SAMPLES_FILE: &str = "kept.pcm";
/// What headers and a sound of a few samples may need beyond the size of the samples.
const ROOM: u64 = 64 * 1024;

/// Rates that MP3 knows (MPEG 1, 2 and 2.5; ISO 11172-3, 13818-3), each with the bits per second that are used for one
/// channel: an eighth of the samples', rounded up to what the format has.
const MP3_RATES: [(u32, u32); 9] = [
    (8_000, 16_000),
    (11_025, 24_000),
    (12_000, 24_000),
    (16_000, 32_000),
    (22_050, 48_000),
    (24_000, 48_000),
    (32_000, 64_000),
    (44_100, 96_000),
    (48_000, 96_000),
];

/// The sound, ready to be sent.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    /// Length of the samples that were encoded.
    pub(crate) duration_ms: u64,
    pub(crate) trimmed: bool,
}

/// Why sound cannot be made in this format at this rate; none if it can.
pub(crate) fn rate_problem(format: AudioFormat, rate: u32) -> Option<String> {
    let known = MP3_RATES.map(|(rate, _)| rate);
    (format == AudioFormat::Mp3 && !known.contains(&rate)).then(|| {
        let known = known.map(|rate| rate.to_string()).join(", ");
        format!("media.audio_rate is {rate}, and mp3 knows only {known}")
    })
}

/// Encodes `sound` as the settings say. `dir` is a directory of its own. Cancel safe: dropping the future kills the child.
pub(crate) async fn encode(
    sound: DecodedSound,
    dir: &Path,
    settings: &Settings,
    limits: &Limits,
) -> Result<Encoded, MediaError> {
    let DecodedSound { samples, trimmed } = sound;
    let duration_ms = samples.len() as u64 / 2 * 1000 / u64::from(settings.audio_rate.max(1));
    let bytes = match settings.audio_format {
        AudioFormat::Wav => wav::mono(&samples, settings.audio_rate),
        format @ (AudioFormat::Flac | AudioFormat::Mp3) => by_ffmpeg(&samples, format, dir, settings, limits).await?,
    };
    Ok(Encoded { bytes, duration_ms, trimmed })
}

async fn by_ffmpeg(
    samples: &[u8],
    format: AudioFormat,
    dir: &Path,
    settings: &Settings,
    limits: &Limits,
) -> Result<Vec<u8>, MediaError> {
    let rate = settings.audio_rate;
    if let Some(problem) = rate_problem(format, rate) {
        return Err(MediaError::worker(problem));
    }
    let name = format.name();
    let (input, output) = (dir.join(SAMPLES_FILE), format!("kept.{name}"));
    let failed = |error: std::io::Error| MediaError::worker(format!("cannot keep the decoded sound: {error}"));
    tokio::fs::write(&input, samples).await.map_err(failed)?;
    let file: File = tokio::fs::File::open(&input).await.map_err(failed)?.into_std().await;
    let caps = Caps {
        wall: limits.prepare_timeout(),
        wall_name: "prepare_timeout_seconds",
        cpu_seconds: limits.cpu_seconds,
        memory_mib: limits.memory_mib,
        file_bytes: (samples.len() as u64).saturating_add(ROOM),
        stdout_bytes: 0,
    };
    let args = arguments(format, rate, &output);
    child::run(&limits.ffmpeg, &args, file, dir, &caps, |_| false).await.map_err(|error| match error.kind {
        // The samples are our own: no source is to blame when ffmpeg has no such encoder.
        MediaErrorKind::Invalid => MediaError::worker(format!("sound cannot be made {name}: {}", error.message)),
        _ => error,
    })?;
    tokio::fs::read(dir.join(output)).await.map_err(failed)
}

fn arguments(format: AudioFormat, rate: u32, output: &str) -> Vec<OsString> {
    let codec = match MP3_RATES.iter().find(|(known, _)| *known == rate) {
        Some((_, bits)) if format == AudioFormat::Mp3 => {
            format!("-c:a libmp3lame -b:a {bits} -id3v2_version 0 -write_id3v1 0")
        }
        _ => "-c:a flac -sample_fmt s16 -metadata_header_padding 0".to_owned(),
    };
    let name = format.name();
    let line = format!(
        "-nostdin -hide_banner -nostats -v error -protocol_whitelist file -threads 1 -f s16le -ar {rate} -ac 1 -i {INPUT} \
         -map_metadata -1 -fflags +bitexact -flags:a +bitexact {codec} -threads 1 -f {name} -y {output}"
    );
    line.split_ascii_whitespace().map(OsString::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tone of so many samples, or silence.
    fn samples(count: u32, loud: bool) -> Vec<u8> {
        let sample = |n: u32| if loud { (f64::from(n % 40) * 0.157).sin() * 9000.0 } else { 0.0 };
        #[expect(clippy::cast_possible_truncation, reason = "far below the range")]
        (0..count).flat_map(|n| (sample(n) as i16).to_le_bytes()).collect()
    }

    fn settings(format: AudioFormat, rate: u32) -> Settings {
        Settings { audio_format: format, audio_rate: rate, ..Settings::default() }
    }

    async fn encoded(samples: &[u8], settings: &Settings) -> Encoded {
        let dir = tempfile::tempdir().unwrap();
        let sound = DecodedSound { samples: samples.to_vec(), trimmed: false };
        encode(sound, dir.path(), settings, &Limits::default()).await.unwrap()
    }

    /// The samples that a file of the format gives back.
    async fn decoded(bytes: &[u8], rate: u32) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sound");
        std::fs::write(&path, bytes).unwrap();
        let mut command = tokio::process::Command::new("ffmpeg");
        let out = dir.path().join("out.pcm");
        command.args(["-nostdin", "-v", "error", "-i"]).arg(&path);
        let status = command.args(["-ar", &rate.to_string(), "-f", "s16le"]).arg(&out).status().await.unwrap();
        assert!(status.success());
        std::fs::read(out).unwrap()
    }

    #[tokio::test]
    async fn every_format_keeps_the_sound_at_every_rate_that_it_has() {
        for (rate, _) in MP3_RATES {
            let tone = samples(rate, true);
            for format in [AudioFormat::Wav, AudioFormat::Flac, AudioFormat::Mp3] {
                let sound = encoded(&tone, &settings(format, rate)).await;
                let back = decoded(&sound.bytes, rate).await;
                assert_eq!((sound.duration_ms, back.len()), (1000, tone.len()), "{} at {rate}", format.name());
                assert!(format == AudioFormat::Mp3 || back == tone, "{} at {rate} is another sound", format.name());
            }
        }
    }

    #[tokio::test]
    async fn one_sample_and_silence_are_sounds() {
        for format in [AudioFormat::Wav, AudioFormat::Flac, AudioFormat::Mp3] {
            for (count, ms) in [(1, 0), (16, 1), (16_000, 1000)] {
                let silence = samples(count, false);
                let sound = encoded(&silence, &settings(format, 16_000)).await;
                assert_eq!(sound.duration_ms, ms);
                let back = decoded(&sound.bytes, 16_000).await;
                // What is shorter than an MP3 frame is padded, and no header can say by so much: some milliseconds.
                let slack = if format == AudioFormat::Mp3 && count < 576 { 2 * 1152 } else { 0 };
                let more = back.len() - silence.len();
                assert!(more <= slack, "{count} samples of {} are {more} bytes more", format.name());
                assert!(back.iter().all(|byte| *byte == 0));
            }
        }
    }

    #[tokio::test]
    async fn the_bytes_are_the_same_every_time_and_say_nothing_else() {
        let tone = samples(48_000, true);
        for (format, magic, most) in [(AudioFormat::Flac, &b"fLaC"[..], 90), (AudioFormat::Mp3, &[0xff, 0xf3][..], 14)]
        {
            let first = encoded(&tone, &settings(format, 16_000)).await.bytes;
            assert!(first.starts_with(magic), "{:x?}", &first[..8]);
            assert!(first.len() * 100 / tone.len() < most, "{} of {} bytes", first.len(), tone.len());
            for word in [&b"Lavf5"[..], b"Lavc5", b"TAG", b"ID3", b"encoder"] {
                assert!(!first.windows(word.len()).any(|window| window == word), "{}", String::from_utf8_lossy(word));
            }
            assert_eq!(encoded(&tone, &settings(format, 16_000)).await.bytes, first);
        }
    }

    #[tokio::test]
    async fn an_encoder_that_is_not_there_blames_no_item() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { ffmpeg: "false".into(), ..Limits::default() };
        let sound = DecodedSound { samples: samples(100, true), trimmed: false };
        let error = encode(sound, dir.path(), &settings(AudioFormat::Mp3, 16_000), &limits).await.unwrap_err();
        assert_eq!(error.kind, MediaErrorKind::Worker, "{error}");
    }

    #[test]
    fn a_rate_that_mp3_has_not_is_refused_with_those_it_has() {
        assert_eq!(rate_problem(AudioFormat::Flac, 9_999), None);
        let problem = rate_problem(AudioFormat::Mp3, 9_999).unwrap();
        assert!(problem.contains("is 9999") && problem.ends_with("44100, 48000"), "{problem}");
    }
}

//! What is in a source, by one ffprobe: which streams to decode, or why there is nothing to decode.

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;

use serde::Deserialize;

use super::child::{self, Caps, FORMATS, INPUT};
use super::{Kind, Limits, MediaError};

/// The streams to decode, checked against the kind the item named and against the limits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    /// Index of the video stream; none when only sound is wanted.
    pub(crate) video: Option<Stream>,
    /// Index of the first sound stream with a known codec.
    pub(crate) audio: Option<Stream>,
    /// Length in seconds, where the container tells.
    pub(crate) duration: Option<f64>,
}

/// One stream of the source.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Stream {
    /// Its index in the file.
    pub(crate) index: u32,
    /// When it ends by its own account, in seconds after the start of the file.
    pub(crate) end: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Report {
    #[serde(default)]
    streams: Vec<ReportStream>,
    #[serde(default)]
    format: ReportFormat,
}

#[derive(Debug, Default, Deserialize)]
struct ReportFormat {
    start_time: Option<String>,
    duration: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ReportStream {
    index: u32,
    codec_type: Option<String>,
    codec_name: Option<String>,
    width: Option<u64>,
    height: Option<u64>,
    start_time: Option<String>,
    duration: Option<String>,
    #[serde(default)]
    disposition: Disposition,
}

#[derive(Debug, Default, Deserialize)]
struct Disposition {
    #[serde(default)]
    attached_pic: u8,
    #[serde(default)]
    timed_thumbnails: u8,
}

/// Runs ffprobe and plans the decode. `dir` is a directory for the child to stand in.
pub(crate) async fn run(input: File, dir: &Path, kind: Kind, limits: &Limits) -> Result<Plan, MediaError> {
    let entries = "format=start_time,duration:stream=index,codec_type,codec_name,width,height,start_time,duration:\
                   stream_disposition=attached_pic,timed_thumbnails";
    let args = ["-v", "error", "-hide_banner", "-protocol_whitelist", "file", "-format_whitelist", FORMATS];
    let args = args.into_iter().chain(["-threads", "1", "-show_entries", entries, "-of", "json", "-i", INPUT]);
    let args: Vec<OsString> = args.map(OsString::from).collect();
    let caps = Caps {
        wall: limits.probe_timeout(),
        wall_name: "probe_timeout_seconds",
        cpu_seconds: limits.cpu_seconds,
        memory_mib: limits.memory_mib,
        file_bytes: 0,
        stdout_bytes: 4 << 20,
    };
    let output = child::run(&limits.ffprobe, &args, input, dir, &caps, |_| false).await?;
    plan(&output.stdout, kind, limits)
}

/// What to decode, from ffprobe's report.
fn plan(report: &[u8], kind: Kind, limits: &Limits) -> Result<Plan, MediaError> {
    let report: Report = serde_json::from_slice(report)
        .map_err(|error| MediaError::worker(format!("cannot read ffprobe's report: {error}")))?;
    let start = seconds(report.format.start_time.as_ref()).unwrap_or(0.0);
    let stream = |found: &ReportStream| Stream {
        index: found.index,
        end: seconds(found.duration.as_ref())
            .map(|duration| duration + seconds(found.start_time.as_ref()).map_or(0.0, |own| own - start)),
    };
    let known = |found: &&ReportStream| !matches!(found.codec_name.as_deref(), None | Some("unknown" | "none"));
    let of_type = |name: &'static str| report.streams.iter().filter(move |s| s.codec_type.as_deref() == Some(name));
    let moving = |s: &&ReportStream| s.disposition.attached_pic == 0 && s.disposition.timed_thumbnails == 0;
    let video = of_type("video").filter(moving).find(known);
    let audio = of_type("audio").find(known).map(stream);
    let duration = seconds(report.format.duration.as_ref());
    if let Some(duration) = duration.filter(|d| *d > duration_limit(limits)) {
        let most = limits.max_duration_seconds;
        return Err(MediaError::invalid(format!("lasts {duration:.0} s, more than {most} (max_duration_seconds)")));
    }
    match kind {
        Kind::Audio if audio.is_none() => {
            Err(MediaError::invalid(format!("is named as audio and has no sound, only {}", found(&report))))
        }
        Kind::Audio => Ok(Plan { video: None, audio, duration }),
        Kind::Video => {
            let Some(video) = video else {
                let found = found(&report);
                return Err(MediaError::invalid(format!("is named as video and has no moving picture, only {found}")));
            };
            check_size(video, limits)?;
            Ok(Plan { video: Some(stream(video)), audio, duration })
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "limits are far below 2^52 seconds")]
fn duration_limit(limits: &Limits) -> f64 {
    limits.max_duration_seconds as f64
}

fn check_size(video: &ReportStream, limits: &Limits) -> Result<(), MediaError> {
    let (width, height) = (video.width.unwrap_or(0), video.height.unwrap_or(0));
    if width == 0 || height == 0 {
        return Err(MediaError::invalid("has a video stream without a picture size: it is cut off or broken"));
    }
    if width.saturating_mul(height) > limits.max_pixels {
        let most = limits.max_pixels;
        return Err(MediaError::invalid(format!(
            "has frames of {width}x{height}, more than {most} pixels (max_pixels)"
        )));
    }
    Ok(())
}

/// The streams in words, for example `audio (mp3), cover art (png)`.
fn found(report: &Report) -> String {
    if report.streams.is_empty() {
        return "an empty container".to_owned();
    }
    let describe = |s: &ReportStream| {
        let kind =
            if s.disposition.attached_pic == 1 { "cover art" } else { s.codec_type.as_deref().unwrap_or("data") };
        format!("{kind} ({})", s.codec_name.as_deref().unwrap_or("unknown codec"))
    };
    let list: Vec<String> = report.streams.iter().take(4).map(describe).collect();
    let more = if report.streams.len() > 4 { ", ..." } else { "" };
    format!("{}{more}", list.join(", "))
}

fn seconds(text: Option<&String>) -> Option<f64> {
    text?.parse().ok().filter(|seconds: &f64| seconds.is_finite() && *seconds >= 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COVER: &str = r#"{"index":1,"codec_type":"video","codec_name":"png","width":9,"height":9,
        "disposition":{"attached_pic":1}}"#;
    const SOUND: &str = r#"{"index":0,"codec_type":"audio","codec_name":"mp3","start_time":"0.5","duration":"9.5"}"#;
    const PICTURE: &str = r#"{"index":2,"codec_type":"video","codec_name":"h264","width":1280,"height":720}"#;

    fn plan_of(streams: &[&str], kind: Kind) -> Result<Plan, String> {
        let json =
            format!(r#"{{"streams":[{}],"format":{{"start_time":"0.5","duration":"10.0"}}}}"#, streams.join(","));
        plan(json.as_bytes(), kind, &Limits::default()).map_err(|error| error.message)
    }

    #[test]
    fn cover_art_is_not_video() {
        let message = plan_of(&[SOUND, COVER], Kind::Video).unwrap_err();
        assert_eq!(message, "is named as video and has no moving picture, only audio (mp3), cover art (png)");
        let plan = plan_of(&[SOUND, COVER, PICTURE], Kind::Video).unwrap();
        assert_eq!(plan.video.unwrap().index, 2);
    }

    #[test]
    fn an_audio_source_needs_sound_and_leaves_the_picture_alone() {
        assert!(plan_of(&[PICTURE], Kind::Audio).unwrap_err().ends_with("only video (h264)"));
        let plan = plan_of(&[PICTURE, SOUND], Kind::Audio).unwrap();
        assert_eq!((plan.video, plan.audio), (None, Some(Stream { index: 0, end: Some(9.5) })));
    }

    #[test]
    fn a_stream_of_an_unknown_codec_is_passed_over() {
        let odd = r#"{"index":5,"codec_type":"audio"}"#;
        assert_eq!(plan_of(&[PICTURE, odd], Kind::Video).unwrap().audio, None);
        assert_eq!(plan_of(&[PICTURE, odd, SOUND], Kind::Video).unwrap().audio.unwrap().index, 0);
    }

    #[test]
    fn limits_are_met_before_anything_is_decoded() {
        let huge = r#"{"index":0,"codec_type":"video","codec_name":"h264","width":60000,"height":60000}"#;
        assert!(plan_of(&[huge], Kind::Video).unwrap_err().contains("max_pixels"));
        let long = br#"{"streams":[],"format":{"duration":"99999"}}"#;
        assert!(plan(long, Kind::Video, &Limits::default()).unwrap_err().message.contains("max_duration_seconds"));
    }
}

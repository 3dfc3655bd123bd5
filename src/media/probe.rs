//! What is in a source, by one ffprobe: which streams to decode, or why there is nothing to decode.

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;

use aurelia_ssim::Matrix;
use serde::Deserialize;

use super::child::{self, CODECS, Caps, FORMATS, INPUT};
use super::select::Picture;
use super::{Kind, Limits, MediaError};

/// The streams to decode, checked against the kind the item named and against the limits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    /// Index of the video stream; none when only sound is wanted.
    pub(crate) video: Option<Stream>,
    /// What its frames are like; there whenever a video stream is.
    pub(crate) picture: Option<Picture>,
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
    // As ffprobe has them: a container may say what no picture can be.
    width: Option<i64>,
    height: Option<i64>,
    pix_fmt: Option<String>,
    color_space: Option<String>,
    color_range: Option<String>,
    sample_aspect_ratio: Option<String>,
    #[serde(default)]
    side_data_list: Vec<SideData>,
    start_time: Option<String>,
    duration: Option<String>,
    #[serde(default)]
    disposition: Disposition,
}

#[derive(Debug, Deserialize)]
struct SideData {
    rotation: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
struct Disposition {
    #[serde(default)]
    attached_pic: i64,
    #[serde(default)]
    timed_thumbnails: i64,
}

/// Runs ffprobe and plans the decode. `dir` is a directory for the child to stand in.
pub(crate) async fn run(input: File, dir: &Path, kind: Kind, limits: &Limits) -> Result<Plan, MediaError> {
    let entries = "format=start_time,duration:stream=index,codec_type,codec_name,width,height,start_time,duration,\
                   pix_fmt,color_space,color_range,sample_aspect_ratio:stream_side_data=rotation:\
                   stream_disposition=attached_pic,timed_thumbnails";
    let args = ["-v", "error", "-hide_banner", "-protocol_whitelist", "file", "-format_whitelist", FORMATS];
    let (streams, pixels) = (limits.max_streams.to_string(), limits.max_pixels_option().to_string());
    // How much is read to find out is left to ffmpeg: 5 MB and 5 s of the source, the end of it for its length.
    let args = args.into_iter().chain(["-codec_whitelist", CODECS, "-max_streams", &streams, "-max_pixels", &pixels]);
    let args = args.chain(["-threads", "1", "-show_entries", entries, "-of", "json", "-i", INPUT]);
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
    // ffprobe tells no size of a picture that is too large for it, and why in its log.
    plan(&output.stdout, kind, limits).map_err(|error| child::too_large(&output.log).unwrap_or(error))
}

/// What to decode, from ffprobe's report.
fn plan(report: &[u8], kind: Kind, limits: &Limits) -> Result<Plan, MediaError> {
    let report: Report = serde_json::from_slice(report)
        .map_err(|error| MediaError::worker(format!("cannot read ffprobe's report: {error}")))?;
    if report.streams.len() > usize::try_from(limits.max_streams).unwrap_or(usize::MAX) {
        let (found, most) = (report.streams.len(), limits.max_streams);
        return Err(MediaError::invalid(format!("has {found} streams, more than {most} (max_streams)")));
    }
    let start = seconds(report.format.start_time.as_ref()).unwrap_or(0.0);
    let stream = |found: &ReportStream| Stream {
        index: found.index,
        end: seconds(found.duration.as_ref())
            .map(|duration| duration + seconds(found.start_time.as_ref()).map_or(0.0, |own| own - start)),
    };
    let known = |found: &&ReportStream| {
        found.codec_name.as_deref().is_some_and(|name| CODECS.split(',').any(|known| known == name))
    };
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
        Kind::Audio => Ok(Plan { video: None, picture: None, audio, duration }),
        Kind::Video | Kind::Silent => {
            let Some(video) = video else {
                let found = found(&report);
                return Err(MediaError::invalid(format!("is named as video and has no moving picture, only {found}")));
            };
            check_size(video, limits)?;
            Ok(Plan { video: Some(stream(video)), picture: Some(picture(video)), audio, duration })
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "limits are far below 2^52 seconds")]
fn duration_limit(limits: &Limits) -> f64 {
    limits.max_duration_seconds as f64
}

fn check_size(video: &ReportStream, limits: &Limits) -> Result<(), MediaError> {
    let side = |side: Option<i64>| side.and_then(|side| u64::try_from(side).ok()).unwrap_or(0);
    let (width, height) = (side(video.width), side(video.height));
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

/// What the frames of a stream are like, as they are shown.
fn picture(video: &ReportStream) -> Picture {
    let side = |pixels: Option<i64>| pixels.and_then(|pixels| u32::try_from(pixels).ok()).unwrap_or(0);
    let aspect = video.sample_aspect_ratio.as_deref().and_then(|ratio| ratio.split_once(':'));
    let aspect = aspect.and_then(|(x, y)| Some((x.parse().ok()?, y.parse().ok()?)));
    let (x, y) = aspect.filter(|(x, y)| *x > 0 && *y > 0).unwrap_or((1, 1));
    // As ffmpeg turns frames: by quarters, if it is less than a degree from that.
    let turned = video.side_data_list.iter().find_map(|data| data.rotation).is_some_and(|angle| {
        let rest = angle.rem_euclid(180.0);
        (rest - 90.0).abs() < 1.0
    });
    let format = video.pix_fmt.clone().unwrap_or_default();
    let full = match video.color_range.as_deref() {
        Some("pc") => true,
        Some("tv") => false,
        _ => format.starts_with("yuvj"),
    };
    let matrix = Matrix::named(video.color_space.as_deref().unwrap_or_default());
    let (width, height) = (side(video.width), side(video.height));
    let (width, height, aspect) = if turned { (height, width, (y, x)) } else { (width, height, (x, y)) };
    Picture { width, height, format, matrix, full, aspect }
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
        assert_eq!((plan.video, plan.picture, plan.audio), (None, None, Some(Stream { index: 0, end: Some(9.5) })));
    }

    #[test]
    fn a_stream_of_an_unknown_codec_is_passed_over() {
        let odd = r#"{"index":5,"codec_type":"audio"}"#;
        assert_eq!(plan_of(&[PICTURE, odd], Kind::Video).unwrap().audio, None);
        assert_eq!(plan_of(&[PICTURE, odd, SOUND], Kind::Video).unwrap().audio.unwrap().index, 0);
    }

    #[test]
    fn numbers_that_no_picture_can_have_are_the_files_fault() {
        let odd = r#"{"index":0,"codec_type":"video","codec_name":"h264","width":-1,"height":99,"disposition":{"attached_pic":-7}}"#;
        let still = odd.replace("-7", "0");
        assert!(plan_of(&[odd], Kind::Video).unwrap_err().contains("no moving picture"));
        assert!(plan_of(&[&still], Kind::Video).unwrap_err().contains("without a picture size"));
    }

    #[test]
    fn limits_are_met_before_anything_is_decoded() {
        let huge = r#"{"index":0,"codec_type":"video","codec_name":"h264","width":60000,"height":60000}"#;
        assert!(plan_of(&[huge], Kind::Video).unwrap_err().contains("max_pixels"));
        let crowd = vec![SOUND; 257];
        assert!(plan_of(&crowd, Kind::Audio).unwrap_err().contains("257 streams, more than 256 (max_streams)"));
        assert!(plan_of(&crowd[1..], Kind::Audio).is_ok());
        let long = br#"{"streams":[],"format":{"duration":"99999"}}"#;
        assert!(plan(long, Kind::Video, &Limits::default()).unwrap_err().message.contains("max_duration_seconds"));
    }
}

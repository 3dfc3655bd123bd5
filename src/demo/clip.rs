//! Clips made on the spot: real H.264 and AAC with cuts, motion, tones and speech, for the demo, the tests and the benches.
//!
//! Everything comes from ffmpeg's own sources, so nothing has to be downloaded or shipped and nobody's rights are
//! touched. This is our own, trusted use of ffmpeg: no limits but a time limit. Speech is added to clips of full size
//! when `espeak-ng` is installed. The same style gives the same frames on the same ffmpeg; another seed gives other bytes.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

const TIME_LIMIT: Duration = Duration::from_mins(10);
const SCENE_SECONDS: u32 = 3;
const MOST_SCENES: u32 = 40;

/// What a clip holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Content {
    /// Scenes with motion and cuts between them, tones, and speech where it can be made.
    Full,
    /// The same picture, no sound.
    NoAudio,
    /// A picture in which nothing moves, with tones.
    Static,
    /// Tones only. The name of the file decides the format (`.wav`, `.m4a`, `.mp3`).
    AudioOnly,
}

/// How big and costly a clip is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Size {
    /// 1280x720, 25 frames per second.
    Hd,
    /// 160x120, 10 frames per second, no speech: a fraction of a second to make.
    Small,
}

/// A clip to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Style {
    /// What it holds.
    pub content: Content,
    /// How big it is.
    pub size: Size,
    /// Which of the many clips of its kind: order of scenes, colours, pitch.
    pub seed: u64,
}

impl Style {
    /// A clip of full size with this content and seed 0.
    pub fn new(content: Content) -> Self {
        Self { content, size: Size::Hd, seed: 0 }
    }

    /// A clip for tests: small, with this content and seed.
    pub fn small(content: Content, seed: u64) -> Self {
        Self { content, size: Size::Small, seed }
    }
}

/// A clip that could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ClipError {
    /// What went wrong, with ffmpeg's own words.
    pub message: String,
}

/// Makes a clip of `seconds` (at least 1) at `path`, replacing what is there. Needs `ffmpeg` in `PATH`. Cancel safe: a
/// dropped call ends its child process and may leave part of the file.
pub async fn make(path: &Path, seconds: u32, style: Style) -> Result<(), ClipError> {
    let seconds = seconds.max(1);
    let dir = tempfile::tempdir().map_err(|error| failed("a temporary directory cannot be made", &error))?;
    let speech = match (style.content, style.size) {
        (Content::Full, Size::Hd) => speak(dir.path(), seconds, style.seed).await?,
        _ => None,
    };
    let mut target = std::ffi::OsString::from("file:");
    target.push(path);
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-hide_banner", "-v", "error", "-filter_complex_threads", "1"]);
    if let Some(speech) = &speech {
        command.arg("-i").arg(speech);
    }
    command.args(["-filter_complex", &graph(seconds, style, speech.is_some())]);
    if style.content != Content::AudioOnly {
        command.args(["-map", "[v]", "-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-threads", "2"]);
    }
    if style.content != Content::NoAudio {
        command.args(["-map", "[a]"]);
    }
    command
        .args(["-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact"])
        .args(["-metadata", &format!("title=clip {}", style.seed), "-t", &seconds.to_string(), "-y"])
        .arg(target);
    run(command, "ffmpeg").await
}

async fn speak(dir: &Path, seconds: u32, seed: u64) -> Result<Option<PathBuf>, ClipError> {
    let path = dir.join("speech.wav");
    let mut text = String::new();
    for scene in 0..scenes(seconds) {
        let _ = write!(text, "Now you see {}. ", SCENES[scene_index(scene, seed)].spoken);
    }
    let mut command = Command::new("espeak-ng");
    command.arg("-w").arg(&path).args(["-v", "en", "-s", "150", &text]);
    match run(command, "espeak-ng").await {
        Ok(()) => Ok(Some(path)),
        Err(error) if error.message.ends_with(NOT_INSTALLED) => Ok(None),
        Err(error) => Err(error),
    }
}

const NOT_INSTALLED: &str = "is not installed";

async fn run(mut command: Command, name: &str) -> Result<(), ClipError> {
    let child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn().map_err(
            |error| match error.kind() {
                io::ErrorKind::NotFound => ClipError { message: format!("{name} {NOT_INSTALLED}") },
                _ => failed(&format!("{name} does not start"), &error),
            },
        )?;
    let Ok(ended) = tokio::time::timeout(TIME_LIMIT, child.wait_with_output()).await else {
        let seconds = TIME_LIMIT.as_secs();
        return Err(ClipError { message: format!("{name} takes longer than {seconds} s") });
    };
    let output = ended.map_err(|error| failed(&format!("{name} is lost"), &error))?;
    if output.status.success() {
        return Ok(());
    }
    let log: String = String::from_utf8_lossy(&output.stderr).trim().chars().take(500).collect();
    Err(ClipError { message: format!("{name} fails ({}): {log}", output.status) })
}

fn failed(what: &str, error: &io::Error) -> ClipError {
    ClipError { message: format!("{what}: {error}") }
}

struct Scene {
    spoken: &'static str,
    /// An ffmpeg source; `@s` stands for the size, `@h` for the height, `@r` for the rate, `@n` for a number from the seed.
    source: &'static str,
}

const SCENES: [Scene; 6] = [
    Scene { spoken: "a test picture with a running counter", source: "testsrc2=s=@s:r=@r" },
    Scene { spoken: "a fractal that comes closer", source: "mandelbrot=s=@s:r=@r:maxiter=200:end_scale=0.02" },
    Scene {
        spoken: "cells that live and die",
        source: "life=s=320x180:r=@r:mold=10:seed=@n:ratio=0.3:death_color=#203080:life_color=#f0d020,scale=@s:flags=neighbor",
    },
    Scene {
        spoken: "colours that flow",
        source: "gradients=s=@s:r=@r:seed=@n:speed=0.05:n=4:c0=#d04020:c1=#20b060:c2=#3050d0:c3=#e0c040",
    },
    Scene {
        spoken: "a box that moves from side to side",
        source: "color=c=#106040:s=@s:r=@r[back@k];color=c=#f08020:s=@hx@h:r=@r,scale=iw/4:ih/4[box@k];\
                 [back@k][box@k]overlay=x='(W-w)*(0.5+0.5*sin(2*t+@n))':y='(H-h)*(0.5+0.5*cos(3*t))'",
    },
    Scene { spoken: "a noisy screen", source: "color=c=#b0b0c0:s=@s:r=@r,noise=alls=60:allf=t:all_seed=@n" },
];

fn scenes(seconds: u32) -> u32 {
    // Even the shortest clip has one cut.
    seconds.div_ceil(SCENE_SECONDS).clamp(2, MOST_SCENES)
}

fn scene_index(scene: u32, seed: u64) -> usize {
    usize::try_from((u64::from(scene) + seed % 6) % 6).unwrap_or(0)
}

/// The graph that gives `[v]` and `[a]`, as far as the content has them.
fn graph(seconds: u32, style: Style, speech: bool) -> String {
    let (size, height, rate) = match style.size {
        Size::Hd => ("1280x720", "720", "25"),
        Size::Small => ("160x120", "120", "10"),
    };
    let number = (style.seed % 100_000).to_string();
    let fill = |source: &str, k: u32| {
        let source = source.replace("@s", size).replace("@h", height).replace("@r", rate);
        source.replace("@n", &number).replace("@k", &k.to_string())
    };
    let tint = format!("hue=h={},format=yuv420p,setsar=1", style.seed * 47 % 360);
    let mut graph = String::new();
    match style.content {
        Content::AudioOnly => {}
        Content::Static => {
            let _ = write!(graph, "{},{tint}[v];", fill("smptehdbars=s=@s:r=@r", 0));
        }
        Content::Full | Content::NoAudio => {
            let count = scenes(seconds);
            let each = f64::from(seconds) / f64::from(count);
            for k in 0..count {
                let source = fill(SCENES[scene_index(k, style.seed)].source, k);
                let _ = write!(graph, "{source},trim=duration={each:.3},setpts=PTS-STARTPTS,{tint}[s{k}];");
            }
            (0..count).for_each(|k| {
                let _ = write!(graph, "[s{k}]");
            });
            let _ = write!(graph, "concat=n={count}:v=1:a=0[v];");
        }
    }
    if style.content != Content::NoAudio {
        let pitch = 220 + style.seed % 440;
        let tone = format!("aevalsrc='0.2*sin(2*PI*t*({pitch}+55*floor(t/{SCENE_SECONDS})))':s=44100:d={seconds}");
        let mix = if speech { "[t];[0:a]volume=2[w];[t][w]amix=inputs=2:duration=first" } else { "" };
        let _ = write!(graph, "{tone}{mix}[a]");
    }
    graph.trim_end_matches(';').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scene_is_shown_and_a_short_clip_still_has_a_cut() {
        assert_eq!((scenes(1), scenes(6), scenes(60), scenes(100_000)), (2, 2, 20, MOST_SCENES));
        let graph = graph(18, Style::new(Content::Full), false);
        for name in ["testsrc2", "mandelbrot", "life", "gradients", "overlay", "noise"] {
            assert!(graph.contains(name), "{name} is not in {graph}");
        }
        assert!(!graph.contains('@'), "{graph}");
    }

    #[tokio::test]
    async fn a_seed_makes_the_same_clip_again_and_another_seed_another() {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = Vec::new();
        for (name, seed) in [("a.mp4", 3), ("b.mp4", 3), ("c.mp4", 3 + 360 * 6)] {
            let path = dir.path().join(name);
            make(&path, 1, Style::small(Content::Full, seed)).await.unwrap();
            bytes.push(std::fs::read(path).unwrap());
        }
        assert!(bytes[0] == bytes[1] && bytes[0] != bytes[2]);
    }
}

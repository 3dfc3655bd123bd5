//! What a recipe says of its media. All of it decides bytes that a model is shown, and so which replies are found again.

use super::sound;

/// How media are prepared; part of every journal key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// At most this many key frames per video.
    pub max_frames: u32,
    /// Longest side of a frame in pixels; smaller clips are not enlarged.
    pub frame_size: u32,
    /// Sample rate of the mono sound, in Hz.
    pub audio_rate: u32,
    /// Sound beyond this many seconds is left out.
    pub audio_seconds: u32,
    /// How key frames are found.
    pub selection: Selection,
    /// What sound is encoded as.
    pub audio_format: AudioFormat,
    /// A clip that is shown as a whole and is larger, in MiB, is made smaller; 0: it goes as it is.
    pub clip_mib: u32,
    /// A clip that is shown as a whole and is longer, in seconds, is cut; 0: it goes as it is.
    pub clip_seconds: u32,
}

impl Default for Settings {
    /// Those of the built-in recipe.
    fn default() -> Self {
        Self {
            max_frames: 5,
            frame_size: 768,
            audio_rate: 16_000,
            audio_seconds: 600,
            selection: Selection::Fast,
            audio_format: AudioFormat::Wav,
            clip_mib: 0,
            clip_seconds: 0,
        }
    }
}

impl Settings {
    /// What makes no sense together, in one sentence; none if all does.
    pub fn problem(&self) -> Option<String> {
        sound::rate_problem(self.audio_format, self.audio_rate)
    }
}

/// How key frames are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Selection {
    /// The faithful measure on a sample of the picture: little more than the cost of decoding.
    Fast,
    /// As the paper's release: SSIM of consecutive frames at full size, below 0.6 (arXiv 2503.23219).
    Faithful,
}

/// What sound is encoded as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AudioFormat {
    /// PCM, 16 bits: every provider takes it.
    Wav,
    /// Half the size, nothing lost; Gemini takes it, `input_audio` of OpenAI does not.
    Flac,
    /// An eighth of the size.
    Mp3,
}

impl AudioFormat {
    /// Its name in recipes and at the end of file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wav => "wav",
            Self::Flac => "flac",
            Self::Mp3 => "mp3",
        }
    }

    /// The MIME type as it is sent.
    pub fn mime(self) -> &'static str {
        match self {
            Self::Wav => "audio/wav",
            Self::Flac => "audio/flac",
            Self::Mp3 => "audio/mpeg",
        }
    }
}

/// What a run shows of its media: nothing else is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Wants {
    /// Key frames.
    pub frames: bool,
    /// Sound.
    pub sound: bool,
    /// The clip as a whole.
    pub clip: bool,
}

impl Default for Wants {
    /// What the built-in recipe shows.
    fn default() -> Self {
        Self { frames: true, sound: true, clip: false }
    }
}

//! `aurelia demo`: the whole loop on real clips, without keys or money.
//!
//! It makes clips with ffmpeg, starts the simulator in this process, and runs a small corpus through the same code as
//! any run: the only thing that is not real is the models. The user's own keys and configuration are not looked at, so
//! that a demo can never cost anything.

pub mod clip;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::config::{self, Config};
use crate::recipe::Recipe;
use crate::simulator::{Latency, Settings, Simulator};
use clip::{Content, Style};

/// A demo ready to run.
#[derive(Debug)]
pub struct Demo {
    /// The simulated providers; they end when this is dropped.
    pub simulator: Simulator,
    /// Points at them.
    pub config: Config,
    /// The corpus in the demo's folder.
    pub corpus: PathBuf,
    /// Where records go.
    pub out: PathBuf,
}

/// The questions, by clip. The simulator answers them from its own imagination: it sees no picture.
const ITEMS: [(&str, &str, &str); 6] = [
    ("scenes-order", "scenes.mp4", "In which order do the scenes follow each other?"),
    ("scenes-sound", "scenes.mp4", "Which scene has the deepest tone?"),
    ("scenes-voice", "scenes.mp4", "What does the voice name last?"),
    ("silent-motion", "silent.mp4", "What moves fastest?"),
    ("still-sound", "still.mp4", "Does the sound change while the picture stands still?"),
    ("sound-only", "sound.m4a", "How many different tones are heard?"),
];

impl Demo {
    /// Makes clips and corpus in `folder`, where they are not there yet, and starts the simulator.
    ///
    /// # Errors
    /// One sentence: ffmpeg is missing, or the folder cannot be written.
    pub async fn prepare(folder: &Path, told: impl Fn(&str)) -> Result<Self, String> {
        let at = |e: std::io::Error| format!("{}: {e}", folder.display());
        std::fs::create_dir_all(folder).map_err(at)?;
        let clips = [
            ("scenes.mp4", 12, Style::new(Content::Full)),
            ("silent.mp4", 6, Style { seed: 1, ..Style::new(Content::NoAudio) }),
            ("still.mp4", 6, Style { seed: 2, ..Style::new(Content::Static) }),
            ("sound.m4a", 8, Style { seed: 3, ..Style::new(Content::AudioOnly) }),
        ];
        for (name, seconds, style) in clips {
            let path = folder.join(name);
            if !path.exists() {
                told(&format!("making {} ({seconds} s)\n", path.display()));
                let making = folder.join(format!("making-{name}"));
                clip::make(&making, seconds, style).await.map_err(|e| e.to_string())?;
                std::fs::rename(&making, &path).map_err(at)?;
            }
        }
        let corpus = folder.join("corpus.jsonl");
        std::fs::write(&corpus, lines()).map_err(at)?;
        let settings = Settings { latency: Latency::Lognormal { p50_ms: 120, p99_ms: 600 }, ..Settings::default() };
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let simulator = Simulator::start(settings, any_port).await.map_err(|e| format!("the simulator: {e}"))?;
        let config = configuration(&simulator.base_url())?;
        Ok(Self { simulator, config, corpus, out: folder.join("out") })
    }

    /// The default recipe.
    ///
    /// # Errors
    /// None in a build whose tests pass.
    pub fn recipe(&self) -> Result<Recipe, String> {
        Ok(crate::recipe::RecipeFile::builtin().map_err(|e| e.to_string())?.resolve(|_| true))
    }
}

fn lines() -> String {
    let line = |(id, file, query): &(&str, &str, &str)| {
        let kind = if *id == "sound-only" { "audio" } else { "video" };
        format!("{}\n", json!({ "id": id, kind: file, "query": query }))
    };
    ITEMS.iter().map(line).collect()
}

fn configuration(base_url: &str) -> Result<Config, String> {
    let setting = |name: &str, value: &str| (format!("AURELIA__PROVIDERS__{name}"), value.to_owned());
    let environment = [
        setting("GEMINI__BASE_URL", base_url),
        setting("GEMINI__IDENTITY", "simulator://gemini"),
        setting("OPENAI__BASE_URL", &format!("{base_url}/v1")),
        setting("OPENAI__IDENTITY", "simulator://openai"),
        ("GEMINI_API_KEY".to_owned(), "demo".to_owned()),
        ("OPENAI_API_KEY".to_owned(), "demo".to_owned()),
    ];
    Ok(config::load(&[], &environment).map_err(|mistakes| mistakes.to_string())?.config)
}

//! Recipes: who plays each role, with which prompt, and when a result is good enough.
//!
//! A recipe is one TOML file and the templates it names. [`RecipeFile`] is what was written; [`Recipe`] is what runs,
//! after the roles without a key have been given away. Only the latter has a digest, since only it says which model was
//! asked; the texts of its templates are part of it, so a stored recipe needs no files.
//!
//! The file is walked by hand and not derived from serde: a derive stops at the first mistake, and whoever copies and
//! changes a file wants all of them at once, by key. Templates are compiled and rendered on samples at load, because a
//! misspelt variable found at the thousandth item has already cost a thousand calls.

mod check;
mod file;
mod give_up;
mod template;
mod toml_keys;

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::media::{Settings, Wants};
use crate::provider::{Role, Thinking};
pub use give_up::GiveUp;
pub use template::{Template, TemplateKind};

/// The recipe used when none is named, as its commented file.
pub const BUILTIN: &str = include_str!("../config/recipes/default.toml");

/// What a role is shown of an item's media.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MediaMode {
    /// Nothing.
    #[serde(rename = "none")]
    None,
    /// Key frames.
    #[serde(rename = "frames")]
    Frames,
    /// Sound.
    #[serde(rename = "audio")]
    Audio,
    /// Key frames, then sound.
    #[serde(rename = "frames+audio")]
    FramesAndAudio,
    /// Each clip as a whole, with its own sound.
    #[serde(rename = "video")]
    Video,
    /// Each clip as a whole, then the sounds that are media of their own.
    #[serde(rename = "video+audio")]
    VideoAndAudio,
}

impl MediaMode {
    /// Whether key frames are shown.
    pub fn frames(self) -> bool {
        matches!(self, Self::Frames | Self::FramesAndAudio)
    }

    /// Whether sound is played: that of audio media, and of videos that are not shown as a whole.
    pub fn audio(self) -> bool {
        matches!(self, Self::Audio | Self::FramesAndAudio | Self::VideoAndAudio)
    }

    /// Whether clips are shown as a whole.
    pub fn video(self) -> bool {
        matches!(self, Self::Video | Self::VideoAndAudio)
    }

    /// What is shown, for templates: of `frames`, `video` and `audio` those that apply.
    pub fn shown(self) -> Vec<&'static str> {
        let all = [("frames", self.frames()), ("video", self.video()), ("audio", self.audio())];
        all.into_iter().filter(|(_, shown)| *shown).map(|(name, _)| name).collect()
    }

    /// The name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Frames => "frames",
            Self::Audio => "audio",
            Self::FramesAndAudio => "frames+audio",
            Self::Video => "video",
            Self::VideoAndAudio => "video+audio",
        }
    }
}

/// Who plays a role, and how it is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seat {
    /// A provider's name in the configuration.
    pub provider: String,
    /// The model's name as the provider knows it.
    pub model: String,
    /// Who is asked where this model cannot be, because of an outage or a used up quota, for `retry.fallback_after`; none: it
    /// is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// What it is shown.
    pub media: MediaMode,
    /// Most tokens of content in a reply, 1..=65536.
    pub max_output_tokens: u32,
    /// Thinking, apart from the content.
    pub thinking: Thinking,
    /// 0..=2; absent: the model's default.
    pub temperature: Option<f64>,
    /// Above 0, at most 1; absent: the model's default.
    pub top_p: Option<f64>,
    /// System instruction.
    pub system: Option<String>,
    /// The template of the first ask.
    pub prompt: Template,
    /// The generator's template from the second try on; no other role has one.
    pub feedback_prompt: Option<Template>,
}

/// Who is asked in place of a role's own model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fallback {
    /// A provider's name in the configuration.
    pub provider: String,
    /// The model's name as the provider knows it.
    pub model: String,
}

/// What runs. Cheap to clone; templates are compiled once and shared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// tau: a try is accepted at this score or above, 1..=10.
    pub threshold: u8,
    /// Tries of the loop, 1..=100.
    pub max_tries: u32,
    /// Asks for a usable reply per role and try, 1..=20.
    pub max_asks: u32,
    /// Mixed with the try and the ask into the seed that is sent.
    pub seed: u32,
    /// Whether the evaluator is also asked what was wrong.
    pub critique: bool,
    /// Whether a try is accepted only when its final answer matches the item's.
    pub answer_gate: bool,
    /// When a job is given up before its tries are used up: by the first rule that applies; empty: never.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub give_up: Vec<GiveUp>,
    /// How media are prepared.
    pub media: Settings,
    /// Writes the reasoning.
    pub generator: Arc<Seat>,
    /// Draws a caption from it.
    pub summarizer: Arc<Seat>,
    /// Scores the caption.
    pub evaluator: Arc<Seat>,
}

/// A recipe as written: a [`Recipe`] whose seats may still be given away.
#[derive(Debug, Clone, PartialEq)]
pub struct RecipeFile {
    recipe: Recipe,
    /// Per role in the order of [`Role::ALL`]: who plays it where its provider has no key.
    without_key: [Option<Role>; 3],
}

/// Everything that is wrong with a recipe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("recipe {origin} is unusable: {}", .problems.join("; "))]
pub struct RecipeError {
    /// The file, or `builtin`.
    pub origin: String,
    /// One sentence per mistake, each naming its key.
    pub problems: Vec<String>,
}

impl RecipeFile {
    /// The default recipe, compiled in.
    ///
    /// # Errors
    /// Never in a build whose tests pass.
    pub fn builtin() -> Result<Self, RecipeError> {
        file::parse(BUILTIN, "builtin", Path::new(""))
    }

    /// Reads a recipe and the templates it names, relative to it.
    ///
    /// # Errors
    /// The file cannot be read or is over 1 MiB; else every mistake in it, all at once.
    pub fn read(path: &Path) -> Result<Self, RecipeError> {
        let origin = path.display().to_string();
        match file::read_bounded(path) {
            Ok(text) => file::parse(&text, &origin, path.parent().unwrap_or(Path::new(""))),
            Err(problem) => Err(RecipeError { origin, problems: vec![problem] }),
        }
    }

    /// Puts another threshold or number of tries in place.
    ///
    /// # Errors
    /// A value out of its range.
    pub fn with(mut self, threshold: Option<u8>, max_tries: Option<u32>) -> Result<Self, RecipeError> {
        self.recipe.threshold = threshold.unwrap_or(self.recipe.threshold);
        self.recipe.max_tries = max_tries.unwrap_or(self.recipe.max_tries);
        let Recipe { threshold, max_tries, max_asks, ref media, .. } = self.recipe;
        match check::numbers(threshold, max_tries, max_asks, media) {
            problems if problems.is_empty() => Ok(self),
            problems => Err(RecipeError { origin: "as overridden".into(), problems }),
        }
    }

    /// The recipe that runs: a seat whose provider has no key takes the provider and model of the seat its
    /// `without_key` names, and so on along the chain. Where the last of a chain has no key either, the seat keeps that
    /// last one's provider, so that the missing key is named once.
    pub fn resolve(self, has_key: impl Fn(&str) -> bool) -> Recipe {
        let mut resolved = self.recipe.clone();
        for role in Role::ALL {
            let mut player = role;
            while !has_key(&self.recipe.seat(player).provider)
                && let Some(next) = self.without_key[player as usize]
            {
                player = next;
            }
            if player != role {
                let from = self.recipe.seat(player);
                let seat = Arc::make_mut(resolved.seat_mut(role));
                seat.provider.clone_from(&from.provider);
                seat.model.clone_from(&from.model);
                // Nobody stands in for himself.
                let Seat { provider, model, .. } = from;
                seat.fallback.take_if(|fallback| (&fallback.provider, &fallback.model) == (provider, model));
            }
        }
        resolved
    }
}

impl Seat {
    /// Providers and models that may play it: its own, then its fallback.
    pub fn players(&self) -> impl Iterator<Item = (&str, &str)> {
        let fallback = self.fallback.iter().map(|fallback| (&*fallback.provider, &*fallback.model));
        std::iter::once((&*self.provider, &*self.model)).chain(fallback)
    }
}

impl Recipe {
    /// The seat of a role.
    pub fn seat(&self, role: Role) -> &Seat {
        match role {
            Role::Generator => &self.generator,
            Role::Summarizer => &self.summarizer,
            Role::Evaluator => &self.evaluator,
        }
    }

    /// What its roles are shown of media, all together.
    pub fn wants(&self) -> Wants {
        let any = |shown: fn(MediaMode) -> bool| Role::ALL.iter().any(|role| shown(self.seat(*role).media));
        Wants { frames: any(MediaMode::frames), sound: any(MediaMode::audio), clip: any(MediaMode::video) }
    }

    fn seat_mut(&mut self, role: Role) -> &mut Arc<Seat> {
        match role {
            Role::Generator => &mut self.generator,
            Role::Summarizer => &mut self.summarizer,
            Role::Evaluator => &mut self.evaluator,
        }
    }

    /// blake3 (64 hex characters) of [`Recipe::to_json`].
    pub fn digest(&self) -> String {
        blake3::hash(self.to_json().as_bytes()).to_hex().to_string()
    }

    /// The whole recipe as compact JSON with sorted keys, templates as their texts. Equal recipes give equal bytes.
    pub fn to_json(&self) -> String {
        let seat = |seat: &Seat| {
            let mut json = serde_json::json!({
                "provider": seat.provider, "model": seat.model, "media": seat.media,
                "max_output_tokens": seat.max_output_tokens, "thinking": seat.thinking,
                "temperature": seat.temperature, "top_p": seat.top_p, "system": seat.system,
                "prompt": seat.prompt, "feedback_prompt": seat.feedback_prompt,
            });
            // As for give_up below.
            if let Some(fallback) = &seat.fallback {
                json["fallback"] = serde_json::json!(fallback);
            }
            json
        };
        let mut json = serde_json::json!({
            "threshold": self.threshold, "max_tries": self.max_tries, "max_asks": self.max_asks, "seed": self.seed,
            "critique": self.critique, "answer_gate": self.answer_gate, "media": self.media,
            "generator": seat(&self.generator), "summarizer": seat(&self.summarizer),
            "evaluator": seat(&self.evaluator),
        });
        // The digest of a recipe without such rules is what it was before there were any.
        if !self.give_up.is_empty() {
            json["give_up"] = serde_json::json!(self.give_up);
        }
        json.sort_all_objects();
        json.to_string()
    }

    /// Loads what [`Recipe::to_json`] gave, and checks it as a file is checked.
    ///
    /// # Errors
    /// It is not such JSON, or a value is out of its range.
    pub fn from_json(json: &str) -> Result<Self, RecipeError> {
        let error = |problems| RecipeError { origin: "as stored".into(), problems };
        let recipe: Self = serde_json::from_str(json).map_err(|problem| error(vec![problem.to_string()]))?;
        match check::all(&recipe) {
            problems if problems.is_empty() => Ok(recipe),
            problems => Err(error(problems)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builtin() -> RecipeFile {
        RecipeFile::builtin().unwrap()
    }

    fn parsed(text: &str) -> Result<RecipeFile, Vec<String>> {
        file::parse(text, "test", Path::new("/nowhere")).map_err(|error| error.problems)
    }

    fn fallback(provider: &str, model: &str) -> Fallback {
        Fallback { provider: provider.to_owned(), model: model.to_owned() }
    }

    #[test]
    fn a_seat_that_is_given_to_its_own_fallback_has_none() {
        let text = BUILTIN.replace(
            "without_key = \"generator\"",
            "without_key = \"generator\"\nfallback = { provider = \"gemini\", model = \"gemini-3.8-flash\" }",
        );
        let file = parsed(&text).unwrap();
        let whole = file.clone().resolve(|_| true).summarizer.fallback.clone();
        assert_eq!(whole, Some(fallback("gemini", "gemini-3.8-flash")));
        assert_eq!(file.resolve(|provider| provider == "gemini").summarizer.fallback, None);
    }

    #[test]
    fn the_builtin_recipe_is_what_its_file_says() {
        let recipe = builtin().resolve(|_| true);
        assert_eq!((recipe.threshold, recipe.max_tries, recipe.max_asks, recipe.seed), (6, 5, 3, 7));
        assert!(!recipe.critique && !recipe.answer_gate);
        assert_eq!(recipe.media, Settings::default());
        let seats: Vec<_> = Role::ALL
            .map(|role| recipe.seat(role))
            .map(|seat| (seat.provider.as_str(), seat.model.as_str(), seat.media))
            .into();
        assert_eq!(
            seats,
            [
                ("gemini", "gemini-3.8-flash", MediaMode::FramesAndAudio),
                ("openai", "gpt-4o-mini", MediaMode::None),
                ("gemini", "gemini-3.8-flash", MediaMode::FramesAndAudio),
            ]
        );
        assert_eq!(recipe.generator.thinking, Thinking::Off);
        assert!(recipe.generator.feedback_prompt.is_some() && recipe.summarizer.feedback_prompt.is_none());
    }

    #[test]
    fn a_seat_without_a_key_is_given_away_and_keeps_the_rest() {
        let with = builtin().resolve(|_| true);
        let without = builtin().resolve(|provider| provider == "gemini");
        assert_eq!(
            (without.summarizer.provider.as_str(), without.summarizer.model.as_str()),
            ("gemini", "gemini-3.8-flash")
        );
        assert_eq!((without.summarizer.max_output_tokens, without.summarizer.media), (512, MediaMode::None));
        assert_eq!(without.summarizer.prompt, with.summarizer.prompt);
        assert_ne!(with.digest(), without.digest(), "the digest says who really plays");
        assert_eq!(builtin().resolve(|_| false).summarizer.provider, "gemini");
        assert_eq!(builtin().resolve(|_| false).generator.provider, "gemini");
    }

    #[test]
    fn a_chain_of_seats_ends_at_the_first_key() {
        let text = BUILTIN.replace("without_key = \"generator\"", "without_key = \"evaluator\"").replace(
            "[roles.evaluator]\nprovider = \"gemini\"\nmodel = \"gemini-3.8-flash\"",
            "[roles.evaluator]\nprovider = \"other\"\nmodel = \"judge\"\nwithout_key = \"generator\"",
        );
        let file = parsed(&text).unwrap();
        assert_eq!(file.clone().resolve(|provider| provider != "openai").summarizer.model, "judge");
        assert_eq!(file.resolve(|provider| provider == "gemini").summarizer.model, "gemini-3.8-flash");
    }

    #[test]
    fn a_stored_recipe_is_loaded_back_as_it_was() {
        let recipe = builtin().with(Some(9), Some(2)).unwrap().resolve(|_| true);
        let json = recipe.to_json();
        let back = Recipe::from_json(&json).unwrap();
        assert_eq!((back.to_json(), back.digest()), (json.clone(), recipe.digest()));
        assert_eq!(back, recipe);
        assert_eq!(serde_json::to_value(&recipe).unwrap(), serde_json::from_str::<serde_json::Value>(&json).unwrap());
        let ruled = Recipe { give_up: vec![GiveUp { after_try: 2, below_score: 3 }], ..recipe.clone() };
        assert_eq!(Recipe::from_json(&ruled.to_json()).unwrap(), ruled);
        let mut helped = recipe.clone();
        Arc::make_mut(&mut helped.generator).fallback = Some(fallback("openai", "gpt-4o"));
        assert_eq!(Recipe::from_json(&helped.to_json()).unwrap(), helped);
        for absent in ["give_up", "fallback"] {
            assert!(!json.contains(absent), "a recipe without {absent} keeps its digest");
        }
        assert!(Recipe::from_json(&json.replace("\"threshold\":9", "\"threshold\":11")).is_err());
        assert!(Recipe::from_json(&json.replace("tojson", "tojosn")).is_err());
        assert!(Recipe::from_json(&json.replace("\"seed\"", "\"sead\"")).is_err());
    }

    #[test]
    fn the_digest_covers_every_value_and_template() {
        let digest = |text: &str| parsed(text).unwrap().resolve(|_| true).digest();
        let mut seen = vec![digest(BUILTIN)];
        assert_eq!(digest(&format!("# a comment\n{BUILTIN}")), seen[0]);
        for (from, to) in [
            ("threshold = 6", "threshold = 7"),
            ("max_tries = 5", "max_tries = 6"),
            ("max_asks = 3", "max_asks = 4"),
            ("seed = 7", "seed = 8"),
            ("critique = false", "critique = true"),
            ("answer_gate = false", "answer_gate = true"),
            ("answer_gate = false", "answer_gate = false\ngive_up = [{ after_try = 2, below_score = 3 }]"),
            ("answer_gate = false", "answer_gate = false\ngive_up = [{ after_try = 2, below_score = 4 }]"),
            ("answer_gate = false", "answer_gate = false\ngive_up = [{ after_try = 3, below_score = 4 }]"),
            ("frame_size = 768", "frame_size = 512"),
            ("temperature = 0.7", "temperature = 0.7\nfallback = { provider = \"openai\", model = \"gpt-4o\" }"),
            ("temperature = 0.7", "temperature = 0.7\nfallback = { provider = \"openai\", model = \"gpt-5\" }"),
            ("model = \"gpt-4o-mini\"", "model = \"gpt-4o\""),
            ("temperature = 0.7", "temperature = 1"),
            ("temperature = 0.7", "temperature = 0.7\ntop_p = 0.9"),
            ("temperature = 0.7", "temperature = 0.7\nsystem = \"Be brief.\""),
            ("thinking = \"off\"", "thinking = { budget = 100 }"),
            ("thinking = \"off\"", "thinking = \"default\""),
            ("media = \"frames+audio\"", "media = \"audio\""),
            ("max_output_tokens = 512", "max_output_tokens = 513"),
        ] {
            assert!(BUILTIN.contains(from), "{from}");
            seen.push(digest(&BUILTIN.replacen(from, to, 1)));
        }
        let count = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }

    #[test]
    fn every_mistake_of_a_file_is_named_at_once() {
        let text = BUILTIN
            .replace("threshold = 6", "threshold = 11")
            .replace("max_tries = 5", "max_tries = 0")
            .replace("max_asks = 3", "max_ask = 3")
            .replace("seed = 7", "seed = -7")
            .replace("critique = false", "critique = \"no\"")
            .replace("audio_rate = 16000", "audio_rate = 16")
            .replace("audio_format = \"wav\"", "audio_format = \"mp3\"")
            .replace("temperature = 0.7", "temperature = 2.5\ntop_p = 0\nretries = 3")
            .replace("thinking = \"off\"\ntemperature = 0.0\nprompt = \"builtin:summarizer\"", "thinking = \"lots\"\ntemperature = \"x\"\nprompt = \"builtin:caption\"\nfeedback_prompt = \"builtin:feedback\"")
            .replace("without_key = \"generator\"", "without_key = \"summarizer\"")
            .replace("prompt = \"builtin:evaluator\"", "prompt = \"missing.txt\"")
            .replace("max_output_tokens = 1024", "max_output_tokens = 65537");
        let problems = parsed(&text).unwrap_err().join("\n");
        for problem in [
            "max_asks is missing",
            "max_ask is unknown (known: threshold, max_tries, max_asks, seed, critique, answer_gate, give_up, media, roles)",
            "seed is -7, not a whole number of its range",
            "critique is \"no\", not true or false",
            "roles.generator.retries is unknown",
            "roles.summarizer.thinking is \"lots\", not \"off\", \"default\" or { budget = TOKENS }",
            "roles.summarizer.temperature is \"x\", not a number",
            "roles.summarizer.prompt builtin:caption: is unknown (known: builtin:generator,",
            "roles.summarizer.without_key is \"summarizer\", not another role",
            "roles.evaluator.prompt missing.txt: cannot read /nowhere/missing.txt: ",
            "threshold is 11, not 1 to 10",
            "max_tries is 0, not 1 to 100",
            "media.audio_rate is 16, not 8000 to 48000",
            "media.audio_rate is 16, and mp3 knows only 8000, 11025,",
            "roles.generator.temperature is 2.5, not 0 to 2",
            "roles.generator.top_p is 0, not above 0 and at most 1",
            "roles.evaluator.max_output_tokens is 65537, not 1 to 65536",
        ] {
            assert!(problems.contains(problem), "{problem}\nis not in\n{problems}");
        }
    }

    #[test]
    fn values_that_make_no_sense_together_are_refused() {
        for (from, to, problem) in [
            (
                "media = \"none\"",
                "media = \"frames\"",
                "roles.summarizer.media is not \"none\", but the summarizer writes from the reasoning alone",
            ),
            (
                "media = \"frames+audio\"",
                "media = \"none\"",
                "roles.generator.media is \"none\", but the generator has to see or hear the clip",
            ),
            (
                "media = \"frames+audio\"",
                "media = \"film\"",
                "roles.generator.media is \"film\", not \"none\", \"frames\", \"audio\", \"frames+audio\", \"video\" or \"video+audio\"",
            ),
            ("feedback_prompt = \"builtin:feedback\"", "", "roles.generator.feedback_prompt is missing"),
            (
                "prompt = \"builtin:evaluator\"",
                "prompt = \"builtin:evaluator\"\nfeedback_prompt = \"builtin:feedback\"",
                "roles.evaluator.feedback_prompt is given, but only the generator has one",
            ),
            (
                "prompt = \"builtin:evaluator\"",
                "prompt = \"builtin:generator\"",
                "roles.evaluator.prompt: line 4: unknown variable question (known: caption, ask_critique, shown)",
            ),
            (
                "provider = \"gemini\"",
                "provider = \"\"",
                "roles.generator.provider is \"\", not 1 to 64 of A-Z a-z 0-9 _ . -",
            ),
            (
                "model = \"gpt-4o-mini\"",
                "model = \"gpt 4o\"",
                "roles.summarizer.model is \"gpt 4o\", not 1 to 256 characters without white space",
            ),
            (
                "thinking = \"off\"",
                "thinking = { budget = 0 }",
                "roles.generator.thinking.budget is 0, not 1 to 65536; \"off\" turns it off",
            ),
            ("temperature = 0.7", "temperature = nan", "roles.generator.temperature is NaN, not 0 to 2"),
            ("[roles.evaluator]", "[roles.judge]", "roles.evaluator is missing"),
            (
                "answer_gate = false",
                "answer_gate = false\ngive_up = [{ after_try = 2, below_score = 11 }]",
                "give_up[0].below_score is 11, not 2 to 10",
            ),
            (
                "answer_gate = false",
                "answer_gate = false\ngive_up = [{ after_try = 2, below_score = 3 }, { after_try = 0, below_score = 3 }]",
                "give_up[1].after_try is 0, not 1 to 100",
            ),
            (
                "answer_gate = false",
                "answer_gate = false\ngive_up = { after_try = 2, below = 3 }",
                "give_up is a table, not a list of { after_try = N, below_score = S }",
            ),
            ("threshold = 6", "threshold = 6.5", "threshold is 6.5, not a whole number of its range"),
            ("threshold = 6", "threshold = ", "line 5: "),
        ] {
            assert!(BUILTIN.contains(from), "{from}");
            let problems = parsed(&BUILTIN.replacen(from, to, 1)).unwrap_err();
            assert!(problems.iter().any(|found| found.starts_with(problem)), "{problem}\n{problems:?}");
        }
    }

    #[test]
    fn a_fallback_is_another_provider_or_model_and_both_are_named() {
        for (fallback, problem) in [
            ("{ provider = \"gemini\", model = \"gemini-3.8-flash\" }", " is the role's own model"),
            (
                "{ provider = \"open ai\", model = \"gpt-4o\" }",
                ".provider is \"open ai\", not 1 to 64 of A-Z a-z 0-9 _ . -",
            ),
            ("{ model = \"gpt-4o\" }", " is a table, not { provider = NAME, model = NAME }"),
        ] {
            let line = format!("temperature = 0.7\nfallback = {fallback}");
            let problems = parsed(&BUILTIN.replacen("temperature = 0.7", &line, 1)).unwrap_err();
            assert_eq!(problems, [format!("roles.generator.fallback{problem}")]);
        }
    }

    #[test]
    fn seats_that_lead_to_each_other_are_refused() {
        let text = BUILTIN.replace("[roles.generator]", "[roles.generator]\nwithout_key = \"summarizer\"");
        assert_eq!(
            parsed(&text).unwrap_err(),
            [
                "roles.generator.without_key leads back to generator",
                "roles.summarizer.without_key leads back to summarizer"
            ]
        );
    }

    #[test]
    fn an_override_out_of_range_is_refused() {
        assert_eq!(builtin().with(Some(10), None).unwrap().resolve(|_| true).threshold, 10);
        assert_eq!(builtin().with(None, Some(100)).unwrap().resolve(|_| true).max_tries, 100);
        let error = builtin().with(Some(0), Some(101)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "recipe as overridden is unusable: threshold is 0, not 1 to 10; max_tries is 101, not 1 to 100"
        );
    }

    #[test]
    fn templates_are_read_beside_the_recipe() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        std::fs::create_dir(folder.path().join("prompts")).unwrap();
        let prompt = folder.path().join("prompts/judge.txt");
        std::fs::write(&path, BUILTIN.replace("builtin:evaluator", "prompts/judge.txt")).unwrap();
        std::fs::write(&prompt, "Judge\n{{ caption | tojson }}").unwrap();
        let recipe = RecipeFile::read(&path).unwrap().resolve(|_| true);
        assert_eq!(recipe.evaluator.prompt.text(), "Judge\n{{ caption | tojson }}");
        std::fs::write(&prompt, "Judge\n{{ captoin | tojson }}").unwrap();
        let error = RecipeFile::read(&path).unwrap_err();
        assert_eq!(
            error.problems,
            ["roles.evaluator.prompt: line 2: unknown variable captoin (known: caption, ask_critique, shown)"]
        );
        std::fs::write(&prompt, "Judge\n{{ caption").unwrap();
        let error = RecipeFile::read(&path).unwrap_err();
        assert!(error.problems[0].starts_with("roles.evaluator.prompt prompts/judge.txt: line 2: "), "{error}");
        std::fs::write(&prompt, vec![b'x'; 1024 * 1024 + 1]).unwrap();
        assert!(RecipeFile::read(&path).unwrap_err().to_string().contains("has more than 1048576 bytes"));
        assert!(RecipeFile::read(&folder.path().join("none.toml")).unwrap_err().to_string().contains("cannot read"));
    }
}

//! From a recipe's TOML text to a [`RecipeFile`].

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use toml::Table;

use super::toml_keys::Keys;
use super::{GiveUp, MediaMode, Recipe, RecipeError, RecipeFile, Seat, Template, check};
use crate::media::{AudioFormat, Selection, Settings};
use crate::provider::{Role, Thinking};

const MAX_FILE: u64 = 1024 * 1024;
/// The templates compiled in.
const TEMPLATES: [(&str, &str); 4] = [
    ("generator", include_str!("../../config/prompts/generator.txt")),
    ("feedback", include_str!("../../config/prompts/feedback.txt")),
    ("summarizer", include_str!("../../config/prompts/summarizer.txt")),
    ("evaluator", include_str!("../../config/prompts/evaluator.txt")),
];

/// Reads a text file of at most 1 MiB.
pub(super) fn read_bounded(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text));
    match read {
        Ok(size) if size as u64 > MAX_FILE => Err(format!("{} has more than {MAX_FILE} bytes", path.display())),
        Ok(_) => Ok(text),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}

/// Parses a recipe whose templates lie in `folder`.
pub(super) fn parse(text: &str, origin: &str, folder: &Path) -> Result<RecipeFile, RecipeError> {
    let mut problems = Vec::new();
    let file = match text.parse::<Table>() {
        Ok(table) => walk(table, folder, &mut problems),
        Err(error) => {
            let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            problems.push(format!("line {line}: {}", error.message().replace('\n', ", ")));
            None
        }
    };
    match file {
        Some(file) if problems.is_empty() => Ok(file),
        _ => Err(RecipeError { origin: origin.to_owned(), problems }),
    }
}

fn walk(table: Table, folder: &Path, problems: &mut Vec<String>) -> Option<RecipeFile> {
    let mut keys = Keys::new(table, "", problems);
    let threshold = keys.whole("threshold", 1_u8);
    let max_tries = keys.whole("max_tries", 1_u32);
    let max_asks = keys.whole("max_asks", 1_u32);
    let seed = keys.whole("seed", 0_u32);
    let critique = keys.flag("critique");
    let answer_gate = keys.flag("answer_gate");
    let give_up: Vec<GiveUp> =
        keys.optional_value("give_up", "a list of { after_try = N, below_score = S }").unwrap_or_default();
    let media = keys.table("media");
    let roles = keys.table("roles");
    keys.finish();
    let media = settings(media?, problems);
    problems.extend(check::numbers(threshold, max_tries, max_asks, &media));
    problems.extend(check::give_up(&give_up));
    let mut keys = Keys::new(roles?, "roles", problems);
    let tables = ["generator", "summarizer", "evaluator"].map(|role| keys.table(role));
    keys.finish();
    let mut without_key = [None; 3];
    let mut seats = Vec::new();
    for (role, table) in Role::ALL.into_iter().zip(tables) {
        let Some(table) = table else { continue };
        let (seat, instead) = seat(role, table, folder, problems)?;
        check::seat(role, &seat, problems);
        without_key[role as usize] = instead;
        seats.push(Arc::new(seat));
    }
    chains(without_key, problems);
    let [generator, summarizer, evaluator] = <[_; 3]>::try_from(seats).ok()?;
    let recipe = Recipe {
        threshold,
        max_tries,
        max_asks,
        seed,
        critique,
        answer_gate,
        give_up,
        media,
        generator,
        summarizer,
        evaluator,
    };
    Some(RecipeFile { recipe, without_key })
}

fn settings(table: Table, problems: &mut Vec<String>) -> Settings {
    let mut keys = Keys::new(table, "media", problems);
    let settings = Settings {
        max_frames: keys.whole("max_frames", 1),
        frame_size: keys.whole("frame_size", 32),
        audio_rate: keys.whole("audio_rate", 8_000),
        audio_seconds: keys.whole("audio_seconds", 1),
        selection: keys.value("selection", "\"fast\" or \"faithful\"").unwrap_or(Selection::Fast),
        audio_format: keys.value("audio_format", "\"wav\", \"flac\" or \"mp3\"").unwrap_or(AudioFormat::Wav),
        clip_mib: keys.whole("clip_mib", 0),
        clip_seconds: keys.whole("clip_seconds", 0),
    };
    keys.finish();
    settings
}

/// One seat, with stand-ins for what is wrong, and who plays it without a key. `None` only when a template compiled in
/// does not compile.
fn seat(role: Role, table: Table, folder: &Path, problems: &mut Vec<String>) -> Option<(Seat, Option<Role>)> {
    let mut keys = Keys::new(table, &format!("roles.{role}"), problems);
    let stand_in = if role == Role::Summarizer { MediaMode::None } else { MediaMode::FramesAndAudio };
    let without_key = keys_without(role, &mut keys);
    let mut seat = Seat {
        provider: keys.needed_text("provider").unwrap_or_else(|| "missing".into()),
        model: keys.needed_text("model").unwrap_or_else(|| "missing".into()),
        fallback: keys.optional_value("fallback", "{ provider = NAME, model = NAME }"),
        media: keys
            .value("media", "\"none\", \"frames\", \"audio\", \"frames+audio\", \"video\" or \"video+audio\"")
            .unwrap_or(stand_in),
        max_output_tokens: keys.whole("max_output_tokens", 1),
        thinking: keys.value("thinking", "\"off\", \"default\" or { budget = TOKENS }").unwrap_or(Thinking::Off),
        temperature: keys.fraction("temperature"),
        top_p: keys.fraction("top_p"),
        system: keys.text("system"),
        prompt: Template::compile(builtin(role.name())?).ok()?,
        feedback_prompt: None,
    };
    if let Some(name) = keys.needed_text("prompt") {
        seat.prompt = template("prompt", &name, folder, &mut keys).unwrap_or(seat.prompt);
    }
    if let Some(name) = keys.text("feedback_prompt") {
        let stand_in = Template::compile(builtin("feedback")?).ok()?;
        seat.feedback_prompt = Some(template("feedback_prompt", &name, folder, &mut keys).unwrap_or(stand_in));
    }
    keys.finish();
    Some((seat, without_key))
}

fn keys_without(role: Role, keys: &mut Keys<'_>) -> Option<Role> {
    let name = keys.text("without_key")?;
    let other = Role::ALL.into_iter().find(|other| other.name() == name && *other != role);
    if other.is_none() {
        keys.problem(&format!("without_key is {name:?}, not another role"));
    }
    other
}

fn builtin(name: &str) -> Option<&'static str> {
    TEMPLATES.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// Loads and compiles `builtin:NAME` or a file.
fn template(key: &str, name: &str, folder: &Path, keys: &mut Keys<'_>) -> Option<Template> {
    let text = match name.strip_prefix("builtin:") {
        Some(known) => builtin(known).map(str::to_owned).ok_or_else(|| {
            let known = TEMPLATES.map(|(known, _)| format!("builtin:{known}"));
            format!("is unknown (known: {})", known.join(", "))
        }),
        None => read_bounded(&folder.join(name)),
    };
    match text.and_then(|text| Template::compile(&text)) {
        Ok(template) => Some(template),
        Err(problem) => {
            keys.problem(&format!("{key} {name}: {problem}"));
            None
        }
    }
}

/// Notes every role whose chain of `without_key` comes back to it.
fn chains(without_key: [Option<Role>; 3], problems: &mut Vec<String>) {
    for role in Role::ALL {
        let mut next = without_key[role as usize];
        for _ in 0..Role::ALL.len() {
            if next == Some(role) {
                problems.push(format!("roles.{role}.without_key leads back to {role}"));
                break;
            }
            next = next.and_then(|player| without_key[player as usize]);
        }
    }
}

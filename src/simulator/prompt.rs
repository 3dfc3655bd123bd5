//! What the simulator understands of a prompt: the role asked for, the scene, the take.
//!
//! A provider sees text and media and nothing else, so all of it is read from there: the data between the templates'
//! tags is JSON, a caption makes an evaluator, steps a summarizer, a question a generator. The scene is a hash of the
//! question and the media; the generator writes it into its steps with the number of the take, in plain words, and
//! whoever reads those words later knows both. Nothing is kept in memory between calls.

use super::directive::{self, Order};
use super::draw;

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Seat {
    Generator,
    Summarizer,
    Evaluator,
    /// No role of the loop: a plain question to a chat model.
    Plain,
}

impl Seat {
    /// Its name in directives and statistics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Generator => "generator",
            Self::Summarizer => "summarizer",
            Self::Evaluator => "evaluator",
            Self::Plain => "plain",
        }
    }

    /// The seat of this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Self::Generator, Self::Summarizer, Self::Evaluator, Self::Plain].into_iter().find(|seat| seat.name() == name)
    }
}

/// A prompt as it was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prompt {
    pub(crate) seat: Seat,
    /// Eight hexadecimal digits.
    pub(crate) scene: String,
    /// From 1.
    pub(crate) take: u32,
    pub(crate) orders: Vec<Order>,
    pub(crate) choices: Vec<String>,
    pub(crate) wants_critique: bool,
}

/// Reads the text of a call. `media`: digests in order. `properties`: names the reply schema requires.
/// Errors: a directive that is not understood.
pub(crate) fn read(text: &str, media: &[u128], properties: &[String]) -> Result<Prompt, String> {
    let question = tag(text, "question");
    let (caption, steps) = (tag(text, "caption"), tag(text, "steps"));
    let asks = |name: &str| properties.iter().any(|property| property == name);
    let seat = if caption.is_some() || (asks("score") && question.is_none()) {
        Seat::Evaluator
    } else if steps.is_some() || asks("caption") {
        Seat::Summarizer
    } else if question.is_some() || asks("reasoning_steps") {
        Seat::Generator
    } else {
        Seat::Plain
    };
    let mut orders = Vec::new();
    let sources = match seat {
        Seat::Generator => [question.clone().or_else(|| Some(text.to_owned())), None],
        Seat::Summarizer => [question.clone(), steps.clone().or_else(|| Some(text.to_owned()))],
        Seat::Evaluator => [caption.clone().or_else(|| Some(text.to_owned())), None],
        Seat::Plain => [Some(text.to_owned()), None],
    };
    for source in sources.iter().flatten() {
        directive::collect(source, &mut orders)?;
    }
    let subject = question.as_deref().or(caption.as_deref()).unwrap_or(text);
    let (scene, take) = match seat {
        Seat::Generator => (scene(subject, media), next_take(tag(text, "previous_steps").as_deref())),
        _ => sources
            .iter()
            .rev()
            .flatten()
            .find_map(|text| mark(text))
            .map_or_else(|| (scene(subject, &[]), 1), |(take, scene)| (scene, take)),
    };
    Ok(Prompt {
        seat,
        scene,
        take,
        orders,
        choices: choices(text),
        wants_critique: asks("critique") || (properties.is_empty() && text.contains("\"critique\"")),
    })
}

/// The text between `<name>` and `</name>`; a JSON text or list of texts there is unwrapped.
fn tag(text: &str, name: &str) -> Option<String> {
    let start = text.find(&format!("<{name}>"))? + name.len() + 2;
    let end = start + text[start..].find(&format!("</{name}>"))?;
    let inner = text[start..end].trim();
    Some(match serde_json::from_str(inner) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(serde_json::Value::Array(items)) => {
            let lines = items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned));
            lines.collect::<Vec<_>>().join("\n")
        }
        _ => inner.to_owned(),
    })
}

fn choices(text: &str) -> Vec<String> {
    let Some(start) = text.find("<choices>") else { return Vec::new() };
    let Some(end) = text[start..].find("</choices>") else { return Vec::new() };
    serde_json::from_str(text[start + 9..start + end].trim()).unwrap_or_default()
}

fn scene(subject: &str, media: &[u128]) -> String {
    let media: Vec<[u8; 16]> = media.iter().map(|digest| digest.to_le_bytes()).collect();
    let mut parts = vec![subject.as_bytes()];
    parts.extend(media.iter().map(<[u8; 16]>::as_slice));
    format!("{:08x}", draw::digest(&parts) & 0xffff_ffff)
}

fn next_take(previous: Option<&str>) -> u32 {
    previous.map_or(1, |text| mark(text).map_or(2, |(take, _)| take.saturating_add(1)))
}

const WORDS: [&str; 12] =
    ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"];
const ROMAN: [&str; 12] = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"];

/// The ways to write a take's number, the plainest first: a step must be able to avoid an answer such as "2".
pub(crate) fn spellings(take: u32) -> Vec<String> {
    let mut list = vec![take.to_string()];
    let at = usize::try_from(take).unwrap_or(0).wrapping_sub(1);
    list.extend([&WORDS, &ROMAN].into_iter().filter_map(|names| names.get(at)).map(|&name| name.to_owned()));
    list
}

/// The mark as it stands in a text.
pub(crate) fn write_mark(take: &str, scene: &str) -> String {
    format!("Take {take} on scene {scene}")
}

/// The first mark in a text: take and scene.
pub(crate) fn mark(text: &str) -> Option<(u32, String)> {
    text.match_indices(" on scene ").find_map(|(at, found)| {
        let scene: String = text[at + found.len()..].chars().take_while(char::is_ascii_hexdigit).collect();
        let (before, number) = text[..at].rsplit_once(|c: char| c.is_whitespace())?;
        let take = number.parse().ok().or_else(|| position(&WORDS, number)).or_else(|| position(&ROMAN, number))?;
        (scene.len() == 8 && before.to_ascii_lowercase().ends_with("take")).then_some((take, scene))
    })
}

fn position(names: &[&str], name: &str) -> Option<u32> {
    u32::try_from(names.iter().position(|known| known.eq_ignore_ascii_case(name))? + 1).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &str) -> Prompt {
        read(text, &[], &[]).unwrap()
    }

    #[test]
    fn the_role_is_told_by_the_data_a_prompt_holds() {
        for (text, seat) in [
            (r#"<question>"Why?"</question>"#, Seat::Generator),
            (r#"<question>"Why?"</question><steps>["a"]</steps><step_answers>[]</step_answers>"#, Seat::Summarizer),
            (r#"<caption>"A dog."</caption>"#, Seat::Evaluator),
            ("Tell me a joke.", Seat::Plain),
        ] {
            assert_eq!(seen(text).seat, seat, "{text}");
        }
        assert_eq!(read("Score it.", &[], &["score".into()]).unwrap().seat, Seat::Evaluator);
    }

    #[test]
    fn the_scene_depends_on_question_and_media_and_not_on_the_wording_around() {
        let a = read(r#"One. <question>"Why?"</question>"#, &[1], &[]).unwrap();
        let b = read(r#"Two. <question>"Why?"</question>"#, &[1], &[]).unwrap();
        let c = read(r#"One. <question>"Why?"</question>"#, &[2], &[]).unwrap();
        assert_eq!(a.scene, b.scene);
        assert_ne!(a.scene, c.scene);
    }

    #[test]
    fn feedback_is_the_take_after_the_one_in_the_previous_steps() {
        let text = r#"<question>"Why?"</question><previous_steps>["Take 3 on scene 00c0ffee: look."]</previous_steps>"#;
        assert_eq!(seen(text).take, 4);
        assert_eq!(seen(r#"<question>"Why?"</question><previous_steps>["x"]</previous_steps>"#).take, 2);
    }

    #[test]
    fn a_mark_is_read_in_every_spelling() {
        for take in 1..15 {
            for number in spellings(take) {
                let text = format!("So. {} begins", write_mark(&number, "00c0ffee"));
                assert_eq!(mark(&text), Some((take, "00c0ffee".to_owned())), "{text}");
            }
        }
        assert_eq!(mark("What happens on scene 00c0ffee?"), None);
    }

    #[test]
    fn a_directive_reaches_each_role_from_its_own_data_only() {
        let scored = vec![Order::Scores(vec![4])];
        assert_eq!(seen(r#"<question>"Why? [[sim: score=4]]"</question>"#).orders, scored);
        assert_eq!(seen(r#"<caption>"A dog. [[sim: score=4]]"</caption>"#).orders, scored);
        assert_eq!(seen(r#"[[sim: score=9]] <caption>"A dog."</caption>"#).orders, []);
    }
}

//! The parts the simulator plays: steps, captions and scores that are the same whenever they are asked for.
//!
//! A reply depends on the scene and the take alone, never on the seed or a parameter, so that a re-ask of a prompt that
//! met a fault is answered well. Scores start at 2 to 6 and rise by 1 or 2 with each take, up to 10: with a threshold of 6
//! about half of all items pass within two takes, nearly all within four, and 3 % stay at 5 or below for ever.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::directive::{self, Order, Style};
use super::draw;
use super::prompt::{self, Prompt, Seat};

const PLACES: [&str; 8] = [
    "a narrow street at dusk",
    "a bright kitchen",
    "a school gym",
    "a harbour in fog",
    "a small stage",
    "a garden after rain",
    "a crowded platform",
    "a workshop with open doors",
];
const ACTORS: [&str; 8] = [
    "an old man in a green coat",
    "two children",
    "a woman with a cello",
    "a cyclist",
    "a drummer",
    "a cook",
    "a grey dog",
    "a group of dancers",
];
const SOUNDS: [&str; 8] = [
    "a slow drum",
    "gulls far away",
    "laughter",
    "a kettle that begins to whistle",
    "rain on tin",
    "an engine that starts",
    "a bell, struck twice",
    "a voice that counts in",
];
const ANSWERS: [&str; 8] = [
    "because the bell rings",
    "the drummer",
    "a kettle",
    "left to right",
    "the grey dog",
    "it starts to rain",
    "a cello",
    "they are celebrating",
];
const LOOKS: [[&str; 3]; 4] = [
    [
        "watch who enters the picture and from which side, since it fixes the order of events",
        "study the opening frames with care",
        "look",
    ],
    [
        "Listen for the moment the sound changes, and compare it with what moves just then",
        "Follow the sound from start to end",
        "Listen",
    ],
    [
        "Compare the middle frame with the one before it, to tell a cut from a movement",
        "Compare neighbouring frames",
        "Compare",
    ],
    [
        "Check whether the last frame and the last sound agree, which rules out the other readings",
        "Check the ending",
        "Check",
    ],
];

/// The reply's text for a prompt. `schema`: what the reply must look like, if the request has one.
pub(crate) fn write(prompt: &Prompt, text: &str, schema: Option<&Value>, wants_json: bool, style: Style) -> String {
    let value = match prompt.seat {
        Seat::Generator => generate(prompt),
        Seat::Evaluator => evaluate(prompt),
        Seat::Summarizer => json!({ "caption": caption(prompt) }),
        Seat::Plain => json!({ "text": echo(text) }),
    };
    let structured = schema.is_some() || wants_json || matches!(prompt.seat, Seat::Generator | Seat::Evaluator);
    if !structured {
        let plain = value.get("caption").or_else(|| value.get("text"));
        return plain.and_then(Value::as_str).unwrap_or_default().to_owned();
    }
    let value = schema.map_or(value.clone(), |schema| fill(schema, &value, prompt, 0));
    dress(&value, style_of(prompt, style), prompt)
}

fn style_of(prompt: &Prompt, default: Style) -> Style {
    let ordered =
        prompt.orders.iter().find_map(|order| if let Order::Style(style) = order { Some(*style) } else { None });
    match ordered.unwrap_or(default) {
        Style::Varied => {
            let styles = [Style::Plain, Style::Fenced, Style::Prose, Style::Python, Style::ListInString];
            styles[usize::try_from(draw::below(id(prompt), "style", 5)).unwrap_or(0)]
        }
        style => style,
    }
}

fn id(prompt: &Prompt) -> u128 {
    draw::digest(&[prompt.scene.as_bytes(), &prompt.take.to_le_bytes()])
}

fn scene_id(prompt: &Prompt) -> u128 {
    draw::digest(&[prompt.scene.as_bytes()])
}

fn generate(prompt: &Prompt) -> Value {
    let (scene, take) = (scene_id(prompt), id(prompt));
    let answer = answer(prompt);
    let number = prompt::spellings(prompt.take);
    let number = number.iter().find(|number| !leaks(number, &answer)).or(number.first()).cloned().unwrap_or_default();
    let mut steps: Vec<String> = LOOKS
        .iter()
        .map(|looks| {
            looks.iter().find(|look| !leaks(look, &answer)).map_or_else(String::new, |look| format!("{look}."))
        })
        .collect();
    steps[0] = format!("{}: {}", prompt::write_mark(&number, &prompt.scene), steps[0]);
    steps.retain(|step| !step.is_empty());
    let mut answers = vec![
        format!("{} comes into view in {}.", draw::pick(scene, "actor", &ACTORS), draw::pick(scene, "place", &PLACES)),
        format!("One hears {}, clearest in the second half.", draw::pick(take, "sound", &SOUNDS)),
        format!("There is no cut; {} goes on moving.", draw::pick(scene, "actor", &ACTORS)),
        format!("They agree, and {} fades out last.", draw::pick(scene, "sound", &SOUNDS)),
    ];
    answers.truncate(steps.len());
    if prompt.orders.contains(&Order::Leak) {
        steps.push(format!("So the answer must be {answer}."));
        answers.push("Everything fits.".to_owned());
    }
    steps[0].push_str(&directive::carry(&prompt.orders));
    json!({ "reasoning_steps": steps, "reasoning_answers": answers, "final_answer": answer })
}

fn answer(prompt: &Prompt) -> String {
    let ordered =
        prompt.orders.iter().find_map(|order| if let Order::Answer(text) = order { Some(text) } else { None });
    if let Some(text) = ordered {
        return text.clone();
    }
    let choices: Vec<&str> = prompt.choices.iter().map(String::as_str).collect();
    let list = if choices.is_empty() { ANSWERS.as_slice() } else { &choices };
    draw::pick(scene_id(prompt), "answer", list).to_owned()
}

/// Whether `text` holds `answer`, compared word by word, or anywhere for a longer answer.
fn leaks(text: &str, answer: &str) -> bool {
    let fold = |text: &str| {
        let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        words.map(str::to_lowercase).collect::<Vec<_>>().join(" ")
    };
    let (text, answer) = (format!(" {} ", fold(text)), fold(answer));
    !answer.is_empty() && (text.contains(&format!(" {answer} ")) || (answer.len() >= 4 && text.contains(&answer)))
}

fn caption(prompt: &Prompt) -> String {
    let (scene, take) = (scene_id(prompt), id(prompt));
    let mut text = format!(
        "{}: {} is seen in {}. ",
        prompt::write_mark(&prompt.take.to_string(), &prompt.scene),
        draw::pick(scene, "actor", &ACTORS),
        draw::pick(scene, "place", &PLACES)
    );
    let _ = write!(
        text,
        "First there is {}, then {}, while the picture stays steady and the light slowly changes.{}",
        draw::pick(take, "sound", &SOUNDS),
        draw::pick(scene, "sound", &SOUNDS),
        directive::carry(&prompt.orders)
    );
    text
}

/// The score of a scene's take, as ordered or by the curve.
pub(crate) fn score(prompt: &Prompt) -> i64 {
    let ordered =
        prompt.orders.iter().find_map(|order| if let Order::Scores(scores) = order { Some(scores) } else { None });
    if let Some(scores) = ordered {
        let at = usize::try_from(prompt.take).unwrap_or(usize::MAX).saturating_sub(1);
        return scores.get(at).or(scores.last()).copied().unwrap_or(1);
    }
    let scene = scene_id(prompt);
    let steps = u64::from(prompt.take.clamp(1, 12)) - 1;
    let hopeless = prompt.orders.contains(&Order::Exhaust) || draw::below(scene, "hopeless", 100) < 3;
    let (start, rise, top) = if hopeless {
        (2 + draw::below(scene, "start", 2), steps, 5)
    } else {
        (2 + draw::below(scene, "start", 5), (1..=steps).map(|n| 1 + draw::bits(scene, "rise", n) % 2).sum(), 10)
    };
    i64::try_from((start + rise).min(top)).unwrap_or(1)
}

fn evaluate(prompt: &Prompt) -> Value {
    let score = score(prompt);
    if !prompt.wants_critique {
        return json!({ "score": score });
    }
    let critique = match score {
        ..=5 => "The order of events is wrong, and the change in the sound is left out.",
        6..=9 => "It is mostly right, but says little about the sound at the end.",
        _ => "Nothing that matters is missing.",
    };
    json!({ "score": score, "critique": critique })
}

fn echo(text: &str) -> String {
    let said: String = text.split_whitespace().take(24).collect::<Vec<_>>().join(" ");
    format!("You said: {said}")
}

/// `known` brought into the form of a schema: its members where the names agree, made-up ones elsewhere.
fn fill(schema: &Value, known: &Value, prompt: &Prompt, depth: u32) -> Value {
    if let Some(options) = schema.get("enum").and_then(Value::as_array) {
        let at = usize::try_from(draw::below(id(prompt), "enum", options.len() as u64)).unwrap_or(0);
        return if options.contains(known) { known.clone() } else { options.get(at).cloned().unwrap_or(Value::Null) };
    }
    let kind = schema.get("type").and_then(Value::as_str).unwrap_or("object").to_ascii_lowercase();
    match kind.as_str() {
        "object" if depth < 16 => {
            let members = schema.get("properties").and_then(Value::as_object);
            let object: Map<String, Value> = members
                .into_iter()
                .flatten()
                .map(|(name, inner)| {
                    let value = known.get(name).unwrap_or(&Value::Null);
                    (name.clone(), if value.is_null() { fill(inner, value, prompt, depth + 1) } else { value.clone() })
                })
                .collect();
            Value::Object(object)
        }
        "array" if depth < 16 => {
            let item = schema.get("items").map_or(Value::Null, |inner| fill(inner, &Value::Null, prompt, depth + 1));
            json!([item])
        }
        "integer" => schema.get("minimum").filter(|least| least.is_i64()).cloned().unwrap_or_else(|| json!(3)),
        "number" => json!(0.5),
        "boolean" => json!(true),
        "null" => Value::Null,
        _ => json!(draw::pick(scene_id(prompt), "word", &ACTORS)),
    }
}

fn dress(value: &Value, style: Style, prompt: &Prompt) -> String {
    match style {
        Style::Plain | Style::Varied => value.to_string(),
        Style::Fenced => format!("```json\n{value:#}\n```"),
        Style::Prose => format!("Here is what I made of take {}.\n\n{value}\n\nI hope this helps.", prompt.take),
        Style::Python => python(value),
        Style::ListInString => {
            let mut value = value.clone();
            for member in value.as_object_mut().into_iter().flat_map(Map::values_mut) {
                if let Value::Array(items) = member {
                    let lines = items.iter().enumerate().map(|(at, item)| format!("{}. {}", at + 1, plain(item)));
                    *member = Value::String(lines.collect::<Vec<_>>().join("\n"));
                }
            }
            value.to_string()
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// As Python's `repr` writes it.
fn python(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => {
            let text = text.replace('\\', "\\\\").replace('\n', "\\n");
            if text.contains('\'') && !text.contains('"') {
                format!("\"{text}\"")
            } else {
                format!("'{}'", text.replace('\'', "\\'"))
            }
        }
        Value::Array(items) => format!("[{}]", items.iter().map(python).collect::<Vec<_>>().join(", ")),
        Value::Object(members) => {
            let members = members.iter().map(|(key, value)| format!("'{key}': {}", python(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Prompt {
        prompt::read(text, &[], &[]).unwrap()
    }

    fn replied(text: &str) -> Value {
        serde_json::from_str(&write(&asked(text), text, None, false, Style::Plain)).unwrap()
    }

    /// The scores of an item's takes, each told to the next role by text alone.
    fn takes(question: &str, count: usize) -> Vec<i64> {
        let question = Value::from(question);
        let mut previous = String::new();
        (0..count)
            .map(|_| {
                let made = replied(&format!("<question>{question}</question>{previous}"));
                let steps = &made["reasoning_steps"];
                previous = format!("<previous_steps>{steps}</previous_steps>");
                let text = format!("<question>{question}</question><steps>{steps}</steps>");
                let caption = Value::from(write(&asked(&text), &text, None, false, Style::Plain));
                replied(&format!("<caption>{caption}</caption>"))["score"].as_i64().unwrap()
            })
            .collect()
    }

    #[test]
    fn scores_rise_by_one_or_two_and_pass_as_promised() {
        let all: Vec<Vec<i64>> = (0..2_000).map(|n| takes(&format!("question {n}"), 5)).collect();
        let share = |take: usize| all.iter().filter(|scores| scores[take - 1] >= 6).count() * 100 / all.len();
        assert!((10..30).contains(&share(1)), "take 1: {} %", share(1));
        assert!((40..60).contains(&share(2)), "take 2: {} %", share(2));
        assert!(share(4) >= 90, "take 4: {} %", share(4));
        let hopeless = all.iter().filter(|scores| scores.iter().all(|&score| score <= 5)).count();
        assert!((20..120).contains(&hopeless), "{hopeless} of 2000 never pass");
        for scores in &all {
            assert!((2..=6).contains(&scores[0]));
            assert!(scores.windows(2).all(|pair| (0..=2).contains(&(pair[1] - pair[0]))), "{scores:?}");
        }
    }

    #[test]
    fn no_step_tells_the_answer_even_if_it_is_the_number_of_the_take() {
        for choice in ["1", "one", "Listen", "the opening frames", "a cut", "yes"] {
            let choices = json!([choice]);
            let made = replied(&format!("<question>\"Q\"</question><choices>{choices}</choices>"));
            assert_eq!(made["final_answer"], choice);
            for step in made["reasoning_steps"].as_array().unwrap() {
                assert!(!leaks(step.as_str().unwrap(), choice), "{step} tells {choice}");
            }
            assert_eq!(prompt::mark(made["reasoning_steps"][0].as_str().unwrap()).unwrap().0, 1);
        }
    }

    #[test]
    fn orders_reach_the_evaluator_through_the_texts() {
        assert_eq!(takes("Why? [[sim: scores=3/5/9]]", 4), [3, 5, 9, 9]);
        assert!(takes("Why? [[sim: exhaust]]", 9).iter().all(|&score| score <= 5));
        let made = replied("<question>\"Why? [[sim: answer=a red kite, leak]]\"</question>");
        assert_eq!(made["final_answer"], "a red kite");
        assert!(made["reasoning_steps"].to_string().contains("a red kite"));
    }

    #[test]
    fn every_style_carries_the_same_object() {
        let text = "<caption>\"A dog.\"</caption>";
        let score = score(&asked(text));
        for (style, want) in [
            (Style::Fenced, format!("```json\n{{\n  \"score\": {score}\n}}\n```")),
            (Style::Python, format!("{{'score': {score}}}")),
            (Style::ListInString, format!("{{\"score\":{score}}}")),
        ] {
            assert_eq!(write(&asked(text), text, None, true, style), want);
        }
        let steps = write(&asked("<question>\"Q\"</question>"), "", None, true, Style::ListInString);
        assert!(
            serde_json::from_str::<Value>(&steps).unwrap()["reasoning_steps"]
                .as_str()
                .unwrap()
                .starts_with("1. Take 1")
        );
    }

    #[test]
    fn a_foreign_schema_is_filled_in() {
        let schema = json!({"type": "OBJECT", "properties": {"name": {"type": "STRING"}, "n": {"type": "INTEGER"},
            "tags": {"type": "ARRAY", "items": {"type": "STRING", "enum": ["a", "b"]}}}});
        let reply: Value =
            serde_json::from_str(&write(&asked("Hello"), "Hello", Some(&schema), true, Style::Plain)).unwrap();
        assert!(reply["name"].is_string() && reply["n"].is_i64());
        assert!(["a", "b"].contains(&reply["tags"][0].as_str().unwrap()));
    }
}

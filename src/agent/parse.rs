//! Reads replies: every form whose meaning is certain, and nothing else.
//!
//! Replies come as JSON, as Python dictionaries, in fences, in prose, wrapped once more, or as bare text. [`relaxed`]
//! reads the values; [`reply`] finds the objects of a reply; the functions here say what they mean. What is uncertain
//! is [`Unusable`] and asked again, which costs one ask; a guess would cost the data set its meaning. Repair is local:
//! no model is asked to mend a reply, since the mended one would be its own.
//!
//! All of it is linear in the length of the reply: nesting, attempts at broken objects and sizes are bounded.
//!
//! # Scores
//! | reply | score |
//! |---|---|
//! | `7`, `7.0`, `"7"`, `7/10`, `7 out of 10`, `**7**/10`, `7.` alone | 7 |
//! | `{"score": 7}`, `{'score': '7/10'}`, `{"score": {"value": 7}}`, `{"score": [7]}`, in a fence, in prose, wrapped | 7 |
//! | `{"score": 7, "max": 10}`; the same score twice | 7 |
//! | `Score: 7`, `Score (1-10): 7`, `**Score:** 7/10`, `The score is 7.`, `I rate it 7/10.` | 7 |
//! | `Score: 7. The caption mentions 3 dogs`: one is marked as the score, the other is not | 7 |
//! | `7.5`, `0`, `11`, `-1`, `7%`, `07`, `+7`, `1e1`, `7/5`, `{"score": 7, "max": 5}`, digits of other scripts | asked again |
//! | `[7, 1]`, `7 or 8`, `Score: 7-8`, `{"score": 7} ... {"score": 8}`, `{"score": 7, "score": 8}` | asked again |
//! | `I'd say 7. The caption mentions 3 dogs`: nothing marks the score | asked again |
//! | `I would not give it 9/10`, `7/10 frames show it`: marked, but said of something else, or not meant | asked again |
//! | `high`, `seven`, `null`, `NaN`, `{"score": null}`, a broken or cut object | asked again |
//!
//! # Reasoning
//! One object with steps, their answers and a final answer under the asked names or common other ones. Steps and
//! answers pair by position, so lists of different lengths are refused: padding or cutting one would invent or drop
//! data. A list may come as one string of numbered, bulleted or plain lines, or as an object numbered from 1.

mod caption;
mod label;
mod relaxed;
mod reply;
mod steps;

pub use caption::caption;
use relaxed::Value;
use reply::{Reply, normal};

/// A longer reply is not looked at, in bytes.
pub const MAX_REPLY: usize = 1024 * 1024;
/// Most bytes of a critique that are kept; it goes into the next prompt.
pub const MAX_CRITIQUE: usize = 4 * 1024;

const STEPS: [&str; 4] = ["reasoningsteps", "steps", "reasoningstep", "reasoning"];
const ANSWERS: [&str; 5] = ["reasoninganswers", "stepanswers", "answers", "reasoninganswer", "answerstosteps"];
const FINAL: [&str; 2] = ["finalanswer", "answer"];
const SCORE: [&str; 6] = ["score", "similarityscore", "similarity", "overallscore", "finalscore", "rating"];
const CRITIQUE: [&str; 5] = ["critique", "feedback", "explanation", "reason", "justification"];
const SCALE: [&str; 5] = ["max", "maximum", "maxscore", "outof", "scale"];

/// What a generator wrote: as many answers as steps, at least one, none blank.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Reasoning {
    /// Reasoning steps, in order; at most 256.
    pub steps: Vec<String>,
    /// What the clip shows at each step, in the same order.
    pub answers: Vec<String>,
    /// The answer to the question, not blank.
    pub final_answer: String,
}

/// What an evaluator judged.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Verdict {
    /// 1..=10.
    pub score: u8,
    /// What was wrong, where it was asked for and given; at most [`MAX_CRITIQUE`] bytes.
    pub critique: Option<String>,
}

/// A reply that cannot be used and is asked for again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unusable {
    /// Why, in one sentence; quotes at most a few words of the reply.
    pub reason: String,
}

impl Unusable {
    fn because<T>(reason: impl Into<String>) -> Result<T, Self> {
        Err(Self { reason: reason.into() })
    }
}

/// Reads a generator's reply.
///
/// # Errors
/// Why it is unusable: no object or two different ones, a missing or blank part, lists of different lengths.
pub fn reasoning(text: &str) -> Result<Reasoning, Unusable> {
    let reply = Reply::read(text)?;
    let names = [&STEPS[..], &ANSWERS, &FINAL].concat();
    let mut found = reply.objects_with(&names);
    found.dedup();
    let object = match found.as_slice() {
        [object] => object,
        [] => return Unusable::because("holds no object with reasoning_steps"),
        _ => return Unusable::because("holds several different objects"),
    };
    let part = |names: &[&str]| match member(object, names)? {
        Some(value) => Ok(value),
        None => Unusable::because(format!("has no {}", asked_name(names[0]))),
    };
    let steps = steps::list(part(&STEPS)?, "step")?;
    let answers = steps::list(part(&ANSWERS)?, "answer")?;
    if steps.len() != answers.len() {
        return Unusable::because(format!("has {} steps but {} answers to them", steps.len(), answers.len()));
    }
    let Some(final_answer) = single(part(&FINAL)?).and_then(Value::scalar_text) else {
        return Unusable::because("has a final_answer that is no text");
    };
    match final_answer.trim() {
        "" => Unusable::because("has a blank final_answer"),
        trimmed => Ok(Reasoning { steps, answers, final_answer: trimmed.to_owned() }),
    }
}

/// Reads an evaluator's reply; the table is in the module's documentation. A critique is kept when it is wanted, and its
/// absence is no error.
///
/// # Errors
/// Why no single score is certain.
pub fn verdict(text: &str, want_critique: bool) -> Result<Verdict, Unusable> {
    let reply = Reply::read(text)?;
    let found = reply.every_object_with(&SCORE);
    let mut scores = label::in_prose(&reply.prose)?;
    if found.is_empty() {
        if reply.has_objects() {
            return Unusable::because("holds an object without a score");
        }
        let score = match label::bare(reply.body)? {
            Some(score) => score,
            None => one(&scores)?,
        };
        return Ok(Verdict { score, critique: None });
    }
    for object in &found {
        scores.extend(object_scores(object)?);
    }
    let score = one(&scores)?;
    let mut critique = None;
    if want_critique {
        for object in &found {
            let text = member(object, &CRITIQUE).ok().flatten().and_then(single).and_then(Value::text);
            critique = critique.or_else(|| text.map(str::trim).filter(|text| !text.is_empty()).map(cut));
        }
    }
    Ok(Verdict { score, critique })
}

/// The one score all of them agree on.
fn one(scores: &[u8]) -> Result<u8, Unusable> {
    match scores {
        [] => Unusable::because("holds no score that is marked as one"),
        [first, rest @ ..] => match rest.iter().find(|other| *other != first) {
            Some(other) => Unusable::because(format!("holds two scores, {first} and {other}")),
            None => Ok(*first),
        },
    }
}

/// Every score of one object. Partial scores under other names are not scores, but two names for the whole must agree.
fn object_scores(object: &Members) -> Result<Vec<u8>, Unusable> {
    for (key, value) in object.iter().filter(|(key, _)| SCALE.contains(&normal(key).as_str())) {
        if value.scalar_text().is_none_or(|scale| !matches!(scale.trim(), "10" | "10.0" | "1-10" | "1 to 10")) {
            return Unusable::because(format!("scores on another scale than 10: {}", relaxed::excerpt(key)));
        }
    }
    let mut scores = Vec::new();
    for (_, value) in object.iter().filter(|(key, _)| SCORE.contains(&normal(key).as_str())) {
        let value = match value {
            Value::Object(inner) if inner.len() == 1 => &inner[0].1,
            other => other,
        };
        let text = single(value).filter(|value| !matches!(value, Value::Null)).and_then(Value::scalar_text);
        match text.as_deref().map(label::bare).transpose()?.flatten() {
            Some(score) => scores.push(score),
            None => return Unusable::because("has a score that is no whole number from 1 to 10"),
        }
    }
    Ok(scores)
}

type Members = Vec<(String, Value)>;

/// The member under the name asked for, else under one of the other names; two that differ are refused.
fn member<'a>(object: &'a Members, names: &[&str]) -> Result<Option<&'a Value>, Unusable> {
    let under = |wanted: &dyn Fn(&str) -> bool| -> Result<Option<&'a Value>, Unusable> {
        let mut values = object.iter().filter(|(key, _)| wanted(&normal(key))).map(|(_, value)| value);
        let first = values.next();
        match values.find(|other| Some(*other) != first) {
            Some(_) => Unusable::because(format!("gives {} twice, differently", asked_name(names[0]))),
            None => Ok(first),
        }
    };
    match under(&|key| key == names[0])? {
        Some(value) => Ok(Some(value)),
        None => under(&|key| names.contains(&key)),
    }
}

/// The value itself, or what a list of one holds.
fn single(value: &Value) -> Option<&Value> {
    match value {
        Value::List(list) => match list.as_slice() {
            [only] => Some(only),
            _ => None,
        },
        other => Some(other),
    }
}

fn asked_name(normal: &str) -> &str {
    match normal {
        "reasoningsteps" => "reasoning_steps",
        "reasoninganswers" => "reasoning_answers",
        "finalanswer" => "final_answer",
        other => other,
    }
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_CRITIQUE)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(text: &str) -> Option<u8> {
        verdict(text, false).ok().map(|verdict| verdict.score)
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn a_certain_score_is_read() {
        for text in [
            "7",
            "7.0",
            "7.00",
            " 7\n",
            "\"7\"",
            "'7'",
            "7/10",
            "7 / 10",
            "7.0/10",
            "\"7/10\"",
            "7 out of 10",
            "7 OUT OF 10.",
            "7.",
            "**7**",
            "**7**/10",
            "**7/10**",
            "`7`",
            "# 7",
            "```\n7\n```",
            "```json\n7\n```",
            "```7```",
            r#"{"score": 7}"#,
            r#"{"score": 7.0}"#,
            r#"{"score": "7"}"#,
            r#"{"score": "7/10"}"#,
            r"{'score': 7}",
            "{score: 7}",
            r#"{"Score": 7,}"#,
            r#"{"similarity_score": 7}"#,
            r#"{"similarity score": 7}"#,
            r#"{"rating": 7}"#,
            "```json\n{\"score\": 7}\n```",
            "Sure!\n```json\n{\"score\": 7}\n```\nHope it helps.",
            r#"Here: {"score": 7}."#,
            r#"[{"score": 7}]"#,
            r#"{"response": {"score": 7}}"#,
            r#"{"result": [{"score": 7}]}"#,
            r#""{\"score\": 7}""#,
            r#"{"score": {"value": 7}}"#,
            r#"{"score": [7]}"#,
            r#"{"score": 7, "max": 10}"#,
            r#"{"score": 7, "out_of": "10"}"#,
            r#"{"score":7}{"score":7}"#,
            r#"{"score": 7, "score": 7}"#,
            r#"{"score": 7, "overall_score": 7.0}"#,
            r#"{"audio_score": 3, "score": 7}"#,
            r#"{"score": 7, "critique": "gives 3 dogs, 5/10 at best"}"#,
            r#"The caption mentions 3 dogs, see {the clip}. {"score": 7}"#,
            r#"{"score": 7} I counted 3 dogs."#,
            "<think>maybe 5? {\"score\": 5}</think>{\"score\": 7}",
            "\u{feff}{\"score\": 7}",
            "Score: 7",
            "score = 7",
            "Score - 7",
            "**Score:** 7",
            "**Score: 7/10**",
            "Score: **7**",
            "Score (1-10): 7",
            "Score (out of 10): 7",
            "Rating: 7/10",
            "The score is 7.",
            "My score would be 7 out of 10.",
            "I give this a score of 7.",
            "The score is 7 because it is vague.",
            "I'd rate it 7/10.",
            "Good caption, but vague: 7/10",
            "7/10 - vague",
            "7/10\nThe caption mentions 3 dogs.",
            "Score: 7. The caption mentions 3 dogs",
            "Score: 7\nScore: 7",
            "On a scale from 1 to 10.\nScore: 7",
            "Not a bad one. Score: 7",
            "Score: 7, as it is vague",
            "The clip shows 3 dogs and 2 cats.\n\nScore: 7",
        ] {
            assert_eq!(score(text), Some(7), "{text}: {:?}", verdict(text, false));
        }
        for n in 1..=10_u8 {
            assert_eq!(score(&n.to_string()), Some(n));
            assert_eq!(score(&format!("{{\"score\": {n}}}")), Some(n));
            assert_eq!(score(&format!("{n}/10")), Some(n));
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn an_uncertain_score_is_asked_again() {
        for text in [
            "",
            " ",
            "7.5",
            "0",
            "11",
            "-1",
            "- 7 or so",
            "[7,1]",
            "[7]",
            "7, 1",
            "7 1",
            "7 or 8",
            "7-8",
            "7 to 8",
            "6.9",
            "7.0001",
            "07",
            "+7",
            "1e1",
            "0x7",
            "7%",
            "7/5",
            "7/100",
            "7/10/2024",
            "10/10/2024",
            "high",
            "seven",
            "null",
            "None",
            "NaN",
            "Infinity",
            "true",
            "\u{ff17}",
            "\u{667}",
            "7th",
            "99999999999999999999999999",
            "-7/10",
            "70",
            "1,000",
            "7:30",
            r#"{"score": 7.5}"#,
            r#"{"score": 0}"#,
            r#"{"score": 11}"#,
            r#"{"score": -1}"#,
            r#"{"score": [7, 1]}"#,
            r#"{"score": "high"}"#,
            r#"{"score": null}"#,
            r#"{"score": true}"#,
            r#"{"score": "seven"}"#,
            r#"{"score": ""}"#,
            r#"{"score": {}}"#,
            r#"{"score": NaN}"#,
            r#"{"score": 1e1}"#,
            r#"{"score": "7 or 8"}"#,
            r#"{"score": "7-8"}"#,
            r#"{"score": {"low": 6, "high": 8}}"#,
            r#"{"score": 7e0}"#,
            r#"{"score": 1e999}"#,
            r#"{"score": 7, "max": 5}"#,
            r#"{"score": 7, "scale": 100}"#,
            r#"{"score": 7, "max": null}"#,
            r#"{"score":7}{"score":8}"#,
            r#"{"score":7} or rather {"score":8}"#,
            r#"{"score": 7, "score": 8}"#,
            r#"{"score": 7, "final_score": 8}"#,
            r#"{"score": 7, "detail": {"score": 3}}"#,
            r#"[{"score": 7}, {"score": 8}]"#,
            r#"{"a": {"score": 7}, "b": {"score": 8}}"#,
            r#"{"score": 7} Score: 8"#,
            r#"I'd rate it 8/10. {"score": 7}"#,
            r#"{"audio_score": 7}"#,
            r#"{"value": 7}"#,
            "{}",
            r#"{"note": "x"} Score: 7"#,
            r#"{"score": 7"#,
            r#"{"score": 7, "critique": "cut"#,
            r#"{"example": {"score": 5}, "score": 7"#,
            r#"{"score" 7}"#,
            r#"{"score": "7}"#,
            "<think>the score is 7",
            "I'd say 7. The caption mentions 3 dogs",
            "I'd say 7",
            "7 dogs",
            "There are 7 dogs",
            "a 7",
            "Score: 7 or 8",
            "Score: 7-8",
            "Score: 7 - 8",
            "Score: 7, 8",
            "Score: 7 to 8",
            "Score: between 6 and 8",
            "Score: 7.5",
            "Score: -7",
            "Score -7",
            "Score: 0",
            "Score: 11",
            "Score: 7%",
            "Score: 7/5",
            "Score: 7/100",
            "Score: seven",
            "Score: 7, maybe 8",
            "Score: 7\nScore: 8",
            "Score: 7. Rating: 8/10",
            "A score of 10 would be perfect",
            "a score of 7 for each dog",
            "The score is not 7",
            "It does not deserve a score of 7",
            "I would not give it 9/10",
            "I wouldn't give it 9/10",
            "at least 7/10",
            "more than 7/10",
            "7/10 frames show it",
            "7 out of 10 frames",
            "maybe 7/10",
            "The best score is 10.",
            "Scores range from 1 to 10",
            "The score ranges 1-10",
            "Score: 7 points of 20",
            "Scored 7/10 frames",
            "score:7,000",
            "Previous score: 7",
            "7/10, 8/10",
            "Score: 7+",
        ] {
            assert_eq!(score(text), None, "{text}");
        }
    }

    #[test]
    fn a_critique_is_kept_when_wanted_and_never_needed() {
        let critique = |text: &str| verdict(text, true).unwrap().critique;
        assert_eq!(critique(r#"{"score": 7, "critique": " no dog "}"#).as_deref(), Some("no dog"));
        assert_eq!(critique(r#"{"score": 7, "reason": "x", "critique": "y"}"#).as_deref(), Some("y"));
        assert_eq!(critique(r#"{"score": 7, "Explanation": "x"}"#).as_deref(), Some("x"));
        assert_eq!(critique(r#"{"score": 7, "critique": ""}"#), None);
        assert_eq!(critique(r#"{"score": 7, "critique": null}"#), None);
        assert_eq!(critique("7"), None);
        assert_eq!(verdict(r#"{"score": 7, "critique": "x"}"#, false).unwrap().critique, None);
        let long = format!(r#"{{"score": 7, "critique": "{}"}}"#, "é".repeat(MAX_CRITIQUE));
        assert_eq!(critique(&long).unwrap().len(), MAX_CRITIQUE);
    }

    fn usual() -> Reasoning {
        let texts = |texts: [&str; 2]| texts.map(str::to_owned).to_vec();
        Reasoning {
            steps: texts(["Look", "Listen"]),
            answers: texts(["A dog", "It's barking"]),
            final_answer: "dog".into(),
        }
    }

    #[test]
    fn reasoning_is_read_as_models_write_it() {
        let plain = r#"{"reasoning_steps": ["Look", "Listen"], "reasoning_answers": ["A dog", "It's barking"], "final_answer": "dog"}"#;
        for text in [
            plain,
            &format!("```json\n{plain}\n```"),
            &format!("Here is the {{object}} you asked for:\n\n{plain}\n\nAnything else?"),
            &format!("{plain}\n{plain}"),
            &format!("[{plain}]"),
            &format!(r#"{{"response": {plain}}}"#),
            &format!(r#"{{"response": [{{"data": {plain}}}], "model": "x"}}"#),
            &serde_json::to_string(plain).unwrap(),
            &format!("<think>{{\"final_answer\": 1}}</think>\n{plain}"),
            r#"{'reasoning_steps': ['Look', 'Listen'], 'reasoning_answers': ['A dog', "It's barking"], 'final_answer': 'dog'}"#,
            r"{'reasoning_steps': ['Look', 'Listen',], 'reasoning_answers': ['A dog', 'It\'s barking',], 'final_answer': 'dog', 'note': None,}",
            r"{'reasoning_steps': ['Look', 'Listen'], 'reasoning_answers': ['A dog', 'It's barking'], 'final_answer': 'dog', 'ok': True}",
            r#"{"Reasoning Steps": ["Look", "Listen"], "Reasoning-Answers": ["A dog", "It's barking"], "FINAL ANSWER": "dog"}"#,
            r#"{"steps": ["Look", "Listen"], "answers": ["A dog", "It's barking"], "answer": "dog"}"#,
            r#"{"reasoning": "in short", "reasoning_steps": ["Look", "Listen"], "reasoning_answers": ["A dog", "It's barking"], "final_answer": ["dog"]}"#,
            r#"{"reasoning_steps": "1. Look\n2. Listen", "reasoning_answers": "1) A dog\n2) It's barking", "final_answer": " dog "}"#,
            r#"{"reasoning_steps": "Steps:\n**Step 1:** Look\n**Step 2:** Listen", "reasoning_answers": "- A dog\n- It's barking", "final_answer": "dog"}"#,
            r#"{"reasoning_steps": "Look\n\nListen", "reasoning_answers": "1.\nA dog\n2. It's\nbarking", "final_answer": "dog"}"#,
            r#"{"reasoning_steps": "['Look', 'Listen']", "reasoning_answers": "[\"A dog\", \"It's barking\"]", "final_answer": "dog"}"#,
            r#"{"reasoning_steps": {"1": "Look", "2": "Listen"}, "reasoning_answers": {"step_1": "A dog", "step_2": "It's barking"}, "final_answer": "dog"}"#,
            r#"{"reasoning_steps": [{"step": 1, "text": "Look"}, {"step": 2, "text": "Listen"}], "reasoning_answers": ["A dog", {"answer": "It's barking"}], "final_answer": "dog"}"#,
        ] {
            assert_eq!(reasoning(text), Ok(usual()), "{text}");
        }
        let numbers = reasoning(r#"{"reasoning_steps": [1], "reasoning_answers": [2.50], "final_answer": 3}"#).unwrap();
        assert_eq!(
            (numbers.steps, numbers.answers, numbers.final_answer),
            (vec!["1".into()], vec!["2.50".into()], "3".into())
        );
    }

    #[test]
    fn reasoning_that_would_need_a_guess_is_refused() {
        let with = |steps: &str, answers: &str, last: &str| {
            format!(r#"{{"reasoning_steps": {steps}, "reasoning_answers": {answers}, "final_answer": {last}}}"#)
        };
        for (text, reason) in [
            (String::new(), "is blank"),
            ("```\n```".into(), "is blank"),
            ("The dog barks.".into(), "holds no object with reasoning_steps"),
            ("{}".into(), "holds no object with reasoning_steps"),
            (r#"{"reasoning_steps": ["a"], "final_answer": "x"}"#.into(), "has no reasoning_answers"),
            (r#"{"reasoning_steps": ["a"], "reasoning_answers": ["b"]}"#.into(), "has no final_answer"),
            (r#"{"reasoning_answers": ["b"], "final_answer": "x"}"#.into(), "has no reasoning_steps"),
            (with(r#"["a", "b"]"#, r#"["c"]"#, r#""x""#), "has 2 steps but 1 answers to them"),
            (with("[]", "[]", r#""x""#), "has no steps"),
            (with(r#""""#, r#"["c"]"#, r#""x""#), "has no steps"),
            (with(r#"["a", " "]"#, r#"["c", "d"]"#, r#""x""#), "has a step 2 that says nothing"),
            (with(r#"["a"]"#, "[null]", r#""x""#), "has a answer 1 that says nothing"),
            (with("null", r#"["c"]"#, r#""x""#), "has no list of steps"),
            (with("3", r#"["c"]"#, r#""x""#), "has no list of steps"),
            (
                with(r#"{"b": "x", "a": "y"}"#, r#"["c", "d"]"#, r#""x""#),
                "has steps as an object that is not numbered from 1",
            ),
            (with(r#"[{"a": "x", "b": "y"}]"#, r#"["c"]"#, r#""x""#), "has a step 1 that says nothing"),
            (with(r#"["a"]"#, r#"["c"]"#, r#""  ""#), "has a blank final_answer"),
            (with(r#"["a"]"#, r#"["c"]"#, "null"), "has a final_answer that is no text"),
            (with(r#"["a"]"#, r#"["c"]"#, r#"["x", "y"]"#), "has a final_answer that is no text"),
            (with(r#"["a"]"#, r#"["c"]"#, r#""x", "Final Answer": "y""#), "gives final_answer twice, differently"),
            (
                with(r#"["a"]"#, r#"["c"]"#, r#""x""#) + &with(r#"["a"]"#, r#"["c"]"#, r#""y""#),
                "holds several different objects",
            ),
            (with(r#"["a"]"#, r#"["c"]"#, r#""cut"#), "holds an object that is broken or cut"),
            (
                r#"{"response": {"reasoning_steps": ["a"], "reasoning_answers": ["b"], "final_answer": "x"}"#.into(),
                "holds an object that is broken or cut",
            ),
            (with(r#"["say "hi" now"]"#, r#"["c"]"#, r#""x""#), "holds an object that is broken or cut"),
            (with(&format!("[{}]", vec!["\"s\""; 257].join(",")), "[]", r#""x""#), "has 257 steps, more than 256"),
            ("x".repeat(MAX_REPLY + 1), "has 1048577 bytes, more than 1048576"),
        ] {
            let unusable = reasoning(&text).unwrap_err();
            assert_eq!(unusable.reason, reason, "{}", relaxed::excerpt(&text));
        }
    }

    #[test]
    fn a_caption_is_unwrapped() {
        for text in [
            "A dog barks.",
            "  A dog barks.\n",
            "```\nA dog barks.\n```",
            "```text\nA dog barks.\n```",
            "\"A dog barks.\"",
            "Caption: A dog barks.",
            "**Caption:** A dog barks.",
            "<caption>A dog barks.</caption>",
            "<caption>\"A dog barks.\"</caption>",
            r#"{"caption": "A dog barks."}"#,
            "```json\n{\"caption\": \"A dog barks.\"}\n```",
            r"{'Caption': 'A dog barks.'}",
            r#"Here it is: {"caption": "A dog barks."}"#,
            r#"{"result": {"detailed_caption": "A dog barks."}}"#,
            r#"["A dog barks."]"#,
            "<think>hm</think>A dog barks.",
        ] {
            assert_eq!(caption(text).as_deref(), Ok("A dog barks."), "{text}");
        }
        for text in [
            "[Music] A dog {loudly} barks.",
            "He says \"no\".",
            "A \"dog\" {see: this",
            "Line one.\nLine two.",
            "Captions: none",
        ] {
            assert_eq!(caption(text).as_deref(), Ok(text));
        }
    }

    #[test]
    fn a_caption_that_is_none_is_refused() {
        for text in [
            "",
            "  \n",
            "```\n\n```",
            "\"\"",
            "...",
            "Caption:",
            "null",
            "{}",
            r#"{"caption": ""}"#,
            r#"{"caption": null}"#,
            r#"{"caption": "cut"#,
            r#"{"text": "x"}"#,
            r#"["a", "b"]"#,
            r#"{"caption": "a", "Caption": "b"}"#,
            r#"{"caption":"a"}{"caption":"b"}"#,
            "<think>never ends",
        ] {
            assert!(caption(text).is_err(), "{text}: {:?}", caption(text));
        }
    }

    #[test]
    fn hostile_megabytes_are_refused_or_read_in_linear_time() {
        let start = std::time::Instant::now();
        for unit in [
            "{",
            "[",
            "{\"a\":",
            "{\"",
            "{'",
            "{'{\"",
            "\"",
            "'",
            "' ",
            "```",
            "7",
            "7 ",
            "7/10 ",
            "score: 7\n",
            "score: ",
            "score (",
            "{}",
            "{\"score\":7}",
            "1. x\n",
            "\\",
            "{\"a\":\"\\",
            "{   ",
            "- ",
            "é",
            "{\"\0",
        ] {
            let text = unit.repeat(MAX_REPLY / 4 / unit.len());
            for text in
                [text.clone(), format!("{{\"reasoning_steps\": [\"{text}"), format!("{{\"score\": \"{text}\"}}")]
            {
                let _ = (reasoning(&text), caption(&text), verdict(&text, true));
            }
        }
        assert!(start.elapsed().as_secs() < 120, "{:?}", start.elapsed());
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics_or_gives_a_score_out_of_range(text in "(\\PC|[{}\\[\\]\"':,.\\\\/\n0-9]|score|or|not|```|/10|null){0,60}") {
            let _ = (reasoning(&text), caption(&text));
            if let Ok(verdict) = verdict(&text, true) {
                proptest::prop_assert!((1..=10).contains(&verdict.score));
            }
        }

        #[test]
        fn any_reasoning_written_as_json_is_read_back(
            pairs in proptest::collection::vec(("\\PC*[a-z]", "\\PC*[a-z]"), 1..6), last in "\\PC*[a-z]",
        ) {
            let (steps, answers): (Vec<String>, Vec<String>) =
                pairs.into_iter().map(|(step, answer)| (step.trim().to_owned(), answer.trim().to_owned())).unzip();
            let written = serde_json::json!({"reasoning_steps": steps, "reasoning_answers": answers, "final_answer": last});
            let read = reasoning(&written.to_string()).unwrap();
            proptest::prop_assert_eq!(read, Reasoning { steps, answers, final_answer: last.trim().to_owned() });
        }
    }
}

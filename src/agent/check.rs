//! Compares a final answer with the expected ones, and looks for it in the steps that must not tell it.
//!
//! Both are exact rules on words, recorded beside a score and never in its place. A model as a judge was rejected here:
//! it costs a call per try and answers differently tomorrow. The rules lean to "does not match" and "does not leak".
//!
//! # Words
//! A text is compared as its words: lower case, full-width forms as ASCII, runs of letters and digits, apostrophes
//! dropped (`don't` is `dont`), a minus or a decimal point kept where it belongs to a number (`-3`, `2.5`), `1,000` as
//! `1000`, `zero` to `twenty` as digits, and `a`, `an`, `the` left out unless nothing else is there. A text without any
//! letter or digit is compared as it stands. What is looked for within a text is looked for by its first 64 words.
//!
//! # Matching
//! Without choices the words must be the same as those of any expected answer; where that is only `yes` or `no`, an
//! answer that begins with it and a comma or stop, and holds no word of the other, matches too. With choices both sides
//! are first read as a choice: its text, its letter (`B`, `(b)`, `B.`, `option B`), or both (`B. a dog`), where a letter
//! whose text is another choice's means none. Choices that bring their own letters in order (`A. cat`, `B. dog`) are
//! read without them. What is no choice is compared by its words.
//!
//! # Leaks
//! A step leaks when
//! - it states the answer: `answer` and the answer's words, with nothing but `is`, `be`, `must`, `would`, `should`,
//!   `final`, `correct` or `therefore` between, or its letter after `answer`, `option` or `choice` while no other
//!   letter is named so in that step;
//! - or it holds the answer's words in a row, unless the question holds them too, or the step names another choice, or
//!   the steps together name every choice. `yes`, `no`, `true`, `false`, single letters and single numbers occur too
//!   freely for this rule, but for a number before a word of the question (`two violins` for `How many violins ...`).

mod words;

use words::{all_words, contains, words};

/// Whether a final answer is one of the expected ones. `expected` may hold texts or letters of choices. False when
/// nothing is expected.
pub fn answer_matches(final_answer: &str, expected: &[String], choices: Option<&[String]>) -> bool {
    let choices = choices.map(Choices::read);
    let chosen = choices.as_ref().and_then(|choices| choices.chosen(final_answer));
    expected.iter().any(|expected| {
        let wanted = choices.as_ref().and_then(|choices| choices.chosen(expected));
        match (chosen, wanted) {
            (Some(chosen), Some(wanted)) => chosen == wanted,
            (None, None) => same(final_answer, expected),
            _ => false,
        }
    })
}

/// Whether any step tells the final answer.
pub fn leaks(steps: &[String], final_answer: &str, question: &str, choices: Option<&[String]>) -> bool {
    let choices = choices.map(Choices::read);
    let chosen = choices.as_ref().and_then(|choices| choices.chosen(final_answer).map(|index| (choices, index)));
    let answer = match chosen {
        Some((choices, index)) => choices.words[index].clone(),
        None => words(final_answer),
    };
    if answer.is_empty() {
        return false;
    }
    let question = words(question);
    let texts = steps;
    let steps: Vec<Vec<String>> = texts.iter().map(|step| words(step)).collect();
    let all_named = chosen
        .is_some_and(|(choices, _)| choices.words.iter().all(|choice| steps.iter().any(|step| contains(step, choice))));
    steps.iter().zip(texts).any(|(step, text)| {
        if states(step, &answer) || chosen.is_some_and(|(choices, index)| states_letter(text, choices, index)) {
            return true;
        }
        if contains(&question, &answer) || all_named {
            return false;
        }
        let others = chosen.is_some_and(|(choices, index)| choices.names_another(step, index));
        !others && holds(step, &answer, &question)
    })
}

/// The choices of an item as words, without letters of their own.
struct Choices {
    words: Vec<Vec<String>>,
    raw: Vec<String>,
}

impl Choices {
    fn read(choices: &[String]) -> Self {
        let stripped: Option<Vec<&str>> = choices
            .iter()
            .enumerate()
            .map(|(index, choice)| lettered(choice).filter(|(letter, rest)| *letter == index && !rest.is_empty()))
            .map(|lettered| lettered.map(|(_, rest)| rest))
            .collect();
        let texts = stripped.unwrap_or_else(|| choices.iter().map(String::as_str).collect());
        Self {
            words: texts.iter().map(|text| words(text)).collect(),
            raw: texts.iter().map(|text| text.trim().to_owned()).collect(),
        }
    }

    /// Which choice a text is, if it is one.
    fn chosen(&self, text: &str) -> Option<usize> {
        if let Some(index) = self.by_text(text) {
            return Some(index);
        }
        let text = text.trim();
        let text = ["option ", "choice ", "answer "]
            .iter()
            .find_map(|prefix| text.get(..prefix.len()).filter(|head| head.eq_ignore_ascii_case(prefix)))
            .map_or(text, |head| &text[head.len()..]);
        let (letter, rest) = lettered(text)?;
        if letter >= self.words.len() {
            return None;
        }
        (rest.is_empty() || self.by_text(rest) == Some(letter)).then_some(letter)
    }

    /// The only choice with this text; exact text first, so that `C` and `c` can both be choices.
    fn by_text(&self, text: &str) -> Option<usize> {
        if let Some(index) = self.raw.iter().position(|raw| raw == text.trim()) {
            return Some(index);
        }
        let wanted = words(text);
        let mut found = (0..self.words.len()).filter(|&index| !wanted.is_empty() && self.words[index] == wanted);
        let first = found.next()?;
        found.next().is_none().then_some(first)
    }

    /// Whether a step names a choice beside the one at `index`, and not only as a part of its text.
    fn names_another(&self, step: &[String], index: usize) -> bool {
        let own = &self.words[index];
        self.words
            .iter()
            .enumerate()
            .any(|(other, words)| other != index && !contains(own, words) && contains(step, words))
    }
}

/// The letter (from 0) and the rest of `B`, `(b)`, `B.`, `B) x`, `B: x` or `B - x`.
fn lettered(text: &str) -> Option<(usize, &str)> {
    let text = text.trim();
    let inner = text.strip_prefix('(').unwrap_or(text);
    let letter = inner.chars().next().filter(char::is_ascii_alphabetic)?;
    let index = usize::from(letter.to_ascii_lowercase() as u8 - b'a');
    let rest = &inner[1..];
    if rest.is_empty() {
        return Some((index, rest));
    }
    if let Some(rest) = rest.strip_prefix(" - ") {
        return Some((index, rest.trim()));
    }
    let rest = rest.strip_prefix([')', '.', ':'])?;
    (!rest.starts_with(char::is_alphanumeric)).then(|| (index, rest.trim()))
}

fn same(answer: &str, expected: &str) -> bool {
    let (given, wanted) = (words(answer), words(expected));
    if given.is_empty() || wanted.is_empty() {
        return given.is_empty() && wanted.is_empty() && answer.trim() == expected.trim();
    }
    given == wanted || begins_so(answer, &given, &wanted)
}

/// `Yes, there is a dog` for `yes`.
fn begins_so(answer: &str, given: &[String], wanted: &[String]) -> bool {
    let other = match wanted {
        [only] if only == "yes" => "no",
        [only] if only == "no" => "yes",
        _ => return false,
    };
    let head = answer.trim_start();
    let stop = head.find(|c: char| !c.is_alphanumeric()).unwrap_or(head.len());
    given[0] == wanted[0]
        && head[..stop].eq_ignore_ascii_case(&wanted[0])
        && head[stop..].starts_with([',', '.', ';', ':', '!'])
        && !given.iter().any(|word| word == other)
}

/// Whether a step says that the answer is these words.
fn states(step: &[String], answer: &[String]) -> bool {
    const JOINS: [&str; 8] = ["is", "be", "must", "would", "should", "final", "correct", "therefore"];
    step.iter().enumerate().filter(|(_, word)| *word == "answer").any(|(index, _)| {
        let rest = &step[index + 1..];
        let joined = rest.iter().take(3).take_while(|word| JOINS.contains(&word.as_str())).count();
        (0..=joined).any(|skipped| rest[skipped..].starts_with(answer))
    })
}

/// Whether a step names the letter of the choice, and no other, as an option, or says that it is the answer. `A` counts
/// after `option` and `choice` alone: after `answer` it may be an article.
fn states_letter(step: &str, choices: &Choices, index: usize) -> bool {
    let step = all_words(step);
    let letter = |word: &String| lettered(word).filter(|(_, rest)| rest.is_empty()).map(|(letter, _)| letter);
    let known = |letter: &usize| *letter < choices.words.len();
    let options = step.windows(2).filter(|pair| matches!(pair[0].as_str(), "option" | "choice"));
    let named: Vec<usize> = options.filter_map(|pair| letter(&pair[1])).filter(known).collect();
    if !named.is_empty() {
        return named.iter().all(|letter| *letter == index);
    }
    let stated = step.iter().find(|word| letter(word) == Some(index) && *word != "a");
    stated.is_some_and(|word| states(&step, std::slice::from_ref(word)))
}

/// Whether a step holds the answer where it cannot be there by chance.
fn holds(step: &[String], answer: &[String], question: &[String]) -> bool {
    let [only] = answer else {
        return contains(step, answer);
    };
    if only.parse::<f64>().is_ok() {
        return step.windows(2).any(|pair| pair[0] == *only && pair[1].len() > 2 && question.contains(&pair[1]));
    }
    let free = matches!(only.as_str(), "yes" | "no" | "true" | "false") || only.chars().count() == 1;
    !free && contains(step, answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn open_answers_match_by_their_words() {
        for (answer, expected, matches) in [
            ("Dog", "dog", true),
            ("The dog.", "a dog", true),
            ("  two  ", "2", true),
            ("twenty", "20", true),
            ("\u{ff12}", "2", true),
            ("twenty-one", "21", false),
            ("1,000", "1000", true),
            ("1,00", "100", false),
            ("-3", "3", false),
            ("2.5", "25", false),
            ("2.5", "2.50", false),
            ("don\u{2019}t know", "don't know", true),
            ("guitar", "guitars", false),
            ("the dog barks", "dog", false),
            ("yes", "Yes.", true),
            ("Yes, there is a dog", "yes", true),
            ("yes and no", "yes", false),
            ("Yes, but no dog", "yes", false),
            ("Not really", "no", false),
            ("No idea", "no", false),
            ("No, it is silent", "no", true),
            ("the", "the", true),
            ("the", "a", false),
            ("", "dog", false),
            ("?", "!", false),
            ("\u{1f44d}", "\u{1f44d}", true),
            ("B", "dog", false),
        ] {
            assert_eq!(answer_matches(answer, &list(&[expected]), None), matches, "{answer:?} for {expected:?}");
        }
        assert!(answer_matches("cello", &list(&["violin", "cello"]), None));
        assert!(!answer_matches("cello", &[], None));
    }

    #[test]
    fn answers_to_choices_match_as_choices() {
        let plain = list(&["a cat", "a dog", "two dogs"]);
        let own = list(&["A. cat", "B. dog", "C. two dogs"]);
        for choices in [&plain, &own] {
            for (answer, expected, matches) in [
                ("dog", "a dog", true),
                ("B", "a dog", true),
                ("b", "dog", true),
                ("(b)", "dog", true),
                ("B.", "dog", true),
                ("B) a dog", "dog", true),
                ("B: dog", "dog", true),
                ("B - dog", "dog", true),
                ("Option B", "dog", true),
                ("dog", "B", true),
                ("2 dogs", "C", true),
                ("B. a cat", "dog", false),
                ("B. a cat", "cat", false),
                ("D", "dog", false),
                ("2", "dog", false),
                ("Because of the dog", "dog", false),
                ("bird", "dog", false),
                ("A", "dog", false),
                ("a", "cat", true),
            ] {
                let result = answer_matches(answer, &list(&[expected]), Some(choices));
                assert_eq!(result, matches, "{answer:?} for {expected:?} of {choices:?}");
            }
        }
        let letters = list(&["B", "A"]);
        assert!(answer_matches("B", &list(&["B"]), Some(&letters)), "a text goes before a letter");
        assert!(!answer_matches("A", &list(&["B"]), Some(&letters)));
    }

    #[test]
    fn a_step_that_tells_the_answer_leaks() {
        let animals = list(&["a cat", "a dog", "a bird"]);
        let none: Option<&[String]> = None;
        let some = Some(animals.as_slice());
        for (steps, answer, question, choices, leaks_it) in [
            (vec!["Listen for the barking dog"], "A dog", "What is heard?", none, true),
            (vec!["Listen for what is heard"], "A dog", "What is heard?", none, false),
            (vec!["Look at the hot dogs"], "dog", "What is heard?", none, false),
            (vec!["Follow the dog"], "dog", "Is it a dog or a cat?", none, false),
            (vec!["So the answer is dog"], "dog", "Is it a dog or a cat?", none, true),
            (vec!["The final answer must be: the dog"], "dog", "Is it a dog or a cat?", none, true),
            (vec!["See whether there is a yes sign"], "yes", "Is it on?", none, false),
            (vec!["So the answer is yes"], "Yes", "Is it on?", none, true),
            (vec!["Find the answer to yes or no"], "yes", "Is it on?", none, false),
            (vec!["Step 2: count them"], "2", "How many violins are there?", none, false),
            (vec!["Hear that two violins play"], "2", "How many violins are there?", none, true),
            (vec!["Listen for the dog"], "a dog", "Which animal?", some, true),
            (vec!["Listen for the dog"], "B", "Which animal?", some, true),
            (vec!["Is it a dog or a cat?"], "B", "Which animal?", some, false),
            (vec!["Listen for a dog", "then a cat", "then a bird"], "B", "Which animal?", some, false),
            (vec!["Listen for a dog", "then a cat"], "B", "Which animal?", some, true),
            (vec!["Option B fits"], "dog", "Which animal?", some, true),
            (vec!["Weigh option A, option B and option C"], "dog", "Which animal?", some, false),
            (vec!["The answer is B"], "dog", "Which animal?", some, true),
            (vec!["Choice A is right"], "cat", "Which animal?", some, true),
            (vec!["The answer a listener gives"], "cat", "Which animal?", some, false),
            (vec![], "dog", "Which animal?", some, false),
            (vec!["?"], "?", "Which animal?", none, false),
        ] {
            assert_eq!(leaks(&list(&steps), answer, question, choices), leaks_it, "{steps:?} tell {answer:?}");
        }
    }

    #[test]
    fn megabytes_are_compared_in_linear_time() {
        let long = "x ".repeat(250_000);
        let start = std::time::Instant::now();
        assert!(leaks(std::slice::from_ref(&long), &long, "why?", None));
        let near = format!("{}y {long}", "x ".repeat(62));
        assert!(!leaks(std::slice::from_ref(&long), &near, "why?", Some(&list(&["x y", "x z"]))));
        assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    }
}

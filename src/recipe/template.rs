//! Prompt templates in which questions and replies are data.
//!
//! Text may enter a prompt through `tojson` alone: it stands there as a JSON string, in which `<`, `>`, `&` and `'` are
//! escaped, so that no question can close the tag around it. The formatter refuses any other text, at load and not at
//! the first hostile question. There is no loader, include or macro, undefined variables are errors, and fuel bounds
//! what a render may cost. Auto-escaping was rejected: it would also rewrite what the recipe's author wrote.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, ErrorKind, UndefinedBehavior, context};
use serde::{Deserialize, Serialize};

/// What one render may cost: steps, plus one per 64 bytes handled.
const FUEL: u64 = 2_000_000;
const NAME: &str = "prompt";

/// Which variables a template is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TemplateKind {
    /// `question` (text), `choices` (list of texts or none), `shown` (list of texts: what the role is shown by its media mode,
    /// of `frames`, `video` for clips as a whole, and `audio`).
    Generator,
    /// As the generator's, with `previous_steps` (list of texts), `previous_score` (a number) and `critique`
    /// (text or none). Never the threshold: a higher one must find the replies that were paid for under a lower one.
    Feedback,
    /// `question`, `final_answer` (texts), `steps`, `step_answers` (lists of texts).
    Summarizer,
    /// `caption` (text), `ask_critique` (true or false), and `shown` as the generator's.
    Evaluator,
}

impl TemplateKind {
    /// Every variable it may use.
    fn variables(self) -> &'static [&'static str] {
        match self {
            Self::Generator => &["question", "choices", "shown"],
            Self::Feedback => &["question", "choices", "previous_steps", "previous_score", "critique", "shown"],
            Self::Summarizer => &["question", "steps", "step_answers", "final_answer"],
            Self::Evaluator => &["caption", "ask_critique", "shown"],
        }
    }

    /// Those it cannot do without.
    fn needed(self) -> &'static [&'static str] {
        match self {
            Self::Generator => &["question"],
            Self::Feedback => &["question", "previous_steps"],
            Self::Summarizer => &["steps"],
            Self::Evaluator => &["caption"],
        }
    }

    /// One context per branch a template is likely to have.
    fn samples(self) -> Vec<Value> {
        let texts = || vec!["one", "two"];
        let (frames, clips) = (|| vec!["frames", "audio"], || vec!["video"]);
        match self {
            Self::Generator => vec![
                context!(question => "why?", choices => (), shown => frames()),
                context!(question => "why?", choices => texts(), shown => clips()),
            ],
            Self::Feedback => vec![
                context!(question => "why?", choices => (), previous_steps => texts(), previous_score => 3,
                    critique => (), shown => frames()),
                context!(question => "why?", choices => texts(), previous_steps => texts(), previous_score => 3,
                    critique => "no dog", shown => clips()),
            ],
            Self::Summarizer => {
                vec![context!(question => "why?", steps => texts(), step_answers => texts(), final_answer => "so")]
            }
            Self::Evaluator => vec![
                context!(caption => "a dog", ask_critique => false, shown => frames()),
                context!(caption => "a dog", ask_critique => true, shown => clips()),
            ],
        }
    }
}

/// A compiled template. Serialises as its text; equal when the texts are.
#[derive(Clone, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Template {
    text: Arc<str>,
    compiled: Arc<Environment<'static>>,
}

impl Template {
    /// Compiles a text. Only its syntax is looked at; see [`Template::check`].
    ///
    /// # Errors
    /// The line and what is wrong with it.
    pub fn compile(text: &str) -> Result<Self, String> {
        let mut compiled = Environment::new();
        compiled.set_undefined_behavior(UndefinedBehavior::Strict);
        compiled.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        compiled.set_fuel(Some(FUEL));
        for filter in ["safe", "escape", "e"] {
            compiled.remove_filter(filter);
        }
        compiled.add_filter("tojson", json);
        compiled.set_formatter(|out, _, value| match value.kind() {
            ValueKind::String if !value.is_safe() => Err(bare()),
            ValueKind::String | ValueKind::Number | ValueKind::Bool => Ok(write!(out, "{value}")?),
            _ => Err(bare()),
        });
        compiled.add_template_owned(NAME, text.to_owned()).map_err(|error| told(&error))?;
        Ok(Self { text: text.into(), compiled: Arc::new(compiled) })
    }

    /// The text it was compiled from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it can be rendered as `kind`: it uses no other variables, uses those it cannot do without, and renders
    /// on a sample of every shape.
    ///
    /// # Errors
    /// The line, the variable and what is wrong with it.
    pub fn check(&self, kind: TemplateKind) -> Result<(), String> {
        let template = self.compiled.get_template(NAME).map_err(|error| told(&error))?;
        let used: BTreeSet<String> = template
            .undeclared_variables(false)
            .into_iter()
            .filter(|name| self.compiled.globals().all(|(global, _)| global != name))
            .collect();
        let unknown = used.iter().filter(|name| !kind.variables().contains(&name.as_str()));
        if let Some((line, unknown)) = unknown.map(|name| (self.line_of(name), name)).min() {
            let line = line.map_or(String::new(), |line| format!("line {line}: "));
            return Err(format!("{line}unknown variable {unknown} (known: {})", kind.variables().join(", ")));
        }
        if let Some(missing) = kind.needed().iter().find(|name| !used.contains(**name)) {
            return Err(format!("the variable {missing} is not used"));
        }
        for sample in kind.samples() {
            template.render(sample).map_err(|error| told(&error))?;
        }
        Ok(())
    }

    /// Renders it.
    ///
    /// # Errors
    /// The line and what is wrong with it: fuel used up by enormous values, or a branch no sample reached.
    pub fn render(&self, values: Value) -> Result<String, String> {
        let template = self.compiled.get_template(NAME).map_err(|error| told(&error))?;
        template.render(values).map_err(|error| told(&error))
    }

    /// The first line inside a tag that names a variable as a whole word.
    fn line_of(&self, name: &str) -> Option<usize> {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let in_tag = |tag: &str| tag.split(|c| !word(c)).any(|part| part == name);
        let names = |line: &str| line.split('{').skip(1).filter_map(|rest| rest.split('}').next()).any(in_tag);
        self.text.lines().position(names).map(|index| index + 1)
    }
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({} bytes)", self.text.len())
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.text.as_ref().into()
    }
}

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::compile(&text)
    }
}

/// minijinja's own filter writes null for what is undefined, strict or not.
fn json(value: &Value, indent: Option<Value>, options: Kwargs) -> Result<Value, minijinja::Error> {
    if value.is_undefined() {
        Err(minijinja::Error::new(ErrorKind::UndefinedError, "an undefined value is printed"))
    } else {
        minijinja::filters::tojson(value, indent, options)
    }
}

fn bare() -> minijinja::Error {
    minijinja::Error::new(ErrorKind::InvalidOperation, "a text or list is printed without `| tojson`")
}

fn told(error: &minijinja::Error) -> String {
    let line = error.line().map_or(String::new(), |line| format!("line {line}: "));
    format!("{line}{}", error.detail().map_or_else(|| error.kind().to_string(), str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str, kind: TemplateKind) -> String {
        match Template::compile(text) {
            Ok(template) => template.check(kind).err().unwrap_or_default(),
            Err(problem) => problem,
        }
    }

    #[test]
    fn a_bad_template_is_refused_with_its_line_and_variable() {
        use TemplateKind::{Evaluator, Feedback, Generator, Summarizer};
        let ok = "{{ question | tojson }}";
        for (text, kind, reason) in [
            ("a\n{{ question | tojson", Generator, "line 2: "),
            (
                "a\n{{ qestion | tojson }}",
                Generator,
                "line 2: unknown variable qestion (known: question, choices, shown)",
            ),
            (&format!("{ok}\n{{% if chices %}}x{{% endif %}}"), Generator, "line 2: unknown variable chices"),
            (&format!("{ok}{{{{ caption | tojson }}}}"), Generator, "line 1: unknown variable caption"),
            ("no question", Generator, "the variable question is not used"),
            (ok, Feedback, "the variable previous_steps is not used"),
            (ok, Summarizer, "the variable steps is not used"),
            ("x", Evaluator, "the variable caption is not used"),
            ("a\n\n{{ question }}", Generator, "line 3: a text or list is printed without `| tojson`"),
            (&format!("{ok}{{{{ choices }}}}"), Generator, "line 1: a text or list is printed without `| tojson`"),
            ("{{ question | safe }}", Generator, "line 1: "),
            ("{{ (question | tojson) ~ question }}", Generator, "line 1: a text or list is printed"),
            ("{{ question | tojosn }}", Generator, "line 1: "),
            ("{{ question.text | tojson }}", Generator, "line 1: "),
            ("{% include 'other' %}{{ question | tojson }}", Generator, "line 1: "),
            (
                "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}{{ question | tojson }}",
                Generator,
                "line 1: ",
            ),
        ] {
            let problem = problem(text, kind);
            assert!(problem.starts_with(reason), "{text}\n{problem}");
        }
    }

    #[test]
    fn a_branch_that_only_choices_reach_is_tried_at_load() {
        let text = "{{ question | tojson }}{% if choices %}{{ choices }}{% endif %}";
        assert!(problem(text, TemplateKind::Generator).contains("without `| tojson`"));
    }
}

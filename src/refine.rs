//! The loop: a deterministic fold over agent replies.
//!
//! ```text
//! try 1..=N   generate (with the previous steps and score from the second try on) -> summarize -> evaluate
//! accept      the first try whose score reaches the threshold
//! give up     by the recipe's rules on the number of tries and the best score, where it has any
//! best        argmax over scored tries, the first on ties
//! ```
//!
//! What it asks next depends only on the job, its recipe and the replies so far: no clock, no randomness, no order of
//! tasks. That is what makes replay exact. (AURELIA, arXiv 2503.23219.)

use crate::agent::ask::{Asker, Question, Unanswered};
use crate::agent::parse::{self, Reasoning, Verdict};
use crate::agent::{check, prompt, schema};
use crate::fault::Halt;
use crate::journal::Canonical;
use crate::provider::Role;
use crate::recipe::GiveUp;
use crate::record::{ErrorKind, RecordError, Status, Try};

/// Where the loop ended.
#[derive(Debug)]
pub struct Refined {
    /// How.
    pub status: Status,
    /// Every try, the unfinished one included.
    pub tries: Vec<Try>,
    /// Position of the best scored try in `tries`.
    pub best: Option<usize>,
    /// Why it is blocked or failed.
    pub error: Option<RecordError>,
    /// The rule by which it is exhausted before its tries were used up.
    pub gave_up: Option<GiveUp>,
}

impl Refined {
    /// The end of a job that was never asked about.
    pub fn failed(error: RecordError) -> Self {
        Self { status: Status::Failed, tries: Vec::new(), best: None, error: Some(error), gave_up: None }
    }
}

/// Why the loop did not end.
#[derive(Debug)]
pub enum Unfinished {
    /// The run ends.
    Halt(Halt),
    /// The journal lacks this request, and nothing else may be asked.
    Missing(Box<Canonical>),
}

/// Runs the loop of one job. A job asked for again because its tries were used up has them once more.
pub async fn refine(asker: &Asker<'_>) -> Result<Refined, Unfinished> {
    let recipe = asker.recipe;
    let max_tries = recipe.max_tries.saturating_mul(asker.job.again.tries.saturating_add(1));
    let mut tries: Vec<Try> = Vec::new();
    for index in 1..=max_tries {
        let mut this = Try { index, ..empty() };
        let end = one_try(asker, tries.last(), &mut this).await;
        let accepted = this.score.is_some_and(|score| score >= recipe.threshold) && passes_gate(asker, &this);
        tries.push(this);
        match end {
            Ok(()) if accepted => return Ok(end_of(asker, Status::Accepted, tries, None)),
            Ok(()) => {
                let gave_up = gives_up(asker, index, &tries).filter(|_| index < max_tries);
                if gave_up.is_some() {
                    return Ok(Refined { gave_up, ..end_of(asker, Status::Exhausted, tries, None) });
                }
            }
            Err(Ended::Unfinished(unfinished)) => return Err(unfinished),
            Err(Ended::Failed(error)) => {
                let scored = tries.iter().any(|t| t.score.is_some());
                let blocked = error.kind == ErrorKind::Blocked && !scored;
                let status = if blocked { Status::Blocked } else { Status::Failed };
                return Ok(end_of(asker, status, tries, Some(error)));
            }
        }
    }
    Ok(end_of(asker, Status::Exhausted, tries, None))
}

enum Ended {
    Failed(RecordError),
    Unfinished(Unfinished),
}

/// The rule by which a job is given up after these tries. One that was asked for again goes on: somebody wants its tries used.
fn gives_up(asker: &Asker<'_>, index: u32, tries: &[Try]) -> Option<GiveUp> {
    let best = tries.iter().filter_map(|t| t.score).max();
    if asker.job.again.tries > 0 { None } else { asker.recipe.gives_up(index, best) }
}

/// One try; what is reached before an end stays in `this`.
async fn one_try(asker: &Asker<'_>, previous: Option<&Try>, this: &mut Try) -> Result<(), Ended> {
    let Reasoning { steps, answers, final_answer } = generate(asker, previous, this).await?;
    let item = &asker.job.item;
    this.leak = Some(check::leaks(&steps, &final_answer, &item.query, item.choices.as_deref()));
    if !item.answers.is_empty() {
        this.answer_match = Some(check::answer_matches(&final_answer, &item.answers, item.choices.as_deref()));
    }
    let reasoning = Reasoning { steps, answers, final_answer };
    let caption = summarize(asker, &reasoning, this).await;
    this.reasoning_steps = reasoning.steps;
    this.reasoning_answers = reasoning.answers;
    this.final_answer = Some(reasoning.final_answer);
    let caption = caption?;
    this.caption = Some(caption.clone());
    let verdict = evaluate(asker, &caption, this).await?;
    this.score = Some(verdict.score);
    this.critique = verdict.critique;
    Ok(())
}

async fn generate(asker: &Asker<'_>, previous: Option<&Try>, this: &mut Try) -> Result<Reasoning, Ended> {
    let (recipe, item) = (asker.recipe, &asker.job.item);
    let prompt = match previous.and_then(|previous| Some((previous, previous.score?))) {
        None => prompt::generator(recipe, item),
        Some((previous, score)) => {
            prompt::feedback(recipe, item, &previous.reasoning_steps, score, previous.critique.as_deref())
        }
    };
    let question = question(Role::Generator, prompt, Some(schema::reasoning()), this.index);
    ask(asker, question, this, parse::reasoning).await
}

async fn summarize(asker: &Asker<'_>, reasoning: &Reasoning, this: &mut Try) -> Result<String, Ended> {
    let prompt = prompt::summarizer(asker.recipe, &asker.job.item, reasoning);
    ask(asker, question(Role::Summarizer, prompt, None, 0), this, parse::caption).await
}

async fn evaluate(asker: &Asker<'_>, caption: &str, this: &mut Try) -> Result<Verdict, Ended> {
    let critique = asker.recipe.critique;
    let prompt = prompt::evaluator(asker.recipe, caption);
    let question = question(Role::Evaluator, prompt, Some(schema::verdict(critique)), 0);
    ask(asker, question, this, |text| parse::verdict(text, critique)).await
}

type Rendered = Result<Question, (Role, String)>;

fn question(
    role: Role,
    prompt: Result<String, String>,
    schema: Option<crate::provider::Schema>,
    draw: u32,
) -> Rendered {
    match prompt {
        Ok(prompt) => Ok(Question { role, prompt, schema, draw }),
        Err(why) => Err((role, why)),
    }
}

async fn ask<T>(
    asker: &Asker<'_>,
    question: Rendered,
    this: &mut Try,
    read: impl Fn(&str) -> Result<T, parse::Unusable>,
) -> Result<T, Ended> {
    let error = |kind, message, role| {
        Ended::Failed(RecordError { kind, message, role: Some(role), try_index: Some(this.index) })
    };
    // A template that renders its samples can still fail on a value of the item's own: the item's fault.
    let question = question.map_err(|(role, why)| error(ErrorKind::Refused, why, role))?;
    let role = question.role;
    let index = this.index;
    asker.ask(question, &mut this.calls, read).await.map_err(|unanswered| match unanswered {
        Unanswered::Failed(kind, message) => {
            Ended::Failed(RecordError { kind, message, role: Some(role), try_index: Some(index) })
        }
        Unanswered::Halt(halt) => Ended::Unfinished(Unfinished::Halt(halt)),
        Unanswered::Missing(canonical) => Ended::Unfinished(Unfinished::Missing(canonical)),
    })
}

fn end_of(asker: &Asker<'_>, status: Status, tries: Vec<Try>, error: Option<RecordError>) -> Refined {
    let rank = |t: &Try| t.score.map(|score| (passes_gate(asker, t), score));
    let mut best: Option<usize> = None;
    for (position, candidate) in tries.iter().enumerate() {
        if rank(candidate) > best.and_then(|b| rank(&tries[b])) {
            best = Some(position);
        }
    }
    Refined { status, tries, best, error, gave_up: None }
}

/// With the answer gate on, a wrong answer is never accepted nor preferred.
fn passes_gate(asker: &Asker<'_>, candidate: &Try) -> bool {
    !asker.recipe.answer_gate || candidate.answer_match != Some(false)
}

/// A try before anything is known of it.
pub(crate) fn empty() -> Try {
    Try {
        index: 0,
        reasoning_steps: Vec::new(),
        reasoning_answers: Vec::new(),
        final_answer: None,
        caption: None,
        score: None,
        critique: None,
        leak: None,
        answer_match: None,
        calls: Vec::new(),
    }
}

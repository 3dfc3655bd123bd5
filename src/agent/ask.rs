//! Asks a role until there is a usable reply, or its asks are used up.
//!
//! Asks are a budget of their own: an unparsable, blocked or truncated reply costs one, is stored like any other, and is
//! asked again under the next ordinal with another seed, so that a replay meets the same replies in the same order. A
//! truncated reply is asked again with twice the room. Nothing here turns a bad reply into a score, a try or an accept.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, PoisonError};

use super::caller::{Asked, Caller, NoReply, Paid, Payer};
use super::parse::Unusable;
use super::show::{Medium, Shown, parts};
use crate::fault::{self, Halt};
use crate::job::Job;
use crate::journal::Key;
use crate::journal::key::{Canonical, Preparation, Sample};
use crate::price::Nano;
use crate::provider::{Finish, Params, Part, Request, Role, Schema, Usage};
use crate::recipe::{Fallback, Recipe};
use crate::record::{ErrorKind, FallbackFor, Outcome, RecordCall};

/// Everything the asks of one job share.
#[derive(Debug)]
pub struct Asker<'a> {
    /// Carries each ask through.
    pub caller: &'a Caller,
    /// What each provider is called in keys, by its name in the configuration.
    pub identities: &'a BTreeMap<String, String>,
    /// The job.
    pub job: &'a Job,
    /// The run's recipe.
    pub recipe: &'a Recipe,
    /// Its media, ready.
    pub media: &'a [Medium],
    /// Who pays.
    pub payer: Payer<'a>,
    /// Keys this job has used already: a reply is paid for once, also within one record.
    pub used: Mutex<HashSet<Key>>,
}

/// One question to one role.
#[derive(Debug)]
pub struct Question {
    /// Who is asked.
    pub role: Role,
    /// The rendered prompt.
    pub prompt: String,
    /// The reply's schema, if it has one.
    pub schema: Option<Schema>,
    /// The generator's try, from 1; 0 for the others.
    pub draw: u32,
}

/// Why a role gave nothing usable.
#[derive(Debug)]
pub enum Unanswered {
    /// This ends the job.
    Failed(ErrorKind, String),
    /// The run ends, and the job has no record yet.
    Halt(Halt),
    /// The journal lacks this request, and nothing else may be asked.
    Missing(Box<Canonical>),
}

impl Asker<'_> {
    /// Asks, and adds every reply to `calls`. A job asked for again because its asks were used up has them once
    /// more: what was paid for is read, then asked anew.
    pub async fn ask<T>(
        &self,
        question: Question,
        calls: &mut Vec<RecordCall>,
        read: impl Fn(&str) -> Result<T, Unusable>,
    ) -> Result<T, Unanswered> {
        let shown = parts(self.recipe.seat(question.role).media, self.media);
        let asks = self.recipe.max_asks.saturating_mul(self.job.again.asks.saturating_add(1));
        let mut last = (Outcome::Unparsable, "it was never asked".to_owned());
        let mut cut = false;
        for ordinal in 0..asks {
            let canonical = self.canonical(&question, &shown, ordinal, cut);
            let paid = self.reply(&question, &shown, &canonical).await.map_err(unanswered)?;
            let (outcome, result) = judge(&paid, &read);
            calls.push(self.record(&canonical, outcome, &paid));
            match result {
                Ok(value) => return Ok(value),
                Err(reason) => last = (outcome, reason),
            }
            cut |= outcome == Outcome::Truncated;
        }
        let (outcome, reason) = last;
        let kind = if outcome == Outcome::Blocked { ErrorKind::Blocked } else { ErrorKind::Unparsable };
        let message = format!("the {} gave no usable reply in {asks} asks; the last one: {reason}", question.role);
        Err(Unanswered::Failed(kind, message))
    }

    /// The reply of the role's own model, or of its fallback.
    async fn reply(&self, question: &Question, shown: &Shown, canonical: &Canonical) -> Result<Paid, NoReply> {
        let seat = self.recipe.seat(question.role);
        let other = seat.fallback.as_ref().map(|fallback| (self.instead(canonical, fallback), &*fallback.provider));
        let fallback = other.as_ref().map(|(canonical, provider)| Asked { canonical, provider });
        let own = Asked { canonical, provider: &seat.provider };
        self.caller.reply(own, fallback, |canonical| Self::request(question, shown, canonical), self.payer).await
    }

    /// The same request, put to a fallback.
    fn instead(&self, canonical: &Canonical, fallback: &Fallback) -> Canonical {
        let mut instead = canonical.clone();
        instead.identity = self.identities.get(&fallback.provider).cloned().unwrap_or_default();
        instead.model.clone_from(&fallback.model);
        instead
    }

    fn canonical(&self, question: &Question, shown: &Shown, ordinal: u32, cut: bool) -> Canonical {
        let seat = self.recipe.seat(question.role);
        let identity = self.identities.get(&seat.provider).map_or("", String::as_str);
        let sample = Sample { item: self.job.item.sample, try_index: question.draw };
        let mut canonical = Canonical::new(identity, &seat.model, question.role, &self.job.item_id, sample);
        canonical.system.clone_from(&seat.system);
        let labels = shown.parts.iter().filter_map(|part| match part {
            Part::Text(label) => Some(label.clone()),
            Part::Image { .. } | Part::Audio { .. } | Part::Video { .. } => None,
        });
        canonical.prompt = labels.chain([question.prompt.clone()]).collect();
        canonical.temperature = seat.temperature;
        canonical.top_p = seat.top_p;
        canonical.max_output_tokens =
            if cut { seat.max_output_tokens.saturating_mul(2) } else { seat.max_output_tokens };
        canonical.thinking = seat.thinking;
        canonical.seed = self.recipe.seed;
        canonical.schema = question.schema.as_ref().map(|schema| schema.schema.clone());
        canonical.media.clone_from(&shown.canonical);
        canonical.preparation = Preparation::of(&shown.canonical, &self.recipe.media);
        canonical.ordinal = ordinal;
        canonical
    }

    fn request(question: &Question, shown: &Shown, canonical: &Canonical) -> Request {
        let mut parts = shown.parts.clone();
        parts.push(Part::Text(question.prompt.clone()));
        Request {
            role: question.role,
            model: canonical.model.clone(),
            system: canonical.system.clone(),
            parts: parts.into(),
            params: Params {
                temperature: canonical.temperature,
                top_p: canonical.top_p,
                max_output_tokens: canonical.max_output_tokens,
                thinking: canonical.thinking,
                seed: canonical.seed_sent(),
            },
            schema: question.schema.clone(),
        }
    }

    fn record(&self, asked: &Canonical, outcome: Outcome, paid: &Paid) -> RecordCall {
        let (seat, reply) = (self.recipe.seat(asked.role), &paid.stored.reply);
        let (provider, model) = match &seat.fallback {
            Some(Fallback { provider, model }) if paid.redirected => (provider, model),
            _ => (&seat.provider, &seat.model),
        };
        let own_model =
            || FallbackFor { provider: seat.provider.clone(), model: seat.model.clone(), key: asked.key().to_string() };
        let first = self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(paid.key);
        let own = first && paid.stored.payer == self.payer.job_id;
        RecordCall {
            role: asked.role,
            ask: asked.ordinal,
            outcome,
            provider: provider.clone(),
            model: model.clone(),
            model_version: reply.model_version.clone(),
            key: paid.key.to_string(),
            fallback_for: paid.redirected.then(own_model),
            cached: !own,
            attempts: paid.attempts,
            finish_reason: reason(&reply.finish),
            usage: if own { reply.usage } else { Usage::default() },
            cost_nano_usd: if own { paid.stored.cost.0 } else { Nano::ZERO.0 },
            latency_ms: reply.latency_ms,
        }
    }
}

/// What a reply is worth: a value, or why not.
fn judge<T>(paid: &Paid, read: impl Fn(&str) -> Result<T, Unusable>) -> (Outcome, Result<T, String>) {
    let reply = &paid.stored.reply;
    match &reply.finish {
        Finish::Blocked(why) => (Outcome::Blocked, Err(format!("blocked, {why}"))),
        Finish::Empty => (Outcome::Blocked, Err("empty".to_owned())),
        Finish::Truncated => (Outcome::Truncated, Err("cut at the maximum output".to_owned())),
        Finish::Stop | Finish::Other(_) => match read(&reply.text) {
            Ok(value) => (Outcome::Used, Ok(value)),
            Err(unusable) => (Outcome::Unparsable, Err(unusable.reason)),
        },
    }
}

fn unanswered(no: NoReply) -> Unanswered {
    match no {
        NoReply::Refused(message) => Unanswered::Failed(ErrorKind::Refused, message),
        NoReply::Provider(message) => Unanswered::Failed(ErrorKind::Provider, message),
        NoReply::Media(error) => match fault::of_media(&error) {
            Ok(error) => Unanswered::Failed(error.kind, error.message),
            Err(halt) => Unanswered::Halt(halt),
        },
        NoReply::Halt(halt) => Unanswered::Halt(halt),
        NoReply::Missing(canonical) => Unanswered::Missing(canonical),
    }
}

fn reason(finish: &Finish) -> String {
    match finish {
        Finish::Stop => "stop".to_owned(),
        Finish::Truncated => "truncated".to_owned(),
        Finish::Empty => "empty".to_owned(),
        Finish::Blocked(why) => format!("blocked: {why}"),
        Finish::Other(other) => other.clone(),
    }
}

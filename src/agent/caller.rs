//! One ask, carried through: journal, claim, reservation, attempt, settling, storing.
//!
//! Everything that can go wrong between a rendered request and a stored reply ends here. Transport attempts have a budget
//! of their own and cost neither an ask nor a try; when they are used up the call backs off and starts again, until the
//! job's deadline. A reply that was paid for and cannot be stored is held and tried again while no new call starts.
//! Nothing is resent blindly: an attempt whose end was not seen is booked at its worst case before the next one.

mod fallback;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use self::fallback::ready;
pub use self::fallback::{Asked, away};
pub use super::failures::Patience;
use super::failures::{Failures, Next};
use super::handover::{Handover, NotHanded};
use super::line::{Account, Cost, Line};
use super::meter::Ended;
pub use super::meter::Meter;
use crate::fault::Halt;
use crate::journal::{Canonical, Carried, Claim, Journal, Key, Look, Redirect, Stored};
use crate::lock::lock;
use crate::media::MediaError;
use crate::price::Nano;
use crate::provider::http::Client;
use crate::provider::{Billed, CallError, CallErrorKind, Reply, Request, Usage, VideoSent};
use crate::quota::Refusal;
use crate::quota::gate::{Gate, Reservation};
use crate::quota::ledger::End;
use crate::retry::jitter;

/// Between attempts to store a reply that was paid for.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// A settlement beside the storing of its reply holds that up no longer than this; told twice, it counts once.
const SETTLE_BESIDE: Duration = Duration::from_secs(1);
/// How long a stop waits for such a reply to be stored.
const STORE_GRACE: Duration = Duration::from_secs(20);
/// The same where the reply can travel with its job instead: it has to be on its way before the process ends.
const CARRY_GRACE: Duration = Duration::from_secs(3);

/// Carries asks through. One for the process.
#[derive(Debug)]
pub struct Caller {
    journal: Journal,
    live: Option<Live>,
    /// Replies that were paid for and not stored when their jobs had to stop, by job.
    unstored: Mutex<HashMap<String, Vec<Carried>>>,
}

/// What is needed to pay for a reply.
#[derive(Debug)]
pub struct Live {
    /// The transport.
    pub client: Client,
    /// How clips reach their providers.
    pub handover: Handover,
    /// The gate.
    pub gate: Arc<Gate>,
    /// By provider and model.
    pub lines: BTreeMap<(String, String), Line>,
    /// Retrying.
    pub patience: Patience,
    /// Counting.
    pub meter: Meter,
}

/// On whose behalf a call is made, and until when.
#[derive(Debug, Clone, Copy)]
pub struct Payer<'a> {
    /// The job's id.
    pub job_id: &'a str,
    /// How long a provider may be away, from an ask's first outage on; what is waited for a quota does not count.
    pub job_deadline: Duration,
    /// No new call starts after this.
    pub stop: &'a CancellationToken,
}

/// A reply that is in the journal.
#[derive(Debug, Clone)]
pub struct Paid {
    /// Its key.
    pub key: Key,
    /// What is stored.
    pub stored: Stored,
    /// How often it was sent now; 0 when it was in the journal.
    pub attempts: u32,
    /// Whether it is the fallback's.
    pub redirected: bool,
}

/// Why there is no reply.
#[derive(Debug)]
pub enum NoReply {
    /// The provider will never take this request.
    Refused(String),
    /// The provider did not answer until the deadline, or too often so that each attempt may have been billed.
    Provider(String),
    /// A clip cannot be handed over.
    Media(MediaError),
    /// The run ends.
    Halt(Halt),
    /// The journal does not have it, and nothing else may be asked.
    Missing(Box<Canonical>),
}

impl Caller {
    /// A caller that pays for what the journal lacks.
    pub fn live(journal: Journal, live: Live) -> Self {
        Self { journal, live: Some(live), unstored: Mutex::default() }
    }

    /// A caller that only reads the journal.
    pub fn offline(journal: Journal) -> Self {
        Self { journal, live: None, unstored: Mutex::default() }
    }

    /// Takes the replies that a job has paid for and that could not be stored before it had to stop.
    pub fn unstored(&self, job_id: &str) -> Vec<Carried> {
        lock(&self.unstored).remove(job_id).unwrap_or_default()
    }

    /// Stores a reply that a job brought along.
    #[cfg(feature = "fleet")]
    pub async fn store_carried(&self, carried: &Carried) -> Result<(), crate::state::StateError> {
        self.journal.store_carried(carried).await
    }

    /// The stored reply to a request, asked for and paid for if nobody has yet; that of its `fallback` where it was, or is now,
    /// handed to that. `build` makes the request as it is sent.
    ///
    /// Cancel safety: a call in flight is lost when the future is dropped, and counts at its worst case.
    pub async fn reply(
        &self,
        own: Asked<'_>,
        fallback: Option<Asked<'_>>,
        build: impl Fn(&Canonical) -> Request,
        payer: Payer<'_>,
    ) -> Result<Paid, NoReply> {
        let (mut asked, mut next, mut redirected) = (own, fallback, false);
        loop {
            let redirect = next.map(|to| Redirect::new(own.canonical, to.canonical, to.provider));
            let found = match &self.live {
                Some(live) => self.asked(live, asked, redirect.as_ref(), &build, payer).await?,
                None => self.stored(asked, redirect.as_ref()).await?,
            };
            match (found, next.take()) {
                (Some((stored, attempts)), _) => {
                    return Ok(Paid { key: asked.canonical.key(), stored, attempts, redirected });
                }
                (None, Some(to)) => (asked, redirected) = (to, true),
                (None, None) => {}
            }
        }
    }

    /// The reply to one request and how often it was sent; none: the fallback is to be asked in its place.
    async fn asked(
        &self,
        live: &Live,
        asked: Asked<'_>,
        redirect: Option<&Redirect>,
        build: &impl Fn(&Canonical) -> Request,
        payer: Payer<'_>,
    ) -> Result<Option<(Stored, u32)>, NoReply> {
        let key = asked.canonical.key();
        loop {
            let looked = tokio::select! {
                () = payer.stop.cancelled() => return Err(NoReply::Halt(Halt::Stopped)),
                looked = self.journal.look(key) => looked,
            };
            match looked {
                Ok(Look::Hit(stored)) => {
                    live.meter.hit();
                    return Ok((!self.is_redirected(redirect, payer).await?).then_some((*stored, 0)));
                }
                Ok(Look::Claimed(claim)) => {
                    if self.is_redirected(redirect, payer).await? {
                        return Ok(None);
                    }
                    live.meter.claimed();
                    let request = build(asked.canonical);
                    match (self.pay(live, asked, redirect.is_some(), &request, &claim, payer).await, redirect) {
                        (Ok(paid), _) => return Ok((!self.is_redirected(redirect, payer).await?).then_some(paid)),
                        (Err(NoReply::Provider(why)), Some(redirect)) => {
                            if self.redirect(live, asked, redirect, &why, payer).await? {
                                return Ok(None);
                            }
                            // There is a reply by now.
                        }
                        (Err(no), _) => return Err(no),
                    }
                }
                Ok(Look::Busy(waiting)) => {
                    live.meter.waited();
                    tokio::select! {
                        () = payer.stop.cancelled() => return Err(NoReply::Halt(Halt::Stopped)),
                        () = waiting.done() => {}
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the journal cannot be read; no call is made until it can");
                    rest(STORE_RETRY, payer.stop).await?;
                }
            }
        }
    }

    async fn pay(
        &self,
        live: &Live,
        asked: Asked<'_>,
        has_fallback: bool,
        request: &Request,
        claim: &Claim,
        payer: Payer<'_>,
    ) -> Result<(Stored, u32), NoReply> {
        let Asked { canonical, provider } = asked;
        let line = live.lines.get(&(provider.to_owned(), request.model.clone())).ok_or_else(|| {
            NoReply::Halt(Halt::Setup(format!("no provider {provider:?} with model {:?} is set up", request.model)))
        })?;
        let cost = Cost::of(line, request);
        let mut attempts = 0;
        let mut failures = Failures::new(live.patience, payer.job_deadline, has_fallback);
        let mut clips = live.handover.of(request);
        loop {
            let accounts = ready(line, live, &mut failures, payer.stop).await?;
            let handed = match clips.over(line, accounts, &live.gate, payer.stop).await {
                Ok(handed) => handed,
                Err(NotHanded::Never(no)) => return Err(no),
                Err(NotHanded::Failed(account, error)) => {
                    tracing::debug!(role = %canonical.role, %error, "a clip could not be handed over");
                    let pause = meet(live, line, account, &error, None, &mut failures).await?;
                    rest(pause, payer.stop).await?;
                    continue;
                }
            };
            let asked = Instant::now();
            let longest = failures.longest_absence();
            let reserved = handed.reserve(&live.gate, &cost, longest, payer.stop).await.inspect_err(|no| {
                live.meter.refused(match no {
                    NoReply::Halt(Halt::Budget(_)) => "budget",
                    NoReply::Halt(Halt::Wait { reason, .. }) => reason,
                    NoReply::Halt(_) => "stopped",
                    NoReply::Provider(_) => "away",
                    _ => "too_large",
                });
            })?;
            failures.waited(asked.elapsed());
            live.meter.reserved(asked.elapsed());
            let Some((account, reservation)) = reserved else { continue };
            attempts += 1;
            let (sent_at, role) = (Instant::now(), canonical.role);
            let ended = |failure, usage, cost| {
                let (provider, model, took) = (provider, request.model.as_str(), sent_at.elapsed());
                live.meter.ended(&Ended { provider, model, role, failure, took, usage, cost });
            };
            let error = match live.client.call(&line.endpoint, &account.credential, &handed.request).await {
                Ok(reply) => {
                    let sent = handed.sent;
                    account.breaker.well(sent_at);
                    line.answers();
                    ended(None, reply.usage, line.price.cost(&reply.usage));
                    let stored =
                        self.keep(live, canonical, claim, reservation, line, &cost, reply, sent, payer).await?;
                    return Ok((stored, attempts));
                }
                Err(error) => handed.without_addresses(error),
            };
            ended(Some(error.kind), Usage::default(), Nano::ZERO);
            tracing::debug!(role = %canonical.role, attempt = attempts, %error, "a call failed");
            let (spent, end) = match error.billed {
                Billed::No => (Nano::ZERO, End::Settled),
                Billed::Unknown => (cost.bound, End::Unconfirmed),
            };
            live.gate.settle(reservation, cost.tokens, spent, end, payer.stop).await;
            if let Some(why) = failures.too_many_unseen(&error) {
                return Err(NoReply::Provider(why));
            }
            clips.met(&handed, &error).await?;
            // While it rests, others may need the room.
            drop(handed);
            let pause = meet(live, line, account, &error, Some((sent_at, cost.tokens)), &mut failures).await?;
            rest(pause, payer.stop).await?;
        }
    }

    /// Stores a reply that was paid for, however long that takes.
    #[expect(clippy::too_many_arguments, reason = "all of one call's state meets here and nowhere else")]
    async fn keep(
        &self,
        live: &Live,
        canonical: &Canonical,
        claim: &Claim,
        reservation: Reservation,
        line: &Line,
        cost: &Cost,
        reply: Reply,
        clips: Vec<VideoSent>,
        payer: Payer<'_>,
    ) -> Result<Stored, NoReply> {
        // A server that reports no usage may have billed anything: its call stays at its worst case.
        let (spent, end) = if reply.usage == Usage::default() && cost.bound > Nano::ZERO {
            (cost.bound, End::Unconfirmed)
        } else {
            (line.price.cost(&reply.usage), End::Settled)
        };
        let tokens = cost.settled_tokens(line.endpoint.protocol, &reply.usage);
        let settlement = reservation.settlement(tokens, spent, end);
        let stored = Stored { reply, payer: payer.job_id.to_owned(), cost: spent, clips };
        let mut holding = None;
        let mut stopping: Option<Instant> = None;
        let storing = self.journal.store(claim, canonical, &stored, settlement);
        let settling = timeout(SETTLE_BESIDE, live.gate.settle_beside(&reservation, tokens, spent, end));
        let (mut kept, settled) = tokio::join!(storing, settling);
        let settled = settled.unwrap_or(false);
        loop {
            match kept {
                Ok(kept) => {
                    live.meter.stored(kept == stored);
                    if holding.take().is_some() {
                        live.meter.held(live.gate.held());
                    }
                    if !settled {
                        live.gate.close(reservation, tokens, spent, end, payer.stop).await;
                    }
                    return Ok(kept);
                }
                Err(error) => tracing::warn!(%error, "a reply that was paid for cannot be stored; trying until it can"),
            }
            holding.get_or_insert_with(|| live.gate.holding());
            live.meter.held(live.gate.held());
            if payer.stop.is_cancelled() {
                let grace = if self.journal.is_shared() { CARRY_GRACE } else { STORE_GRACE };
                let last = *stopping.get_or_insert_with(|| Instant::now() + grace);
                if Instant::now() > last {
                    let carried = Carried { key: claim.key(), stored };
                    lock(&self.unstored).entry(payer.job_id.to_owned()).or_default().push(carried);
                    // Where it travels, this is the stop that was asked for, and no fault of the machine.
                    let lost = || Halt::Worker("a reply that was paid for could not be stored".to_owned());
                    return Err(NoReply::Halt(if self.journal.is_shared() { Halt::Stopped } else { lost() }));
                }
            }
            tokio::time::sleep(STORE_RETRY).await;
            kept = self.journal.store(claim, canonical, &stored, settlement).await;
        }
    }
}

/// Sleeps, unless the run stops.
async fn rest(pause: Duration, stop: &CancellationToken) -> Result<(), NoReply> {
    tokio::select! {
        () = stop.cancelled() => Err(NoReply::Halt(Halt::Stopped)),
        () = tokio::time::sleep(pause) => Ok(()),
    }
}

/// What a failed attempt leads to: a pause before the next, or the end. `sent`: when it was sent, and with how many
/// tokens; none: it was no call of the model, whose limits are others.
async fn meet(
    live: &Live,
    line: &Line,
    account: &Account,
    error: &CallError,
    sent: Option<(Instant, u64)>,
    failures: &mut Failures,
) -> Result<Duration, NoReply> {
    if let Some((sent, _)) = sent.filter(|_| error.kind != CallErrorKind::Unavailable) {
        line.answers();
        if !matches!(error.kind, CallErrorKind::Throttled | CallErrorKind::DayExhausted) {
            account.breaker.well(sent);
        }
    }
    match error.kind {
        CallErrorKind::Unavailable | CallErrorKind::FileNotReady => {
            let now = Instant::now();
            let failed = sent.filter(|_| error.kind == CallErrorKind::Unavailable);
            if failed.is_some() {
                line.fails(now);
            }
            let failed = failed.filter(|_| live.client.has_answered(&line.endpoint));
            if let Some(pause) = failed.and_then(|(sent, _)| account.breaker.ill(sent, now)) {
                let (account, seconds) = (&account.spec.name, pause.as_secs());
                tracing::warn!(%account, %error, "most calls fail; the account is left alone for {seconds} s");
            }
            match failures.outage(error, line.down_for(now), jitter(), now) {
                Next::Attempt(pause) => return Ok(pause),
                Next::Round(_) | Next::GiveUp
                    if error.billed == Billed::No && !live.client.has_answered(&line.endpoint) =>
                {
                    return Err(NoReply::Halt(Halt::Setup(line.nothing_answers(error))));
                }
                Next::Round(pause) => {
                    if line.first_to_back_off(pause) {
                        tracing::warn!(%error, pause_seconds = pause.as_secs(), "a provider does not answer; backing off");
                    }
                    return Ok(pause);
                }
                Next::GiveUp => return Err(NoReply::Provider(error.message.clone())),
            }
        }
        // The whole account waits, and this call with it: at the gate, not here.
        CallErrorKind::Throttled => {
            let pause = failures.throttled(error, jitter());
            match sent {
                Some((sent, tokens)) => {
                    let ago = u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX);
                    let refusal = Refusal { ago, tokens, limit: error.limit };
                    if let Some(cut) = live.gate.refused(&account.spec, pause, refusal).await {
                        live.meter.cut(cut.of);
                        account.tell_of(cut);
                    }
                }
                None => live.gate.pause(&account.spec, pause).await,
            }
        }
        CallErrorKind::DayExhausted => live.gate.park(&account.spec, error.retry_after).await,
        CallErrorKind::Refused => return Err(NoReply::Refused(error.message.clone())),
        CallErrorKind::ModelUnknown => return Err(NoReply::Halt(Halt::Setup(error.message.clone()))),
        CallErrorKind::KeyRefused => line.refuse(account, error),
        // It is uploaded again: see the handover.
        CallErrorKind::FileGone => {}
    }
    Ok(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    mod url;

    use super::*;
    use crate::config;
    use crate::journal::key::Sample;
    use crate::provider::credentials::Credential;
    use crate::provider::{Params, Part, Protocol, Role, Thinking};
    use crate::quota::gate::{AccountSpec, Ceilings};
    use crate::quota::ledger::Ledger;
    use crate::quota::{Limits, NamedLimit};
    use crate::retry::Policy;
    use crate::state::State;
    use crate::upload::Uploads;

    const MODEL: &str = "gemini-2.5-flash";

    fn line(keys: &[&str]) -> Line {
        let config = config::load(&[], &[]).unwrap().config;
        let mut endpoint = config.providers["gemini"].endpoint.clone();
        // The discard port: nothing listens there.
        endpoint.base_url = "http://127.0.0.1:9".to_owned();
        let price = config.prices.find(Protocol::Gemini, MODEL).unwrap().clone();
        let limits = Limits::none();
        let account = |key: &&str| {
            let spec = AccountSpec { name: format!("gemini/{key}"), limits: limits.clone(), concurrency: None };
            (Credential::new(*key, "secret"), spec)
        };
        Line::new(endpoint, price, keys.iter().map(account).collect())
    }

    fn request() -> Request {
        Request {
            role: Role::Evaluator,
            model: MODEL.to_owned(),
            system: None,
            parts: vec![Part::Text("x".to_owned())].into(),
            params: Params {
                temperature: None,
                top_p: None,
                max_output_tokens: 10,
                thinking: Thinking::Default,
                seed: 1,
            },
            schema: None,
        }
    }

    /// What is needed to pay, over a state of its own.
    async fn live(state: &Arc<State>, lines: BTreeMap<(String, String), Line>) -> Live {
        let ledger = Ledger::open(Arc::clone(state), "r", 0).await.unwrap();
        let millisecond = Duration::from_millis(1);
        let policy = Policy { attempts: 3, base: millisecond, max: millisecond };
        let client = Client::new(&config::load(&[], &[]).unwrap().config.http).unwrap();
        let uploads = Uploads::open(Arc::clone(state), client.clone(), BTreeMap::new()).await.unwrap();
        let gate = Arc::new(Gate::open(ledger, Ceilings::default(), None).await.unwrap());
        let patience = Patience { policy, backoff: Duration::from_hours(1), fallback_after: Duration::from_mins(10) };
        Live { client, handover: Handover::new(uploads), gate, lines, patience, meter: Meter::default() }
    }

    #[tokio::test]
    async fn an_address_at_which_nothing_ever_answered_ends_the_run_after_one_round() {
        let dir = tempfile::tempdir().unwrap();
        let state = Arc::new(State::open(&dir.path().join("state.sqlite")).unwrap());
        let live = live(&state, [(("gemini".to_owned(), MODEL.to_owned()), line(&["K"]))].into()).await;
        let gate = Arc::clone(&live.gate);
        let caller = Caller::live(Journal::new(state), live);
        let canonical = Canonical::new("i", MODEL, Role::Evaluator, "item", Sample { item: 0, try_index: 0 });
        let stop = CancellationToken::new();
        let payer = Payer { job_id: "job", job_deadline: Duration::from_hours(24), stop: &stop };
        let asked = Asked { canonical: &canonical, provider: "gemini" };
        let ended = caller.reply(asked, None, |_| request(), payer).await;
        let Err(NoReply::Halt(Halt::Setup(message))) = ended else { panic!("{ended:?}") };
        assert!(message.starts_with("gemini: nothing answers at http://127.0.0.1:9 ("), "{message}");
        assert!(message.ends_with("); check providers.gemini.base_url"), "{message}");
        assert_eq!((gate.totals().calls, gate.totals().spent), (3, Nano::ZERO));
    }

    #[tokio::test]
    async fn a_refused_key_is_used_no_more_and_the_last_one_says_what_to_do() {
        let line = line(&["FIRST_KEY", "SECOND_KEY"]);
        let error = CallError {
            kind: CallErrorKind::KeyRefused,
            billed: Billed::No,
            message: "gemini: API key not valid".to_owned(),
            retry_after: None,
            limit: NamedLimit::default(),
        };
        line.refuse(&line.accounts[0], &error);
        let left: Vec<_> = line.accounts_in_turn().unwrap().iter().map(|a| a.credential.label.clone()).collect();
        assert_eq!(left, ["SECOND_KEY"]);
        line.refuse(&line.accounts[1], &error);
        let Err(Halt::Setup(why)) = line.accounts_in_turn() else { panic!() };
        assert_eq!(why, "key FIRST_KEY is refused: gemini: API key not valid; set a valid key in FIRST_KEY");
    }

    #[test]
    fn each_call_begins_with_another_key() {
        let line = line(&["A", "B", "C"]);
        let order = |_| line.accounts_in_turn().unwrap().iter().map(|a| &*a.credential.label).collect::<String>();
        assert_eq!((0..4).map(order).collect::<Vec<_>>(), ["ABC", "BCA", "CAB", "ABC"]);
    }

    #[test]
    fn one_call_tells_of_a_round_of_back_off_for_all() {
        let line = line(&["A"]);
        let told: Vec<bool> = (0..3).map(|_| line.first_to_back_off(Duration::from_hours(1))).collect();
        assert_eq!(told, [true, false, false]);
    }
}

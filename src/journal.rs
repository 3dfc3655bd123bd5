//! The journal: every reply that was paid for, under the hash of its request.
//!
//! ```text
//! Journal    claims of this process, then the store: embedded (one SQLite file) or shared (Redis, with the fleet's claims)
//! ```
//!
//! A reply is stored before it is used; storing is first-write-wins. A [`Claim`] makes sure that of all callers who miss one
//! key, one asks and the others wait for its reply: within a process in memory, so that a fleet's store hears of one of them
//! only. Fencing tokens and job leases were rejected: replay and claims already make two holders of one job harmless.

mod embedded;
pub mod key;
mod redirect;
#[cfg(feature = "fleet")]
mod shared;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use embedded::Embedded;
pub use key::{Canonical, Key};
pub use redirect::Redirect;

use crate::lock::lock;
use crate::price::Nano;
use crate::provider::{Reply, VideoSent};
use crate::quota::ledger::Settlement;
use crate::state::{State, StateError};

/// What the journal holds of one reply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// The reply.
    pub reply: Reply,
    /// Id of the job that paid for it.
    pub payer: String,
    /// What it cost.
    pub cost: Nano,
    /// How the clips of its request were sent, in order; empty without clips. Kept beside the reply, not in the key: it is
    /// how a clip went this time, and decides nothing.
    #[serde(default)]
    pub clips: Vec<VideoSent>,
}

/// A reply that was paid for and could not be stored: it travels with its job to whoever takes that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Carried {
    /// Its key.
    pub key: Key,
    /// What is to be stored.
    pub stored: Stored,
}

/// A stored request with its reply, to look at.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// The key.
    pub key: Key,
    /// The canonical request, as JSON.
    pub request: serde_json::Value,
    /// What was stored.
    pub stored: Stored,
}

/// What a look at a key finds.
#[derive(Debug)]
pub enum Look {
    /// The reply is there.
    Hit(Box<Stored>),
    /// It is not, and it is the caller's to ask.
    Claimed(Claim),
    /// Somebody else is asking: wait, then look again.
    Busy(Waiting),
}

/// The right to ask for one key. Dropping it wakes those who wait.
#[derive(Debug)]
pub struct Claim {
    key: Key,
    claims: Arc<Claims>,
    /// The fleet's claim on the same key.
    #[cfg(feature = "fleet")]
    held: Option<crate::shared::claims::Held>,
}

/// A wait for somebody else's reply.
#[derive(Debug)]
pub struct Waiting(watch::Receiver<()>);

type Claims = Mutex<HashMap<Key, watch::Sender<()>>>;

/// The journal. Clones share it.
#[derive(Debug, Clone)]
pub struct Journal {
    store: Store,
    claims: Arc<Claims>,
}

/// Where replies are.
#[derive(Debug, Clone)]
enum Store {
    Embedded(Embedded),
    #[cfg(feature = "fleet")]
    Shared(shared::Shared),
}

impl Journal {
    /// The journal kept in `state`, to look at.
    pub fn new(state: Arc<State>) -> Self {
        Self { store: Store::Embedded(Embedded::new(state)), claims: Arc::default() }
    }

    /// The journal kept in `state`, which this process alone writes.
    pub async fn open(state: Arc<State>) -> Result<Self, StateError> {
        Ok(Self { store: Store::Embedded(Embedded::open(state).await?), claims: Arc::default() })
    }

    /// The journal of a fleet.
    #[cfg(feature = "fleet")]
    pub fn shared(redis: crate::shared::Redis, claims: crate::shared::claims::Claims) -> Self {
        Self { store: Store::Shared(shared::Shared::new(redis, claims)), claims: Arc::default() }
    }

    /// Looks a key up, and claims it when nobody has it. While another process asks, this waits.
    ///
    /// Cancel safe: a claim that nobody took is given up.
    pub async fn look(&self, key: Key) -> Result<Look, StateError> {
        // Claim first: a reply stored between a look and a claim would be asked for again.
        #[cfg_attr(not(feature = "fleet"), expect(unused_mut, reason = "a fleet's claim is added"))]
        let mut claim = match lock(&self.claims).entry(key) {
            Entry::Occupied(taken) => return Ok(Look::Busy(Waiting(taken.get().subscribe()))),
            Entry::Vacant(free) => {
                free.insert(watch::channel(()).0);
                Claim {
                    key,
                    claims: Arc::clone(&self.claims),
                    #[cfg(feature = "fleet")]
                    held: None,
                }
            }
        };
        let found = match &self.store {
            Store::Embedded(store) => store.look(key).await?,
            #[cfg(feature = "fleet")]
            Store::Shared(store) => match store.look(key).await? {
                shared::Found::Reply(stored) => Some(*stored),
                shared::Found::Claimed(held) => {
                    claim.held = Some(held);
                    None
                }
            },
        };
        Ok(found.map_or(Look::Claimed(claim), |stored| Look::Hit(Box::new(stored))))
    }

    /// Reads a key without claiming it.
    pub async fn read(&self, key: Key) -> Result<Option<Stored>, StateError> {
        match &self.store {
            Store::Embedded(store) => store.read(key).await,
            #[cfg(feature = "fleet")]
            Store::Shared(store) => store.read(key).await,
        }
    }

    /// Stores a reply. Returns what is in the journal afterwards: this reply, or the one that was there first. Where journal
    /// and ledger are one store, its call is settled in the same transaction; elsewhere the reply comes first, and a call
    /// whose settling is lost counts at its worst case.
    pub async fn store(
        &self,
        claim: &Claim,
        request: &Canonical,
        stored_reply: &Stored,
        settlement: Option<Settlement>,
    ) -> Result<Stored, StateError> {
        match &self.store {
            Store::Embedded(store) => store.store(claim.key, request, stored_reply, settlement).await,
            #[cfg(feature = "fleet")]
            Store::Shared(store) => store.store(claim.key, claim.held.as_ref(), stored_reply).await,
        }
    }

    /// Whether a request was handed to its fallback. Asked after a look at the request's own key, the answer stays: no reply and
    /// no redirect is added behind it that would change the way.
    pub async fn is_redirected(&self, redirect: &Redirect) -> Result<bool, StateError> {
        match &self.store {
            Store::Embedded(store) => store.is_redirected(redirect).await,
            #[cfg(feature = "fleet")]
            Store::Shared(store) => store.is_redirected(redirect).await,
        }
    }

    /// Hands a request to its fallback for good, unless it has a reply of its own. Returns whether it is handed over.
    pub async fn redirect(&self, redirect: &Redirect) -> Result<bool, StateError> {
        match &self.store {
            Store::Embedded(store) => store.redirect(redirect).await,
            #[cfg(feature = "fleet")]
            Store::Shared(store) => store.redirect(redirect).await,
        }
    }

    /// Whether what cannot be stored here can be stored by somebody else.
    pub fn is_shared(&self) -> bool {
        !matches!(self.store, Store::Embedded(_))
    }

    /// Stores a reply that was paid for elsewhere and could not be stored there, unless there is one.
    #[cfg(feature = "fleet")]
    pub async fn store_carried(&self, carried: &Carried) -> Result<(), StateError> {
        match &self.store {
            Store::Embedded(_) => Err(unreadable("only a fleet's journal is handed replies")),
            Store::Shared(store) => store.store(carried.key, None, &carried.stored).await.map(|_| ()),
        }
    }

    /// The stored exchange of a key; none in a fleet's journal, which keeps no requests.
    pub async fn exchange(&self, key: Key) -> Result<Option<Exchange>, StateError> {
        match &self.store {
            Store::Embedded(store) => Ok(store.exchanges("key = ?1", key.to_vec().into()).await?.pop()),
            #[cfg(feature = "fleet")]
            Store::Shared(_) => Ok(None),
        }
    }

    /// Every stored exchange that was first asked for an item; none in a fleet's journal.
    pub async fn exchanges_of(&self, item_id: &str) -> Result<Vec<Exchange>, StateError> {
        match &self.store {
            Store::Embedded(store) => store.exchanges("item_id = ?1", item_id.to_owned().into()).await,
            #[cfg(feature = "fleet")]
            Store::Shared(_) => Ok(Vec::new()),
        }
    }
}

impl Waiting {
    /// Returns when the claim was given up, with or without a reply stored. Cancel safe.
    pub async fn done(mut self) {
        // An error means that the sender is gone, which is what is waited for.
        while self.0.changed().await.is_ok() {}
    }
}

impl Claim {
    /// The key.
    pub fn key(&self) -> Key {
        self.key
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.claims).remove(&self.key);
    }
}

fn unreadable(message: &str) -> StateError {
    StateError::Failed { path: "journal".into(), message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::key::Sample;
    use crate::provider::{Finish, Role, Usage};
    use crate::quota::ledger::{End, Ledger};

    fn request() -> Canonical {
        Canonical::new("i", "m", Role::Generator, "item", Sample { item: 0, try_index: 1 })
    }

    fn reply(text: &str) -> Stored {
        let reply = Reply {
            text: text.to_owned(),
            finish: Finish::Stop,
            usage: Usage::default(),
            model_version: None,
            response_id: None,
            latency_ms: 1,
        };
        Stored { reply, payer: "job".to_owned(), cost: Nano(9), clips: Vec::new() }
    }

    fn settled(id: i64) -> Settlement {
        Settlement { id, sent_at: 1, tokens: 1, cost: Nano(9), end: End::Settled }
    }

    async fn claim(journal: &Journal) -> Claim {
        match journal.look(request().key()).await.unwrap() {
            Look::Claimed(claim) => claim,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn one_of_many_asks_and_the_others_wait_for_its_reply() {
        let dir = tempfile::tempdir().unwrap();
        let state = Arc::new(State::open(&dir.path().join("state.sqlite")).unwrap());
        let journal = Journal::new(state);
        let held = claim(&journal).await;
        let Look::Busy(waiting) = journal.look(request().key()).await.unwrap() else { panic!("two of them ask") };
        let storing = async {
            let kept = journal.store(&held, &request(), &reply("first"), Some(settled(1))).await.unwrap();
            drop(held);
            kept
        };
        let (kept, ()) = tokio::join!(storing, waiting.done());
        assert_eq!(kept, reply("first"));
        let Look::Hit(found) = journal.look(request().key()).await.unwrap() else { panic!("it is not stored") };
        assert_eq!(*found, reply("first"));
    }

    #[tokio::test]
    async fn a_claim_that_is_given_up_goes_to_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::new(Arc::new(State::open(&dir.path().join("state.sqlite")).unwrap()));
        let held = claim(&journal).await;
        let Look::Busy(waiting) = journal.look(request().key()).await.unwrap() else { panic!("two of them ask") };
        drop(held);
        waiting.done().await;
        claim(&journal).await;
    }

    #[tokio::test]
    async fn the_first_reply_stays_and_the_second_is_only_booked() {
        let dir = tempfile::tempdir().unwrap();
        let state = Arc::new(State::open(&dir.path().join("state.sqlite")).unwrap());
        let ledger = Ledger::open(Arc::clone(&state), "r", 0).await.unwrap();
        let journal = Journal::new(state);
        let held = claim(&journal).await;
        for text in ["first", "second"] {
            let row = ledger.open_call("a", 1, 1, Nano(100)).await.unwrap();
            let kept = journal.store(&held, &request(), &reply(text), Some(settled(row))).await.unwrap();
            assert_eq!(kept.reply.text, "first");
        }
        assert_eq!(ledger.totals().await.unwrap().spent, Nano(18));
    }

    #[tokio::test]
    async fn a_reply_and_its_money_are_stored_together_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let state = Arc::new(State::open(&dir.path().join("state.sqlite")).unwrap());
        let ledger = Ledger::open(Arc::clone(&state), "r", 0).await.unwrap();
        let journal = Journal::new(Arc::clone(&state));
        let held = claim(&journal).await;
        let row = ledger.open_call("a", 1, 1, Nano(100)).await.unwrap();
        let move_away = "ALTER TABLE replies RENAME TO away";
        state.call(|c| c.execute_batch(move_away)).await.unwrap();
        assert!(journal.store(&held, &request(), &reply("text"), Some(settled(row))).await.is_err());
        assert_eq!(ledger.totals().await.unwrap().spent, Nano(100), "it is still open");
        state.call(|c| c.execute_batch("ALTER TABLE away RENAME TO replies")).await.unwrap();
        assert_eq!(journal.read(request().key()).await.unwrap(), None);
        journal.store(&held, &request(), &reply("text"), Some(settled(row))).await.unwrap();
        assert_eq!(ledger.totals().await.unwrap().spent, Nano(9));
    }

    #[tokio::test]
    async fn a_request_is_redirected_before_its_reply_or_never_and_only_for_the_fallback_that_was_named() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::new(Arc::new(State::open(&dir.path().join("state.sqlite")).unwrap()));
        let to = |model: &str| {
            let sample = Sample { item: 0, try_index: 1 };
            Redirect::new(&request(), &Canonical::new("j", model, Role::Generator, "item", sample), "other")
        };
        assert!(!journal.is_redirected(&to("a")).await.unwrap());
        for _ in 0..2 {
            assert!(journal.redirect(&to("a")).await.unwrap(), "once or again");
        }
        assert!(!journal.is_redirected(&to("b")).await.unwrap(), "another fallback");
        // Who has no fallback asks and stores as ever; after that nobody else is redirected.
        let held = claim(&journal).await;
        journal.store(&held, &request(), &reply("own"), None).await.unwrap();
        assert!(journal.is_redirected(&to("a")).await.unwrap());
        assert!(!journal.redirect(&to("b")).await.unwrap() && !journal.is_redirected(&to("b")).await.unwrap());
    }

    #[tokio::test]
    async fn a_state_of_an_earlier_version_that_is_looked_at_has_no_redirects() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.sqlite");
        let state = State::open(&path).unwrap();
        state.call(|c| c.execute_batch("DROP TABLE redirects")).await.unwrap();
        drop(state);
        let journal = Journal::new(Arc::new(State::open_to_read(&path).unwrap()));
        let redirect = Redirect::new(&request(), &request(), "other");
        assert!(!journal.is_redirected(&redirect).await.unwrap());
    }

    #[tokio::test]
    async fn an_exchange_shows_the_request_that_was_paid_for() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::new(Arc::new(State::open(&dir.path().join("state.sqlite")).unwrap()));
        let held = claim(&journal).await;
        journal.store(&held, &request(), &reply("text"), Some(settled(1))).await.unwrap();
        let by_item = journal.exchanges_of("item").await.unwrap();
        assert_eq!(by_item.len(), 1);
        assert_eq!(by_item[0].key, request().key());
        assert_eq!(by_item[0].request, serde_json::from_str::<serde_json::Value>(&request().json()).unwrap());
        assert_eq!(journal.exchange(request().key()).await.unwrap().unwrap().stored, reply("text"));
        assert!(journal.exchanges_of("other").await.unwrap().is_empty());
    }
}

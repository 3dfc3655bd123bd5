//! The journal: every reply that was paid for, under the hash of its request.
//!
//! A reply is stored before it is used, together with the settling of its money, in one transaction; storing is
//! first-write-wins. A [`Claim`] makes sure that of all callers who miss one key, one asks and the others wait for its
//! reply. Here claims live in memory, since one process holds the state; nothing else in the program knows that.
//! Fencing tokens and job leases were rejected: replay and claims already make two holders of one job harmless.

pub mod key;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::OptionalExtension;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use key::{Canonical, Key};

use crate::price::Nano;
use crate::provider::{Reply, VideoSent};
use crate::quota::ledger::{Settlement, signed, unsigned};
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

/// A reply as it is written down.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(flatten)]
    reply: &'a Reply,
    #[serde(skip_serializing_if = "<[VideoSent]>::is_empty")]
    clips: &'a [VideoSent],
}

/// What of it the reply itself does not hold.
#[derive(Deserialize)]
struct Beside {
    #[serde(default)]
    clips: Vec<VideoSent>,
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
}

/// A wait for somebody else's reply.
#[derive(Debug)]
pub struct Waiting(watch::Receiver<()>);

type Claims = Mutex<HashMap<Key, watch::Sender<()>>>;

/// The journal of one state.
#[derive(Debug, Clone)]
pub struct Journal {
    state: Arc<State>,
    claims: Arc<Claims>,
    /// The first bytes of every key that may be stored; none: not loaded, each look reads. Most looks of a new run miss,
    /// and a miss that is known costs no way to the state and back. 8 bytes a reply.
    known: Option<Arc<Mutex<HashSet<u64>>>>,
}

impl Journal {
    /// The journal kept in `state`, to look at.
    pub fn new(state: Arc<State>) -> Self {
        Self { state, claims: Arc::default(), known: None }
    }

    /// The journal kept in `state`, which this process alone writes.
    pub async fn open(state: Arc<State>) -> Result<Self, StateError> {
        let known = state
            .read(|c| {
                let mut keys = c.prepare("SELECT substr(key, 1, 8) FROM replies")?;
                let keys = keys.query_map([], |row| row.get::<_, [u8; 8]>(0).map(u64::from_le_bytes))?;
                keys.collect::<rusqlite::Result<HashSet<u64>>>()
            })
            .await?;
        Ok(Self { known: Some(Arc::new(Mutex::new(known))), ..Self::new(state) })
    }

    /// Looks a key up, and claims it when nobody has it.
    pub async fn look(&self, key: Key) -> Result<Look, StateError> {
        // Claim first: a reply stored between a look and a claim would be asked for again.
        let claim = match lock(&self.claims).entry(key) {
            Entry::Occupied(taken) => return Ok(Look::Busy(Waiting(taken.get().subscribe()))),
            Entry::Vacant(free) => {
                free.insert(watch::channel(()).0);
                Claim { key, claims: Arc::clone(&self.claims) }
            }
        };
        if self.known.as_ref().is_some_and(|known| !lock(known).contains(&key.prefix())) {
            return Ok(Look::Claimed(claim));
        }
        Ok(match self.read(key).await? {
            Some(stored) => Look::Hit(Box::new(stored)),
            None => Look::Claimed(claim),
        })
    }

    /// Reads a key without claiming it.
    pub async fn read(&self, key: Key) -> Result<Option<Stored>, StateError> {
        let row = self
            .state
            .read(move |c| {
                c.prepare_cached("SELECT reply, payer, cost FROM replies WHERE key = ?1")?
                    .query_row([key.as_slice()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                    .optional()
            })
            .await?;
        row.map(|(reply, payer, cost): (String, String, i64)| stored(&reply, payer, cost)).transpose()
    }

    /// Stores a reply and settles its call, in one transaction. Returns what is in the journal afterwards: this reply, or
    /// the one that was there first.
    pub async fn store(
        &self,
        claim: &Claim,
        request: &Canonical,
        stored_reply: &Stored,
        settlement: Settlement,
    ) -> Result<Stored, StateError> {
        let key = claim.key;
        if let Some(known) = &self.known {
            // Before it is: an answer that nobody waits for any more must not be asked for again.
            lock(known).insert(key.prefix());
        }
        let (role, item_id) = (request.role.name(), request.item_id.clone());
        let (request, payer) = (request.json(), stored_reply.payer.clone());
        let reply = serde_json::to_string(&Written { reply: &stored_reply.reply, clips: &stored_reply.clips })
            .map_err(|e| unreadable(&e.to_string()))?;
        let cost = signed(stored_reply.cost.0);
        let inserted = self
            .state
            .call(move |c| {
                settlement.write(c)?;
                c.prepare_cached("INSERT OR IGNORE INTO replies VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute((
                    key.as_slice(),
                    role,
                    item_id,
                    payer,
                    request,
                    reply,
                    cost,
                ))
            })
            .await?;
        if inserted == 1 {
            return Ok(stored_reply.clone());
        }
        let first = self.read(key).await?;
        first.ok_or_else(|| unreadable("a stored reply is gone"))
    }

    /// The stored exchange of a key.
    pub async fn exchange(&self, key: Key) -> Result<Option<Exchange>, StateError> {
        Ok(self.exchanges("key = ?1", key.to_vec().into()).await?.pop())
    }

    /// Every stored exchange that was first asked for an item.
    pub async fn exchanges_of(&self, item_id: &str) -> Result<Vec<Exchange>, StateError> {
        self.exchanges("item_id = ?1", item_id.to_owned().into()).await
    }

    async fn exchanges(
        &self,
        condition: &'static str,
        value: rusqlite::types::Value,
    ) -> Result<Vec<Exchange>, StateError> {
        let rows: Vec<(Vec<u8>, String, String, String, i64)> = self
            .state
            .read(move |c| {
                c.prepare(&format!(
                    "SELECT key, request, reply, payer, cost FROM replies WHERE {condition} ORDER BY rowid"
                ))?
                .query_map([value], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?)))?
                .collect()
            })
            .await?;
        rows.into_iter()
            .map(|(key, request, reply, payer, cost)| {
                Ok(Exchange {
                    key: Key::from_slice(&key).ok_or_else(|| unreadable("a key has the wrong length"))?,
                    request: serde_json::from_str(&request).map_err(|e| unreadable(&e.to_string()))?,
                    stored: stored(&reply, payer, cost)?,
                })
            })
            .collect()
    }
}

impl Waiting {
    /// Returns when the claim was given up, with or without a reply stored. Cancel safe.
    pub async fn done(mut self) {
        // An error means that the sender is gone, which is what is waited for.
        while self.0.changed().await.is_ok() {}
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.claims).remove(&self.key);
    }
}

fn stored(reply: &str, payer: String, cost: i64) -> Result<Stored, StateError> {
    let bad = |e: serde_json::Error| unreadable(&e.to_string());
    let clips = serde_json::from_str::<Beside>(reply).map_err(bad)?.clips;
    let reply = serde_json::from_str(reply).map_err(bad)?;
    Ok(Stored { reply, payer, cost: Nano(unsigned(cost)), clips })
}

fn unreadable(message: &str) -> StateError {
    StateError::Failed { path: "journal".into(), message: message.to_owned() }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
            let kept = journal.store(&held, &request(), &reply("first"), settled(1)).await.unwrap();
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
            let kept = journal.store(&held, &request(), &reply(text), settled(row)).await.unwrap();
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
        assert!(journal.store(&held, &request(), &reply("text"), settled(row)).await.is_err());
        assert_eq!(ledger.totals().await.unwrap().spent, Nano(100), "it is still open");
        state.call(|c| c.execute_batch("ALTER TABLE away RENAME TO replies")).await.unwrap();
        assert_eq!(journal.read(request().key()).await.unwrap(), None);
        journal.store(&held, &request(), &reply("text"), settled(row)).await.unwrap();
        assert_eq!(ledger.totals().await.unwrap().spent, Nano(9));
    }

    #[tokio::test]
    async fn an_exchange_shows_the_request_that_was_paid_for() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::new(Arc::new(State::open(&dir.path().join("state.sqlite")).unwrap()));
        let held = claim(&journal).await;
        journal.store(&held, &request(), &reply("text"), settled(1)).await.unwrap();
        let by_item = journal.exchanges_of("item").await.unwrap();
        assert_eq!(by_item.len(), 1);
        assert_eq!(by_item[0].key, request().key());
        assert_eq!(by_item[0].request, serde_json::from_str::<serde_json::Value>(&request().json()).unwrap());
        assert_eq!(journal.exchange(request().key()).await.unwrap().unwrap().stored, reply("text"));
        assert!(journal.exchanges_of("other").await.unwrap().is_empty());
    }
}

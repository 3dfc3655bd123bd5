//! The journal of one machine: a table of the state, settled in one transaction with the ledger.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};

use super::{Canonical, Exchange, Key, Redirect, Stored, unreadable};
use crate::lock::lock;
use crate::price::Nano;
use crate::provider::{Reply, VideoSent};
use crate::quota::ledger::{Settlement, signed, unsigned};
use crate::state::{State, StateError};

/// The replies of one state.
#[derive(Debug, Clone)]
pub(super) struct Embedded {
    state: Arc<State>,
    /// The first bytes of every key that may be stored; none: not loaded, each look reads. Most looks of a new run miss,
    /// and a miss that is known costs no way to the state and back. 8 bytes a reply.
    known: Option<Arc<Mutex<HashSet<u64>>>>,
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

impl Embedded {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self { state, known: None }
    }

    pub(super) async fn open(state: Arc<State>) -> Result<Self, StateError> {
        let known = state
            .read(|c| {
                let mut keys = c.prepare("SELECT substr(key, 1, 8) FROM replies")?;
                let keys = keys.query_map([], |row| row.get::<_, [u8; 8]>(0).map(u64::from_le_bytes))?;
                keys.collect::<rusqlite::Result<HashSet<u64>>>()
            })
            .await?;
        Ok(Self { known: Some(Arc::new(Mutex::new(known))), ..Self::new(state) })
    }

    /// Reads a key that its caller has claimed.
    pub(super) async fn look(&self, key: Key) -> Result<Option<Stored>, StateError> {
        if self.known.as_ref().is_some_and(|known| !lock(known).contains(&key.prefix())) {
            return Ok(None);
        }
        self.read(key).await
    }

    pub(super) async fn read(&self, key: Key) -> Result<Option<Stored>, StateError> {
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

    pub(super) async fn store(
        &self,
        key: Key,
        request: &Canonical,
        stored_reply: &Stored,
        settlement: Option<Settlement>,
    ) -> Result<Stored, StateError> {
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
                settlement.map_or(Ok(()), |settlement| settlement.write(c))?;
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

    pub(super) async fn is_redirected(&self, redirect: &Redirect) -> Result<bool, StateError> {
        let (from, to) = (redirect.from, redirect.to);
        let read = move |c: &Connection| {
            // A state of an earlier version that is only looked at has no such table, and no redirects.
            let there = "SELECT 1 FROM sqlite_master WHERE name = 'redirects'";
            if !c.prepare_cached(there)?.exists([])? {
                return Ok(false);
            }
            c.prepare_cached("SELECT 1 FROM redirects WHERE from_key = ?1 AND to_key = ?2")?
                .exists([from.as_slice(), to.as_slice()])
        };
        self.state.read(read).await
    }

    pub(super) async fn redirect(&self, redirect: &Redirect) -> Result<bool, StateError> {
        let Redirect { from, to, provider, model } = redirect.clone();
        let write = move |c: &Connection| {
            c.prepare_cached(
                "INSERT OR IGNORE INTO redirects SELECT ?1, ?2, ?3, ?4
                 WHERE NOT EXISTS (SELECT 1 FROM replies WHERE key = ?1)",
            )?
            .execute((from.as_slice(), to.as_slice(), provider, model))
        };
        self.state.call(write).await?;
        self.is_redirected(redirect).await
    }

    pub(super) async fn exchanges(
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

fn stored(reply: &str, payer: String, cost: i64) -> Result<Stored, StateError> {
    let bad = |e: serde_json::Error| unreadable(&e.to_string());
    let clips = serde_json::from_str::<Beside>(reply).map_err(bad)?.clips;
    let reply = serde_json::from_str(reply).map_err(bad)?;
    Ok(Stored { reply, payer, cost: Nano(unsigned(cost)), clips })
}

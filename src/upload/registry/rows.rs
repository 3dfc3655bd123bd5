//! Where the rows are: in the state of this machine, or in Redis for a fleet.

use std::collections::HashMap;
use std::sync::Arc;
#[cfg(feature = "fleet")]
use std::sync::LazyLock;

use super::{KEPT_SECONDS, Key, Row, now, table};
#[cfg(feature = "fleet")]
use crate::shared::claims::{Claims, Held};
#[cfg(feature = "fleet")]
use crate::shared::{Redis, Script};
use crate::state::{State, StateError};

/// The rows of all uploads.
#[derive(Clone)]
pub(in crate::upload) enum Rows {
    Embedded(Arc<State>),
    #[cfg(feature = "fleet")]
    Shared(Redis, Claims),
}

/// A process that brings a clip to a provider does so alone.
#[derive(Default)]
pub(super) struct Alone {
    #[cfg(feature = "fleet")]
    _held: Option<Held>,
}

#[cfg(feature = "fleet")]
static REMOVE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local row = redis.call('HGET', KEYS[1], ARGV[1])
         if row and cjson.decode(row).display_name == ARGV[2] then return redis.call('HDEL', KEYS[1], ARGV[1]) end
         return 0",
    )
});

impl Rows {
    /// What is known at the start: in a fleet nothing, until a clip is needed.
    pub(super) async fn all(&self) -> Result<HashMap<Key, Row>, StateError> {
        match self {
            Self::Embedded(state) => {
                let sql = "DELETE FROM uploads WHERE coalesce(expires_at, since + ?1) <= ?2";
                state.call(move |c| c.execute(sql, (KEPT_SECONDS, now()))).await?;
                state.read(table::read).await
            }
            #[cfg(feature = "fleet")]
            Self::Shared(..) => Ok(HashMap::new()),
        }
    }

    /// The rows of this key's credential as they are now; none where nobody else writes them.
    #[cfg_attr(not(feature = "fleet"), expect(clippy::unused_async, reason = "a fleet's are read over the network"))]
    pub(super) async fn of_credential(&self, key: &Key) -> Result<Option<Vec<(Key, Row)>>, StateError> {
        match self {
            Self::Embedded(_) => {
                let _ = key;
                Ok(None)
            }
            #[cfg(feature = "fleet")]
            Self::Shared(redis, _) => {
                let rows: HashMap<String, String> = redis.command(redis::cmd("HGETALL").arg(name(redis, key))).await?;
                let row = |(sha256, json): (String, String)| {
                    let row: Row = serde_json::from_str(&json).ok()?;
                    Some((Key { sha256: sha256.as_str().into(), ..key.clone() }, row))
                };
                let (over, there): (Vec<_>, Vec<_>) =
                    rows.into_iter().filter_map(row).partition(|(_, row): &(Key, Row)| row.is_over());
                for (key, row) in over {
                    let rows = self.clone();
                    redis.in_passing(async move {
                        // What stays is over all the same.
                        drop(rows.remove(&key, &row.display_name).await);
                    });
                }
                Ok(Some(there))
            }
        }
    }

    /// Waits until no other process brings this clip there.
    #[cfg_attr(not(feature = "fleet"), expect(clippy::unused_async, reason = "a fleet's claim is waited for"))]
    pub(super) async fn alone(&self, key: &Key) -> Result<Alone, StateError> {
        match self {
            Self::Embedded(_) => {
                let _ = key;
                Ok(Alone::default())
            }
            #[cfg(feature = "fleet")]
            Self::Shared(redis, claims) => {
                let claim = redis.key(&tag(key), &format!("claim:{}", key.sha256));
                Ok(Alone { _held: Some(claims.take(&claim).await?) })
            }
        }
    }

    pub(super) async fn write(&self, key: &Key, row: &Row) -> Result<(), StateError> {
        match self {
            Self::Embedded(state) => {
                let (key, row) = (key.clone(), row.clone());
                state.call(move |c| table::write(c, &key, &row)).await
            }
            #[cfg(feature = "fleet")]
            Self::Shared(redis, _) => {
                let json = serde_json::to_string(row).unwrap_or_default();
                let set = redis::cmd("HSET").arg(name(redis, key)).arg(&*key.sha256).arg(json).to_owned();
                redis.command::<i64>(&set).await.map(|_| ())
            }
        }
    }

    /// The time of last use: it is no loss if it is lost.
    pub(super) fn write_later(&self, key: &Key, row: Row) {
        let key = key.clone();
        match self {
            Self::Embedded(state) => state.later(move |c| table::write(c, &key, &row)),
            #[cfg(feature = "fleet")]
            Self::Shared(redis, _) => {
                let rows = self.clone();
                redis.in_passing(async move {
                    if let Err(error) = rows.write(&key, &row).await {
                        tracing::debug!(%error, "the last use of an upload could not be written");
                    }
                });
            }
        }
    }

    /// The row of this upload, unless there is that of another one in its place.
    pub(super) async fn remove(&self, key: &Key, display_name: &str) -> Result<(), StateError> {
        match self {
            Self::Embedded(state) => {
                let (key, name) = (key.clone(), display_name.to_owned());
                state.call(move |c| table::remove(c, &key, &name)).await
            }
            #[cfg(feature = "fleet")]
            Self::Shared(redis, _) => {
                let step_name = name(redis, key);
                redis.run::<u64>(&REMOVE.on(&step_name).arg(&*key.sha256).arg(display_name)).await.map(|_| ())
            }
        }
    }

    /// How long the last use of a file must be over before it may go: in a fleet others use it too, and say so once a minute.
    pub(super) fn spared_seconds(&self) -> i64 {
        match self {
            Self::Embedded(_) => i64::MIN / 2,
            #[cfg(feature = "fleet")]
            Self::Shared(..) => 900,
        }
    }
}

#[cfg(feature = "fleet")]
fn tag(key: &Key) -> String {
    format!("uploads:{}/{}", key.identity, key.credential)
}

#[cfg(feature = "fleet")]
fn name(redis: &Redis, key: &Key) -> String {
    redis.key(&tag(key), "rows")
}

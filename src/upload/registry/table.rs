//! The rows in the state.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::Connection;

use super::{Key, Phase, Row};

pub(super) fn write(c: &Connection, key: &Key, row: &Row) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO uploads (identity, credential, sha256, display_name, phase, name, uri, bytes,
               expires_at, since, last_used) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    let phase = match row.phase {
        Phase::Uploading => 0,
        Phase::Processing => 1,
        Phase::Active => 2,
    };
    c.prepare_cached(sql)?.execute((
        &*key.identity,
        &*key.credential,
        &*key.sha256,
        &row.display_name,
        phase,
        &row.name,
        row.uri.as_deref(),
        i64::try_from(row.bytes).unwrap_or(i64::MAX),
        row.expires_at,
        row.since,
        row.last_used,
    ))?;
    Ok(())
}

/// The row of this upload, unless there is that of another one in its place.
pub(super) fn remove(c: &Connection, key: &Key, display_name: &str) -> rusqlite::Result<()> {
    let sql = "DELETE FROM uploads WHERE identity = ?1 AND credential = ?2 AND sha256 = ?3 AND display_name = ?4";
    c.prepare_cached(sql)?.execute((&*key.identity, &*key.credential, &*key.sha256, display_name))?;
    Ok(())
}

pub(super) fn read(c: &Connection) -> rusqlite::Result<HashMap<Key, Row>> {
    let sql = "SELECT identity, credential, sha256, display_name, phase, name, uri, bytes, expires_at, since, last_used
               FROM uploads";
    let mut statement = c.prepare(sql)?;
    let rows = statement.query_map([], |r| {
        let text = |index| r.get::<_, String>(index).map(Arc::<str>::from);
        let key = Key { identity: text(0)?, credential: text(1)?, sha256: text(2)? };
        let phase = match r.get::<_, i64>(4)? {
            2 => Phase::Active,
            1 => Phase::Processing,
            _ => Phase::Uploading,
        };
        let row = Row {
            display_name: r.get(3)?,
            phase,
            name: r.get(5)?,
            uri: r.get::<_, Option<String>>(6)?.map(Arc::from),
            bytes: r.get::<_, i64>(7)?.unsigned_abs(),
            expires_at: r.get(8)?,
            since: r.get(9)?,
            last_used: r.get(10)?,
        };
        Ok((key, row))
    })?;
    rows.collect()
}

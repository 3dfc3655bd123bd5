//! Redis: whether it is new enough, and keeps what it is told. A reply that it throws away was paid for, and is paid for again.

use std::collections::BTreeMap;

use super::Finding;
use crate::quota::gate::shared::step::Books;
use crate::shared::Redis;

/// The oldest version that is used.
const OLDEST: u32 = 7;

/// How the server, or its client, says that a user may not do something.
const DENIED: [&str; 2] = ["NOPERM", "NoPerm"];
const ALLOW: &str = "redis-cli ACL SETUSER NAME +@all";

fn says(why: &str, words: &[&str]) -> bool {
    words.iter().any(|word| why.contains(word))
}

/// All about it.
pub(super) async fn look(redis: &Redis) -> Vec<Finding> {
    if let Err(error) = redis.ping().await {
        let why = error.to_string();
        let unknown = ["NOAUTH", "WRONGPASS", "AuthenticationFailed", "authentication"];
        let found = if says(&why, &DENIED) {
            Finding::wrong("redis", format!("{why}; allow its user all commands on its keys: {ALLOW}"))
        } else if says(&why, &unknown) {
            Finding::wrong("redis", format!("{why}; correct user and password in shared.url"))
        } else {
            Finding::away("redis", format!("{why}; is it up, and shared.url right?"))
        };
        return vec![found];
    }
    let info: Result<String, _> = redis.command(::redis::cmd("INFO").arg("everything")).await;
    let info = match info {
        Ok(info) => info,
        Err(error) => {
            let message = format!(
                "it answers, but not what it is ({error}); see to it that it is Redis {OLDEST} or newer, with maxmemory-policy \
                 noeviction and appendonly yes"
            );
            return vec![Finding::warning("redis", message)];
        }
    };
    let facts: BTreeMap<&str, &str> = info.lines().filter_map(|line| line.trim().split_once(':')).collect();
    // Asked of one node; the others are expected to be alike.
    let asked: Result<BTreeMap<String, String>, _> =
        redis.command(::redis::cmd("CONFIG").arg("GET").arg("appendfsync")).await;
    let fsync = asked.map(|found| found.get("appendfsync").cloned().unwrap_or_default()).map_err(|e| e.to_string());
    let persistence = persistence(&facts, fsync.as_deref().map_err(String::as_str));
    vec![version(&facts), functions(redis).await, policy(&facts), persistence]
}

/// Quota and money are reckoned by a function of the server's.
async fn functions(redis: &Redis) -> Finding {
    const NAME: &str = "redis functions";
    let Err(error) = Books::new(redis.clone()).probe().await else {
        return Finding::ok(NAME, "it takes functions, which quota and money need");
    };
    let why = error.to_string();
    if says(&why, &DENIED) || says(&why, &["unknown command"]) {
        let way = format!("allow its user all commands on its keys, FUNCTION LOAD and FCALL among them: {ALLOW}");
        return Finding::wrong(NAME, format!("it may not take functions, which quota and money need ({why}); {way}"));
    }
    Finding::away(NAME, format!("it takes no functions at present, which quota and money need ({why})"))
}

fn version(facts: &BTreeMap<&str, &str>) -> Finding {
    let version = facts.get("redis_version").copied().unwrap_or("without a version");
    let major: u32 = version.split('.').next().and_then(|number| number.parse().ok()).unwrap_or(0);
    if major < OLDEST {
        return Finding::wrong("redis", format!("Redis {version} is too old; use {OLDEST} or newer"));
    }
    Finding::ok("redis", format!("Redis {version}"))
}

fn policy(facts: &BTreeMap<&str, &str>) -> Finding {
    const NAME: &str = "redis memory";
    match facts.get("maxmemory_policy").copied() {
        Some("noeviction") => Finding::ok(NAME, "maxmemory-policy noeviction"),
        Some(other) => Finding::wrong(
            NAME,
            format!(
                "maxmemory-policy is {other}: it may throw away paid replies, quotas and money; set it by: redis-cli CONFIG SET \
                 maxmemory-policy noeviction, and in redis.conf"
            ),
        ),
        None => Finding::warning(NAME, "it does not tell its maxmemory-policy; see to it that it is noeviction"),
    }
}

fn persistence(facts: &BTreeMap<&str, &str>, fsync: Result<&str, &str>) -> Finding {
    const NAME: &str = "redis persistence";
    const SET: &str = "redis-cli CONFIG SET appendonly yes, and in redis.conf";
    match (facts.get("aof_enabled").copied(), fsync) {
        (Some("1"), Ok("always")) => Finding::ok(NAME, "appendonly yes, appendfsync always: nothing is lost"),
        (Some("1"), Ok("everysec")) => Finding::ok(
            NAME,
            "appendonly yes, appendfsync everysec: if its machine dies, what was told within the last second is lost, and paid \
             for again",
        ),
        (Some("1"), Ok(other)) => Finding::warning(
            NAME,
            format!(
                "appendfsync is {other:?}: if its machine dies, half a minute of paid replies and booked money is lost; set it by: \
                 redis-cli CONFIG SET appendfsync everysec, and in redis.conf"
            ),
        ),
        (Some("1"), Err(why)) => Finding::warning(
            NAME,
            format!(
                "appendonly yes; appendfsync cannot be asked (CONFIG is denied: {why}); see to it that it is everysec or always"
            ),
        ),
        (Some(_), _) => Finding::warning(
            NAME,
            format!(
                "appendonly is off: when it is started again, all since its last snapshot is lost: paid replies, runs, quotas and \
                 booked money; set it by: {SET}"
            ),
        ),
        (None, _) => Finding::warning(NAME, format!("it does not tell whether it writes to disk; see to it: {SET}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::Level;

    #[test]
    fn what_redis_tells_is_judged_by_what_can_be_lost() {
        let facts = |pairs: &[(&'static str, &'static str)]| pairs.iter().copied().collect::<BTreeMap<_, _>>();
        for (found, level, words) in [
            (version(&facts(&[("redis_version", "7.0.15")])), Level::Ok, "7.0.15"),
            (version(&facts(&[("redis_version", "6.2.1")])), Level::Failed, "too old"),
            (policy(&facts(&[("maxmemory_policy", "volatile-ttl")])), Level::Failed, "CONFIG SET maxmemory-policy"),
            (policy(&facts(&[])), Level::Warning, "does not tell"),
            (persistence(&facts(&[("aof_enabled", "0")]), Ok("everysec")), Level::Warning, "CONFIG SET appendonly yes"),
            (persistence(&facts(&[("aof_enabled", "1")]), Ok("no")), Level::Warning, "half a minute"),
            (persistence(&facts(&[("aof_enabled", "1")]), Err("NOPERM")), Level::Warning, "CONFIG is denied: NOPERM"),
            (persistence(&facts(&[("aof_enabled", "1")]), Ok("always")), Level::Ok, "nothing is lost"),
        ] {
            assert_eq!(found.level, level, "{}", found.message);
            assert!(found.message.contains(words), "{}", found.message);
        }
    }
}

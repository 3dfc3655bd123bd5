//! The function of the server with its arguments and answers: many steps of one account, taken together.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use redis::Value;
use serde_json::json;

use crate::price::Nano;
use crate::quota::clock::{self, micros};
use crate::quota::ledger::{End, Totals};
use crate::quota::{Account, Cut, HORIZON, LONGEST_ABSENCE, Limits, NamedLimit, Refusal, Scarce, Why, day};
use crate::shared::{Function, Redis};
use crate::state::StateError;

/// Where ceilings are that were set for the whole fleet.
const PER_DAY: &str = "ceiling:d";
const IN_ALL: &str = "ceiling:t";

static STEPS: LazyLock<Function> =
    LazyLock::new(|| Function::new("aurelia_quota", include_str!("../shared.lua"), "take_steps"));

/// All quota and money of a fleet. Clones share it.
#[derive(Debug, Clone)]
pub struct Books {
    redis: Redis,
    /// The clock of tests; none: the server's.
    clock: Option<u64>,
}

/// Most money.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ceilings {
    /// Of the run.
    pub run: Option<Nano>,
    /// Of all runs together on one day, from midnight to midnight UTC.
    pub day: Option<Nano>,
    /// Of all runs together.
    pub all: Option<Nano>,
}

/// Whose money it is.
#[derive(Debug, Clone, Copy)]
pub enum Of<'a> {
    /// A run's.
    Run(&'a str),
    /// That of this day.
    Day,
    /// That of all runs and days.
    All,
}

/// Money as the books have it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Money {
    /// Calls that were sent and have an end.
    pub calls: u64,
    /// What they cost, the unconfirmed at their worst case.
    pub spent: Nano,
    /// The worst case of calls under way.
    pub reserved: Nano,
    /// Of `spent`: calls whose end was not seen.
    pub unconfirmed: Nano,
}

/// Whose ceiling it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The run's.
    Run,
    /// That of a day, which ends after this.
    Day(Duration),
    /// That of all runs together.
    All,
}

/// One step.
#[derive(Debug, Clone)]
pub enum Step {
    /// Reserves money, a place in the concurrency and an appointment, all or none; told in [`Said::reserved`].
    Reserve {
        /// Asked under one id twice, it is reserved once.
        id: String,
        /// Whose money it is.
        run: Arc<str>,
        /// Tokens to reserve.
        tokens: u64,
        /// Money to reserve.
        bound: Nano,
        /// The longest it may take, with its appointment.
        lease: Duration,
        /// What may not be passed.
        ceilings: Ceilings,
    },
    /// The end of a call that was sent. Told twice, it counts once.
    Settle {
        /// Its id.
        id: String,
        /// Whose money it is.
        run: Arc<str>,
        /// Tokens it took.
        tokens: u64,
        /// What it cost.
        cost: Nano,
        /// Whether that is known.
        end: End,
    },
    /// A reservation with which nothing was sent.
    Back {
        /// Its id.
        id: String,
        /// Whose money it is.
        run: Arc<str>,
    },
    /// Nothing is sent for so long.
    Pause(Duration),
    /// The same, after a call that was too fast: what that says of the limits is learned, and told in [`Said::cut`].
    Refused(Duration, Refusal),
    /// Nothing more is sent on this day.
    Park,
    /// How long the account is away from now on: [`Said::absence`].
    Away,
}

/// What is said of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said(Vec<u64>);

/// What a caller knows of an account after its steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// How often it was taken from.
    pub takings: u64,
    /// The store had lost some of them.
    pub lost: bool,
}

/// An account as the server is told of it.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its name.
    pub account: &'a str,
    /// Its limits.
    pub limits: &'a Account,
    /// Calls in flight at once; 0: any number.
    pub concurrency: u32,
}

/// What a call is told. Only `Go` reserves anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Send after this.
    Go {
        /// From the server's clock on.
        delay: Duration,
    },
    /// Ask again after this.
    Later {
        /// From the server's clock on.
        delay: Duration,
        /// What stands in the way.
        why: Why,
    },
    /// All places of the concurrency are taken; some may come back soon.
    Busy,
    /// What is not spent is reserved for calls under way; some may come back soon.
    Reserved,
    /// What is spent leaves too little for this call.
    Spent {
        /// Whose ceiling it is.
        scope: Scope,
        /// What is spent of it.
        spent: Nano,
    },
}

impl Books {
    /// The books kept in `redis`.
    pub fn new(redis: Redis) -> Self {
        Self { redis, clock: None }
    }

    /// The same under a clock of one's own, in microseconds since the epoch: for tests, which have keys of their own.
    pub fn at(&self, clock: u64) -> Self {
        Self { redis: self.redis.clone(), clock: Some(clock) }
    }

    /// Whether the server takes what it needs for this, and does it: asks after an account that nobody has.
    pub async fn probe(&self) -> Result<(), StateError> {
        self.redis.load(&STEPS).await?;
        let limits = Account::new(Limits::none());
        self.take(Place { account: "preflight", limits: &limits, concurrency: 0 }, &[&Step::Away]).await.map(|_| ())
    }

    /// What a run has cost: calls with an end, and the worst case of those without.
    pub async fn totals(&self, run: &str) -> Result<Totals, StateError> {
        let Money { calls, spent, reserved, unconfirmed } = self.money(Of::Run(run)).await?;
        Ok(Totals { calls, spent: spent.saturating_add(reserved), unconfirmed })
    }

    /// The money of a run, of this day or of all.
    pub async fn money(&self, of: Of<'_>) -> Result<Money, StateError> {
        let of = match of {
            Of::Run(run) => format!("r:{run}"),
            Of::Day => format!("d:{}", self.clock.unwrap_or_else(clock::now) / day::DAY),
            Of::All => "t".to_owned(),
        };
        let raw: Option<Vec<u8>> = self.redis.command(redis::cmd("HGET").arg(self.books()).arg(of)).await?;
        let raw = raw.unwrap_or_default();
        let number = |index: usize| {
            let bytes = raw.get(index * 8..index * 8 + 8).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u64::from_le_bytes)
        };
        let [spent, reserved, unconfirmed] = [1, 2, 3].map(|index| Nano(number(index)));
        Ok(Money { calls: number(0), spent, reserved, unconfirmed })
    }

    /// The ceilings over a day and over all that were set for the whole fleet; they win over each worker's configuration.
    pub async fn set_ceilings(&self) -> Result<(Option<Nano>, Option<Nano>), StateError> {
        let mut get = redis::cmd("HMGET");
        get.arg(self.books()).arg(PER_DAY).arg(IN_ALL);
        let [day, all]: [Option<u64>; 2] = self.redis.command(&get).await?;
        Ok((day.map(Nano), all.map(Nano)))
    }

    /// Sets the ceiling over each day, for the whole fleet and at once; none: what each worker's configuration says.
    pub async fn set_per_day(&self, ceiling: Option<Nano>) -> Result<(), StateError> {
        self.set_ceiling(PER_DAY, ceiling).await
    }

    /// Sets the ceiling over all runs together, in the same way.
    pub async fn set_total(&self, ceiling: Option<Nano>) -> Result<(), StateError> {
        self.set_ceiling(IN_ALL, ceiling).await
    }

    /// Sets the ceiling of a run, in the same way; none: what its jobs bring.
    pub async fn set_run(&self, run: &str, ceiling: Option<Nano>) -> Result<(), StateError> {
        self.set_ceiling(&format!("ceiling:r:{run}"), ceiling).await
    }

    async fn set_ceiling(&self, field: &str, ceiling: Option<Nano>) -> Result<(), StateError> {
        let mut set = redis::cmd(if ceiling.is_some() { "HSET" } else { "HDEL" });
        set.arg(self.books()).arg(field);
        if let Some(ceiling) = ceiling {
            set.arg(ceiling.0);
        }
        self.redis.command::<u64>(&set).await.map(|_| ())
    }

    /// Takes steps in their order, all in one.
    pub async fn take(&self, place: Place<'_>, steps: &[&Step]) -> Result<Vec<Said>, StateError> {
        Ok(self.take_knowing(place, steps, 0).await?.0)
    }

    /// The same for a caller that knows of so many takings of this account. Where the store knows of fewer, it has lost some, and
    /// the account is held until every window is over that may have been full. Returns what is known now, too.
    pub async fn take_knowing(
        &self,
        place: Place<'_>,
        steps: &[&Step],
        known: u64,
    ) -> Result<(Vec<Said>, Known), StateError> {
        let now = self.clock.unwrap_or_else(clock::now);
        let mut numbers = vec![HORIZON, LONGEST_ABSENCE];
        numbers.extend(place.limits.parameters());
        numbers.extend(day::midnights(&place.limits.limits().day_resets, now));
        numbers.extend([day::GUARD, u64::from(place.concurrency)]);
        let numbers: Vec<u8> = numbers.into_iter().flat_map(u64::to_le_bytes).collect();
        let steps: Vec<_> = steps.iter().map(|step| step.json()).collect();
        let mut asked = vec![json!(place.account), json!(known), json!(steps)];
        asked.extend(self.clock.map(|clock| json!(clock)));
        let step = STEPS.on(&self.books()).key(&self.key(&format!("counts:{}", place.account)));
        let step = step.arg(json!(asked).to_string()).arg(numbers);
        let answers: Vec<Vec<Value>> = self.redis.run(&step).await?;
        let numbers = |answer: Vec<Value>| answer.iter().map(|value| whole(value).unwrap_or(0)).collect();
        let mut said: Vec<_> = answers.into_iter().map(|answer| Said(numbers(answer))).collect();
        let last = said.pop().unwrap_or(Said(Vec::new()));
        Ok((said, Known { takings: last.number(0), lost: last.number(1) > 0 }))
    }

    /// Where money is, with what is set for it.
    fn books(&self) -> String {
        self.key("books")
    }

    fn key(&self, name: &str) -> String {
        self.redis.key("quota", name)
    }
}

impl Step {
    /// As the server reads it.
    fn json(&self) -> serde_json::Value {
        let exact = |amount: Nano| i64::try_from(amount.min(Nano::HIGHEST_CEILING).0).unwrap_or(i64::MAX);
        let ceiling = |ceiling: Option<Nano>| ceiling.map_or(-1, exact);
        match self {
            Self::Reserve { id, run, tokens, bound, lease, ceilings } => {
                let [of_run, of_day, of_all] = [ceilings.run, ceilings.day, ceilings.all].map(ceiling);
                json!(["reserve", id, run, tokens, exact(*bound), micros(*lease), of_run, of_day, of_all])
            }
            Self::Settle { id, run, tokens, cost, end } => {
                json!(["settle", id, run, tokens, exact(*cost), *end == End::Unconfirmed])
            }
            Self::Back { id, run } => json!(["back", id, run]),
            Self::Pause(pause) => json!(["pause", "", "", micros(*pause)]),
            Self::Refused(pause, Refusal { ago, tokens, limit: NamedLimit { of, per_minute } }) => {
                json!(["refused", "", "", micros(*pause), ago, tokens, of.name(), per_minute.unwrap_or(0)])
            }
            Self::Park => json!(["park", ""]),
            Self::Away => json!(["away", ""]),
        }
    }
}

impl Said {
    /// What a reservation is told.
    pub fn reserved(&self) -> Answer {
        let delay = Duration::from_micros(self.number(1).saturating_sub(self.number(2)));
        match self.number(0) {
            1 => Answer::Go { delay },
            2 => Answer::Later { delay, why: why(self.number(3)) },
            3 => Answer::Busy,
            4 => Answer::Reserved,
            _ => {
                let scope = match self.number(1) {
                    1 => Scope::Run,
                    2 => Scope::Day(Duration::from_micros(self.number(3))),
                    _ => Scope::All,
                };
                Answer::Spent { scope, spent: Nano(self.number(2)) }
            }
        }
    }

    /// Which limit a refusal cuts.
    pub fn cut(&self) -> Option<Cut> {
        let of = match self.number(0) {
            1 => Scarce::Requests,
            2 => Scarce::Tokens,
            _ => return None,
        };
        Some(Cut { of, per_minute: self.number(1) })
    }

    /// How long the account is away.
    pub fn absence(&self) -> Duration {
        Duration::from_micros(self.number(1).saturating_sub(self.number(2)))
    }

    fn number(&self, index: usize) -> u64 {
        self.0.get(index).copied().unwrap_or(0)
    }
}

fn why(code: u64) -> Why {
    match code {
        1 => Why::DayQuota,
        2 => Why::Paused,
        _ => Why::Horizon,
    }
}

fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::BulkString(text) => str::from_utf8(text).ok()?.parse().ok(),
        Value::SimpleString(text) => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_any_log_have_room_at_the_server() {
        let code = include_str!("../shared.lua");
        let room = code.split("local ROOM = ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
        let room: u64 = room.parse().unwrap();
        for spread_seconds in (0..=600).map(|tenths| f64::from(tenths) / 10.0) {
            for requests in [None, Some(1), Some(13), Some(100), Some(6_000), Some(1_000_000)] {
                let limits = Limits {
                    requests_per_minute: requests,
                    tokens_per_minute: Some(2_000_000),
                    requests_per_day: None,
                    day_resets: jiff::tz::TimeZone::UTC,
                    spread_seconds,
                };
                let numbers = Account::new(limits).parameters();
                for buckets in [numbers[3], numbers[7], numbers[14]] {
                    assert!(buckets * 8 <= room, "{buckets} buckets for {requests:?} and {spread_seconds} s");
                }
            }
        }
    }
}

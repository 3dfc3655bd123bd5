//! The script with its arguments and answers.

use std::sync::LazyLock;
use std::time::Duration;

use redis::Value;

use crate::price::Nano;
use crate::quota::clock::{self, micros};
use crate::quota::ledger::{End, Totals};
use crate::quota::{Account, HORIZON, LONGEST_ABSENCE, Why, day};
use crate::shared::script::Step;
use crate::shared::{Redis, Script};
use crate::state::StateError;

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("../shared.lua")));

/// All quota and money of a fleet. Clones share it.
#[derive(Debug, Clone)]
pub struct Books {
    redis: Redis,
    /// The clock of tests; none: the server's.
    clock: Option<u64>,
}

/// A call that is to be made.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Its id: asked under one id twice, it is reserved once.
    pub id: &'a str,
    /// Whose money it is.
    pub run: &'a str,
    /// Whose limits.
    pub account: &'a str,
    /// Tokens to reserve.
    pub tokens: u64,
    /// Money to reserve.
    pub bound: Nano,
    /// The longest it may take, with its appointment.
    pub lease: Duration,
    /// The run's ceiling, and that of all.
    pub ceilings: (Option<Nano>, Option<Nano>),
}

/// Whose ceiling it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The run's.
    Run,
    /// That of all runs together.
    All,
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
    /// All places of the concurrency, or all money, are reserved; some may come back soon.
    Busy,
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

    /// What a run has cost: calls with an end, and the worst case of those without.
    pub async fn totals(&self, run: &str) -> Result<Totals, StateError> {
        let field = |name: &str| format!("{name}:r:{run}");
        let mut get = redis::cmd("HMGET");
        get.arg(self.key("money"));
        for name in ["calls", "spent", "reserved", "unconfirmed"] {
            get.arg(field(name));
        }
        let [calls, spent, reserved, unconfirmed]: [Option<u64>; 4] = self.redis.command(&get).await?;
        let [spent, reserved, unconfirmed] = [spent, reserved, unconfirmed].map(|n| Nano(n.unwrap_or(0)));
        Ok(Totals { calls: calls.unwrap_or(0), spent: spent.saturating_add(reserved), unconfirmed })
    }

    /// Reserves money, a place in the concurrency and an appointment, all or none.
    pub async fn reserve(&self, limits: &Account, concurrency: u32, call: &Call<'_>) -> Result<Answer, StateError> {
        let ceiling = |ceiling: Option<Nano>| ceiling.map_or_else(String::new, |ceiling| ceiling.0.to_string());
        let account = self.key(&format!("account:{}", call.account));
        let step = self.step(&account, "reserve", call.id, call.run, call.account);
        let step = step.arg(call.tokens).arg(call.bound.0).arg(micros(call.lease));
        let step =
            self.limits(step, limits).arg(concurrency).arg(ceiling(call.ceilings.0)).arg(ceiling(call.ceilings.1));
        let answer: Vec<Value> = self.redis.run(&step).await?;
        let number = |index: usize| answer.get(index).and_then(whole).unwrap_or(0);
        let delay = Duration::from_micros(number(1).saturating_sub(number(2)));
        Ok(match number(0) {
            1 => Answer::Go { delay },
            2 => Answer::Later { delay, why: why(number(3)) },
            3 | 4 => Answer::Busy,
            _ => {
                let scope = if number(1) == 1 { Scope::Run } else { Scope::All };
                Answer::Spent { scope, spent: Nano(number(2)) }
            }
        })
    }

    /// The end of a call that was sent. Told twice, it counts once.
    pub async fn settle(
        &self,
        limits: &Account,
        account: &str,
        id: &str,
        tokens: u64,
        cost: Nano,
        end: End,
    ) -> Result<(), StateError> {
        let unconfirmed = u8::from(end == End::Unconfirmed);
        self.tell(limits, account, "settle", id, (tokens, cost.0, unconfirmed)).await.map(|_| ())
    }

    /// A reservation with which nothing was sent.
    pub async fn give_back(&self, limits: &Account, account: &str, id: &str) -> Result<(), StateError> {
        self.tell(limits, account, "back", id, (0, 0, 0)).await.map(|_| ())
    }

    /// Nothing is sent for so long.
    pub async fn pause(&self, limits: &Account, account: &str, pause: Duration) -> Result<(), StateError> {
        self.tell(limits, account, "pause", "", (micros(pause), 0, 0)).await.map(|_| ())
    }

    /// Nothing more is sent on this day.
    pub async fn park(&self, limits: &Account, account: &str) -> Result<(), StateError> {
        self.tell(limits, account, "park", "", (0, 0, 0)).await.map(|_| ())
    }

    /// How long an account is away from now on.
    pub async fn absence(&self, limits: &Account, account: &str) -> Result<Duration, StateError> {
        let answer = self.tell(limits, account, "away", "", (0, 0, 0)).await?;
        let number = |index: usize| answer.get(index).and_then(whole).unwrap_or(0);
        Ok(Duration::from_micros(number(1).saturating_sub(number(2))))
    }

    async fn tell(
        &self,
        limits: &Account,
        account: &str,
        operation: &str,
        id: &str,
        rest: (u64, u64, u8),
    ) -> Result<Vec<Value>, StateError> {
        let key = self.key(&format!("account:{account}"));
        let step = self.step(&key, operation, id, "", account).arg(0).arg(0).arg(0);
        let step = self.limits(step, limits).arg(0).arg("").arg("");
        self.redis.run(&step.arg(rest.0).arg(rest.1).arg(rest.2)).await
    }

    fn step(&self, key: &str, operation: &str, id: &str, run: &str, account: &str) -> Step<'static> {
        let clock = self.clock.map_or_else(String::new, |now| now.to_string());
        let step = SCRIPT.on(key).key(&self.key("in-flight")).key(&self.key("open")).key(&self.key("leases"));
        step.key(&self.key("money")).arg(operation).arg(clock).arg(id).arg(run).arg(account)
    }

    /// The arguments from the ninth to the thirty-fourth.
    fn limits<'a>(&self, step: Step<'a>, limits: &Account) -> Step<'a> {
        let now = self.clock.unwrap_or_else(clock::now);
        let midnights = day::midnights(&limits.limits().day_resets, now);
        let step = step.arg(HORIZON).arg(LONGEST_ABSENCE);
        let step = limits.parameters().iter().fold(step, |step, number| step.arg(*number));
        midnights.iter().fold(step, |step, midnight| step.arg(*midnight)).arg(day::GUARD)
    }

    fn key(&self, name: &str) -> String {
        self.redis.key("quota", name)
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

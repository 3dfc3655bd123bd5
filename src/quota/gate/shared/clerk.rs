//! Steps of one account, gathered: what is asked for while one call is under way goes together with the next.
//!
//! A step alone costs the server eight times what it costs in company, so under load it is the batch that makes the difference;
//! without load nothing waits. Steps are taken in the order in which they came.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::step::{Answer, Books, Place, Said, Step};
use crate::lock::lock;
use crate::quota::Account;
use crate::shared::Redis;
use crate::state::StateError;

/// Most steps in one call: what the server's other users wait for stays under a few milliseconds.
const MOST: usize = 64;

/// The steps of one account in one process.
#[derive(Debug)]
pub(super) struct Clerk {
    redis: Redis,
    books: Books,
    pub(super) account: String,
    pub(super) limits: Account,
    concurrency: u32,
    desk: Mutex<Desk>,
    /// How many takings of the account were seen: fewer in the store are a loss.
    known: AtomicU64,
    /// When a call may go next, as far as was heard, in the hall's microseconds.
    free_at: AtomicU64,
}

#[derive(Debug, Default)]
struct Desk {
    waiting: Vec<(Step, oneshot::Sender<Result<Heard, StateError>>)>,
    working: bool,
}

/// However the work ends, nobody waits for it in vain: those who do are told, and the next one begins anew.
struct Unfinished<'a> {
    clerk: &'a Clerk,
    ended: bool,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let mut desk = lock(&self.clerk.desk);
            desk.working = false;
            desk.waiting.clear();
        }
    }
}

/// What was said, and when it was asked.
pub(super) type Heard = (Said, Instant);

impl Clerk {
    pub(super) fn new(redis: Redis, books: Books, account: String, limits: Account, concurrency: u32) -> Self {
        Self {
            redis,
            books,
            account,
            limits,
            concurrency,
            desk: Mutex::default(),
            known: AtomicU64::new(0),
            free_at: AtomicU64::new(0),
        }
    }

    /// Takes a step, in its turn. Dropped half-way, it may have been taken; a reservation is given back then.
    pub(super) async fn take(self: &Arc<Self>, step: Step) -> Result<Heard, StateError> {
        let (tell, told) = oneshot::channel();
        self.put(step, tell);
        let over = || StateError::Failed { path: "quota".into(), message: "the process ends".to_owned() };
        told.await.unwrap_or_else(|_| Err(over()))
    }

    /// When a call may go next, as far as was heard: microseconds by the clock of the hall.
    pub(super) fn free_at(&self) -> u64 {
        self.free_at.load(Ordering::Relaxed)
    }

    pub(super) fn is_free_at(&self, at: u64) {
        self.free_at.store(at, Ordering::Relaxed);
    }

    fn put(self: &Arc<Self>, step: Step, tell: oneshot::Sender<Result<Heard, StateError>>) {
        let idle = {
            let mut desk = lock(&self.desk);
            desk.waiting.push((step, tell));
            !std::mem::replace(&mut desk.working, true)
        };
        if idle {
            self.redis.in_passing(Arc::clone(self).work());
        }
    }

    async fn work(self: Arc<Self>) {
        let mut unfinished = Unfinished { clerk: &self, ended: false };
        loop {
            let batch: Vec<_> = {
                let mut desk = lock(&self.desk);
                let many = desk.waiting.len().min(MOST);
                desk.working = many > 0;
                desk.waiting.drain(..many).collect()
            };
            if batch.is_empty() {
                unfinished.ended = true;
                return;
            }
            let steps: Vec<&Step> = batch.iter().map(|(step, _)| step).collect();
            let place = Place { account: &self.account, limits: &self.limits, concurrency: self.concurrency };
            let asked = Instant::now();
            match self.books.take_knowing(place, &steps, self.known.load(Ordering::Relaxed)).await {
                Ok((answers, known)) => {
                    self.known.store(known.takings, Ordering::Relaxed);
                    if known.lost {
                        tracing::warn!(account = %self.account, "Redis has lost what was sent last; the account is held for a minute");
                    }
                    for ((step, tell), said) in batch.into_iter().zip(answers) {
                        self.tell(step, tell, (said, asked));
                    }
                }
                Err(error) => {
                    for (_, tell) in batch {
                        drop(tell.send(Err(error.again())));
                    }
                }
            }
        }
    }

    /// A reservation that nobody waits for any more is given back.
    fn tell(self: &Arc<Self>, step: Step, tell: oneshot::Sender<Result<Heard, StateError>>, heard: Heard) {
        if let Err(Ok((said, _))) = tell.send(Ok(heard))
            && let Step::Reserve { id, run, .. } = step
            && matches!(said.reserved(), Answer::Go { .. })
        {
            self.put(Step::Back { id, run }, oneshot::channel().0);
        }
    }
}

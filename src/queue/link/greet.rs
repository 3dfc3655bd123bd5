//! Whether somebody who speaks the protocol is there, before the client library is let at him.
//!
//! The library waits for a greeting for ever, in a thread of its own, and an attempt that is given up leaves that thread and its
//! socket behind. A peer that takes connections and stays silent (a broker that hangs, a balancer without one behind it, a
//! cut cable) would cost a thread every few seconds. So after one such attempt a socket of ours asks first.
//!
//! Over TLS there is no greeting before the handshake: there only a long pause between two attempts keeps the loss small.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

use crate::queue::address::{Address, HELLO};

/// Until the first byte of an answer.
const GREETING: Duration = Duration::from_secs(5);
/// Attempts over TLS at a peer that was silent, and the longest pause at one that greets and says no more.
const PAUSE_TLS: Duration = Duration::from_mins(5);
const PAUSE_LONGEST: Duration = Duration::from_mins(1);
/// The first pause at one that greets and says no more.
const PAUSE: Duration = Duration::from_secs(5);

/// What is known of a peer that took a connection and was silent.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// Attempts of the library that were given up, in a row.
    attempts: u32,
    last: Option<Instant>,
}

impl Silence {
    /// An attempt of the library was given up.
    pub(super) fn noticed(&mut self) {
        self.attempts = self.attempts.saturating_add(1);
        self.last = Some(Instant::now());
    }

    /// An attempt of the library ended by itself, well or badly.
    pub(super) fn broken(&mut self) {
        *self = Self::default();
    }

    /// Whether the library may try; if not, why. Cancel safe.
    pub(super) async fn may_try(&self, address: &Address) -> Result<(), String> {
        let Some(last) = self.last else { return Ok(()) };
        let tls = address.is_tls();
        greet(address, !tls).await?;
        let pause = self.pause(tls);
        if last.elapsed() < pause {
            let seconds = pause.as_secs();
            return Err(format!("it takes connections, but lets nobody in; trying every {seconds} s"));
        }
        Ok(())
    }

    fn pause(&self, tls: bool) -> Duration {
        match self.attempts {
            _ if tls => PAUSE_TLS,
            // It greets now, and did not then.
            0 | 1 => Duration::ZERO,
            more => PAUSE.saturating_mul(1 << (more - 2).min(10)).min(PAUSE_LONGEST),
        }
    }
}

/// Connects, and waits for the first byte of a greeting if `plain`.
async fn greet(address: &Address, plain: bool) -> Result<(), String> {
    let asked = async {
        let mut stream = address.dial().await?;
        if plain {
            stream.write_all(HELLO).await?;
            stream.read_u8().await?;
        }
        Ok::<(), std::io::Error>(())
    };
    match timeout(GREETING, asked).await {
        Ok(greeted) => greeted.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no greeting within {} s", GREETING.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_with_every_attempt_that_was_met_with_silence() {
        let pauses = |tls| {
            let of = |attempts| Silence { attempts, last: None }.pause(tls).as_secs();
            [1, 2, 3, 4, 6, 99].map(of)
        };
        assert_eq!(pauses(false), [0, 5, 10, 20, 60, 60]);
        assert_eq!(pauses(true), [300; 6]);
    }
}

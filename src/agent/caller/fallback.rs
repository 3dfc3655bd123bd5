//! When a role's own model is away for too long, its fallback is asked.
//!
//! The redirect is written first ([`crate::journal::Redirect`]); from then on the ask is one of the fallback's: its own key and
//! claim, its price, its limits, its way for clips. A refusal, a block or a reply that cannot be used is an answer and no absence.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Caller, Live, NoReply, Payer, STORE_RETRY, rest};
use crate::agent::failures::Failures;
use crate::agent::line::{Account, Line};
use crate::fault::Halt;
use crate::journal::{Canonical, Redirect, Stored};
use crate::retry::jitter;

/// Between two looks at accounts that are left alone.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// A request, and whom it is put to.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// What is asked.
    pub canonical: &'a Canonical,
    /// The provider's name in the configuration.
    pub provider: &'a str,
}

impl Caller {
    /// What the journal has, where nothing else may be asked; none: the fallback's reply is to be read.
    pub(super) async fn stored(
        &self,
        asked: Asked<'_>,
        redirect: Option<&Redirect>,
    ) -> Result<Option<(Stored, u32)>, NoReply> {
        let unreadable = |error: crate::state::StateError| NoReply::Halt(Halt::Worker(error.to_string()));
        let stored = self.journal.read(asked.canonical.key()).await.map_err(unreadable)?;
        if let Some(redirect) = redirect
            && self.journal.is_redirected(redirect).await.map_err(unreadable)?
        {
            return Ok(None);
        }
        let missing = || NoReply::Missing(Box::new(asked.canonical.clone()));
        stored.map(|stored| Some((stored, 0))).ok_or_else(missing)
    }

    /// Whether the journal sends this ask to its fallback.
    pub(super) async fn is_redirected(&self, redirect: Option<&Redirect>, payer: Payer<'_>) -> Result<bool, NoReply> {
        let Some(redirect) = redirect else { return Ok(false) };
        loop {
            match self.journal.is_redirected(redirect).await {
                Ok(is) => return Ok(is),
                Err(error) => {
                    tracing::warn!(%error, "the journal cannot be read; no call is made until it can");
                    rest(STORE_RETRY, payer.stop).await?;
                }
            }
        }
    }

    /// Hands an ask to its fallback because of `why`, unless it has a reply. Returns whether it is handed over.
    pub(super) async fn redirect(
        &self,
        live: &Live,
        asked: Asked<'_>,
        redirect: &Redirect,
        why: &str,
        payer: Payer<'_>,
    ) -> Result<bool, NoReply> {
        let is = loop {
            match self.journal.redirect(redirect).await {
                Ok(is) => break is,
                Err(error) => {
                    tracing::warn!(%error, "the journal cannot be written; no call is made until it can");
                    rest(STORE_RETRY, payer.stop).await?;
                }
            }
        };
        if is {
            live.meter.redirected();
            let (Asked { canonical, provider }, Redirect { provider: to, model, .. }) = (asked, redirect);
            let line = live.lines.get(&(provider.to_owned(), canonical.model.clone()));
            if line.is_some_and(|line| line.first_to_give_way(live.patience.fallback_after)) {
                tracing::warn!(role = %canonical.role, why, "{provider} is away for too long; {to} is asked for {model}");
            }
        }
        Ok(is)
    }
}

/// Accounts that may be asked now, once there are any.
pub(super) async fn ready<'a>(
    line: &'a Line,
    live: &Live,
    failures: &mut Failures,
    stop: &CancellationToken,
) -> Result<Vec<&'a Account>, NoReply> {
    let provider = &line.endpoint.name;
    let accounts = loop {
        let (accounts, now) = (line.accounts_in_turn().map_err(NoReply::Halt)?, Instant::now());
        match Line::unbroken(accounts, now) {
            Ok(accounts) => break accounts,
            Err(pause) if failures.may_wait(pause, line.down_for(now), now) => {
                rest(pause.min(LOOK_AGAIN).mul_f64(0.5 + jitter()), stop).await?;
            }
            Err(_) => return Err(NoReply::Provider(format!("{provider}: most calls fail"))),
        }
    };
    let Some(longest) = failures.longest_absence() else { return Ok(accounts) };
    // Before clips are uploaded for nothing.
    for account in &accounts {
        if live.gate.absence(&account.spec, stop).await.map_err(NoReply::Halt)? <= longest {
            return Ok(accounts);
        }
    }
    Err(away())
}

/// All accounts are away for longer than they are waited for.
pub fn away() -> NoReply {
    NoReply::Provider("its quota is used up for longer than retry.fallback_after_seconds".to_owned())
}

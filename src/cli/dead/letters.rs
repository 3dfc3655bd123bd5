//! Dead letters one by one, and as text.

use serde_json::{Value, json};

use super::{next, open};
use crate::cli::Failure;
use crate::cli::operator::ask;
use crate::fleet::Fleet;
use crate::queue::{DeadLetter, DeadLetters, Held};

/// Longest first line of an error in a list, in characters.
const LINE: usize = 100;

/// Which ones; what is not said does not matter.
pub(super) struct Selection {
    pub(super) ids: Vec<String>,
    pub(super) run: Option<String>,
    pub(super) reason: Option<String>,
}

impl Selection {
    fn holds(&self, letter: &DeadLetter) -> bool {
        (self.ids.is_empty() || self.ids.contains(&letter.id))
            && self.run.as_ref().is_none_or(|run| *run == letter.run)
            && self.reason.as_ref().is_none_or(|reason| *reason == letter.reason)
    }
}

/// Does something with each that is selected; the others go back when all were looked at, as does what is only looked at.
pub(super) async fn each(
    fleet: &Fleet,
    wanted: &Selection,
    mut act: impl AsyncFnMut(&DeadLetters, Held) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let look = open(fleet).await?;
    let mut result = Ok(());
    while let Some(held) = next(&look).await? {
        if wanted.holds(&held.letter) {
            result = act(&look, held).await;
            if result.is_err() {
                break;
            }
        }
    }
    // The answer to this follows all that was said before it.
    let closed = ask(look.close()).await;
    result.and(match closed {
        // A look at what was never declared has lost its channel already.
        Err(failure) if failure.code == 75 => Ok(()),
        closed => closed,
    })
}

/// One line of a list.
pub(super) fn line(letter: &DeadLetter) -> String {
    let error: String = letter.detail.lines().next().unwrap_or_default().chars().take(LINE).collect();
    format!("{}  {}  {}  {error}\n", letter.id, letter.run, letter.reason)
}

/// One line of a list, for scripts.
pub(super) fn json(letter: &DeadLetter) -> Value {
    json!({
        "id": letter.id, "run": letter.run, "reason": letter.reason, "detail": letter.detail, "origin": letter.origin,
        "parked": letter.parked, "returned": letter.returned, "bytes": letter.body.len(),
    })
}

/// All of one, for scripts: its body as JSON where it is JSON, else as text.
pub(super) fn json_whole(letter: &DeadLetter) -> Value {
    let mut all = json(letter);
    all["history"] = letter.history.lines().collect::<Vec<_>>().into();
    all["body"] = serde_json::from_slice(&letter.body)
        .unwrap_or_else(|_| String::from_utf8_lossy(&letter.body).into_owned().into());
    all
}

/// All of one.
pub(super) fn shown(letter: &DeadLetter) -> String {
    let mut text = format!(
        "id: {}\nrun: {}\nreason: {}\nparked {} times, returned {} times\ndetail: {}\n",
        letter.id, letter.run, letter.reason, letter.parked, letter.returned, letter.detail
    );
    if !letter.history.is_empty() {
        text += &format!("history:\n{}\n", letter.history);
    }
    text + &format!("--- {} bytes ---\n{}\n", letter.body.len(), String::from_utf8_lossy(&letter.body))
}

/// What was done.
pub(super) fn told(word: &str, count: usize, as_json: bool) -> String {
    if as_json { format!("{}\n", json!({ word: count })) } else { format!("{count} {word}\n") }
}

//! Every way a call can go wrong, by name.
//!
//! A fault is drawn per request from its identity and how often it was seen, so a re-ask is a new draw and a rerun of the
//! same traffic meets the same faults. Transport faults hit before or instead of the answer; reply faults are HTTP 200 and
//! are billed, as the real ones are. Faults no retry can mend (daily quota, billing, a refused request) are in no group:
//! they must be named, since drawing them at random would only end the run.

use super::draw;
use super::prompt::Seat;

/// One way to go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    RateFull,
    RateBare,
    RateTruncated,
    Internal,
    BadGateway,
    Unavailable,
    Deadline,
    CutBefore,
    CutAfter,
    CutBody,
    Stall,
    Slow,
    Garbage,
    WrongLength,
    Safety,
    Recitation,
    Blocked,
    NoCandidates,
    Empty,
    EmptyLength,
    Truncated,
    Prose,
    ScoreRange,
    ScoreFraction,
    ScoreWord,
    ScoreTwo,
    UnknownFinish,
    DailyQuota,
    NoQuota,
    TooLarge,
    Refused,
}

use Fault::{
    BadGateway, Blocked, CutAfter, CutBefore, CutBody, DailyQuota, Deadline, Empty, EmptyLength, Garbage, Internal,
    NoCandidates, NoQuota, Prose, RateBare, RateFull, RateTruncated, Recitation, Refused, Safety, ScoreFraction,
    ScoreRange, ScoreTwo, ScoreWord, Slow, Stall, TooLarge, Truncated, Unavailable, UnknownFinish, WrongLength,
};

/// Faults of the line and of the front end.
pub(crate) const TRANSPORT: [Fault; 14] = [
    RateFull,
    RateBare,
    RateTruncated,
    Internal,
    BadGateway,
    Unavailable,
    Deadline,
    CutBefore,
    CutAfter,
    CutBody,
    Stall,
    Slow,
    Garbage,
    WrongLength,
];

/// Faults of the reply: HTTP 200, billed, of no use.
pub(crate) const REPLY: [Fault; 13] = [
    Safety,
    Recitation,
    Blocked,
    NoCandidates,
    Empty,
    EmptyLength,
    Truncated,
    Prose,
    ScoreRange,
    ScoreFraction,
    ScoreWord,
    ScoreTwo,
    UnknownFinish,
];

/// Faults that a retry never mends; only by name.
pub(crate) const FINAL: [Fault; 4] = [DailyQuota, NoQuota, TooLarge, Refused];

impl Fault {
    /// Its name in settings, directives and statistics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            RateFull => "429",
            RateBare => "429_bare",
            RateTruncated => "429_truncated",
            Internal => "500",
            BadGateway => "502",
            Unavailable => "503",
            Deadline => "504",
            CutBefore => "cut_before",
            CutAfter => "cut_after",
            CutBody => "cut_body",
            Stall => "stall",
            Slow => "slow",
            Garbage => "garbage",
            WrongLength => "wrong_length",
            Safety => "safety",
            Recitation => "recitation",
            Blocked => "blocked",
            NoCandidates => "no_candidates",
            Empty => "empty",
            EmptyLength => "empty_length",
            Truncated => "truncated",
            Prose => "prose",
            ScoreRange => "score_range",
            ScoreFraction => "score_fraction",
            ScoreWord => "score_word",
            ScoreTwo => "score_two",
            UnknownFinish => "unknown_finish",
            DailyQuota => "429_daily",
            NoQuota => "insufficient_quota",
            TooLarge => "429_too_large",
            Refused => "400",
        }
    }

    /// The fault of this name, in any case; what the providers call it works too.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let name = match name.as_str() {
            "429_full" => "429",
            "max_tokens" | "length" => "truncated",
            "max_tokens_empty" => "empty_length",
            "content_filter" => "safety",
            "refusal" | "prompt_blocked" | "prohibited_content" => "blocked",
            other => other,
        };
        TRANSPORT.iter().chain(&REPLY).chain(&FINAL).copied().find(|fault| fault.name() == name)
    }

    /// Whether the fault means anything in a reply to this seat.
    pub(crate) fn suits(self, seat: Seat) -> bool {
        match self {
            ScoreRange | ScoreFraction | ScoreWord | ScoreTwo => seat == Seat::Evaluator,
            Prose => matches!(seat, Seat::Generator | Seat::Evaluator),
            _ => true,
        }
    }

    /// Whether the answer was computed, and is billed, although the call goes wrong.
    pub(crate) fn is_processed(self) -> bool {
        REPLY.contains(&self) || matches!(self, CutAfter | CutBody | Stall | Slow | WrongLength)
    }
}

/// Expands groups (`transport`, `reply`, `all`) and names; a name listed twice is drawn twice as often.
pub(crate) fn expand(kinds: &[String]) -> Result<Vec<Fault>, String> {
    let mut faults = Vec::new();
    for kind in kinds {
        match kind.to_ascii_lowercase().as_str() {
            "transport" => faults.extend(TRANSPORT),
            "reply" => faults.extend(REPLY),
            "all" => faults.extend(TRANSPORT.iter().chain(&REPLY)),
            other => faults.push(Fault::parse(other).ok_or_else(|| {
                let known: Vec<_> = TRANSPORT.iter().chain(&REPLY).chain(&FINAL).map(|fault| fault.name()).collect();
                format!("unknown fault {other:?}; known: transport, reply, all, {}", known.join(", "))
            })?),
        }
    }
    Ok(faults)
}

/// The fault, if any, of the `count`th call with this identity.
pub(crate) fn roll(rate: f64, kinds: &[Fault], seat: Seat, id: u128, count: u64) -> Option<Fault> {
    if draw::unit(id, "fault", count) >= rate {
        return None;
    }
    let suited: Vec<Fault> = kinds.iter().copied().filter(|fault| fault.suits(seat)).collect();
    let at = draw::bits(id, "which fault", count) % u64::try_from(suited.len()).ok()?.max(1);
    suited.get(usize::try_from(at).ok()?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_found_by_its_name() {
        for fault in TRANSPORT.iter().chain(&REPLY).chain(&FINAL) {
            assert_eq!(Fault::parse(&fault.name().to_uppercase()), Some(*fault));
        }
        assert_eq!(Fault::parse("MAX_TOKENS"), Some(Truncated));
        assert!(expand(&["no_such".into()]).unwrap_err().contains("transport, reply, all"));
    }

    #[test]
    fn the_rate_is_met_and_every_kind_is_drawn() {
        let kinds = expand(&["all".into()]).unwrap();
        let rolled: Vec<_> = (0..20_000).filter_map(|n| roll(0.1, &kinds, Seat::Evaluator, 5, n)).collect();
        assert!((1_800..2_200).contains(&rolled.len()), "{} of 20000", rolled.len());
        assert!(kinds.iter().all(|kind| rolled.contains(kind)));
    }

    #[test]
    fn a_summarizer_never_draws_a_fault_of_scores() {
        let kinds = expand(&["score_two".into(), "prose".into()]).unwrap();
        assert_eq!(roll(1.0, &kinds, Seat::Summarizer, 5, 0), None);
        assert!(roll(1.0, &kinds, Seat::Evaluator, 5, 0).is_some());
    }
}

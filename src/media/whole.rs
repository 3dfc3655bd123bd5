//! Whether what was decoded is all that the source says it holds.
//!
//! A source is whole when ffmpeg ends well, at most a tenth of its packets cannot be decoded, and what was decoded reaches
//! the end that the container states. Error lines alone prove nothing (sound files from editors begin with undecodable
//! priming, broadcast cuts begin between key frames), and a missing end alone proves little (the last picture of a slide
//! show stands for long), so the two are weighed together: see [`is_cut_off`]. Sound beyond what is kept is not decoded, so
//! a sound file cut off after that point passes. A clip that is handed over whole is read and not decoded; the same ends are
//! weighed for its packets.

use super::frames::Seen;
use super::probe::{Plan, Stream};
use super::{MediaError, child};

/// The sound that was decoded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sound {
    pub(crate) seconds: f64,
    /// Whether there is more than was decoded.
    pub(crate) trimmed: bool,
}

/// Fails if the source holds nothing that can be decoded, ends before it should, or lasts longer than `most` seconds.
/// `log` is what ffmpeg complained about.
pub(crate) fn check(plan: &Plan, seen: &Seen, sound: Option<Sound>, log: &str, most: u64) -> Result<(), MediaError> {
    if plan.video.is_some() && seen.frames == 0 {
        return Err(MediaError::invalid(with_reason("holds no picture that can be decoded", log)));
    }
    if plan.video.is_none() && sound.is_none() {
        return Err(MediaError::invalid(with_reason("holds no sound that can be decoded", log)));
    }
    if seen.last > std::time::Duration::from_secs(most).as_secs_f64() {
        return Err(MediaError::invalid(format!("lasts longer than {most} s (max_duration_seconds)")));
    }
    let trimmed = sound.is_some_and(|sound| sound.trimmed);
    let picture = plan.video.map(|_| Reach { end: seen.end(), slack: seen.gap, single: seen.frames == 1 });
    let track = plan.audio.map(|_| Reach { end: sound.map_or(0.0, |sound| sound.seconds), slack: 0.0, single: false });
    // What is more than is kept says nothing of an end.
    let untrimmed = |end: Option<f64>| end.filter(|_| !trimmed);
    let audio = plan.audio.map(|stream| Stream { end: untrimmed(stream.end), ..stream });
    let plan = Plan { audio, duration: untrimmed(plan.duration), ..plan.clone() };
    check_ends(&plan, picture, track, !log.is_empty(), log)
}

/// Fails if a stream, or all of them, end before the plan says. `errors`: whether the reader met any; `log` gives the
/// reason.
pub(crate) fn check_ends(
    plan: &Plan,
    picture: Option<Reach>,
    sound: Option<Reach>,
    errors: bool,
    log: &str,
) -> Result<(), MediaError> {
    let stated = |stream: Option<Stream>| stream.and_then(|stream| stream.end);
    // Matroska and MPEG-TS state no length per stream, only that of the longest.
    let sound_end = sound.map_or(0.0, |sound| sound.end);
    let alone = Reach { end: 0.0, slack: 0.0, single: false };
    let longest = picture.unwrap_or(alone);
    let longest = Reach { end: longest.end.max(sound_end), ..longest };
    let whole = plan.duration.map(|duration| (duration, longest));
    let ends = [stated(plan.video).zip(picture), stated(plan.audio).zip(sound), whole];
    for (stated, reach) in ends.into_iter().flatten() {
        if is_cut_off(stated, reach, errors) {
            let end = reach.end;
            let message = format!("is cut off or damaged: {end:.1} of {stated:.1} s can be decoded");
            return Err(MediaError::invalid(with_reason(&message, log)));
        }
    }
    Ok(())
}

/// How far a source could be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach {
    pub(crate) end: f64,
    /// How much may be missing because frames are far apart.
    pub(crate) slack: f64,
    /// Whether there is but one frame, which may stand for any length.
    pub(crate) single: bool,
}

/// Whether a reader that came to `reach.end` of `stated` seconds has met a broken source. With errors reported, a twentieth
/// (at least half a second) may be missing, plus the distance of frames; without any, a third (at least two seconds),
/// and nothing follows from a single picture.
fn is_cut_off(stated: f64, reach: Reach, errors: bool) -> bool {
    let missing = stated - reach.end;
    if errors {
        missing > (stated / 20.0).max(0.5).min(stated / 4.0) + if reach.single { 0.0 } else { reach.slack }
    } else {
        !reach.single && missing > (stated / 3.0).max(2.0) + reach.slack
    }
}

fn with_reason(message: &str, log: &str) -> String {
    match child::reason(log) {
        reason if reason.is_empty() => message.to_owned(),
        reason => format!("{message} ({reason})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_end_counts_by_its_size_and_by_the_errors_beside_it() {
        let cases = [
            ("whole", 10.0, 10.0, 0.04, false, false, false),
            ("half, with errors", 10.0, 5.0, 0.04, false, true, true),
            ("half, silently", 10.0, 5.0, 0.04, false, false, true),
            ("one second clip cut at half", 1.0, 0.5, 0.04, false, true, true),
            ("harmless errors, whole", 10.0, 9.8, 0.04, false, true, false),
            ("a slide show's last picture", 60.0, 50.0, 10.0, false, false, false),
            ("a single picture under a song", 200.0, 0.0, 0.0, true, false, false),
            ("a cut file with a single picture left", 10.0, 0.0, 0.0, true, true, true),
            ("sound a little short", 10.0, 8.5, 0.0, false, false, false),
        ];
        for (name, stated, end, slack, single, errors, cut) in cases {
            assert_eq!(is_cut_off(stated, Reach { end, slack, single }, errors), cut, "{name}");
        }
    }
}

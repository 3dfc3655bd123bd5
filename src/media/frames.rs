//! Which frames of a clip are shown: candidates picked while it is decoded, the choice among them afterwards.
//!
//! One decode gives both: ffmpeg's `select` lets a frame pass when its scene score says cut, or when a grid of even
//! steps comes due, and only those are scaled and encoded. Both rules have a least distance, a fraction of the stated
//! length or of the time so far, whichever is greater: a clip of unknown or wrongly stated length gives a number of
//! candidates that grows only with the logarithm of its length. Every frame, passed or not, is reported as a line with
//! its time and score; the last one says how far the decode came. Rejected: a second pass that seeks to the chosen
//! times (decodes twice, and seeking is wrong in broken indexes), and keeping all cuts (an hour of music video has
//! thousands).
//!
//! The scene score is a stand-in: it misses some cuts that SSIM sees and adds others, hence the fill at even distances.

/// A score above this is a cut.
const CUT: f64 = 0.3;
const GRID_PER_FRAME: u32 = 4;
const CUTS_PER_FRAME: u32 = 8;
/// Assumed for the least distances when the container tells no length.
const UNKNOWN_SECONDS: f64 = 10.0;
const MARK: &str = "aurelia=picked";

/// The filter graph for video stream `index`: candidates come out at `[picked]`, scaled to at most `size` pixels on
/// their longest side (square pixels, never enlarged). Registers of the expression: 0 = the last grid frame's time + 1,
/// 1 = the last cut's; 0 before the first.
pub(crate) fn filter(index: u32, duration: Option<f64>, max_frames: u32, size: u32) -> String {
    let span = format!("max({:.6},t)", duration.filter(|d| *d > 0.0).unwrap_or(UNKNOWN_SECONDS));
    let grid = max_frames.saturating_mul(GRID_PER_FRAME).max(1);
    let cuts = max_frames.saturating_mul(CUTS_PER_FRAME).max(1);
    let print = "metadata=mode=print:file=pipe\\\\:2:direct=1";
    let fit = format!("min(1,{size}/max(iw*sar,ih))");
    format!(
        "[0:{index}]select=outputs=2:e='if(max(\
         if(gte(t+1-ld(0),if(ld(0),{span}/{grid},0)),st(0,t+1),0),\
         if(gt(scene,{CUT})*gte(t+1-ld(1),{span}/{cuts}),st(1,t+1),0)),1,2)'[pass][rest];\
         [rest]{print},nullsink;\
         [pass]metadata=mode=add:key=aurelia:value=picked,{print},\
         scale=w='max(1,round(iw*sar*{fit}))':h='max(1,round(ih*{fit}))':out_range=pc,setsar=1,format=yuvj420p[picked]"
    )
}

/// A frame that passed, in order of appearance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Candidate {
    /// Presentation time in seconds.
    pub(crate) at: f64,
    /// ffmpeg's scene score, 0 to 1.
    pub(crate) score: f64,
}

/// What the report lines of the filter have told.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Seen {
    pub(crate) candidates: Vec<Candidate>,
    /// Frames decoded.
    pub(crate) frames: u64,
    /// Time of the latest frame in seconds.
    pub(crate) last: f64,
    /// Greatest distance between two frames in a row, in seconds.
    pub(crate) gap: f64,
    score: f64,
    at: f64,
}

impl Seen {
    /// Takes a line if it is a report of the filter.
    pub(crate) fn take(&mut self, line: &str) -> bool {
        if let Some(score) = line.strip_prefix("lavfi.scene_score=") {
            self.score = score.parse().unwrap_or(0.0);
            return true;
        }
        if line == MARK {
            self.candidates.push(Candidate { at: self.at, score: self.score });
            return true;
        }
        let Some((_, time)) = line.split_once(" pts_time:").filter(|_| line.starts_with("frame:")) else {
            // Other metadata of the frame, as decoders and containers attach it.
            return line.starts_with("lavfi.");
        };
        let at = time.trim().parse().ok().filter(|at: &f64| at.is_finite()).unwrap_or(self.last).max(0.0);
        if self.frames > 0 {
            self.gap = self.gap.max(at - self.last);
        }
        (self.at, self.score) = (at, 0.0);
        self.last = self.last.max(at);
        self.frames += 1;
        true
    }

    /// Where the picture ends: the last frame stays as long as the longest before it.
    pub(crate) fn end(&self) -> f64 {
        self.last + self.gap
    }
}

/// Indices of at most `max` candidates in order of time: from each of `max` equal parts of the clip its strongest cut,
/// then whatever lies farthest from those chosen; without any cut, those nearest to the middles of the parts.
pub(crate) fn choose(candidates: &[Candidate], end: f64, max: usize) -> Vec<usize> {
    if candidates.len() <= max {
        return (0..candidates.len()).collect();
    }
    if max == 0 {
        return Vec::new();
    }
    let mut chosen = strongest_cuts(candidates, end, max);
    if chosen.is_empty() {
        chosen = nearest_to_middles(candidates, end, max);
    }
    while chosen.len() < max {
        let distance = |i: usize| {
            chosen.iter().map(|&c| (candidates[c].at - candidates[i].at).abs()).fold(f64::INFINITY, f64::min)
        };
        let free = (0..candidates.len()).filter(|i| !chosen.contains(i));
        let Some(farthest) = free.rev().max_by(|&a, &b| distance(a).total_cmp(&distance(b))) else {
            break;
        };
        chosen.push(farthest);
    }
    chosen.sort_unstable();
    chosen
}

fn strongest_cuts(candidates: &[Candidate], end: f64, max: usize) -> Vec<usize> {
    let mut best: Vec<Option<usize>> = vec![None; max];
    for (i, candidate) in candidates.iter().enumerate().filter(|(_, candidate)| candidate.score > CUT) {
        let part = part(candidate.at, end, max);
        if best[part].is_none_or(|b| candidate.score > candidates[b].score) {
            best[part] = Some(i);
        }
    }
    best.into_iter().flatten().collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a small whole number, kept within 0..max; a cast saturates"
)]
fn part(at: f64, end: f64, max: usize) -> usize {
    let part = if end > 0.0 { at / end * max as f64 } else { 0.0 };
    (part as usize).min(max.saturating_sub(1))
}

#[expect(clippy::cast_precision_loss, reason = "small whole numbers")]
fn nearest_to_middles(candidates: &[Candidate], end: f64, max: usize) -> Vec<usize> {
    let mut chosen = Vec::with_capacity(max);
    for i in 0..max {
        let middle = (i as f64 + 0.5) / max as f64 * end;
        let away = |c: usize| (candidates[c].at - middle).abs();
        let free = (0..candidates.len()).filter(|c| !chosen.contains(c));
        chosen.extend(free.min_by(|&a, &b| away(a).total_cmp(&away(b))));
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(times: impl IntoIterator<Item = f64>, cuts: &[(usize, f64)]) -> Vec<Candidate> {
        let mut all: Vec<_> = times.into_iter().map(|at| Candidate { at, score: 0.01 }).collect();
        for &(i, score) in cuts {
            all[i].score = score;
        }
        all
    }

    #[test]
    fn the_choice_is_cuts_spread_over_time_then_even_samples() {
        let each_second = || (0..20).map(f64::from);
        let cases: [(&str, Vec<Candidate>, &[usize]); 7] = [
            ("no cut: the middles of five parts", grid(each_second(), &[]), &[2, 6, 10, 14, 18]),
            (
                "a cut in each part",
                grid(each_second(), &[(1, 0.5), (5, 0.5), (9, 0.5), (13, 0.5), (17, 0.5)]),
                &[1, 5, 9, 13, 17],
            ),
            (
                "the strongest of a part, the first on ties",
                grid(each_second(), &[(8, 0.4), (9, 0.9), (10, 0.9)]),
                &[0, 4, 9, 14, 19],
            ),
            (
                "a burst of cuts does not take all places",
                grid(each_second(), &[(0, 0.9), (1, 0.8), (2, 0.7), (3, 0.6)]),
                &[0, 4, 9, 14, 19],
            ),
            ("exactly at the threshold is no cut", grid(each_second(), &[(19, 0.3)]), &[2, 6, 10, 14, 18]),
            ("fewer than five: all", grid([0.0, 0.04], &[]), &[0, 1]),
            ("none: none", Vec::new(), &[]),
        ];
        for (name, candidates, expected) in cases {
            assert_eq!(choose(&candidates, 20.0, 5), expected, "{name}");
        }
    }

    #[test]
    fn equal_times_and_an_unknown_end_still_give_distinct_frames() {
        let chosen = choose(&grid([0.0; 9], &[(3, 0.9)]), 0.0, 5);
        let mut distinct = chosen.clone();
        distinct.dedup();
        assert_eq!((chosen.len(), distinct.len()), (5, 5));
        assert!(choose(&grid([0.0; 9], &[]), 0.0, 0).is_empty());
    }

    #[test]
    fn report_lines_are_read_and_other_lines_left() {
        let mut seen = Seen::default();
        let lines = [
            "frame:0    pts:0       pts_time:0",
            "lavfi.scene_score=0.000000",
            "aurelia=picked",
            "frame:0    pts:10      pts_time:0.04",
            "lavfi.scene_score=0.100000",
            "frame:1    pts:125     pts_time:0.5",
            "lavfi.scene_score=0.450000",
            "aurelia=picked",
        ];
        assert!(lines.iter().all(|line| seen.take(line)));
        assert!(!seen.take("[h264 @ 0x5] error while decoding MB 58 14"));
        assert_eq!(seen.candidates, [Candidate { at: 0.0, score: 0.0 }, Candidate { at: 0.5, score: 0.45 }]);
        assert_eq!((seen.frames, seen.last, seen.gap), (3, 0.5, 0.46));
    }

    #[test]
    fn a_frame_without_a_time_counts_at_the_last_known_one() {
        let mut seen = Seen::default();
        for time in ["1.5", "NOPTS", "nan", "-3"] {
            assert!(seen.take(&format!("frame:0    pts:x       pts_time:{time}")));
        }
        assert_eq!((seen.frames, seen.last), (4, 1.5));
    }

    proptest::proptest! {
        #[test]
        fn a_choice_is_sorted_distinct_and_never_too_long(
            found in proptest::collection::vec((0.0..100.0_f64, 0.0..1.0_f64), 0..60), end in 0.0..120.0_f64, max in 0..9_usize,
        ) {
            let mut found: Vec<_> = found.into_iter().map(|(at, score)| Candidate { at, score }).collect();
            found.sort_by(|a, b| a.at.total_cmp(&b.at));
            let chosen = choose(&found, end, max);
            proptest::prop_assert_eq!(chosen.len(), max.min(found.len()));
            proptest::prop_assert!(chosen.is_sorted_by(|a, b| a < b));
        }
    }
}

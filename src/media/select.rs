//! Which frames of a clip differ from the one before them: the paper's key frames.
//!
//! The measure is that of the release: SSIM of consecutive frames at full size, on the BGR planes that ffmpeg's default
//! scaler gives, below 0.6. `faithful` takes it on whole frames and decides as scikit-image would, to the last bit. `fast`
//! takes it on strips of 8 rows spread over the picture, which ffmpeg cuts without copying: a sample of the very same
//! windows for a fifteenth of the pipe, which alone would cost half as much as decoding.
//!
//! ```text
//! ffmpeg -- raw frames or strips --> stdout --> a thread: Judge (aurelia_ssim) ---------.
//!        '- a line per frame ------> stderr --> times -------------------------------> candidates -> frames::choose
//! ```
//!
//! The thread takes one frame at a time out of the pipe: that is the queue, and it is bounded by the kernel. Buffers are
//! made once. When the call is dropped, the child ends, then the pipe, then the thread. `faithful` spools what may be chosen
//! (`spool`), since ffmpeg cannot know; in `fast` ffmpeg encodes candidates on the way. Rejected: gray or scaled
//! frames (another measure), ffmpeg's own ssim filter (another window, no colour), a pass for measuring and one for pictures.

pub(crate) mod spool;
pub(crate) mod stream;

use aurelia_ssim::{Colours, Converter, Matrix, Measured, Ssim};
/// A frame with a smaller SSIM against the one before is a key frame (arXiv 2503.23219, the release).
pub(crate) const THRESHOLD: f64 = 0.6;
/// Strips of a sampled picture, and their rows: even, so that chroma is not torn, with two rows of windows in each.
const STRIPS: usize = 12;
const STRIP_ROWS: usize = 8;
/// From this width on, strips are half as wide as the picture, left and right in turns.
const WIDE: usize = 640;

/// The picture as the container states it; ffmpeg is told to make every frame so.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Picture {
    /// Pixels across, as shown: a turned clip has its sides swapped.
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// ffmpeg's name of the pixel format.
    pub(crate) format: String,
    pub(crate) matrix: Matrix,
    /// Whether samples use the full range.
    pub(crate) full: bool,
    /// The shape of a pixel, width by height, as shown.
    pub(crate) aspect: (u32, u32),
}

/// How the raw frames of the pipe are laid out.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Layout {
    width: usize,
    rows: usize,
    /// Rows that belong together.
    band: usize,
    pixels: Pixels,
    /// First columns and rows of the strips; empty for whole pictures.
    strips: Vec<(usize, usize)>,
}

#[derive(Debug, Clone, PartialEq)]
enum Pixels {
    /// Planes of 4:2:0, converted here.
    Planes(&'static str, Colours),
    /// Converted by ffmpeg.
    Bgr,
}

impl Pixels {
    fn of(picture: &Picture) -> Self {
        let colours = Colours::new(picture.matrix, picture.full);
        match picture.format.as_str() {
            "yuv420p" if picture.width.is_multiple_of(2) => Self::Planes("yuv420p", colours),
            "yuvj420p" if picture.width.is_multiple_of(2) => Self::Planes("yuvj420p", colours),
            _ => Self::Bgr,
        }
    }
}

impl Layout {
    /// Whole pictures.
    pub(crate) fn whole(picture: &Picture) -> Self {
        let (width, rows) = (picture.width as usize, picture.height as usize);
        let pixels = if rows.is_multiple_of(2) { Pixels::of(picture) } else { Pixels::Bgr };
        Self { width, rows, band: rows, pixels, strips: Vec::new() }
    }

    /// A sample of the picture; the whole, where that is hardly more.
    pub(crate) fn sample(picture: &Picture) -> Self {
        let whole = Self::whole(picture);
        if whole.rows <= 2 * STRIPS * STRIP_ROWS {
            return whole;
        }
        let width = if whole.width < WIDE { whole.width } else { (whole.width / 2) & !1 };
        let column = |i: usize| if i.is_multiple_of(2) { 0 } else { (whole.width - width) & !1 };
        let middle = |i: usize| whole.rows * (2 * i + 1) / (2 * STRIPS);
        let strips = (0..STRIPS).map(|i| (column(i), (middle(i) - STRIP_ROWS / 2) & !1)).collect();
        // Strips have an even height, whatever the picture has.
        Self { width, rows: STRIPS * STRIP_ROWS, band: STRIP_ROWS, pixels: Pixels::of(picture), strips }
    }

    /// The part of a filter graph that gives these frames at `[raw]`, from `[frames]`.
    pub(crate) fn filter(&self) -> String {
        let format = self.format();
        if self.strips.is_empty() {
            return format!("[frames]format={format}[raw]");
        }
        let count = self.strips.len();
        let each = |label: &str| (0..count).map(|i| format!("[{label}{i}]")).collect::<String>();
        let crops = self.strips.iter().enumerate();
        let crops = crops.map(|(i, (x, y))| format!("[s{i}]crop={}:{STRIP_ROWS}:{x}:{y}:exact=1[t{i}];", self.width));
        let crops = crops.collect::<String>();
        format!("[frames]split={count}{};{crops}{}vstack={count},format={format}[raw]", each("s"), each("t"))
    }

    /// ffmpeg's name for the pixels.
    pub(crate) fn format(&self) -> &'static str {
        match self.pixels {
            Pixels::Planes(name, _) => name,
            Pixels::Bgr => "bgr24",
        }
    }

    /// Bytes of one frame in the pipe.
    pub(crate) fn bytes(&self) -> usize {
        match self.pixels {
            Pixels::Planes(..) => self.width * self.rows / 2 * 3,
            Pixels::Bgr => self.width * self.rows * 3,
        }
    }
}

/// Looks at the frames of one clip in turn.
#[derive(Debug)]
pub(crate) struct Judge {
    band: usize,
    width: usize,
    /// Whether bands are whole pictures, for which the last bit counts.
    exact: bool,
    converter: Option<Converter>,
    ssim: Ssim,
    /// As it came, if that is not BGR.
    raw: Vec<u8>,
    now: Vec<u8>,
    before: Vec<u8>,
    first: bool,
}

impl Judge {
    pub(crate) fn new(layout: &Layout) -> Self {
        let converter = match layout.pixels {
            Pixels::Planes(_, colours) => Some(Converter::new(colours, layout.width, layout.rows)),
            Pixels::Bgr => None,
        };
        let raw = vec![0; if converter.is_some() { layout.bytes() } else { 0 }];
        let bytes = layout.width * layout.rows * 3;
        Self {
            band: layout.band,
            width: layout.width,
            exact: layout.strips.is_empty(),
            converter,
            ssim: Ssim::new(layout.width),
            raw,
            now: vec![0; bytes],
            before: vec![0; bytes],
            first: true,
        }
    }

    /// Where the next frame is read into, as the pipe gives it.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        if self.converter.is_some() { &mut self.raw } else { &mut self.now }
    }

    /// The frame that was read last, as the pipe gave it: until the next call of [`Judge::room`].
    pub(crate) fn frame(&self) -> &[u8] {
        if self.converter.is_some() { &self.raw } else { &self.before }
    }

    /// The SSIM of the frame in the room against the one before it, if that is below the threshold.
    pub(crate) fn look(&mut self) -> Option<f64> {
        if let Some(converter) = &mut self.converter {
            converter.convert(&self.raw, &mut self.now);
        }
        let below = if self.first {
            None
        } else {
            below(&mut self.ssim, [&self.before, &self.now], self.band, self.exact.then_some(self.width), THRESHOLD)
        };
        std::mem::swap(&mut self.before, &mut self.now);
        self.first = false;
        below
    }
}

/// The SSIM of two pictures if it is below the threshold; with a `width`, of whole pictures, as scikit-image decides it.
fn below(ssim: &mut Ssim, [x, y]: [&[u8]; 2], band: usize, width: Option<usize>, threshold: f64) -> Option<f64> {
    let Measured::Mean(mean) = ssim.measure(x, y, band, threshold)? else {
        return None;
    };
    let mean = match width {
        Some(width) if (mean - threshold).abs() <= aurelia_ssim::ERROR => aurelia_ssim::exact(x, y, width)?,
        _ => mean,
    };
    (mean < threshold).then_some(mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pictures that the golden script makes in the same way: three kinds, from unlike to nearly the same.
    fn pictures(width: usize, height: usize, kind: u32) -> [Vec<u8>; 2] {
        let mut state = u32::try_from(width * 1000 + height).unwrap() * 4 + kind;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            u8::try_from(state >> 24).unwrap()
        };
        let count = width * height * 3;
        let x: Vec<u8> =
            (0..count).map(|i| if kind == 0 { next() } else { u8::try_from(i / 7 % 256).unwrap() }).collect();
        let y = x.iter().map(|&x| match kind {
            0 => next(),
            1 => x.wrapping_add(next() % 32),
            _ => x / 2 + next() % 3,
        });
        let y = y.collect();
        [x, y]
    }

    /// Width, height, kind and the bits of scikit-image's SSIM.
    fn goldens() -> Vec<(usize, usize, u32, f64)> {
        let lines = include_str!("../../tests/goldens/ssim.txt").lines().filter(|line| !line.starts_with('#'));
        let golden = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |i: usize| words[i].parse().unwrap();
            let bits = u64::from_str_radix(words[3], 16).unwrap();
            (number(0), number(1), u32::try_from(number(2)).unwrap(), f64::from_bits(bits))
        };
        lines.map(golden).collect()
    }

    #[test]
    fn the_exact_measure_has_the_bits_of_scikit_image() {
        for (width, height, kind, golden) in goldens() {
            let [x, y] = pictures(width, height, kind);
            let ours = aurelia_ssim::exact(&x, &y, width).unwrap();
            assert_eq!(ours.to_bits(), golden.to_bits(), "{width}x{height}, kind {kind}: {ours} for {golden}");
        }
    }

    #[test]
    fn the_fast_measure_is_within_a_millionth_of_scikit_image() {
        for (width, height, kind, golden) in goldens() {
            let [x, y] = pictures(width, height, kind);
            let Some(Measured::Mean(ours)) = Ssim::new(width).measure(&x, &y, height, 2.0) else {
                panic!("{width}x{height} is measured to its end");
            };
            assert!((ours - golden).abs() < 1e-6, "{width}x{height}, kind {kind}: {ours} for {golden}");
        }
    }

    #[test]
    fn at_the_threshold_the_last_bit_decides() {
        for (width, height, kind, golden) in goldens() {
            let [x, y] = pictures(width, height, kind);
            let mut ssim = Ssim::new(width);
            let mut at = |threshold| below(&mut ssim, [&x, &y], height, Some(width), threshold);
            assert_eq!(at(golden), None, "a value is not below itself");
            assert_eq!(at(golden.next_up()), Some(golden), "{width}x{height}, kind {kind}");
            assert_eq!(at(golden.next_down()), None);
        }
    }

    #[test]
    fn equal_rows_and_early_ends_change_no_outcome() {
        let (width, height) = (40, 60);
        let [x, y] = pictures(width, height, 0);
        for changed in 0..=height {
            let row = width * 3;
            let mixed = [&y[..changed * row], &x[changed * row..]].concat();
            let golden = aurelia_ssim::exact(&x, &mixed, width).unwrap();
            let mut ssim = Ssim::new(width);
            for threshold in [-0.5, 0.1, 0.6, 0.99] {
                let ours = below(&mut ssim, [&x, &mixed], height, None, threshold);
                assert_eq!(ours.is_some(), golden < threshold, "{changed} rows, {threshold}");
            }
        }
        assert_eq!(below(&mut Ssim::new(width), [&x, &x], height, None, 1.0), None);
    }

    #[test]
    fn floors_under_windows_change_no_outcome() {
        // From nearly the same to half unlike, in the dark, in the light and across both.
        let (width, height) = (96, 40);
        let mut state = 1_u32;
        let mut next = |most: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            u8::try_from((state >> 8) % most).unwrap()
        };
        for (from, span, shift) in [(0, 4, 0), (0, 2, 4), (0, 40, 0), (3, 200, 0), (120, 10, 0), (90, 130, 2)] {
            for noise in [1, 2, 3, 5, 9, 17, 40] {
                let x: Vec<u8> = (0..width * height * 3).map(|_| from + next(span)).collect();
                let y: Vec<u8> =
                    x.iter().map(|&x| x.saturating_add(shift + next(noise)).saturating_sub(next(noise))).collect();
                let golden = aurelia_ssim::exact(&x, &y, width).unwrap();
                for threshold in [0.1, 0.6, 0.95, golden, golden.next_up(), golden.next_down()] {
                    let ours = below(&mut Ssim::new(width), [&x, &y], height, Some(width), threshold);
                    assert_eq!(ours.is_some(), golden < threshold, "{from} {span} {noise}: {golden}, {threshold}");
                    assert!(ours.is_none_or(|ours| (ours - golden).abs() < 1e-6));
                }
            }
        }
    }

    #[test]
    fn pictures_without_room_for_a_window_have_no_measure() {
        for (width, height) in [(6, 40), (40, 6), (1, 1)] {
            let x = vec![9; width * height * 3];
            assert_eq!(below(&mut Ssim::new(width), [&x, &x], height, Some(width), 0.6), None);
            assert_eq!(aurelia_ssim::exact(&x, &x, width), None);
        }
    }

    #[test]
    fn strips_lie_within_the_picture_and_on_even_rows_and_columns() {
        for (width, height) in (1..2200).map(|height| (64, height)).chain((600..1400).map(|width| (width, 480))) {
            let format = "yuv420p".to_owned();
            let picture = Picture { width, height, format, matrix: Matrix::Bt601, full: false, aspect: (1, 1) };
            let layout = Layout::sample(&picture);
            let (width, height) = (width as usize, height as usize);
            let within = |&(x, y): &(usize, usize)| x + layout.width <= width && y + STRIP_ROWS <= height;
            assert!(layout.strips.iter().all(|(x, y)| x % 2 == 0 && y % 2 == 0), "{width}x{height}");
            assert!(layout.strips.iter().all(within), "{width}x{height}");
            assert!(layout.strips.windows(2).all(|pair| pair[0].1 + STRIP_ROWS <= pair[1].1), "{height}");
            assert_eq!(layout.strips.is_empty(), height <= 192, "{height}");
            assert_eq!(layout.strips.iter().any(|(x, _)| *x > 0), height > 192 && width >= WIDE, "{width}");
        }
    }
}

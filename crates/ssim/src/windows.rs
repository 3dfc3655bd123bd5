//! SSIM of two pictures as scikit-image takes it, at the speed of memory.
//!
//! `skimage.metrics.structural_similarity(x, y, channel_axis=2, data_range=255)` with its defaults: a uniform window of
//! 7x7, sample covariance (49/48), constants (0.01 * 255)^2 and (0.03 * 255)^2, a border of 3 pixels left out, the mean
//! over all windows and the three planes. Here the sums of a window are whole numbers and exact: rows slide through the
//! sums of columns, and windows are sums of seven columns, three samples apart, so planes are never taken apart. All terms
//! of the quotient stay below 2^31 (49 * 49 * 2 * 255^2), and the only rounding is its arithmetic in `f32`:
//! sixteen roundings of values at most 1, 1e-6 in all and so below [`ERROR`], for each window and so for the mean, whose sum is
//! taken in `f64`.
//! Whoever needs more near a threshold asks `exact`.
//!
//! Plain loops, compiled for several instruction sets and chosen at run time: the order of every sum is written down,
//! so all of them give the same bits. Rejected: intrinsics (unsafe code), floating window sums (slower and not exact).

#![expect(clippy::inline_always, reason = "what a loop calls must be compiled with its instruction set")]

use std::ops::Add;

use multiversion::multiversion;

use crate::columns::{Columns, add, loss, slide};

/// The mean is less than this away from the real one; `exact` decides within this distance of the threshold.
pub const ERROR: f64 = 2e-6;
/// Side of a window.
pub const SIDE: usize = 7;
const PLANES: usize = 3;
/// Samples from the first to the last column of a window.
const REACH: usize = (SIDE - 1) * PLANES;
/// Windows at a time: what they need stays in the first-level cache.
const BLOCK: usize = 256;
const LANES: usize = 8;
pub(crate) const WINDOW: f32 = 49.0;
/// What a block may lose to its floor, as a part of what the whole picture can lose before it is below the threshold.
const FLOORS: f64 = 0.6;
/// No loss is as small, so every window is measured.
const NO_FLOORS: f64 = -1.0;
/// C1 times 49^2, C2 times 49 * 48.
pub(crate) const LUMINANCE: f32 = WINDOW * WINDOW * 6.502_5;
pub(crate) const CONTRAST: f32 = WINDOW * (WINDOW - 1.0) * 58.522_5;

/// Room for what is made of one block of windows.
#[derive(Debug)]
struct Block {
    x: [u16; BLOCK + REACH],
    y: [u16; BLOCK + REACH],
    squares: [i32; BLOCK + REACH],
    products: [i32; BLOCK + REACH],
    above: [f32; BLOCK],
    below: [f32; BLOCK],
    values: [f32; BLOCK / 2],
}

/// What a comparison came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Measured {
    /// The mean over all windows, within [`ERROR`].
    Mean(f64),
    /// Not below the threshold, whatever the rows that were not looked at hold.
    NotBelow,
}

/// The measure for pictures of one size; its buffers are a few rows and are used again.
#[derive(Debug)]
pub struct Ssim {
    /// Samples in a row: three for each pixel.
    row: usize,
    columns: Columns,
    block: Box<Block>,
}

impl Ssim {
    /// For pictures of `width` pixels.
    pub fn new(width: usize) -> Self {
        let row = width * PLANES;
        // The last block may reach beyond the row.
        let room = row + BLOCK + REACH;
        let columns = Columns::new(room);
        let block = Block {
            x: [0; BLOCK + REACH],
            y: [0; BLOCK + REACH],
            squares: [0; BLOCK + REACH],
            products: [0; BLOCK + REACH],
            above: [0.0; BLOCK],
            below: [1.0; BLOCK],
            values: [0.0; BLOCK / 2],
        };
        Self { row, columns, block: Box::new(block) }
    }

    /// The mean over all windows of `x` and `y`, interleaved samples of three planes. The pictures are bands of `band`
    /// rows, each with windows of its own; one band is a whole picture. Stops as soon as the mean cannot fall
    /// below `threshold` any more. None: there is no place for a window.
    pub fn measure(&mut self, x: &[u8], y: &[u8], band: usize, threshold: f64) -> Option<Measured> {
        let across = u32::try_from(self.row.checked_sub(REACH)?).ok()?;
        let down = u32::try_from(band.checked_sub(SIDE - 1)?).ok()?;
        let bands = u32::try_from(x.len().min(y.len()) / (self.row * band).max(1)).ok()?;
        let all = f64::from(across) * f64::from(down) * f64::from(bands);
        if all == 0.0 {
            return None;
        }
        let enough = (threshold + ERROR) * all;
        let pictures = Pictures { x, y, row: self.row, band };
        // For most frames floors under their windows will do; where they do not, all windows are measured.
        match self.sum(&pictures, all, enough, FLOORS * (1.0 - threshold)) {
            Sum::NotBelow => Some(Measured::NotBelow),
            Sum::Measured(sum) => Some(Measured::Mean(sum / all)),
            Sum::Floored => match self.sum(&pictures, all, enough, NO_FLOORS) {
                Sum::Measured(sum) => Some(Measured::Mean(sum / all)),
                Sum::NotBelow | Sum::Floored => Some(Measured::NotBelow),
            },
        }
    }

    /// The sum of `all` windows, as long as it may be below `enough`. Blocks that lose at most `most` for each window take
    /// their floor.
    fn sum(&mut self, pictures: &Pictures<'_>, all: f64, enough: f64, most: f64) -> Sum {
        let (across, mut floored) = (self.row - REACH, false);
        let in_row = f64::from(u32::try_from(across).unwrap_or(u32::MAX));
        let (mut sum, mut left) = (0.0, all);
        for first in pictures.bands() {
            // How many rows down to this one are the same in both pictures, and which rows the columns hold the sums of.
            let (mut same, mut held) = (0, 0..0);
            for at in first..first + pictures.band {
                let row = pictures.row(at);
                same = if row.0 == row.1 { same + 1 } else { 0 };
                if at + 1 < first + SIDE {
                    continue;
                }
                // Windows on equal pictures are 1 without any arithmetic: the cheap way through what stands still.
                sum += if same >= SIDE {
                    in_row
                } else {
                    let wanted = at + 1 - SIDE..at + 1;
                    if held.end != at || held.is_empty() {
                        self.columns.clear();
                        wanted.clone().for_each(|at| add(&mut self.columns, pictures.row(at)));
                    } else {
                        slide(&mut self.columns, row, pictures.row(held.start));
                    }
                    held = wanted;
                    let (sum, some) = windows(&self.columns, across, &mut self.block, most);
                    floored |= some;
                    sum
                };
                left -= in_row;
                // No window is below -1.
                if sum - left >= enough && (left > 0.0 || floored) {
                    return Sum::NotBelow;
                }
            }
        }
        if floored { Sum::Floored } else { Sum::Measured(sum) }
    }
}

/// Two pictures of bands of `band` rows, a row having `row` samples.
struct Pictures<'a> {
    x: &'a [u8],
    y: &'a [u8],
    row: usize,
    band: usize,
}

impl<'a> Pictures<'a> {
    fn row(&self, at: usize) -> (&'a [u8], &'a [u8]) {
        (&self.x[at * self.row..][..self.row], &self.y[at * self.row..][..self.row])
    }

    /// The first rows of the bands.
    fn bands(&self) -> impl Iterator<Item = usize> + use<> {
        let rows = self.x.len().min(self.y.len()) / self.row;
        (0..rows / self.band).map({
            let band = self.band;
            move |i| i * band
        })
    }
}

/// What a walk over all windows came to.
enum Sum {
    NotBelow,
    /// All were measured.
    Measured(f64),
    /// Some were not, and their floors do not tell.
    Floored,
}

/// The sum of SSIM over one row of windows, `across` of them, and whether it holds floors.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn windows(columns: &Columns, across: usize, block: &mut Block, most: f64) -> (f64, bool) {
    let (mut total, mut floors, mut floored) = ([0.0_f64; LANES], 0.0, false);
    let mut at = 0;
    while at < across {
        let count = BLOCK.min(across - at);
        let windows = f64::from(u16::try_from(count).unwrap_or(u16::MAX));
        let loss = loss(columns, at..at + count + REACH);
        if loss <= most * windows {
            (floors, floored) = (floors + windows - loss, true);
            at += count;
            continue;
        }
        pairs(&columns.x[at..], &mut block.x);
        pairs(&columns.y[at..], &mut block.y);
        pairs(&columns.squares[at..], &mut block.squares);
        pairs(&columns.products[at..], &mut block.products);
        let (last_x, last_y) = (&columns.x[at + REACH..][..BLOCK], &columns.y[at + REACH..][..BLOCK]);
        let last = (&columns.squares[at + REACH..][..BLOCK], &columns.products[at + REACH..][..BLOCK]);
        for i in 0..BLOCK {
            // Sums of 49 bytes have 14 bits; to say so lets the compiler multiply in 16 bits.
            let x = i32::from(seven(&block.x, last_x[i], i) & 0x3fff);
            let y = i32::from(seven(&block.y, last_y[i], i) & 0x3fff);
            let (squares, products) = (seven(&block.squares, last.0[i], i), seven(&block.products, last.1[i], i));
            (block.above[i], block.below[i]) = fraction(x, y, squares, products);
        }
        block.above[count..].fill(0.0);
        let (above, more_above) = block.above.split_at(BLOCK / 2);
        let (below, more_below) = block.below.split_at(BLOCK / 2);
        for i in 0..BLOCK / 2 {
            // Two fractions by one division, which is what costs most.
            block.values[i] = (above[i] * more_below[i] + more_above[i] * below[i]) / (below[i] * more_below[i]);
        }
        for part in block.values.chunks_exact(2 * LANES) {
            for lane in 0..LANES {
                total[lane] += f64::from(part[lane] + part[lane + LANES]);
            }
        }
        at += count;
    }
    (total.iter().sum::<f64>() + floors, floored)
}

/// Sums of two entries, three apart.
#[inline(always)]
fn pairs<T: Copy + Add<Output = T>>(columns: &[T], pairs: &mut [T; BLOCK + REACH]) {
    let columns = &columns[..BLOCK + REACH];
    for i in 0..BLOCK + REACH - PLANES {
        pairs[i] = columns[i] + columns[i + PLANES];
    }
}

/// The sum of seven entries, three apart, from three pairs and the last one.
#[inline(always)]
fn seven<T: Copy + Add<Output = T>>(pairs: &[T; BLOCK + REACH], last: T, i: usize) -> T {
    pairs[i] + pairs[i + 2 * PLANES] + (pairs[i + 4 * PLANES] + last)
}

#[inline(always)]
#[expect(clippy::cast_precision_loss, reason = "the rounding that ERROR counts")]
fn fraction(x: i32, y: i32, squares: i32, products: i32) -> (f32, f32) {
    let means = x * y;
    let mean_squares = x * x + y * y;
    let covariance = 49 * products - means;
    let variances = 49 * squares - mean_squares;
    let above = ((2 * means) as f32 + LUMINANCE) * ((2 * covariance) as f32 + CONTRAST);
    let below = (mean_squares as f32 + LUMINANCE) * (variances as f32 + CONTRAST);
    (above, below)
}

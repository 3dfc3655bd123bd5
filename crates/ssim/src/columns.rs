//! Sums over the columns of seven rows, and what they tell of the windows that stand on them.
//!
//! Rows come in at the bottom and leave at the top; all sums are whole numbers and exact. Before any window is measured they
//! give a proved floor under all windows of a block, for a sixth of the work.

#![expect(clippy::inline_always, reason = "what a loop calls must be compiled with its instruction set")]

use std::ops::Range;

use multiversion::multiversion;

use crate::windows::{CONTRAST, LUMINANCE, WINDOW};

/// Side of a window.
const SIDE: u16 = 7;

/// Sums over the columns of the last seven rows, one entry for each sample of a row.
#[derive(Debug)]
pub(crate) struct Columns {
    pub(crate) x: Vec<u16>,
    pub(crate) y: Vec<u16>,
    /// Of x^2 + y^2.
    pub(crate) squares: Vec<i32>,
    /// Of x * y.
    pub(crate) products: Vec<i32>,
}

impl Columns {
    pub(crate) fn new(room: usize) -> Self {
        Self { x: vec![0; room], y: vec![0; room], squares: vec![0; room], products: vec![0; room] }
    }

    pub(crate) fn clear(&mut self) {
        self.x.fill(0);
        self.y.fill(0);
        self.squares.fill(0);
        self.products.fill(0);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
pub(crate) fn add(columns: &mut Columns, (x, y): (&[u8], &[u8])) {
    let n = x.len();
    let (y, sums) = (&y[..n], (&mut columns.x[..n], &mut columns.y[..n]));
    let (squares, products) = (&mut columns.squares[..n], &mut columns.products[..n]);
    for i in 0..n {
        sums.0[i] += u16::from(x[i]);
        sums.1[i] += u16::from(y[i]);
        squares[i] += square(x[i]) + square(y[i]);
        products[i] += product(x[i], y[i]);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
pub(crate) fn slide(columns: &mut Columns, new: (&[u8], &[u8]), old: (&[u8], &[u8])) {
    let n = new.0.len();
    let (x, y, old_x, old_y) = (new.0, &new.1[..n], &old.0[..n], &old.1[..n]);
    let sums = (&mut columns.x[..n], &mut columns.y[..n]);
    for i in 0..n {
        sums.0[i] = sums.0[i].wrapping_add(u16::from(x[i])).wrapping_sub(u16::from(old_x[i]));
        sums.1[i] = sums.1[i].wrapping_add(u16::from(y[i])).wrapping_sub(u16::from(old_y[i]));
    }
    let (squares, products) = (&mut columns.squares[..n], &mut columns.products[..n]);
    for i in 0..n {
        squares[i] += square(x[i]) + square(y[i]) - square(old_x[i]) - square(old_y[i]);
        products[i] += product(x[i], y[i]) - product(old_x[i], old_y[i]);
    }
}

#[inline(always)]
fn square(x: u8) -> i32 {
    product(x, x)
}

#[inline(always)]
fn product(x: u8, y: u8) -> i32 {
    i32::from(x) * i32::from(y)
}

/// At most so much is missing from 1 in all windows over these columns together.
///
/// With S the sum of the squared differences in a window, X and Y its sums, SSIM = (1 - a)(1 - b) with
/// a = (X - Y)^2 / (X^2 + Y^2 + LUMINANCE) and b = (49 S - (X - Y)^2) / (variances + CONTRAST), both in 0..=2. So SSIM >= 1 - a - b, and
/// a + b is a mean, weighted by (X - Y)^2 <= 49 S, of values at most 49 S over the lesser of the two denominators, which are
/// at least LUMINANCE + (X + Y)^2 / 2 and CONTRAST. A column is in at most seven windows.
#[inline(always)]
pub(crate) fn loss(columns: &Columns, range: Range<usize>) -> f64 {
    let (x, y) = (&columns.x[range.clone()], &columns.y[range.clone()]);
    let (squares, products) = (&columns.squares[range.clone()], &columns.products[range]);
    let n = x.len();
    let (y, squares, products) = (&y[..n], &squares[..n], &products[..n]);
    let (mut differences, mut least) = (0, u16::MAX);
    for i in 0..n {
        differences += squares[i] - 2 * products[i];
        least = least.min(x[i] + y[i]);
    }
    let least = f64::from(SIDE * least);
    let denominator = f64::from(CONTRAST).min(f64::from(LUMINANCE) + least * least / 2.0);
    f64::from(differences) * f64::from(SIDE) * f64::from(WINDOW) / denominator
}

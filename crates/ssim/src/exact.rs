//! The same measure, rounded as scikit-image rounds it: for pictures so near the threshold that the rounding decides.
//!
//! scipy's `uniform_filter` runs down the columns first, then along the rows, and slides: the sum of seven, to which the
//! difference of what enters and what leaves is added, each time over 7. So along a row every value carries the roundings
//! of all before it, beginning in the border, which is the picture mirrored. numpy's mean takes as
//! many whole rows as its buffer holds, adds them pairwise, and the buffers one after the other. All of it in `f64`, in that order, gives the very bits; the goldens hold it to those of
//! scipy 1.17 (scipy before 1.13 divides the differences, and its last digits are others). Memory is a few rows.

use super::windows::SIDE;

const PLANES: usize = 3;
const BORDER: usize = SIDE / 2;
/// Values in the buffer of a numpy iterator.
const BUFFER: usize = 8192;

/// SSIM of `x` and `y`, `width` pixels wide, interleaved samples of three planes: the bits that scikit-image gives.
/// None: there is no place for a window.
pub fn ssim(x: &[u8], y: &[u8], width: usize) -> Option<f64> {
    let height = x.len().min(y.len()).checked_div(width * PLANES)?;
    if width < SIDE || height < SIDE {
        return None;
    }
    let mut sum = 0.0;
    for offset in 0..PLANES {
        sum += Plane { x, y, width, height, offset }.mean();
    }
    Some(sum / 3.0)
}

struct Plane<'a> {
    x: &'a [u8],
    y: &'a [u8],
    width: usize,
    height: usize,
    offset: usize,
}

/// What is filtered: x, y, x^2, y^2, xy.
const KINDS: usize = 5;

impl Plane<'_> {
    fn mean(&self) -> f64 {
        // Sums of seven rows, which are whole numbers, and the same over 7.
        let mut sums = vec![[0.0; KINDS]; self.width];
        let mut columns = sums.clone();
        let mut filtered = vec![[0.0; KINDS]; self.width];
        let across = self.width - 2 * BORDER;
        let mut buffer = Vec::with_capacity(BUFFER.max(across));
        let mut total = 0.0;
        for at in 0..self.height {
            if at == 0 {
                self.first(&mut sums);
            } else {
                self.slide(&mut sums, at);
            }
            if at < BORDER || at >= self.height - BORDER {
                continue;
            }
            for (mean, sum) in columns.iter_mut().zip(&sums) {
                *mean = sum.map(|sum| sum / 7.0);
            }
            along(&columns, &mut filtered);
            buffer.extend(filtered[BORDER..][..across].iter().map(quotient));
            if buffer.len() + across > BUFFER {
                total += pairwise(&buffer);
                buffer.clear();
            }
        }
        if !buffer.is_empty() {
            total += pairwise(&buffer);
        }
        #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 pixels")]
        let count = (across * (self.height - 2 * BORDER)) as f64;
        total / count
    }

    /// What is filtered, at a column and a row that may lie in the mirrored border.
    fn at(&self, row: usize, column: usize) -> [f64; KINDS] {
        let i = (mirrored(row, self.height) * self.width + column) * PLANES + self.offset;
        let (x, y) = (f64::from(self.x[i]), f64::from(self.y[i]));
        [x, y, x * x, y * y, x * y]
    }

    fn first(&self, columns: &mut [[f64; KINDS]]) {
        for (column, sums) in columns.iter_mut().enumerate() {
            for row in 0..SIDE {
                let entering = self.at(row, column);
                for kind in 0..KINDS {
                    sums[kind] += entering[kind];
                }
            }
        }
    }

    fn slide(&self, columns: &mut [[f64; KINDS]], row: usize) {
        for (column, sums) in columns.iter_mut().enumerate() {
            let (entering, leaving) = (self.at(row + SIDE - 1, column), self.at(row - 1, column));
            for kind in 0..KINDS {
                sums[kind] += entering[kind] - leaving[kind];
            }
        }
    }
}

/// The place in a line of `length` for one in the line with its border of 3, mirrored with the edge doubled.
fn mirrored(place: usize, length: usize) -> usize {
    match place.checked_sub(BORDER) {
        None => BORDER - 1 - place,
        Some(place) if place >= length => 2 * length - 1 - place,
        Some(place) => place,
    }
}

fn along(line: &[[f64; KINDS]], filtered: &mut [[f64; KINDS]]) {
    let width = line.len();
    let mut sums = [0.0; KINDS];
    for column in 0..SIDE {
        for (sum, value) in sums.iter_mut().zip(line[mirrored(column, width)]) {
            *sum += value;
        }
    }
    filtered[0] = sums.map(|sum| sum / 7.0);
    for column in 1..width {
        let (entering, leaving) = (line[mirrored(column + SIDE - 1, width)], line[mirrored(column - 1, width)]);
        for kind in 0..KINDS {
            sums[kind] += entering[kind] - leaving[kind];
        }
        filtered[column] = sums.map(|sum| sum / 7.0);
    }
}

fn quotient(&[x, y, xx, yy, xy]: &[f64; KINDS]) -> f64 {
    let sample = 49.0 / 48.0;
    let (vx, vy, vxy) = (sample * (xx - x * x), sample * (yy - y * y), sample * (xy - x * y));
    let (c1, c2) = ((0.01 * 255.0) * (0.01 * 255.0), (0.03 * 255.0) * (0.03 * 255.0));
    let (a1, a2) = (2.0 * x * y + c1, 2.0 * vxy + c2);
    let (b1, b2) = (x * x + y * y + c1, vx + vy + c2);
    (a1 * a2) / (b1 * b2)
}

/// numpy's sum of a line: eight running sums for up to 128 values, halves of whole eights above.
fn pairwise(line: &[f64]) -> f64 {
    if line.len() < 8 {
        return line.iter().fold(-0.0, |sum, value| sum + value);
    }
    if line.len() > 128 {
        let half = line.len() / 2;
        let (left, right) = line.split_at(half - half % 8);
        return pairwise(left) + pairwise(right);
    }
    let mut eights = line.chunks_exact(8);
    let mut sums = [0.0; 8];
    if let Some(first) = eights.next() {
        sums.copy_from_slice(first);
    }
    for eight in eights.by_ref() {
        for (sum, value) in sums.iter_mut().zip(eight) {
            *sum += value;
        }
    }
    let fours = |i: usize| (sums[i] + sums[i + 1]) + (sums[i + 2] + sums[i + 3]);
    eights.remainder().iter().fold(fours(0) + fours(4), |sum, value| sum + value)
}

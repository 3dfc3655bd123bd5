//! From the decoder's planes to the blue, green and red that ffmpeg's scaler would give.
//!
//! A frame of 4:2:0 has half the bytes of BGR, and what goes through a pipe is paid for by the byte. So the usual
//! frames come as they are and are converted here, bit for bit as libswscale's unscaled path for x86 does by default:
//! nearest chroma, 16-bit arithmetic, coefficients of 13 bits, high halves of products, saturation. That path asks for an
//! even height; all else lets ffmpeg convert ([`Layout::of`] says which is which). Tests hold it against ffmpeg itself.

#![expect(clippy::inline_always, reason = "what a loop calls must be compiled with its instruction set")]

use multiversion::multiversion;

/// Of BGR.
const PLANES: usize = 3;

/// Which of the coefficient tables a clip's colours follow: ITU-T H.273, `MatrixCoefficients`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matrix {
    /// ITU-R BT.601: standard definition, and what is not stated.
    Bt601,
    /// ITU-R BT.709: high definition.
    Bt709,
    /// United States FCC, 1953.
    Fcc,
    /// SMPTE 240M: early high definition.
    Smpte240,
    /// ITU-R BT.2020: ultra-high definition.
    Bt2020,
}

impl Matrix {
    /// By ffprobe's name; what is not stated counts as 601, as in libswscale.
    pub fn named(name: &str) -> Self {
        match name {
            "bt709" => Self::Bt709,
            "fcc" => Self::Fcc,
            "smpte240m" => Self::Smpte240,
            "bt2020nc" | "bt2020c" => Self::Bt2020,
            _ => Self::Bt601,
        }
    }

    /// Red of V, blue of U, green of U and of V, as parts of 65536.
    fn table(self) -> [i64; 4] {
        match self {
            Self::Bt601 => [104_597, 132_201, 25_675, 53_279],
            Self::Bt709 => [117_489, 138_438, 13_975, 34_925],
            Self::Fcc => [104_448, 132_798, 24_759, 53_109],
            Self::Smpte240 => [117_579, 136_230, 16_907, 35_559],
            Self::Bt2020 => [110_013, 140_363, 12_277, 42_626],
        }
    }
}

/// Coefficients of the conversion, in 13 bits after the point, and what is taken from 8 Y.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colours {
    luma: i16,
    offset: i16,
    red_v: i16,
    blue_u: i16,
    green_u: i16,
    green_v: i16,
}

impl Colours {
    /// For samples of the full range 0..=255, or of the limited one.
    pub fn new(matrix: Matrix, full: bool) -> Self {
        let part = |value: i64| if full { value * 224 / 255 } else { value };
        let coefficient = |value: i64| {
            let rounded = (value * (1 << 13) + (1 << 15)) >> 16;
            i16::try_from(rounded).unwrap_or(i16::MAX)
        };
        let [red_v, blue_u, green_u, green_v] = matrix.table().map(part);
        Self {
            luma: coefficient(if full { 1 << 16 } else { (1 << 16) * 255 / 219 }),
            offset: if full { 0 } else { 16 << 3 },
            red_v: coefficient(red_v),
            blue_u: coefficient(blue_u),
            green_u: coefficient(-green_u),
            green_v: coefficient(-green_v),
        }
    }
}

/// Turns planes of 4:2:0 into interleaved BGR; its buffers are three rows.
#[derive(Debug)]
pub struct Converter {
    colours: Colours,
    width: usize,
    height: usize,
    /// What chroma adds to blue, green and red, for each pixel of two rows.
    chroma: [Vec<i16>; PLANES],
}

impl Converter {
    /// For pictures of `width` by `height`, which is even.
    pub fn new(colours: Colours, width: usize, height: usize) -> Self {
        let row = || vec![0; width.next_multiple_of(2)];
        Self { colours, width, height, chroma: [row(), row(), row()] }
    }

    /// Converts `planes` (Y, then U and V of half the size, rounded up) into `bgr`.
    pub fn convert(&mut self, planes: &[u8], bgr: &mut [u8]) {
        let half = self.width.div_ceil(2);
        let (luma, chroma) = planes.split_at(self.width * self.height);
        let (u, v) = chroma.split_at(half * self.height / 2);
        let rows = luma.chunks_exact(2 * self.width).zip(bgr.chunks_exact_mut(2 * self.width * PLANES));
        for ((luma, bgr), (u, v)) in rows.zip(u.chunks_exact(half).zip(v.chunks_exact(half))) {
            spread(self.colours, u, v, &mut self.chroma);
            let (upper, lower) = bgr.split_at_mut(self.width * PLANES);
            row(self.colours, &luma[..self.width], &self.chroma, upper);
            row(self.colours, &luma[self.width..], &self.chroma, lower);
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2", "x86_64+ssse3"))]
fn spread(colours: Colours, u: &[u8], v: &[u8], chroma: &mut [Vec<i16>; PLANES]) {
    let n = u.len();
    let v = &v[..n];
    let [blue, green, red] = chroma;
    let (blue, green, red) = (&mut blue[..2 * n], &mut green[..2 * n], &mut red[..2 * n]);
    for i in 0..n {
        let (u, v) = ((i16::from(u[i]) << 3) - 0x400, (i16::from(v[i]) << 3) - 0x400);
        let added = [
            high(u, colours.blue_u),
            high(u, colours.green_u).saturating_add(high(v, colours.green_v)),
            high(v, colours.red_v),
        ];
        blue[2 * i] = added[0];
        blue[2 * i + 1] = added[0];
        green[2 * i] = added[1];
        green[2 * i + 1] = added[1];
        red[2 * i] = added[2];
        red[2 * i + 1] = added[2];
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2", "x86_64+ssse3"))]
fn row(colours: Colours, luma: &[u8], chroma: &[Vec<i16>; PLANES], bgr: &mut [u8]) {
    let n = luma.len();
    let [blue, green, red] = chroma;
    let (blue, green, red) = (&blue[..n], &green[..n], &red[..n]);
    for (i, pixel) in bgr[..n * PLANES].chunks_exact_mut(PLANES).enumerate() {
        let y = high((i16::from(luma[i]) << 3) - colours.offset, colours.luma);
        pixel[0] = packed(y.saturating_add(blue[i]));
        pixel[1] = packed(y.saturating_add(green[i]));
        pixel[2] = packed(y.saturating_add(red[i]));
    }
}

/// The high half of a product.
#[inline(always)]
fn high(a: i16, b: i16) -> i16 {
    ((i32::from(a) * i32::from(b)) >> 16) as i16
}

#[inline(always)]
#[expect(clippy::cast_sign_loss, reason = "it is within 0..=255")]
fn packed(value: i16) -> u8 {
    value.clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    const SIDE: usize = 512;

    /// Every pair of Y and U, of Y and V, and all of U and V with a Y that moves: the planes of a picture of 512 by 512.
    fn planes() -> Vec<u8> {
        let mut luma = vec![0; SIDE * SIDE];
        let (mut u, mut v) = (Vec::new(), Vec::new());
        for i in 0..SIDE * SIDE / 4 {
            let (row, column) = (i / (SIDE / 2), i % (SIDE / 2));
            u.push(u8::try_from(row).unwrap());
            v.push(u8::try_from(column).unwrap());
            for (k, part) in [0, 64, 128, 192].into_iter().enumerate() {
                let y = u8::try_from((row * 5 + column * 3 + row * column / 7 + part) % 256).unwrap();
                luma[(2 * row + k / 2) * SIDE + 2 * column + k % 2] = y;
            }
        }
        [luma, u, v].concat()
    }

    fn by_ffmpeg(planes: &[u8], space: &str, range: &str) -> Vec<u8> {
        let args = format!(
            "-v error -f rawvideo -pixel_format yuv420p -video_size {SIDE}x{SIDE} -colorspace {space} -color_range {range} \
             -i pipe:0 -pix_fmt bgr24 -f rawvideo pipe:1"
        );
        let mut child = Command::new("ffmpeg")
            .args(args.split_ascii_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(planes).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        output.stdout
    }

    #[test]
    fn colours_are_those_of_ffmpeg_to_the_last_bit() {
        let planes = planes();
        for space in ["bt470bg", "bt709", "smpte170m", "fcc", "smpte240m", "bt2020nc"] {
            for range in ["tv", "pc"] {
                let mut bgr = vec![0; SIDE * SIDE * PLANES];
                let colours = Colours::new(Matrix::named(space), range == "pc");
                Converter::new(colours, SIDE, SIDE).convert(&planes, &mut bgr);
                let theirs = by_ffmpeg(&planes, space, range);
                let wrong = bgr.iter().zip(&theirs).filter(|(ours, theirs)| ours != theirs).count();
                assert_eq!((theirs.len(), wrong), (bgr.len(), 0), "{space}, {range}");
            }
        }
    }
}

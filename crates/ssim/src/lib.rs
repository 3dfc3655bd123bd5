//! How alike two frames of a clip are, to the bit as scikit-image has it.
//!
//! Three steps that depend on nothing else of Aurelia: planes of 4:2:0 become the BGR samples that ffmpeg's default scaler
//! gives ([`Converter`]), the windows of two pictures are measured with exact whole sums ([`Ssim`]), and where the result
//! lies too near a threshold to be sure, [`exact()`] repeats every operation of scipy and numpy in their order. A crate of its
//! own for one reason: it is compiled with full optimisation in every profile, as it runs on every pixel.

mod columns;
mod exact;
mod pixels;
mod windows;

pub use exact::ssim as exact;
pub use pixels::{Colours, Converter, Matrix};
pub use windows::{ERROR, Measured, SIDE, Ssim};

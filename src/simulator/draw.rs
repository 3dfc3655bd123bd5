//! Chance without a generator: every draw is a hash of what it is about.
//!
//! A shared random generator would make a run depend on the order in which calls arrive, which is different each time.
//! Here a draw is a pure function of an identity, a purpose and a count, so one call's fate never moves another's.

/// 128 bits of BLAKE3 over length-prefixed parts: `["ab", "c"]` and `["a", "bc"]` differ.
pub(crate) fn digest(parts: &[&[u8]]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    finish(&hasher)
}

/// A digest of one part whose bytes are still to come: `length` of them, so that [`finish`] agrees with [`digest`].
pub(crate) fn begin(length: u64) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&length.to_le_bytes());
    hasher
}

/// The digest of what a hasher was given.
pub(crate) fn finish(hasher: &blake3::Hasher) -> u128 {
    let mut low = [0; 16];
    low.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    u128::from_le_bytes(low)
}

/// 64 evenly drawn bits for the `n`th draw of `purpose` about `id`.
pub(crate) fn bits(id: u128, purpose: &str, n: u64) -> u64 {
    let wide = digest(&[&id.to_le_bytes(), purpose.as_bytes(), &n.to_le_bytes()]);
    let mut low = [0; 8];
    low.copy_from_slice(&wide.to_le_bytes()[..8]);
    u64::from_le_bytes(low)
}

/// An even draw from `0..n`; `n` must not be 0.
pub(crate) fn below(id: u128, purpose: &str, n: u64) -> u64 {
    bits(id, purpose, 0) % n.max(1)
}

/// One of `list`, which must not be empty.
pub(crate) fn pick<'a>(id: u128, purpose: &str, list: &[&'a str]) -> &'a str {
    let at = usize::try_from(below(id, purpose, list.len() as u64)).unwrap_or(0);
    list.get(at).copied().unwrap_or_default()
}

/// An even draw from `[0, 1)`.
pub(crate) fn unit(id: u128, purpose: &str, n: u64) -> f64 {
    let high = u32::try_from(bits(id, purpose, n) >> 32).unwrap_or(u32::MAX);
    f64::from(high) / 4_294_967_296.0
}

/// A draw from the standard normal distribution (Box and Muller).
pub(crate) fn normal(id: u128, purpose: &str, n: u64) -> f64 {
    let radius = (-2.0 * (1.0 - unit(id, purpose, 2 * n)).ln()).sqrt();
    radius * (std::f64::consts::TAU * unit(id, purpose, 2 * n + 1)).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_kept_apart() {
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
    }

    #[test]
    fn a_digest_of_bytes_in_pieces_is_that_of_the_whole() {
        let mut hasher = begin(5);
        hasher.update(b"ab").update(b"cde");
        assert_eq!(finish(&hasher), digest(&[b"abcde"]));
    }

    #[test]
    fn draws_are_even_and_repeatable() {
        let mean = (0..10_000).map(|n| unit(7, "x", n)).sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.02, "mean {mean}");
        assert_eq!(bits(7, "x", 3), bits(7, "x", 3));
        assert_ne!(bits(7, "x", 3), bits(7, "y", 3));
    }

    #[test]
    fn the_normal_draw_has_mean_zero_and_deviation_one() {
        let draws: Vec<f64> = (0..10_000).map(|n| normal(1, "z", n)).collect();
        let mean = draws.iter().sum::<f64>() / 10_000.0;
        let var = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 10_000.0;
        assert!(mean.abs() < 0.05 && (var - 1.0).abs() < 0.08, "mean {mean}, variance {var}");
    }
}

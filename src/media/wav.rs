//! The header before raw samples. Written here, as ffmpeg's own has no lengths when it writes to a pipe, and names itself.

/// Bytes of the header.
pub(crate) const HEADER_BYTES: usize = 44;

/// A mono WAV (RIFF, PCM, 16 bits, little endian) of `samples` at `rate` Hz. More than 4 GiB cannot be said and is
/// never kept.
pub(crate) fn mono(samples: &[u8], rate: u32) -> Vec<u8> {
    let length = u32::try_from(samples.len()).unwrap_or(u32::MAX - 36);
    let mut wav = Vec::with_capacity(HEADER_BYTES + samples.len());
    wav.extend(b"RIFF");
    wav.extend((36 + length).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    wav.extend(16_u32.to_le_bytes());
    wav.extend(1_u16.to_le_bytes()); // PCM
    wav.extend(1_u16.to_le_bytes()); // channels
    wav.extend(rate.to_le_bytes());
    wav.extend(rate.saturating_mul(2).to_le_bytes()); // bytes per second
    wav.extend(2_u16.to_le_bytes()); // bytes per sample
    wav.extend(16_u16.to_le_bytes()); // bits per sample
    wav.extend(b"data");
    wav.extend(length.to_le_bytes());
    wav.extend(samples);
    wav
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_tells_the_exact_lengths() {
        let wav = mono(&[1, 2, 3, 4], 16_000);
        assert_eq!(wav.len(), HEADER_BYTES + 4);
        assert_eq!(&wav[4..8], 40_u32.to_le_bytes());
        assert_eq!(&wav[24..28], 16_000_u32.to_le_bytes());
        assert_eq!(&wav[28..32], 32_000_u32.to_le_bytes());
        assert_eq!(&wav[40..44], 4_u32.to_le_bytes());
    }
}

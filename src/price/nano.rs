//! Nano-dollars: the one unit of money.
//!
//! A newtype, so that an amount is never added to a count of tokens. Additions saturate: a sum that does not fit is
//! larger than any ceiling, and must not wrap round to a small one. Amounts are read from decimal text digit by digit;
//! going through a float was rejected, since 0.1 has no exact one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Nano-dollars in a dollar.
const PER_DOLLAR: u64 = 1_000_000_000;

/// An amount of money in nano-dollars (10^-9 USD): at most about 18.4 billion dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nano(pub u64);

/// A text that is no amount of dollars.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is not an amount of dollars: write digits with at most nine after the point, for example \"12.50\"")]
pub struct ParseNanoError;

impl Nano {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The highest ceiling: up to here the arithmetic of a fleet's books is exact (2^53 - 1, about nine million dollars).
    pub const HIGHEST_CEILING: Self = Self((1 << 53) - 1);

    /// Reads a ceiling. Errors: one sentence; no amount, or more than [`Self::HIGHEST_CEILING`].
    pub fn ceiling(text: &str) -> Result<Self, String> {
        let amount: Self = text.parse().map_err(|error: ParseNanoError| error.to_string())?;
        if amount > Self::HIGHEST_CEILING {
            return Err(format!("is more than {}, up to which ceilings are exact", Self::HIGHEST_CEILING));
        }
        Ok(amount)
    }

    /// The sum, or none if it does not fit.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The sum, or the largest amount if it does not fit.
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, or nothing if it is negative.
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The largest amount, if it does not fit.
    pub(super) fn from_u128(nano: u128) -> Self {
        Self(u64::try_from(nano).unwrap_or(u64::MAX))
    }

    /// A share of it, of so many, rounded down; none: of no one.
    pub fn over(self, count: u64) -> Option<Self> {
        self.0.checked_div(count).map(Self)
    }
}

impl std::iter::Sum for Nano {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Self::saturating_add)
    }
}

/// Dollars, exactly, with at least two digits after the point: `$0.0012`, `$1.00`.
impl fmt::Display for Nano {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = format!("{:09}", self.0 % PER_DOLLAR);
        let shown = fraction.trim_end_matches('0').len().max(2);
        f.pad(&format!("${}.{}", self.0 / PER_DOLLAR, &fraction[..shown]))
    }
}

/// Reads what `Display` writes, the dollar sign being optional: `12`, `12.5`, `$0.0012`. No sign, exponent or more
/// than nine digits after the point.
impl FromStr for Nano {
    type Err = ParseNanoError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.strip_prefix('$').unwrap_or(text);
        let (dollars, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(dollars) || !digits(fraction) || fraction.len() > 9 {
            return Err(ParseNanoError);
        }
        let dollars: u64 = dollars.parse().map_err(|_| ParseNanoError)?;
        let nano: u64 = format!("{fraction:0<9}").parse().map_err(|_| ParseNanoError)?;
        dollars.checked_mul(PER_DOLLAR).and_then(|whole| whole.checked_add(nano)).map(Self).ok_or(ParseNanoError)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_are_shown_and_read_exactly() {
        for (text, nano) in [
            ("$0.0012", 1_200_000),
            ("$1.00", 1_000_000_000),
            ("$0.00", 0),
            ("$0.000000001", 1),
            ("$12.50", 12_500_000_000),
            ("$18446744073.709551615", u64::MAX),
        ] {
            assert_eq!(Nano(nano).to_string(), text);
            assert_eq!(text.parse(), Ok(Nano(nano)));
        }
        assert_eq!("1".parse(), Ok(Nano(1_000_000_000)));
        assert_eq!("0.1".parse(), Ok(Nano(100_000_000)));
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in
            ["", "$", ".", "1.", ".5", "-1", "+1", "1e3", "1.0000000001", "1,5", "nan", "18446744073.709551616", "٣"]
        {
            assert_eq!(text.parse::<Nano>(), Err(ParseNanoError), "{text:?}");
        }
    }

    #[test]
    fn a_sum_that_does_not_fit_is_the_largest_amount() {
        assert_eq!(Nano(u64::MAX).checked_add(Nano(1)), None);
        assert_eq!([Nano(u64::MAX), Nano(1)].into_iter().sum::<Nano>(), Nano(u64::MAX));
        assert_eq!(Nano(1).saturating_sub(Nano(2)), Nano::ZERO);
    }

    proptest! {
        #[test]
        fn every_amount_survives_being_written_and_read(nano: u64) {
            prop_assert_eq!(Nano(nano).to_string().parse(), Ok(Nano(nano)));
        }
    }
}

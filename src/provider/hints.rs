//! When a provider says to come back: read from headers, structured details and prose.
//!
//! Both official SDKs ignore most of these. Everything here is pure and takes hostile input: an absurd figure (a
//! delay of 2^63 seconds was seen) is clamped to [`LONGEST`], one that does not parse is no hint. Dates are read against the answer's own
//! `Date` header where there is one, since the two clocks may differ.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

/// No hint is longer: a quota that is not back in a day is no pause but an outage.
pub const LONGEST: Duration = Duration::from_hours(24);

/// What the answer's headers ask for, the larger of `retry-after-ms` and `retry-after` (seconds or an HTTP date,
/// RFC 9110 10.2.3); a date that has passed is a hint of zero.
pub fn in_headers(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let millis = text("retry-after-ms").and_then(|ms| seconds(ms.parse::<f64>().ok()? / 1000.0));
    let plain = text(RETRY_AFTER.as_str()).and_then(|value| match value.parse::<f64>() {
        Ok(number) => seconds(number),
        Err(_) => until(value, text(DATE.as_str())),
    });
    millis.max(plain)
}

/// A duration as Go and protocol buffers write it: `34s`, `34.07s`, `1h52m56.4s`, `174ms`. Nothing may follow.
pub fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (found, used) = leading(text)?;
    (used == text.len()).then_some(found)
}

/// The duration after the first of these phrases in a message, in any case: `Please retry in 1.68s.`
pub fn in_text(message: &str, phrases: &[&str]) -> Option<Duration> {
    let lower = message.to_ascii_lowercase();
    phrases.iter().find_map(|phrase| {
        let start = lower.find(phrase)? + phrase.len();
        leading(lower.get(start..)?.trim_start()).map(|(found, _)| found)
    })
}

/// Seconds as a hint: none when negative or not a number, clamped to [`LONGEST`].
fn seconds(value: f64) -> Option<Duration> {
    (value >= 0.0).then(|| Duration::from_secs_f64(value.min(LONGEST.as_secs_f64())))
}

fn until(date: &str, now: Option<&str>) -> Option<Duration> {
    let moment = |text: &str| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok();
    let then = moment(date)?;
    let now = now.and_then(moment).unwrap_or_else(Timestamp::now);
    let wait = Duration::try_from(then.duration_since(now)).unwrap_or(Duration::ZERO);
    Some(wait.min(LONGEST))
}

/// The duration a text begins with, and how many bytes of the text it takes.
fn leading(text: &str) -> Option<(Duration, usize)> {
    let mut total = 0.0_f64;
    let mut used = 0;
    while let Some((value, length)) = term(&text[used..]) {
        total += value;
        used += length;
    }
    (used > 0).then(|| seconds(total).map(|found| (found, used)))?
}

/// One number with its unit, in seconds, and its length.
fn term(text: &str) -> Option<(f64, usize)> {
    let digits = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let number = text[..digits].parse::<f64>().ok()?;
    let letters = text[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
    let (unit, length) = match &text[digits..digits + letters] {
        "ns" => (1e-9, 2),
        "us" => (1e-6, 2),
        "ms" => (1e-3, 2),
        "s" | "sec" | "secs" | "second" | "seconds" => (1.0, letters),
        "m" | "min" => (60.0, letters),
        "h" => (3600.0, 1),
        "d" => (86_400.0, 1),
        _ => return None,
    };
    Some((number * unit, digits + length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
            })
            .collect()
    }

    #[test]
    fn durations_are_read_as_the_providers_write_them() {
        for (text, millis) in [
            ("34s", Some(34_000)),
            ("34.07s", Some(34_070)),
            ("0s", Some(0)),
            ("1h52m56.4s", Some(6_776_400)),
            ("6m0s", Some(360_000)),
            ("174ms", Some(174)),
            ("9223372036854775807s", Some(86_400_000)),
            ("99999999999999999999999999999999999h", Some(86_400_000)),
            ("", None),
            ("s", None),
            ("-3s", None),
            ("1.2.3s", None),
            ("5", None),
            ("5 s", None),
            ("NaNs", None),
            ("infs", None),
            ("5x", None),
            ("5s and more", None),
        ] {
            assert_eq!(duration(text), millis.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn a_delay_in_prose_ends_where_its_units_end() {
        let phrases = ["try again in ", "retry in "];
        for (text, millis) in [
            ("Please retry in 1.68122827s.", Some(1681)),
            ("Please try again in 18.642s. Visit https://x", Some(18_642)),
            ("PLEASE TRY AGAIN IN 174MS.", Some(174)),
            ("Please retry in 1h52m56.4s", Some(6_776_400)),
            ("try again in 20 s", None),
            ("try again in a while", None),
            ("no hint", None),
        ] {
            let found = in_text(text, &phrases).map(|found| u64::try_from(found.as_millis()).unwrap());
            assert_eq!(found, millis, "{text}");
        }
    }

    #[test]
    fn headers_give_the_larger_of_their_hints() {
        let date = "Wed, 21 Oct 2015 07:28:00 GMT";
        for (pairs, millis) in [
            (vec![("retry-after", "20")], Some(20_000)),
            (vec![("retry-after", "0.5")], Some(500)),
            (vec![("retry-after-ms", "1500"), ("retry-after", "1")], Some(1500)),
            (vec![("retry-after-ms", "15"), ("retry-after", "2")], Some(2000)),
            (vec![("retry-after", "Wed, 21 Oct 2015 07:28:30 GMT"), ("date", date)], Some(30_000)),
            (vec![("retry-after", "Wed, 21 Oct 2015 07:00:00 GMT"), ("date", date)], Some(0)),
            (vec![("retry-after", "Wed, 21 Oct 2099 07:00:00 GMT"), ("date", date)], Some(86_400_000)),
            (vec![("retry-after", date)], Some(0)),
            (vec![("retry-after", "-1")], None),
            (vec![("retry-after", "NaN")], None),
            (vec![("retry-after", "inf")], Some(86_400_000)),
            (vec![("retry-after", "soon")], None),
            (vec![], None),
        ] {
            assert_eq!(in_headers(&headers(&pairs)), millis.map(Duration::from_millis), "{pairs:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_hint_longer_than_a_day(text in ".{0,40}", digits in "[0-9.]{1,40}[smh]{1,3}") {
            for text in [&text, &digits, &format!("retry in {digits}")] {
                prop_assert!(duration(text).unwrap_or_default() <= LONGEST);
                prop_assert!(in_text(text, &["retry in "]).unwrap_or_default() <= LONGEST);
            }
        }
    }
}

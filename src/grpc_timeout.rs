//! `grpc-timeout`, of which the second attempt has only what the first has left.
//!
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>: at most eight digits, and a unit.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use crate::deadline::Deadline;

pub(crate) static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// When a request runs out of time that was begun then. `None` if it has no such timeout, or none that is well formed.
pub(crate) fn deadline(headers: &HeaderMap, since: Instant) -> Option<Deadline> {
    Deadline::new(since, parse(headers.get(&GRPC_TIMEOUT)?)?)
}

/// Has the request say what is left. `false` if nothing is.
pub(crate) fn set(headers: &mut HeaderMap, deadline: Deadline) -> bool {
    let left = format(deadline.left());
    let is_left = left.is_some();
    if let Some(left) = left {
        headers.insert(&GRPC_TIMEOUT, left);
    }
    is_left
}

fn parse(value: &HeaderValue) -> Option<Duration> {
    let value = value.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    if digits.len() > 8 || !is_number {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Rounded down, in the smallest unit in which it has eight digits.
fn format(left: Duration) -> Option<HeaderValue> {
    if left.is_zero() {
        return None;
    }
    let seconds = u128::from(left.as_secs());
    let units = [
        (left.as_nanos(), 'n'),
        (left.as_micros(), 'u'),
        (left.as_millis(), 'm'),
        (seconds, 'S'),
        (seconds / 60, 'M'),
        (seconds / 3600, 'H'),
    ];
    let (number, unit) = units
        .into_iter()
        .find(|(number, _)| *number < 100_000_000)?;
    let value = format!("{number}{unit}");
    Some(HeaderValue::try_from(value).expect("digits and a letter"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &'static str) -> Option<Duration> {
        parse(&HeaderValue::from_static(text))
    }

    #[test]
    fn each_unit_is_read_and_what_is_malformed_is_not() {
        for (text, nanos) in [
            ("1H", 3_600_000_000_000),
            ("2M", 120_000_000_000),
            ("3S", 3_000_000_000),
            ("4m", 4_000_000),
            ("5u", 5_000),
            ("00000006n", 6),
            ("0S", 0),
        ] {
            assert_eq!(parsed(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
        assert!(parsed("99999999H").is_some());
        for text in [
            "",
            "S",
            "1",
            "1s",
            "+1S",
            "-1S",
            "1.5S",
            "123456789n",
            " 1S",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
        assert_eq!(parse(&HeaderValue::from_bytes(b"1\xff").unwrap()), None);
    }

    #[test]
    fn what_is_written_is_rounded_down_and_has_eight_digits_at_most() {
        for (left, text) in [
            (Duration::from_nanos(1), "1n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_nanos(100_000_999), "100000u"),
            (Duration::from_millis(1500), "1500000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(99_999_999), "99999999S"),
            (Duration::from_secs(100_000_019), "1666666M"),
            (Duration::from_secs(99_999_999 * 3600), "99999999H"),
        ] {
            let written = format(left).unwrap();
            assert_eq!(written, text);
            assert!(parse(&written).unwrap() <= left);
        }
        assert_eq!(format(Duration::ZERO), None);
    }
}

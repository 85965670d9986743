//! How long a caller says that it waits, as header fields write it: `grpc-timeout` of a gRPC call, and plain milliseconds.
//! What can't be meant says nothing, and so does what is beyond any wait.

use std::time::Duration;

/// Who says that it waits longer than a year has no deadline.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3_600);
/// Of the number in `grpc-timeout`.
const DIGITS: usize = 8;
const MOST: u128 = 99_999_999;
/// Letters of `grpc-timeout`, each with its length in nanoseconds.
const UNITS: [(u8, u128); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60_000_000_000),
    (b'H', 3_600_000_000_000),
];

/// Reads a `grpc-timeout`: up to eight digits and a unit (PROTOCOL-HTTP2.md of gRPC, `Timeout`). `None`: it says nothing.
pub fn grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    let (_, nanos) = UNITS.iter().find(|(letter, _)| letter == unit)?;
    if digits.len() > DIGITS {
        return None;
    }
    bounded(u128::from(number(digits)?) * nanos)
}

/// Reads plain milliseconds. `None`: they say nothing.
pub fn timeout_ms(value: &[u8]) -> Option<Duration> {
    bounded(u128::from(number(value)?) * 1_000_000)
}

/// Digits only: no sign, no blank, at least one.
fn number(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
}

fn bounded(nanos: u128) -> Option<Duration> {
    let wait = Duration::from_nanos(u64::try_from(nanos).ok()?);
    (wait <= LONGEST).then_some(wait)
}

/// Writes what is left as `grpc-timeout`, in the finest unit that holds it. Never more than is left, and never nothing where
/// something is.
pub fn grpc_timeout_text(left: Duration) -> String {
    let nanos = left.as_nanos();
    let fits = |(_, length): &&(u8, u128)| nanos / length <= MOST;
    let (letter, length) = UNITS.iter().find(fits).copied().unwrap_or((b'H', UNITS[5].1));
    format!("{}{}", (nanos / length).min(MOST), char::from(letter))
}

/// Writes what is left in milliseconds: less than one counts as one, as none would mean that nothing is left.
pub fn timeout_ms_number(left: Duration) -> u64 {
    let ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    if left.is_zero() { 0 } else { ms.max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_grpc_timeout_is_digits_and_a_unit() {
        fn check(value: &str, expect: Option<Duration>) {
            assert_eq!(grpc_timeout(value.as_bytes()), expect, "{value:?}");
        }
        check("5S", Some(ms(5_000)));
        check("250m", Some(ms(250)));
        check("1500u", Some(Duration::from_micros(1_500)));
        check("99999999n", Some(Duration::from_nanos(99_999_999)));
        check("2M", Some(ms(120_000)));
        check("1H", Some(ms(3_600_000)));
        check("00000001S", Some(ms(1_000)));
        check("0m", Some(Duration::ZERO));
        check("8784H", Some(LONGEST));
        for odd in
            ["", "S", "5", "5s", "5h", "-5S", "+5S", "5 S", " 5S", "5S ", "1.5S", "123456789n", "0x5S", "5SS", "٥S"]
        {
            check(odd, None);
        }
        // Nobody waits that long.
        check("8785H", None);
        check("99999999H", None);
    }

    #[test]
    fn milliseconds_are_digits() {
        fn check(value: &str, expect: Option<Duration>) {
            assert_eq!(timeout_ms(value.as_bytes()), expect, "{value:?}");
        }
        check("250", Some(ms(250)));
        check("0", Some(Duration::ZERO));
        check("0000000000000000000009", Some(ms(9)));
        for odd in ["", "-1", "+1", "1.5", "250ms", " 250", "250 ", "1e3", "0x10"] {
            check(odd, None);
        }
        check("31622400000", Some(LONGEST));
        check("31622400001", None);
        check("18446744073709551615", None);
        check("99999999999999999999999999", None);
    }

    #[test]
    fn what_is_left_is_never_more_than_that() {
        fn check(left: Duration, grpc: &str, plain: u64) {
            assert_eq!((grpc_timeout_text(left).as_str(), timeout_ms_number(left)), (grpc, plain), "{left:?}");
            let read = grpc_timeout(grpc.as_bytes()).unwrap_or_default();
            assert!(read <= left && (left.is_zero() || !read.is_zero()), "{left:?} was read as {read:?}");
        }
        check(Duration::ZERO, "0n", 0);
        check(Duration::from_nanos(7), "7n", 1);
        check(Duration::from_nanos(99_999_999), "99999999n", 99);
        check(Duration::from_nanos(100_000_999), "100000u", 100);
        check(ms(4_999), "4999000u", 4_999);
        check(Duration::from_micros(99_999_999), "99999999u", 99_999);
        check(ms(100_000), "100000m", 100_000);
        check(ms(99_999_999), "99999999m", 99_999_999);
        check(Duration::from_secs(100_000), "100000S", 100_000_000);
        check(LONGEST, "31622400S", 31_622_400_000);
        // Beyond what is read nothing is left to be held either.
        assert_eq!(grpc_timeout_text(Duration::MAX), "99999999H");
        assert_eq!(timeout_ms_number(Duration::MAX), u64::MAX);
    }
}

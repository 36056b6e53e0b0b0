//! Points in time, durations and sizes as people write them in manifests.

use std::time::Duration;

/// Seconds since 1970 of `2027-01-01` (its first second in UTC) or of an RFC 3339 time such as `2027-01-01T12:00:00+02:00`.
pub(crate) fn instant(text: &str) -> Option<i64> {
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        None => (text, None),
        Some((date, time)) => (date, Some(time)),
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if !(1..=days).contains(&day) {
        return None;
    }
    let midnight = days_since_1970(year, month, day) * 86_400;
    let Some(time) = time else {
        return Some(midnight);
    };
    let (clock, offset) = match time.strip_suffix(['Z', 'z']) {
        Some(clock) => (clock, 0),
        None => {
            let (clock, zone) = time.split_at_checked(time.rfind(['+', '-'])?)?;
            let [hours, minutes] = numbers(zone.get(1..)?, ':', [2, 2])?;
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = hours * 3600 + minutes * 60;
            (clock, if zone.starts_with('-') { -offset } else { offset })
        }
    };
    let clock = match clock.split_once('.') {
        None => clock,
        Some((clock, fraction)) if !fraction.is_empty() && fraction.bytes().all(|b| b.is_ascii_digit()) => clock,
        Some(_) => return None,
    };
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(midnight + hour * 3600 + minute * 60 + second - offset)
}

fn numbers<const N: usize>(text: &str, separator: char, widths: [usize; N]) -> Option<[i64; N]> {
    let mut numbers = [0; N];
    let mut parts = text.split(separator);
    for (number, width) in numbers.iter_mut().zip(widths) {
        let part = parts.next()?;
        if part.len() != width || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

/// Days from 1970-01-01 in the Gregorian calendar, counted in years that begin in March so that the odd day is the last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// A duration such as `10m`, `1.5h` or `250ms`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = quantity(text)?;
    let seconds = match unit {
        "ns" => 1e-9,
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * seconds).ok()
}

/// A size in bytes such as `2GB`; a kilobyte has 1024 bytes.
pub(crate) fn size(text: &str) -> Option<u64> {
    let (number, unit) = quantity(text)?;
    let power = match unit.to_ascii_uppercase().as_str() {
        "B" => 0,
        "KB" => 1,
        "MB" => 2,
        "GB" => 3,
        "TB" => 4,
        "PB" => 5,
        _ => return None,
    };
    let bytes = (number * 1024_f64.powi(power)).round();
    // Beyond this a float no longer counts single bytes, and no machine has as many.
    (bytes < 9e15).then_some(bytes as u64)
}

/// The text of a duration, in the largest unit that it is a whole number of.
pub(crate) fn duration_text(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let units = [
        (86_400_000_000_000, "d"),
        (3_600_000_000_000, "h"),
        (60_000_000_000, "m"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1_000, "us"),
    ];
    let fitting = units
        .into_iter()
        .find(|(unit, _)| nanos > 0 && nanos.is_multiple_of(*unit));
    let (unit, name) = fitting.unwrap_or((1, "ns"));
    format!("{}{name}", nanos / unit)
}

/// The text of a size in bytes, in the largest unit that it is a whole number of.
pub(crate) fn size_text(bytes: u64) -> String {
    let units = ["PB", "TB", "GB", "MB", "KB"].into_iter().zip((1..=5).rev());
    let fitting = units
        .map(|(name, power)| (1024_u64.pow(power), name))
        .find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit));
    let (unit, name) = fitting.unwrap_or((1, "B"));
    format!("{}{name}", bytes / unit)
}

fn quantity(text: &str) -> Option<(f64, &str)> {
    let (number, unit) = text.split_at_checked(text.find(|c: char| !c.is_ascii_digit() && c != '.')?)?;
    if !number.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    Some((number.parse().ok()?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_read_as_rfc_3339_says() {
        for (text, expected) in [
            ("1970-01-01", Some(0)),
            ("2000-02-29T00:00:00Z", Some(951_782_400)),
            ("2027-01-01T00:00:00Z", Some(1_798_761_600)),
            ("2027-01-01 02:00:00.5+02:00", Some(1_798_761_600)),
            ("2026-12-31T19:00:00-05:00", Some(1_798_761_600)),
            ("0001-01-01", Some(-62_135_596_800)),
            ("2027-02-29", None),
            ("2027-13-01", None),
            ("2027-1-1", None),
            ("2027-01-01T00:00:00", None),
            ("2027-01-01T24:00:00Z", None),
            ("2027-01-01T00:00:00+ü", None),
            ("tomorrow", None),
            ("", None),
        ] {
            assert_eq!(instant(text), expected, "{text}");
        }
    }

    #[test]
    fn texts_of_durations_and_sizes_are_read_again() {
        for (text, written) in [
            ("90m", "90m"),
            ("1.5h", "90m"),
            ("0s", "0ns"),
            ("1500us", "1500us"),
            ("48h", "2d"),
        ] {
            let read = duration(text).unwrap();
            assert_eq!(duration_text(read), written);
            assert_eq!(duration(written), Some(read));
        }
        for (text, written) in [("2048MB", "2GB"), ("1.5KB", "1536B"), ("0B", "0B"), ("7PB", "7PB")] {
            let read = size(text).unwrap();
            assert_eq!(size_text(read), written);
            assert_eq!(size(written), Some(read));
        }
    }

    #[test]
    fn durations_and_sizes_have_units() {
        assert_eq!(duration("10m"), Some(Duration::from_secs(600)));
        assert_eq!(duration("1.5h"), Some(Duration::from_secs(5400)));
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(size("2GB"), Some(2 << 30));
        assert_eq!(size("1.5 kB"), Some(1536));
        for text in [
            "",
            "10",
            "m",
            "-1s",
            "1e3s",
            "10 parsecs",
            "1..2s",
            "999999999999999999999d",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
        for text in ["", "1024", "GB", "5XB", "99999999PB"] {
            assert_eq!(size(text), None, "{text}");
        }
    }
}

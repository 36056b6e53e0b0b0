//! Single values in the binary form of the protocol.
//!
//! In: the bytes of a row from a value on. Out: the value as Arrow holds it, and the bytes behind it. Nothing is rounded, cut or guessed: a value
//! that Arrow has no room for is a [`Misfit`], which says of what sort the value is and never what it is.

use arrow::datatypes::{IntervalMonthDayNano, i256};
use chrono::{Datelike, NaiveDate};

use super::wire::lenenc_bytes;

const EPOCH_DAYS: i32 = 719_163;
const MICROSECONDS_PER_DAY: i64 = 86_400_000_000;

/// Why a value cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misfit {
    /// NULL where there must be none.
    Null,
    /// A date that no calendar has.
    NoDate,
    /// A number with too many digits.
    TooManyDigits,
    NotUtf8,
    /// No value of this type has these bytes.
    Malformed,
}

impl Misfit {
    /// What was found, for messages.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Misfit::Null => "NULL",
            Misfit::NoDate => "a date that no calendar has, such as `0000-00-00`,",
            Misfit::TooManyDigits => "a number with more digits",
            Misfit::NotUtf8 => "text that is not UTF-8",
            Misfit::Malformed => "bytes that make no sense",
        }
    }
}

/// A value and what is behind it.
type Taken<'a, T> = Result<(T, &'a [u8]), Misfit>;

#[inline]
pub(super) fn fixed<const N: usize>(row: &[u8]) -> Taken<'_, [u8; N]> {
    let (value, rest) = row.split_first_chunk::<N>().ok_or(Misfit::Malformed)?;
    Ok((*value, rest))
}

#[inline]
pub(super) fn bytes(row: &[u8]) -> Taken<'_, &[u8]> {
    lenenc_bytes(row).ok_or(Misfit::Malformed)
}

#[inline]
pub(super) fn text(row: &[u8]) -> Taken<'_, &str> {
    let (bytes, rest) = bytes(row)?;
    Ok((std::str::from_utf8(bytes).map_err(|_| Misfit::NotUtf8)?, rest))
}

/// Bits, the highest byte first.
pub(super) fn bits(row: &[u8]) -> Taken<'_, u64> {
    let (bytes, rest) = bytes(row)?;
    if bytes.is_empty() || bytes.len() > 8 {
        return Err(Misfit::Malformed);
    }
    Ok((bytes.iter().fold(0, |bits, byte| bits << 8 | u64::from(*byte)), rest))
}

/// What follows the reference system of a geometry, which is WKB.
pub(super) fn wkb(row: &[u8]) -> Taken<'_, &[u8]> {
    let (bytes, rest) = bytes(row)?;
    let (_system, wkb) = bytes.split_first_chunk::<4>().ok_or(Misfit::Malformed)?;
    Ok((wkb, rest))
}

/// A decimal number in digits, in units of its last digit.
#[inline]
pub(super) fn decimal(row: &[u8], precision: u8, scale: u8) -> Taken<'_, i128> {
    let (text, rest) = bytes(row)?;
    let (negative, text) = sign(text);
    let (mut value, mut digits, mut decimals, mut point) = (0_i128, 0_u8, 0_u8, false);
    for byte in text {
        match byte {
            b'0'..=b'9' => {
                // Zeros in front do not count: some columns are filled with them.
                digits += u8::from(digits > 0 || *byte != b'0');
                decimals += u8::from(point);
                if digits > precision || decimals > scale {
                    return Err(Misfit::TooManyDigits);
                }
                value = value * 10 + i128::from(byte - b'0');
            }
            b'.' if !point => point = true,
            _ => return Err(Misfit::Malformed),
        }
    }
    if text.is_empty() {
        return Err(Misfit::Malformed);
    }
    for _ in decimals..scale {
        digits += u8::from(digits > 0);
        if digits > precision {
            return Err(Misfit::TooManyDigits);
        }
        value *= 10;
    }
    Ok((if negative { -value } else { value }, rest))
}

/// The same with more digits.
pub(super) fn large_decimal(row: &[u8], precision: u8, scale: u8) -> Taken<'_, i256> {
    let (text, rest) = bytes(row)?;
    let text = std::str::from_utf8(text).map_err(|_| Misfit::Malformed)?;
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let missing = usize::from(scale)
        .checked_sub(decimals.len())
        .ok_or(Misfit::TooManyDigits)?;
    let digits = whole.trim_start_matches('-').trim_start_matches('0').len() + usize::from(scale);
    // A number below one has no digit before the point.
    if digits > usize::from(precision) {
        return Err(Misfit::TooManyDigits);
    }
    let joined = format!("{whole}{decimals}{}", "0".repeat(missing));
    Ok((i256::from_string(&joined).ok_or(Misfit::Malformed)?, rest))
}

#[inline]
fn sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    }
}

/// The parts of a date and time: as many as are not zero.
#[inline]
fn moment(row: &[u8]) -> Taken<'_, ([u8; 4], [u8; 7])> {
    let ([length], rest) = fixed::<1>(row)?;
    let (mut date, mut time) = ([0; 4], [0; 7]);
    let (parts, rest) = rest.split_at_checked(usize::from(length)).ok_or(Misfit::Malformed)?;
    match parts.len() {
        0 => {}
        4 => (date, _) = fixed(parts)?,
        7 => {
            let after;
            (date, after) = fixed(parts)?;
            let ([hour, minute, second], _) = fixed(after)?;
            time = [hour, minute, second, 0, 0, 0, 0];
        }
        11 => {
            let after;
            (date, after) = fixed(parts)?;
            (time, _) = fixed(after)?;
        }
        _ => return Err(Misfit::Malformed),
    }
    Ok(((date, time), rest))
}

#[inline]
fn days([year_low, year_high, month, day]: [u8; 4]) -> Result<i32, Misfit> {
    let year = u16::from_le_bytes([year_low, year_high]);
    let date = NaiveDate::from_ymd_opt(i32::from(year), u32::from(month), u32::from(day)).ok_or(Misfit::NoDate)?;
    Ok(date.num_days_from_ce() - EPOCH_DAYS)
}

/// Days since 1970-01-01; what is behind it is given even if it is no date.
#[inline]
pub(super) fn date(row: &[u8]) -> Taken<'_, Result<i32, Misfit>> {
    let ((date, _), rest) = moment(row)?;
    Ok((days(date), rest))
}

/// Microseconds since 1970-01-01 00:00; what is behind it is given even if it is no date.
#[inline]
pub(super) fn timestamp(row: &[u8]) -> Taken<'_, Result<i64, Misfit>> {
    let ((date, [hour, minute, second, fraction @ ..]), rest) = moment(row)?;
    let value = days(date).and_then(|days| {
        if hour > 23 || minute > 59 || second > 59 {
            return Err(Misfit::Malformed);
        }
        let seconds = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
        let fraction = i64::from(u32::from_le_bytes(fraction));
        Ok(i64::from(days) * MICROSECONDS_PER_DAY + seconds * 1_000_000 + fraction)
    });
    Ok((value, rest))
}

/// A duration with a sign. Its days are counted as 24 hours, since they are nothing else.
pub(super) fn time(row: &[u8]) -> Taken<'_, IntervalMonthDayNano> {
    let ([length], rest) = fixed::<1>(row)?;
    let (parts, rest) = rest.split_at_checked(usize::from(length)).ok_or(Misfit::Malformed)?;
    let (negative, days, hour, minute, second, fraction) = match parts.len() {
        0 => (0, [0; 4], 0, 0, 0, [0; 4]),
        8 | 12 => {
            let ([negative], parts) = fixed(parts)?;
            let (days, parts) = fixed(parts)?;
            let ([hour, minute, second], parts) = fixed(parts)?;
            let fraction = if parts.is_empty() { [0; 4] } else { fixed(parts)?.0 };
            (negative, days, hour, minute, second, fraction)
        }
        _ => return Err(Misfit::Malformed),
    };
    let hours = i64::from(u32::from_le_bytes(days)) * 24 + i64::from(hour);
    let seconds = hours * 3600 + i64::from(minute) * 60 + i64::from(second);
    let nanoseconds = seconds
        .checked_mul(1_000_000_000)
        .and_then(|nanoseconds| nanoseconds.checked_add(i64::from(u32::from_le_bytes(fraction)) * 1000))
        .ok_or(Misfit::Malformed)?;
    let nanoseconds = if negative == 0 { nanoseconds } else { -nanoseconds };
    Ok((IntervalMonthDayNano::new(0, 0, nanoseconds), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_length(bytes: &[u8]) -> Vec<u8> {
        [&[bytes.len() as u8], bytes].concat()
    }

    #[test]
    fn decimals_fit_or_are_refused() {
        let read = |text: &str, precision, scale| {
            decimal(&with_length(text.as_bytes()), precision, scale).map(|found| found.0)
        };
        assert_eq!(read("-123.45", 5, 2), Ok(-12345));
        assert_eq!(read("00012.30", 4, 2), Ok(1230));
        assert_eq!(read("7", 4, 2), Ok(700));
        assert_eq!(read("0.00", 2, 2), Ok(0));
        assert_eq!(read(&"9".repeat(38), 38, 0), Ok(10_i128.pow(38) - 1));
        assert_eq!(read("123.45", 4, 2), Err(Misfit::TooManyDigits));
        assert_eq!(read("1.234", 9, 2), Err(Misfit::TooManyDigits));
        assert_eq!(read(&"9".repeat(39), 38, 0), Err(Misfit::TooManyDigits));
        assert_eq!(read(&"9".repeat(38), 38, 2), Err(Misfit::TooManyDigits));
        for text in ["", "-", "1e5", "1.2.3", "NaN"] {
            assert_eq!(read(text, 9, 2), Err(Misfit::Malformed), "{text}");
        }
        let large = |text: &str| large_decimal(&with_length(text.as_bytes()), 65, 30).map(|found| found.0.to_string());
        let digits = "9".repeat(35);
        assert_eq!(
            large(&format!("-{digits}.{}", "8".repeat(30))),
            Ok(format!("-{digits}{}", "8".repeat(30)))
        );
        assert_eq!(large("0.5"), Ok(format!("5{}", "0".repeat(29))));
        assert_eq!(large(&"9".repeat(36)), Err(Misfit::TooManyDigits));
        assert_eq!(large("x"), Err(Misfit::Malformed));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(&[4, 0xb2, 7, 1, 1, 9]), Ok((Ok(0), [9].as_slice())));
        assert_eq!(date(&[0, 9]), Ok((Err(Misfit::NoDate), [9].as_slice())));
        assert_eq!(date(&[4, 0xe4, 7, 0, 10]), Ok((Err(Misfit::NoDate), [].as_slice())));
        assert_eq!(date(&[4, 0xe5, 7, 2, 31]), Ok((Err(Misfit::NoDate), [].as_slice())));
        assert_eq!(date(&[4, 0xe5, 7]), Err(Misfit::Malformed));
        assert_eq!(date(&[5, 0, 0, 0, 0, 0]), Err(Misfit::Malformed));
        let row = [11, 0xb2, 7, 1, 2, 0, 0, 1, 0x40, 0x42, 0x0f, 0];
        assert_eq!(timestamp(&row).unwrap().0, Ok(MICROSECONDS_PER_DAY + 2_000_000));
    }

    #[test]
    fn times_go_beyond_a_day_and_below_nothing() {
        let nanoseconds = |row: &[u8]| time(row).map(|found| found.0.nanoseconds);
        assert_eq!(nanoseconds(&[0]), Ok(0));
        assert_eq!(nanoseconds(&[8, 0, 0, 0, 0, 0, 1, 2, 3]), Ok(3_723_000_000_000));
        let longest = [12, 1, 34, 0, 0, 0, 22, 59, 59, 0x3f, 0x42, 0x0f, 0];
        assert_eq!(
            nanoseconds(&longest),
            Ok(-(838 * 3600 + 59 * 60 + 59) * 1_000_000_000 - 999_999_000)
        );
        assert_eq!(nanoseconds(&[3, 0, 0, 0]), Err(Misfit::Malformed));
    }
}

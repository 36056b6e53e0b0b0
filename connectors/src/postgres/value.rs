//! Single values as PostgreSQL sends them in binary.
//!
//! In: the bytes of one value. Out: what Arrow holds. Nothing is rounded, cut or guessed: a value that Arrow has no room
//! for is a [`Misfit`], which says of what sort the value is and never what it is.

use arrow::datatypes::IntervalMonthDayNano;

/// Days from 1970-01-01 to 2000-01-01, where PostgreSQL counts from.
const EPOCH_DAYS: i32 = 10_957;
const MICROSECONDS_PER_DAY: i64 = 86_400_000_000;

/// Why a value cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misfit {
    /// NULL where there must be none.
    Null,
    NotANumber,
    Infinite,
    /// A number with too many digits before or after the point.
    TooManyDigits,
    /// A time or a timestamp outside of what there is room for.
    OutOfRange,
    NotUtf8,
    /// An array inside an array.
    ManyDimensions,
    /// No value of this type has these bytes.
    Malformed,
}

impl Misfit {
    /// What was found, for messages.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Misfit::Null => "NULL",
            Misfit::NotANumber => "NaN",
            Misfit::Infinite => "an infinite value",
            Misfit::TooManyDigits => "a number with more digits",
            Misfit::OutOfRange => "a value out of range",
            Misfit::NotUtf8 => "text that is not UTF-8",
            Misfit::ManyDimensions => "an array of more than one dimension",
            Misfit::Malformed => "bytes that make no sense",
        }
    }
}

type Value<T> = Result<T, Misfit>;

fn fixed<const N: usize>(bytes: &[u8]) -> Value<[u8; N]> {
    bytes.try_into().map_err(|_| Misfit::Malformed)
}

pub(super) fn boolean(bytes: &[u8]) -> Value<bool> {
    match bytes {
        [0] => Ok(false),
        [1] => Ok(true),
        _ => Err(Misfit::Malformed),
    }
}

#[inline]
pub(super) fn int2(bytes: &[u8]) -> Value<i16> {
    fixed(bytes).map(i16::from_be_bytes)
}

#[inline]
pub(super) fn int4(bytes: &[u8]) -> Value<i32> {
    fixed(bytes).map(i32::from_be_bytes)
}

#[inline]
pub(super) fn int8(bytes: &[u8]) -> Value<i64> {
    fixed(bytes).map(i64::from_be_bytes)
}

pub(super) fn oid(bytes: &[u8]) -> Value<i64> {
    fixed(bytes).map(u32::from_be_bytes).map(i64::from)
}

/// There is one NaN to SQL, and so there is one to DataFusion, which tells those with other bits apart.
pub(super) fn float4(bytes: &[u8]) -> Value<f32> {
    let value = fixed(bytes).map(f32::from_be_bytes)?;
    Ok(if value.is_nan() { f32::NAN } else { value })
}

pub(super) fn float8(bytes: &[u8]) -> Value<f64> {
    let value = fixed(bytes).map(f64::from_be_bytes)?;
    Ok(if value.is_nan() { f64::NAN } else { value })
}

pub(super) fn date(bytes: &[u8]) -> Value<i32> {
    match int4(bytes)? {
        i32::MIN | i32::MAX => Err(Misfit::Infinite),
        days => days.checked_add(EPOCH_DAYS).ok_or(Misfit::OutOfRange),
    }
}

/// PostgreSQL also has the time 24:00, Arrow has not.
pub(super) fn time(bytes: &[u8]) -> Value<i64> {
    match int8(bytes)? {
        time @ 0..MICROSECONDS_PER_DAY => Ok(time),
        MICROSECONDS_PER_DAY => Err(Misfit::OutOfRange),
        _ => Err(Misfit::Malformed),
    }
}

pub(super) fn timestamp(bytes: &[u8]) -> Value<i64> {
    match int8(bytes)? {
        i64::MIN | i64::MAX => Err(Misfit::Infinite),
        microseconds => microseconds
            .checked_add(EPOCH_DAYS as i64 * MICROSECONDS_PER_DAY)
            .ok_or(Misfit::OutOfRange),
    }
}

pub(super) fn interval(bytes: &[u8]) -> Value<IntervalMonthDayNano> {
    let bytes: [u8; 16] = fixed(bytes)?;
    let (time, rest) = bytes.split_at(8);
    let (days, months) = rest.split_at(4);
    let (microseconds, days, months) = (int8(time)?, int4(days)?, int4(months)?);
    let is_infinite = |time: i64, part: i32| microseconds == time && days == part && months == part;
    if is_infinite(i64::MAX, i32::MAX) || is_infinite(i64::MIN, i32::MIN) {
        return Err(Misfit::Infinite);
    }
    let nanoseconds = microseconds.checked_mul(1000).ok_or(Misfit::OutOfRange)?;
    Ok(IntervalMonthDayNano::new(months, days, nanoseconds))
}

pub(super) fn text(bytes: &[u8]) -> Value<&str> {
    std::str::from_utf8(bytes).map_err(|_| Misfit::NotUtf8)
}

/// A `char(n)` without the blanks at its end, which mean nothing in it. No character of UTF-8 ends with the byte of a blank but the blank.
pub(super) fn padded(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
    bytes.get(..end).unwrap_or_default()
}

/// How a UUID is printed.
pub(super) fn uuid(bytes: &[u8]) -> Value<[u8; 36]> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let bytes: [u8; 16] = fixed(bytes)?;
    let digit = |number: u8| DIGITS.get(usize::from(number & 15)).copied().unwrap_or_default();
    let mut text = [b'-'; 36];
    let places = (0..36).filter(|place| !matches!(place, 8 | 13 | 18 | 23));
    let digits = bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]);
    for (place, digit) in places.zip(digits) {
        if let Some(into) = text.get_mut(place) {
            *into = digit;
        }
    }
    Ok(text)
}

/// A number as a decimal of this precision and scale. It comes as digits of base 10,000, the first of which counts
/// 10,000 to the power of a weight.
pub(super) fn numeric(bytes: &[u8], precision: u8, scale: u8) -> Value<i128> {
    let (header, digits) = bytes.split_first_chunk::<8>().ok_or(Misfit::Malformed)?;
    let [c0, c1, w0, w1, s0, s1, _, _] = *header;
    let count = usize::from(u16::from_be_bytes([c0, c1]));
    let weight = i32::from(i16::from_be_bytes([w0, w1]));
    let negative = match u16::from_be_bytes([s0, s1]) {
        0x0000 => false,
        0x4000 => true,
        0xC000 => return Err(Misfit::NotANumber),
        0xD000 | 0xF000 => return Err(Misfit::Infinite),
        _ => return Err(Misfit::Malformed),
    };
    let (digits, rest) = digits.as_chunks::<2>();
    if digits.len() != count || !rest.is_empty() {
        return Err(Misfit::Malformed);
    }
    let magnitude = magnitude(digits, weight, i32::from(scale))?;
    let limit = POWERS_OF_TEN.get(usize::from(precision)).copied().unwrap_or(u128::MAX);
    if magnitude >= limit {
        return Err(Misfit::TooManyDigits);
    }
    // Below 10 to the power of 38, so it fits.
    let magnitude = magnitude as i128;
    Ok(if negative { -magnitude } else { magnitude })
}

fn magnitude(digits: &[[u8; 2]], weight: i32, scale: i32) -> Value<u128> {
    let digit = |digit: &[u8; 2]| match u16::from_be_bytes(*digit) {
        digit @ 0..10_000 => Ok(digit),
        _ => Err(Misfit::Malformed),
    };
    // The last digit counts 10 to the power of `tens`, in units of the scale.
    let tens = 4 * (weight - digits.len() as i32 + 1) + scale;
    if digits.len() <= 4 {
        let mut number = 0_u64;
        for next in digits {
            number = number * 10_000 + u64::from(digit(next)?);
        }
        return shifted(u128::from(number), tens);
    }
    // What is below the scale is in the last digits, which must be zeros; so they are looked at first.
    let below = usize::try_from(-tens).unwrap_or(0) / 4;
    let (kept, dropped) = digits.split_at(digits.len().saturating_sub(below));
    for next in dropped {
        if digit(next)? != 0 {
            return Err(Misfit::TooManyDigits);
        }
    }
    // What is left is at most three digits below the scale, in the last of those that are kept. It is taken off before it
    // is added, because with it the number might have no room.
    let tens = tens + 4 * dropped.len() as i32;
    let Some((last, kept)) = kept.split_last() else {
        return Ok(0);
    };
    let mut number = 0_u128;
    for next in kept {
        number = joined(number, 10_000, digit(next)?)?;
    }
    let last = digit(last)?;
    match tens {
        -3..=-1 => {
            let below = 10_u16.pow(tens.unsigned_abs());
            if last % below != 0 {
                return Err(Misfit::TooManyDigits);
            }
            joined(number, 10_000 / below, last / below)
        }
        _ => shifted(joined(number, 10_000, last)?, tens),
    }
}

fn joined(number: u128, times: u16, digit: u16) -> Value<u128> {
    let number = number.checked_mul(u128::from(times)).ok_or(Misfit::TooManyDigits)?;
    number.checked_add(u128::from(digit)).ok_or(Misfit::TooManyDigits)
}

/// A number times ten to the power of `tens`, when that is a whole number.
fn shifted(number: u128, tens: i32) -> Value<u128> {
    if number == 0 {
        return Ok(0);
    }
    let power = POWERS_OF_TEN
        .get(tens.unsigned_abs() as usize)
        .ok_or(Misfit::TooManyDigits)?;
    if tens >= 0 {
        number.checked_mul(*power).ok_or(Misfit::TooManyDigits)
    } else if let (Ok(number), Ok(power)) = (u64::try_from(number), u64::try_from(*power)) {
        // Division of 64 bits is many times faster.
        whole(number.is_multiple_of(power), u128::from(number / power))
    } else {
        whole(number.is_multiple_of(*power), number / power)
    }
}

fn whole(is_whole: bool, number: u128) -> Value<u128> {
    if is_whole {
        Ok(number)
    } else {
        Err(Misfit::TooManyDigits)
    }
}

const POWERS_OF_TEN: [u128; 39] = {
    let mut powers = [1_u128; 39];
    let (mut rest, mut power) = (powers.as_mut_slice(), 1);
    while let [first, after @ ..] = rest {
        *first = power;
        // The last power of ten that fits is the last of these.
        power = power.wrapping_mul(10);
        rest = after;
    }
    powers
};

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(digits: &[u16], weight: i16, sign: u16, scale: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((digits.len() as u16).to_be_bytes());
        bytes.extend(weight.to_be_bytes());
        bytes.extend(sign.to_be_bytes());
        bytes.extend(scale.to_be_bytes());
        digits.iter().for_each(|digit| bytes.extend(digit.to_be_bytes()));
        bytes
    }

    #[test]
    fn numerics_are_never_rounded() {
        let check = |digits: &[u16], weight: i16, expected: Value<i128>| {
            assert_eq!(
                numeric(&sent(digits, weight, 0, 2), 38, 2),
                expected,
                "{digits:?} {weight}"
            );
            let negative = expected.map(|value| -value);
            assert_eq!(numeric(&sent(digits, weight, 0x4000, 2), 38, 2), negative);
        };
        check(&[], 0, Ok(0));
        check(&[12], 0, Ok(1200));
        check(&[12, 3400], 0, Ok(1234));
        check(&[12, 3450], 0, Err(Misfit::TooManyDigits));
        check(&[500], -1, Ok(5));
        check(&[1], -1, Err(Misfit::TooManyDigits));
        check(&[1], 8, Ok(10_i128.pow(34)));
        check(&[100], 8, Ok(10_i128.pow(36)));
        check(&[9999], 8, Ok(9999 * 10_i128.pow(34)));
        check(&[1], 9, Err(Misfit::TooManyDigits));
        check(&[1], i16::MAX, Err(Misfit::TooManyDigits));
        check(&[1], i16::MIN, Err(Misfit::TooManyDigits));
        check(&[1, 2, 3, 4, 5], 4, Ok(1_000_200_030_004_000_500));
        check(&[9999; 10], 8, Err(Misfit::TooManyDigits));
        check(
            &[9999, 9999, 9999, 9999, 9999, 9999, 9999, 9999, 9999, 9900],
            8,
            Ok(10_i128.pow(38) - 1),
        );
        check(&[1, 2, 3, 4, 5, 100, 0, 0], 4, Ok(1_000_200_030_004_000_501));
        check(&[1, 2, 3, 4, 5, 0, 0, 1], 4, Err(Misfit::TooManyDigits));
        check(&[99; 12], 11, Err(Misfit::TooManyDigits));
        check(&[10_000], 0, Err(Misfit::Malformed));
        assert_eq!(numeric(&sent(&[1000], 0, 0, 0), 3, 0), Err(Misfit::TooManyDigits));
        assert_eq!(numeric(&sent(&[999], 0, 0, 0), 3, 0), Ok(999));
        assert_eq!(numeric(&sent(&[], 0, 0xC000, 0), 38, 2), Err(Misfit::NotANumber));
        assert_eq!(numeric(&sent(&[], 0, 0xD000, 0), 38, 2), Err(Misfit::Infinite));
        assert_eq!(numeric(&sent(&[1], 0, 0, 0)[..9], 38, 2), Err(Misfit::Malformed));
    }

    #[test]
    fn ends_of_time_are_told_from_times() {
        assert_eq!(date(&0_i32.to_be_bytes()), Ok(10_957));
        assert_eq!(date(&i32::MAX.to_be_bytes()), Err(Misfit::Infinite));
        assert_eq!(date(&(i32::MAX - 1).to_be_bytes()), Err(Misfit::OutOfRange));
        assert_eq!(timestamp(&0_i64.to_be_bytes()), Ok(946_684_800_000_000));
        assert_eq!(timestamp(&i64::MIN.to_be_bytes()), Err(Misfit::Infinite));
        assert_eq!(timestamp(&(i64::MAX - 1).to_be_bytes()), Err(Misfit::OutOfRange));
        assert_eq!(time(&86_399_999_999_i64.to_be_bytes()), Ok(86_399_999_999));
        assert_eq!(time(&86_400_000_000_i64.to_be_bytes()), Err(Misfit::OutOfRange));
        let mut bytes = [0_u8; 16];
        bytes[..8].copy_from_slice(&(-1_i64).to_be_bytes());
        assert_eq!(interval(&bytes), Ok(IntervalMonthDayNano::new(0, 0, -1000)));
        bytes[..8].copy_from_slice(&i64::MAX.to_be_bytes());
        assert_eq!(interval(&bytes), Err(Misfit::OutOfRange));
    }

    #[test]
    fn texts_are_what_is_printed() {
        assert_eq!(padded(b"a b  "), b"a b");
        assert_eq!(padded(b"  "), b"");
        assert_eq!(padded("\u{a0} ".as_bytes()), "\u{a0}".as_bytes());
        assert_eq!(text(b"\xff"), Err(Misfit::NotUtf8));
        let bytes: Vec<u8> = (0..16).map(|byte| byte * 17).collect();
        assert_eq!(&uuid(&bytes).unwrap(), b"00112233-4455-6677-8899-aabbccddeeff");
    }
}

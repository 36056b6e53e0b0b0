//! The mask `bucket_date`: a date or time becomes the start of the hour, day, week, month, quarter or year it is in.
//!
//! A timestamp with a time zone is cut in that zone. A start that the type cannot hold becomes NULL.

use std::sync::Arc;

use chrono::{DateTime, Datelike, FixedOffset, NaiveDate, NaiveDateTime, Offset, TimeZone};
use datafusion::arrow::array::timezone::Tz;
use datafusion::arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Date64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use datafusion::common::ScalarValue;
use minerva_resources::{MaskSpec, Problem, closest};

use super::parameters::Parameters;
use super::text::{literal, text_argument};
use super::{Failed, Kernel, Mask, MaskKind};
use crate::keys::KeyRing;

/// How much of a date is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Precision {
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
}

const PRECISIONS: [(&str, Precision); 6] = [
    ("hour", Precision::Hour),
    ("day", Precision::Day),
    ("week", Precision::Week),
    ("month", Precision::Month),
    ("quarter", Precision::Quarter),
    ("year", Precision::Year),
];

fn precision(name: &str) -> Option<(&'static str, Precision)> {
    PRECISIONS.into_iter().find(|(known, _)| *known == name)
}

/// The operator `bucket_date`.
#[derive(Debug)]
pub(super) struct BucketDateKind;

impl MaskKind for BucketDateKind {
    fn name(&self) -> &'static str {
        "bucket_date"
    }
    fn function(&self) -> &'static str {
        "minerva_mask_bucket_date"
    }
    fn description(&self) -> &'static str {
        "Cuts a date or timestamp to the start of its `precision`: `hour`, `day`, `week` (from Monday), `month`, \
         `quarter` or `year`. A timestamp with a time zone is cut in that zone."
    }
    fn types(&self) -> &'static str {
        "dates and timestamps"
    }
    fn example(&self) -> &'static str {
        "mask:\n  operator: bucket_date\n  bucket_date: {precision: month}"
    }
    fn read(&self, spec: &MaskSpec) -> Result<Arc<dyn Mask>, Vec<Problem>> {
        let names = PRECISIONS.map(|(name, _)| name);
        let mut parameters = Parameters::new(spec, &["precision"]);
        let expected = "one of `hour`, `day`, `week`, `month`, `quarter`, `year`";
        let mask = parameters.required_text("precision", expected).and_then(|text| {
            let found = precision(&text.to_ascii_lowercase());
            if found.is_none() {
                match closest(&text, names) {
                    Some(name) => parameters.wrong("precision", &format!("{expected}; did you mean `{name}`?")),
                    None => parameters.wrong("precision", expected),
                }
            }
            found.map(|(name, _)| BucketDate { precision: name })
        });
        parameters.finish(mask)
    }
    fn kernel(
        &self,
        arguments: &[ScalarValue],
        data_type: &DataType,
        _keys: &KeyRing,
    ) -> Result<Arc<dyn Kernel>, String> {
        let (_, precision) = precision(text_argument(arguments, 0)?).ok_or("unknown precision")?;
        let zone = match data_type {
            DataType::Timestamp(_, Some(zone)) => Some(
                zone.parse::<Tz>()
                    .map_err(|_| format!("time zone `{zone}` is unknown"))?,
            ),
            _ => None,
        };
        Ok(Arc::new(BucketDateKernel { precision, zone }))
    }
}

#[derive(Debug)]
struct BucketDate {
    precision: &'static str,
}

impl Mask for BucketDate {
    fn kind(&self) -> &'static dyn MaskKind {
        &BucketDateKind
    }
    fn describe(&self) -> String {
        format!("bucket_date(precision: {})", self.precision)
    }
    fn arguments(&self, data_type: &DataType) -> Result<Vec<ScalarValue>, String> {
        match data_type {
            DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => Ok(vec![literal(self.precision)]),
            _ => Err("expected a column of dates or timestamps".to_owned()),
        }
    }
    fn makes_null(&self, _data_type: &DataType) -> bool {
        true
    }
}

#[derive(Debug)]
struct BucketDateKernel {
    precision: Precision,
    zone: Option<Tz>,
}

const DAY_SECONDS: i64 = 86_400;
/// Days from the first day of year 1, which chrono counts as day 1, to 1970-01-01.
const EPOCH_DAY: i64 = 719_163;

impl BucketDateKernel {
    /// The first day of the bucket that a day, counted from 1970-01-01, is in.
    fn day(&self, day: i64) -> Option<i64> {
        let date = || NaiveDate::from_num_days_from_ce_opt(i32::try_from(day.checked_add(EPOCH_DAY)?).ok()?);
        let start = |date: NaiveDate, month: u32| {
            let first = NaiveDate::from_ymd_opt(date.year(), month, 1)?;
            Some(i64::from(first.num_days_from_ce()) - EPOCH_DAY)
        };
        match self.precision {
            Precision::Hour | Precision::Day => Some(day),
            // 1970-01-01 was a Thursday.
            Precision::Week => day.checked_sub((day.checked_add(3)?).rem_euclid(7)),
            Precision::Month => date().and_then(|date| start(date, date.month())),
            Precision::Quarter => date().and_then(|date| start(date, date.month0() / 3 * 3 + 1)),
            Precision::Year => date().and_then(|date| start(date, 1)),
        }
    }

    /// The start of the bucket that a local time, in seconds from 1970-01-01, is in.
    fn local(&self, seconds: i64) -> Option<i64> {
        match self.precision {
            Precision::Hour => Some(seconds - seconds.rem_euclid(3600)),
            _ => self.day(seconds.div_euclid(DAY_SECONDS))?.checked_mul(DAY_SECONDS),
        }
    }

    /// The start of the bucket that a moment, in seconds from 1970-01-01 UTC, is in.
    fn moment(&self, seconds: i64) -> Option<i64> {
        let Some(zone) = &self.zone else {
            return self.local(seconds);
        };
        let offset = i64::from(offset_at(zone, seconds)?.local_minus_utc());
        let local = self.local(seconds.checked_add(offset)?)?;
        let start = local.checked_sub(offset)?;
        if i64::from(offset_at(zone, start)?.local_minus_utc()) == offset {
            return Some(start);
        }
        // The clocks were changed between the start and the moment; where the start was skipped, keep the offset.
        let naive = naive(local)?;
        let at_start = zone
            .offset_from_local_datetime(&naive)
            .earliest()
            .map(|found| found.fix().local_minus_utc());
        local.checked_sub(at_start.map_or(offset, i64::from))
    }

    fn timestamps<T: ArrowPrimitiveType<Native = i64>>(&self, values: &ArrayRef, per_second: i64) -> Option<ArrayRef> {
        let values = values.as_primitive_opt::<T>()?;
        let cut = |value: i64| self.moment(value.div_euclid(per_second))?.checked_mul(per_second);
        let masked: PrimitiveArray<T> = values.unary_opt(cut);
        Some(Arc::new(masked.with_data_type(values.data_type().clone())))
    }

    fn masked(&self, values: &ArrayRef) -> Option<ArrayRef> {
        match values.data_type() {
            DataType::Date32 => {
                let cut = |value: i32| i32::try_from(self.day(i64::from(value))?).ok();
                let masked: PrimitiveArray<Date32Type> = values.as_primitive_opt::<Date32Type>()?.unary_opt(cut);
                Some(Arc::new(masked))
            }
            DataType::Date64 => self.timestamps::<Date64Type>(values, 1000),
            DataType::Timestamp(TimeUnit::Second, _) => self.timestamps::<TimestampSecondType>(values, 1),
            DataType::Timestamp(TimeUnit::Millisecond, _) => self.timestamps::<TimestampMillisecondType>(values, 1000),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                self.timestamps::<TimestampMicrosecondType>(values, 1_000_000)
            }
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                self.timestamps::<TimestampNanosecondType>(values, 1_000_000_000)
            }
            _ => None,
        }
    }
}

fn naive(seconds: i64) -> Option<NaiveDateTime> {
    Some(DateTime::from_timestamp(seconds, 0)?.naive_utc())
}

fn offset_at(zone: &Tz, seconds: i64) -> Option<FixedOffset> {
    Some(zone.offset_from_utc_datetime(&naive(seconds)?).fix())
}

impl Kernel for BucketDateKernel {
    fn apply(&self, values: &ArrayRef) -> Result<ArrayRef, Failed> {
        self.masked(values).ok_or(Failed)
    }
}

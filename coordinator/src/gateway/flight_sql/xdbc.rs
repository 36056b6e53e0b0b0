//! The answer to "which types are there": one row for each SQL type, as ODBC and JDBC describe types.
//!
//! Power BI and the ODBC driver ask this before they show a column.

use arrow_flight::{
    error::Result,
    sql::{
        Nullable, Searchable, XdbcDataType, XdbcDatetimeSubcode,
        metadata::{XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder},
    },
};

/// Every type, sorted as the protocol wants it.
pub(super) fn type_info() -> Result<XdbcTypeInfoData> {
    let mut builder = XdbcTypeInfoDataBuilder::new();
    for row in numbers().into_iter().chain(texts()).chain(times()).chain(nested()) {
        builder.append(row);
    }
    builder.build()
}

fn base(name: &str, data_type: XdbcDataType) -> XdbcTypeInfo {
    XdbcTypeInfo {
        type_name: name.to_owned(),
        local_type_name: Some(name.to_owned()),
        data_type,
        sql_data_type: data_type,
        nullable: Nullable::NullabilityNullable,
        searchable: Searchable::Full,
        ..XdbcTypeInfo::default()
    }
}

fn integer(name: &str, data_type: XdbcDataType, digits: i32, unsigned: bool) -> XdbcTypeInfo {
    XdbcTypeInfo {
        column_size: Some(digits),
        unsigned_attribute: Some(unsigned),
        fixed_prec_scale: true,
        auto_increment: Some(false),
        minimum_scale: Some(0),
        maximum_scale: Some(0),
        num_prec_radix: Some(10),
        ..base(name, data_type)
    }
}

fn float(name: &str, data_type: XdbcDataType, bits: i32) -> XdbcTypeInfo {
    XdbcTypeInfo {
        column_size: Some(bits),
        unsigned_attribute: Some(false),
        auto_increment: Some(false),
        num_prec_radix: Some(2),
        ..base(name, data_type)
    }
}

fn numbers() -> Vec<XdbcTypeInfo> {
    let decimal = XdbcTypeInfo {
        column_size: Some(76),
        create_params: Some(vec!["precision".to_owned(), "scale".to_owned()]),
        unsigned_attribute: Some(false),
        auto_increment: Some(false),
        minimum_scale: Some(0),
        maximum_scale: Some(76),
        num_prec_radix: Some(10),
        ..base("DECIMAL", XdbcDataType::XdbcDecimal)
    };
    vec![
        XdbcTypeInfo {
            column_size: Some(1),
            ..base("BOOLEAN", XdbcDataType::XdbcBit)
        },
        integer("TINYINT", XdbcDataType::XdbcTinyint, 3, false),
        integer("TINYINT UNSIGNED", XdbcDataType::XdbcTinyint, 3, true),
        integer("SMALLINT", XdbcDataType::XdbcSmallint, 5, false),
        integer("SMALLINT UNSIGNED", XdbcDataType::XdbcSmallint, 5, true),
        integer("INTEGER", XdbcDataType::XdbcInteger, 10, false),
        integer("INTEGER UNSIGNED", XdbcDataType::XdbcInteger, 10, true),
        integer("BIGINT", XdbcDataType::XdbcBigint, 19, false),
        integer("BIGINT UNSIGNED", XdbcDataType::XdbcBigint, 20, true),
        XdbcTypeInfo {
            type_name: "NUMERIC".to_owned(),
            ..alias(&decimal, XdbcDataType::XdbcNumeric)
        },
        decimal,
        float("REAL", XdbcDataType::XdbcReal, 24),
        float("DOUBLE", XdbcDataType::XdbcDouble, 53),
        XdbcTypeInfo {
            local_type_name: Some("DOUBLE".to_owned()),
            ..float("FLOAT", XdbcDataType::XdbcFloat, 53)
        },
    ]
}

/// The same type under another number, which older tools ask for.
fn alias(known: &XdbcTypeInfo, data_type: XdbcDataType) -> XdbcTypeInfo {
    XdbcTypeInfo {
        data_type,
        sql_data_type: data_type,
        ..known.clone()
    }
}

fn quoted(row: XdbcTypeInfo, prefix: &str) -> XdbcTypeInfo {
    XdbcTypeInfo {
        literal_prefix: Some(format!("{prefix}'")),
        literal_suffix: Some("'".to_owned()),
        ..row
    }
}

fn texts() -> Vec<XdbcTypeInfo> {
    let text = |name, data_type| {
        let row = XdbcTypeInfo {
            column_size: Some(i32::MAX),
            case_sensitive: true,
            ..base(name, data_type)
        };
        quoted(row, "")
    };
    let bytes = |name, data_type| {
        quoted(
            XdbcTypeInfo {
                column_size: Some(i32::MAX),
                ..base(name, data_type)
            },
            "X",
        )
    };
    vec![
        text("CHAR", XdbcDataType::XdbcChar),
        text("VARCHAR", XdbcDataType::XdbcVarchar),
        text("TEXT", XdbcDataType::XdbcLongvarchar),
        text("VARCHAR", XdbcDataType::XdbcWvarchar),
        bytes("BINARY", XdbcDataType::XdbcBinary),
        bytes("VARBINARY", XdbcDataType::XdbcVarbinary),
    ]
}

fn times() -> Vec<XdbcTypeInfo> {
    let time = |name, prefix, data_type, size, digits, subcode| XdbcTypeInfo {
        column_size: Some(size),
        sql_data_type: XdbcDataType::XdbcDatetime,
        datetime_subcode: Some(subcode),
        minimum_scale: Some(0),
        maximum_scale: Some(digits),
        ..quoted(base(name, data_type), prefix)
    };
    let interval = |name, subcode, precision| XdbcTypeInfo {
        sql_data_type: XdbcDataType::XdbcInterval,
        datetime_subcode: Some(subcode),
        interval_precision: Some(precision),
        ..quoted(base(name, XdbcDataType::XdbcInterval), "INTERVAL ")
    };
    vec![
        // The protocol gives 1 to the subcode of dates under the name of the year.
        time(
            "DATE",
            "DATE ",
            XdbcDataType::XdbcDate,
            10,
            0,
            XdbcDatetimeSubcode::XdbcSubcodeYear,
        ),
        time(
            "TIME",
            "TIME ",
            XdbcDataType::XdbcTime,
            18,
            9,
            XdbcDatetimeSubcode::XdbcSubcodeTime,
        ),
        time(
            "TIMESTAMP",
            "TIMESTAMP ",
            XdbcDataType::XdbcTimestamp,
            29,
            9,
            XdbcDatetimeSubcode::XdbcSubcodeTimestamp,
        ),
        time(
            "TIMESTAMP WITH TIME ZONE",
            "TIMESTAMP ",
            XdbcDataType::XdbcTimestamp,
            35,
            9,
            XdbcDatetimeSubcode::XdbcSubcodeTimestampWithTimezone,
        ),
        interval(
            "INTERVAL DAY TO SECOND",
            XdbcDatetimeSubcode::XdbcSubcodeIntervalDayToSecond,
            9,
        ),
        interval(
            "INTERVAL YEAR TO MONTH",
            XdbcDatetimeSubcode::XdbcSubcodeIntervalYearToMonth,
            9,
        ),
    ]
}

fn nested() -> Vec<XdbcTypeInfo> {
    let row = |name| XdbcTypeInfo {
        searchable: Searchable::Basic,
        ..base(name, XdbcDataType::XdbcUnknownType)
    };
    vec![row("ARRAY"), row("MAP"), row("ROW")]
}

#[cfg(test)]
mod tests {
    use arrow::{array::AsArray, datatypes::Int32Type};

    use super::*;
    use crate::gateway::flight_sql::types::sql_type;

    #[test]
    fn every_type_that_a_column_can_have_is_described() {
        use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
        let all = type_info().unwrap().record_batch(None).unwrap();
        let names: Vec<_> = all.column(0).as_string::<i32>().iter().flatten().collect();
        for data_type in [
            DataType::Boolean,
            DataType::Int8,
            DataType::UInt64,
            DataType::Float16,
            DataType::Float64,
            DataType::Decimal256(76, 10),
            DataType::Utf8View,
            DataType::LargeBinary,
            DataType::FixedSizeBinary(16),
            DataType::Date64,
            DataType::Time64(TimeUnit::Nanosecond),
            DataType::Timestamp(TimeUnit::Second, None),
            DataType::Timestamp(TimeUnit::Second, Some("UTC".into())),
            DataType::Interval(IntervalUnit::MonthDayNano),
            DataType::Interval(IntervalUnit::YearMonth),
        ] {
            assert!(names.contains(&sql_type(&data_type).name), "{data_type}");
        }
    }

    #[test]
    fn one_type_can_be_asked_for_and_rows_are_sorted() {
        let info = type_info().unwrap();
        let all = info.record_batch(None).unwrap();
        let numbers = all.column(1).as_primitive::<Int32Type>().values();
        assert!(numbers.is_sorted(), "{numbers:?}");
        let texts = info.record_batch(Some(XdbcDataType::XdbcVarchar as i32)).unwrap();
        assert_eq!(texts.num_rows(), 1);
        assert_eq!(texts.column(3).as_string::<i32>().value(0), "'");
    }
}

//! SQL names of Arrow types, and what drivers ask about the columns of a table.
//!
//! In: a schema and the table it belongs to. Out: the same schema with the metadata that Flight SQL defines for columns.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, Schema};

use super::stream::wire_schema;

/// A type as SQL calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SqlType {
    pub(super) name: &'static str,
    /// Digits of a number, characters of a text.
    pub(super) precision: Option<i32>,
    pub(super) scale: Option<i32>,
}

/// The SQL type of an Arrow type.
pub(super) fn sql_type(data_type: &DataType) -> SqlType {
    let (name, precision, scale) = match data_type {
        DataType::Null => ("UNKNOWN", None, None),
        DataType::Boolean => ("BOOLEAN", Some(1), None),
        DataType::Int8 => ("TINYINT", Some(3), Some(0)),
        DataType::Int16 => ("SMALLINT", Some(5), Some(0)),
        DataType::Int32 => ("INTEGER", Some(10), Some(0)),
        DataType::Int64 => ("BIGINT", Some(19), Some(0)),
        DataType::UInt8 => ("TINYINT UNSIGNED", Some(3), Some(0)),
        DataType::UInt16 => ("SMALLINT UNSIGNED", Some(5), Some(0)),
        DataType::UInt32 => ("INTEGER UNSIGNED", Some(10), Some(0)),
        DataType::UInt64 => ("BIGINT UNSIGNED", Some(20), Some(0)),
        DataType::Float16 | DataType::Float32 => ("REAL", Some(7), None),
        DataType::Float64 => ("DOUBLE", Some(15), None),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => ("DECIMAL", Some(i32::from(*precision)), Some(i32::from(*scale))),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => ("VARCHAR", Some(i32::MAX), None),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => ("VARBINARY", Some(i32::MAX), None),
        DataType::FixedSizeBinary(width) => ("BINARY", Some(*width), None),
        DataType::Date32 | DataType::Date64 => ("DATE", Some(10), None),
        DataType::Time32(_) | DataType::Time64(_) => ("TIME", Some(18), None),
        DataType::Timestamp(_, None) => ("TIMESTAMP", Some(29), None),
        DataType::Timestamp(_, Some(_)) => ("TIMESTAMP WITH TIME ZONE", Some(35), None),
        DataType::Interval(IntervalUnit::YearMonth) => ("INTERVAL YEAR TO MONTH", None, None),
        DataType::Interval(_) | DataType::Duration(_) => ("INTERVAL DAY TO SECOND", None, None),
        DataType::List(_)
        | DataType::LargeList(_)
        | DataType::ListView(_)
        | DataType::LargeListView(_)
        | DataType::FixedSizeList(_, _) => ("ARRAY", None, None),
        DataType::Map(_, _) => ("MAP", None, None),
        DataType::Struct(_) => ("ROW", None, None),
        DataType::Union(_, _) => ("UNION", None, None),
        DataType::Dictionary(_, value) => return sql_type(value),
        DataType::RunEndEncoded(_, values) => return sql_type(values.data_type()),
    };
    SqlType { name, precision, scale }
}

/// The schema of a table as drivers read it: the types of the wire, and each column's metadata.
pub(super) fn described(schema: &Schema, catalog: &str, db_schema: &str, table: &str) -> Schema {
    let wire = wire_schema(schema);
    let fields: Vec<FieldRef> = wire
        .fields()
        .iter()
        .map(|field| describe(field, catalog, db_schema, table))
        .collect();
    Schema::new_with_metadata(fields, wire.metadata().clone())
}

fn describe(field: &FieldRef, catalog: &str, db_schema: &str, table: &str) -> FieldRef {
    let known = sql_type(field.data_type());
    let mut metadata = field.metadata().clone();
    let mut put = |key: &str, value: String| metadata.insert(format!("ARROW:FLIGHT:SQL:{key}"), value);
    put("CATALOG_NAME", catalog.to_owned());
    put("SCHEMA_NAME", db_schema.to_owned());
    put("DB_SCHEMA_NAME", db_schema.to_owned());
    put("TABLE_NAME", table.to_owned());
    put("TYPE_NAME", known.name.to_owned());
    if let Some(precision) = known.precision {
        put("PRECISION", precision.to_string());
    }
    if let Some(scale) = known.scale {
        put("SCALE", scale.to_string());
    }
    put("IS_AUTO_INCREMENT", "0".to_owned());
    put(
        "IS_CASE_SENSITIVE",
        if known.name == "VARCHAR" { "1" } else { "0" }.to_owned(),
    );
    put("IS_READ_ONLY", "1".to_owned());
    put("IS_SEARCHABLE", "1".to_owned());
    Arc::new(Field::clone(field).with_metadata(metadata))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_says_where_it_belongs_and_what_it_is() {
        let schema = Schema::new(vec![
            Field::new("price", DataType::Decimal128(12, 2), false),
            Field::new(
                "name",
                DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8View)),
                true,
            ),
        ]);
        let found = described(&schema, "crm", "public", "orders");
        let price = found.field(0).metadata();
        let value = |key: &str| price.get(&format!("ARROW:FLIGHT:SQL:{key}")).map(String::as_str);
        assert_eq!(
            (value("TYPE_NAME"), value("PRECISION"), value("SCALE")),
            (Some("DECIMAL"), Some("12"), Some("2"))
        );
        assert_eq!(
            (value("CATALOG_NAME"), value("TABLE_NAME")),
            (Some("crm"), Some("orders"))
        );
        assert_eq!(found.field(1).data_type(), &DataType::Utf8);
        assert_eq!(
            found.field(1).metadata().get("ARROW:FLIGHT:SQL:TYPE_NAME").unwrap(),
            "VARCHAR"
        );
    }
}

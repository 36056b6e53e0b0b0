//! The answer to "what can this server do": every code of Flight SQL's `SqlInfo`.
//!
//! JDBC reads all of them at once and fails on one that is missing or of another type; Tableau and Power BI decide by them what SQL to write.
//! Functions, keywords and conversions are taken from the engine's libraries, not written down here.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    compute::can_cast_types,
    datatypes::{DataType, IntervalUnit, TimeUnit},
};
use arrow_flight::{
    error::Result,
    sql::{
        SqlInfo, SqlNullOrdering, SqlOuterJoinsSupportLevel, SqlSupportedCaseSensitivity, SqlSupportedGroupBy,
        SqlSupportedResultSetConcurrency, SqlSupportedResultSetType, SqlSupportedSubqueries, SqlSupportedTransaction,
        SqlSupportedUnions, SqlSupportsConvert, SqlTransactionIsolationLevel, SupportedSqlGrammar,
        metadata::{SqlInfoData, SqlInfoDataBuilder},
    },
};
use datafusion::{functions, logical_expr::ScalarUDF, sql::sqlparser::keywords::ALL_KEYWORDS};

/// Entry level of SQL-92: bit 0 of `SupportedAnsi92SqlGrammarLevel`, which arrow-flight does not export.
const ANSI92_ENTRY: i32 = 1;

/// No limit, or none that is known.
const UNLIMITED: i64 = 0;

/// Every code with its value.
pub(super) fn sql_info() -> Result<SqlInfoData> {
    let mut builder = SqlInfoDataBuilder::new();
    server(&mut builder);
    names(&mut builder);
    vocabulary(&mut builder);
    grammar(&mut builder);
    limits(&mut builder);
    transactions(&mut builder);
    results(&mut builder);
    builder.build()
}

fn server(builder: &mut SqlInfoDataBuilder) {
    builder.append(SqlInfo::FlightSqlServerName, "Minerva");
    builder.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    builder.append(SqlInfo::FlightSqlServerArrowVersion, arrow::ARROW_VERSION);
    builder.append(SqlInfo::FlightSqlServerReadOnly, false);
    builder.append(SqlInfo::FlightSqlServerSql, true);
    builder.append(SqlInfo::FlightSqlServerSubstrait, false);
    builder.append(SqlInfo::FlightSqlServerSubstraitMinVersion, "");
    builder.append(SqlInfo::FlightSqlServerSubstraitMaxVersion, "");
    builder.append(
        SqlInfo::FlightSqlServerTransaction,
        SqlSupportedTransaction::None as i32,
    );
    builder.append(SqlInfo::FlightSqlServerCancel, true);
    builder.append(SqlInfo::FlightSqlServerBulkIngestion, false);
    builder.append(SqlInfo::FlightSqlServerIngestTransactionsSupported, false);
    // Prepared statements end with their session, not after a time.
    builder.append(SqlInfo::FlightSqlServerStatementTimeout, 0_i32);
    builder.append(SqlInfo::FlightSqlServerTransactionTimeout, 0_i32);
}

fn names(builder: &mut SqlInfoDataBuilder) {
    builder.append(SqlInfo::SqlDdlCatalog, false);
    builder.append(SqlInfo::SqlDdlSchema, false);
    builder.append(SqlInfo::SqlDdlTable, true);
    builder.append(
        SqlInfo::SqlIdentifierCase,
        SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32,
    );
    builder.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    // Quoted names keep their case. The enumeration has no word for it; drivers read this value as "mixed case is supported".
    builder.append(
        SqlInfo::SqlQuotedIdentifierCase,
        SqlSupportedCaseSensitivity::SqlCaseSensitivityCaseInsensitive as i32,
    );
    // Tables that may not be selected from are not listed.
    builder.append(SqlInfo::SqlAllTablesAreSelectable, true);
    builder.append(SqlInfo::SqlSearchStringEscape, "\\");
    builder.append(SqlInfo::SqlExtraNameCharacters, "$@");
    builder.append(SqlInfo::SqlSchemaTerm, "schema");
    builder.append(SqlInfo::SqlProcedureTerm, "procedure");
    builder.append(SqlInfo::SqlCatalogTerm, "catalog");
    builder.append(SqlInfo::SqlCatalogAtStart, true);
    builder.append(SqlInfo::SqlSchemasSupportedActions, 0_i32);
    builder.append(SqlInfo::SqlCatalogsSupportedActions, 0_i32);
}

fn vocabulary(builder: &mut SqlInfoDataBuilder) {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    builder.append(SqlInfo::SqlKeywords, words(ALL_KEYWORDS));
    builder.append(
        SqlInfo::SqlNumericFunctions,
        function_names(&[functions::math::functions()]),
    );
    let strings = [
        functions::string::functions(),
        functions::unicode::functions(),
        functions::regex::functions(),
        functions::encoding::functions(),
    ];
    builder.append(SqlInfo::SqlStringFunctions, function_names(&strings));
    builder.append(
        SqlInfo::SqlSystemFunctions,
        function_names(&[functions::core::functions()]),
    );
    builder.append(
        SqlInfo::SqlDatetimeFunctions,
        function_names(&[functions::datetime::functions()]),
    );
    builder.append(SqlInfo::SqlSupportsConvert, conversions());
}

fn function_names(groups: &[Vec<Arc<ScalarUDF>>]) -> Vec<String> {
    let mut names: Vec<_> = groups
        .iter()
        .flatten()
        .map(|function| function.name().to_owned())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Which type can be cast to which.
fn conversions() -> BTreeMap<i32, Vec<i32>> {
    let time = DataType::Time64(TimeUnit::Nanosecond);
    let types = [
        (SqlSupportsConvert::SqlConvertBigint, DataType::Int64),
        (SqlSupportsConvert::SqlConvertBinary, DataType::Binary),
        (SqlSupportsConvert::SqlConvertBit, DataType::Boolean),
        (SqlSupportsConvert::SqlConvertChar, DataType::Utf8),
        (SqlSupportsConvert::SqlConvertDate, DataType::Date32),
        (SqlSupportsConvert::SqlConvertDecimal, DataType::Decimal128(38, 10)),
        (SqlSupportsConvert::SqlConvertFloat, DataType::Float64),
        (SqlSupportsConvert::SqlConvertInteger, DataType::Int32),
        (
            SqlSupportsConvert::SqlConvertIntervalDayTime,
            DataType::Interval(IntervalUnit::DayTime),
        ),
        (
            SqlSupportsConvert::SqlConvertIntervalYearMonth,
            DataType::Interval(IntervalUnit::YearMonth),
        ),
        (SqlSupportsConvert::SqlConvertLongvarbinary, DataType::LargeBinary),
        (SqlSupportsConvert::SqlConvertLongvarchar, DataType::LargeUtf8),
        (SqlSupportsConvert::SqlConvertNumeric, DataType::Decimal128(38, 10)),
        (SqlSupportsConvert::SqlConvertReal, DataType::Float32),
        (SqlSupportsConvert::SqlConvertSmallint, DataType::Int16),
        (SqlSupportsConvert::SqlConvertTime, time),
        (
            SqlSupportsConvert::SqlConvertTimestamp,
            DataType::Timestamp(TimeUnit::Nanosecond, None),
        ),
        (SqlSupportsConvert::SqlConvertTinyint, DataType::Int8),
        (SqlSupportsConvert::SqlConvertVarbinary, DataType::Binary),
        (SqlSupportsConvert::SqlConvertVarchar, DataType::Utf8),
    ];
    let targets = |from: &DataType| {
        types
            .iter()
            .filter(|(_, to)| can_cast_types(from, to))
            .map(|(code, _)| *code as i32)
            .collect()
    };
    types.iter().map(|(code, from)| (*code as i32, targets(from))).collect()
}

fn grammar(builder: &mut SqlInfoDataBuilder) {
    builder.append(SqlInfo::SqlNullOrdering, SqlNullOrdering::SqlNullsSortedHigh as i32);
    for code in [
        SqlInfo::SqlSupportsColumnAliasing,
        SqlInfo::SqlNullPlusNullIsNull,
        SqlInfo::SqlSupportsTableCorrelationNames,
        SqlInfo::SqlSupportsExpressionsInOrderBy,
        SqlInfo::SqlSupportsOrderByUnrelated,
        SqlInfo::SqlSupportsLikeEscapeClause,
        SqlInfo::SqlCorrelatedSubqueriesSupported,
    ] {
        builder.append(code, true);
    }
    for code in [
        // Correlation names need not differ from table names.
        SqlInfo::SqlSupportsDifferentTableCorrelationNames,
        SqlInfo::SqlSupportsNonNullableColumns,
        SqlInfo::SqlSupportsIntegrityEnhancementFacility,
        SqlInfo::SqlSelectForUpdateSupported,
        SqlInfo::SqlStoredProceduresSupported,
        SqlInfo::SqlStoredFunctionsUsingCallSyntaxSupported,
        SqlInfo::SqlNamedParametersSupported,
        SqlInfo::SqlLocatorsUpdateCopy,
    ] {
        builder.append(code, false);
    }
    let bits = |bits: &[i32]| bits.iter().fold(0, |mask, bit| mask | 1 << bit);
    builder.append(
        SqlInfo::SqlSupportedGroupBy,
        bits(&[
            SqlSupportedGroupBy::SqlGroupByUnrelated as i32,
            SqlSupportedGroupBy::SqlGroupByBeyondSelect as i32,
        ]),
    );
    builder.append(
        SqlInfo::SqlSupportedGrammar,
        bits(&[
            SupportedSqlGrammar::SqlMinimumGrammar as i32,
            SupportedSqlGrammar::SqlCoreGrammar as i32,
        ]),
    );
    builder.append(SqlInfo::SqlAnsi92SupportedLevel, ANSI92_ENTRY);
    builder.append(
        SqlInfo::SqlOuterJoinsSupportLevel,
        bits(&[
            SqlOuterJoinsSupportLevel::SqlLimitedOuterJoins as i32,
            SqlOuterJoinsSupportLevel::SqlFullOuterJoins as i32,
        ]),
    );
    builder.append(SqlInfo::SqlSupportedPositionedCommands, 0_i32);
    builder.append(
        SqlInfo::SqlSupportedSubqueries,
        bits(&[
            SqlSupportedSubqueries::SqlSubqueriesInComparisons as i32,
            SqlSupportedSubqueries::SqlSubqueriesInExists as i32,
            SqlSupportedSubqueries::SqlSubqueriesInIns as i32,
        ]),
    );
    builder.append(
        SqlInfo::SqlSupportedUnions,
        bits(&[
            SqlSupportedUnions::SqlUnion as i32,
            SqlSupportedUnions::SqlUnionAll as i32,
        ]),
    );
}

fn limits(builder: &mut SqlInfoDataBuilder) {
    for code in [
        SqlInfo::SqlMaxBinaryLiteralLength,
        SqlInfo::SqlMaxCharLiteralLength,
        SqlInfo::SqlMaxColumnNameLength,
        SqlInfo::SqlMaxColumnsInGroupBy,
        SqlInfo::SqlMaxColumnsInIndex,
        SqlInfo::SqlMaxColumnsInOrderBy,
        SqlInfo::SqlMaxColumnsInSelect,
        SqlInfo::SqlMaxColumnsInTable,
        SqlInfo::SqlMaxConnections,
        SqlInfo::SqlMaxCursorNameLength,
        SqlInfo::SqlMaxIndexLength,
        SqlInfo::SqlDbSchemaNameLength,
        SqlInfo::SqlMaxProcedureNameLength,
        SqlInfo::SqlMaxCatalogNameLength,
        SqlInfo::SqlMaxRowSize,
        SqlInfo::SqlMaxStatements,
        SqlInfo::SqlMaxTableNameLength,
        SqlInfo::SqlMaxTablesInSelect,
        SqlInfo::SqlMaxUsernameLength,
    ] {
        builder.append(code, UNLIMITED);
    }
    builder.append(SqlInfo::SqlMaxRowSizeIncludesBlobs, true);
    builder.append(
        SqlInfo::SqlMaxStatementLength,
        i64::try_from(super::REQUEST_LIMIT_BYTES).unwrap_or(UNLIMITED),
    );
}

fn transactions(builder: &mut SqlInfoDataBuilder) {
    // JDBC reads this one as a 64-bit number.
    builder.append(
        SqlInfo::SqlDefaultTransactionIsolation,
        i64::from(SqlTransactionIsolationLevel::SqlTransactionNone as i32),
    );
    builder.append(SqlInfo::SqlTransactionsSupported, false);
    builder.append(
        SqlInfo::SqlSupportedTransactionsIsolationLevels,
        1_i32 << SqlTransactionIsolationLevel::SqlTransactionNone as i32,
    );
    builder.append(SqlInfo::SqlDataDefinitionCausesTransactionCommit, false);
    builder.append(SqlInfo::SqlDataDefinitionsInTransactionsIgnored, false);
    builder.append(SqlInfo::SqlSavepointsSupported, false);
    builder.append(SqlInfo::SqlBatchUpdatesSupported, true);
}

fn results(builder: &mut SqlInfoDataBuilder) {
    let read_only = 1_i32 << SqlSupportedResultSetConcurrency::SqlResultSetConcurrencyReadOnly as i32;
    builder.append(
        SqlInfo::SqlSupportedResultSetTypes,
        1_i32 << SqlSupportedResultSetType::SqlResultSetTypeForwardOnly as i32,
    );
    builder.append(SqlInfo::SqlSupportedConcurrenciesForResultSetUnspecified, read_only);
    builder.append(SqlInfo::SqlSupportedConcurrenciesForResultSetForwardOnly, read_only);
    builder.append(SqlInfo::SqlSupportedConcurrenciesForResultSetScrollSensitive, 0_i32);
    builder.append(SqlInfo::SqlSupportedConcurrenciesForResultSetScrollInsensitive, 0_i32);
}

#[cfg(test)]
mod tests {
    use arrow::{array::AsArray, datatypes::UInt32Type};

    use super::*;

    /// The numbers that the protocol defines: server 0 to 11 and 100 to 101, syntax 500 to 576.
    fn defined() -> impl Iterator<Item = i32> {
        (0..=11).chain(100..=101).chain(500..=576)
    }

    #[test]
    fn every_defined_code_is_answered_and_no_other() {
        assert!(
            SqlInfo::try_from(577).is_err() && SqlInfo::try_from(12).is_err(),
            "the protocol has grown"
        );
        let all = sql_info().unwrap().record_batch([]).unwrap();
        let answered: Vec<_> = all
            .column(0)
            .as_primitive::<UInt32Type>()
            .values()
            .iter()
            .map(|code| *code as i32)
            .collect();
        assert_eq!(answered, defined().collect::<Vec<_>>());
    }

    #[test]
    fn each_code_has_the_type_that_drivers_cast_it_to() {
        let data = sql_info().unwrap();
        // Children of the union: 0 text, 1 boolean, 2 64-bit number, 3 32-bit number, 4 texts, 5 map.
        let child = |code: SqlInfo| {
            let row = data.record_batch([code as u32]).unwrap();
            row.column(1).as_union().type_id(0)
        };
        for (code, wanted) in [
            (SqlInfo::FlightSqlServerName, 0),
            (SqlInfo::FlightSqlServerReadOnly, 1),
            (SqlInfo::FlightSqlServerTransaction, 3),
            (SqlInfo::SqlIdentifierCase, 3),
            (SqlInfo::SqlKeywords, 4),
            (SqlInfo::SqlSupportsConvert, 5),
            (SqlInfo::SqlOuterJoinsSupportLevel, 3),
            (SqlInfo::SqlMaxStatementLength, 2),
            (SqlInfo::SqlMaxRowSizeIncludesBlobs, 1),
            (SqlInfo::SqlDefaultTransactionIsolation, 2),
            (SqlInfo::SqlTransactionsSupported, 1),
            (SqlInfo::SqlSupportedResultSetTypes, 3),
        ] {
            assert_eq!(child(code), wanted, "{code:?}");
        }
    }

    #[test]
    fn vocabulary_comes_from_the_engine() {
        let data = sql_info().unwrap();
        let list = |code: SqlInfo| {
            let row = data.record_batch([code as u32]).unwrap();
            let texts = row.column(1).as_union().value(0);
            let texts = texts.as_list::<i32>().value(0);
            texts
                .as_string::<i32>()
                .iter()
                .flatten()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert!(list(SqlInfo::SqlNumericFunctions).contains(&"sqrt".to_owned()));
        assert!(list(SqlInfo::SqlStringFunctions).contains(&"substr".to_owned()));
        assert!(list(SqlInfo::SqlDatetimeFunctions).contains(&"date_trunc".to_owned()));
        assert!(list(SqlInfo::SqlSystemFunctions).contains(&"coalesce".to_owned()));
        assert!(list(SqlInfo::SqlKeywords).contains(&"SELECT".to_owned()));
    }
}

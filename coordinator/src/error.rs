//! The one error that leaves the engine: a stable code, a sentence, a hint, the position and the query's id.
//!
//! In: DataFusion's errors, connectors' errors, policies' errors. Out: a [`QueryError`] whose [`Code`] each protocol maps to its own.
//! Deliberately absent: any value of a row. What an error below a policy's barrier may say is decided in the policy crate.

use std::{error::Error, fmt};

use datafusion::{
    arrow::error::ArrowError,
    common::{SchemaError, TableReference},
    error::DataFusionError,
    sql::sqlparser::parser::ParserError,
};
use minerva_cluster::WorkerLost;
use minerva_connectors::ErrorKind;
use minerva_policy::GovernedError;
use minerva_resources::closest;

/// What went wrong, in a word that never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// More than one column answers to the name.
    AmbiguousName,
    /// A session names no catalog or no schema and the table's name has none either.
    MissingCatalogName,
    /// There is no such catalog, or the user may not know of it.
    CatalogNotFound,
    /// There is no such column.
    ColumnNotFound,
    /// A constraint of the table does not allow what was to be written.
    ConstraintViolation,
    /// A file or a database answered with something that cannot be read.
    CorruptData,
    /// The depot cannot be reached.
    DepotUnreachable,
    /// A number was divided by zero.
    DivisionByZero,
    /// The query used more memory than it may.
    ExceededMemoryLimit,
    /// The query returned more rows than it may.
    ExceededRowLimit,
    /// The query ran longer than it may.
    ExceededTimeLimit,
    /// There is no such function, or not for these types.
    FunctionNotFound,
    /// Something is wrong inside Minerva.
    GenericInternalError,
    /// A disk is full.
    InsufficientDisk,
    /// The argument of a call is wrong.
    InvalidArgument,
    /// A value cannot be converted to the type asked for.
    InvalidCastArgument,
    /// The user is unknown, or the key is wrong or has expired.
    InvalidCredentials,
    /// A parameter of a prepared statement is missing or of the wrong type.
    InvalidParameter,
    /// A handle or query id is unknown to this user.
    NotFound,
    /// The statement or feature is not supported.
    NotSupported,
    /// A number left the range of its type.
    NumericValueOutOfRange,
    /// The user may not do this.
    PermissionDenied,
    /// A policy cannot be applied to the table, which is therefore closed.
    PolicyError,
    /// The query was cancelled by its user.
    QueryCanceled,
    /// Too many queries wait already.
    QueryQueueFull,
    /// There is no such schema, or the user may not know of it.
    SchemaNotFound,
    /// The text is no SQL statement.
    SyntaxError,
    /// A table of this name exists already.
    TableAlreadyExists,
    /// The table is no longer what it was when the query was planned.
    TableChanged,
    /// There is no such table, or the user may not know of it.
    TableNotFound,
    /// The answer to the end of a transaction was lost: it may have been done.
    TransactionResolutionUnknown,
    /// An expression has the wrong type.
    TypeMismatch,
    /// A worker died or cannot be reached.
    WorkerLost,
}

impl Code {
    /// The code as clients see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::AmbiguousName => "AMBIGUOUS_NAME",
            Code::MissingCatalogName => "MISSING_CATALOG_NAME",
            Code::CatalogNotFound => "CATALOG_NOT_FOUND",
            Code::ColumnNotFound => "COLUMN_NOT_FOUND",
            Code::ConstraintViolation => "CONSTRAINT_VIOLATION",
            Code::CorruptData => "CORRUPT_DATA",
            Code::DepotUnreachable => "DEPOT_UNREACHABLE",
            Code::DivisionByZero => "DIVISION_BY_ZERO",
            Code::ExceededMemoryLimit => "EXCEEDED_MEMORY_LIMIT",
            Code::ExceededRowLimit => "EXCEEDED_ROW_LIMIT",
            Code::ExceededTimeLimit => "EXCEEDED_TIME_LIMIT",
            Code::FunctionNotFound => "FUNCTION_NOT_FOUND",
            Code::GenericInternalError => "GENERIC_INTERNAL_ERROR",
            Code::InsufficientDisk => "INSUFFICIENT_DISK",
            Code::InvalidArgument => "INVALID_ARGUMENT",
            Code::InvalidCastArgument => "INVALID_CAST_ARGUMENT",
            Code::InvalidCredentials => "INVALID_CREDENTIALS",
            Code::InvalidParameter => "INVALID_PARAMETER",
            Code::NotFound => "NOT_FOUND",
            Code::NotSupported => "NOT_SUPPORTED",
            Code::NumericValueOutOfRange => "NUMERIC_VALUE_OUT_OF_RANGE",
            Code::PermissionDenied => "PERMISSION_DENIED",
            Code::PolicyError => "POLICY_ERROR",
            Code::QueryCanceled => "QUERY_CANCELED",
            Code::QueryQueueFull => "QUERY_QUEUE_FULL",
            Code::SchemaNotFound => "SCHEMA_NOT_FOUND",
            Code::SyntaxError => "SYNTAX_ERROR",
            Code::TableAlreadyExists => "TABLE_ALREADY_EXISTS",
            Code::TableChanged => "TABLE_CHANGED",
            Code::TableNotFound => "TABLE_NOT_FOUND",
            Code::TransactionResolutionUnknown => "TRANSACTION_RESOLUTION_UNKNOWN",
            Code::TypeMismatch => "TYPE_MISMATCH",
            Code::WorkerLost => "WORKER_LOST",
        }
    }
}

/// Why a statement did not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryError {
    /// The stable code.
    pub code: Code,
    /// A sentence that names the thing.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Line and column in the statement, from 1.
    pub position: Option<(u64, u64)>,
    /// The query it belongs to.
    pub query_id: Option<String>,
}

/// The result of most functions of this crate.
pub type Result<T, E = QueryError> = std::result::Result<T, E>;

impl QueryError {
    /// An error with a code and a sentence.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
            position: None,
            query_id: None,
        }
    }

    /// Adds what to do about it.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the query's id, unless it has one.
    pub fn with_query_id(mut self, query_id: &str) -> Self {
        self.query_id.get_or_insert_with(|| query_id.to_owned());
        self
    }

    /// Adds where in the statement, unless it is known.
    pub fn with_position(mut self, position: Option<(u64, u64)>) -> Self {
        self.position = self.position.or(position);
        self
    }

    /// "Did you mean" for a wrong name.
    pub fn suggest<'a>(self, wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Self {
        match closest(wanted, candidates) {
            Some(candidate) => {
                let hint = format!("did you mean `{candidate}`?");
                self.with_hint(hint)
            }
            None => self,
        }
    }
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for QueryError {}

impl From<QueryError> for DataFusionError {
    fn from(error: QueryError) -> Self {
        DataFusionError::External(Box::new(error))
    }
}

impl From<ArrowError> for QueryError {
    fn from(error: ArrowError) -> Self {
        from_arrow(&error)
    }
}

impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> Self {
        // What failed below a barrier says nothing but which dataset could not be read.
        if let Some(governed) = GovernedError::of(&error) {
            // What stands in a fence compares and replaces: what leaves the range of a number there is what a user computes outside of it, or a view of the
            // depot by itself. The text has no value of either.
            let depot = minerva_connectors::Error::find(governed.cause()).filter(|_| governed.is_of_statement());
            if let Some(depot) = depot.filter(|depot| depot.kind == ErrorKind::OutOfRange) {
                return QueryError::new(from_connector(depot.kind), depot.to_string());
            }
            tracing::warn!(dataset = %governed.address(), cause = %governed.cause(), "a governed dataset could not be read");
            return QueryError::new(Code::PolicyError, governed.to_string());
        }
        if let Some(lost) = WorkerLost::find(&error) {
            return worker_lost(&lost.to_string());
        }
        classify(&error)
    }
}

/// Finds the code of an error of DataFusion, looking through its wrappings.
fn classify(error: &DataFusionError) -> QueryError {
    match error {
        DataFusionError::Context(context, inner) => {
            let mut found = classify(inner);
            if found.code == Code::GenericInternalError {
                found.message = format!("{context}: {}", found.message);
            }
            found
        }
        DataFusionError::Diagnostic(diagnostic, inner) => {
            let start = diagnostic.span.map(|span| (span.start.line, span.start.column));
            classify(inner).with_position(start)
        }
        DataFusionError::Collection(errors) => match errors.first() {
            Some(first) => classify(first),
            None => QueryError::new(Code::GenericInternalError, "an empty collection of errors"),
        },
        DataFusionError::Shared(inner) => classify(inner),
        DataFusionError::ArrowError(inner, _) => from_arrow(inner),
        DataFusionError::ParquetError(inner) => QueryError::new(Code::CorruptData, clean(&inner.to_string())),
        DataFusionError::ObjectStore(inner) => from_object_store(inner),
        DataFusionError::IoError(inner) => from_io(inner),
        DataFusionError::SQL(inner, _) => from_parser(inner),
        DataFusionError::NotImplemented(text) => QueryError::new(Code::NotSupported, clean(text)),
        DataFusionError::SchemaError(inner, _) => from_schema(inner),
        DataFusionError::Plan(text) => from_plan(text),
        DataFusionError::Configuration(text) => QueryError::new(Code::InvalidArgument, clean(text)),
        DataFusionError::ResourcesExhausted(text) => from_exhausted(text),
        DataFusionError::Execution(text) => from_execution(text),
        DataFusionError::ExecutionJoin(inner) => QueryError::new(Code::GenericInternalError, clean(&inner.to_string())),
        DataFusionError::External(inner) => from_source(inner.as_ref()),
        DataFusionError::Internal(text) => QueryError::new(
            Code::GenericInternalError,
            clean(text.split("\nThis issue was likely").next().unwrap_or(text)),
        ),
        other => QueryError::new(Code::GenericInternalError, clean(&other.to_string())),
    }
}

/// An error that DataFusion carries without knowing it: ours, a connector's, a worker's.
fn from_source(error: &(dyn Error + Send + Sync + 'static)) -> QueryError {
    if let Some(ours) = error.downcast_ref::<QueryError>() {
        return ours.clone();
    }
    if let Some(inner) = error.downcast_ref::<DataFusionError>() {
        return classify(inner);
    }
    if let Some(inner) = error.downcast_ref::<ArrowError>() {
        return from_arrow(inner);
    }
    if let Some(depot) = minerva_connectors::Error::of(error) {
        return QueryError::new(from_connector(depot.kind), depot.to_string());
    }
    if let Some(status) = error.downcast_ref::<tonic::Status>() {
        return match status.code() {
            tonic::Code::Unavailable
            | tonic::Code::Unknown
            | tonic::Code::Cancelled
            | tonic::Code::DeadlineExceeded => worker_lost(status.message()),
            _ => from_execution(status.message()),
        };
    }
    if let Some(io) = error.downcast_ref::<std::io::Error>() {
        return from_io(io);
    }
    if let Some(store) = error.downcast_ref::<datafusion::object_store::Error>() {
        return from_object_store(store);
    }
    // A worker's `External` arrives as its text.
    from_execution(&error.to_string())
}

fn worker_lost(detail: &str) -> QueryError {
    QueryError::new(
        Code::WorkerLost,
        format!("a worker was lost while the query ran: {}", clean(detail)),
    )
    .with_hint("run the query again; `SELECT * FROM system.runtime.nodes` shows which workers are alive")
}

fn from_connector(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::NotFound => Code::TableNotFound,
        ErrorKind::AlreadyExists => Code::TableAlreadyExists,
        ErrorKind::Unreachable | ErrorKind::Busy | ErrorKind::Refused | ErrorKind::Denied => Code::DepotUnreachable,
        ErrorKind::Corrupt | ErrorKind::BadValue => Code::CorruptData,
        ErrorKind::Unsupported => Code::NotSupported,
        ErrorKind::OutOfRange => Code::NumericValueOutOfRange,
        ErrorKind::Changed => Code::TableChanged,
        ErrorKind::Constraint => Code::ConstraintViolation,
        ErrorKind::Uncertain => Code::TransactionResolutionUnknown,
        ErrorKind::Settings => Code::InvalidArgument,
        ErrorKind::Internal => Code::GenericInternalError,
    }
}

fn from_arrow(error: &ArrowError) -> QueryError {
    match error {
        ArrowError::DivideByZero => QueryError::new(Code::DivisionByZero, "division by zero"),
        ArrowError::CastError(text) => QueryError::new(Code::InvalidCastArgument, clean(text)),
        ArrowError::ArithmeticOverflow(text) => QueryError::new(Code::NumericValueOutOfRange, clean(text)),
        ArrowError::ParseError(text) => QueryError::new(Code::InvalidCastArgument, clean(text)),
        ArrowError::CsvError(text)
        | ArrowError::JsonError(text)
        | ArrowError::ParquetError(text)
        | ArrowError::IpcError(text) => QueryError::new(Code::CorruptData, clean(text)),
        ArrowError::IoError(text, inner) => {
            let found = from_io(inner);
            if found.code == Code::GenericInternalError {
                QueryError::new(found.code, clean(text))
            } else {
                found
            }
        }
        ArrowError::NotYetImplemented(text) => QueryError::new(Code::NotSupported, clean(text)),
        ArrowError::InvalidArgumentError(text) => QueryError::new(Code::InvalidArgument, clean(text)),
        ArrowError::ComputeError(text) => QueryError::new(Code::InvalidArgument, clean(text)),
        ArrowError::ExternalError(inner) => from_source(inner.as_ref()),
        other => QueryError::new(Code::GenericInternalError, clean(&other.to_string())),
    }
}

fn from_io(error: &std::io::Error) -> QueryError {
    if let Some(inner) = error.get_ref() {
        return from_source(inner);
    }
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            QueryError::new(Code::InsufficientDisk, "the disk for temporary files is full")
                .with_hint("free space in the temporary folder, or give queries more memory so that they spill less")
        }
        std::io::ErrorKind::NotFound => QueryError::new(Code::CorruptData, "a file vanished while it was read"),
        _ => QueryError::new(Code::GenericInternalError, clean(&error.to_string())),
    }
}

fn from_object_store(error: &datafusion::object_store::Error) -> QueryError {
    match error {
        datafusion::object_store::Error::NotFound { path, .. } => {
            QueryError::new(Code::CorruptData, format!("file `{path}` vanished while it was read"))
                .with_hint("run the query again")
        }
        other => QueryError::new(Code::DepotUnreachable, clean(&other.to_string())),
    }
}

fn from_parser(error: &ParserError) -> QueryError {
    match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => {
            let (text, position) = split_position(text);
            QueryError::new(Code::SyntaxError, clean(text)).with_position(position)
        }
        ParserError::RecursionLimitExceeded => QueryError::new(Code::SyntaxError, "the statement is nested too deeply")
            .with_hint("use fewer nested expressions or subqueries"),
    }
}

/// Takes `... at Line: 1, Column: 8` off a parser's message.
fn split_position(text: &str) -> (&str, Option<(u64, u64)>) {
    let Some((head, tail)) = text.rsplit_once(" at Line: ") else {
        return (text, None);
    };
    let Some((line, column)) = tail.split_once(", Column: ") else {
        return (text, None);
    };
    match (line.trim().parse(), column.trim().parse()) {
        (Ok(line), Ok(column)) => (head, Some((line, column))),
        _ => (text, None),
    }
}

fn from_schema(error: &SchemaError) -> QueryError {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let found = QueryError::new(
                Code::ColumnNotFound,
                format!("column `{}` does not exist", field.flat_name()),
            );
            found.suggest(&field.name, valid_fields.iter().map(|column| column.name.as_str()))
        }
        SchemaError::AmbiguousReference { field } => {
            QueryError::new(Code::AmbiguousName, format!("column `{}` is ambiguous", field.name))
                .with_hint("qualify it with a table's name or alias")
        }
        SchemaError::DuplicateQualifiedField { qualifier, name } => {
            let table: &TableReference = qualifier;
            QueryError::new(
                Code::AmbiguousName,
                format!("column `{name}` of `{table}` appears twice"),
            )
            .with_hint("give one of the tables an alias")
        }
        SchemaError::DuplicateUnqualifiedField { name } => {
            QueryError::new(Code::AmbiguousName, format!("column `{name}` appears twice"))
                .with_hint("give one of the columns an alias")
        }
    }
}

fn from_plan(text: &str) -> QueryError {
    let text = clean(text);
    if text.contains("does not satisfy order requirements")
        || text.contains("does not satisfy distribution requirements")
    {
        // The text holds the whole plan, with what lies below the barriers: it goes neither to the client nor into the log.
        tracing::error!("the plan of a statement is not sound");
        return QueryError::new(Code::GenericInternalError, "no sound plan was found for the statement")
            .with_hint("write the statement in another way, and report it");
    }
    let lower = text.to_lowercase();
    let code = if lower.starts_with("invalid function")
        || lower.contains("no function matches")
        || lower.contains("does not support zero arguments")
    {
        Code::FunctionNotFound
    } else if lower.starts_with("table '") && lower.ends_with("not found") {
        Code::TableNotFound
    } else if lower.contains("placeholder") {
        Code::InvalidParameter
    } else {
        Code::TypeMismatch
    };
    QueryError::new(code, text)
}

fn from_exhausted(text: &str) -> QueryError {
    let lower = text.to_lowercase();
    // Below a barrier there is no disk to spill to.
    if lower.contains("no space left") || (lower.contains("disk") && !lower.contains("memory exhausted")) {
        return QueryError::new(Code::InsufficientDisk, clean(text));
    }
    QueryError::new(Code::ExceededMemoryLimit, clean(text))
        .with_hint("select fewer columns or rows, or raise `query.max-memory` of the cluster")
}

fn from_execution(text: &str) -> QueryError {
    if let Some((kind, text)) = ErrorKind::in_text(text) {
        return QueryError::new(from_connector(kind), clean(text));
    }
    let lower = text.to_lowercase();
    let is = |part: &str| lower.contains(part);
    let code = if is("divide by zero") || is("division by zero") {
        return QueryError::new(Code::DivisionByZero, "division by zero");
    } else if is("no space left on device") {
        Code::InsufficientDisk
    } else if is("error connecting to")
        || is("transport error")
        || is("timed-out while waiting for the plan")
        || is("connection refused")
        || is("broken pipe")
    {
        return worker_lost(text);
    } else if is("cast error") || is("cannot cast") {
        Code::InvalidCastArgument
    } else if is("overflow") {
        Code::NumericValueOutOfRange
    } else if is("policy") && is("dataset") {
        Code::PolicyError
    } else if is("corrupt") || is("parquet error") {
        Code::CorruptData
    } else {
        Code::InvalidArgument
    };
    QueryError::new(code, clean(text))
}

/// One line, without the prefixes that only name our libraries' types.
fn clean(text: &str) -> String {
    const PREFIXES: [&str; 14] = [
        "sql parser error: ",
        "Error during planning: ",
        "Execution error: ",
        "External error: ",
        "Arrow error: ",
        "Parser error: ",
        "Cast error: ",
        "Compute error: ",
        "Invalid argument error: ",
        "This feature is not implemented: ",
        "type_coercion\ncaused by\n",
        "Schema error: ",
        "Optimizer rule ",
        "Arithmetic overflow: ",
    ];
    let mut text = text.trim();
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        text = rest.trim();
    }
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parsers_position_becomes_the_errors() {
        let error = from_parser(&ParserError::ParserError(
            "Expected: an expression, found: FROM at Line: 2, Column: 8".into(),
        ));
        assert_eq!((error.code, error.position), (Code::SyntaxError, Some((2, 8))));
        assert_eq!(error.message, "Expected: an expression, found: FROM");
    }

    #[test]
    fn an_error_of_ours_survives_any_wrapping() {
        let ours = QueryError::new(Code::ExceededTimeLimit, "too slow").with_hint("ask for less");
        let wrapped = DataFusionError::Context("reading".into(), Box::new(DataFusionError::from(ours.clone())));
        assert_eq!(QueryError::from(wrapped), ours);
        let through_arrow = ArrowError::from_external_error(Box::new(DataFusionError::from(ours.clone())));
        assert_eq!(QueryError::from(through_arrow), ours);
    }
}

//! Text to one statement of the allow-list.
//!
//! In: the SQL text of a client. Out: a [`Request`], which says what kind of thing is asked, or a syntax error with its position.
//! Deliberately absent: names and types (the planner's), and every statement that is not in [`Request`]: what is not allowed is refused here.

mod call;
mod kind;
mod session;
pub(crate) mod writing;

use datafusion::sql::{
    parser::{DFParserBuilder, Statement as ParsedStatement},
    sqlparser::{
        ast::{self, ObjectName, ObjectNamePart, Query, Statement},
        parser::Parser,
        tokenizer::{Token, TokenWithSpan, Tokenizer, Word},
    },
};

use crate::{
    dialect::MinervaDialect,
    error::{Code, QueryError, Result},
};

/// How deep expressions and subqueries may be nested.
const RECURSION_LIMIT: usize = 128;
/// The longest statement that is read, in bytes.
const MAX_SQL_BYTES: usize = 16 * 1024 * 1024;

/// What a statement asks for.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    /// Rows: SELECT, VALUES, TABLE, WITH.
    Query(Box<Query>),
    /// The plan of a query.
    Explain { query: Box<Query>, options: ExplainOptions },
    /// A view, of the session or of a depot: its text is planned anew for whoever uses it, each time.
    CreateView {
        name: Vec<String>,
        columns: Vec<String>,
        query: Box<Query>,
        or_replace: bool,
        if_not_exists: bool,
    },
    /// Forgets a view.
    DropView { name: Vec<String>, if_exists: bool },
    /// A new dataset from a query. One that is made of columns has a query that yields them and no rows.
    CreateTableAs {
        name: Vec<String>,
        query: Box<Query>,
        /// Columns that take no NULL.
        not_null: Vec<String>,
        if_not_exists: bool,
    },
    /// More rows for a dataset.
    Insert {
        name: Vec<String>,
        columns: Vec<String>,
        query: Box<Query>,
    },
    /// Removes rows of a dataset.
    Delete(Box<Changed>),
    /// Changes rows of a dataset: the columns, and what they become.
    Update {
        table: Box<Changed>,
        columns: Vec<String>,
        values: Vec<ast::Expr>,
    },
    /// Removes a dataset.
    DropTable { name: Vec<String>, if_exists: bool },
    /// Sets the session's catalog and schema.
    Use { catalog: Option<String>, schema: String },
    /// `SHOW CATALOGS`.
    ShowCatalogs { like: Option<String> },
    /// `SHOW SCHEMAS [FROM catalog]`.
    ShowSchemas {
        catalog: Option<String>,
        like: Option<String>,
    },
    /// `SHOW TABLES [FROM [catalog.]schema]`.
    ShowTables { schema: Vec<String>, like: Option<String> },
    /// `SHOW COLUMNS FROM table`, `DESCRIBE table`.
    ShowColumns { table: Vec<String> },
    /// `SHOW FUNCTIONS`.
    ShowFunctions { like: Option<String> },
    /// `SHOW SESSION`.
    ShowSession { like: Option<String> },
    /// `SET SESSION [catalog.]property = value`.
    SetSession { name: Vec<String>, value: String },
    /// `RESET SESSION [catalog.]property`.
    ResetSession { name: Vec<String> },
    /// `CALL system.runtime.kill_query(query_id => .., message => ..)`.
    KillQuery { query_id: String, message: Option<String> },
    /// `CALL system.refresh(depot => .., collection => ..)`, `REFRESH [depot[.collection]]`: asks depots anew what there is to list.
    Refresh {
        depot: Option<String>,
        collection: Option<String>,
    },
}

/// The rows that a DELETE or UPDATE is about.
#[derive(Debug, Clone)]
pub(crate) struct Changed {
    /// The table.
    pub(crate) name: Vec<String>,
    /// What its columns are qualified with.
    pub(crate) alias: ast::Ident,
    /// Which of its rows; all without it.
    pub(crate) selection: Option<ast::Expr>,
}

/// What an EXPLAIN shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ExplainOptions {
    /// Runs the query and shows what each part did.
    pub(crate) analyze: bool,
    /// Which plan.
    pub(crate) kind: ExplainKind,
    /// How it is written.
    pub(crate) format: ExplainFormat,
}

/// Which plan an EXPLAIN shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ExplainKind {
    /// The plan that runs, in its stages.
    #[default]
    Distributed,
    /// The optimised logical plan.
    Logical,
    /// Only whether the statement is valid.
    Validate,
}

/// How an EXPLAIN is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ExplainFormat {
    /// Indented text.
    #[default]
    Text,
    /// Graphviz's language.
    Graphviz,
    /// A JSON document.
    Json,
}

/// Reads one statement.
///
/// # Errors
/// `SYNTAX_ERROR` with the position; `NOT_SUPPORTED` for what is no request of the allow-list, several statements among them.
pub(crate) fn one_statement(sql: &str) -> Result<Request> {
    if sql.len() > MAX_SQL_BYTES {
        let message = format!(
            "the statement has {} bytes; at most {MAX_SQL_BYTES} are read",
            sql.len()
        );
        return Err(QueryError::new(Code::SyntaxError, message));
    }
    // Names of the engine's own begin with it, and nobody else's may.
    if sql.contains('\0') {
        return Err(QueryError::new(Code::SyntaxError, "the statement has a NUL character").with_hint("leave it out"));
    }
    let dialect = MinervaDialect::default();
    let tokens = Tokenizer::new(&dialect, sql)
        .tokenize_with_location()
        .map_err(|error| {
            let position = (error.location.line, error.location.column);
            QueryError::new(Code::SyntaxError, error.message).with_position(Some(position))
        })?;
    // A statement that ends too early has its error at its end.
    let end = tokens
        .iter()
        .rev()
        .find(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF))
        .map(|token| token.span.end);
    let end = end.map(|end| (end.line, end.column));
    request(numbered(tokens)).map_err(|error| match error.code {
        Code::SyntaxError => error.with_position(end),
        _ => error,
    })
}

fn request(tokens: Vec<TokenWithSpan>) -> Result<Request> {
    let words = significant(&tokens);
    match words.first().map(|word| word.to_uppercase()).as_deref() {
        None => Err(QueryError::new(Code::SyntaxError, "the statement is empty")),
        Some("EXPLAIN") => explain(tokens),
        Some("SHOW") => show(&words),
        Some("CALL") => call::call(tokens),
        Some("REFRESH") => call::refresh(tokens),
        Some(verb @ ("SET" | "RESET")) => session::change(verb, tokens),
        Some(verb) => from_statement(verb, parse(tokens)?),
    }
}

/// Numbers the parameters that are written as `?`, as drivers write them: `$1`, `$2`, ...
fn numbered(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let unnumbered = tokens
        .iter_mut()
        .filter(|token| token.token == Token::Placeholder("?".to_owned()));
    for (number, token) in (1..).zip(unnumbered) {
        token.token = Token::Placeholder(format!("${number}"));
    }
    tokens
}

/// The statement's tokens as text, without white space and comments.
fn significant(tokens: &[TokenWithSpan]) -> Vec<String> {
    tokens
        .iter()
        .map(|token| &token.token)
        .filter(|token| !matches!(token, Token::Whitespace(_) | Token::EOF))
        .map(ToString::to_string)
        .collect()
}

fn parse(tokens: Vec<TokenWithSpan>) -> Result<Statement> {
    let dialect = MinervaDialect::of(tokens.len());
    let mut parser = DFParserBuilder::new(tokens)
        .with_dialect(&dialect)
        .with_recursion_limit(RECURSION_LIMIT)
        .build()?;
    let mut statements = parser.parse_statements()?;
    let first = statements
        .pop_front()
        .ok_or_else(|| QueryError::new(Code::SyntaxError, "the statement is empty"))?;
    if !statements.is_empty() {
        return Err(not_supported("several statements in one text").with_hint("send them one at a time"));
    }
    match first {
        ParsedStatement::Statement(statement) => Ok(*statement),
        ParsedStatement::CopyTo(_) => Err(not_supported("COPY")),
        ParsedStatement::CreateExternalTable(_) => Err(not_supported("CREATE EXTERNAL TABLE")
            .with_hint("declare a depot and apply it; its datasets are tables at once")),
        ParsedStatement::Explain(_) => Err(not_supported("EXPLAIN inside a statement")),
        ParsedStatement::Reset(_) => Err(not_supported("RESET")),
    }
}

fn not_supported(what: &str) -> QueryError {
    QueryError::new(Code::NotSupported, format!("{what} is not supported"))
}

fn from_statement(verb: &str, statement: Statement) -> Result<Request> {
    Ok(match statement {
        Statement::Query(query) => Request::Query(read_only(query)?),
        Statement::CreateView(view) => writing::create_view(view)?,
        Statement::CreateTable(table) => writing::create_table(table)?,
        Statement::Insert(insert) => writing::insert(insert)?,
        Statement::Delete(delete) => writing::delete(delete)?,
        Statement::Update(update) => writing::update(update)?,
        Statement::Drop {
            object_type,
            if_exists,
            names,
            cascade: false,
            purge: false,
            temporary: false,
            table: None,
            ..
        } => {
            let [name] = names.as_slice() else {
                return Err(not_supported("DROP of several things"));
            };
            match object_type {
                ast::ObjectType::Table => Request::DropTable {
                    name: parts(name)?,
                    if_exists,
                },
                ast::ObjectType::View => Request::DropView {
                    name: parts(name)?,
                    if_exists,
                },
                other => return Err(not_supported(&format!("DROP {other}"))),
            }
        }
        Statement::Use(target) => use_target(&target)?,
        Statement::ExplainTable { table_name, .. } => Request::ShowColumns {
            table: parts(&table_name)?,
        },
        _ => return Err(not_supported(verb)),
    })
}

/// Refuses what writes inside a query (`WITH x AS (DELETE ...)`, `SELECT ... INTO`).
fn read_only(query: Box<Query>) -> Result<Box<Query>> {
    fn body(set: &ast::SetExpr) -> Result<()> {
        match set {
            ast::SetExpr::Select(select) if select.into.is_some() => {
                Err(not_supported("SELECT INTO").with_hint("use CREATE TABLE ... AS"))
            }
            ast::SetExpr::Select(_) | ast::SetExpr::Values(_) | ast::SetExpr::Table(_) => Ok(()),
            ast::SetExpr::Query(query) => whole(query),
            ast::SetExpr::SetOperation { left, right, .. } => body(left).and_then(|()| body(right)),
            _ => Err(not_supported("a statement that writes inside a query")),
        }
    }
    fn whole(query: &Query) -> Result<()> {
        if let Some(with) = &query.with {
            for table in &with.cte_tables {
                whole(&table.query)?;
            }
        }
        body(&query.body)
    }
    whole(&query)?;
    Ok(query)
}

/// `EXPLAIN [ANALYZE] [VERBOSE] [(TYPE .., FORMAT ..)] query`, Trino's and PostgreSQL's spellings.
fn explain(tokens: Vec<TokenWithSpan>) -> Result<Request> {
    let dialect = MinervaDialect::of(tokens.len());
    let mut parser = Parser::new(&dialect)
        .with_recursion_limit(RECURSION_LIMIT)
        .with_tokens_with_locations(tokens);
    parser.next_token();
    let mut options = ExplainOptions {
        analyze: take_word(&mut parser, "ANALYZE"),
        ..ExplainOptions::default()
    };
    take_word(&mut parser, "VERBOSE");
    if parser.peek_token().token == Token::LParen && is_option_list(&parser) {
        parser.next_token();
        loop {
            let name = any_word(&mut parser)?;
            let value = match parser.peek_token().token {
                Token::Word(_) => any_word(&mut parser)?,
                _ => String::new(),
            };
            option(&mut options, &name, &value)?;
            match parser.next_token().token {
                Token::Comma => {}
                Token::RParen => break,
                other => {
                    return Err(QueryError::new(
                        Code::SyntaxError,
                        format!("expected `,` or `)` in EXPLAIN's options, found `{other}`"),
                    ));
                }
            }
        }
    }
    let statement = parser.parse_statement().map_err(parser_error)?;
    // A statement may end with one.
    let _ = parser.consume_token(&Token::SemiColon);
    let rest = parser.peek_token();
    if rest.token != Token::EOF {
        let position = Some((rest.span.start.line, rest.span.start.column));
        return Err(QueryError::new(
            Code::SyntaxError,
            format!("expected the end of the statement, found `{}`", rest.token),
        )
        .with_position(position));
    }
    match statement {
        Statement::Query(query) => Ok(Request::Explain {
            query: read_only(query)?,
            options,
        }),
        _ => Err(not_supported("EXPLAIN of anything but a query")),
    }
}

fn is_option_list(parser: &Parser<'_>) -> bool {
    match parser.peek_nth_token(1).token {
        Token::Word(Word {
            value,
            quote_style: None,
            ..
        }) => {
            matches!(value.to_uppercase().as_str(), "TYPE" | "FORMAT" | "ANALYZE" | "VERBOSE")
        }
        _ => false,
    }
}

fn option(options: &mut ExplainOptions, name: &str, value: &str) -> Result<()> {
    match (name, value) {
        ("TYPE", "DISTRIBUTED") => options.kind = ExplainKind::Distributed,
        ("TYPE", "LOGICAL") => options.kind = ExplainKind::Logical,
        ("TYPE", "VALIDATE") => options.kind = ExplainKind::Validate,
        ("FORMAT", "TEXT") => options.format = ExplainFormat::Text,
        ("FORMAT", "GRAPHVIZ") => options.format = ExplainFormat::Graphviz,
        ("FORMAT", "JSON") => options.format = ExplainFormat::Json,
        ("ANALYZE", "" | "TRUE") => options.analyze = true,
        ("VERBOSE", "" | "TRUE" | "FALSE") | ("ANALYZE", "FALSE") => {}
        _ => {
            return Err(QueryError::new(
                Code::InvalidArgument,
                format!("unknown option `{name} {value}` of EXPLAIN"),
            )
            .with_hint("use TYPE DISTRIBUTED, LOGICAL or VALIDATE and FORMAT TEXT, GRAPHVIZ or JSON"));
        }
    }
    Ok(())
}

fn take_word(parser: &mut Parser<'_>, wanted: &str) -> bool {
    let found = matches!(&parser.peek_token().token, Token::Word(word) if word.value.eq_ignore_ascii_case(wanted));
    if found {
        parser.next_token();
    }
    found
}

fn any_word(parser: &mut Parser<'_>) -> Result<String> {
    match parser.next_token().token {
        Token::Word(word) => Ok(word.value.to_uppercase()),
        other => Err(QueryError::new(
            Code::SyntaxError,
            format!("expected an option of EXPLAIN, found `{other}`"),
        )),
    }
}

/// SHOW in Trino's grammar; sqlparser's differs between dialects.
fn show(words: &[String]) -> Result<Request> {
    let words = match words.split_last() {
        Some((last, others)) if last == ";" => others,
        _ => words,
    };
    let what = words.get(1).map(|word| word.to_uppercase()).unwrap_or_default();
    let (of, like) = like_pattern(words.get(2..).unwrap_or_default())?;
    let end = |words: &[String]| match words.first() {
        None => Ok(()),
        Some(word) => Err(unexpected(&format!("the end of SHOW {what}"), word)),
    };
    let from = || match of.split_first() {
        Some((word, name)) if is_word(word, "FROM") || is_word(word, "IN") => name_of(name),
        _ => end(of).map(|()| Vec::new()),
    };
    match what.as_str() {
        "CATALOGS" | "DEPOTS" => end(of).map(|()| Request::ShowCatalogs { like }),
        "SCHEMAS" | "COLLECTIONS" => {
            let mut catalog = from()?;
            let last = catalog.pop();
            match catalog.is_empty() {
                true => Ok(Request::ShowSchemas { catalog: last, like }),
                false => Err(QueryError::new(
                    Code::SyntaxError,
                    format!("expected SHOW {what} FROM catalog"),
                )),
            }
        }
        "TABLES" | "DATASETS" => Ok(Request::ShowTables { schema: from()?, like }),
        "COLUMNS" => {
            let table = from()?;
            if table.is_empty() {
                return Err(QueryError::new(Code::SyntaxError, "expected SHOW COLUMNS FROM table"));
            }
            if like.is_some() {
                return Err(not_supported("LIKE in SHOW COLUMNS").with_hint("select from information_schema.columns"));
            }
            Ok(Request::ShowColumns { table })
        }
        "FUNCTIONS" => end(of).map(|()| Request::ShowFunctions { like }),
        "SESSION" => end(of).map(|()| Request::ShowSession { like }),
        other => Err(not_supported(&format!("SHOW {other}"))
            .with_hint("use SHOW CATALOGS, SCHEMAS, TABLES, COLUMNS, FUNCTIONS or SESSION")),
    }
}

fn is_word(word: &str, wanted: &str) -> bool {
    word.eq_ignore_ascii_case(wanted)
}

fn unexpected(wanted: &str, found: &str) -> QueryError {
    QueryError::new(Code::SyntaxError, format!("expected {wanted}, found `{found}`"))
}

/// What stands before LIKE, and the pattern behind it.
fn like_pattern(words: &[String]) -> Result<(&[String], Option<String>)> {
    let Some(at) = words.iter().position(|word| is_word(word, "LIKE")) else {
        return Ok((words, None));
    };
    let (before, like) = words.split_at(at);
    if let Some(word) = like.get(2) {
        return Err(unexpected("the end of the statement after the pattern of LIKE", word));
    }
    match like.get(1).and_then(|text| text.strip_prefix('\'')?.strip_suffix('\'')) {
        Some(pattern) => Ok((before, Some(pattern.replace("''", "'")))),
        None => Err(QueryError::new(
            Code::SyntaxError,
            "expected a quoted pattern after LIKE",
        )),
    }
}

/// Reads a dotted name, of which the words are all.
fn name_of(words: &[String]) -> Result<Vec<String>> {
    // With blanks between them, so that two names do not become one.
    let text = words.join(" ");
    let dialect = MinervaDialect::default();
    let mut parser = Parser::new(&dialect).try_with_sql(&text).map_err(parser_error)?;
    let name = parser.parse_object_name(false).map_err(parser_error)?;
    match parser.peek_token().token {
        Token::EOF => parts(&name),
        other => Err(unexpected("a dotted name", &other.to_string())),
    }
}

fn use_target(target: &ast::Use) -> Result<Request> {
    let name = match target {
        ast::Use::Catalog(name) | ast::Use::Schema(name) | ast::Use::Database(name) | ast::Use::Object(name) => {
            parts(name)?
        }
        _ => return Err(not_supported("this form of USE").with_hint("use USE catalog.schema or USE schema")),
    };
    match <[String; 2]>::try_from(name) {
        Ok([catalog, schema]) => Ok(Request::Use {
            catalog: Some(catalog),
            schema,
        }),
        Err(name) => match <[String; 1]>::try_from(name) {
            Ok([schema]) => Ok(Request::Use { catalog: None, schema }),
            Err(_) => Err(QueryError::new(
                Code::SyntaxError,
                "expected USE catalog.schema or USE schema",
            )),
        },
    }
}

/// The parts of a name, unquoted ones in lower case.
pub(crate) fn parts(name: &ObjectName) -> Result<Vec<String>> {
    name.0
        .iter()
        .map(|part| match part {
            ObjectNamePart::Identifier(identifier) => Ok(normal(identifier)),
            other => Err(not_supported(&format!("the name `{other}`"))),
        })
        .collect()
}

fn normal(identifier: &ast::Ident) -> String {
    match identifier.quote_style {
        Some(_) => identifier.value.clone(),
        None => identifier.value.to_lowercase(),
    }
}

fn parser_error(error: datafusion::sql::sqlparser::parser::ParserError) -> QueryError {
    QueryError::from(datafusion::error::DataFusionError::from(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of(sql: &str) -> Code {
        one_statement(sql)
            .map(|request| format!("{request:?}"))
            .unwrap_err()
            .code
    }

    #[test]
    fn what_is_not_allowed_is_refused_by_name() {
        for sql in [
            "DELETE FROM t USING s WHERE t.a = s.a",
            "DELETE FROM t RETURNING a",
            "DELETE FROM t LIMIT 1",
            "DELETE FROM t JOIN s ON t.a = s.a",
            "UPDATE t SET a = 1 FROM s",
            "UPDATE t SET a = 1 RETURNING a",
            "UPDATE t SET (a, b) = (1, 2)",
            "UPDATE t JOIN s ON t.a = s.a SET a = 1",
            "INSERT OVERWRITE t SELECT 1",
            "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING",
            "INSERT INTO t VALUES (1) RETURNING a",
            "REPLACE INTO t VALUES (1)",
            "INSERT OR IGNORE INTO t VALUES (1)",
            "CREATE OR REPLACE TABLE t AS SELECT 1",
            "CREATE TABLE t (a INT PRIMARY KEY)",
            "CREATE TABLE t (a INT DEFAULT 1)",
            "CREATE TABLE t (a INT, CHECK (a > 1))",
            "CREATE TABLE t LIKE s",
            "CREATE TABLE t (a INT) WITH (x = 1)",
            "CREATE TEMPORARY TABLE t (a INT)",
            "CREATE MATERIALIZED VIEW v AS SELECT 1",
            "DROP TABLE t CASCADE",
            "WITH x AS (DELETE FROM t) SELECT 1",
            "MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN DELETE",
            "COPY t TO 'x.parquet'",
            "COPY (SELECT 1) TO 'x.csv'",
            "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 'x'",
            "TRUNCATE TABLE t",
            "SET datafusion.optimizer.max_passes = 0",
            "RESET datafusion.optimizer.max_passes",
            "PREPARE p AS SELECT 1",
            "EXPLAIN DELETE FROM t",
            "SELECT 1 INTO t",
            "SELECT 1; SELECT 2",
            "CREATE FUNCTION f() RETURNS INT RETURN 1",
            "DROP SCHEMA s",
            "SET ROLE operator",
            "SET ROLE NONE",
            "SET SESSION AUTHORIZATION root",
            "SET SESSION AUTHORIZATION DEFAULT",
            "RESET ROLE",
            "GRANT SELECT ON t TO jane",
            "REVOKE SELECT ON t FROM jane",
            "CREATE USER eve",
        ] {
            assert_eq!(code_of(sql), Code::NotSupported, "{sql}");
        }
    }

    #[test]
    fn errors_have_a_position() {
        let error = one_statement("SELECT 1\nFROM t WHERE )").unwrap_err();
        assert_eq!(
            (error.code, error.position),
            (Code::SyntaxError, Some((2, 14))),
            "{error:?}"
        );
        assert_eq!(code_of(""), Code::SyntaxError);
        assert_eq!(code_of("-- nothing"), Code::SyntaxError);
        assert_eq!(code_of("SELECT 'abc"), Code::SyntaxError);
        assert_eq!(code_of("CREATE VIEW v AS SELECT 1 AS \"\0raw\""), Code::SyntaxError);
    }

    #[test]
    fn question_marks_become_numbered_parameters() {
        let Request::Query(query) = one_statement("SELECT ?, '?' FROM t WHERE a = ?").unwrap() else {
            panic!("no query")
        };
        assert_eq!(query.to_string(), "SELECT $1, '?' FROM t WHERE a = $2");
    }

    #[test]
    fn explain_takes_trinos_options() {
        let Request::Explain { options, .. } = one_statement("EXPLAIN (TYPE LOGICAL, FORMAT JSON) SELECT 1").unwrap()
        else {
            panic!("no explain")
        };
        assert_eq!(
            (options.kind, options.format, options.analyze),
            (ExplainKind::Logical, ExplainFormat::Json, false)
        );
        let Request::Explain { options, .. } = one_statement("explain analyze select 1").unwrap() else {
            panic!("no explain")
        };
        assert!(options.analyze);
        assert!(
            matches!(one_statement("EXPLAIN (SELECT 1)"), Ok(Request::Explain { .. })),
            "a query in parentheses is no option list"
        );
        assert_eq!(code_of("EXPLAIN (TYPE IO) SELECT 1"), Code::InvalidArgument);
    }

    #[test]
    fn show_takes_names_and_patterns() {
        let Request::ShowTables { schema, like } =
            one_statement("SHOW TABLES FROM air.\"Mixed Case\" LIKE 'fl%'").unwrap()
        else {
            panic!("no show")
        };
        assert_eq!(
            (schema, like.as_deref()),
            (vec!["air".to_owned(), "Mixed Case".to_owned()], Some("fl%"))
        );
    }

    /// Two names are not one, and nothing that follows is passed over.
    #[test]
    fn show_takes_nothing_else() {
        for sql in [
            "SHOW TABLES FROM a b",
            "SHOW TABLES FROM a.b c",
            "SHOW TABLES FROM a . b .",
            "SHOW TABLES FROM",
            "SHOW TABLES a",
            "SHOW TABLES FROM a; SELECT 1",
            "SHOW TABLES LIKE 'x' ESCAPE 'y'",
            "SHOW TABLES FROM a LIKE x",
            "SHOW SCHEMAS FROM a.b",
            "SHOW COLUMNS FROM a b",
            "SHOW COLUMNS",
            "SHOW CATALOGS FROM a",
            "SHOW FUNCTIONS abs",
            "SHOW SESSION LIKE",
        ] {
            assert_eq!(code_of(sql), Code::SyntaxError, "{sql}");
        }
        assert_eq!(code_of("SHOW COLUMNS FROM a LIKE 'x'"), Code::NotSupported);
        let Request::ShowTables { schema, like } = one_statement("show tables in a . b -- here\n;").unwrap() else {
            panic!("no show")
        };
        assert_eq!((schema, like), (vec!["a".to_owned(), "b".to_owned()], None));
        let Request::ShowSchemas { catalog, like } = one_statement("SHOW SCHEMAS FROM \"A b\" LIKE 'it''s';").unwrap()
        else {
            panic!("no show")
        };
        assert_eq!((catalog.as_deref(), like.as_deref()), (Some("A b"), Some("it's")));
    }

    /// Whatever is written inside itself, right or wrong, is read or refused at once.
    #[test]
    fn nesting_takes_no_time() {
        let cases = [
            ("abs(", "1", ")"),
            ("f(x => ", "1", ")"),
            ("f(x, ", "1", ")"),
            ("coalesce(", "1", ", 2)"),
            ("CAST(", "1", " AS INT)"),
            ("CASE WHEN ", "a", " THEN 1 END"),
            ("CASE ", "a", " WHEN 1 THEN 1 END"),
            ("POSITION(", "a", " IN b)"),
            ("EXTRACT(YEAR FROM ", "a", ")"),
            ("SUBSTRING(", "a", " FROM 1)"),
            ("TRIM(", "a", ")"),
            ("(", "a", ")"),
            ("(a, ", "a", ")"),
            ("NOT ", "a", ""),
            ("- ", "a", ""),
            ("a[", "1", "]"),
            ("ARRAY[", "1", "]"),
            ("ARRAY(", "SELECT 1", ")"),
            ("{'a': ", "1", "}"),
            ("STRUCT(", "1", ")"),
            ("INTERVAL ", "'1'", " DAY"),
            ("(SELECT ", "1", ")"),
            ("EXISTS (SELECT ", "1", ")"),
            ("a IN (", "1", ")"),
            ("a IN (SELECT ", "1", ")"),
            ("a BETWEEN ", "1", " AND 2"),
            ("a LIKE ", "b", " ESCAPE 'x'"),
            ("MAP {", "1", ": 2}"),
            ("if(", "a", ", 1, 2)"),
            ("x -> ", "1", ""),
            ("(x) -> ", "1", ""),
            ("f((x) -> ", "1", ")"),
            ("OVERLAY(", "a", " PLACING b FROM 1)"),
            ("ROW(", "1", ")"),
            ("a AT TIME ZONE ", "'x'", ""),
            ("ALL(", "1", ")"),
            ("a = ANY(", "1", ")"),
            ("DATE ", "'1'", ""),
            ("(DATE ", "x", ")"),
            ("MATCH (a) AGAINST (", "b", ")"),
            ("TRY_CAST(", "1", " AS INT)"),
            ("CONVERT(", "1", ", INT)"),
            ("FLOOR(", "1", " TO DAY)"),
            ("sum(", "1", ") OVER (ORDER BY 1)"),
            ("sum(1) OVER (ORDER BY ", "1", ")"),
            ("sum(1) FILTER (WHERE ", "a", ")"),
            ("array_agg(1 ORDER BY ", "a", ")"),
            ("GROUPING SETS (", "a", ")"),
        ];
        let tables = [
            ("(", "a", ")"),
            ("(", "a JOIN b ON c", ")"),
            ("(SELECT * FROM ", "a", ")"),
            ("(a JOIN ", "b", " ON c)"),
            ("(VALUES (1)) AS a JOIN (", "b", ") ON c"),
            ("LATERAL (SELECT * FROM ", "a", ")"),
            ("(TABLE ", "a", ")"),
            ("UNNEST(", "a", ")"),
            ("f(", "a", ")"),
            ("TABLE(", "a", ")"),
        ];
        let mut slow = Vec::new();
        let mut check = |sql: String| {
            // What takes exponential time takes it always; what is slow once may have waited for the processor.
            let once = || {
                let begun = std::time::Instant::now();
                let result = one_statement(&sql).map(drop);
                (begun.elapsed(), result)
            };
            let is_slow = |tried: &(std::time::Duration, _)| tried.0 > std::time::Duration::from_millis(500);
            let tried: Vec<_> = std::iter::repeat_with(once).take(4).take_while(is_slow).collect();
            if let [.., (took, result)] = tried.as_slice()
                && tried.len() == 4
            {
                slow.push(format!("{took:?} {result:?}: {}", sql.get(..60).unwrap_or_default()));
            }
        };
        for depth in [8, 40] {
            for (kind, (before, inside, after)) in cases
                .iter()
                .map(|case| ("SELECT ", case))
                .chain(tables.iter().map(|case| ("SELECT * FROM ", case)))
            {
                let (open, close) = (before.repeat(depth), after.repeat(depth));
                check(format!("{kind}{open}{inside}{close}"));
                // Cut off, with too much, and with something wrong inside.
                check(format!("{kind}{open}{inside}"));
                check(format!("{kind}{open}{inside}{close}{after}"));
                check(format!("{kind}{open}{inside} {inside} %{close}"));
            }
        }
        assert!(slow.is_empty(), "{}", slow.join("\n"));
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_crash() {
        let sql = format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000));
        assert_eq!(code_of(&sql), Code::SyntaxError);
    }
}

//! What kind of statement a request is, in the words of SQL.

use super::Request;

impl Request {
    /// What kind of statement it is, as records have it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Request::Query(_) => "SELECT",
            Request::Explain { options, .. } if options.analyze => "EXPLAIN ANALYZE",
            Request::Explain { .. } => "EXPLAIN",
            Request::CreateView { .. } => "CREATE VIEW",
            Request::DropView { .. } => "DROP VIEW",
            Request::CreateTableAs { .. } => "CREATE TABLE AS SELECT",
            Request::Insert { .. } => "INSERT",
            Request::Delete(_) => "DELETE",
            Request::Update { .. } => "UPDATE",
            Request::DropTable { .. } => "DROP TABLE",
            Request::Use { .. } => "USE",
            Request::ShowCatalogs { .. } => "SHOW CATALOGS",
            Request::ShowSchemas { .. } => "SHOW SCHEMAS",
            Request::ShowTables { .. } => "SHOW TABLES",
            Request::ShowColumns { .. } => "SHOW COLUMNS",
            Request::ShowFunctions { .. } => "SHOW FUNCTIONS",
            Request::ShowSession { .. } => "SHOW SESSION",
            Request::SetSession { .. } => "SET SESSION",
            Request::ResetSession { .. } => "RESET SESSION",
            Request::KillQuery { .. } => "CALL",
            Request::Refresh { .. } => "REFRESH",
        }
    }
}

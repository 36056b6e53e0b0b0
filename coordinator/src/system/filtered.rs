//! Tables of the information schema whose rows are made when it is known which are wanted.
//!
//! In: who asks, and the conditions of the query. Out: the rows of the tables that the conditions name, or more: the query checks them all the same. So
//! `WHERE table_schema = 'x' AND table_name = 'y'` asks a depot for one table, and describing a statement asks it for nothing.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    catalog::{Session as PlanningSession, TableProvider},
    common::ScalarValue,
    datasource::MemTable,
    error::Result as DataFusionResult,
    logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType},
    physical_plan::ExecutionPlan,
};

use super::{SystemTable, in_memory};
use crate::{
    catalog::{Catalog, TableRequest, exactly},
    engine::Snapshot,
    error::Result,
    session::Session,
};

/// A table that lists what is in a catalog.
#[async_trait]
pub(super) trait Listing: SystemTable {
    /// The rows that a request is about.
    async fn rows(&self, door: &Catalog<'_>, request: &TableRequest) -> Result<RecordBatch>;
}

/// A listing of one catalog for one statement.
struct Filtered {
    listing: &'static dyn Listing,
    session: Arc<Session>,
    snapshot: Arc<Snapshot>,
    catalog: String,
}

/// The table of a listing.
pub(super) async fn table(
    listing: &'static dyn Listing,
    door: &Catalog<'_>,
    catalog: &str,
) -> Result<Arc<dyn TableProvider>> {
    let snapshot = door.session().engine().snapshot();
    if !std::ptr::eq(Arc::as_ptr(&snapshot), door.snapshot()) {
        // The statement began under another snapshot, under which everything of it is decided.
        return in_memory(listing.rows(door, &request_of(catalog, &[])).await?);
    }
    Ok(Arc::new(Filtered {
        listing,
        session: door.session().twin(),
        snapshot,
        catalog: catalog.to_owned(),
    }))
}

impl fmt::Debug for Filtered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filtered")
            .field("listing", &self.listing.name())
            .field("catalog", &self.catalog)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for Filtered {
    fn schema(&self) -> SchemaRef {
        self.listing.columns()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        // They only narrow what is looked at.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn PlanningSession,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let door = Catalog::of(&self.session, &self.snapshot);
        let request = request_of(&self.catalog, filters);
        let rows = self.listing.rows(&door, &request).await?;
        let table = MemTable::try_new(rows.schema(), vec![vec![rows]])?;
        table.scan(state, projection, &[], limit).await
    }
}

fn request_of(catalog: &str, filters: &[Expr]) -> TableRequest {
    let pattern = |column| filters.iter().find_map(|filter| pattern_of(filter, column));
    TableRequest {
        catalog: Some(catalog.to_owned()),
        schema_pattern: pattern("table_schema"),
        table_pattern: pattern("table_name"),
        ..TableRequest::default()
    }
}

/// The pattern that a condition demands of a column.
fn pattern_of(filter: &Expr, column: &str) -> Option<String> {
    let is_it = |expr: &Expr| matches!(expr, Expr::Column(found) if found.name == column);
    match filter {
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Eq,
            right,
        }) => match (is_it(left), is_it(right)) {
            (true, false) => text(right).map(exactly),
            (false, true) => text(left).map(exactly),
            _ => None,
        },
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::And,
            right,
        }) => pattern_of(left, column).or_else(|| pattern_of(right, column)),
        Expr::Like(like) if !like.negated && !like.case_insensitive && is_it(&like.expr) => {
            let is_ours = like.escape_char.is_none_or(|escape| escape == '\\');
            text(&like.pattern).filter(|_| is_ours).map(str::to_owned)
        }
        _ => None,
    }
}

fn text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(
            ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) | ScalarValue::LargeUtf8(Some(text)),
            _,
        ) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, lit};

    use super::*;

    #[test]
    fn conditions_narrow_what_is_asked() {
        let name = |filter: Expr| pattern_of(&filter, "table_name");
        assert_eq!(name(col("table_name").eq(lit("a_b"))).as_deref(), Some(r"a\_b"));
        assert_eq!(name(lit("x").eq(col("table_name"))).as_deref(), Some("x"));
        assert_eq!(name(col("table_name").like(lit("fact%"))).as_deref(), Some("fact%"));
        let both = col("table_schema").eq(lit("s")).and(col("table_name").eq(lit("t")));
        assert_eq!(name(both.clone()).as_deref(), Some("t"));
        assert_eq!(pattern_of(&both, "table_schema").as_deref(), Some("s"));
        for none in [
            col("table_name").not_eq(lit("x")),
            col("table_name").not_like(lit("x")),
            col("table_name").ilike(lit("x")),
            col("table_name").eq(col("table_schema")),
            col("table_schema").eq(lit("x")),
            col("table_name").eq(lit("x")).or(col("table_name").eq(lit("y"))),
        ] {
            assert_eq!(name(none.clone()), None, "{none}");
        }
    }
}

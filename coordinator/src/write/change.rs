//! DELETE and UPDATE: the rows that the user sees and means are found by a governed query, and changed by their identity.
//!
//! In: a table, a condition, new values. Out: how many rows were changed. The depot's transaction begins before the rows are read, and from then
//! on nobody else changes them. DataFusion's own planning of these statements is not used: it may drop filters (ARCHITECTURE.md).

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{RecordBatch, RecordBatchOptions},
        datatypes::{DataType, Field, Schema, SchemaRef},
    },
    catalog::TableProvider,
    common::{
        ScalarValue, TableReference,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    datasource::empty::EmptyTable,
    execution::{SessionState, memory_pool::MemoryConsumer},
    logical_expr::{Expr, LogicalPlan},
    sql::{
        parser::Statement as ParsedStatement,
        sqlparser::ast::{Expr as ExprAst, Ident, SelectItem, Statement},
    },
};
use futures::TryStreamExt;
use minerva_connectors::ROW_ID;
use minerva_policy::RAW_PREFIX;

use super::{Writing, check::Check, fit, from_depot, insert::writer, tags};
use crate::{
    catalog::{Catalog, Changed, Deed, Names, Place, Target},
    engine::Snapshot,
    error::{Code, QueryError, Result},
    parse::{self, writing::select},
    query,
    session::Session,
};

/// What the table is called in the query that finds its rows. No statement of a user can name it.
const TARGET: &str = "\0target";

/// What stands before the number of a new value in the query that finds rows.
const NEW_PREFIX: &str = "\0new ";

impl Writing<'_> {
    pub(super) async fn delete(&self, table: &parse::Changed, parameters: Vec<ScalarValue>) -> Result<u64> {
        let catalog = Catalog::of(self.session, self.snapshot);
        let place = catalog.writable(&table.name, Deed::Delete).await?;
        let target = catalog.target(&place).await?;
        self.expect_allowed(table, &[], &[], &place, &target, parameters.clone())
            .await?;
        let address = &place.address;
        let all = target.raw.fields().iter().map(|field| (field.name().as_str(), vec![]));
        catalog.expect_columns(Deed::Delete, address, all)?;
        let change = writer(&place)?
            .change(&address.collection, &address.dataset)
            .await
            .map_err(from_depot)?;
        let target = self.same(&catalog, &place, target).await?;
        let rows = self
            .find(table, &[], &place, &target, change.table(), parameters)
            .await?;
        change.delete(rows).await.map_err(from_depot)
    }

    pub(super) async fn update(
        &self,
        table: &parse::Changed,
        columns: Vec<String>,
        values: Vec<ExprAst>,
        parameters: Vec<ScalarValue>,
    ) -> Result<u64> {
        let catalog = Catalog::of(self.session, self.snapshot);
        let place = catalog.writable(&table.name, Deed::Update).await?;
        let target = catalog.target(&place).await?;
        self.expect_allowed(table, &columns, &values, &place, &target, parameters.clone())
            .await?;
        let address = &place.address;
        let change = writer(&place)?
            .change(&address.collection, &address.dataset)
            .await
            .map_err(from_depot)?;
        let target = self.same(&catalog, &place, target).await?;
        let written = fit::named(&target.schema, &columns)?;
        let rows = self
            .find(table, &values, &place, &target, change.table(), parameters)
            .await?;
        let state = self.session.state(self.snapshot, false);
        let checked: Vec<Field> = (target.governance.filtered_columns().iter())
            .filter_map(|name| target.raw.field_with_name(name).ok().cloned())
            .collect();
        let checked = Arc::new(Schema::new(checked));
        let check = Check::of(address, &target.governance, &checked, &state)?;
        let rows: Result<Vec<RecordBatch>> = (rows.iter())
            .map(|batch| new_rows(batch, &written, &checked, check.as_ref()))
            .collect();
        change.update(rows?).await.map_err(from_depot)
    }

    /// Everything that can be refused without looking at a row. It comes before the table is locked: who is refused keeps nobody waiting, and does
    /// not wait for others. What it finds holds afterwards, since the table's columns are still the same then.
    async fn expect_allowed(
        &self,
        table: &parse::Changed,
        columns: &[String],
        values: &[ExprAst],
        place: &Place,
        target: &Target,
        parameters: Vec<ScalarValue>,
    ) -> Result<()> {
        let address = &place.address;
        let written = fit::named(&target.schema, columns)?;
        let masked = target.governance.masked_columns();
        if let Some(column) = columns.iter().find(|column| masked.contains(*column)) {
            let message = format!("column `{column}` of `{address}` is masked for you, and takes no values of yours");
            return Err(QueryError::new(Code::PermissionDenied, message).with_hint("leave it out of SET"));
        }
        let named = columns.iter().map(|column| (column.as_str(), vec![]));
        Catalog::of(self.session, self.snapshot).expect_columns(Deed::Update, address, named)?;
        let fields = target.raw.fields().iter().map(|field| field.as_ref().clone());
        let identity = Field::new(ROW_ID, DataType::Null, true);
        let schema = Arc::new(Schema::new(fields.chain([identity]).collect::<Vec<_>>()));
        let changed = Catalog::of(self.session, self.snapshot).changed(
            TARGET,
            place,
            target,
            Arc::new(EmptyTable::new(schema)),
        )?;
        let (state, names, plan) = plan(self.session, self.snapshot, table, values, &[], &changed).await?;
        expect_unmasked(&plan, &table.alias, target, place)?;
        // The columns of the query are the identity of the row and the new values.
        let carried: Vec<String> = std::iter::once(String::new()).chain(columns.iter().cloned()).collect();
        let tags = self.lacking(self.carried(&plan, &carried)?, address);
        tags::expect_accepted(&tags, &place.depot)?;
        tags::expect_none_new(&tags, address)?;
        if values.is_empty() {
            return Ok(());
        }
        let planned = query::verified_to_write(self.session, state, names, plan, parameters).await?;
        let found = planned.physical.schema();
        fit::expect_assignable(found.fields().iter().skip(1).map(|field| field.data_type()), &written)
    }

    /// The target once nobody else changes it: it must be what it was when it was decided about.
    async fn same(&self, catalog: &Catalog<'_>, place: &Place, before: Target) -> Result<Target> {
        let now = catalog.target(place).await?;
        match now.raw == before.raw {
            true => Ok(now),
            false => Err(QueryError::new(
                Code::TableChanged,
                format!("the columns of `{}` changed meanwhile", place.address),
            )
            .with_hint("run it again")),
        }
    }

    /// The rows that the user sees and the condition finds, with their identity, the new values, and the raw values that filters are about.
    async fn find(
        &self,
        table: &parse::Changed,
        values: &[ExprAst],
        place: &Place,
        target: &Target,
        raw: Arc<dyn TableProvider>,
        parameters: Vec<ScalarValue>,
    ) -> Result<Vec<RecordBatch>> {
        let catalog = Catalog::of(self.session, self.snapshot);
        let changed = catalog.changed(TARGET, place, target, raw)?;
        let checked: Vec<String> = match (target.governance.is_open(), values.is_empty()) {
            (false, false) => target.governance.filtered_columns().into_iter().collect(),
            _ => Vec::new(),
        };
        let (state, names, plan) = plan(self.session, self.snapshot, table, values, &checked, &changed).await?;
        expect_unmasked(&plan, &table.alias, target, place)?;
        let planned = query::verified_to_write(self.session, state, names, plan, parameters).await?;
        let mut rows = planned.execute(self.session, self.snapshot, self.tracked)?;
        self.tracked.running();
        // They are in memory until the last of them is found: a query that reads what it changes would not find its end.
        let pool = Arc::clone(&self.session.engine().runtime().memory_pool);
        let reservation = MemoryConsumer::new("rows to change").register(&pool);
        let mut found = Vec::new();
        while let Some(batch) = rows.try_next().await? {
            reservation.try_grow(batch.get_array_memory_size())?;
            found.push(batch);
        }
        Ok(found)
    }
}

/// The query that finds rows: `SELECT identity, values, raw values FROM the table WHERE condition`, on this process alone.
async fn plan(
    session: &Session,
    snapshot: &Snapshot,
    table: &parse::Changed,
    values: &[ExprAst],
    raw: &[String],
    changed: &Changed,
) -> Result<(SessionState, Names, LogicalPlan)> {
    let own = |name: String| {
        let column = vec![table.alias.clone(), Ident::with_quote('"', name.clone())];
        SelectItem::ExprWithAlias {
            expr: ExprAst::CompoundIdentifier(column),
            alias: Ident::with_quote('"', name),
        }
    };
    let mut items = vec![own(ROW_ID.to_owned())];
    items.extend(values.iter().enumerate().map(|(at, value)| SelectItem::ExprWithAlias {
        expr: value.clone(),
        alias: Ident::with_quote('"', format!("{NEW_PREFIX}{at}")),
    }));
    items.extend(raw.iter().map(|name| own(format!("{RAW_PREFIX}{name}"))));
    let query = select(items, Some((TARGET, table.alias.clone())), table.selection.clone())?;
    let mut state = session.state(snapshot, false);
    let names = Catalog::of(session, snapshot)
        .changing(changed)
        .resolve(&query, &mut state)
        .await?;
    let statement = ParsedStatement::Statement(Box::new(Statement::Query(query)));
    let plan = state.statement_to_plan(statement).await?;
    Ok((state, names, plan))
}

/// Finds the parameters of a DELETE or UPDATE without beginning a transaction.
pub(super) async fn parameters(
    session: &Session,
    snapshot: &Snapshot,
    table: &parse::Changed,
    values: &[ExprAst],
) -> Result<Vec<(String, DataType)>> {
    let mut items: Vec<SelectItem> = values.iter().cloned().map(SelectItem::UnnamedExpr).collect();
    items.push(SelectItem::UnnamedExpr(ExprAst::Value(
        datafusion::sql::sqlparser::ast::Value::Null.into(),
    )));
    let query = select(items, Some((TARGET, table.alias.clone())), table.selection.clone())?;
    let catalog = Catalog::of(session, snapshot);
    let deed = if values.is_empty() { Deed::Delete } else { Deed::Update };
    let place = catalog.writable(&table.name, deed).await?;
    let target = catalog.target(&place).await?;
    let empty = Arc::new(EmptyTable::new(Arc::clone(&target.raw)));
    let changed = catalog.changed(TARGET, &place, &target, empty)?;
    let mut state = session.state(snapshot, false);
    let _names = catalog.changing(&changed).resolve(&query, &mut state).await?;
    let statement = ParsedStatement::Statement(Box::new(Statement::Query(query)));
    query::parameters_of(&state.statement_to_plan(statement).await?)
}

/// A condition or value may not read a masked column: which rows it finds, and what is written, would tell of more than the mask shows.
fn expect_unmasked(plan: &LogicalPlan, alias: &Ident, target: &Target, place: &Place) -> Result<()> {
    let masked = target.governance.masked_columns();
    if masked.is_empty() {
        return Ok(());
    }
    let alias = match alias.quote_style {
        Some(_) => alias.value.clone(),
        None => alias.value.to_lowercase(),
    };
    let alias = TableReference::bare(alias);
    let mut read = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                if let Expr::Column(column) | Expr::OuterReferenceColumn(_, column) = part
                    && column.relation.as_ref() == Some(&alias)
                    && masked.contains(&column.name)
                {
                    read = Some(column.name.clone());
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    match read {
        None => Ok(()),
        Some(column) => {
            let message = format!(
                "column `{column}` of `{}` is masked for you, and can be used neither in WHERE nor in SET",
                place.address
            );
            let hint = "leave it out, or ask an operator for an exemption from the mask";
            Err(QueryError::new(Code::PermissionDenied, message).with_hint(hint))
        }
    }
}

/// The identity of each row and its new values in the types of the table, once the filters let the changed rows through.
fn new_rows(
    batch: &RecordBatch,
    written: &SchemaRef,
    checked: &SchemaRef,
    check: Option<&Check>,
) -> Result<RecordBatch> {
    let missing = || QueryError::new(Code::GenericInternalError, "a column of the rows to change is missing");
    let (id, found) = (batch.column_by_name(ROW_ID).ok_or_else(missing)?, batch.schema());
    let mut fields = vec![found.field_with_name(ROW_ID).cloned().map_err(|_| missing())?];
    let mut columns = vec![Arc::clone(id)];
    for (at, field) in written.fields().iter().enumerate() {
        let value = batch.column_by_name(&format!("{NEW_PREFIX}{at}")).ok_or_else(missing)?;
        columns.push(fit::fit_column(value, field)?);
        fields.push(field.as_ref().clone());
    }
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let new = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &rows)?;
    if let Some(check) = check {
        let mut columns = Vec::with_capacity(checked.fields().len());
        for field in checked.fields() {
            let changed = new.column_by_name(field.name());
            let raw = || batch.column_by_name(&format!("{RAW_PREFIX}{}", field.name()));
            columns.push(Arc::clone(changed.or_else(raw).ok_or_else(missing)?));
        }
        check.expect_visible(&RecordBatch::try_new_with_options(Arc::clone(checked), columns, &rows)?)?;
    }
    Ok(new)
}

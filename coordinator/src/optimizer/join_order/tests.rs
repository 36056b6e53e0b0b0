//! Orders of joins: which are chosen, and that no row and no column changes with them.

use std::borrow::Cow;

use async_trait::async_trait;
use datafusion::{
    arrow::{
        array::{ArrayRef, Int64Array, RecordBatch},
        datatypes::{DataType, Field, Schema, SchemaRef},
        util::display::{ArrayFormatter, FormatOptions},
    },
    catalog::{MemTable, Session, TableProvider},
    common::{ColumnStatistics, ScalarValue, Statistics, stats::Precision},
    datasource::provider_as_source,
    execution::{SessionState, SessionStateBuilder},
    logical_expr::{LogicalPlanBuilder, TableType},
    physical_plan::{ExecutionPlan, collect},
    physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner},
    prelude::SessionConfig,
};
use minerva_connectors::PushDown;

use super::*;

/// A table that says to have so many rows, and so many values in each column.
#[derive(Debug)]
struct Figured {
    rows: Option<usize>,
    values: Vec<Option<usize>>,
    table: MemTable,
}

impl Figured {
    fn new(rows: Option<usize>, columns: &[(&str, Option<usize>)], data: Vec<ArrayRef>) -> Arc<Figured> {
        let fields: Vec<Field> = columns
            .iter()
            .map(|(name, _)| Field::new(*name, DataType::Int64, true))
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let data = match data.is_empty() {
            true => vec![Arc::new(Int64Array::from(Vec::<i64>::new())) as ArrayRef; columns.len()],
            false => data,
        };
        let batch = RecordBatch::try_new(Arc::clone(&schema), data).unwrap();
        Arc::new(Figured {
            rows,
            values: columns.iter().map(|(_, values)| *values).collect(),
            table: MemTable::try_new(schema, vec![vec![batch]]).unwrap(),
        })
    }
}

#[async_trait]
impl TableProvider for Figured {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn statistics(&self) -> Option<Statistics> {
        let column = |values: &Option<usize>| ColumnStatistics {
            min_value: values.map_or(Precision::Absent, |_| Precision::Exact(ScalarValue::Int64(Some(1)))),
            max_value: values.map_or(Precision::Absent, |values| {
                Precision::Exact(ScalarValue::Int64(Some(values as i64)))
            }),
            ..ColumnStatistics::new_unknown()
        };
        Some(Statistics {
            num_rows: self.rows.map_or(Precision::Absent, Precision::Inexact),
            total_byte_size: Precision::Absent,
            column_statistics: self.values.iter().map(column).collect(),
        })
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.table.scan(session, projection, filters, limit).await
    }

    fn get_logical_plan(&self) -> Option<Cow<'_, LogicalPlan>> {
        None
    }
}

fn state(tables: Vec<(String, Arc<Figured>)>) -> SessionState {
    let config = SessionConfig::new().with_target_partitions(1);
    let state = SessionStateBuilder::new_with_default_features()
        .with_config(config)
        .with_analyzer_rules(crate::optimizer::analyzer_rules())
        .with_optimizer_rules(crate::optimizer::rules())
        .build();
    let catalog = state.catalog_list().catalog("datafusion").unwrap();
    let schema = catalog.schema("public").unwrap();
    for (name, table) in tables {
        schema.register_table(name, table).unwrap();
    }
    state
}

/// Facts of a million rows, things they are about, and kinds of things.
fn star() -> SessionState {
    let table = |name: &str, rows: usize, columns: &[(&str, Option<usize>)]| {
        (name.to_owned(), Figured::new(Some(rows), columns, Vec::new()))
    };
    state(vec![
        table(
            "facts",
            1_000_000,
            &[("a", Some(10_000)), ("b", Some(10_000)), ("c", Some(100)), ("n", None)],
        ),
        table(
            "a",
            10_000,
            &[("id", Some(10_000)), ("kind", Some(100)), ("x", Some(10_000))],
        ),
        table(
            "b",
            10_000,
            &[("id", Some(10_000)), ("kind", Some(100)), ("x", Some(10_000))],
        ),
        table("c", 100, &[("id", Some(100)), ("kind", Some(10)), ("x", Some(100))]),
        table("more", 1_000_000, &[("id", Some(100)), ("x", Some(1_000_000))]),
        (
            "unknown".to_owned(),
            Figured::new(None, &[("id", None), ("kind", None)], Vec::new()),
        ),
    ])
}

fn weighing<T>(run: impl FnOnce(&PushDown<'_>) -> T) -> T {
    run(&PushDown {
        table_of: &|_| None,
        fences: None,
        is_eager: &|_| false,
        reads_only: false,
    })
}

const ALWAYS: Threshold = Threshold { better: 1.0, gain: 0.0 };

async fn optimized(state: &SessionState, sql: &str) -> LogicalPlan {
    let plan = state.create_logical_plan(sql).await.unwrap();
    state.optimize(&plan).unwrap()
}

/// The joins of a plan, in parentheses, by the names of tables.
fn shape(plan: &LogicalPlan) -> String {
    let inputs: Vec<String> = plan.inputs().into_iter().map(shape).collect();
    match plan {
        LogicalPlan::TableScan(scan) => scan.table_name.table().to_owned(),
        LogicalPlan::SubqueryAlias(node) => node.alias.table().to_owned(),
        LogicalPlan::Join(node) if node.join_type == JoinType::Inner => format!("({})", inputs.join(" ")),
        LogicalPlan::Join(node) => format!("({}: {})", node.join_type, inputs.join(" ")),
        _ => inputs.join(" "),
    }
}

/// Which tables the deepest join is of.
fn first_joined(shape: &str) -> Vec<&str> {
    let (_, inner) = shape.rsplit_once('(').unwrap();
    let (inner, _) = inner.split_once(')').unwrap();
    let mut names: Vec<&str> = inner.split(' ').collect();
    names.sort_unstable();
    names
}

/// The joins as they are written and as they are done. The columns are the same.
async fn both(sql: &str) -> (String, String) {
    let before = optimized(&star(), sql).await;
    let after = weighing(|weighing| order_joins(before.clone(), weighing)).unwrap();
    assert_eq!(before.schema(), after.schema(), "{sql}");
    (shape(&before), shape(&after))
}

#[track_caller]
fn stays((before, after): (String, String)) {
    assert_eq!(before, after);
}

#[tokio::test]
async fn a_chain_begins_where_few_rows_are() {
    let (before, after) = both(
        "SELECT count(facts.n) FROM more JOIN facts ON more.id = facts.c JOIN a ON facts.a = a.id JOIN c ON c.id = a.kind WHERE c.x = 7",
    )
    .await;
    assert_eq!(first_joined(&before), ["facts", "more"]);
    assert_eq!(first_joined(&after), ["a", "c"], "{after}");
    assert!(!after.starts_with("((more"), "{after}");
}

#[tokio::test]
async fn a_star_begins_with_what_leaves_least() {
    let (before, after) = both(
        "SELECT sum(facts.n), sum(a.kind) FROM more JOIN facts ON more.id = facts.c JOIN a ON facts.a = a.id JOIN b ON facts.b = b.id \
         WHERE b.x = 3 AND a.x < 9000",
    )
    .await;
    assert_eq!(first_joined(&before), ["facts", "more"]);
    assert_eq!(first_joined(&after), ["b", "facts"], "{after}");
}

#[tokio::test]
async fn tables_meet_by_keys_that_were_written_for_others() {
    let (before, after) =
        both("SELECT sum(m.x), sum(f.n) FROM more m JOIN facts f ON m.id = f.c JOIN c ON c.id = m.id WHERE c.x = 7")
            .await;
    assert_eq!(first_joined(&before), ["f", "m"]);
    assert!(first_joined(&after).contains(&"c"), "{after}");
}

#[tokio::test]
async fn a_table_may_be_joined_to_itself() {
    let (before, after) = both(
        "SELECT f.n, g.n, p.kind, q.kind FROM facts f JOIN facts g ON f.c = g.c JOIN a p ON f.a = p.id JOIN a q ON g.a = q.id \
         WHERE p.x = 1 AND q.x = 2",
    )
    .await;
    assert_eq!(first_joined(&before), ["f", "g"]);
    assert_ne!(before, after);
    assert_ne!(first_joined(&after), ["f", "g"], "{after}");
}

#[tokio::test]
async fn the_written_order_stays_where_nothing_is_gained() {
    stays(both("SELECT count(*) FROM c JOIN a ON c.id = a.kind JOIN facts ON facts.a = a.id WHERE c.x = 7").await);
    // Small tables are read in no time in any order.
    stays(both("SELECT count(*) FROM c JOIN c d ON c.kind = d.kind JOIN c e ON d.id = e.id WHERE e.x = 7").await);
    // Of two inputs there is one order.
    stays(both("SELECT count(*) FROM facts JOIN a ON facts.a = a.id WHERE a.x = 1").await);
}

#[tokio::test]
async fn the_written_order_stays_where_something_is_not_known() {
    stays(
        both(
            "SELECT count(facts.n) FROM more JOIN facts ON more.id = facts.c JOIN unknown a ON facts.a = a.id JOIN c ON c.id = a.kind WHERE c.x = 7",
        )
        .await,
    );
}

#[tokio::test]
async fn nothing_is_moved_over_what_is_no_inner_join() {
    for (sql, kept) in [
        (
            "SELECT count(facts.n) FROM more JOIN facts ON more.id = facts.c LEFT JOIN a ON facts.a = a.id LEFT JOIN c ON c.id = a.kind",
            "facts more",
        ),
        (
            "SELECT count(facts.n) FROM more JOIN facts ON more.id = facts.c FULL JOIN a ON facts.a = a.id FULL JOIN c ON c.id = a.kind",
            "facts more",
        ),
        (
            "SELECT count(facts.n) FROM more JOIN facts ON more.id IS NOT DISTINCT FROM facts.c JOIN a ON facts.a = a.id JOIN c ON c.id = a.kind WHERE c.x = 7",
            "facts more",
        ),
        (
            "SELECT count(facts.n) FROM more JOIN facts ON more.id = facts.c AND facts.n > random() * more.x JOIN a ON facts.a = a.id JOIN c ON c.id = a.kind WHERE c.x = 7",
            "facts more",
        ),
        // For other rows it may fail.
        (
            "SELECT count(facts.n) FROM more JOIN facts ON more.id = facts.c AND facts.n / more.x > 1 JOIN a ON facts.a = a.id JOIN c ON c.id = a.kind WHERE c.x = 7",
            "facts more",
        ),
    ] {
        let (before, after) = both(sql).await;
        let together = |shape: &str| {
            let place = shape.find("facts").unwrap().min(shape.find("more").unwrap());
            let inner = shape[place..].split(')').next().unwrap().to_owned();
            let mut names: Vec<&str> = inner.split(' ').collect();
            names.sort_unstable();
            names.join(" ")
        };
        assert_eq!(together(&before), kept, "{sql}: {before}");
        assert_eq!(together(&after), kept, "{sql}: {after}");
    }
}

#[tokio::test]
async fn what_is_inside_of_other_joins_is_ordered_by_itself() {
    let (before, after) = both(
        "SELECT count(*) FROM b LEFT JOIN (SELECT facts.b, facts.n FROM more JOIN facts ON more.id = facts.c JOIN a ON facts.a = a.id \
         JOIN c ON c.id = a.kind WHERE c.x = 7) t ON b.id = t.b",
    )
    .await;
    assert_eq!(before, "(Left: b t)");
    assert_eq!(after, before);
    let sql = "SELECT count(*) FROM b WHERE b.id IN (SELECT max(facts.n) + max(more.x) + max(a.x) + max(c.kind) FROM more JOIN facts ON more.id = facts.c \
               JOIN a ON facts.a = a.id JOIN c ON c.id = a.kind WHERE c.x = 7 GROUP BY facts.b)";
    let plan = optimized(&star(), sql).await;
    let after = weighing(|weighing| order_joins(plan.clone(), weighing)).unwrap();
    assert_ne!(plan.display_indent().to_string(), after.display_indent().to_string());
}

#[tokio::test]
async fn trees_of_many_inputs_are_ordered_pair_by_pair() {
    let joins: String = (1..14)
        .map(|at| format!(" JOIN a a{at} ON a{at}.id = a{}.kind", at - 1))
        .collect();
    let sql = format!(
        "SELECT count(m.x), max(a13.x) FROM more m JOIN facts f ON m.id = f.c JOIN a a0 ON a0.id = f.a{joins} WHERE a13.x = 7"
    );
    let (before, after) = both(&sql).await;
    assert_eq!(first_joined(&before), ["f", "m"]);
    assert_ne!(first_joined(&after), ["f", "m"], "{after}");
}

#[tokio::test]
async fn the_written_order_stays_where_two_columns_have_one_name() {
    let state = star();
    let table = |name: &str| {
        let catalog = state.catalog_list().catalog("datafusion").unwrap();
        let schema = catalog.schema("public").unwrap();
        let name = name.to_owned();
        async move { schema.table(&name).await.unwrap().unwrap() }
    };
    let scan = |name: &'static str, table| LogicalPlanBuilder::scan(name, provider_as_source(table), None).unwrap();
    let (more, facts) = (table("more").await, table("facts").await);
    let keys = |left: &'static str, right: &'static str| (vec![Column::from(left)], vec![Column::from(right)]);
    let plan = scan("more", Arc::clone(&more))
        .join(
            scan("facts", facts).build().unwrap(),
            JoinType::Inner,
            keys("more.id", "facts.c"),
            None,
        )
        .unwrap()
        .project(vec![
            Expr::Column(Column::from("facts.a")),
            Expr::Column(Column::from("facts.n")),
        ])
        .unwrap()
        .join(
            scan("more", more).build().unwrap(),
            JoinType::Inner,
            keys("facts.a", "more.id"),
            None,
        )
        .unwrap()
        .build()
        .unwrap();
    let after = weighing(|weighing| ordered(plan.clone(), weighing, ALWAYS)).unwrap();
    assert_eq!(shape(&plan), shape(&after));
}

#[test]
fn columns_of_one_input_are_never_one_class() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // Both columns of `a` are equal to the one of `c`: that they are equal to each other must be said as well.
    let sql = "SELECT count(f.n) FROM facts f JOIN a ON f.a = a.id JOIN c ON c.id = a.kind AND c.id = a.x JOIN more m ON m.id = f.c";
    runtime.block_on(async {
        let plan = optimized(&star(), sql).await;
        let after = weighing(|weighing| ordered(plan, weighing, ALWAYS)).unwrap();
        let text = after.display_indent().to_string();
        let keys = text.matches(" = ").count();
        assert!(text.contains("a.x") && text.contains("a.kind") && keys >= 4, "{text}");
    });
}

/// Numbers by chance, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % most.max(1)
    }

    fn table(&mut self, values: usize) -> Arc<Figured> {
        const CLAIMS: [usize; 5] = [1, 30, 1_000, 50_000, 3_000_000];
        let rows = 4 + self.below(9);
        let column = |dice: &mut Dice| {
            let values = (0..rows).map(|_| (dice.below(6) > 0).then(|| dice.below(values) as i64));
            Arc::new(Int64Array::from(values.collect::<Vec<_>>())) as ArrayRef
        };
        let data = (0..3).map(|_| column(self)).collect();
        let claim = |dice: &mut Dice| (dice.below(3) > 0).then(|| CLAIMS[dice.below(5)]);
        let columns = [("x", claim(self)), ("y", claim(self)), ("z", claim(self))];
        Figured::new(Some(CLAIMS[self.below(5)]), &columns, data)
    }

    fn column(&mut self, tables: usize) -> String {
        let table = self.below(tables);
        self.column_of(table)
    }

    fn column_of(&mut self, table: usize) -> String {
        format!("t{table}.{}", ["x", "y", "z"][self.below(3)])
    }

    /// A statement that joins so many tables.
    fn statement(&mut self, tables: usize) -> String {
        let mut from = "t0".to_owned();
        for table in 1..tables {
            let word = match self.below(12) {
                0 => "LEFT JOIN",
                1 => "FULL JOIN",
                _ => "JOIN",
            };
            let (own, other) = (self.column_of(table), self.column(table));
            from.push_str(&format!(" {word} t{table} ON {own} = {other}"));
            if self.below(4) == 0 {
                let (own, other) = (self.column_of(table), self.column(table));
                from.push_str(&format!(" AND {own} = {other}"));
            }
            if self.below(6) == 0 {
                let (own, one, other) = (self.column_of(table), self.column(table), self.column(table));
                from.push_str(&format!(" AND {own} = {one} + {other}"));
            }
            if self.below(6) == 0 && word == "JOIN" {
                let (own, other) = (self.column_of(table), self.column(table));
                from.push_str(&format!(" AND {own} <= {other} + 1"));
            }
        }
        let shown: Vec<String> = (0..3).map(|at| format!("{} AS c{at}", self.column(tables))).collect();
        let mut sql = format!("SELECT {} FROM {from}", shown.join(", "));
        if self.below(3) > 0 {
            sql.push_str(&format!(" WHERE {} < 3", self.column(tables)));
        }
        if self.below(3) == 0 {
            let (one, other) = (self.column(tables), self.column(tables));
            let word = if sql.contains("WHERE") { "AND" } else { "WHERE" };
            sql.push_str(&format!(" {word} ({one} > 1 OR {other} < 2)"));
        }
        if self.below(4) == 0 {
            sql = format!("SELECT c0, count(*), sum(c1) FROM ({sql}) AS d GROUP BY c0");
        }
        sql
    }
}

async fn rows(state: &SessionState, plan: &LogicalPlan) -> Vec<String> {
    let plan = DefaultPhysicalPlanner::default()
        .create_physical_plan(plan, state)
        .await
        .unwrap();
    let batches = collect(plan, state.task_ctx()).await.unwrap();
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in &batches {
        let columns: Vec<ArrayFormatter<'_>> = (batch.columns().iter())
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap())
            .collect();
        for row in 0..batch.num_rows() {
            let values: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
            rows.push(values.join(","));
        }
    }
    rows.sort();
    rows
}

/// The rows of a random statement in both orders, and whether these differ.
async fn compared(seed: u64) -> bool {
    let mut dice = Dice(seed);
    let tables = match dice.below(10) {
        0 => 11 + dice.below(3),
        _ => 3 + dice.below(4),
    };
    // Many tables with few values have very many rows.
    let values = if tables > 6 { 14 } else { 4 };
    let state = state((0..tables).map(|at| (format!("t{at}"), dice.table(values))).collect());
    let sql = dice.statement(tables);
    let before = optimized(&state, &sql).await;
    let after = weighing(|weighing| ordered(before.clone(), weighing, ALWAYS)).unwrap();
    assert_eq!(before.schema(), after.schema(), "{sql}");
    let is_other = shape(&before) != shape(&after);
    assert_eq!(
        rows(&state, &before).await,
        rows(&state, &after).await,
        "seed {seed}: {sql}\n{}",
        after.display_indent()
    );
    is_other
}

#[test]
fn no_order_changes_the_rows() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (mut all, mut others) = (0, 0);
    for seed in 0..400 {
        all += 1;
        others += usize::from(runtime.block_on(compared(seed)));
    }
    assert!(others * 4 > all, "only {others} of {all} were done in another order");
}

//! The shape of statements that hold governed tables, without a server: a barrier of nobody's stands for a policy's.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::datatypes::{Field, Schema};
use datafusion::catalog::TableProvider;
use datafusion::common::{DFSchemaRef, Result};
use datafusion::datasource::provider_as_source;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::{
    Expr, Extension, JoinType, LogicalPlan, LogicalPlanBuilder, UserDefinedLogicalNodeCore, col, lit, when,
};
use minerva_resources::Address;

use super::catalog::{Column, Compared, Locked, Table};
use super::dialect::PostgresRelation;
use super::kind::{Kind, Scalar, Written};
use crate::{Fence, Fences, Opened, PushDown, RemoteTable};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Hash)]
struct Barrier(LogicalPlan);

impl UserDefinedLogicalNodeCore for Barrier {
    fn name(&self) -> &str {
        "Barrier"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.0]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.0.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Barrier")
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Barrier> {
        Ok(Barrier(inputs[0].clone()))
    }
}

#[derive(Default)]
struct Everything(AtomicUsize);

impl Fences for Everything {
    fn open(&self, node: &LogicalPlan) -> Option<Opened> {
        let LogicalPlan::Extension(node) = node else {
            return None;
        };
        Some(Opened {
            number: self.0.fetch_add(1, Ordering::Relaxed),
            address: Address::new("pg", "public", "people"),
            fingerprint: "mine".to_owned(),
            shown: vec![true, false],
            inside: node.node.as_any().downcast_ref::<Barrier>()?.0.clone(),
        })
    }

    fn close(&self, leaf: LogicalPlan, fences: &[Fence], outside: String) -> Result<LogicalPlan> {
        assert!(fences.iter().all(|fence| fence.fingerprint == "mine"));
        assert!(!outside.contains("MATERIALIZED"), "{outside}");
        // What stands over it is one more node.
        Ok(LogicalPlan::Extension(Extension {
            node: Arc::new(Barrier(leaf)),
        }))
    }
}

fn table(name: &str) -> Arc<dyn TableProvider> {
    let columns = [
        ("id", Scalar::Int4),
        ("pay", Scalar::Int4),
        ("name", Scalar::Text),
        ("rating", Scalar::Float8),
    ];
    let column = |scalar: Scalar| Column {
        kind: Kind::One(scalar),
        written: Written::Plain,
        compared: match scalar {
            Scalar::Text => Compared::AsText { own_collation: true },
            Scalar::Float8 => Compared::Not,
            _ => Compared::AsItIs,
        },
        readable: true,
        leads_index: true,
    };
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, scalar)| Field::new(*name, Kind::One(*scalar).arrow(), true))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let known = Table {
        schema: Arc::clone(&schema),
        columns: columns
            .iter()
            .map(|(name, scalar)| ((*name).to_owned(), column(*scalar)))
            .collect::<HashMap<_, _>>(),
        is_view: false,
        rows: None,
        statistics: Arc::default(),
        pages: Vec::new(),
        locked: Locked::Alone,
        has_rows_of_its_own: true,
        computes: true,
    };
    let address = Address::new("pg", "public", name);
    let relation = PostgresRelation::of(&address, &Arc::new(known)).unwrap();
    Arc::new(RemoteTable::new(address, schema).with_relation(Arc::new(relation)))
}

fn scan(name: &str) -> LogicalPlanBuilder {
    LogicalPlanBuilder::scan(name, provider_as_source(table(name)), None).unwrap()
}

/// A table whose pay is hidden and of which rows with small ids are.
fn governed(mask: Expr) -> LogicalPlanBuilder {
    let inside = scan("people").filter(col("people.id").gt(lit(10_i32))).unwrap();
    let inside = inside
        .project([col("people.id"), mask.alias_qualified(Some("people"), "pay")])
        .unwrap();
    let node = Arc::new(Barrier(inside.build().unwrap()));
    LogicalPlanBuilder::from(LogicalPlan::Extension(Extension { node }))
}

fn hidden() -> Expr {
    when(col("people.pay").is_not_null(), lit(0_i32)).end().unwrap()
}

fn pushed(plan: LogicalPlanBuilder) -> String {
    let (fences, open) = (Everything::default(), |table: &dyn TableProvider| {
        Some(self::table(
            table.downcast_ref::<RemoteTable>()?.address().dataset.as_str(),
        ))
    });
    let rule = PushDown {
        table_of: &open,
        fences: Some(&fences),
        is_eager: &|_| true,
    };
    rule.push(plan.build().unwrap()).unwrap().0.display_indent().to_string()
}

const FENCE: &str = "SELECT t.\"id\" AS c0, (CASE WHEN (t.\"pay\" IS NOT NULL) THEN '0'::pg_catalog.int4 END) AS c1 FROM \"public\".\"people\" AS t WHERE (t.\"id\" OPERATOR(pg_catalog.>) '10'::pg_catalog.int4)";

#[test]
fn a_statement_grows_round_a_fence() {
    let small = col("people.pay").lt(lit(5_i32));
    let grouped = governed(hidden()).filter(small).unwrap();
    let grouped = grouped
        .aggregate([col("people.pay")], [count(col("people.id"))])
        .unwrap();
    assert_eq!(
        pushed(grouped),
        format!(
            "Barrier\n  RemoteRead: depot=pg, sql=WITH f0 AS MATERIALIZED ({FENCE}) SELECT f0.c1 AS c0, pg_catalog.count(f0.c0) AS c1 FROM f0 \
             WHERE (f0.c1 OPERATOR(pg_catalog.<) '5'::pg_catalog.int4) GROUP BY f0.c1"
        )
    );
    let counted = governed(hidden())
        .aggregate(Vec::<Expr>::new(), [count(col("people.pay"))])
        .unwrap();
    assert_eq!(
        pushed(counted),
        format!(
            "Barrier\n  RemoteRead: depot=pg, sql=WITH f0 AS MATERIALIZED ({FENCE}) SELECT pg_catalog.count(f0.c1) AS c0 FROM f0"
        )
    );
}

#[test]
fn fences_stand_together_before_the_statement_and_open_tables_do_not() {
    let other = governed(hidden()).alias("other").unwrap().build().unwrap();
    let joined = governed(hidden())
        .join(other, JoinType::Inner, (vec!["people.id"], vec!["other.pay"]), None)
        .unwrap()
        .join(
            scan("open").build().unwrap(),
            JoinType::LeftSemi,
            (vec!["people.id"], vec!["open.id"]),
            None,
        )
        .unwrap();
    let found = pushed(joined);
    let (fences, outside) = found.split_once(") SELECT ").unwrap_or_else(|| panic!("{found}"));
    assert!(found.starts_with(&format!("Barrier\n  RemoteRead: depot=pg, sql=WITH f0 AS MATERIALIZED ({FENCE}), f1 AS MATERIALIZED ({FENCE}) SELECT ")), "{found}");
    assert_eq!(
        fences.matches("\"people\"").count() + outside.matches("\"people\"").count(),
        2,
        "{found}"
    );
    assert!(
        outside.contains("FROM f0) AS l JOIN (SELECT f1.c0") && outside.contains("\"public\".\"open\""),
        "{found}"
    );
    assert!(
        outside.contains("EXISTS (SELECT 1 FROM (SELECT t.\"id\" AS c0"),
        "{found}"
    );
}

#[test]
fn a_barrier_that_cannot_be_rendered_whole_stays() {
    let counted = |plan: LogicalPlanBuilder| {
        let plan = plan.aggregate(Vec::<Expr>::new(), [count(col("people.id"))]).unwrap();
        pushed(plan)
    };
    // Division is not computed there as it is here, and a comparison of floating point numbers is not either.
    for mask in [
        col("people.pay") / lit(2_i32),
        when(col("people.rating").gt(lit(1.5_f64)), lit(1_i32)).end().unwrap(),
    ] {
        let found = counted(governed(mask));
        assert!(!found.contains("RemoteRead") && found.contains("Barrier\n"), "{found}");
    }
    let inside = scan("people")
        .filter(col("people.rating").gt(lit(1.5_f64)))
        .unwrap()
        .build()
        .unwrap();
    let node = Arc::new(Barrier(inside));
    let found = counted(LogicalPlanBuilder::from(LogicalPlan::Extension(Extension { node })));
    assert!(!found.contains("RemoteRead"), "{found}");
    // By itself a fence is worth no statement: the barrier's scan reads in pieces and narrows itself.
    let found = pushed(governed(hidden()));
    assert!(!found.contains("RemoteRead"), "{found}");
}

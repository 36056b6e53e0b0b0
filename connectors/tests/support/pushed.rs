//! Statements over a depot, with as much of them as there is computed by its database, and without.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests stop at the first surprise, and run SQL over what they test"
)]

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::util::pretty::pretty_format_batches;
use datafusion::catalog::TableProvider;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::prelude::{SessionConfig, SessionContext};
use minerva_connectors::{Depots, Error, PushDown, RemotePlanner, ScanExec};

/// The tables of a collection, under their names.
pub(crate) struct Pushed {
    pub(crate) context: SessionContext,
    tables: Vec<Arc<dyn TableProvider>>,
}

/// A plan that has run, as far as it could.
pub(crate) struct Ran {
    pub(crate) statements: Vec<String>,
    pub(crate) nodes: BTreeSet<String>,
    /// How many rows came from the depot.
    pub(crate) sent: usize,
    /// The lines of the rows, sorted.
    pub(crate) rows: Result<String, Error>,
}

impl Pushed {
    pub(crate) async fn new(depots: &Arc<Depots>, depot: &str, collection: &str) -> Pushed {
        let config = SessionConfig::new()
            .set_str("datafusion.sql_parser.dialect", "PostgreSQL")
            .with_target_partitions(2)
            .with_extension(Arc::clone(depots));
        let mut builder = SessionStateBuilder::new().with_default_features().with_config(config);
        let functions = builder.aggregate_functions().get_or_insert_default();
        functions.extend(minerva_cluster::aggregates());
        let context = SessionContext::new_with_state(builder.build());
        let source = depots.open(depot).await.unwrap();
        let mut tables = Vec::new();
        for table in source.datasets(collection).await.unwrap() {
            let provider = source.dataset(collection, &table, &context.state()).await.unwrap();
            let provider = provider.unwrap();
            context.register_table(table, Arc::clone(&provider)).unwrap();
            tables.push(provider);
        }
        Pushed { context, tables }
    }

    /// Makes the table `here`, of which no depot knows.
    pub(crate) async fn here(&self, sql: &str) {
        let rows = self.context.sql(sql).await.unwrap();
        self.context.register_table("here", rows.into_view()).unwrap();
    }

    /// The plan of a statement, pushed down as far as it goes, or not at all.
    pub(crate) async fn plan(&self, sql: &str, is_pushed: bool) -> Arc<dyn ExecutionPlan> {
        let state = self.context.state();
        let plan = self.context.sql(sql).await;
        let plan = plan.unwrap_or_else(|failure| panic!("{sql}: {failure}"));
        let mut plan = state.optimize(&plan.into_unoptimized_plan()).unwrap();
        if is_pushed {
            let same = |found: &dyn TableProvider| {
                let mut tables = self.tables.iter();
                tables.find(|table| std::ptr::addr_eq(table.as_ref(), found)).cloned()
            };
            let pushing = PushDown {
                table_of: &same,
                fences: None,
                is_eager: &|_| true,
                reads_only: false,
            };
            plan = pushing.push(plan).unwrap().0;
        }
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(RemotePlanner)]);
        planner.create_physical_plan(&plan, &state).await.unwrap()
    }

    pub(crate) async fn run(&self, sql: &str, is_pushed: bool) -> Ran {
        let plan = self.plan(sql, is_pushed).await;
        let (mut statements, mut nodes) = (Vec::new(), BTreeSet::new());
        look(&plan, &mut statements, &mut nodes);
        let rows = collect(Arc::clone(&plan), self.context.task_ctx()).await;
        let rows = rows.map_err(|failure| {
            let found = Error::find(&failure);
            found.unwrap_or_else(|| panic!("{sql}: {failure}")).clone()
        });
        let rows = rows.map(|batches| {
            let text = pretty_format_batches(&batches).unwrap().to_string();
            let mut lines: Vec<&str> = text.lines().collect();
            lines.sort_unstable();
            lines.join("\n")
        });
        Ran {
            statements,
            nodes,
            sent: sent(&plan),
            rows,
        }
    }

    /// The whole statement becomes one of the database, which has these parts; at most nodes that do no work stay.
    pub(crate) async fn whole(&self, sql: &str, parts: &[&str]) {
        const STAY: [&str; 6] = [
            "ScanExec",
            "SortExec",
            "SortExec(TopK)",
            "ProjectionExec",
            "GlobalLimitExec",
            // For what is only sent as another type.
            "RepartitionExec",
        ];
        let (with, without) = (self.run(sql, true).await, self.run(sql, false).await);
        let [statement] = with.statements.as_slice() else {
            panic!("{sql} becomes {:?}", with.statements);
        };
        for part in parts {
            assert!(statement.contains(part), "{sql} becomes {statement}, without {part}");
        }
        let mut stays = with.nodes.clone();
        stays.retain(|node| !STAY.contains(&node.as_str()));
        assert!(stays.is_empty(), "{sql} leaves {stays:?}");
        assert_eq!(with.rows.unwrap(), without.rows.unwrap(), "{sql}\n{statement}");
    }

    /// Nothing of it is pushed down but scans, although the rows are the same.
    pub(crate) async fn nothing(&self, sql: &str) {
        let with = self.same(sql).await;
        assert_eq!(with.statements, Vec::<String>::new(), "{sql}");
    }

    /// However much of it is pushed down, the rows are the same.
    pub(crate) async fn same(&self, sql: &str) -> Ran {
        let (with, without) = (self.run(sql, true).await, self.run(sql, false).await);
        assert_eq!(
            with.rows.as_ref().unwrap(),
            without.rows.as_ref().unwrap(),
            "{sql}\n{:?}",
            with.statements
        );
        with
    }
}

fn sent(plan: &Arc<dyn ExecutionPlan>) -> usize {
    let own = plan
        .metrics()
        .filter(|_| plan.is::<ScanExec>())
        .and_then(|metrics| metrics.output_rows());
    own.unwrap_or_default() + plan.children().into_iter().map(sent).sum::<usize>()
}

fn look(plan: &Arc<dyn ExecutionPlan>, statements: &mut Vec<String>, nodes: &mut BTreeSet<String>) {
    nodes.insert(plan.name().to_owned());
    let query = plan
        .downcast_ref::<ScanExec>()
        .and_then(|scan| scan.scan().query.clone());
    if let Some(query) = query {
        statements.push(query.text(None, plan.fetch()));
    }
    for child in plan.children() {
        look(child, statements, nodes);
    }
}

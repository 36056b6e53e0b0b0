//! A small governed lake: Parquet files in a temporary folder, policies from YAML, and sessions that read them.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::error::Result;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::Optimizer;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::physical_plan::{ExecutionPlan, displayable};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::prelude::{SessionConfig, SessionContext};
use minerva_policy::{
    BarrierPlanner, Grants, Leaf, Principal, PushLeakproofThroughBarrier, Rules, Verdict, decide, protect, redact_plan,
};
use minerva_resources::{Address, load_bytes};

/// A row filter, a mask that shows nothing, and a mask that shows an end of the value.
pub(crate) const POLICIES: &str = "
name: everything
version: v1
type: policy
policy:
  access:
    subjects: {tags: ['users:id:**']}
    predicates: [select]
    objects: {paths: ['dataos://**']}
    allow: true
---
name: only-europe
version: v1
type: policy
policy:
  data:
    type: filter
    dataset: people
    selector: {user: {tags: ['users:id:**']}}
    filters: [{column: region, operator: equals, value: EU}]
---
name: no-names
version: v1
type: policy
policy:
  data:
    type: mask
    priority: 10
    dataset: people
    selector: {user: {tags: ['users:id:**']}, column: {names: [name]}}
    mask: {operator: redact}
---
name: ends-of-letters
version: v1
type: policy
policy:
  data:
    type: mask
    priority: 10
    dataset: people
    selector: {user: {tags: ['users:id:**']}, column: {names: [letter]}}
    mask: {operator: partial, partial: {keep_last: 2, with: '*'}}
";

/// What stands only in hidden rows and hidden cells.
pub(crate) const CANARY: &str = "canary";

pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) session: SessionContext,
    pub(crate) grants: Grants,
}

/// How hidden data differs between two worlds that a user must not be able to tell apart.
#[derive(Clone, Copy)]
pub(crate) struct Hidden {
    /// Goes into every hidden cell.
    pub(crate) salt: i64,
    /// How many hidden rows there are for each visible one in ten.
    pub(crate) copies: i64,
}

pub(crate) const HIDDEN: Hidden = Hidden { salt: 0, copies: 1 };

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(HIDDEN, SessionConfig::new().with_target_partitions(2)).await
    }

    pub(crate) async fn with(hidden: Hidden, config: SessionConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_tables(folder.path(), hidden);
        let session = SessionContext::new_with_state(state(config).build());
        let mut world = Self {
            folder,
            session,
            grants: Grants::default(),
        };
        world.open().await;
        world
    }

    /// Registers the three tables as one principal may see them.
    pub(crate) async fn open(&mut self) {
        for name in ["people", "orders", "shops"] {
            let raw = self.raw(name).await;
            let (table, grant) = govern(name, raw);
            self.grants.add(address(name), &grant);
            self.session.register_table(name, table).unwrap();
        }
    }

    /// The raw table, as no user reaches it.
    pub(crate) async fn raw(&self, name: &str) -> Arc<dyn TableProvider> {
        let url = ListingTableUrl::parse(self.folder.path().join(name).to_str().unwrap()).unwrap();
        let options = ListingOptions::new(Arc::new(ParquetFormat::default())).with_file_extension("parquet");
        let config = ListingTableConfig::new(url).with_listing_options(options);
        let config = config.infer_schema(&self.session.state()).await.unwrap();
        Arc::new(ListingTable::try_new(config).unwrap())
    }

    pub(crate) async fn plan(&self, sql: &str) -> Arc<dyn ExecutionPlan> {
        self.session
            .sql(sql)
            .await
            .unwrap()
            .create_physical_plan()
            .await
            .unwrap()
    }

    /// The whole physical plan, as no user sees it.
    pub(crate) async fn text(&self, sql: &str) -> String {
        displayable(self.plan(sql).await.as_ref()).indent(true).to_string()
    }

    /// The physical plan as the user sees it.
    pub(crate) async fn shown(&self, sql: &str) -> String {
        let text = displayable(redact_plan(&self.plan(sql).await).unwrap().as_ref())
            .indent(true)
            .to_string();
        text.replace(self.folder.path().to_str().unwrap().trim_start_matches('/'), "")
    }

    pub(crate) async fn run(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        self.session.sql(sql).await?.collect().await
    }

    /// The rows as sorted text, or the error's text.
    pub(crate) async fn answer(&self, sql: &str) -> std::result::Result<Vec<String>, String> {
        rows(&self.run(sql).await.map_err(|error| error.to_string())?)
    }

    /// Which table a file belongs to: the folder under the root.
    pub(crate) fn leaf(node: &dyn ExecutionPlan) -> Leaf {
        let text = displayable(node).one_line().to_string();
        let tables = ["people", "orders", "shops"]
            .iter()
            .filter(|name| text.contains(&format!("/{name}/")));
        let addresses: Vec<Address> = tables.map(|name| address(name)).collect();
        if addresses.is_empty() {
            Leaf::Unknown(node.name().to_owned())
        } else {
            Leaf::Dataset(addresses)
        }
    }
}

pub(crate) fn rows(batches: &[RecordBatch]) -> std::result::Result<Vec<String>, String> {
    let text = datafusion::arrow::util::pretty::pretty_format_batches(batches).map_err(|error| error.to_string())?;
    let mut lines: Vec<String> = text.to_string().lines().map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

pub(crate) fn address(name: &str) -> Address {
    Address::new("lake", "main", name)
}

pub(crate) fn rules() -> Rules {
    let set = load_bytes(Path::new("test.yaml"), POLICIES.as_bytes().to_vec(), &[]).unwrap();
    Rules::compile(&set).unwrap()
}

/// The table that jane may read, and the fingerprint of what governs it.
pub(crate) fn govern(name: &str, raw: Arc<dyn TableProvider>) -> (Arc<dyn TableProvider>, String) {
    let jane = Principal::new("jane", [], BTreeMap::new());
    let Verdict::Allow(governance) = decide(&rules(), &jane, &address(name), &raw.schema()) else {
        panic!("jane may read everything");
    };
    (
        protect(&address(name), &governance, raw).unwrap(),
        governance.fingerprint.clone(),
    )
}

/// A session as the coordinator makes it: the rule after `push_down_filter`, and a planner that knows barriers.
pub(crate) fn state(config: SessionConfig) -> SessionStateBuilder {
    let mut rules = Optimizer::new().rules;
    let after = rules.iter().position(|rule| rule.name() == "push_down_filter").unwrap() + 1;
    rules.insert(after, Arc::new(PushLeakproofThroughBarrier));
    SessionStateBuilder::new()
        .with_default_features()
        .with_config(config)
        .with_query_planner(Arc::new(Planner))
        .with_optimizer_rules(rules)
}

#[derive(Debug)]
struct Planner;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(BarrierPlanner)]);
        planner.create_physical_plan(plan, session).await
    }
}

/// `people`: one row in ten is hidden, and has `key` 3 and a `code` that is no number. `orders`: 200 rows of them.
/// `shops`: 100,000 rows, a larger table than `people`.
fn write_tables(root: &Path, hidden: Hidden) {
    for file in 0..2 {
        let ids: Vec<(i64, i64)> = (file * 5000..(file + 1) * 5000)
            .flat_map(|id| (0..if id % 10 == 3 { hidden.copies } else { 1 }).map(move |copy| (id, copy)))
            .collect();
        write(root, "people", file, &people(&ids, hidden.salt));
    }
    write(root, "orders", 0, &numbers(200, 50));
    write(root, "shops", 0, &numbers(100_000, 1));
}

fn people(ids: &[(i64, i64)], salt: i64) -> RecordBatch {
    let text = |make: &dyn Fn(i64, bool) -> String| {
        Arc::new(StringArray::from(
            ids.iter().map(|(id, _)| make(*id, id % 10 == 3)).collect::<Vec<_>>(),
        ))
    };
    let number = |make: &dyn Fn(i64, bool) -> i64| {
        Arc::new(Int64Array::from(
            ids.iter().map(|(id, _)| make(*id, id % 10 == 3)).collect::<Vec<_>>(),
        ))
    };
    let strings = ["name", "letter", "code", "region", "remark"];
    let fields = ["id", "key", "amount"].map(|name| Field::new(name, DataType::Int64, name != "id"));
    let fields = fields
        .into_iter()
        .chain(strings.map(|name| Field::new(name, DataType::Utf8, true)));
    let columns: Vec<datafusion::arrow::array::ArrayRef> = vec![
        number(&|id, _| id),
        number(&|id, _| id % 10),
        number(&|id, hidden| if hidden { id + 100_000 + salt } else { id }),
        text(&|id, _| format!("{CANARY}-name-{id}-{salt}")),
        text(&|id, _| format!("{CANARY}-letter-{}-{:02}", salt % 10, id % 100)),
        text(&|id, hidden| {
            if hidden {
                format!("{CANARY}-{salt}")
            } else {
                id.to_string()
            }
        }),
        text(&|_, hidden| if hidden { "US".to_owned() } else { "EU".to_owned() }),
        text(&|id, hidden| {
            if hidden {
                format!("{CANARY} remark of a hidden row {id}")
            } else {
                format!("what everybody may read of {id}")
            }
        }),
    ];
    RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns).unwrap()
}

fn numbers(count: i64, step: i64) -> RecordBatch {
    let schema = Schema::new(
        ["id", "number"]
            .map(|name| Field::new(name, DataType::Int64, false))
            .to_vec(),
    );
    let ids = Int64Array::from_iter_values((0..count).map(|id| id * step));
    let numbers = Int64Array::from_iter_values(0..count);
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(ids), Arc::new(numbers)]).unwrap()
}

fn write(root: &Path, table: &str, file: i64, batch: &RecordBatch) {
    let folder = root.join(table);
    std::fs::create_dir_all(&folder).unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(1000))
        .build();
    let file = File::create(folder.join(format!("{file}.parquet"))).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

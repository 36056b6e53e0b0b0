//! The suite that every connector's test calls.
//!
//! In: a depot that holds the tables of [`samples`]. Out: everything in which it differs from what DataFusion says of
//! the same rows in memory. A connector declares what it does; what it does not do must be refused in so many words.
//!
//! It puts no data into depots that cannot be written: their tests do that.

mod names;
mod sample;
mod server;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{cast, concat_batches, sort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, TableProviderFilterPushDown, lit};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, collect, displayable, execute_stream};
use datafusion::prelude::{SessionConfig, ident};
use futures::StreamExt;
use minerva_resources::Address;

pub use sample::{Sample, samples};
pub use server::{TestServer, check_server};

use crate::{
    Depots, Error, ErrorKind, LeafSource, Scan, ScanExec, ScanFilter, Source, decode_scan, encode_scan, leaf_addresses,
    split, unpushed,
};

/// A depot under test and what its connector declares.
#[derive(Debug)]
pub struct Subject {
    /// The depots of the process.
    pub depots: Arc<Depots>,
    /// The depot.
    pub depot: String,
    /// The collection that holds the samples.
    pub collection: String,
    /// The samples, as far as the depot can hold them.
    pub samples: Vec<Sample>,
    /// Whether tables can be made and rows added.
    pub writes: bool,
}

/// What a depot does wrong.
#[derive(Debug)]
pub struct Failure(pub String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure(error.to_string())
    }
}

type Check = Result<(), Failure>;

/// Filters are tried on so many columns of a table.
const FILTERED_COLUMNS: usize = 10;

/// Runs the whole suite and returns what failed: nothing, when the depot conforms.
pub async fn check(subject: &Subject) -> Vec<Failure> {
    let mut failures = Vec::new();
    let mut note = |name: &str, result: Check| {
        if let Err(Failure(message)) = result {
            failures.push(Failure(format!("{name}: {message}")));
        }
    };
    note("names", names::names(subject).await);
    note("writes", writes(subject).await);
    for sample in &subject.samples {
        let about = |check: &str| format!("{check} of `{}`", sample.name);
        note(&about("rows"), reads_all_rows(subject, sample).await);
        note(&about("projections"), projections(subject, sample).await);
        note(&about("limits"), limits(subject, sample).await);
        note(&about("filters"), filters(subject, sample).await);
        note(&about("simplified filters"), simplified_filters(subject, sample).await);
        note(
            &about("rows without push-down"),
            without_push_down(subject, sample).await,
        );
        note(&about("statistics"), statistics(subject, sample).await);
        note(&about("leaf"), leaves_are_traced(subject, sample).await);
        note(&about("splits"), splits(subject, sample).await);
        note(&about("stopping"), stopping(subject, sample).await);
        note(&about("narrowing"), narrowing(subject, sample).await);
    }
    failures
}

/// Tables can be made, grown and removed; or each of it is refused.
async fn writes(subject: &Subject) -> Check {
    let source = subject.source().await?;
    let (collection, dataset) = (subject.collection.as_str(), "conformance writes");
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]));
    let rows = sample::numbers(&schema, 3)?;
    let Some(writer) = source.writer() else {
        return expect(!subject.writes, "it cannot be written to, and should be");
    };
    expect(subject.writes, "it can be written to, and should not be")?;
    let kind = |failure: Result<u64, DataFusionError>| {
        failure
            .err()
            .and_then(|failure| Error::find(&failure).map(|error| error.kind))
    };
    let stream = |batches| stream_of(&schema, batches);
    expect(
        writer.create(collection, dataset, stream(vec![rows.clone()])).await? == 3,
        "CREATE TABLE does not count its rows",
    )?;
    expect(
        kind(writer.create(collection, dataset, stream(Vec::new())).await) == Some(ErrorKind::AlreadyExists),
        "a table was made twice",
    )?;
    expect(
        writer.append(collection, dataset, stream(vec![rows.clone()])).await? == 3,
        "INSERT does not count its rows",
    )?;
    // What fails in its middle leaves nothing.
    let fails = || {
        let failure = Err(DataFusionError::Execution("the rows end".to_owned()));
        let batches = futures::stream::iter([Ok(rows.clone()), failure]);
        let stream: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), batches));
        stream
    };
    let appended = writer.append(collection, dataset, fails()).await;
    expect(appended.is_err(), "a failure among the rows was lost")?;
    let created = writer.create(collection, "conformance fails", fails()).await;
    expect(created.is_err(), "a failure among the rows was lost")?;
    expect(
        !source
            .datasets(collection)
            .await?
            .contains(&"conformance fails".to_owned()),
        "a table that failed is there",
    )?;
    let written = Sample {
        name: dataset.to_owned(),
        key: "id".to_owned(),
        rows: sample::repeated(&schema, 3)?,
    };
    reads_all_rows(subject, &written).await?;
    expect(
        writer.remove(collection, dataset).await?,
        "a table that was there was not removed",
    )?;
    expect(!writer.remove(collection, dataset).await?, "a table was removed twice")?;
    expect(
        kind(writer.append(collection, dataset, stream(Vec::new())).await) == Some(ErrorKind::NotFound),
        "rows were added to a table that is gone",
    )?;
    // What the depot holds it also takes, value by value.
    for sample in &subject.samples {
        let copy = Sample {
            name: format!("copy of {}", sample.name),
            ..sample.clone()
        };
        let stored = writer.stored(&sample.rows.schema())?;
        let columns = sample.rows.columns().iter().zip(stored.fields());
        let columns: Result<Vec<ArrayRef>, _> =
            columns.map(|(column, field)| cast(column, field.data_type())).collect();
        let rows = RecordBatch::try_new(Arc::clone(&stored), columns?)?;
        let written = writer
            .create(collection, &copy.name, stream_of(&stored, vec![rows]))
            .await?;
        expect(
            written == sample.rows.num_rows() as u64,
            "a copy does not count its rows",
        )?;
        reads_all_rows(subject, &copy)
            .await
            .map_err(|Failure(message)| Failure(format!("`{}`: {message}", copy.name)))?;
        expect(writer.remove(collection, &copy.name).await?, "a copy was not removed")?;
    }
    Ok(())
}

/// Batches as a stream.
pub fn stream_of(schema: &SchemaRef, batches: Vec<RecordBatch>) -> SendableRecordBatchStream {
    let batches = futures::stream::iter(batches.into_iter().map(Ok));
    Box::pin(RecordBatchStreamAdapter::new(Arc::clone(schema), batches))
}

async fn reads_all_rows(subject: &Subject, sample: &Sample) -> Check {
    let found = subject.run(subject.table(&sample.name).await?, None, &[], None).await?;
    same_rows(&sample.key, &sample.rows, &found, "all rows")
}

async fn projections(subject: &Subject, sample: &Sample) -> Check {
    let columns = sample.rows.num_columns();
    for projection in [vec![0], (0..columns).rev().collect(), vec![columns - 1, 0], Vec::new()] {
        let plan = subject
            .table(&sample.name)
            .await?
            .scan(&subject.session(), Some(&projection), &[], None)
            .await?;
        let found = subject.collect(plan).await?;
        let expected = sample.rows.project(&projection)?;
        expect(
            found.num_rows() == expected.num_rows(),
            &format!("columns {projection:?} have another number of rows"),
        )?;
        if expected.column_by_name(&sample.key).is_some() {
            same_rows(&sample.key, &expected, &found, &format!("columns {projection:?}"))?;
        }
    }
    Ok(())
}

async fn limits(subject: &Subject, sample: &Sample) -> Check {
    for limit in [0, 1, 2, 100, 1 << 40] {
        let table = subject.table(&sample.name).await?;
        let found = subject.run(table, None, &[], Some(limit)).await?.num_rows();
        let expected = sample.rows.num_rows().min(limit);
        expect(
            found == expected,
            &format!("LIMIT {limit} gives {found} rows, expected {expected}"),
        )?;
    }
    Ok(())
}

async fn filters(subject: &Subject, sample: &Sample) -> Check {
    let reference: Arc<dyn TableProvider> = Arc::new(MemTable::try_new(
        sample.rows.schema(),
        vec![vec![sample.rows.clone()]],
    )?);
    for filter in predicates(&sample.rows.schema(), &sample.key) {
        let expected = subject
            .run(Arc::clone(&reference), None, std::slice::from_ref(&filter), None)
            .await?;
        let table = subject.table(&sample.name).await?;
        let found = subject
            .run(Arc::clone(&table), None, std::slice::from_ref(&filter), None)
            .await?;
        same_rows(&sample.key, &expected, &found, &format!("rows with {filter}"))?;
        let few = subject
            .run(table, None, std::slice::from_ref(&filter), Some(2))
            .await?
            .num_rows();
        expect(
            few == expected.num_rows().min(2),
            &format!("LIMIT 2 with {filter} gives {few} rows"),
        )?;
    }
    Ok(())
}

/// A filter that a table promises to apply may be simplified before it gets it, into one that it knows or not: it is applied all the same.
async fn simplified_filters(subject: &Subject, sample: &Sample) -> Check {
    let key = ident(&sample.key);
    let promised = key.clone().is_not_null();
    let table = subject.table(&sample.name).await?;
    if table.supports_filters_pushdown(&[&promised])? != [TableProviderFilterPushDown::Exact] {
        return Ok(());
    }
    let null = Expr::Literal(ScalarValue::Boolean(None), None);
    let strange = promised.clone().is_not_true();
    for (filter, expected) in [
        (lit(false), 0),
        (null, 0),
        (lit(true), sample.rows.num_rows()),
        (strange, 0),
    ] {
        for projection in [None, Some(Vec::new())] {
            let filters = [promised.clone(), filter.clone()];
            let plan = table
                .scan(&subject.session(), projection.as_ref(), &filters, None)
                .await?;
            let found = subject.collect(plan).await?;
            expect(
                found.num_rows() == expected,
                &format!(
                    "{filter} leaves {} rows of columns {projection:?}, expected {expected}",
                    found.num_rows()
                ),
            )?;
        }
    }
    Ok(())
}

/// With push-down switched off the rows are the same, and the source is asked for all of them.
async fn without_push_down(subject: &Subject, sample: &Sample) -> Check {
    let reference: Arc<dyn TableProvider> = Arc::new(MemTable::try_new(
        sample.rows.schema(),
        vec![vec![sample.rows.clone()]],
    )?);
    for filter in predicates(&sample.rows.schema(), &sample.key) {
        let filters = std::slice::from_ref(&filter);
        let expected = subject.run(Arc::clone(&reference), None, filters, None).await?;
        let table = unpushed(subject.table(&sample.name).await?);
        let plan = subject.plan(table, None, filters, Some(1 << 40)).await?;
        for leaf in leaves(&plan) {
            let shown = displayable(leaf.as_ref()).one_line().to_string();
            let asked = ["filters=", "predicate="].iter().any(|part| shown.contains(part));
            expect(!asked, &format!("{filter} is pushed down all the same: {shown}"))?;
            let limited = leaf.is::<ScanExec>() && leaf.fetch().is_some();
            expect(!limited, &format!("a limit is pushed down all the same: {shown}"))?;
        }
        let found = subject.collect(plan).await?;
        same_rows(
            &sample.key,
            &expected,
            &found,
            &format!("rows with {filter} without push-down"),
        )?;
    }
    Ok(())
}

async fn statistics(subject: &Subject, sample: &Sample) -> Check {
    let rows = subject
        .table(&sample.name)
        .await?
        .statistics()
        .map(|statistics| statistics.num_rows);
    if let Some(datafusion::common::stats::Precision::Exact(rows)) = rows {
        expect(
            rows == sample.rows.num_rows(),
            &format!("{rows} rows are claimed to be exact"),
        )?;
    }
    Ok(())
}

/// The leaves of its plans lead back to its address, so that policies can be checked on finished plans.
async fn leaves_are_traced(subject: &Subject, sample: &Sample) -> Check {
    let plan = subject
        .table(&sample.name)
        .await?
        .scan(&subject.session(), None, &[], None)
        .await?;
    let address = Address::new(&subject.depot, &subject.collection, &sample.name);
    for leaf in leaves(&plan) {
        match leaf_addresses(leaf.as_ref(), &subject.depots) {
            LeafSource::Dataset(addresses) => {
                expect(addresses.contains(&address), &format!("traced to {addresses:?}"))?
            }
            LeafSource::NoData if sample.rows.num_rows() == 0 => {}
            other => return Err(Failure(format!("its leaf {} is traced to {other:?}", leaf.name()))),
        }
    }
    Ok(())
}

/// Dealt to workers and sent over the wire, every row is read once.
async fn splits(subject: &Subject, sample: &Sample) -> Check {
    let plan = subject
        .table(&sample.name)
        .await?
        .scan(&subject.session(), None, &[], None)
        .await?;
    for leaf in leaves(&plan) {
        let Some(scan) = leaf.downcast_ref::<ScanExec>() else {
            continue;
        };
        for tasks in [1, 3] {
            let mut batches = Vec::new();
            for variant in split(scan, tasks) {
                let received: Arc<dyn ExecutionPlan> = Arc::new(decode_scan(&encode_scan(&variant)?)?);
                batches.push(subject.collect(received).await?);
            }
            same_rows(
                &sample.key,
                &sample.rows,
                &concat_batches(&scan.schema(), &batches)?,
                &format!("{tasks} tasks"),
            )?;
        }
    }
    Ok(())
}

/// A reader may leave at any time, and the next one gets everything.
async fn stopping(subject: &Subject, sample: &Sample) -> Check {
    let session = subject.session();
    let plan = subject
        .table(&sample.name)
        .await?
        .scan(&session, None, &[], None)
        .await?;
    let mut stream = execute_stream(Arc::clone(&plan), session.task_ctx())?;
    if let Some(batch) = stream.next().await {
        batch?;
    }
    drop(stream);
    drop(execute_stream(plan, session.task_ctx())?);
    reads_all_rows(subject, sample).await
}

/// Filters that tell rows apart, some of which sources apply themselves.
/// Who has not asked for a table before, as a worker has not, tells it as much of what joins learn as who has.
async fn narrowing(subject: &Subject, sample: &Sample) -> Check {
    let table = subject.table(&sample.name).await?;
    let scan = Scan {
        address: Address::new(&subject.depot, &subject.collection, &sample.name),
        schema: table.schema(),
        filters: Vec::new(),
        limit: None,
        snapshot: None,
        query: None,
    };
    let filters = [ScanFilter::IsNotNull(sample.key.clone())];
    let told = async |source: Arc<dyn Source>| source.narrowed(&scan, &filters).await.map(|scan| scan.filters);
    let known = told(subject.source().await?).await;
    let apart = Depots::new(subject.depots.resources());
    let unknown = told(apart.open(&subject.depot).await?).await;
    expect(
        known == unknown,
        &format!("{unknown:?} is told of a table that was not read before, and {known:?} of one that was"),
    )
}

fn predicates(schema: &Schema, key: &str) -> Vec<Expr> {
    let mut predicates = Vec::new();
    for field in schema.fields().iter().take(FILTERED_COLUMNS) {
        let column = ident(field.name());
        predicates.push(column.clone().is_null());
        predicates.push(column.clone().is_not_null());
        match field.data_type() {
            DataType::Int64 => {
                for value in [i64::MIN, -1, 0, 7, i64::MAX] {
                    predicates.push(column.clone().eq(lit(value)));
                    predicates.push(column.clone().not_eq(lit(value)));
                    predicates.push(column.clone().lt(lit(value)));
                    predicates.push(column.clone().gt_eq(lit(value)));
                }
                predicates.push(
                    column
                        .clone()
                        .in_list(vec![lit(1_i64), lit(2_i64), lit(3_i64), lit(-9_i64)], false),
                );
                predicates.push(column.clone().in_list(vec![lit(1_i64), lit(2_i64)], true));
                predicates.push(
                    column
                        .clone()
                        .between(lit(2_i64), lit(5_i64))
                        .or(column.clone().is_null()),
                );
                predicates.push((column % lit(2_i64)).eq(lit(1_i64)).and(ident(key).gt(lit(3_i64))));
            }
            DataType::Float64 => {
                for value in [-1.5, -0.0, 0.0, 0.1, f64::NAN, f64::INFINITY] {
                    predicates.push(column.clone().eq(lit(value)));
                    predicates.push(column.clone().lt_eq(lit(value)));
                    predicates.push(column.clone().gt(lit(value)));
                }
            }
            DataType::Utf8 | DataType::Utf8View => {
                for value in ["", "a", "A", "row 5", "z' OR 1=1 --", "\u{e4}", "a "] {
                    predicates.push(column.clone().eq(lit(value)));
                    predicates.push(column.clone().not_eq(lit(value)));
                    predicates.push(column.clone().lt(lit(value)));
                    predicates.push(column.clone().gt_eq(lit(value)));
                }
                predicates.push(column.like(lit("%w%")));
            }
            _ => {}
        }
    }
    predicates
}

impl Subject {
    async fn source(&self) -> Result<Arc<dyn Source>, Failure> {
        Ok(self.depots.open(&self.depot).await?)
    }

    async fn table(&self, dataset: &str) -> Result<Arc<dyn TableProvider>, Failure> {
        let found = self
            .source()
            .await?
            .dataset(&self.collection, dataset, &self.session())
            .await?;
        found.ok_or_else(|| Failure(format!("there is no dataset `{dataset}`")))
    }

    fn session(&self) -> SessionState {
        let config = SessionConfig::new()
            .with_target_partitions(2)
            .with_extension(Arc::clone(&self.depots));
        SessionStateBuilder::new()
            .with_default_features()
            .with_config(config)
            .build()
    }

    /// Plans as queries are planned, so that whatever the table accepts is pushed into it.
    async fn run(
        &self,
        table: Arc<dyn TableProvider>,
        projection: Option<Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<RecordBatch, Failure> {
        let plan = self.plan(table, projection, filters, limit).await?;
        self.collect(plan).await
    }

    async fn plan(
        &self,
        table: Arc<dyn TableProvider>,
        projection: Option<Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, Failure> {
        let mut plan = LogicalPlanBuilder::scan("t", provider_as_source(table), projection)?;
        for filter in filters {
            plan = plan.filter(filter.clone())?;
        }
        if limit.is_some() {
            plan = plan.limit(0, limit)?;
        }
        let session = self.session();
        Ok(datafusion::catalog::Session::create_physical_plan(&session, &plan.build()?).await?)
    }

    async fn collect(&self, plan: Arc<dyn ExecutionPlan>) -> Result<RecordBatch, Failure> {
        let schema = plan.schema();
        let batches = collect(plan, self.session().task_ctx()).await?;
        Ok(concat_batches(&schema, &batches)?)
    }
}

fn leaves(plan: &Arc<dyn ExecutionPlan>) -> Vec<Arc<dyn ExecutionPlan>> {
    let children = plan.children();
    if children.is_empty() {
        return vec![Arc::clone(plan)];
    }
    children.into_iter().flat_map(leaves).collect()
}

/// Whether two sets of rows are the same, whatever their order and whatever type of text or number holds a value.
fn same_rows(key: &str, expected: &RecordBatch, found: &RecordBatch, what: &str) -> Check {
    expect(
        expected.num_columns() == found.num_columns(),
        &format!("{what}: another number of columns"),
    )?;
    expect(
        expected.num_rows() == found.num_rows(),
        &format!("{what}: {} rows, expected {}", found.num_rows(), expected.num_rows()),
    )?;
    let expected = in_order(key, expected)?;
    let found = in_order(key, &alike(found, &expected.schema())?)?;
    for (field, (expected, found)) in expected
        .schema()
        .fields()
        .iter()
        .zip(expected.columns().iter().zip(found.columns()))
    {
        expect(
            expected == found,
            &format!("{what}: column `{}` has other values", field.name()),
        )?;
    }
    Ok(())
}

/// The rows with the types of `schema`, its columns found by name.
fn alike(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, Failure> {
    let column = |field: &Arc<Field>| -> Result<ArrayRef, Failure> {
        let found = rows.column_by_name(field.name());
        let found = found.ok_or_else(|| Failure(format!("there is no column `{}`", field.name())))?;
        Ok(cast(found, field.data_type())?)
    };
    let columns: Result<Vec<ArrayRef>, Failure> = schema.fields().iter().map(column).collect();
    Ok(RecordBatch::try_new(Arc::clone(schema), columns?)?)
}

fn in_order(key: &str, rows: &RecordBatch) -> Result<RecordBatch, Failure> {
    let key = rows
        .column_by_name(key)
        .ok_or_else(|| Failure(format!("there is no column `{key}`")))?;
    Ok(take_record_batch(rows, &sort_to_indices(key, None, None)?)?)
}

fn sorted_once(names: &[String]) -> bool {
    names.is_sorted_by(|left, right| left < right)
}

fn expect(holds: bool, otherwise: &str) -> Check {
    if holds {
        Ok(())
    } else {
        Err(Failure(otherwise.to_owned()))
    }
}

impl Failure {
    /// All failures as one text.
    pub fn all(failures: &[Failure]) -> String {
        failures
            .iter()
            .map(|Failure(message)| format!("- {message}\n"))
            .collect()
    }
}

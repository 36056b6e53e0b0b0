//! The `tpch` depot: the eight tables of the TPC-H benchmark, generated while they are read.
//!
//! In: a scale factor. Out: the tables of collection `tpch`, with the schema and the rows of the official generator, cut
//! in parts that partitions and workers generate apart from each other. No table is ever held whole.

use std::sync::{Arc, LazyLock};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::stats::Precision;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, TryStreamExt, stream};
use minerva_resources::{Address, Depot, Parameter, ParameterKind, Problem};
use tpchgen::distribution::Distributions;
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator,
    RegionGenerator, SupplierGenerator,
};
use tpchgen::text::TextPool;
use tpchgen_arrow::{
    CustomerArrow, LineItemArrow, NationArrow, OrderArrow, PartArrow, PartSuppArrow, RecordBatchIterator, RegionArrow,
    SupplierArrow,
};

use crate::{Around, Connector, Error, ErrorKind, RemoteTable, Result, Scan, Source, Split};

const COLLECTION: &str = "tpch";
const DEFAULT_SCALE: f64 = 1.0;
const SMALLEST_SCALE: f64 = 0.01;
const LARGEST_SCALE: f64 = 100.0;

/// Entities (orders, parts, ...) that are worth a part of their own.
const ENTITIES_PER_PART: u64 = 50_000;
const MOST_PARTS: u64 = 512;

/// Opens depots of type `tpch`.
#[derive(Debug)]
pub(crate) struct TpchConnector;

#[async_trait]
impl Connector for TpchConnector {
    fn depot_type(&self) -> &'static str {
        "tpch"
    }

    fn parameters(&self) -> &'static [Parameter] {
        &[Parameter {
            name: "scale",
            kind: ParameterKind::Number,
            required: false,
            default: Some("1"),
            secret: false,
            description: "The scale factor, from 0.01 to 100; 1 is 6 million order lines, about 1 GB as text.",
        }]
    }

    fn is_remote(&self) -> bool {
        false
    }

    fn example(&self) -> &'static str {
        "name: benchmark\nversion: v2alpha\ntype: depot\ndepot:\n  type: tpch\n  tpch:\n    scale: 0.1\n"
    }

    async fn open(&self, depot: &Arc<Depot>, _around: &Around) -> Result<Arc<dyn Source>> {
        let scale = scale(depot).map_err(|message| Error::new(&depot.meta.name, ErrorKind::Settings, message))?;
        Ok(Arc::new(TpchSource {
            depot: depot.meta.name.clone(),
            scale,
        }))
    }

    fn check(&self, depot: &Depot) -> Vec<Problem> {
        let problem = |message| Problem {
            location: depot.settings.location_of("scale"),
            message: format!("depot `{}`: {message}", depot.meta.name),
            help: None,
        };
        scale(depot).err().map(problem).into_iter().collect()
    }
}

fn scale(depot: &Depot) -> Result<f64, String> {
    let scale = depot.settings.number("scale").unwrap_or(DEFAULT_SCALE);
    if (SMALLEST_SCALE..=LARGEST_SCALE).contains(&scale) {
        return Ok(scale);
    }
    Err(format!(
        "expected `scale` from {SMALLEST_SCALE} to {LARGEST_SCALE}, found {scale}"
    ))
}

#[derive(Debug)]
struct TpchSource {
    depot: String,
    scale: f64,
}

#[async_trait]
impl Source for TpchSource {
    fn depot(&self) -> &str {
        &self.depot
    }

    fn depot_type(&self) -> &'static str {
        "tpch"
    }

    async fn collections(&self) -> Result<Vec<String>> {
        Ok(vec![COLLECTION.to_owned()])
    }

    async fn datasets(&self, collection: &str) -> Result<Vec<String>> {
        if collection != COLLECTION {
            return Ok(Vec::new());
        }
        Ok(TABLES.iter().map(|table| table.name.to_owned()).collect())
    }

    async fn dataset(
        &self,
        collection: &str,
        dataset: &str,
        _session: &dyn Session,
    ) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(table) = table(collection, dataset) else {
            return Ok(None);
        };
        let address = Address {
            depot: self.depot.clone(),
            collection: collection.to_owned(),
            dataset: dataset.to_owned(),
        };
        let provider = RemoteTable::new(address, table.schema())
            .with_rows(table.rows(self.scale))
            .with_splits(table.splits(self.scale));
        Ok(Some(Arc::new(provider)))
    }

    fn read(&self, scan: &Scan, split: &Split, context: &Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let Address {
            collection, dataset, ..
        } = &scan.address;
        let error = |kind, message: &str| Error::new(&self.depot, kind, message).about_dataset(collection, dataset);
        let table =
            table(collection, dataset).ok_or_else(|| error(ErrorKind::NotFound, "there is no table of this name"))?;
        let (part, parts) = match *split {
            Split::Whole => (1, 1),
            Split::Part { index, of } if index < of && of as u64 <= MOST_PARTS => (index as i32 + 1, of as i32),
            Split::Part { .. } | Split::Range { .. } => {
                return Err(error(ErrorKind::Internal, "there is no such part of it"));
            }
        };
        let piece = Piece {
            scale: self.scale,
            part,
            parts,
            batch_size: context.session_config().batch_size(),
        };
        let open = table.open;
        let wanted = Arc::clone(&scan.schema);
        let changed = error(
            ErrorKind::Changed,
            "it no longer has the columns that the query was planned with",
        );
        let batches = stream::once(async move {
            let batches = open(text().await?, piece);
            let columns = columns(batches.schema(), &wanted).ok_or(changed)?;
            let project = move |batch: RecordBatch| batch.project(&columns).map_err(DataFusionError::from);
            Ok::<_, DataFusionError>(stream::iter(batches.map(project)))
        })
        .try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            Arc::clone(&scan.schema),
            batches.boxed(),
        )))
    }
}

/// The text that comments are cut from. It is made once in a process, which takes a good part of a second: not to be
/// spent on a thread that others wait for, nor for a query that is only planned.
async fn text() -> Result<&'static TextPool, DataFusionError> {
    SpawnedTask::spawn_blocking(TextPool::get_or_init_default)
        .join()
        .await
        .map_err(|failure| DataFusionError::External(Box::new(failure)))
}

fn columns(found: &SchemaRef, wanted: &SchemaRef) -> Option<Vec<usize>> {
    let position = |name: &String| found.column_with_name(name).map(|(position, _)| position);
    let columns: Vec<usize> = wanted
        .fields()
        .iter()
        .map(|field| position(field.name()))
        .collect::<Option<_>>()?;
    let projected = found.project(&columns).ok()?;
    (projected == **wanted).then_some(columns)
}

type Batches = Box<dyn RecordBatchIterator>;

/// What a generator is asked for. Parts are counted from one.
#[derive(Clone, Copy)]
struct Piece {
    scale: f64,
    part: i32,
    parts: i32,
    batch_size: usize,
}

struct TpchTable {
    name: &'static str,
    /// How many entities there are at scale 1; `None` when the table has the same rows at every scale.
    entities: Option<u64>,
    rows_per_entity: u64,
    /// Lines of an order are drawn from 1 to 7, so their number is known on average only.
    rows_are_exact: bool,
    open: fn(&'static TextPool, Piece) -> Batches,
}

impl TpchTable {
    fn schema(&self) -> SchemaRef {
        // Nothing is generated, so any text does.
        static NO_TEXT: LazyLock<TextPool> = LazyLock::new(|| TextPool::new(1, Distributions::static_default()));
        let piece = Piece {
            scale: SMALLEST_SCALE,
            part: 1,
            parts: 1,
            batch_size: 1,
        };
        Arc::clone((self.open)(&NO_TEXT, piece).schema())
    }

    fn entities(&self, scale: f64) -> Option<u64> {
        self.entities.map(|entities| (entities as f64 * scale) as u64)
    }

    fn rows(&self, scale: f64) -> Precision<usize> {
        let rows = (self.entities(scale).unwrap_or(1) * self.rows_per_entity) as usize;
        if self.rows_are_exact {
            Precision::Exact(rows)
        } else {
            Precision::Inexact(rows)
        }
    }

    fn splits(&self, scale: f64) -> Vec<Split> {
        // Tables of fixed size are generated whole whatever part is asked for.
        let Some(entities) = self.entities(scale) else {
            return vec![Split::Whole];
        };
        let of = entities.div_ceil(ENTITIES_PER_PART).clamp(1, MOST_PARTS) as u32;
        (0..of).map(|index| Split::Part { index, of }).collect()
    }
}

fn table(collection: &str, dataset: &str) -> Option<&'static TpchTable> {
    TABLES
        .iter()
        .find(|table| collection == COLLECTION && table.name == dataset)
}

/// The opener of a table: the generator of one part, as batches.
macro_rules! opener {
    ($generator:ident, $batches:ident, whole) => {
        |text, of| {
            let rows = $generator::new_with_distributions_and_text_pool(Distributions::static_default(), text);
            Box::new($batches::new(rows).with_batch_size(of.batch_size))
        }
    };
    ($generator:ident, $batches:ident, no_words) => {
        |text, of| {
            let rows = $generator::new_with_text_pool(of.scale, of.part, of.parts, text);
            Box::new($batches::new(rows).with_batch_size(of.batch_size))
        }
    };
    ($generator:ident, $batches:ident) => {
        |text, of| {
            let words = Distributions::static_default();
            let rows = $generator::new_with_distributions_and_text_pool(of.scale, of.part, of.parts, words, text);
            Box::new($batches::new(rows).with_batch_size(of.batch_size))
        }
    };
}

const TABLES: &[TpchTable] = &[
    TpchTable {
        name: "customer",
        entities: Some(150_000),
        rows_per_entity: 1,
        rows_are_exact: true,
        open: opener!(CustomerGenerator, CustomerArrow),
    },
    TpchTable {
        name: "lineitem",
        entities: Some(1_500_000),
        rows_per_entity: 4,
        rows_are_exact: false,
        open: opener!(LineItemGenerator, LineItemArrow),
    },
    TpchTable {
        name: "nation",
        entities: None,
        rows_per_entity: 25,
        rows_are_exact: true,
        open: opener!(NationGenerator, NationArrow, whole),
    },
    TpchTable {
        name: "orders",
        entities: Some(1_500_000),
        rows_per_entity: 1,
        rows_are_exact: true,
        open: opener!(OrderGenerator, OrderArrow),
    },
    TpchTable {
        name: "part",
        entities: Some(200_000),
        rows_per_entity: 1,
        rows_are_exact: true,
        open: opener!(PartGenerator, PartArrow),
    },
    TpchTable {
        name: "partsupp",
        entities: Some(200_000),
        rows_per_entity: 4,
        rows_are_exact: true,
        open: opener!(PartSuppGenerator, PartSuppArrow, no_words),
    },
    TpchTable {
        name: "region",
        entities: None,
        rows_per_entity: 5,
        rows_are_exact: true,
        open: opener!(RegionGenerator, RegionArrow, whole),
    },
    TpchTable {
        name: "supplier",
        entities: Some(10_000),
        rows_per_entity: 1,
        rows_are_exact: true,
        open: opener!(SupplierGenerator, SupplierArrow),
    },
];

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::compute::concat_batches;
    use arrow::datatypes::{Decimal128Type, Int64Type};
    use datafusion::physical_plan::{collect, execute_stream};

    use super::*;
    use crate::conformance::{self, Failure, Sample, Subject};
    use crate::testing::{depots, resources, session, table};

    fn manifest(scale: &str) -> String {
        format!("name: bench\nversion: v2alpha\ntype: depot\ndepot:\n  type: tpch\n  tpch:\n    scale: {scale}\n")
    }

    #[tokio::test]
    async fn conforms() {
        let folder = tempfile::tempdir().unwrap();
        let depots = depots(folder.path(), &manifest("0.4"));
        let session = session(&depots);
        let plan = table(&depots, "bench", COLLECTION, "customer")
            .await
            .scan(&session, None, &[], None)
            .await
            .unwrap();
        assert_eq!(plan.properties().partitioning.partition_count(), 2);
        let rows = concat_batches(&plan.schema(), &collect(plan, session.task_ctx()).await.unwrap()).unwrap();
        let whole = CustomerArrow::new(CustomerGenerator::new(0.4, 1, 1))
            .with_batch_size(60_000)
            .next()
            .unwrap();
        let subject = Subject {
            depots,
            depot: "bench".to_owned(),
            collection: COLLECTION.to_owned(),
            samples: vec![Sample {
                name: "customer".to_owned(),
                key: "c_custkey".to_owned(),
                rows: whole.clone(),
            }],
            writes: false,
        };
        assert_eq!(rows.num_rows(), whole.num_rows());
        let mut failures = conformance::check(&subject).await;
        failures.extend(conformance::check_server(&subject, None).await);
        assert!(failures.is_empty(), "{}", Failure::all(&failures));
    }

    #[tokio::test]
    async fn every_table_has_the_rows_it_claims_however_it_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let depots = depots(folder.path(), &manifest("0.05"));
        let session = session(&depots);
        for name in depots.open("bench").await.unwrap().datasets(COLLECTION).await.unwrap() {
            let provider = table(&depots, "bench", COLLECTION, &name).await;
            let claimed = provider.statistics().unwrap().num_rows;
            let plan = provider.scan(&session, Some(&vec![0]), &[], None).await.unwrap();
            let found: usize = collect(plan, session.task_ctx())
                .await
                .unwrap()
                .iter()
                .map(RecordBatch::num_rows)
                .sum();
            match claimed {
                Precision::Exact(rows) => assert_eq!(rows, found, "{name}"),
                Precision::Inexact(rows) => assert!(rows.abs_diff(found) < rows / 50, "{name}: {rows}, {found}"),
                Precision::Absent => panic!("{name}"),
            }
        }
    }

    #[tokio::test]
    async fn lines_are_those_of_the_official_generator() {
        let folder = tempfile::tempdir().unwrap();
        let depots = depots(folder.path(), &manifest("1"));
        let session = session(&depots);
        let plan = table(&depots, "bench", COLLECTION, "lineitem").await;
        let plan = plan.scan(&session, Some(&vec![1, 5]), &[], Some(2)).await.unwrap();
        let mut stream = execute_stream(plan, session.task_ctx()).unwrap();
        let batch = stream.next().await.unwrap().unwrap();
        assert_eq!(batch.column(0).as_primitive::<Int64Type>().value(0), 155_190);
        assert_eq!(batch.column(1).as_primitive::<Decimal128Type>().value(0), 2_116_823);
        assert_eq!(session.config().batch_size(), 8192);
    }

    #[test]
    fn scales_out_of_bounds_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("depots.yaml");
        for scale in ["0", "1000", "-1"] {
            std::fs::write(&file, manifest(scale)).unwrap();
            let problems = resources(&file).unwrap_err();
            assert!(problems.contains("expected `scale` from 0.01 to 100"), "{problems}");
        }
        std::fs::write(
            &file,
            manifest("1")
                .replace("type: tpch", "type: tpc")
                .replace("  tpch:", "  tpc:"),
        )
        .unwrap();
        let problems = resources(&file).unwrap_err();
        assert!(
            problems.contains("unknown depot type `tpc`") && problems.contains("did you mean `tpch`?"),
            "{problems}"
        );
    }
}

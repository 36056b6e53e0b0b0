//! File scans on the way to a worker.
//!
//! DataFusion's own encoding of file scans loses what this connector relies on: compression, spellings of NULL, who
//! reads the file and what to call it. In: a leaf that scans files. Out: bytes with everything a worker needs to read
//! them, and back. Expressions go through the converter of the whole plan, so that a dynamic filter stays shared with the
//! join that fills it. There is no credential in it.

use std::sync::Arc;

use datafusion::catalog::memory::DataSourceExec;
use datafusion::common::{DataFusionError, Result, internal_datafusion_err};
use datafusion::datasource::physical_plan::{FileScanConfig, FileSource};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::from_proto::{parse_protobuf_file_scan_config, parse_table_schema_from_proto};
use datafusion_proto::physical_plan::to_proto::serialize_file_scan_config;
use datafusion_proto::physical_plan::{
    PhysicalExtensionCodec, PhysicalPlanDecodeContext, PhysicalProtoConverterExtension,
};
use datafusion_proto::protobuf::{FileScanExecConf, PhysicalPlanNode};
use prost::Message;
use serde::{Deserialize, Serialize};

use super::fault::Origin;
use super::named::NamedSource;
use super::rows::{RowFormat, RowSource};

#[derive(Clone, PartialEq, Message)]
struct Encoded {
    /// `Described` as JSON.
    #[prost(string, tag = "1")]
    described: String,
    /// The Parquet scan as DataFusion encodes it, or the configuration of a scan of rows.
    #[prost(bytes = "vec", tag = "2")]
    scan: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Described {
    origin: Origin,
    /// How rows are read; absent for Parquet.
    rows: Option<RowFormat>,
}

/// Encodes a leaf that scans the files of a depot. `None` for any other node.
pub fn encode_file_scan(
    node: &dyn ExecutionPlan,
    codec: &dyn PhysicalExtensionCodec,
    converter: &dyn PhysicalProtoConverterExtension,
) -> Result<Option<Vec<u8>>> {
    let scan = node
        .downcast_ref::<DataSourceExec>()
        .and_then(|leaf| leaf.data_source().downcast_ref::<FileScanConfig>());
    let Some((scan, named)) = scan.and_then(|scan| Some((scan, scan.file_source().downcast_ref::<NamedSource>()?)))
    else {
        return Ok(None);
    };
    let rows = named
        .inner
        .downcast_ref::<RowSource>()
        .map(|source| source.format.as_ref().clone());
    let mut inner = scan.clone();
    inner.file_source = Arc::clone(&named.inner);
    let scan = match &rows {
        Some(_) => serialize_file_scan_config(&inner, codec, converter)?.encode_to_vec(),
        None => {
            let leaf: Arc<dyn ExecutionPlan> = DataSourceExec::from_data_source(inner);
            converter.execution_plan_to_proto(&leaf, codec)?.encode_to_vec()
        }
    };
    let described = Described {
        origin: named.origin.as_ref().clone(),
        rows,
    };
    let described = serde_json::to_string(&described).map_err(|error| DataFusionError::External(Box::new(error)))?;
    Ok(Some(Encoded { described, scan }.encode_to_vec()))
}

/// Decodes what [`encode_file_scan`] made.
pub fn decode_file_scan(
    bytes: &[u8],
    context: &TaskContext,
    codec: &dyn PhysicalExtensionCodec,
    converter: &dyn PhysicalProtoConverterExtension,
) -> Result<Arc<dyn ExecutionPlan>> {
    let damaged = |error: &dyn std::fmt::Display| internal_datafusion_err!("a file scan cannot be decoded: {error}");
    let encoded = Encoded::decode(bytes).map_err(|error| damaged(&error))?;
    let Described { origin, rows } = serde_json::from_str(&encoded.described).map_err(|error| damaged(&error))?;
    let origin = Arc::new(origin);
    let decoding = PhysicalPlanDecodeContext::new(context, codec);
    let mut scan = match rows {
        Some(rows) => {
            let scan = FileScanExecConf::decode(encoded.scan.as_slice()).map_err(|error| damaged(&error))?;
            let table_schema = parse_table_schema_from_proto(&scan)?;
            let source: Arc<dyn FileSource> =
                Arc::new(RowSource::new(Arc::new(rows), Arc::clone(&origin), table_schema));
            parse_protobuf_file_scan_config(&scan, &decoding, converter, source)?
        }
        None => {
            let node = PhysicalPlanNode::decode(encoded.scan.as_slice()).map_err(|error| damaged(&error))?;
            let leaf = converter.proto_to_execution_plan(&node, &decoding)?;
            let scan = leaf
                .downcast_ref::<DataSourceExec>()
                .and_then(|leaf| leaf.data_source().downcast_ref::<FileScanConfig>());
            scan.cloned().ok_or_else(|| damaged(&"it scans no files"))?
        }
    };
    let inner = Arc::clone(scan.file_source());
    scan.file_source = Arc::new(NamedSource::new(inner, origin));
    Ok(DataSourceExec::from_data_source(scan))
}

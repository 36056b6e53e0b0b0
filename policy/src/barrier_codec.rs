//! The physical barrier on its way to a worker: bytes that say whose barrier it is and which columns are masked.
//!
//! The plan below travels by DataFusion's own means. No policy text, attribute or key is in these bytes; the masks'
//! keys are found by name where the plan runs.

use std::sync::Arc;

use datafusion::common::{Result, internal_err};
use datafusion::error::DataFusionError;
use datafusion::physical_plan::ExecutionPlan;
use minerva_resources::Address;
use prost::Message;

use crate::barrier::{BarrierColumn, Seal};
use crate::barrier_exec::PolicyBarrierExec;

#[derive(Clone, PartialEq, Message)]
struct BarrierMessage {
    #[prost(string, tag = "1")]
    depot: String,
    #[prost(string, tag = "2")]
    collection: String,
    #[prost(string, tag = "3")]
    dataset: String,
    #[prost(string, tag = "4")]
    fingerprint: String,
    #[prost(message, repeated, tag = "5")]
    columns: Vec<ColumnMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct ColumnMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bool, tag = "2")]
    masked: bool,
}

/// The bytes of `node` when it is a policy barrier.
pub fn encode_barrier(node: &dyn ExecutionPlan) -> Option<Vec<u8>> {
    let barrier = node.downcast_ref::<PolicyBarrierExec>()?;
    let Address {
        depot,
        collection,
        dataset,
    } = barrier.seal().address.clone();
    let columns = barrier.columns().iter();
    let columns = columns
        .map(|column| ColumnMessage {
            name: column.name.clone(),
            masked: column.masked,
        })
        .collect();
    let fingerprint = barrier.seal().fingerprint.clone();
    Some(
        BarrierMessage {
            depot,
            collection,
            dataset,
            fingerprint,
            columns,
        }
        .encode_to_vec(),
    )
}

/// The barrier that [`encode_barrier`] wrote, over its decoded input.
pub fn decode_barrier(bytes: &[u8], inputs: &[Arc<dyn ExecutionPlan>]) -> Result<Arc<dyn ExecutionPlan>> {
    let [input] = inputs else {
        return internal_err!("a policy barrier has one input, not {}", inputs.len());
    };
    let message = BarrierMessage::decode(bytes).map_err(|error| DataFusionError::External(Box::new(error)))?;
    let seal = Seal {
        address: Address::new(message.depot, message.collection, message.dataset),
        fingerprint: message.fingerprint,
    };
    let columns = message.columns.into_iter();
    let columns: Vec<_> = columns
        .map(|column| BarrierColumn {
            name: column.name,
            masked: column.masked,
        })
        .collect();
    Ok(Arc::new(PolicyBarrierExec::try_new(
        Arc::new(seal),
        columns,
        Arc::clone(input),
    )?))
}

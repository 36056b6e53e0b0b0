//! How our own plan nodes travel.
//!
//! In: a barrier, a scan of a depot or of its files. Out: bytes that name a depot and a policy's fingerprint, never a credential or a key. A node
//! that is not ours is an error before anything is written, so that other codecs get their turn.

use std::sync::Arc;

use datafusion::common::{Result, internal_datafusion_err, internal_err, not_impl_err};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use minerva_connectors::{ScanExec, decode_file_scan, decode_told_scan, encode_file_scan, encode_told_scan};
use minerva_policy::{decode_barrier, decode_fence, encode_barrier, encode_fence};

use crate::paced::PacedExec;

const BARRIER: u8 = 1;
const SCAN: u8 = 2;
const FILE_SCAN: u8 = 3;
const PACED: u8 = 4;
const FENCE: u8 = 5;

/// Writes and reads the nodes of this project. Registered first, on the coordinator and on every worker.
#[derive(Debug, Clone, Copy)]
pub struct Codec;

impl PhysicalExtensionCodec for Codec {
    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        bytes: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        if let Some(body) = encode_barrier(node.as_ref()) {
            bytes.push(BARRIER);
            bytes.extend(body);
            Ok(())
        } else if let Some(body) = encode_fence(node.as_ref()) {
            bytes.push(FENCE);
            bytes.extend(body);
            Ok(())
        } else if let Some(scan) = node.downcast_ref::<ScanExec>() {
            let body = encode_told_scan(scan, self, converter)?;
            bytes.push(SCAN);
            bytes.extend(body);
            Ok(())
        } else if let Some(body) = encode_file_scan(node.as_ref(), self, converter)? {
            bytes.push(FILE_SCAN);
            bytes.extend(body);
            Ok(())
        } else if node.is::<PacedExec>() {
            bytes.push(PACED);
            Ok(())
        } else {
            not_impl_err!("`{}` cannot be sent to a worker", node.name())
        }
    }

    fn try_decode(
        &self,
        bytes: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (kind, body) = bytes
            .split_first()
            .ok_or_else(|| internal_datafusion_err!("a plan node without bytes came over the wire"))?;
        match *kind {
            BARRIER => decode_barrier(body, inputs),
            FENCE => decode_fence(body, inputs),
            SCAN => Ok(Arc::new(decode_told_scan(body, context, self, converter)?)),
            FILE_SCAN => decode_file_scan(body, context, self, converter),
            PACED => match inputs {
                [input] => Ok(Arc::new(PacedExec::new(Arc::clone(input)))),
                _ => internal_err!("`PacedExec` came over the wire with {} inputs", inputs.len()),
            },
            kind => internal_err!("a plan node of unknown kind {kind} came over the wire"),
        }
    }
}

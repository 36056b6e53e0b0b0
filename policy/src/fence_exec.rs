//! What stands over a statement with fences, as a physical node: it passes batches on and hides what fails below.
//!
//! In go the batches of one leaf, whose statement the source computes: all work on hidden rows and raw values is done there, behind the fences. Out come the same
//! batches. What users ask for stands outside of the fences of the same statement, so that conditions and limits may go down to the leaf.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics, internal_err};
use datafusion::config::ConfigOptions;
use datafusion::error::DataFusionError;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::filter_pushdown::{FilterDescription, FilterPushdownPhase};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
};
use futures::{Stream, StreamExt};
use minerva_resources::Address;
use prost::Message;

use crate::barrier::Seal;
use crate::barrier_exec::GovernedError;
use crate::fence::FenceSeal;

/// Stands over a statement with fences.
#[derive(Debug, Clone)]
pub struct PolicyFenceExec {
    seals: Arc<[FenceSeal]>,
    /// The statement as users may see it, for printing only. It does not travel.
    shown: Arc<str>,
    leaf: Arc<dyn ExecutionPlan>,
    metrics: ExecutionPlanMetricsSet,
}

impl PolicyFenceExec {
    /// Stands over `leaf`, whose statement has these fences.
    ///
    /// # Errors
    /// When there is no fence.
    pub fn try_new(seals: Vec<FenceSeal>, leaf: Arc<dyn ExecutionPlan>) -> Result<Self> {
        if seals.is_empty() {
            return internal_err!("a policy's fence stands over a statement without any");
        }
        Ok(Self {
            seals: seals.into(),
            shown: Arc::from(""),
            leaf,
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }

    pub(crate) fn shown_as(self, shown: String) -> Self {
        Self {
            shown: shown.into(),
            ..self
        }
    }

    /// Whose barriers the fences were, and their texts.
    pub fn seals(&self) -> &[FenceSeal] {
        &self.seals
    }

    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    fn addresses(&self) -> String {
        let addresses: Vec<String> = self.seals.iter().map(|fence| fence.seal.address.to_string()).collect();
        addresses.join(", ")
    }
}

impl DisplayAs for PolicyFenceExec {
    fn fmt_as(&self, format: DisplayFormatType, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(formatter, "PolicyFenceExec: {}", self.addresses())
            }
            DisplayFormatType::TreeRender => formatter.write_str(&self.addresses()),
        }
    }
}

impl ExecutionPlan for PolicyFenceExec {
    fn name(&self) -> &str {
        "PolicyFenceExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.leaf.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.leaf]
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Ok([leaf]) = <[Arc<dyn ExecutionPlan>; 1]>::try_from(children) else {
            return internal_err!("a policy's fence stands over one leaf");
        };
        Ok(Arc::new(Self {
            leaf,
            metrics: ExecutionPlanMetricsSet::new(),
            ..Self::clone(&self)
        }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let batches = self
            .leaf
            .execute(partition, context)
            .map_err(|error| hide(&self.seals, error))?;
        Ok(Box::pin(FenceStream {
            batches,
            seals: Arc::clone(&self.seals),
            metrics: BaselineMetrics::new(&self.metrics, partition),
        }))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    /// They were estimated by the statement's shape, whatever the rows behind the fences are.
    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(match inputs.first() {
            Some(leaf) => Arc::clone(leaf),
            None => Arc::new(Statistics::new_unknown(&self.schema())),
        })
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }

    /// What a condition is about has left the fences.
    fn gather_filters_for_pushdown(
        &self,
        _phase: FilterPushdownPhase,
        parent_filters: Vec<Arc<dyn PhysicalExpr>>,
        _config: &ConfigOptions,
    ) -> Result<FilterDescription> {
        FilterDescription::from_children(parent_filters, &self.children())
    }
}

/// Hides what fails below: its text names the first table.
fn hide(seals: &[FenceSeal], error: DataFusionError) -> DataFusionError {
    match seals.first() {
        Some(fence) => GovernedError::hide_statement(&fence.seal.address, error),
        None => error,
    }
}

struct FenceStream {
    batches: SendableRecordBatchStream,
    seals: Arc<[FenceSeal]>,
    metrics: BaselineMetrics,
}

impl Stream for FenceStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.batches.poll_next_unpin(context);
        let polled = polled.map_err(|error| hide(&self.seals, error));
        self.metrics.record_poll(polled)
    }
}

impl RecordBatchStream for FenceStream {
    fn schema(&self) -> SchemaRef {
        self.batches.schema()
    }
}

#[derive(Clone, PartialEq, Message)]
struct FenceMessage {
    #[prost(message, repeated, tag = "1")]
    seals: Vec<SealMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct SealMessage {
    #[prost(string, tag = "1")]
    depot: String,
    #[prost(string, tag = "2")]
    collection: String,
    #[prost(string, tag = "3")]
    dataset: String,
    #[prost(string, tag = "4")]
    fingerprint: String,
    #[prost(string, tag = "5")]
    digest: String,
}

/// The bytes of `node` when it stands over a statement with fences.
pub fn encode_fence(node: &dyn ExecutionPlan) -> Option<Vec<u8>> {
    let fence = node.downcast_ref::<PolicyFenceExec>()?;
    let seals = fence
        .seals
        .iter()
        .cloned()
        .map(|FenceSeal { seal, digest }| SealMessage {
            depot: seal.address.depot,
            collection: seal.address.collection,
            dataset: seal.address.dataset,
            fingerprint: seal.fingerprint,
            digest,
        });
    let seals = seals.collect();
    Some(FenceMessage { seals }.encode_to_vec())
}

/// The node that [`encode_fence`] wrote, over its decoded leaf.
///
/// # Errors
/// When the bytes are none of such a node.
pub fn decode_fence(bytes: &[u8], inputs: &[Arc<dyn ExecutionPlan>]) -> Result<Arc<dyn ExecutionPlan>> {
    let [leaf] = inputs else {
        return internal_err!("a policy's fence stands over one leaf, not {}", inputs.len());
    };
    let message = FenceMessage::decode(bytes).map_err(|error| DataFusionError::External(Box::new(error)))?;
    let seals = message.seals.into_iter().map(|seal| FenceSeal {
        seal: Seal {
            address: Address::new(seal.depot, seal.collection, seal.dataset),
            fingerprint: seal.fingerprint,
        },
        digest: seal.digest,
    });
    Ok(Arc::new(PolicyFenceExec::try_new(seals.collect(), Arc::clone(leaf))?))
}

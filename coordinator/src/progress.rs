//! How far a running query is.
//!
//! In: its record and the plan that runs. Out: a [`Progress`]. What the plan's operators in this process count is read while it runs; a stage on a
//! worker tells its counts when it has ended, too late for this. Below a policy's barrier nothing is counted: how many rows a filter hides is not
//! for the user. Deliberately absent: an estimate of the end.

use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;
use datafusion_distributed::NetworkBoundaryExt;
use minerva_policy::PolicyBarrierExec;

use crate::queries::State;

/// Metrics that say how many bytes came in.
const BYTES_READ: &[&str] = &["bytes_scanned", "bytes_transferred"];

/// How far a query is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Where it stands.
    pub state: State,
    /// Since it arrived.
    pub elapsed_ms: u64,
    /// How many stages its plan has, the last one included; zero before it is planned.
    pub stages: u64,
    /// Rows that came into this process's part of the plan.
    pub input_rows: u64,
    /// Bytes of them, where the source counts them.
    pub input_bytes: u64,
    /// Rows that went out.
    pub output_rows: u64,
    /// Bytes of them.
    pub output_bytes: u64,
}

/// What a plan tells while it runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) stages: u64,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

impl Counts {
    /// Counts of a plan, its last stage included.
    pub(crate) fn of(plan: &Arc<dyn ExecutionPlan>) -> Self {
        let mut counts = Self {
            stages: 1,
            ..Self::default()
        };
        counts.add(plan);
        counts
    }

    fn add(&mut self, node: &Arc<dyn ExecutionPlan>) {
        let children = node.children();
        if node.is_network_boundary() {
            self.stages += 1;
        }
        let is_barrier = node.is::<PolicyBarrierExec>();
        if is_barrier || children.is_empty() || node.is_network_boundary() {
            let metrics = node.metrics().unwrap_or_default();
            self.rows += metrics.output_rows().unwrap_or_default() as u64;
            let bytes = BYTES_READ.iter().filter_map(|name| metrics.sum_by_name(name));
            self.bytes += bytes.map(|value| value.as_usize() as u64).sum::<u64>();
        }
        if !is_barrier {
            children.into_iter().for_each(|child| self.add(child));
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::{
        arrow::datatypes::Schema,
        physical_plan::{empty::EmptyExec, union::UnionExec},
    };

    use super::*;

    #[test]
    fn a_plan_in_one_piece_is_one_stage() {
        let empty: Arc<dyn ExecutionPlan> = Arc::new(EmptyExec::new(Arc::new(Schema::empty())));
        let union = UnionExec::try_new(vec![Arc::clone(&empty), empty]).unwrap();
        let expected = Counts {
            stages: 1,
            ..Counts::default()
        };
        assert_eq!(Counts::of(&union), expected);
    }
}

//! How far a running query is.
//!
//! In: its record, the plan that runs, and what its stages have read, which workers tell with every heartbeat. Out: a [`Progress`]. Deliberately
//! absent: an estimate of the end.

use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;
use datafusion_distributed::NetworkBoundaryExt;

use crate::queries::State;

/// How far a query is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Where it stands.
    pub state: State,
    /// Since it arrived.
    pub elapsed_ms: u64,
    /// How many stages its plan has, the last one included; zero before it is planned.
    pub stages: u64,
    /// Rows that were read, behind the policies, in this process and on workers.
    pub input_rows: u64,
    /// Bytes of them, where the source counts them.
    pub input_bytes: u64,
    /// Rows that went out.
    pub output_rows: u64,
    /// Bytes of them.
    pub output_bytes: u64,
}

/// How many stages a plan has, the last one included.
pub(crate) fn stages(plan: &Arc<dyn ExecutionPlan>) -> u64 {
    fn boundaries(node: &Arc<dyn ExecutionPlan>) -> u64 {
        let below: u64 = node.children().into_iter().map(boundaries).sum();
        below + u64::from(node.is_network_boundary())
    }
    1 + boundaries(plan)
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
        assert_eq!(stages(&(union as Arc<dyn ExecutionPlan>)), 1);
    }
}

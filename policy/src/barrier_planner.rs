//! Turns the logical policy barrier into the physical one.
//!
//! In goes a [`PolicyBarrier`] and the physical plan of what lies below it, out comes a [`PolicyBarrierExec`], with a
//! filter above it for the predicates that the logical barrier kept. Other extension nodes are left to others.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};

use crate::barrier::PolicyBarrier;
use crate::barrier_exec::PolicyBarrierExec;

/// Plans policy barriers; a query planner that reads governed tables needs it.
#[derive(Debug, Default)]
pub struct BarrierPlanner;

#[async_trait]
impl ExtensionPlanner for BarrierPlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        planning_context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(barrier) = node.as_any().downcast_ref::<PolicyBarrier>() else {
            return Ok(None);
        };
        let [input] = physical_inputs else {
            return internal_err!("the policy barrier of `{}` has one input", barrier.seal().address);
        };
        let columns = barrier.columns().to_vec();
        let exec = PolicyBarrierExec::try_new(Arc::clone(barrier.seal()), columns, Arc::clone(input))?;
        let exec: Arc<dyn ExecutionPlan> = Arc::new(exec.with_filters(barrier.filters()));
        let Some(guard) = conjunction(barrier.guards().to_vec()) else {
            return Ok(Some(exec));
        };
        let guard = planner.create_physical_expr(&guard, node.schema(), session, planning_context)?;
        Ok(Some(Arc::new(FilterExec::try_new(guard, exec)?)))
    }
}

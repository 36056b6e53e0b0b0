//! Ways out of statements that sources do not come to an end with.
//!
//! In: the verified plan of a query that one process runs. Out: the same plan, which has parts of itself run here when a source takes too long for them. Such a
//! part is planned when it is needed, by the query's own session, and verified against the query's grants as the query's plan was.

use std::{cell::LazyCell, fmt, sync::Arc};

use async_trait::async_trait;
use datafusion::{
    common::exec_err,
    error::{DataFusionError, Result as DataFusionResult},
    execution::SessionState,
    logical_expr::LogicalPlan,
    physical_plan::ExecutionPlan,
};
use datafusion_distributed::DistributedExec;
use minerva_cluster::leaf_of;
use minerva_connectors::{Depots, PlanHere, PushDown, with_escapes};
use minerva_policy::{Grants, Leaf};

use crate::{engine::Engine, error::Result, system};

/// Refuses a plan that reads what was not granted.
pub(crate) fn verify(plan: &Arc<dyn ExecutionPlan>, grants: &Grants, depots: &Depots) -> Result<()> {
    minerva_policy::verify(plan, grants, &|leaf| match system::is_own_leaf(leaf) {
        true => Leaf::NoData,
        false => leaf_of(leaf, depots),
    })?;
    Ok(())
}

/// The plan with its ways out.
pub(crate) fn open(
    plan: Arc<dyn ExecutionPlan>,
    state: &SessionState,
    grants: &Grants,
    engine: &Engine,
) -> Result<Arc<dyn ExecutionPlan>> {
    // What travels to workers was dealt to them as it is, and what is planned with several of them is planned for them.
    if plan.is::<DistributedExec>() || engine.members.active().len() > 1 {
        return Ok(plan);
    }
    // Most plans need none, and a session is not small.
    let planner = LazyCell::new(|| {
        let planner = Planner {
            state: state.clone(),
            grants: grants.clone(),
            depots: Arc::clone(&engine.depots),
        };
        Arc::new(planner) as Arc<dyn PlanHere>
    });
    Ok(with_escapes(plan, &|| Arc::clone(&planner))?)
}

struct Planner {
    state: SessionState,
    grants: Grants,
    depots: Arc<Depots>,
}

impl fmt::Debug for Planner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Planner").finish_non_exhaustive()
    }
}

#[async_trait]
impl PlanHere for Planner {
    async fn plan(&self, part: LogicalPlan) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let rule = PushDown {
            table_of: &minerva_policy::open_table,
            fences: None,
            is_eager: &|_| false,
            reads_only: true,
        };
        let (part, _) = rule.push(part)?;
        let plan = self
            .state
            .query_planner()
            .create_physical_plan(&part, &self.state)
            .await?;
        // There were several workers when the query was planned, and are no more.
        if plan.is::<DistributedExec>() {
            return exec_err!("it would run on workers");
        }
        verify(&plan, &self.grants, &self.depots).map_err(|error| DataFusionError::External(Box::new(error)))?;
        Ok(plan)
    }
}

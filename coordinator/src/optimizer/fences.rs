//! Barriers that statements take in: what push-down is told of policies, and what policies are told of statements.
//!
//! In: a node of a plan that is about to become part of a statement, and later the statement. Out: what lies below a barrier, and the leaf of the statement below
//! what the policy puts there in the barrier's place. A barrier is looked for by its number, so that nothing can be closed that was not opened.

use std::sync::{Mutex, PoisonError};

use datafusion::{
    common::{Result, internal_datafusion_err},
    logical_expr::LogicalPlan,
};
use minerva_connectors::{Fence, Fences, Opened};
use minerva_policy::{OpenedBarrier, PolicyFence, RenderedFence};

/// The barriers of one plan that were opened, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Barriers(Mutex<Vec<OpenedBarrier>>);

impl Fences for Barriers {
    fn open(&self, node: &LogicalPlan) -> Option<Opened> {
        let barrier = OpenedBarrier::of(node)?;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = Opened {
            number: all.len(),
            address: barrier.seal().address.clone(),
            fingerprint: barrier.seal().fingerprint.clone(),
            shown: barrier.shown(),
            inside: barrier.inside().clone(),
        };
        all.push(barrier);
        Some(opened)
    }

    fn close(&self, leaf: LogicalPlan, fences: &[Fence], outside: String) -> Result<LogicalPlan> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rendered = fences.iter().map(|fence| {
            let barrier = all.get(fence.number).filter(|barrier| {
                let seal = barrier.seal();
                seal.address == fence.address && seal.fingerprint == fence.fingerprint
            });
            let barrier = barrier
                .ok_or_else(|| internal_datafusion_err!("a statement has a fence that was made of no barrier"))?;
            Ok(barrier.clone().rendered(format!("f{}", fence.number), &fence.sql()))
        });
        let rendered: Result<Vec<RenderedFence>> = rendered.collect();
        PolicyFence::over(leaf, rendered?, outside)
    }
}

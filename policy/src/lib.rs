//! Who may see what: decide, protect, verify.
//!
//! In go the resources (access policies, data policies, dataset tags), a principal and a table; out comes a
//! verdict with the policies that decided it, and a governed table that cannot be looked behind. Deciding does no
//! IO and reads no clock. The crate opens no depot and runs no query.

mod access;
mod barrier;
mod barrier_codec;
mod barrier_display;
mod barrier_exec;
mod barrier_planner;
mod column_access;
mod conflict;
mod decide;
mod expectation;
mod explain;
mod expression;
mod fence;
mod fence_exec;
mod filter;
mod impact;
mod impersonate;
mod index;
mod keys;
mod leakproof;
mod lineage;
mod mask;
mod no_disk;
mod opaque;
mod principal;
mod protect;
mod row_filter;
mod rules;
mod scope;
mod scrub;
mod table;
mod tags;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod value;
mod verdict;
mod verify;

pub use access::{AccessDecision, Object};
pub use barrier::{BarrierColumn, PolicyBarrier, Seal};
pub use barrier_codec::{decode_barrier, encode_barrier};
pub use barrier_display::{redact_logical_plan, redact_plan};
pub use barrier_exec::{GovernedError, PolicyBarrierExec};
pub use barrier_planner::BarrierPlanner;
pub use decide::{decide, misfits};
pub use expectation::{Outcome, compare};
pub use explain::{ColumnExplanation, Explanation, FilterExplanation, Outranked, Shown, explain, explain_names};
pub use fence::{FencePlanner, FenceSeal, OpenedBarrier, PolicyFence, RenderedFence, cannot_fail, fence_digest};
pub use fence_exec::{PolicyFenceExec, decode_fence, encode_fence};
pub use impact::{Alteration, Impact, alterations};
pub use keys::KeyRing;
pub use leakproof::{PushLeakproofThroughBarrier, is_leakproof};
pub use lineage::{CarriedTags, Lineage, Origin, lineage};
pub use mask::{MASKS, Mask, MaskFunctions, MaskKind, mask_functions};
pub use opaque::Opaque;
pub use principal::Principal;
pub use protect::{RAW_PREFIX, address_of, open_table, protect, protect_to_change};
pub use rules::{PolicyKind, PolicyRef, Rules, advise, check};
pub use scrub::scrub;
pub use tags::DerivedTags;
pub use verdict::{ClosedTable, ColumnMask, Governance, HiddenColumn, RowFilter, Verdict};
pub use verify::{Grant, Grants, Leaf, verify};

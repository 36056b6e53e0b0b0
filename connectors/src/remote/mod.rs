//! Push-down: parts of a query's plan that one source computes by itself.
//!
//! In: an optimised logical plan. Out: the same plan, in which whole subtrees over one depot have become one statement for its database. A subtree
//! grows from a scan upwards, node by node, for as long as the depot's [`Dialect`] knows a text that means exactly what DataFusion would compute; where
//! it stops, and where sending the rows would cost more than it saves, the rest of the plan stays here.
//!
//! Deliberately absent: anything that unparses a plan. A statement has the shape of [`Select`]; what has no place in it is not sent.

mod cost;
mod decision;
mod dialect;
mod escape;
mod fence;
mod first;
mod grow;
mod joins;
mod narrowed;
mod node;
mod realise;
mod select;
mod translate;
mod wanted;
mod weigh;
mod windows;

pub use decision::Decision;
pub(crate) use dialect::{Aggregation, Dialect, Form, Meeting, Relation, Value, Windowed, met_by_list, plain};
pub(crate) use escape::{Escape, WaysOut};
pub use escape::{PlanHere, with_escapes};
pub(crate) use fence::Shown;
pub use fence::{Fence, Fences, Opened};
pub use grow::{PushDown, TableOf};
pub(crate) use narrowed::narrowed;
pub use node::RemotePlanner;
pub use select::RemoteQuery;
pub use weigh::{Conditions, Key, Weighed, WeighedLeaf};

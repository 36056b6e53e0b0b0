//! The last look at a physical plan before it runs: every leaf is granted, and governed data lies behind its barrier.
//!
//! In go the plan, what the query was granted and who can tell which table a leaf reads; out comes nothing, or an
//! error that stops the query. It runs on the coordinator and again on every worker. It grants nothing itself and
//! repairs nothing: what it does not understand, it refuses.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::work_table::WorkTableExec;
use datafusion_distributed::{DistributedLeafExec, NetworkBoundaryExt, Stage};
use minerva_resources::Address;

use crate::barrier::Seal;
use crate::barrier_exec::PolicyBarrierExec;
use crate::fence::FenceSeal;
use crate::fence_exec::PolicyFenceExec;

/// What a leaf of a physical plan reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leaf {
    /// No data of any depot.
    NoData,
    /// One of these datasets: a file may belong to several.
    Dataset(Vec<Address>),
    /// All of these datasets.
    Datasets(Vec<Address>),
    /// All of these datasets as they are, and governed ones behind fences of its statement.
    Fenced {
        /// What is read outside of the fences.
        open: Vec<Address>,
        /// Whose barriers the fences were, and their texts as they are now.
        fences: Vec<FenceSeal>,
    },
    /// Nobody knows; the text names the leaf.
    Unknown(String),
}

/// How a dataset may be read in one query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// Everything of it.
    Open,
    /// Only behind the barrier with this fingerprint.
    Governed(String),
}

/// The datasets that one query may read, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants(BTreeMap<Address, Grant>);

impl Grants {
    /// Grants what a governance says: open when its fingerprint is empty.
    pub fn add(&mut self, address: Address, fingerprint: &str) {
        let grant = if fingerprint.is_empty() {
            Grant::Open
        } else {
            Grant::Governed(fingerprint.to_owned())
        };
        self.0.insert(address, grant);
    }

    /// How `address` may be read, or `None` when it may not.
    pub fn get(&self, address: &Address) -> Option<&Grant> {
        self.0.get(address)
    }

    /// Everything granted, in the order of the addresses.
    pub fn iter(&self) -> impl Iterator<Item = (&Address, &Grant)> {
        self.0.iter()
    }
}

/// Checks that `plan` reads nothing but what `grants` allows, and governed tables only behind their own barriers.
///
/// `leaf_of` is asked for each leaf but those that hold no data by their nature.
pub fn verify(
    plan: &Arc<dyn ExecutionPlan>,
    grants: &Grants,
    leaf_of: &dyn Fn(&dyn ExecutionPlan) -> Leaf,
) -> Result<()> {
    Verifier { grants, leaf_of }.walk(plan, None)
}

struct Verifier<'a> {
    grants: &'a Grants,
    leaf_of: &'a dyn Fn(&dyn ExecutionPlan) -> Leaf,
}

/// What a node lies behind.
#[derive(Clone, Copy)]
enum Behind<'a> {
    /// A barrier, below which everything is of its table.
    Barrier(&'a Seal),
    /// What stands over a statement with these fences.
    Fence(&'a [FenceSeal]),
}

impl fmt::Display for Behind<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Barrier(seal) => write!(formatter, "the barrier of `{}`", seal.address),
            Self::Fence(fences) => {
                let tables: Vec<String> = (fences.iter())
                    .map(|fence| format!("`{}`", fence.seal.address))
                    .collect();
                write!(formatter, "the fence of {}", tables.join(", "))
            }
        }
    }
}

impl Verifier<'_> {
    fn walk(&self, plan: &Arc<dyn ExecutionPlan>, behind: Option<Behind<'_>>) -> Result<()> {
        if let Some(barrier) = plan.downcast_ref::<PolicyBarrierExec>() {
            if let Some(outer) = behind {
                return refuse(format!("a barrier lies behind {outer}"));
            }
            self.check_seal(barrier.seal())?;
            return self.walk_all(plan, Some(Behind::Barrier(barrier.seal())));
        }
        if let Some(fence) = plan.downcast_ref::<PolicyFenceExec>() {
            if let Some(outer) = behind {
                return refuse(format!("a fence lies behind {outer}"));
            }
            (fence.seals().iter()).try_for_each(|fence| self.check_seal(&fence.seal))?;
            return self.walk_all(plan, Some(Behind::Fence(fence.seals())));
        }
        if let Some(leaf) = plan.downcast_ref::<DistributedLeafExec>() {
            self.walk(leaf.original(), behind)?;
            return leaf
                .variants()
                .iter()
                .try_for_each(|variant| self.walk(variant, behind));
        }
        if let Some(boundary) = plan.as_network_boundary() {
            if let Some(outer) = behind {
                return refuse(format!("a stage is cut behind {outer}"));
            }
            return match boundary.input_stage() {
                Stage::Local(_) => self.walk_all(plan, None),
                // What the other worker runs, it verifies itself.
                Stage::Remote(_) => Ok(()),
            };
        }
        if !plan.children().is_empty() {
            return self.walk_all(plan, behind);
        }
        if plan.is::<EmptyExec>() || plan.is::<PlaceholderRowExec>() || plan.is::<WorkTableExec>() {
            return Ok(());
        }
        match (self.leaf_of)(plan.as_ref()) {
            Leaf::NoData => Ok(()),
            Leaf::Fenced { open, fences } => self.check_fenced(&open, &fences, behind),
            Leaf::Unknown(name) => refuse(format!("nobody knows what `{name}` reads")),
            Leaf::Dataset(candidates) => self.check_leaf(&candidates, behind),
            Leaf::Datasets(all) if all.is_empty() => refuse("a statement that reads nobody knows what".to_owned()),
            Leaf::Datasets(all) => all
                .iter()
                .try_for_each(|one| self.check_leaf(std::slice::from_ref(one), behind)),
        }
    }

    fn walk_all(&self, plan: &Arc<dyn ExecutionPlan>, behind: Option<Behind<'_>>) -> Result<()> {
        plan.children()
            .into_iter()
            .try_for_each(|child| self.walk(child, behind))
    }

    fn check_seal(&self, seal: &Seal) -> Result<()> {
        match self.grants.get(&seal.address) {
            Some(Grant::Governed(fingerprint)) if *fingerprint == seal.fingerprint => Ok(()),
            Some(Grant::Governed(_)) => refuse(format!(
                "the barrier of `{}` was made for other policies or another user",
                seal.address
            )),
            Some(Grant::Open) => refuse(format!("`{}` is open and has a barrier", seal.address)),
            None => refuse(format!("`{}` is not granted", seal.address)),
        }
    }

    /// A statement has just the fences that it was closed with, with the texts that were made of their barriers, and reads nothing else that is governed.
    fn check_fenced(&self, open: &[Address], fences: &[FenceSeal], behind: Option<Behind<'_>>) -> Result<()> {
        let Some(Behind::Fence(closed)) = behind else {
            return refuse("a statement with fences does not lie behind them".to_owned());
        };
        if fences.is_empty() || fences != closed {
            return refuse(format!("a statement has other fences than {}", Behind::Fence(closed)));
        }
        open.iter()
            .try_for_each(|one| self.check_leaf(std::slice::from_ref(one), None))
    }

    fn check_leaf(&self, candidates: &[Address], behind: Option<Behind<'_>>) -> Result<()> {
        let granted = |address: &Address| match behind {
            Some(Behind::Barrier(seal)) => seal.address == *address,
            Some(Behind::Fence(_)) => false,
            None => self.grants.get(address) == Some(&Grant::Open),
        };
        if candidates.iter().any(granted) {
            return Ok(());
        }
        let names: Vec<String> = candidates.iter().map(|address| format!("`{address}`")).collect();
        let names = if names.is_empty() {
            "a dataset without an address".to_owned()
        } else {
            names.join(" or ")
        };
        match behind {
            Some(outer) => refuse(format!("{names} is read behind {outer}")),
            None => refuse(format!(
                "{names} is read outside a barrier without being granted as open"
            )),
        }
    }
}

fn refuse<T>(why: String) -> Result<T> {
    Err(DataFusionError::Plan(format!(
        "the plan was refused before it ran: {why}"
    )))
}

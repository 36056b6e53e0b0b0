//! What a stage may read, told to the worker that runs it.
//!
//! In: the tables that a query was allowed, open or governed. Out: a config extension that travels in the headers of each
//! stage (so it is small: 64-bit hashes), and on the worker a second verification of the decoded stage: every leaf reads
//! something that was granted, under the barrier that was granted with it. The worker decides nothing; it refuses what
//! the coordinator did not announce.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, LazyLock};

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, extensions_options, internal_datafusion_err};
use datafusion::config::{ConfigEntry, ConfigExtension, ConfigOptions};
use datafusion::execution::{SessionState, TaskContext, runtime_env::RuntimeEnv};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;
use datafusion_distributed::{
    DistributedConfig, DistributedExec, DistributedExt, WorkerPlanRewriteEvent, WorkerPlanRewriteEventResponse,
    WorkerPlanRewriteHandler,
};
use http::HeaderMap;
use minerva_connectors::{Depots, Fence, LeafSource, leaf_addresses};
use minerva_policy::{FenceSeal, Seal, fence_digest};
use minerva_policy::{Grant, Grants, Leaf, PolicyBarrierExec, PolicyFenceExec, verify};
use minerva_resources::Address;
use sha2::{Digest, Sha256};
use url::form_urlencoded;

use crate::messages::ResourcesVersion;

extensions_options! {
    /// What travels with each stage of a query besides its plan. Set by the coordinator, not by users.
    pub struct QueryGrants {
        /// The query, for logs.
        pub query_id: String, default = String::new()
        /// The resources the query was planned under.
        pub resources: String, default = String::new()
        /// The hashes of the addresses that may be read as they are, separated by commas.
        pub open: String, default = String::new()
        /// Pairs `address:fingerprint` of hashes, separated by commas: what may be read under that barrier only.
        pub governed: String, default = String::new()
        /// How many bytes of memory the query may have in one process.
        pub max_memory: Option<u64>, default = None
        /// How the coordinator's session differs from the defaults in what matters where a plan runs.
        pub options: String, default = String::new()
    }
}

impl ConfigExtension for QueryGrants {
    const PREFIX: &'static str = "minerva_query";
}

impl QueryGrants {
    /// What the stages of a query are told: what was granted to it, and the resources it was planned under.
    pub fn new(query_id: &str, resources: &ResourcesVersion, grants: &Grants) -> Self {
        let mut told = Self {
            query_id: query_id.to_owned(),
            resources: resources.0.clone(),
            ..Self::default()
        };
        for (address, grant) in grants.iter() {
            match grant {
                Grant::Open => push(&mut told.open, &hash(&address.to_string())),
                Grant::Governed(fingerprint) => push(&mut told.governed, &pair(address, fingerprint)),
            }
        }
        told
    }

    /// Bounds the memory of the query in each process.
    pub fn with_max_memory(self, max_memory: Option<u64>) -> Self {
        Self { max_memory, ..self }
    }

    /// The context in which the coordinator runs a plan: what travels with its stages is what is granted here. That of a plan that stays here has no
    /// functions, of which there are hundreds: only who reads a plan that has travelled looks for them by their names.
    pub fn into_context(
        mut self,
        state: &SessionState,
        runtime: Arc<RuntimeEnv>,
        plan: &Arc<dyn ExecutionPlan>,
    ) -> Arc<TaskContext> {
        let travels = is_distributed(plan);
        if travels {
            self.options = changed_options(state.config().options());
        }
        let config = state.config().clone().with_distributed_option_extension(self);
        if travels {
            return Arc::new(
                TaskContext::from(state)
                    .with_session_config(config)
                    .with_runtime(runtime),
            );
        }
        let session = state.session_id().to_owned();
        let (scalar, higher, aggregate, window) = Default::default();
        Arc::new(TaskContext::new(
            None, session, config, scalar, higher, aggregate, window, runtime,
        ))
    }
}

/// Whether stages of a plan may run on workers.
pub fn is_distributed(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<DistributedExec>() || plan.children().into_iter().any(is_distributed)
}

/// The options of a session that matter where its plans run and are not the defaults.
fn changed_options(options: &ConfigOptions) -> String {
    static USUAL: LazyLock<HashMap<String, Option<String>>> = LazyLock::new(|| {
        let entries = ConfigOptions::default().entries().into_iter();
        entries.map(|entry| (entry.key, entry.value)).collect()
    });
    let mut told = form_urlencoded::Serializer::new(String::new());
    for ConfigEntry { key, value, .. } in options.entries() {
        let matters = TOLD.iter().any(|prefix| key.starts_with(prefix)) && !OWN.contains(&key.as_str());
        if let Some(value) = value.filter(|value| matters && USUAL.get(&key) != Some(&Some(value.clone()))) {
            told.append_pair(&key, &value);
        }
    }
    told.finish()
}

/// Takes the options that came with a stage.
pub(crate) fn take_options(config: &mut SessionConfig) -> Result<()> {
    let granted = config.options().extensions.get::<QueryGrants>();
    let told = granted.map(|granted| granted.options.clone()).unwrap_or_default();
    // Set already, from an option of its own, when shuffles have batches of another size.
    let has_batch_size = DistributedConfig::from_session_config(config)?.shuffle_batch_size != 0;
    for (key, value) in form_urlencoded::parse(told.as_bytes()) {
        if !(has_batch_size && key == BATCH_SIZE) {
            config.options_mut().set(&key, &value)?;
        }
    }
    Ok(())
}

const TOLD: &[&str] = &["datafusion.execution.", "datafusion.optimizer."];
/// What depends on the machine and is used for planning only.
const OWN: &[&str] = &[
    "datafusion.execution.target_partitions",
    "datafusion.execution.planning_concurrency",
];
const BATCH_SIZE: &str = "datafusion.execution.batch_size";

/// The resources that the stage with these headers was planned under.
pub fn planned_under(headers: &HeaderMap) -> Option<ResourcesVersion> {
    let name = format!("x-datafusion-distributed-config-{}.resources", QueryGrants::PREFIX);
    let version = headers.get(name)?.to_str().ok()?;
    (!version.is_empty()).then(|| ResourcesVersion(version.to_owned()))
}

/// What a leaf reads, as `minerva_policy::verify` asks for it.
pub fn leaf_of(node: &dyn ExecutionPlan, depots: &Depots) -> Leaf {
    match leaf_addresses(node, depots) {
        LeafSource::NoData => Leaf::NoData,
        LeafSource::Dataset(addresses) => Leaf::Dataset(addresses),
        LeafSource::Datasets(addresses) => Leaf::Datasets(addresses),
        LeafSource::Fenced { open, fences } => Leaf::Fenced {
            open,
            fences: fences.into_iter().map(seal_of).collect(),
        },
        LeafSource::Unknown(what) => Leaf::Unknown(what),
    }
}

/// Whose barrier a fence of a statement says it was, and the text that it has.
fn seal_of(fence: Fence) -> FenceSeal {
    FenceSeal {
        digest: fence_digest(&fence.sql()),
        seal: Seal {
            address: fence.address,
            fingerprint: fence.fingerprint,
        },
    }
}

/// Verifies a stage before a worker runs it.
#[derive(Debug)]
pub(crate) struct VerifyStage;

impl WorkerPlanRewriteHandler for VerifyStage {
    fn rewrite_worker_plan(&self, event: WorkerPlanRewriteEvent<'_>) -> Result<WorkerPlanRewriteEventResponse> {
        verify_stage(&event.plan, event.session_config)?;
        Ok(WorkerPlanRewriteEventResponse::new(event.plan))
    }
}

fn verify_stage(plan: &Arc<dyn ExecutionPlan>, config: &SessionConfig) -> Result<()> {
    let missing = |what| move || internal_datafusion_err!("the worker's session was set up without its {what}");
    let depots = config.get_extension::<Depots>().ok_or_else(missing("depots"))?;
    let granted = config
        .options()
        .extensions
        .get::<QueryGrants>()
        .ok_or_else(missing("grants"))?;
    let grants = granted.for_plan(plan, &depots)?;
    verify(plan, &grants, &|leaf| leaf_of(leaf, &depots))
}

impl QueryGrants {
    /// The grants with the addresses that the hashes stand for, which are all found in the plan itself.
    fn for_plan(&self, plan: &Arc<dyn ExecutionPlan>, depots: &Depots) -> Result<Grants> {
        let open: BTreeSet<&str> = self.open.split(',').collect();
        let governed: BTreeSet<&str> = self.governed.split(',').collect();
        let mut grants = Grants::default();
        plan.apply(|node| {
            let seals: Vec<&Seal> = match node.downcast_ref::<PolicyBarrierExec>() {
                Some(barrier) => vec![barrier.seal().as_ref()],
                None => {
                    let fence = node.downcast_ref::<PolicyFenceExec>();
                    let seals = fence.map(PolicyFenceExec::seals).unwrap_or_default();
                    seals.iter().map(|fence| &fence.seal).collect()
                }
            };
            for seal in seals {
                if governed.contains(pair(&seal.address, &seal.fingerprint).as_str()) {
                    grants.add(seal.address.clone(), &seal.fingerprint);
                }
            }
            if node.children().is_empty()
                && let Leaf::Dataset(addresses) | Leaf::Datasets(addresses) | Leaf::Fenced { open: addresses, .. } =
                    leaf_of(node.as_ref(), depots)
            {
                for address in addresses {
                    if open.contains(hash(&address.to_string()).as_str()) {
                        grants.add(address, "");
                    }
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(grants)
    }
}

fn push(list: &mut String, item: &str) {
    if !list.is_empty() {
        list.push(',');
    }
    list.push_str(item);
}

fn pair(address: &Address, fingerprint: &str) -> String {
    format!("{}:{}", hash(&address.to_string()), hash(fingerprint))
}

/// 64 bits of SHA-256, in hexadecimal digits.
fn hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    crate::token::hex(digest.get(..8).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_differ_from_the_defaults_arrive() {
        let mut here = SessionConfig::new().with_batch_size(77).with_target_partitions(3);
        here.options_mut().execution.time_zone = Some("Europe/Zürich".to_owned());
        let told = changed_options(here.options());
        assert!(told.is_ascii() && !told.contains("target_partitions"), "{told}");

        let granted = QueryGrants {
            options: told,
            ..QueryGrants::default()
        };
        let mut there = SessionConfig::new().with_distributed_option_extension(granted);
        there = there.with_distributed_option_extension(DistributedConfig::default());
        take_options(&mut there).unwrap();
        assert_eq!(there.batch_size(), 77);
        assert_eq!(there.options().execution.time_zone.as_deref(), Some("Europe/Zürich"));
    }
}

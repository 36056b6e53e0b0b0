//! How leaves are dealt to the tasks of a stage.
//!
//! In: a leaf that reads a depot. Out: how many tasks it is worth, and one variant for each task, all with the same number
//! of partitions, which together read everything once. Files are cut only where their own source says that it can read
//! a piece of one; `datafusion-distributed` cuts every file, which reads compressed ones twice.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::memory::DataSourceExec;
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion::prelude::SessionConfig;
use datafusion_distributed::{
    DesiredTaskCountEvent, DesiredTaskCountEventResponse, DesiredTaskCountHandler, DistributedLeafExec,
    ScaleUpLeafNodeEvent, ScaleUpLeafNodeEventResponse, ScaleUpLeafNodeHandler,
};
use minerva_connectors::{Depots, ScanExec, split, splits_of};

/// Says how many tasks a leaf is worth.
#[derive(Debug)]
pub(crate) struct CountTasks;

#[async_trait]
impl DesiredTaskCountHandler for CountTasks {
    async fn handle(&self, event: DesiredTaskCountEvent<'_>) -> Option<Result<DesiredTaskCountEventResponse>> {
        if let Some(scan) = event.plan.downcast_ref::<ScanExec>() {
            return Some(tasks_of(scan, event.session_config).await);
        }
        let files = file_scan(event.plan)?;
        // A limit inside a leaf may be the limit of the whole query, which two tasks would reach twice; a declared
        // partitioning holds for the files as they are grouped. What is left is counted by size, as usual.
        let whole = files.limit.is_some() || files.output_partitioning.is_some();
        whole.then(|| Ok(DesiredTaskCountEventResponse::maximum(1)))
    }
}

async fn tasks_of(scan: &ScanExec, config: &SessionConfig) -> Result<DesiredTaskCountEventResponse> {
    let depots = config
        .get_extension::<Depots>()
        .ok_or_else(|| internal_datafusion_err!("the session was set up without its depots"))?;
    let source = depots.open(&scan.scan().address.depot).await?;
    if !source.distributable() || scan.fetch().is_some() {
        return Ok(DesiredTaskCountEventResponse::maximum(1));
    }
    let tasks = splits_of(scan).div_ceil(config.target_partitions().max(1)).max(1);
    Ok(DesiredTaskCountEventResponse::desired(tasks))
}

/// Deals a leaf's splits or files to the tasks of its stage.
#[derive(Debug)]
pub(crate) struct DealSplits;

impl ScaleUpLeafNodeHandler for DealSplits {
    fn handle(&self, event: ScaleUpLeafNodeEvent<'_>) -> Option<Result<ScaleUpLeafNodeEventResponse>> {
        let shares = if event.plan.is::<ScanExec>() || file_scan(event.plan).is_some() {
            shares(event.plan, event.task_count)
        } else {
            return None;
        };
        let leaf = shares.and_then(|shares| match shares {
            None => Ok(Arc::clone(event.plan)),
            Some(shares) => Ok(Arc::new(DistributedLeafExec::try_new(Arc::clone(event.plan), shares)?)),
        });
        Some(leaf.map(ScaleUpLeafNodeEventResponse::new))
    }
}

fn file_scan(leaf: &Arc<dyn ExecutionPlan>) -> Option<&FileScanConfig> {
    leaf.downcast_ref::<DataSourceExec>()?
        .data_source()
        .downcast_ref::<FileScanConfig>()
}

/// One variant for each task, or `None` when there is only one task.
fn shares(leaf: &Arc<dyn ExecutionPlan>, tasks: usize) -> Result<Option<Vec<Arc<dyn ExecutionPlan>>>> {
    if tasks <= 1 {
        return Ok(None);
    }
    if let Some(scan) = leaf.downcast_ref::<ScanExec>() {
        return Ok(Some(
            split(scan, tasks)
                .into_iter()
                .map(|share| Arc::new(share) as _)
                .collect(),
        ));
    }
    let Some(files) = file_scan(leaf) else {
        return Ok(None);
    };
    let partitions = leaf.output_partitioning().partition_count().max(1);
    let order = leaf.output_ordering().cloned();
    let cut = files.file_source().repartitioned(partitions * tasks, 0, order, files)?;
    let dealt = match cut {
        Some(cut) => deal_pieces(cut.file_groups, partitions, tasks),
        None => deal_files(&files.file_groups, tasks),
    };
    let shares = dealt.into_iter().map(|file_groups| {
        let mut share = files.clone();
        share.file_groups = file_groups;
        DataSourceExec::from_data_source(share) as Arc<dyn ExecutionPlan>
    });
    Ok(Some(shares.collect()))
}

/// Deals pieces that were cut for so many partitions of so many tasks, one to each task in turn.
fn deal_pieces(pieces: Vec<FileGroup>, partitions: usize, tasks: usize) -> Vec<Vec<FileGroup>> {
    let mut dealt = vec![Vec::new(); tasks];
    let rounds = pieces.len().div_ceil(tasks).max(partitions);
    let padded = pieces
        .into_iter()
        .chain(std::iter::repeat_with(FileGroup::default))
        .take(rounds * tasks);
    for (share, piece) in (0..tasks).cycle().zip(padded) {
        if let Some(share) = dealt.get_mut(share) {
            share.push(piece);
        }
    }
    dealt
}

/// Deals whole files: each task gets a run of the files of each group, so that the order inside groups stays, and
/// beginning with another task for each group, so that groups of one file spread as well.
fn deal_files(groups: &[FileGroup], tasks: usize) -> Vec<Vec<FileGroup>> {
    let share = |task: usize| {
        let runs = groups.iter().enumerate().map(|(number, group)| {
            let turn = (task + number) % tasks;
            let files = group.files();
            let (from, to) = (files.len() * turn / tasks, files.len() * (turn + 1) / tasks);
            FileGroup::new(files.get(from..to).unwrap_or_default().to_vec())
        });
        runs.collect()
    };
    (0..tasks).map(share).collect()
}

#[cfg(test)]
mod tests {
    use datafusion::datasource::listing::PartitionedFile;

    use super::*;

    fn group(names: &[&str]) -> FileGroup {
        FileGroup::new(
            names
                .iter()
                .map(|name| PartitionedFile::new((*name).to_owned(), 1))
                .collect(),
        )
    }

    fn names(dealt: Vec<Vec<FileGroup>>) -> Vec<Vec<String>> {
        let name = |group: &FileGroup| {
            let names: Vec<&str> = group
                .files()
                .iter()
                .map(|file| file.object_meta.location.as_ref())
                .collect();
            names.join(" ")
        };
        dealt.iter().map(|groups| groups.iter().map(name).collect()).collect()
    }

    #[test]
    fn whole_files_are_dealt_once_and_stay_in_order() {
        assert_eq!(
            names(deal_files(&[group(&["a"]), group(&["b"])], 2)),
            [["", "b"], ["a", ""]]
        );
        assert_eq!(names(deal_files(&[group(&["a", "b", "c"])], 2)), [["a"], ["b c"]]);
        assert_eq!(names(deal_files(&[group(&["a"])], 3)), [[""], [""], ["a"]]);
    }

    #[test]
    fn pieces_are_padded_to_the_same_number_for_each_task() {
        let pieces = vec![group(&["a"]), group(&["b"]), group(&["c"])];
        assert_eq!(names(deal_pieces(pieces.clone(), 2, 2)), [["a", "c"], ["b", ""]]);
        assert_eq!(names(deal_pieces(pieces, 1, 2)), [["a", "c"], ["b", ""]]);
        assert_eq!(names(deal_pieces(Vec::new(), 1, 2)), [[""], [""]]);
    }
}

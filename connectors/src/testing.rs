//! What the tests of this crate share: depots made from manifests in a temporary folder, and a session to read them with.

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::physical_plan::collect;
use datafusion::prelude::SessionConfig;

use crate::Depots;

/// The depots of some manifests, which are written to `folder` so that relative paths start there.
pub(crate) fn depots(folder: &Path, manifests: &str) -> Arc<Depots> {
    let file = folder.join("depots.yaml");
    std::fs::write(&file, manifests).unwrap();
    Arc::new(Depots::new(Arc::new(resources(&file).unwrap())))
}

/// What a manifest file holds, or all that is wrong with it.
pub(crate) fn resources(file: &Path) -> Result<minerva_resources::ResourceSet, String> {
    minerva_resources::load(&[file.to_owned()], &[crate::check]).map_err(|problems| problems.to_string())
}

/// A session over the depots, with two partitions.
pub(crate) fn session(depots: &Arc<Depots>) -> SessionState {
    let config = SessionConfig::new()
        .with_target_partitions(2)
        .with_extension(Arc::clone(depots));
    SessionStateBuilder::new()
        .with_default_features()
        .with_config(config)
        .build()
}

/// The table of a dataset that is there.
pub(crate) async fn table(
    depots: &Arc<Depots>,
    depot: &str,
    collection: &str,
    dataset: &str,
) -> Arc<dyn TableProvider> {
    let source = depots.open(depot).await.unwrap();
    source
        .dataset(collection, dataset, &session(depots))
        .await
        .unwrap()
        .unwrap()
}

/// All rows of a dataset.
pub(crate) async fn rows(
    depots: &Arc<Depots>,
    depot: &str,
    collection: &str,
    dataset: &str,
) -> datafusion::error::Result<Vec<RecordBatch>> {
    let session = session(depots);
    let source = depots.open(depot).await?;
    let table = source.dataset(collection, dataset, &session).await?.unwrap();
    let plan = table.scan(&session, None, &[], None).await?;
    collect(plan, session.task_ctx()).await
}

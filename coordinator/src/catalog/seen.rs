//! Tables that a statement is planned with as they were last seen, while their depots are asked whether they still are.
//!
//! In: the tables that the door opens for a statement. Out: whether all of them are as they were seen. Where they are not, what was planned with them is of no use,
//! and so is an error that planning met.

use std::sync::{Arc, Mutex, PoisonError};

use datafusion::{catalog::TableProvider, error::DataFusionError};
use futures::future::try_join_all;
use minerva_connectors::{Seen, Source};
use minerva_resources::Address;

use crate::error::Result;

/// What one depot is asked about.
type Asked = (Arc<dyn Source>, Vec<Seen>);

/// The tables of one statement.
#[derive(Debug, Default)]
pub(crate) struct SeenTables(Mutex<Vec<Asked>>);

impl SeenTables {
    /// The table as its depot last saw it, if that is remembered.
    pub(super) fn open(&self, source: &Arc<dyn Source>, address: &Address) -> Option<Arc<dyn TableProvider>> {
        let (table, state) = source.seen(&address.collection, &address.dataset)?;
        let seen = Seen {
            collection: address.collection.clone(),
            dataset: address.dataset.clone(),
            state,
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.iter_mut().find(|(other, _)| Arc::ptr_eq(other, source)) {
            Some((_, of_source)) => of_source.push(seen),
            None => all.push((Arc::clone(source), vec![seen])),
        }
        Some(table)
    }

    /// Whether all are still as they were seen. Each depot is asked once, and all at the same time.
    pub(crate) async fn are_as_seen(&self) -> Result<bool> {
        let all = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let answers = all.iter().map(|(source, seen)| source.are_as_seen(seen));
        let answers = try_join_all(answers).await.map_err(DataFusionError::from)?;
        Ok(answers.into_iter().all(|is_as_seen| is_as_seen))
    }
}

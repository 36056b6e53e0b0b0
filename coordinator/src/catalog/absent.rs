//! What may not be selected is as what is not there: the same text, the same code, the same work.
//!
//! In: a name. Out: what is told of it, which for a denied table is what is told of a missing one. A depot is never asked about a table that may not be selected.

use datafusion::error::DataFusionError;
use minerva_policy::Explanation;
use minerva_resources::Address;

use super::Catalog;
use crate::error::{Code, Result};

/// A name that nobody gives to a dataset or collection.
const NO_SUCH_NAME: &str = "no-such-name-90f1c4";

impl Catalog<'_> {
    /// Does for a table that may not be selected what is done for one that is not there: the same work, and the same failures. What a depot says
    /// of the table itself is never asked for.
    pub(super) async fn look_for_nothing(&self, address: &Address) -> Result<()> {
        let rules = &self.snapshot.rules;
        let depot = &address.depot;
        if self.snapshot.set.depot(depot).is_none() || !rules.may_see_depot(self.principal, depot) {
            return Ok(());
        }
        let collection = match rules.may_see_collection(self.principal, depot, &address.collection) {
            true => address.collection.as_str(),
            false => NO_SUCH_NAME,
        };
        let failed = DataFusionError::from;
        let source = self.engine.depots.open(depot).await.map_err(failed)?;
        let state = self.session.state(self.snapshot, false);
        source.dataset(collection, NO_SUCH_NAME, &state).await.map_err(failed)?;
        Ok(())
    }

    /// What the principal sees of a table and why; what they may not select is answered as what does not exist.
    pub(crate) async fn own_decision(&self, address: &Address) -> Result<Explanation> {
        let is_there = self.snapshot.set.depot(&address.depot).is_some();
        match is_there && self.snapshot.rules.may_select(self.principal, address).allowed {
            true => match self.explain(self.principal, address).await {
                Err(error) if error.code == Code::TableNotFound => {}
                explained => return explained,
            },
            false => self.look_for_nothing(address).await?,
        }
        Err(self
            .not_found(&address.depot, &address.collection, &address.dataset)
            .await)
    }
}

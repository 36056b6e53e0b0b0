//! Which tables are closed to whom and why, for operators.
//!
//! In: the resources in force. Out: every table that some declared user may select and that a policy closes to them. Each depot is asked for its tables and
//! columns, so this takes a while, and stops when its time is over.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use datafusion::{arrow::datatypes::SchemaRef, error::DataFusionError};
use futures::future::join_all;
use minerva_policy::{Principal, Verdict, decide};
use minerva_resources::Address;

use super::Catalog;
use crate::{
    error::{Code, QueryError, Result},
    gateway::auth,
};

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct ClosedTables {
    /// The closed tables.
    pub(crate) closed: Vec<Closed>,
    /// Depots and tables that could not be read, and why.
    pub(crate) unreadable: Vec<(String, String)>,
    /// Whether everything was looked at.
    pub(crate) complete: bool,
}

impl Catalog<'_> {
    /// A table whose policies cannot be applied is closed; only operators learn which policy and why.
    pub(super) fn closed(&self, address: &Address, closed: &minerva_policy::ClosedTable) -> QueryError {
        let detail = match self.principal.is_operator() {
            true => closed.message.clone(),
            false => {
                let policies: Vec<_> = closed
                    .because
                    .iter()
                    .map(|policy| format!("`{}`", policy.name))
                    .collect();
                format!("policy {} cannot be applied to it", policies.join(", "))
            }
        };
        QueryError::new(Code::PolicyError, format!("dataset `{address}` is closed: {detail}"))
            .with_hint("an operator sees the reason with `minerva policy explain`")
    }
}

/// A table that is closed to some users for one reason.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) address: Address,
    pub(crate) users: Vec<String>,
    pub(crate) reason: String,
    pub(crate) policies: Vec<String>,
}

impl Catalog<'_> {
    /// The tables that are closed to some declared user.
    pub(crate) async fn closed_tables(&self, within: Duration) -> ClosedTables {
        let until = Instant::now() + within;
        let users: Vec<Principal> = self.snapshot.set.users().map(|user| auth::principal(user)).collect();
        let users = &users;
        // At the same time, so that one that does not answer costs the others nothing.
        let looked = self.snapshot.set.depots().map(|depot| async move {
            let name = depot.meta.name.as_str();
            let mut found = ClosedTables {
                complete: true,
                ..ClosedTables::default()
            };
            match tokio::time::timeout(within, self.closed_of(name, users, until, &mut found)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => found.unreadable.push((name.to_owned(), error.message)),
                Err(_) => {
                    found.complete = false;
                    let message = format!("it did not answer within {} seconds", within.as_secs());
                    found.unreadable.push((name.to_owned(), message));
                }
            }
            found
        });
        let mut found = ClosedTables {
            complete: true,
            ..ClosedTables::default()
        };
        for part in join_all(looked).await {
            found.closed.extend(part.closed);
            found.unreadable.extend(part.unreadable);
            found.complete &= part.complete;
        }
        found
    }

    async fn closed_of(
        &self,
        depot: &str,
        users: &[Principal],
        until: Instant,
        found: &mut ClosedTables,
    ) -> Result<()> {
        let failed = |error: minerva_connectors::Error| QueryError::from(DataFusionError::from(error));
        let source = self.engine.depots.open(depot).await.map_err(failed)?;
        let state = self.snapshot.templates.unnamed();
        for collection in source.collections().await.map_err(failed)? {
            let names = source.datasets(&collection).await.map_err(failed)?;
            let columns = source.columns(&collection, &names, state).await.map_err(failed)?;
            for (name, columns) in names.iter().zip(columns) {
                if Instant::now() >= until {
                    found.complete = false;
                    return Ok(());
                }
                let address = Address::new(depot, &collection, name);
                match columns {
                    Ok(Some(schema)) => found.closed.extend(self.closed_to(&address, &schema, users)),
                    Ok(None) => {}
                    Err(error) => found.unreadable.push((address.to_string(), failed(error).message)),
                }
            }
            // Deciding computes: others get their turn.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn closed_to(&self, address: &Address, schema: &SchemaRef, users: &[Principal]) -> Vec<Closed> {
        let mut by_reason: BTreeMap<String, Closed> = BTreeMap::new();
        for user in users {
            let Verdict::Closed(closed) = decide(&self.snapshot.rules, user, address, schema) else {
                continue;
            };
            let policies = closed.because.iter().map(|policy| policy.name.clone());
            let entry = by_reason.entry(closed.message.clone()).or_insert_with(|| Closed {
                address: address.clone(),
                users: Vec::new(),
                reason: closed.message.clone(),
                policies: policies.collect(),
            });
            entry.users.push(user.id.clone());
        }
        by_reason.into_values().collect()
    }
}

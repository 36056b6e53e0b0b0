//! What a statement that writes may write to.
//!
//! In: a name, and what is to be done. Out: the depot, once an access policy allows it and the depot's manifest says that it takes writes. What
//! one may neither select nor write to does not exist: the same text and code as for a name that nobody has.

use std::sync::Arc;

use datafusion::{arrow::datatypes::Schema, catalog::TableProvider, common::TableReference, error::DataFusionError};
use minerva_policy::{Verdict, decide, protect_to_change};
use minerva_resources::Address;

use super::{Catalog, Changed, Place, Target};
use crate::{
    audit::trace,
    error::{Code, QueryError, Result},
};

/// What is to be done to a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    CreateTable,
    CreateView,
    Insert,
    Update,
    Delete,
    DropTable,
    DropView,
}

impl Deed {
    /// What an access policy must allow for it.
    pub(crate) fn predicate(self) -> &'static str {
        match self {
            Deed::CreateTable | Deed::CreateView => "create",
            Deed::Insert => "insert",
            Deed::Update => "update",
            Deed::Delete => "delete",
            Deed::DropTable | Deed::DropView => "drop",
        }
    }

    /// The statement, for messages.
    pub(crate) fn statement(self) -> &'static str {
        match self {
            Deed::CreateTable => "CREATE TABLE",
            Deed::CreateView => "CREATE VIEW",
            Deed::Insert => "INSERT",
            Deed::Update => "UPDATE",
            Deed::Delete => "DELETE",
            Deed::DropTable => "DROP TABLE",
            Deed::DropView => "DROP VIEW",
        }
    }

    fn makes(self) -> bool {
        matches!(self, Deed::CreateTable | Deed::CreateView)
    }
}

impl Catalog<'_> {
    /// The address that a name of a statement means.
    pub(crate) fn address_of(&self, name: &[String]) -> Result<Address> {
        let reference = match name {
            [table] => TableReference::bare(table.as_str()),
            [schema, table] => TableReference::partial(schema.as_str(), table.as_str()),
            [catalog, schema, table] => TableReference::full(catalog.as_str(), schema.as_str(), table.as_str()),
            _ => {
                let message = format!("`{}` is no name of a table", name.join("."));
                return Err(QueryError::new(Code::SyntaxError, message));
            }
        };
        let (catalog, schema, table) = self.complete(&reference)?;
        Ok(Address::new(catalog, schema, table))
    }

    /// The depot that is written to, after the access decision.
    pub(crate) async fn writable(&self, name: &[String], deed: Deed) -> Result<Place> {
        let address = self.address_of(name)?;
        let unknown = || self.not_found(&address.depot, &address.collection, &address.dataset);
        let Some(depot) = self.snapshot.set.depot(&address.depot) else {
            return Err(unknown().await);
        };
        let decision = self
            .snapshot
            .rules
            .may_write(self.principal, deed.predicate(), &address);
        trace::written(&address, deed.predicate(), &decision);
        if !decision.allowed {
            // What is there may be told only to who may know of it.
            let is_known = match deed.makes() {
                true => self.catalogs().contains(&address.depot),
                false => self.views_of(&address) || self.governed(&address).await?.is_some(),
            };
            if !is_known {
                return Err(unknown().await);
            }
            return Err(self.may_not(deed, &address));
        }
        let source = self
            .engine
            .depots
            .open(&address.depot)
            .await
            .map_err(DataFusionError::from)?;
        if source.writer().is_none() {
            return Err(DataFusionError::from(source.refusal(deed.statement())).into());
        }
        if !depot.writable {
            let message = format!(
                "depot `{}` is only read: its manifest does not say `acl: rw`",
                address.depot
            );
            return Err(QueryError::new(Code::NotSupported, message)
                .with_hint("whoever owns the manifest can let it be written to"));
        }
        Ok(Place {
            depot: depot.clone(),
            address,
            source,
        })
    }

    fn may_not(&self, deed: Deed, address: &Address) -> QueryError {
        let (user, predicate) = (&self.principal.id, deed.predicate());
        let message = format!("user `{user}` may not {predicate} `{address}`");
        let hint = format!("an access policy must allow `{predicate}` or `write` on the dataset's address");
        QueryError::new(Code::PermissionDenied, message).with_hint(hint)
    }

    /// Refuses a deed that gives values to a column, or takes them away, which a policy denies. With each column stand the tags that come with its
    /// values.
    pub(crate) fn expect_columns<'c>(
        &self,
        deed: Deed,
        address: &Address,
        columns: impl Iterator<Item = (&'c str, Vec<String>)>,
    ) -> Result<()> {
        let rules = &self.snapshot.rules;
        let Some((column, decision)) = rules.unwritable(self.principal, deed.predicate(), address, columns) else {
            return Ok(());
        };
        trace::written(address, deed.predicate(), &decision);
        let (user, predicate) = (&self.principal.id, deed.predicate());
        match deed {
            // The column is one that they named, or that they see.
            Deed::CreateTable | Deed::CreateView | Deed::Insert | Deed::Update => {
                let message = format!("user `{user}` may not {predicate} column `{column}` of `{address}`");
                Err(QueryError::new(Code::PermissionDenied, message)
                    .with_hint("name the columns that you write, and leave it out"))
            }
            // They may not know of the column.
            Deed::Delete | Deed::DropTable | Deed::DropView => Err(self.may_not(deed, address)),
        }
    }

    /// The same for all columns of a table, whether the user sees them or not.
    pub(crate) async fn expect_all_columns(&self, deed: Deed, place: &Place) -> Result<()> {
        let address = &place.address;
        if !self
            .snapshot
            .rules
            .may_deny_columns(self.principal, deed.predicate(), address)
        {
            return Ok(());
        }
        let state = self.snapshot.templates.unnamed();
        let found = place.source.dataset(&address.collection, &address.dataset, state);
        let Some(raw) = found.await.map_err(DataFusionError::from)? else {
            return Ok(());
        };
        let schema = raw.schema();
        self.expect_columns(
            deed,
            address,
            schema.fields().iter().map(|field| (field.name().as_str(), vec![])),
        )
    }

    fn views_of(&self, address: &Address) -> bool {
        self.engine.views().get(address).is_some() && self.snapshot.rules.may_select(self.principal, address).allowed
    }

    /// The dataset that rows are added to, changed in or removed from, and what the user sees of it. It must be one that they may select.
    pub(crate) async fn target(&self, place: &Place) -> Result<Target> {
        let address = &place.address;
        if self.views_of(address) {
            let message = format!("`{address}` is a view, and rows are written to tables only");
            return Err(QueryError::new(Code::NotSupported, message));
        }
        let unknown = || self.not_found(&address.depot, &address.collection, &address.dataset);
        let access = self.snapshot.rules.may_select(self.principal, address);
        if !access.allowed {
            trace::decided(address, &access, None);
            self.look_for_nothing(address).await?;
            return Err(unknown().await);
        }
        let state = self.snapshot.templates.unnamed();
        let found = place.source.dataset(&address.collection, &address.dataset, state).await;
        let Some(raw) = found.map_err(DataFusionError::from)? else {
            std::hint::black_box(self.sees_place(address));
            return Err(unknown().await);
        };
        self.expect_same_tags(address)?;
        let schema = raw.schema();
        match decide(&self.snapshot.rules, self.principal, address, &schema) {
            Verdict::Deny(_) => Err(unknown().await),
            Verdict::Closed(closed) => Err(self.closed(address, &closed)),
            Verdict::Allow(governance) => {
                let known = schema.fields().iter().filter(|field| !governance.hides(field.name()));
                Ok(Target {
                    schema: Arc::new(Schema::new(known.cloned().collect::<Vec<_>>())),
                    raw: schema,
                    governance,
                })
            }
        }
    }

    /// The rows of a target that the user sees, out of `raw`, which has their identity too; under a name that stands for them in one query.
    pub(crate) fn changed(
        &self,
        name: &'static str,
        place: &Place,
        target: &Target,
        raw: Arc<dyn TableProvider>,
    ) -> Result<Changed> {
        Ok(Changed {
            name,
            table: protect_to_change(&place.address, &target.governance, raw)?,
            address: place.address.clone(),
            fingerprint: target.governance.fingerprint.clone(),
        })
    }
}

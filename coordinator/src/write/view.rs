//! CREATE VIEW and DROP VIEW, of a session and of a depot.
//!
//! In: a query. Out: its text is kept. A name without catalog and schema is a view of the session, as long as that lives.

use datafusion::sql::sqlparser::ast::Query as QueryAst;

use super::{Writing, from_depot};
use crate::{
    audit::trace,
    catalog::{Catalog, Deed},
    error::{Code, QueryError, Result},
    session::{MAX_VIEWS, View},
    views::Definition,
};

/// The view that is to be made.
pub(super) struct New<'a> {
    pub(super) name: &'a [String],
    pub(super) columns: Vec<String>,
    pub(super) or_replace: bool,
    pub(super) if_not_exists: bool,
}

impl Writing<'_> {
    pub(super) async fn create_view(&self, new: New<'_>, query: Box<QueryAst>) -> Result<u64> {
        let exists = |name: &str| {
            let message = format!("view `{name}` exists already");
            QueryError::new(Code::TableAlreadyExists, message).with_hint("use CREATE OR REPLACE VIEW")
        };
        if let [name] = new.name {
            if self.session.view(name).is_some() && !new.or_replace {
                return if new.if_not_exists { Ok(0) } else { Err(exists(name)) };
            }
            crate::query::logical(self.session, self.snapshot, query.as_ref().clone()).await?;
            let view = View {
                query,
                columns: new.columns,
                catalog: self.session.catalog_name(),
                schema: self.session.schema_name(),
            };
            return match self.session.keep_view(name, view) {
                true => Ok(0),
                false => Err(
                    QueryError::new(Code::NotSupported, format!("a session keeps at most {MAX_VIEWS} views"))
                        .with_hint("DROP VIEW what is not needed"),
                ),
            };
        }
        let name = new.name.join(".");
        let place = Catalog::of(self.session, self.snapshot)
            .writable(new.name, Deed::CreateView)
            .await?;
        let address = &place.address;
        let datasets = place.source.datasets(&address.collection).await.map_err(from_depot)?;
        if datasets.contains(&address.dataset) {
            return Err(QueryError::new(
                Code::TableAlreadyExists,
                format!("table `{name}` exists already"),
            ));
        }
        if let Some(view) = Catalog::of(self.session, self.snapshot).session_view_in(&query)? {
            let message = format!("view `{name}` would outlive view `{view}` of this session, which it reads");
            return Err(QueryError::new(Code::NotSupported, message).with_hint("name a table, or a view of a depot"));
        }
        let (_, _, plan) = crate::query::logical(self.session, self.snapshot, query.as_ref().clone()).await?;
        let found = plan.schema().fields().len();
        if !new.columns.is_empty() && new.columns.len() != found {
            let message = format!(
                "view `{name}` names {} columns, its query has {found}",
                new.columns.len()
            );
            return Err(QueryError::new(Code::TypeMismatch, message));
        }
        let definition = Definition {
            query: query.to_string(),
            columns: new.columns,
            catalog: self.session.catalog_name(),
            schema: self.session.schema_name(),
        };
        // What is kept must mean what was said.
        if definition.read()?.query != query {
            let message = "the query cannot be kept as text without changing it";
            return Err(QueryError::new(Code::NotSupported, message).with_hint("write it in a simpler way"));
        }
        let engine = self.session.engine();
        let text = serde_json::to_string(&definition)
            .map_err(|failure| QueryError::new(Code::GenericInternalError, failure.to_string()))?;
        let kept = engine
            .store
            .keep_view(address, &self.session.principal().id, &text, new.or_replace)?;
        engine.take_views()?;
        match kept || new.if_not_exists {
            true => Ok(0),
            false => Err(exists(&name)),
        }
    }

    pub(super) async fn drop_view(&self, name: &[String], if_exists: bool) -> Result<u64> {
        let unknown = || QueryError::new(Code::TableNotFound, format!("view `{}` does not exist", name.join(".")));
        let forgotten = match name {
            [name] => self.session.forget_view(name),
            _ => {
                let place = match Catalog::of(self.session, self.snapshot)
                    .writable(name, Deed::DropView)
                    .await
                {
                    Ok(place) => place,
                    Err(error) if if_exists && matches!(error.code, Code::TableNotFound | Code::CatalogNotFound) => {
                        return Ok(0);
                    }
                    Err(error) => return Err(error),
                };
                let forgotten = self.session.engine().store.forget_view(&place.address)?;
                self.session.engine().take_views()?;
                if !forgotten {
                    trace::absent(&place.address);
                }
                forgotten
            }
        };
        match forgotten || if_exists {
            true => Ok(0),
            false => Err(unknown()),
        }
    }
}

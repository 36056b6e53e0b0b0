//! CREATE TABLE, INSERT and DROP TABLE.
//!
//! In: a query and where its rows go. Out: how many there were. Of a new table the tags are kept before there is anything to read.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::{DataType, Field, Schema, SchemaRef},
    common::ScalarValue,
    error::DataFusionError,
    execution::SendableRecordBatchStream,
    physical_plan::stream::RecordBatchStreamAdapter,
    sql::sqlparser::ast::Query as QueryAst,
};
use futures::{StreamExt, TryStreamExt};
use minerva_connectors::Writer;

use super::{Writing, check::Check, fit, from_depot, tags};
use crate::{
    audit::trace,
    catalog::{Catalog, Deed, Place},
    columns,
    error::{Code, QueryError, Result},
    query::{self, Planned},
};

/// The table that is to be made.
pub(super) struct New<'a> {
    pub(super) name: &'a [String],
    pub(super) not_null: &'a [String],
    pub(super) if_not_exists: bool,
}

impl Writing<'_> {
    pub(super) async fn create_table(
        &self,
        new: New<'_>,
        query: QueryAst,
        parameters: Vec<ScalarValue>,
    ) -> Result<u64> {
        let catalog = Catalog::of(self.session, self.snapshot);
        let place = catalog.writable(new.name, Deed::CreateTable).await?;
        let address = &place.address;
        let exists = || {
            let message = format!("table `{}` exists already", new.name.join("."));
            QueryError::new(Code::TableAlreadyExists, message)
        };
        let datasets = place.source.datasets(&address.collection).await.map_err(from_depot)?;
        if datasets.contains(&address.dataset) || self.session.engine().views().get(address).is_some() {
            return match new.if_not_exists {
                true => Ok(0),
                false => Err(exists()),
            };
        }
        let (state, names, logical) = query::logical(self.session, self.snapshot, query).await?;
        let schema = columns::without_marks(&Arc::new(logical.schema().as_arrow().clone()));
        let columns: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
        let tags = self.carried(&logical, &columns)?;
        let with_tags = columns
            .iter()
            .map(|column| (column.as_str(), tags::of_column(&tags, column)));
        catalog.expect_columns(Deed::CreateTable, address, with_tags)?;
        tags::expect_accepted(&tags, &place.depot)?;
        let writer = writer(&place)?;
        let planned = query::verified_to_write(self.session, state, names, logical, parameters).await?;
        // With values bound to its parameters a column may have found another type.
        let schema = columns::without_marks(&planned.physical.schema());
        let stored = writer.stored(&new_columns(&schema, new.not_null)).map_err(from_depot)?;
        let _changing = self.session.engine().metadata.changing(address);
        let origin = self.tracked.id();
        if !tags.is_empty() {
            self.session.engine().store.add_tags(address, &tags, &origin)?;
        }
        let made = self.make(&planned, &place, stored, writer).await;
        let missing = match &made {
            Ok(_) => false,
            Err(error) if error.code == Code::TableAlreadyExists => true,
            // It may be made a moment later: tags too many are no harm, and a copy without its tags is.
            Err(error) if error.code == Code::TransactionResolutionUnknown => false,
            Err(_) => (place.source.datasets(&address.collection).await)
                .is_ok_and(|datasets| !datasets.contains(&address.dataset)),
        };
        if missing && !tags.is_empty() {
            self.session.engine().store.forget_tags(address, &origin)?;
            self.take_tags().await?;
        }
        made.map_err(|error| match error.code {
            Code::TableAlreadyExists => exists(),
            _ => error,
        })
    }

    /// Makes a table of the rows of a plan, once its tags are in force.
    async fn make(&self, planned: &Planned, place: &Place, stored: SchemaRef, writer: &dyn Writer) -> Result<u64> {
        self.take_tags().await?;
        let rows = self.rows(planned, place, stored, None, writer).await?;
        let address = &place.address;
        Ok(writer.create(&address.collection, &address.dataset, rows).await?)
    }

    pub(super) async fn insert(
        &self,
        name: &[String],
        columns: Vec<String>,
        query: QueryAst,
        parameters: Vec<ScalarValue>,
    ) -> Result<u64> {
        let catalog = Catalog::of(self.session, self.snapshot);
        let place = catalog.writable(name, Deed::Insert).await?;
        let target = catalog.target(&place).await?;
        let address = &place.address;
        let written = fit::named(&target.schema, &columns)?;
        let masked = target.governance.masked_columns();
        if let Some(field) = written.fields().iter().find(|field| masked.contains(field.name())) {
            let message = format!(
                "column `{}` of `{address}` is masked for you, and takes no values of yours",
                field.name()
            );
            return Err(QueryError::new(Code::PermissionDenied, message)
                .with_hint("name the columns that you write, and leave it out"));
        }
        catalog.expect_columns(
            Deed::Insert,
            address,
            written.fields().iter().map(|field| (field.name().as_str(), vec![])),
        )?;
        let is_filtered = !target.governance.filters.is_empty();
        let filtered = target.governance.filtered_columns();
        // What does not exist for the user may be needed all the same; an error of the depot would name it.
        let needs_default = !writer(&place)?.has_defaults();
        let needed = |field: &datafusion::arrow::datatypes::Field| {
            filtered.contains(field.name()) || needs_default && !field.is_nullable()
        };
        let cannot_give =
            (target.raw.fields().iter()).any(|field| target.governance.hides(field.name()) && needed(field));
        if cannot_give {
            let message = format!("a row of `{address}` needs more than you can give, so that it takes none of yours");
            return Err(QueryError::new(Code::PermissionDenied, message));
        }
        if is_filtered && written.fields().len() < target.schema.fields().len() {
            let hidden: Vec<_> = (target.schema.fields().iter())
                .filter(|field| written.field_with_name(field.name()).is_err())
                .map(|field| format!("`{}`", field.name()))
                .collect();
            let message = format!(
                "rows of `{address}` are filtered for you, so that an INSERT must give every column; {} is missing",
                hidden.join(", ")
            );
            return Err(QueryError::new(Code::PermissionDenied, message));
        }
        let (state, names, logical) = query::logical(self.session, self.snapshot, query).await?;
        let found = logical.schema().fields().len();
        if found != written.fields().len() {
            let message = format!(
                "{} columns were expected, the rows have {found}",
                written.fields().len()
            );
            return Err(QueryError::new(Code::TypeMismatch, message));
        }
        let names_written: Vec<String> = written.fields().iter().map(|field| field.name().clone()).collect();
        let tags = self.lacking(self.carried(&logical, &names_written)?, address);
        tags::expect_accepted(&tags, &place.depot)?;
        tags::expect_none_new(&tags, address)?;
        let writer = writer(&place)?;
        let planned = query::verified_to_write(self.session, state, names, logical, parameters).await?;
        let schema = planned.physical.schema();
        fit::expect_assignable(schema.fields().iter().map(|field| field.data_type()), &written)?;
        let state = self.session.state(self.snapshot, false);
        let check = Check::of(address, &target.governance, &written, &state)?;
        let mut rows = self.rows(&planned, &place, Arc::clone(&written), check, writer).await?;
        if !writer.has_defaults() {
            let all = Arc::clone(&target.raw);
            let whole = Arc::clone(&all);
            let batches = rows.map(move |batch| batch.and_then(|batch| Ok(fit::complete(&batch, &all)?)));
            rows = Box::pin(RecordBatchStreamAdapter::new(whole, batches));
        }
        Ok(writer.append(&address.collection, &address.dataset, rows).await?)
    }

    /// Runs a plan; its rows as rows of the table, each checked before it is written.
    async fn rows(
        &self,
        planned: &Planned,
        place: &Place,
        columns: SchemaRef,
        check: Option<Check>,
        writer: &dyn Writer,
    ) -> Result<SendableRecordBatchStream> {
        let reads_itself = planned
            .names
            .addresses
            .iter()
            .any(|read| read.depot == place.address.depot);
        if reads_itself {
            writer.expect_room_to_read().map_err(from_depot)?;
        }
        // Whoever writes has its connection before any reader has one: nobody waits for one and keeps another from others.
        let rows = planned.execute_when_asked(self.session, self.snapshot, self.tracked);
        self.tracked.running();
        let fitted = Arc::clone(&columns);
        let batches = rows.map(move |batch| {
            let batch = fit::fit(&batch?, &fitted)?;
            if let Some(check) = &check {
                check.expect_visible(&batch)?;
            }
            Ok::<_, DataFusionError>(batch)
        });
        if reads_itself && writer.reads_before_it_writes() {
            let batches: Vec<_> = batches.try_collect().await?;
            let batches = futures::stream::iter(batches.into_iter().map(Ok));
            return Ok(Box::pin(RecordBatchStreamAdapter::new(columns, batches)));
        }
        Ok(Box::pin(RecordBatchStreamAdapter::new(columns, batches)))
    }

    pub(super) async fn drop_table(&self, name: &[String], if_exists: bool) -> Result<u64> {
        let catalog = Catalog::of(self.session, self.snapshot);
        let place = match catalog.writable(name, Deed::DropTable).await {
            Ok(place) => place,
            Err(error) if if_exists && matches!(error.code, Code::TableNotFound | Code::CatalogNotFound) => {
                return Ok(0);
            }
            Err(error) => return Err(error),
        };
        let address = &place.address;
        catalog.expect_all_columns(Deed::DropTable, &place).await?;
        let store = &self.session.engine().store;
        let origins = store.origins_of_tags(address)?;
        let _changing = self.session.engine().metadata.changing(address);
        let removed = writer(&place)?
            .remove(&address.collection, &address.dataset)
            .await
            .map_err(from_depot)?;
        if removed {
            for origin in &origins {
                store.forget_tags(address, origin)?;
            }
            self.take_tags().await?;
        } else {
            trace::absent(address);
        }
        match removed || if_exists {
            true => Ok(0),
            false => Err(QueryError::new(
                Code::TableNotFound,
                format!("table `{}` does not exist", name.join(".")),
            )),
        }
    }

    /// Puts the tags that are kept into force.
    async fn take_tags(&self) -> Result<()> {
        let engine = Arc::clone(self.session.engine());
        let taken = tokio::task::spawn_blocking(move || engine.take_tags()).await;
        taken.map_err(|failure| QueryError::new(Code::GenericInternalError, failure.to_string()))?
    }
}

/// How the place is written to.
pub(super) fn writer(place: &Place) -> Result<&dyn Writer> {
    place
        .source
        .writer()
        .ok_or_else(|| from_depot(place.source.refusal("writing")))
}

/// Columns of a new table take NULL unless it was said that they do not; one without a type holds texts.
fn new_columns(query: &SchemaRef, not_null: &[String]) -> Schema {
    let field = |field: &Arc<Field>| {
        let data_type = match field.data_type() {
            DataType::Null => DataType::Utf8View,
            other => other.clone(),
        };
        Field::new(field.name(), data_type, !not_null.contains(field.name()))
    };
    Schema::new(query.fields().iter().map(field).collect::<Vec<_>>())
}

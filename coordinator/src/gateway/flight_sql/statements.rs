//! Statements: planned by GetFlightInfo, run by DoGet; updates run at once.
//!
//! In: SQL text and values of the caller's session. Out: FlightInfo with an opaque ticket, the stream behind it, or a count.
//! Each execution is planned anew from its text, so that policies in force decide.

use std::sync::Arc;

use arrow::{
    datatypes::{Schema, SchemaRef},
    ipc::writer::IpcWriteOptions,
};
use arrow_flight::{
    FlightDescriptor, FlightEndpoint, FlightInfo, IpcMessage, SchemaAsIpc, Ticket,
    flight_service_server::FlightService,
    sql::{Command, ProstMessageExt, TicketStatementQuery},
};
use bytes::Bytes;
use datafusion::scalar::ScalarValue;
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tonic::{Response, Status};

use super::{
    handles::{Handle, no_such_result},
    metadata,
    prepared::Prepared,
    service::Service,
    sessions::Caller,
    status::{guarded_stream, internal, status_of, status_of_stream, unsupported},
    stream::{encode, wire_schema},
};

/// The stream that DoGet answers with.
pub(super) type Data = <Service as FlightService>::DoGetStream;

impl Service {
    /// Plans and admits a statement and says where its rows are.
    pub(super) async fn plan(
        &self,
        caller: &Caller,
        sql: &str,
        parameters: Vec<ScalarValue>,
        descriptor: FlightDescriptor,
    ) -> Result<FlightInfo, Status> {
        let query = caller.session.start(sql, parameters).await.map_err(status_of)?;
        let (schema, query_id) = (wire_schema(&query.schema()), query.id().to_owned());
        // A statement that writes has done so by now; of others nobody knows yet.
        let written = query.update_count().and_then(|count| i64::try_from(count).ok());
        let handle = self.results.put(&caller.principal, caller.client.id(), query);
        let ticket = TicketStatementQuery {
            statement_handle: handle.bytes(),
        };
        let ticket = Ticket::new(ticket.as_any().encode_to_vec());
        let info = FlightInfo::new()
            .try_with_schema(&schema)
            .map_err(|error| internal("a schema cannot be encoded", &error))?;
        Ok(info
            .with_total_records(written.unwrap_or(-1))
            .with_descriptor(descriptor)
            .with_endpoint(FlightEndpoint::new().with_ticket(ticket))
            .with_app_metadata(query_id))
    }

    /// The rows behind a ticket, once.
    pub(super) fn fetch(&self, caller: &Caller, handle: &[u8]) -> Result<Response<Data>, Status> {
        let handle = Handle::read(handle).ok_or_else(no_such_result)?;
        let (query, running) = self.results.take(handle, &caller.principal)?;
        let schema = query.schema();
        let batches = query.into_stream().map(move |batch| {
            // The handle stays known, for cancelling, as long as this stream lives.
            let _ = &running;
            batch
        });
        Ok(Response::new(Box::pin(encode(&schema, batches))))
    }

    /// Runs a statement to its end and counts the rows that it changed, or that it would have answered.
    pub(super) async fn update(&self, caller: &Caller, sql: &str, parameters: Vec<ScalarValue>) -> Result<i64, Status> {
        let query = caller.session.start(sql, parameters).await.map_err(status_of)?;
        let count = query
            .update_count()
            .map(|count| i64::try_from(count).unwrap_or(i64::MAX));
        let batches = query.into_stream().map_err(status_of_stream);
        let mut batches = std::pin::pin!(guarded_stream(batches));
        let mut rows = 0;
        while let Some(batch) = batches.try_next().await? {
            rows += i64::try_from(batch.num_rows()).unwrap_or(i64::MAX);
        }
        Ok(count.unwrap_or(rows))
    }

    /// Runs an update for each row of values.
    pub(super) async fn update_each(
        &self,
        caller: &Caller,
        sql: &str,
        rows: Vec<Vec<ScalarValue>>,
    ) -> Result<i64, Status> {
        let mut changed = 0;
        for row in rows {
            changed += self.update(caller, sql, row).await?;
        }
        Ok(changed)
    }

    /// The schema that a command's stream will have, without running anything.
    pub(super) async fn schema_of(&self, caller: &Caller, command: Command) -> Result<SchemaRef, Status> {
        Ok(match command {
            Command::CommandStatementQuery(command) => self.schema_of_sql(caller, &command.query).await?,
            Command::CommandPreparedStatementQuery(command) => {
                let prepared = self
                    .prepared
                    .get(&command.prepared_statement_handle, &caller.principal)?;
                let caller = self.in_its_session(caller, &prepared).await?;
                self.schema_of_sql(&caller, &prepared.sql).await?
            }
            Command::CommandGetCatalogs(_) => metadata::catalogs_schema(),
            Command::CommandGetDbSchemas(command) => metadata::schemas_schema(command),
            Command::CommandGetTables(command) => metadata::tables_schema(command),
            Command::CommandGetTableTypes(_) => metadata::table_types_schema(),
            Command::CommandGetSqlInfo(_) => self.sql_info.schema(),
            Command::CommandGetXdbcTypeInfo(_) => self.type_info.schema(),
            Command::CommandGetPrimaryKeys(_) => Arc::clone(&metadata::PRIMARY_KEYS),
            Command::CommandGetExportedKeys(_)
            | Command::CommandGetImportedKeys(_)
            | Command::CommandGetCrossReference(_) => Arc::clone(&metadata::FOREIGN_KEYS),
            other => {
                return Err(unsupported(format!(
                    "the schema of a `{}` cannot be asked for",
                    other.type_url()
                )));
            }
        })
    }

    async fn schema_of_sql(&self, caller: &Caller, sql: &str) -> Result<SchemaRef, Status> {
        let described = caller.session.describe(sql).await.map_err(status_of)?;
        Ok(wire_schema(&described.schema))
    }

    /// The caller in the session that a statement was prepared in.
    pub(super) async fn in_its_session(&self, caller: &Caller, prepared: &Prepared) -> Result<Caller, Status> {
        let session = prepared.client.session(&self.engine, &caller.principal).await?;
        Ok(Caller {
            session,
            client: Arc::clone(&prepared.client),
            ..caller.clone()
        })
    }

    /// Plans a command that answers rows, for GetFlightInfo and PollFlightInfo alike.
    pub(super) async fn plan_prepared(
        &self,
        caller: &Caller,
        handle: &[u8],
        descriptor: FlightDescriptor,
    ) -> Result<FlightInfo, Status> {
        let prepared = self.prepared.get(handle, &caller.principal)?;
        let caller = self.in_its_session(caller, &prepared).await?;
        self.plan(&caller, &prepared.sql, prepared.one_row()?, descriptor).await
    }
}

/// A schema as the protocol wants it inside messages.
pub(super) fn schema_bytes(schema: &Schema) -> Result<Bytes, Status> {
    let options = IpcWriteOptions::default();
    let message: IpcMessage = SchemaAsIpc::new(schema, &options)
        .try_into()
        .map_err(|error| internal("a schema cannot be encoded", &error))?;
    Ok(message.0)
}

//! Flight SQL's commands, one method each.
//!
//! In: decoded commands whose caller the front has put into the request. Out: FlightInfo, streams, counts. What a method does lies one call
//! away: `statements`, `prepared`, `metadata`, `sql_info`, `xdbc`. Actions are `actions`, and what arrow-flight does not dispatch is `front`.

use std::{pin::Pin, sync::Arc, time::Instant};

use arrow::{
    array::RecordBatch,
    datatypes::{Schema, SchemaRef},
};
use arrow_flight::{
    FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest, HandshakeResponse, Ticket,
    error::FlightError,
    flight_service_server::FlightService,
    sql::{
        Any, Command, CommandGetCatalogs, CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys,
        CommandGetImportedKeys, CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables,
        CommandGetXdbcTypeInfo, CommandPreparedStatementQuery, CommandPreparedStatementUpdate, CommandStatementIngest,
        CommandStatementQuery, CommandStatementSubstraitPlan, CommandStatementUpdate, DoPutPreparedStatementResult,
        SqlInfo, TicketStatementQuery,
        metadata::{SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfoData},
        server::{DoPutError, FlightSqlService, PeekableFlightDataStream},
    },
};
use futures::{Stream, TryStreamExt};
use prost::Message;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataValue};

use super::{
    connection::Peer,
    handles::{RESULT_TIME_OUT, Results, locked},
    metadata::{self, Named},
    parameters::read_rows,
    prepared::PreparedStatements,
    sessions::{Caller, Sessions, client, credentials_of, presented},
    sql_info::sql_info,
    statements::Data,
    status::{internal, invalid, status_of, unauthenticated, unsupported},
    stream::encode,
    table_schemas::TableSchemas,
    xdbc::type_info,
};
use crate::{engine::Engine, gateway::auth::Credentials};

/// What all calls share.
pub(super) struct Service {
    pub(super) engine: Arc<Engine>,
    pub(super) sessions: Sessions,
    pub(super) results: Results,
    pub(super) prepared: PreparedStatements,
    pub(super) sql_info: SqlInfoData,
    pub(super) type_info: XdbcTypeInfoData,
    table_schemas: TableSchemas,
}

impl Service {
    pub(super) fn new(engine: Arc<Engine>) -> Result<Self, FlightError> {
        let (sql_info, type_info) = (sql_info()?, type_info()?);
        Ok(Self {
            engine,
            sessions: Sessions::default(),
            results: Results::default(),
            prepared: PreparedStatements::default(),
            sql_info,
            type_info,
            table_schemas: TableSchemas::default(),
        })
    }

    /// Drops what clients have forgotten: sessions without connections, their statements, and results that nobody fetched.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        let closed = self.sessions.sweep(now);
        self.forget(now, &closed);
    }

    /// Ends the caller's session with everything in it that does not run.
    pub(super) fn close_session(&self, caller: &Caller) {
        self.sessions.close(&caller.client);
        self.forget(Instant::now(), &[caller.client.id()]);
    }

    fn forget(&self, now: Instant, closed: &[super::handles::Handle]) {
        self.prepared.sweep(closed);
        let Some(deadline) = now.checked_sub(RESULT_TIME_OUT) else {
            return;
        };
        for abandoned in self.results.sweep(deadline, closed) {
            tracing::info!(
                query_id = abandoned.query_id,
                "the result was not fetched; the query is cancelled"
            );
            if let Err(error) = self.engine.cancel(&abandoned.owner, &abandoned.query_id) {
                tracing::warn!(%error, query_id = abandoned.query_id, "the query could not be cancelled");
            }
        }
    }
}

type Answer<T> = Result<Response<T>, Status>;

/// Where the rows of a metadata command are: its own bytes are the ticket, since it holds nothing secret and is answered anew each time.
fn about(schema: &Schema, request: Request<FlightDescriptor>) -> Answer<FlightInfo> {
    let descriptor = request.into_inner();
    let ticket = Ticket::new(descriptor.cmd.clone());
    let info = FlightInfo::new()
        .try_with_schema(schema)
        .map_err(|error| internal("a schema cannot be encoded", &error))?;
    Ok(Response::new(
        info.with_endpoint(FlightEndpoint::new().with_ticket(ticket))
            .with_descriptor(descriptor),
    ))
}

/// One batch as the answer of DoGet.
fn rows(batch: RecordBatch) -> Answer<Data> {
    let schema = batch.schema();
    let stream: Data = Box::pin(encode(&schema, futures::stream::iter([Ok(batch)])));
    Ok(Response::new(stream))
}

fn nothing(schema: &SchemaRef) -> Answer<Data> {
    rows(RecordBatch::new_empty(Arc::clone(schema)))
}

fn named(catalog: Option<String>, schema: Option<String>, table: String) -> Named {
    Named { catalog, schema, table }
}

/// The refusal of everything that wants a transaction.
pub(super) fn no_transactions() -> Status {
    unsupported("transactions are not supported; each statement stands for itself (autocommit)")
}

fn no_substrait() -> Status {
    unsupported("Substrait plans are not supported; send SQL")
}

#[tonic::async_trait]
impl FlightSqlService for Service {
    type FlightService = Self;

    async fn do_handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Answer<Pin<Box<dyn Stream<Item = Result<HandshakeResponse, Status>> + Send>>> {
        let peer = Peer::of(request.extensions())
            .ok_or_else(|| internal("a handshake arrived without its connection", &"no peer in the request"))?;
        let (metadata, extensions, mut messages) = request.into_parts();
        let mut credentials = credentials_of(&metadata)?;
        if credentials.is_none() {
            // Flight's first handshake carries user and password in its payload.
            let first = messages.try_next().await?.filter(|first| !first.payload.is_empty());
            if let Some(first) = first {
                let basic = arrow_flight::BasicAuth::decode(first.payload);
                let basic = basic.map_err(|_| unauthenticated("the handshake's message is no user and password"))?;
                credentials = Some(Credentials::Basic {
                    user: basic.username,
                    password: basic.password,
                });
            }
        }
        let shown = presented(credentials, &metadata, &peer, &extensions)?;
        let admitted = self.engine.admit(&shown).await;
        admitted
            .inspect_err(|error| self.engine.attempted(&client(&metadata, &peer), &shown, error))
            .map_err(status_of)?;
        // The API key or token is the bearer token: nothing else has to be kept, and it ends when the key ends. A certificate needs none.
        let token = match shown.credentials {
            Some(Credentials::Basic { password, .. }) => password,
            Some(Credentials::Bearer(token)) => token,
            None => String::new(),
        };
        let header = MetadataValue::try_from(format!("Bearer {token}"));
        let header = header.map_err(|error| internal("a token cannot be sent back", &error))?;
        let is_certificate = token.is_empty();
        let answer = HandshakeResponse {
            protocol_version: 0,
            payload: token.into(),
        };
        let stream: Pin<Box<dyn Stream<Item = _> + Send>> = Box::pin(futures::stream::iter([Ok(answer)]));
        let mut response = Response::new(stream);
        if !is_certificate {
            response.metadata_mut().insert("authorization", header);
        }
        Ok(response)
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        if query.transaction_id.is_some() {
            return Err(no_transactions());
        }
        let caller = Caller::of(&request)?;
        self.plan(&caller, &query.query, Vec::new(), request.into_inner())
            .await
            .map(Response::new)
    }

    async fn do_get_statement(&self, ticket: TicketStatementQuery, request: Request<Ticket>) -> Answer<Data> {
        self.fetch(&Caller::of(&request)?, &ticket.statement_handle)
    }

    async fn do_put_statement_update(
        &self,
        command: CommandStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        if command.transaction_id.is_some() {
            return Err(no_transactions());
        }
        self.update(&Caller::of(&request)?, &command.query, Vec::new()).await
    }

    async fn get_flight_info_prepared_statement(
        &self,
        command: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        let caller = Caller::of(&request)?;
        self.plan_prepared(&caller, &command.prepared_statement_handle, request.into_inner())
            .await
            .map(Response::new)
    }

    /// Some clients use the prepared statement itself as the ticket.
    async fn do_get_prepared_statement(
        &self,
        command: CommandPreparedStatementQuery,
        request: Request<Ticket>,
    ) -> Answer<Data> {
        let caller = Caller::of(&request)?;
        let info = self
            .plan_prepared(&caller, &command.prepared_statement_handle, FlightDescriptor::default())
            .await?;
        let ticket = info
            .endpoint
            .into_iter()
            .next()
            .and_then(|endpoint| endpoint.ticket)
            .unwrap_or_default();
        let any = Any::decode(ticket.ticket).map_err(|error| internal("a ticket cannot be read back", &error))?;
        let ticket: Option<TicketStatementQuery> = any
            .unpack()
            .map_err(|error| internal("a ticket cannot be read back", &error))?;
        self.fetch(&caller, &ticket.unwrap_or_default().statement_handle)
    }

    async fn do_put_prepared_statement_query(
        &self,
        command: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let caller = Caller::of(&request)?;
        let prepared = self
            .prepared
            .get(&command.prepared_statement_handle, &caller.principal)?;
        let bound = read_rows(request.into_inner()).await?;
        *locked(&prepared.rows) = bound;
        Ok(DoPutPreparedStatementResult {
            prepared_statement_handle: Some(command.prepared_statement_handle),
        })
    }

    async fn do_put_prepared_statement_update(
        &self,
        command: CommandPreparedStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let caller = Caller::of(&request)?;
        let prepared = self
            .prepared
            .get(&command.prepared_statement_handle, &caller.principal)?;
        let caller = self.in_its_session(&caller, &prepared).await?;
        // ADBC sends the values with the update itself, JDBC binds them beforehand.
        let sent = read_rows(request.into_inner()).await?;
        let rows = if sent.is_empty() { prepared.all_rows() } else { sent };
        self.update_each(&caller, &prepared.sql, rows).await
    }

    async fn get_flight_info_catalogs(
        &self,
        _: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        about(&metadata::catalogs_schema(), request)
    }

    async fn do_get_catalogs(&self, _: CommandGetCatalogs, request: Request<Ticket>) -> Answer<Data> {
        rows(metadata::catalogs(&Caller::of(&request)?.session).await?)
    }

    async fn get_flight_info_schemas(
        &self,
        command: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        about(&metadata::schemas_schema(command), request)
    }

    async fn do_get_schemas(&self, command: CommandGetDbSchemas, request: Request<Ticket>) -> Answer<Data> {
        rows(metadata::schemas(&Caller::of(&request)?.session, command).await?)
    }

    async fn get_flight_info_tables(
        &self,
        command: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        about(&metadata::tables_schema(command), request)
    }

    async fn do_get_tables(&self, command: CommandGetTables, request: Request<Ticket>) -> Answer<Data> {
        rows(metadata::tables(&Caller::of(&request)?.session, command, &self.table_schemas).await?)
    }

    async fn get_flight_info_table_types(
        &self,
        _: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        about(&metadata::table_types_schema(), request)
    }

    async fn do_get_table_types(&self, _: CommandGetTableTypes, _: Request<Ticket>) -> Answer<Data> {
        rows(metadata::table_types()?)
    }

    async fn get_flight_info_sql_info(
        &self,
        _: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        about(SqlInfoDataBuilder::schema(), request)
    }

    async fn do_get_sql_info(&self, command: CommandGetSqlInfo, _: Request<Ticket>) -> Answer<Data> {
        rows(
            self.sql_info
                .record_batch(command.info)
                .map_err(metadata::unbuildable)?,
        )
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        _: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        about(&self.type_info.schema(), request)
    }

    async fn do_get_xdbc_type_info(&self, command: CommandGetXdbcTypeInfo, _: Request<Ticket>) -> Answer<Data> {
        rows(
            self.type_info
                .record_batch(command.data_type)
                .map_err(metadata::unbuildable)?,
        )
    }

    async fn get_flight_info_primary_keys(
        &self,
        _: CommandGetPrimaryKeys,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        about(&metadata::PRIMARY_KEYS, request)
    }

    async fn do_get_primary_keys(&self, command: CommandGetPrimaryKeys, request: Request<Ticket>) -> Answer<Data> {
        let named = named(command.catalog, command.db_schema, command.table);
        metadata::asked_after(&Caller::of(&request)?.session, "GetPrimaryKeys", &[named])?;
        nothing(&metadata::PRIMARY_KEYS)
    }

    async fn get_flight_info_exported_keys(
        &self,
        _: CommandGetExportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        about(&metadata::FOREIGN_KEYS, request)
    }

    async fn do_get_exported_keys(&self, command: CommandGetExportedKeys, request: Request<Ticket>) -> Answer<Data> {
        let named = named(command.catalog, command.db_schema, command.table);
        metadata::asked_after(&Caller::of(&request)?.session, "GetExportedKeys", &[named])?;
        nothing(&metadata::FOREIGN_KEYS)
    }

    async fn get_flight_info_imported_keys(
        &self,
        _: CommandGetImportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        about(&metadata::FOREIGN_KEYS, request)
    }

    async fn do_get_imported_keys(&self, command: CommandGetImportedKeys, request: Request<Ticket>) -> Answer<Data> {
        let named = named(command.catalog, command.db_schema, command.table);
        metadata::asked_after(&Caller::of(&request)?.session, "GetImportedKeys", &[named])?;
        nothing(&metadata::FOREIGN_KEYS)
    }

    async fn get_flight_info_cross_reference(
        &self,
        _: CommandGetCrossReference,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        about(&metadata::FOREIGN_KEYS, request)
    }

    async fn do_get_cross_reference(
        &self,
        command: CommandGetCrossReference,
        request: Request<Ticket>,
    ) -> Answer<Data> {
        let both = [
            named(command.pk_catalog, command.pk_db_schema, command.pk_table),
            named(command.fk_catalog, command.fk_db_schema, command.fk_table),
        ];
        metadata::asked_after(&Caller::of(&request)?.session, "GetCrossReference", &both)?;
        nothing(&metadata::FOREIGN_KEYS)
    }

    async fn get_flight_info_substrait_plan(
        &self,
        _: CommandStatementSubstraitPlan,
        _: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        Err(no_substrait())
    }

    async fn do_put_substrait_plan(
        &self,
        _: CommandStatementSubstraitPlan,
        _: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(no_substrait())
    }

    async fn do_put_statement_ingest(
        &self,
        _: CommandStatementIngest,
        _: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(unsupported(
            "bulk ingestion is not supported; use CREATE TABLE AS or INSERT",
        ))
    }

    async fn do_put_error_callback(
        &self,
        _: Request<PeekableFlightDataStream>,
        error: DoPutError,
    ) -> Answer<<Self as FlightService>::DoPutStream> {
        Err(invalid(format!(
            "the upload says nothing about what it is for: {error}"
        )))
    }

    async fn get_flight_info_fallback(&self, command: Command, _: Request<FlightDescriptor>) -> Answer<FlightInfo> {
        Err(unsupported(format!(
            "the command `{}` is not supported by GetFlightInfo",
            command.type_url()
        )))
    }

    async fn do_get_fallback(&self, _: Request<Ticket>, message: Any) -> Answer<Data> {
        Err(invalid(format!(
            "the ticket holds a `{}`; use a ticket that GetFlightInfo has answered",
            message.type_url
        )))
    }

    async fn do_put_fallback(
        &self,
        _: Request<PeekableFlightDataStream>,
        message: Any,
    ) -> Answer<<Self as FlightService>::DoPutStream> {
        Err(unsupported(format!(
            "the command `{}` is not supported by DoPut",
            message.type_url
        )))
    }

    async fn register_sql_info(&self, _: i32, _: &SqlInfo) {}
}

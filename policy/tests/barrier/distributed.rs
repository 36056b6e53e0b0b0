//! The barrier on two workers: stages travel as bytes, are verified where they run, and answer the same.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::{Result, not_impl_err};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::ScalarUDF;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_distributed::{
    ChannelResolver, CoordinatorToWorkerMsg, DistributedExec, DistributedExt, DistributedMetricsFormat,
    ExecuteTaskRequest, GetWorkerInfoRequest, GetWorkerInfoResponse, MaybeEncoded, SessionStateBuilderExt,
    SetPlanRequest, Worker, WorkerChannel, WorkerPlanRewriteEvent, WorkerPlanRewriteEventResponse, WorkerQueryContext,
    WorkerResolver, WorkerToCoordinatorMsg, display_plan_ascii, rewrite_distributed_plan_with_metrics,
};
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use futures::StreamExt;
use futures::stream::BoxStream;
use minerva_policy::{Grants, KeyRing, decode_barrier, encode_barrier, mask_functions, redact_plan, verify};
use tonic::codegen::http::HeaderMap;
use url::Url;

use crate::world::{self, CANARY, World};

#[derive(Debug)]
struct Codec;

impl PhysicalExtensionCodec for Codec {
    fn try_decode(
        &self,
        bytes: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        _context: &TaskContext,
        _converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        decode_barrier(bytes, inputs)
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        bytes: &mut Vec<u8>,
        _converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let Some(encoded) = encode_barrier(node.as_ref()) else {
            return not_impl_err!("{}", node.name());
        };
        bytes.extend(encoded);
        Ok(())
    }
}

/// Two workers in this process.
#[derive(Clone, Default)]
struct Workers(Arc<std::sync::OnceLock<HashMap<Url, Worker>>>);

impl WorkerResolver for Workers {
    fn get_urls(&self) -> Result<Vec<Url>> {
        let mut urls: Vec<Url> = self.0.get().unwrap().keys().cloned().collect();
        urls.sort();
        Ok(urls)
    }
}

#[async_trait]
impl ChannelResolver for Workers {
    async fn get_worker_client_for_url(&self, url: &Url) -> Result<Box<dyn WorkerChannel>> {
        Ok(Box::new(Channel(self.0.get().unwrap()[url].clone())))
    }
}

struct Channel(Worker);

#[async_trait]
impl WorkerChannel for Channel {
    async fn coordinator_channel(
        &mut self,
        headers: HeaderMap,
        mut request: SetPlanRequest,
        messages: BoxStream<'static, CoordinatorToWorkerMsg>,
        _metrics: ExecutionPlanMetricsSet,
        context: &Arc<TaskContext>,
    ) -> Result<BoxStream<'static, Result<WorkerToCoordinatorMsg>>> {
        request.plan = MaybeEncoded::Encoded(request.plan.encode(context)?);
        self.0
            .coordinator_channel(headers, request, messages.map(Ok).boxed())
            .await
    }

    async fn execute_task(
        &mut self,
        _headers: HeaderMap,
        request: ExecuteTaskRequest,
        _metrics: ExecutionPlanMetricsSet,
        _context: &Arc<TaskContext>,
    ) -> Result<Vec<BoxStream<'static, Result<RecordBatch>>>> {
        let (streams, _) = self.0.execute_task(request).await?;
        Ok(streams.into_iter().map(|stream| stream.boxed()).collect())
    }

    async fn get_worker_info(&mut self, _request: GetWorkerInfoRequest) -> Result<GetWorkerInfoResponse> {
        Ok(GetWorkerInfoResponse {
            version: self.0.version().to_owned(),
        })
    }
}

fn functions() -> Vec<Arc<ScalarUDF>> {
    mask_functions(&Arc::new(KeyRing::default()))
}

fn session(grants: Grants) -> SessionContext {
    let workers = Workers::default();
    let (channels, grants) = (workers.clone(), Arc::new(grants));
    let worker = Worker::from_session_builder(move |mut context: WorkerQueryContext| {
        let (channels, grants) = (channels.clone(), Arc::clone(&grants));
        async move {
            context
                .builder
                .scalar_functions()
                .get_or_insert_with(Vec::new)
                .extend(functions());
            let verified = move |stage: WorkerPlanRewriteEvent<'_>| {
                verify(&stage.plan, &grants, &World::leaf)?;
                Ok(WorkerPlanRewriteEventResponse::new(stage.plan))
            };
            Ok(context
                .builder
                .with_distributed_user_codec(Codec)
                .with_distributed_channel_resolver(channels)
                .with_distributed_worker_plan_rewrite_handler(verified)
                .build())
        }
    });
    let urls = ["http://one", "http://two"].map(|url| Url::parse(url).unwrap());
    let by_url = urls.into_iter().map(|url| (url, worker.clone())).collect();
    assert!(workers.0.set(by_url).is_ok());
    let state = world::state(SessionConfig::new().with_target_partitions(2))
        .with_distributed_planner()
        .with_distributed_worker_resolver(workers.clone())
        .with_distributed_channel_resolver(workers)
        .with_distributed_user_codec(Codec)
        .with_distributed_file_scan_config_bytes_per_partition(1)
        .unwrap()
        .build();
    SessionContext::new_with_state(state)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_answer_like_one_process() {
    let single = World::new().await;
    let mut spread = World::new().await;
    spread.session = session(spread.grants.clone());
    for function in functions() {
        spread.session.register_udf(function.as_ref().clone());
    }
    spread.open().await;
    let mut distributed = 0;
    for sql in crate::STATEMENTS {
        let plan = spread.plan(sql).await;
        verify(&plan, &spread.grants, &World::leaf).unwrap();
        if plan.is::<DistributedExec>() {
            distributed += 1;
            let shown = display_plan_ascii(redact_plan(&plan).unwrap().as_ref(), false);
            assert!(
                shown.contains("GovernedScan: dataos://lake:main/people") && shown.contains("Stage 1"),
                "{shown}"
            );
            assert!(!shown.contains("EU") && !shown.contains("/people/"), "{shown}");
        }
        let answer = collect(Arc::clone(&plan), spread.session.task_ctx()).await;
        if plan.is::<DistributedExec>() && answer.is_ok() {
            let analyzed = rewrite_distributed_plan_with_metrics(plan, DistributedMetricsFormat::Aggregated)
                .await
                .unwrap();
            let shown = display_plan_ascii(redact_plan(&analyzed).unwrap().as_ref(), true);
            assert!(
                shown.contains("GovernedScan: dataos://lake:main/people") && shown.contains("output_rows="),
                "{shown}"
            );
            assert!(!shown.contains("EU") && !shown.contains("/people/"), "{shown}");
        }
        match (single.answer(sql).await, answer) {
            (Ok(expected), Ok(batches)) => assert_eq!(world::rows(&batches).unwrap(), expected, "{sql}"),
            (Err(_), Err(error)) => assert!(!error.to_string().contains(CANARY), "{sql}: {error}"),
            (expected, got) => panic!("{sql}: {got:?}, not {expected:?}"),
        }
    }
    assert!(
        distributed > 10,
        "only {distributed} of the statements were distributed"
    );
}

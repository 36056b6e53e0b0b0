//! Depots of type `gcs`: a bucket of Google Cloud Storage.

use std::sync::Arc;

use minerva_resources::{Depot, Parameter, Problem};
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder};
use object_store::{ObjectStore, StaticCredentialProvider};

use super::bucket::Lister;
use super::settings::{
    Authentication, BUCKET, COMMON, ENDPOINT, RELATIVE_PATH, Remote, bucket, credential, secret, url,
};
use super::{Described, StoreConnector, location};
use crate::files::settings::{READING, Reader, joined};

const WHERE: [Parameter; 3] = [BUCKET, RELATIVE_PATH, ENDPOINT];

const SECRET: [Parameter; 3] = [
    secret(
        "gcskey_json",
        "the key of a service account, as JSON; `files: {gcskey_json: ./key.json}` of a secret reads it from a file",
    ),
    secret(
        "projectid",
        "the project; the key says it too, and it makes no difference",
    ),
    secret(
        "email",
        "the service account; the key says it too, and it makes no difference",
    ),
];

const PARAMETERS: &[Parameter] =
    &joined::<12, 8, 20>(joined::<3, 9, 12>(WHERE, READING), joined::<5, 3, 8>(COMMON, SECRET));

/// Depots of type `gcs`.
pub(crate) const GCS: StoreConnector = StoreConnector {
    depot_type: "gcs",
    parameters: PARAMETERS,
    example: "name: lake
version: v2alpha
type: depot
depot:
  type: GCS
  gcs:
    bucket: acme-lake
    relativePath: warehouse
    authentication: environment
",
    describe,
};

fn describe(depot: &Depot) -> Result<Described, Vec<Problem>> {
    let mut reader = Reader::new(depot);
    let mut remote = Remote::read(&mut reader, Authentication::Secret);
    let bucket = bucket(&mut reader);
    let endpoint = url(&mut reader, "endpoint");
    let key = credential(&reader, &["gcskey_json"]);
    if remote.authentication == Authentication::Secret {
        let is_key = |key: &str| serde_json::from_str::<serde_json::Value>(key).is_ok_and(|key| key.is_object());
        let help = "name a secret with `files: {gcskey_json: ./key.json}`, or say `anonymous` or `environment`";
        match key.as_deref() {
            None => reader.problem(
                "authentication",
                "is by secret, and the depot's secrets have no `gcskey_json`",
                help,
            ),
            Some(key) if !is_key(key) => {
                reader.problem(
                    "authentication",
                    "is by secret, and `gcskey_json` there is not the JSON of a key",
                    help,
                );
            }
            Some(_) => {}
        }
    }
    if endpoint.as_ref().is_some_and(|(_, is_plain)| *is_plain) {
        remote.allow_plain();
    }
    let endpoint = endpoint.map(|(url, _)| url);
    let identity = location::digest(["gcs", &bucket, endpoint.as_deref().unwrap_or_default()]);
    let place = format!("the bucket `{bucket}`");
    let build = move |remote: &Remote| {
        let mut builder = match remote.authentication {
            Authentication::Environment => GoogleCloudStorageBuilder::from_env(),
            Authentication::Secret | Authentication::Anonymous => GoogleCloudStorageBuilder::new(),
        };
        builder = builder
            .with_bucket_name(&bucket)
            .with_retry(remote.retry.clone())
            .with_client_options(remote.client.options())
            .with_http_connector(remote.client.clone());
        if let Some(endpoint) = &endpoint {
            builder = builder.with_base_url(endpoint);
        }
        builder = match (remote.authentication, &key) {
            (Authentication::Secret, Some(key)) => builder.with_service_account_key(key),
            (Authentication::Secret, None) | (Authentication::Environment, _) => builder,
            // Without a credential of some sort the client would look for one on this machine.
            (Authentication::Anonymous, _) => {
                let nobody = GcpCredential { bearer: String::new() };
                builder
                    .with_credentials(Arc::new(StaticCredentialProvider::new(nobody)))
                    .with_skip_signature(true)
            }
        };
        Ok(Arc::new(builder.build()?) as Arc<dyn ObjectStore>)
    };
    reader.end(Described {
        remote,
        place,
        identity,
        lister: Lister::Keys,
        build: Box::new(build),
    })
}

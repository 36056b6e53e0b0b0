//! Depots of type `s3`: a bucket of Amazon S3, or of a server that speaks like it.

use std::sync::Arc;

use minerva_resources::{Depot, Parameter, ParameterKind, Problem};
use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;

use super::bucket::Lister;
use super::settings::{
    Authentication, BUCKET, COMMON, ENDPOINT, RELATIVE_PATH, Remote, bucket, credential, secret, url,
};
use super::{Described, StoreConnector, location};
use crate::files::settings::{READING, Reader, joined};

const WHERE: [Parameter; 6] = [
    BUCKET,
    RELATIVE_PATH,
    Parameter {
        name: "region",
        kind: ParameterKind::Text,
        required: false,
        default: Some("us-east-1"),
        secret: false,
        description: "where the bucket is; other servers than Amazon's mostly do not mind",
    },
    ENDPOINT,
    Parameter {
        name: "pathStyle",
        kind: ParameterKind::Flag,
        required: false,
        default: None,
        secret: false,
        description: "whether the bucket's name is a part of the path, and not of the host's name; `true` when there is an \
                      `endpoint`, else `false`",
    },
    Parameter {
        name: "scheme",
        kind: ParameterKind::Choice(&["s3", "s3a", "s3n"]),
        required: false,
        default: None,
        secret: false,
        description: "what other programs call the protocol; it makes no difference here",
    },
];

const SECRET: [Parameter; 6] = [
    secret("accesskeyid", "the id of the access key"),
    secret("secretkey", "the secret access key"),
    secret("sessiontoken", "the session token, where the key is a temporary one"),
    secret("awsaccesskeyid", "the same as `accesskeyid`"),
    secret("awssecretaccesskey", "the same as `secretkey`"),
    secret("awssessiontoken", "the same as `sessiontoken`"),
];

const PARAMETERS: &[Parameter] =
    &joined::<15, 11, 26>(joined::<6, 9, 15>(WHERE, READING), joined::<5, 6, 11>(COMMON, SECRET));

/// Depots of type `s3`.
pub(crate) const S3: StoreConnector = StoreConnector {
    depot_type: "s3",
    parameters: PARAMETERS,
    example: "name: lake
version: v2alpha
type: depot
depot:
  type: S3
  s3:
    bucket: acme-lake
    relativePath: warehouse
    region: eu-central-1
    format: PARQUET
  secrets:
    - name: lake-r
---
name: lake-r
version: v1
type: instance-secret
instance-secret:
  type: key-value-properties
  acl: r
  data: {accesskeyid: AKIAEXAMPLE, secretkey: correct horse}
",
    describe,
};

/// Who asks.
enum Key {
    Pair {
        id: String,
        secret: String,
        token: Option<String>,
    },
    Nobody,
    Environment,
}

fn describe(depot: &Depot) -> Result<Described, Vec<Problem>> {
    let mut reader = Reader::new(depot);
    let mut remote = Remote::read(&mut reader, Authentication::Secret);
    let bucket = bucket(&mut reader);
    let region = reader.settings.text("region").unwrap_or("us-east-1").to_owned();
    let endpoint = url(&mut reader, "endpoint");
    let path_style = reader.settings.flag("pathStyle").unwrap_or(endpoint.is_some());
    let key = key(&mut reader, remote.authentication);
    if endpoint.as_ref().is_some_and(|(_, is_plain)| *is_plain) {
        remote.allow_plain();
    }
    let endpoint = endpoint.map(|(url, _)| url);
    let identity = location::digest(["s3", &bucket, &region, endpoint.as_deref().unwrap_or_default()]);
    let place = format!("the bucket `{bucket}`");
    let build = move |remote: &Remote| {
        let mut builder = match &key {
            Key::Environment => AmazonS3Builder::from_env(),
            Key::Pair { .. } | Key::Nobody => AmazonS3Builder::new(),
        };
        builder = builder
            .with_bucket_name(&bucket)
            .with_region(&region)
            .with_virtual_hosted_style_request(!path_style)
            .with_retry(remote.retry.clone())
            .with_client_options(remote.client.options())
            .with_http_connector(remote.client.clone());
        builder = match &endpoint {
            // With the bucket in the host's name the client wants it there.
            Some(endpoint) if !path_style => builder.with_endpoint(with_host(endpoint, &bucket)),
            Some(endpoint) => builder.with_endpoint(endpoint),
            None => builder,
        };
        builder = match &key {
            Key::Pair { id, secret, token } => {
                let builder = builder.with_access_key_id(id).with_secret_access_key(secret);
                match token {
                    Some(token) => builder.with_token(token),
                    None => builder,
                }
            }
            Key::Nobody => builder.with_skip_signature(true),
            Key::Environment => builder,
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

fn with_host(endpoint: &str, bucket: &str) -> String {
    match endpoint.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{bucket}.{rest}"),
        None => endpoint.to_owned(),
    }
}

fn key(reader: &mut Reader<'_>, authentication: Authentication) -> Key {
    match authentication {
        Authentication::Anonymous => return Key::Nobody,
        Authentication::Environment => return Key::Environment,
        Authentication::Secret => {}
    }
    let id = credential(reader, &["accesskeyid", "awsaccesskeyid"]);
    let secret = credential(reader, &["secretkey", "awssecretaccesskey"]);
    let token = credential(reader, &["sessiontoken", "awssessiontoken"]);
    match (id, secret) {
        (Some(id), Some(secret)) => Key::Pair { id, secret, token },
        _ => {
            let help =
                "name a secret whose `data` has `accesskeyid` and `secretkey`, or say `anonymous` or `environment`";
            reader.problem(
                "authentication",
                "is by secret, and the depot's secrets have no key for it",
                help,
            );
            Key::Nobody
        }
    }
}

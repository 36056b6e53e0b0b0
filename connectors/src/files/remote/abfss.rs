//! Depots of type `abfss`: a container of Azure Blob Storage or Data Lake Storage.

use std::sync::Arc;

use minerva_resources::{Depot, Parameter, ParameterKind, Problem};
use object_store::ObjectStore;
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};

use super::bucket::Lister;
use super::settings::{Authentication, COMMON, ENDPOINT, RELATIVE_PATH, Remote, credential, secret, url};
use super::{Described, StoreConnector, location};
use crate::files::settings::{READING, Reader, joined};

const WHERE: [Parameter; 5] = [
    Parameter {
        name: "account",
        kind: ParameterKind::Text,
        required: false,
        default: None,
        secret: false,
        description: "the storage account; it may stand in the secret instead",
    },
    Parameter {
        name: "container",
        kind: ParameterKind::Text,
        required: true,
        default: None,
        secret: false,
        description: "the container",
    },
    RELATIVE_PATH,
    Parameter {
        name: "endpointSuffix",
        kind: ParameterKind::Text,
        required: false,
        default: Some("core.windows.net"),
        secret: false,
        description: "the end of the server's name, which other clouds have; `dfs.core.windows.net` is understood too",
    },
    ENDPOINT,
];

const SECRET: [Parameter; 7] = [
    secret("azurestorageaccountname", "the storage account"),
    secret("azurestorageaccountkey", "its access key"),
    secret("azureendpointsuffix", "the same as `endpointSuffix`"),
    secret("sastoken", "a shared access signature, instead of the key"),
    secret(
        "azureclientid",
        "the id of an application, instead of the key; with `azureclientsecret` and `azuretenantid`",
    ),
    secret("azureclientsecret", "the secret of the application"),
    secret("azuretenantid", "the tenant of the application"),
];

const PARAMETERS: &[Parameter] =
    &joined::<14, 12, 26>(joined::<5, 9, 14>(WHERE, READING), joined::<5, 7, 12>(COMMON, SECRET));

/// Depots of type `abfss`.
pub(crate) const ABFSS: StoreConnector = StoreConnector {
    depot_type: "abfss",
    parameters: PARAMETERS,
    example: "name: lake
version: v2alpha
type: depot
depot:
  type: ABFSS
  abfss:
    account: acmelake
    container: warehouse
    relativePath: retail
  secrets:
    - name: lake-r
---
name: lake-r
version: v1
type: instance-secret
instance-secret:
  type: key-value-properties
  acl: r
  data: {azurestorageaccountname: acmelake, azurestorageaccountkey: Y29ycmVjdCBob3JzZQ==}
",
    describe,
};

/// Who asks.
enum Key {
    Account(String),
    Signature(String),
    Application { id: String, secret: String, tenant: String },
    Nobody,
    Environment,
}

fn describe(depot: &Depot) -> Result<Described, Vec<Problem>> {
    let mut reader = Reader::new(depot);
    let mut remote = Remote::read(&mut reader, Authentication::Secret);
    let container = reader.settings.text("container").unwrap_or_default().to_owned();
    if container.is_empty() || container.contains(['/', '?', '#', ' ', '@']) {
        reader.problem(
            "container",
            "is not the name of a container",
            "expected a name, without a scheme and without a path",
        );
    }
    let in_secret = credential(&reader, &["azurestorageaccountname"]);
    let account = reader
        .settings
        .text("account")
        .map(str::to_owned)
        .or(in_secret)
        .unwrap_or_default();
    if account.is_empty() || !account.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        let help = "name it here or as `azurestorageaccountname` in the depot's secret; it has letters and digits only";
        reader.problem("account", "is missing or is not the name of a storage account", help);
    }
    let endpoint = match url(&mut reader, "endpoint") {
        Some((url, is_plain)) => {
            if is_plain {
                remote.allow_plain();
            }
            url
        }
        None => format!("https://{account}.blob.{}", suffix(&mut reader)),
    };
    let key = key(&mut reader, remote.authentication);
    let identity = location::digest(["abfss", &account, &container, &endpoint]);
    let place = format!("the container `{container}`");
    let build = move |remote: &Remote| {
        let mut builder = match &key {
            Key::Environment => MicrosoftAzureBuilder::from_env(),
            Key::Account(_) | Key::Signature(_) | Key::Application { .. } | Key::Nobody => MicrosoftAzureBuilder::new(),
        };
        builder = builder
            .with_account(&account)
            .with_container_name(&container)
            .with_endpoint(endpoint.clone())
            .with_retry(remote.retry.clone())
            .with_client_options(remote.client.options())
            .with_http_connector(remote.client.clone());
        builder = match &key {
            Key::Account(key) => builder.with_access_key(key),
            Key::Signature(token) => builder.with_config(AzureConfigKey::SasKey, token),
            Key::Application { id, secret, tenant } => builder.with_client_secret_authorization(id, secret, tenant),
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

fn suffix(reader: &mut Reader<'_>) -> String {
    let in_secret = credential(reader, &["azureendpointsuffix"]);
    let written = reader.settings.text("endpointSuffix").map(str::to_owned).or(in_secret);
    let suffix = written.unwrap_or_else(|| "core.windows.net".to_owned());
    let suffix = suffix.trim_matches('.');
    let suffix = suffix
        .strip_prefix("dfs.")
        .or_else(|| suffix.strip_prefix("blob."))
        .unwrap_or(suffix);
    if suffix.is_empty() || suffix.contains(['/', ':', '?', '#', '@', ' ']) {
        reader.problem(
            "endpointSuffix",
            "is not the end of a server's name",
            "expected one like `core.windows.net`",
        );
    }
    suffix.to_owned()
}

fn key(reader: &mut Reader<'_>, authentication: Authentication) -> Key {
    match authentication {
        Authentication::Anonymous => return Key::Nobody,
        Authentication::Environment => return Key::Environment,
        Authentication::Secret => {}
    }
    if let Some(key) = credential(reader, &["azurestorageaccountkey"]) {
        return Key::Account(key);
    }
    if let Some(token) = credential(reader, &["sastoken"]) {
        return Key::Signature(token);
    }
    let application = ["azureclientid", "azureclientsecret", "azuretenantid"].map(|name| credential(reader, &[name]));
    if let [Some(id), Some(secret), Some(tenant)] = application {
        return Key::Application { id, secret, tenant };
    }
    let help = "name a secret whose `data` has `azurestorageaccountkey`, or `sastoken`, or `azureclientid` with \
                `azureclientsecret` and `azuretenantid`; or say `anonymous` or `environment`";
    reader.problem(
        "authentication",
        "is by secret, and the depot's secrets have no key for it",
        help,
    );
    Key::Nobody
}

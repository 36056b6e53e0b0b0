//! All resources together: read, checked against each other, and then never changed.
//!
//! In: folders of manifests. Out: a [`ResourceSet`] in which every reference resolves, or every problem there is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::apply::Change;
use crate::certificate_name::CertificateName;
use crate::digest;
use crate::environment::{self, Variables};
use crate::files::{self, Stamp};
use crate::kind::Meta;
use crate::kind::access::AccessPolicy;
use crate::kind::cluster::Cluster;
use crate::kind::data::DataPolicy;
use crate::kind::dataset::Dataset;
use crate::kind::depot::{Depot, Draft};
use crate::kind::identity_provider::IdentityProvider;
use crate::kind::policy_test::{PolicyTest, TestSubject};
use crate::kind::secret::Secret;
use crate::kind::user::User;
use crate::manifest;
use crate::node::{self, Node};
use crate::problem::{Location, Problem, Problems};
use crate::suggest;

/// What others know about resources that this crate does not: they look at a set and say what is wrong with it. A set that is looked at
/// may lack what could not be read, which has been reported already.
pub type Check = fn(&ResourceSet) -> Vec<Problem>;

/// All resources of an instance, as they were at one time.
#[derive(Debug, Clone, Default)]
pub struct ResourceSet {
    depots: BTreeMap<String, Arc<Depot>>,
    secrets: BTreeMap<String, Arc<Secret>>,
    users: BTreeMap<String, Arc<User>>,
    datasets: BTreeMap<Address, Arc<Dataset>>,
    clusters: BTreeMap<String, Arc<Cluster>>,
    identity_providers: BTreeMap<String, Arc<IdentityProvider>>,
    access_policies: Vec<AccessPolicy>,
    data_policies: Vec<DataPolicy>,
    policy_tests: Vec<PolicyTest>,
    fingerprint: String,
}

impl ResourceSet {
    /// The depots, by name.
    pub fn depots(&self) -> impl Iterator<Item = &Arc<Depot>> {
        self.depots.values()
    }

    /// A depot by name.
    pub fn depot(&self, name: &str) -> Option<&Arc<Depot>> {
        self.depots.get(name)
    }

    /// The users, by id.
    pub fn users(&self) -> impl Iterator<Item = &Arc<User>> {
        self.users.values()
    }

    /// A user by id.
    pub fn user(&self, id: &str) -> Option<&Arc<User>> {
        self.users.get(id)
    }

    /// The secrets, by name.
    pub fn secrets(&self) -> impl Iterator<Item = &Arc<Secret>> {
        self.secrets.values()
    }

    /// A secret by name.
    pub fn secret(&self, name: &str) -> Option<&Arc<Secret>> {
        self.secrets.get(name)
    }

    /// The access policies, in the order of the files.
    pub fn access_policies(&self) -> &[AccessPolicy] {
        &self.access_policies
    }

    /// The data policies, in the order of the files.
    pub fn data_policies(&self) -> &[DataPolicy] {
        &self.data_policies
    }

    /// What somebody is expected to see, in the order of the files.
    pub fn policy_tests(&self) -> &[PolicyTest] {
        &self.policy_tests
    }

    /// What is known of datasets, collections and depots, by address.
    pub fn datasets(&self) -> impl Iterator<Item = &Arc<Dataset>> {
        self.datasets.values()
    }

    /// What is known of the thing with this very address.
    pub fn dataset(&self, address: &Address) -> Option<&Arc<Dataset>> {
        self.datasets.get(address)
    }

    /// The clusters, by name.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.clusters.values()
    }

    /// A cluster by name.
    pub fn cluster(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.clusters.get(name)
    }

    /// The identity providers, by name.
    pub fn identity_providers(&self) -> impl Iterator<Item = &Arc<IdentityProvider>> {
        self.identity_providers.values()
    }

    /// Changes when a file, or a variable that was filled in, changes. It is not the same in another process.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// What a worker needs of the set: depots with their credentials, secrets, and the fingerprint. For an authenticated peer only.
    ///
    /// # Errors
    /// If the set cannot be written as JSON, which would be a defect.
    pub fn to_worker(&self) -> Result<Vec<u8>, serde_json::Error> {
        let depots = self.depots.values().map(|depot| depot.as_ref().clone()).collect();
        let secrets = self.secrets.values().map(|secret| secret.as_ref().clone()).collect();
        serde_json::to_vec(&ForWorkers {
            fingerprint: self.fingerprint.clone(),
            depots,
            secrets,
        })
    }

    /// The set that a coordinator sent with [`ResourceSet::to_worker`]: it has no users, policies, datasets and clusters.
    ///
    /// # Errors
    /// If the bytes are something else.
    pub fn from_coordinator(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let sent: ForWorkers = serde_json::from_slice(bytes)?;
        Ok(Self {
            depots: sent
                .depots
                .into_iter()
                .map(|depot| (depot.meta.name.clone(), Arc::new(depot)))
                .collect(),
            secrets: sent
                .secrets
                .into_iter()
                .map(|secret| (secret.meta.name.clone(), Arc::new(secret)))
                .collect(),
            fingerprint: sent.fingerprint,
            ..Self::default()
        })
    }
}

#[derive(Serialize, Deserialize)]
struct ForWorkers {
    fingerprint: String,
    depots: Vec<Depot>,
    secrets: Vec<Secret>,
}

/// Reads all manifests (`*.yaml`, `*.yml`) in these folders and the folders in them; what is hidden is passed over, and a file may be
/// named as well.
///
/// # Errors
/// Everything that is wrong, by file and line.
pub fn load(folders: &[PathBuf], checks: &[Check]) -> Result<ResourceSet, Problems> {
    load_with(folders, checks, &environment_variable, ParsedFiles::new()).result
}

/// Reads the manifests in a text that is not, or not yet, in a file; `file` is what problems call it and where its relative paths start.
///
/// # Errors
/// Everything that is wrong, by line.
pub fn load_bytes(file: &Path, bytes: Vec<u8>, checks: &[Check]) -> Result<ResourceSet, Problems> {
    let mut builder = Builder::default();
    builder.read(&Arc::from(file), files::text(bytes), &environment_variable);
    builder.finish(checks).result
}

/// Reads the manifests in these folders as they would be after a change that is not written yet.
///
/// # Errors
/// Everything that is wrong, by file and line.
pub fn load_changed(folders: &[PathBuf], change: &Change, checks: &[Check]) -> Result<ResourceSet, Problems> {
    let mut builder = Builder::default();
    let mut files = files::find(folders, &mut builder.problems);
    for path in change.files.keys() {
        if !files.iter().any(|file| file.as_ref() == path.as_path()) {
            files.push(Arc::from(path.as_path()));
        }
    }
    for file in &files {
        let text = match change.files.get(file.as_ref()) {
            Some((_, after)) => Ok(after.clone()),
            None => files::read(file),
        };
        builder.read(file, text, &environment_variable);
    }
    builder.finish(checks).result
}

pub(crate) fn environment_variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// What came of loading, and what was looked at.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) result: Result<ResourceSet, Problems>,
    /// How the files looked before they were read.
    pub(crate) stamp: Stamp,
    /// Files that manifests name.
    pub(crate) named: BTreeSet<PathBuf>,
    /// What the files hold, for the next time.
    pub(crate) parsed: ParsedFiles,
}

/// Files and what they held: when one of many changes, the others are not parsed again.
pub(crate) type ParsedFiles = HashMap<Arc<Path>, Arc<Parsed>>;

/// The documents of a file before variables are filled in.
#[derive(Debug)]
pub(crate) struct Parsed {
    text: String,
    has_variables: bool,
    documents: Result<Vec<Node>, Vec<Problem>>,
}

impl Parsed {
    fn new(text: String, file: &Arc<Path>) -> Self {
        Self {
            documents: node::parse(&text, file),
            has_variables: text.contains('$'),
            text,
        }
    }
}

pub(crate) fn load_with(
    folders: &[PathBuf],
    checks: &[Check],
    variables: Variables<'_>,
    before: ParsedFiles,
) -> Loaded {
    let mut builder = Builder {
        before,
        ..Builder::default()
    };
    let files = files::find(folders, &mut builder.problems);
    for file in &files {
        builder.stamp.add(file);
        builder.read(file, files::read(file), variables);
    }
    builder.finish(checks)
}

/// A set in the making.
#[derive(Debug, Default)]
pub struct Builder {
    set: ResourceSet,
    drafts: Vec<Draft>,
    declared: HashMap<(&'static str, String), Location>,
    datasets: Vec<Dataset>,
    depot_references: Vec<(String, String, Location)>,
    problems: Vec<Problem>,
    /// Everything of which the fingerprint is made.
    contents: Vec<Vec<u8>>,
    variables: BTreeMap<String, String>,
    stamp: Stamp,
    named: BTreeSet<PathBuf>,
    /// Whether there is a file of which it is not known what it declares.
    unread: bool,
    before: ParsedFiles,
    parsed: ParsedFiles,
}

impl Builder {
    fn read(&mut self, file: &Arc<Path>, text: Result<String, (usize, String)>, variables: Variables<'_>) {
        let text = match text {
            Ok(text) => text,
            Err((line, message)) => {
                self.problems
                    .push(Problem::new(Location::new(Arc::clone(file), line), message));
                return;
            }
        };
        let known = self.before.get(file).filter(|parsed| parsed.text == text);
        let parsed = known.map_or_else(|| Arc::new(Parsed::new(text, file)), Arc::clone);
        self.parsed.insert(Arc::clone(file), Arc::clone(&parsed));
        match &parsed.documents {
            Ok(documents) => {
                for document in documents {
                    let filled = parsed.has_variables.then(|| {
                        let mut document = document.clone();
                        environment::fill(&mut document, file, variables, &mut self.variables, &mut self.problems);
                        document
                    });
                    let problems = manifest::read(filled.as_ref().unwrap_or(document), file, self);
                    self.problems.extend(problems);
                }
            }
            Err(problems) => {
                self.problems.extend(problems.iter().cloned());
                self.unread = true;
            }
        }
        self.contents.push(file.as_os_str().as_encoded_bytes().to_vec());
        self.contents.push(parsed.text.clone().into_bytes());
    }

    /// Reads a file that a manifest names.
    pub(crate) fn read_file(&mut self, path: &Path) -> Result<String, String> {
        self.stamp.add(path);
        self.named.insert(path.to_path_buf());
        let text = files::read(path).map_err(|(_, message)| message)?;
        self.contents.push(path.as_os_str().as_encoded_bytes().to_vec());
        self.contents.push(text.clone().into_bytes());
        Ok(text)
    }

    /// Notes that a name is taken; the error is where it was taken first.
    pub(crate) fn declare(&mut self, kind: &'static str, name: &str, location: Location) -> Result<(), Location> {
        match self.declared.entry((kind, name.to_string())) {
            std::collections::hash_map::Entry::Occupied(first) => Err(first.get().clone()),
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(location);
                Ok(())
            }
        }
    }

    /// Whether there is, or may be, a manifest with this name, be it in order or not.
    pub(crate) fn is_declared(&self, kind: &'static str, name: &str) -> bool {
        self.unread || self.declared.contains_key(&(kind, name.to_string()))
    }

    pub(crate) fn secret(&self, name: &str) -> Option<&Arc<Secret>> {
        self.set.secret(name)
    }

    pub(crate) fn secret_names(&self) -> impl Iterator<Item = &str> + Clone {
        self.set.secrets.keys().map(String::as_str)
    }

    /// Notes that somebody speaks of a depot, which must then exist.
    pub(crate) fn refer_to_depot(&mut self, meta: &Meta, depot: &str, location: Location) {
        self.depot_references
            .push((meta.owner_of_problems(), depot.to_string(), location));
    }

    pub(crate) fn add_depot(&mut self, draft: Draft) {
        self.drafts.push(draft);
    }

    pub(crate) fn add_secret(&mut self, secret: Secret) {
        self.set.secrets.insert(secret.meta.name.clone(), Arc::new(secret));
    }

    pub(crate) fn add_user(&mut self, user: User) {
        self.set.users.insert(user.id.clone(), Arc::new(user));
    }

    pub(crate) fn add_dataset(&mut self, dataset: Dataset) {
        self.refer_to_depot(&dataset.meta, &dataset.address.depot, dataset.meta.location.clone());
        self.datasets.push(dataset);
    }

    pub(crate) fn add_cluster(&mut self, cluster: Cluster) {
        self.set.clusters.insert(cluster.meta.name.clone(), Arc::new(cluster));
    }

    pub(crate) fn add_identity_provider(&mut self, provider: IdentityProvider) {
        self.set
            .identity_providers
            .insert(provider.meta.name.clone(), Arc::new(provider));
    }

    pub(crate) fn add_access_policy(&mut self, policy: AccessPolicy) {
        self.set.access_policies.push(policy);
    }

    pub(crate) fn add_data_policy(&mut self, policy: DataPolicy) {
        if let Some(depot) = policy.scope.depot.literal() {
            self.refer_to_depot(&policy.meta, depot, policy.meta.location.clone());
        }
        self.set.data_policies.push(policy);
    }

    pub(crate) fn add_policy_test(&mut self, test: PolicyTest) {
        self.set.policy_tests.push(test);
    }

    fn finish(mut self, checks: &[Check]) -> Loaded {
        self.resolve_depots();
        self.check_depot_references();
        self.collect_datasets();
        self.check_apikeys();
        self.check_policy_tests();
        self.check_certificates();
        self.check_issuers();
        let variables = self
            .variables
            .iter()
            .flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
        self.set.fingerprint = digest::fingerprint(self.contents.iter().map(Vec::as_slice).chain(variables));
        let Self {
            set,
            mut problems,
            stamp,
            named,
            parsed,
            ..
        } = self;
        problems.extend(checks.iter().flat_map(|check| check(&set)));
        let result = if problems.is_empty() {
            Ok(set)
        } else {
            Err(Problems::sorted(problems))
        };
        Loaded {
            result,
            stamp,
            named,
            parsed,
        }
    }

    fn resolve_depots(&mut self) {
        for draft in std::mem::take(&mut self.drafts) {
            let name = draft.meta().name.clone();
            match draft.resolve(self) {
                Ok(depot) => {
                    self.set.depots.insert(name, Arc::new(depot));
                }
                Err(problems) => self.problems.extend(problems),
            }
        }
    }

    fn check_depot_references(&mut self) {
        for (owner, depot, location) in std::mem::take(&mut self.depot_references) {
            if !self.is_declared("depot", &depot) {
                let mut problem = Problem::new(location, format!("{owner}: there is no depot `{depot}`"));
                let names = self.set.depots.keys().map(String::as_str);
                problem.help = suggest::closest(&depot, names).map(|near| format!("did you mean `{near}`?"));
                self.problems.push(problem);
            }
        }
    }

    fn collect_datasets(&mut self) {
        for dataset in std::mem::take(&mut self.datasets) {
            if let Some(first) = self.set.datasets.get(&dataset.address) {
                let owner = dataset.meta.owner_of_problems();
                let message = format!(
                    "{owner}: `{}` is described already, at {}",
                    dataset.address, first.meta.location
                );
                self.problems
                    .push(Problem::new(dataset.meta.location.clone(), message).help("make one manifest of the two"));
            } else {
                self.set.datasets.insert(dataset.address.clone(), Arc::new(dataset));
            }
        }
    }

    /// A test must be about a user and a depot that are there.
    fn check_policy_tests(&mut self) {
        let mut problems = vec![];
        for test in &self.set.policy_tests {
            if let TestSubject::User(id) = &test.subject
                && !self.is_declared("user", id)
            {
                let mut problem = Problem::new(test.location.clone(), format!("test: there is no user `{id}`"));
                problem.help = suggest::closest(id, self.set.users.keys().map(String::as_str))
                    .map(|near| format!("did you mean `{near}`?"))
                    .or_else(|| Some("somebody made up is written `as: {tags: [..]}`".to_owned()));
                problems.push(problem);
            }
            let depot = &test.table.depot;
            if !self.is_declared("depot", depot) {
                let mut problem = Problem::new(test.location.clone(), format!("test: there is no depot `{depot}`"));
                problem.help = suggest::closest(depot, self.set.depots.keys().map(String::as_str))
                    .map(|near| format!("did you mean `{near}`?"));
                problems.push(problem);
            }
        }
        self.problems.extend(problems);
    }

    /// A key must say who asks: two users cannot have the same.
    fn check_apikeys(&mut self) {
        let mut owners: HashMap<&str, &User> = HashMap::new();
        for user in self.set.users.values() {
            for apikey in &user.apikeys {
                if let Some(other) = owners.insert(&apikey.sha256, user)
                    && other.id != user.id
                {
                    let message = format!(
                        "user `{}`: the API key `{}` is also one of user `{}`",
                        user.id, apikey.name, other.id
                    );
                    let problem = Problem::new(user.meta.location.clone(), message);
                    self.problems.push(problem.help("give each user a key of their own"));
                }
            }
        }
    }

    /// A certificate must say who asks as well.
    fn check_certificates(&mut self) {
        let mut owners: HashMap<&CertificateName, &User> = HashMap::new();
        for user in self.set.users.values() {
            for name in &user.certificates {
                if let Some(other) = owners.insert(name, user) {
                    let message = format!(
                        "user `{}`: the certificate of `{name}` is also one of user `{}`",
                        user.id, other.id
                    );
                    let problem = Problem::new(user.meta.location.clone(), message);
                    self.problems.push(problem.help("give each certificate one user"));
                }
            }
        }
    }

    /// The issuer of a token says which provider it is checked by.
    fn check_issuers(&mut self) {
        let mut issuers: HashMap<&str, &IdentityProvider> = HashMap::new();
        for provider in self.set.identity_providers.values() {
            if let Some(other) = issuers.insert(&provider.issuer, provider) {
                let message = format!(
                    "identity-provider `{}`: the issuer `{}` is also that of `{}`, at {}",
                    provider.meta.name, provider.issuer, other.meta.name, other.meta.location
                );
                let problem = Problem::new(provider.meta.location.clone(), message);
                self.problems
                    .push(problem.help("make one manifest of the two; `audience` may be a list"));
            }
        }
    }
}

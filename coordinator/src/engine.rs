//! What all sessions share: resources in force, opened depots, live workers, the queue, the running queries.
//!
//! In: a [`Config`]. Out: principals for credentials and sessions for principals. Deliberately absent: any protocol, any SQL.

mod records;

use std::{
    fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use datafusion::{execution::runtime_env::RuntimeEnv, prelude::SessionConfig};
use minerva_cluster::{Members, ResourcesVersion, Wire};
use minerva_connectors::Depots;
use minerva_policy::{DerivedTags, Opaque, Principal, Rules};
use minerva_resources::{Limits, Problems, Reload, ResourceSet, Resources};

use crate::{
    admission::Admission,
    apply::CHECKS,
    audit::{Audit, Keeping, Owner},
    catalog::Metadata,
    config::Config,
    error::{Code, QueryError, Result},
    gateway::auth::{self, Authenticator, Credentials, Identities, KeyHash, Known, Presented},
    progress::Progress,
    queries::{Client, Queries},
    session::{Session, Templates},
    store::{Store, StoredKey},
    views::Views,
};

/// How often the manifests are looked at; a good change is in force for the next query well within two seconds.
const WATCH_EVERY: Duration = Duration::from_millis(250);
/// The longest life of an API key.
const MAX_KEY_SECONDS: i64 = 10 * 365 * 24 * 3600;

/// The resources of one moment and what was made of them. A statement sees one snapshot from beginning to end.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) set: Arc<ResourceSet>,
    pub(crate) rules: Rules,
    pub(crate) identities: Identities,
    pub(crate) templates: Opaque<Templates>,
    /// The tags that followed columns into tables.
    pub(crate) derived: DerivedTags,
    /// What workers are given of it.
    pub(crate) for_workers: Arc<minerva_cluster::Resources>,
}

impl Snapshot {
    /// Which resources these are, as workers know them.
    pub(crate) fn version(&self) -> &ResourcesVersion {
        &self.for_workers.version
    }
}

/// One coordinator.
#[derive(Debug)]
pub struct Engine {
    pub(crate) config: Config,
    pub(crate) queries: Arc<Queries>,
    pub(crate) depots: Arc<Depots>,
    /// What depots said of their datasets, for listings.
    pub(crate) metadata: Arc<Metadata>,
    pub(crate) members: Members,
    pub(crate) admission: Admission,
    pub(crate) audit: Audit,
    wire: Wire,
    resources: Resources,
    snapshot: ArcSwap<Snapshot>,
    /// Held while a snapshot is made, so that no newer one is lost.
    remaking: Mutex<()>,
    views: ArcSwap<Views>,
    pub(crate) store: Store,
    authenticator: Authenticator,
    runtime: Arc<RuntimeEnv>,
    /// Held while a change of the resources is worked out and written.
    pub(crate) applying: tokio::sync::Mutex<()>,
    /// Why the manifests as they lie there now are not in force.
    refused: Mutex<Option<String>>,
    _lock: fs::File,
}

/// What happened at start that its user should be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FirstStart {
    /// The key of the `admin` user that was made because no user is declared; it is shown once.
    pub admin_key: Option<String>,
}

/// A key that was just made; the only time that it can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedKey {
    /// Whose it is.
    pub user: String,
    /// How its user calls it.
    pub name: String,
    /// The key.
    pub key: String,
    /// When it ends, in seconds since 1970.
    pub expires: i64,
}

/// What is asked for with a new key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateKey {
    /// For whom.
    pub user: String,
    /// How its user calls it.
    pub name: String,
    /// For how long, in seconds.
    pub lifetime_seconds: i64,
}

impl Engine {
    /// Makes everything that sessions share out of resources that were read. Nothing listens yet.
    ///
    /// # Errors
    /// A sentence that names what is wrong: a setting, a manifest, the data folder.
    pub(crate) fn new(config: Config, prepared: Prepared, members: Members, wire: Wire) -> Result<Arc<Self>, String> {
        let Prepared {
            resources,
            store,
            audit,
            lock,
            ..
        } = prepared;
        let set = resources.current();
        let runtime = minerva_cluster::runtime(config.max_memory_bytes, wire.depots())
            .map_err(|error| format!("the query runtime cannot be made: {error}"))?;
        let limits = set
            .cluster(&config.cluster)
            .map(|cluster| cluster.limits.clone())
            .unwrap_or_default();
        forget_what_memory_forgot(&set, &store).map_err(|error| error.message)?;
        let derived = store.derived_tags().map_err(|error| error.message)?;
        let snapshot = make_snapshot(set, derived, &config, &wire, &members, &runtime)?;
        let views = Views::read(&store).map_err(|error| error.message)?;
        Ok(Arc::new(Self {
            remaking: Mutex::default(),
            views: ArcSwap::from_pointee(views),
            queries: Arc::new(Queries::new()),
            admission: Admission::new(&limits),
            snapshot: ArcSwap::from_pointee(snapshot),
            depots: Arc::clone(wire.depots()),
            metadata: Arc::default(),
            audit,
            refused: Mutex::default(),
            store,
            authenticator: Authenticator::default(),
            config,
            members,
            wire,
            resources,
            runtime,
            applying: tokio::sync::Mutex::new(()),
            _lock: lock,
        }))
    }

    /// What workers inside this process share with it.
    pub fn wire(&self) -> &Wire {
        &self.wire
    }

    /// How many workers the manifest of the cluster asks for; 1 when there is none.
    pub fn declared_workers(&self) -> usize {
        let snapshot = self.snapshot();
        snapshot
            .set
            .cluster(&self.config.cluster)
            .map_or(1, |cluster| cluster.replicas)
    }

    /// Memory and temporary files of the queries of this process.
    pub fn runtime(&self) -> &Arc<RuntimeEnv> {
        &self.runtime
    }

    /// Looks at the manifests for as long as the engine lives.
    pub async fn watch(self: Arc<Self>) {
        let engine = Arc::downgrade(&self);
        drop(self);
        let mut ticks = tokio::time::interval(WATCH_EVERY);
        loop {
            ticks.tick().await;
            let Some(engine) = engine.upgrade() else { return };
            // Reading files and compiling policies would hold up the queries of this thread.
            let reloaded = tokio::task::spawn_blocking(move || engine.reload()).await;
            if let Err(error) = reloaded {
                tracing::error!(%error, "looking at the resources failed");
            }
        }
    }

    /// Takes a changed set of manifests, if it is good; a bad one changes nothing.
    pub(crate) fn reload(&self) {
        let _remaking = self.remaking.lock().unwrap_or_else(PoisonError::into_inner);
        match self.resources.poll() {
            Reload::Unchanged => {}
            Reload::Refused(problems) => {
                tracing::warn!("the changed resources are not in force:\n{problems}");
                self.refuse(Some(problems.to_string()));
            }
            Reload::Swapped(set) => {
                let derived = self.store.derived_tags().map_err(|error| error.message);
                let made = derived.and_then(|derived| {
                    let set = Arc::clone(&set);
                    make_snapshot(set, derived, &self.config, &self.wire, &self.members, &self.runtime)
                });
                match made {
                    Ok(snapshot) => {
                        self.metadata.keep_only(&set);
                        self.depots.update(set);
                        self.wire.set_keys(snapshot.rules.keys());
                        self.snapshot.store(Arc::new(snapshot));
                        self.refuse(None);
                        tracing::info!("the changed resources are in force");
                    }
                    Err(reason) => {
                        tracing::error!("the changed resources are not in force: {reason}");
                        self.refuse(Some(reason));
                    }
                }
            }
        }
    }

    /// Puts the tags that are kept into force for the statements that begin from now on.
    ///
    /// # Errors
    /// When they cannot be read, or rules cannot be made of them; the old ones stay in force then.
    pub(crate) fn take_tags(&self) -> Result<()> {
        let _remaking = self.remaking.lock().unwrap_or_else(PoisonError::into_inner);
        let derived = self.store.derived_tags()?;
        let now = self.snapshot();
        if now.derived == derived {
            return Ok(());
        }
        let set = Arc::clone(&now.set);
        let made = make_snapshot(set, derived, &self.config, &self.wire, &self.members, &self.runtime);
        let made = made.map_err(|reason| QueryError::new(Code::GenericInternalError, reason))?;
        self.snapshot.store(Arc::new(made));
        Ok(())
    }

    /// The views of depots, as they are now.
    pub(crate) fn views(&self) -> Arc<Views> {
        self.views.load_full()
    }

    /// Looks at the views again, after one was made or removed.
    pub(crate) fn take_views(&self) -> Result<()> {
        let _remaking = self.remaking.lock().unwrap_or_else(PoisonError::into_inner);
        self.views.store(Arc::new(Views::read(&self.store)?));
        Ok(())
    }

    fn refuse(&self, why: Option<String>) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Why the manifests as they lie there now are not in force, if they are not.
    pub(crate) fn refused_resources(&self) -> Option<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The resources in force.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Finds the user whom the credentials belong to. For doors that know neither the client's address nor its certificate.
    ///
    /// # Errors
    /// `INVALID_CREDENTIALS`; there is no anonymous user.
    pub async fn authenticate(&self, credentials: &Credentials) -> Result<Arc<Principal>> {
        let credentials = Some(credentials.clone());
        self.admit(&Presented {
            credentials,
            ..Presented::default()
        })
        .await
    }

    /// Finds the user who makes a call, by everything that the call shows. It waits only for a provider's keys that a token needs.
    ///
    /// # Errors
    /// `INVALID_CREDENTIALS`; there is no anonymous user. `PERMISSION_DENIED` for who may not act as the user that is asked for.
    pub async fn admit(&self, presented: &Presented) -> Result<Arc<Principal>> {
        let snapshot = self.snapshot();
        let known = Known {
            identities: &snapshot.identities,
            rules: &snapshot.rules,
            store: &self.store,
            cluster: &self.config.cluster,
        };
        self.authenticator.authenticate(&known, presented).await
    }

    /// Fetches the keys of identity providers for as long as the engine lives.
    pub async fn fetch_keys(self: Arc<Self>) {
        let engine = Arc::downgrade(&self);
        drop(self);
        let mut ticks = tokio::time::interval(WATCH_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(engine) = engine.upgrade() else { return };
            let snapshot = engine.snapshot();
            engine.authenticator.keep_fresh(&snapshot.set).await;
        }
    }

    /// Whether a client that asks for a cluster is at the right door.
    ///
    /// # Errors
    /// `NOT_FOUND` for any cluster but the one that this coordinator serves.
    pub fn serves(&self, cluster: &str) -> Result<()> {
        auth::expect_cluster(cluster, &self.config.cluster)
    }

    /// A session of an authenticated user.
    pub fn session(self: &Arc<Self>, principal: Arc<Principal>, client: Client) -> Arc<Session> {
        Arc::new(Session::new(Arc::clone(self), principal, client))
    }

    /// The limits of the cluster that is served; without a manifest it has none.
    pub(crate) fn limits(&self, snapshot: &Snapshot) -> Limits {
        let declared = snapshot.set.cluster(&self.config.cluster);
        declared.map(|cluster| cluster.limits.clone()).unwrap_or_default()
    }

    /// Stops a query of this user; an operator may stop anybody's. False when it is not running.
    ///
    /// # Errors
    /// None today; a queue that cannot be reached is one.
    pub fn cancel(&self, principal: &Principal, query_id: &str) -> Result<bool> {
        let message = format!("canceled by `{}`", principal.full_name());
        Ok(self.queries.cancel(Owner::of(principal).as_ref(), query_id, &message))
    }

    /// How far a query of this user is; an operator may ask about anybody's. `None` when it is not known.
    pub fn progress(&self, principal: &Principal, query_id: &str) -> Option<Progress> {
        self.queries.progress(Owner::of(principal).as_ref(), query_id)
    }

    /// Makes an API key and keeps its hash.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` for another user's key, unless an operator asks; `INVALID_ARGUMENT` for an unknown user or a wrong lifetime.
    pub fn create_api_key(&self, principal: &Principal, wanted: &CreateKey) -> Result<CreatedKey> {
        self.may_manage_keys(principal, &wanted.user)?;
        if self.snapshot().set.user(&wanted.user).is_none() {
            return Err(
                QueryError::new(Code::InvalidArgument, format!("user `{}` is not declared", wanted.user))
                    .with_hint("apply a `user` manifest first"),
            );
        }
        if wanted.name.is_empty() || wanted.name.len() > 48 {
            return Err(QueryError::new(
                Code::InvalidArgument,
                "an API key's name has 1 to 48 characters",
            ));
        }
        if !(1..=MAX_KEY_SECONDS).contains(&wanted.lifetime_seconds) {
            let message = format!(
                "an API key lives 1 to {MAX_KEY_SECONDS} seconds, not {}",
                wanted.lifetime_seconds
            );
            return Err(QueryError::new(Code::InvalidArgument, message));
        }
        let key = auth::new_key();
        let created = auth::now();
        let stored = StoredKey {
            user: wanted.user.clone(),
            name: wanted.name.clone(),
            created,
            expires: created + wanted.lifetime_seconds,
        };
        self.store.add_key(&stored, &KeyHash::of(&key))?;
        Ok(CreatedKey {
            user: stored.user,
            name: stored.name,
            key,
            expires: stored.expires,
        })
    }

    /// The API keys of a user, or of all; without the keys themselves, which are not kept.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` for anybody else's keys, unless an operator asks.
    pub fn list_api_keys(&self, principal: &Principal, user: Option<&str>) -> Result<Vec<StoredKey>> {
        let user = match (user, principal.is_operator() && principal.impersonator.is_none()) {
            (None, false) => Some(principal.id.as_str()),
            (user, _) => user,
        };
        if let Some(user) = user {
            self.may_manage_keys(principal, user)?;
        }
        let mut keys = self.store.keys(user)?;
        for declared in self
            .snapshot()
            .set
            .users()
            .filter(|declared| user.is_none_or(|user| user == declared.id))
        {
            for key in &declared.apikeys {
                let expires = key.expires.unwrap_or(i64::MAX);
                keys.push(StoredKey {
                    user: declared.id.clone(),
                    name: key.name.clone(),
                    created: 0,
                    expires,
                });
            }
        }
        Ok(keys)
    }

    /// Forgets an API key; false when there was none. A key of a manifest is deleted in the manifest.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` for another user's key, unless an operator asks.
    pub fn delete_api_key(&self, principal: &Principal, user: &str, name: &str) -> Result<bool> {
        self.may_manage_keys(principal, user)?;
        self.store.delete_key(user, name)
    }

    fn may_manage_keys(&self, principal: &Principal, user: &str) -> Result<()> {
        // Who acts as somebody for a while must not take a key away that lasts.
        match principal.impersonator.is_none() && (principal.is_operator() || principal.id == user) {
            true => Ok(()),
            false => Err(QueryError::new(
                Code::PermissionDenied,
                format!(
                    "user `{}` may not manage the API keys of `{user}`",
                    principal.full_name()
                ),
            )
            .with_hint("ask an operator")),
        }
    }
}

/// The manifests of a coordinator, read and checked before anything else is made.
pub(crate) struct Prepared {
    pub(crate) resources: Resources,
    pub(crate) first: FirstStart,
    store: Store,
    audit: Audit,
    lock: fs::File,
}

/// Takes the data folder, reads the manifests, and makes sure that somebody can log in.
pub(crate) fn prepare(config: &Config) -> Result<Prepared, String> {
    config.check()?;
    let lock = lock_data_folder(&config.data)?;
    let store = Store::open(&config.data.join("state.db")).map_err(|error| error.message)?;
    let keeping = Keeping {
        retention: config.audit_retention,
        redact: config.audit_redact,
    };
    let audit = Audit::open(&config.data, keeping)?;
    let own_folder = config.data.join("resources");
    make_folder(&own_folder)?;
    let mut folders = config.resources.clone();
    folders.push(own_folder.clone());
    let checks = CHECKS.to_vec();
    let mut resources = Resources::open(folders.clone(), checks.clone()).map_err(|problems| describe(&problems))?;
    let set = resources.current();
    let mut first = FirstStart::default();
    let somebody_can_log_in = set.users().any(|user| !user.apikeys.is_empty())
        || (set.user("admin").is_some() && can_log_in_without_key(&set))
        || !store.keys(None).map_err(|error| error.message)?.is_empty();
    if !somebody_can_log_in {
        first.admin_key = Some(declare_admin(&config.data, &own_folder, &set)?);
        resources = Resources::open(folders, checks).map_err(|problems| describe(&problems))?;
    }
    Ok(Prepared {
        resources,
        first,
        store,
        audit,
        lock,
    })
}

/// Whether there is another way to log in than by API key.
fn can_log_in_without_key(set: &ResourceSet) -> bool {
    set.identity_providers().next().is_some() || set.users().any(|user| !user.certificates.is_empty())
}

/// The tables of depots of type `memory` are gone with the process that had them, and so are their tags.
fn forget_what_memory_forgot(set: &ResourceSet, store: &Store) -> Result<()> {
    for address in store.derived_tags()?.keys() {
        if set
            .depot(&address.depot)
            .is_some_and(|depot| depot.depot_type == "memory")
        {
            for origin in store.origins_of_tags(address)? {
                store.forget_tags(address, &origin)?;
            }
        }
    }
    Ok(())
}

fn make_snapshot(
    set: Arc<ResourceSet>,
    derived: DerivedTags,
    config: &Config,
    wire: &Wire,
    members: &Members,
    runtime: &Arc<RuntimeEnv>,
) -> Result<Snapshot, String> {
    let rules = Rules::compile_with(&set, &derived).map_err(|problems| describe(&Problems(problems)))?;
    let for_workers = Arc::new(minerva_cluster::Resources::new(&set, rules.keys()).map_err(|error| error.to_string())?);
    let settings = SessionConfig::new().with_target_partitions(config.partitions());
    let templates =
        Templates::new(settings, config.bytes_per_task, wire, members, runtime).map_err(|error| error.to_string())?;
    Ok(Snapshot {
        identities: Identities::of(&set),
        set,
        rules,
        templates: Opaque::new(templates),
        derived,
        for_workers,
    })
}

fn describe(problems: &Problems) -> String {
    format!("the resources are not usable:\n{problems}")
}

fn make_folder(path: &Path) -> Result<(), String> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| {
            format!(
                "data folder `{}` cannot be made: {error}; name another with --data",
                path.display()
            )
        })
}

/// Takes the data folder for this process; two coordinators on one would lose each other's state.
fn lock_data_folder(data: &Path) -> Result<fs::File, String> {
    make_folder(data)?;
    let path = data.join("coordinator.lock");
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| {
            format!(
                "data folder `{}` is not writable: {error}; name another with --data",
                data.display()
            )
        })?;
    file.try_lock().map_err(|_| {
        format!(
            "data folder `{}` is in use by another coordinator; stop it, or name another with --data",
            data.display()
        )
    })?;
    Ok(file)
}

/// Nobody can log in yet: declares the user `admin`, an operator, and keeps the key where the local client finds it.
fn declare_admin(data: &Path, resources: &Path, set: &ResourceSet) -> Result<String, String> {
    if set.user("admin").is_some() {
        return Err("user `admin` is declared and no user has an API key, so that nobody can log in; give a user one under `apikeys`".to_owned());
    }
    let key = auth::new_key();
    let manifest = format!(
        "# Made at the first start because no user had an API key. Make keys for users of your own and delete this file.\n\
         name: admin\nversion: v1\ntype: user\nuser:\n  tags: [roles:id:operator, roles:id:user]\n  \
         apikeys:\n    - {{name: first-start, sha256: \"{}\"}}\n",
        auth::hash_key(&key)
    );
    write_private(&resources.join("admin.yaml"), &manifest)?;
    write_private(&data.join("admin-key"), &format!("{key}\n"))?;
    Ok(key)
}

fn write_private(path: &Path, text: &str) -> Result<(), String> {
    let write = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| format!("file `{}` cannot be written: {error}", path.display()))
}

/// Where a first start keeps the key of `admin`.
pub fn admin_key_file(data: &Path) -> PathBuf {
    data.join("admin-key")
}

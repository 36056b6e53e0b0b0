//! What a worker and its coordinator say to each other besides the stages of queries.
//!
//! Each is the JSON body of a Flight `DoAction` named after it. They are between two builds of the same version, so
//! there is no compatibility to keep; an unknown key is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use arrow_flight::Action;
use minerva_connectors::{SlotHolder, SlotKind};
use minerva_policy::KeyRing;
use minerva_resources::ResourceSet;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::Error;
use crate::reading::Reading;
use crate::token::{hex, unhex};

/// A question and the answer that belongs to it.
pub(crate) trait Question: Serialize + DeserializeOwned {
    /// The action's type.
    const NAME: &'static str;
    /// What is answered.
    type Answer: Serialize + DeserializeOwned;

    fn to_action(&self) -> Result<Action, Error> {
        Ok(Action::new(Self::NAME, write(self)?))
    }
}

/// A worker asks to be taken in. It serves already.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// The worker's name, new at every start.
    pub node_id: String,
    /// Where it listens; when the host is `0.0.0.0` or `[::]`, the coordinator puts in the address it sees.
    #[serde(with = "text")]
    pub url: Url,
    /// Its version of Minerva, which must be the coordinator's.
    pub version: String,
    /// How many threads it computes with.
    pub cores: usize,
    /// How much memory its queries may use.
    pub memory_bytes: u64,
}

/// The answer to [`Join`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Joined {
    /// The address under which the worker is known from now on.
    #[serde(with = "text")]
    pub url: Url,
    /// How often to say that it is alive, in milliseconds.
    pub heartbeat_ms: u64,
}

impl Question for Join {
    const NAME: &'static str = "join";
    type Answer = Joined;
}

/// A worker says that it is alive.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Heartbeat {
    /// The worker's name.
    pub node_id: String,
    /// The numbers of the slots that it has.
    pub slots: BTreeSet<u64>,
    /// The queries of which its stages read more since the last time, and what they read in all.
    pub news: BTreeMap<String, Reading>,
}

/// The answer to [`Heartbeat`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heard {
    /// Whether the coordinator knows the worker; if not, it must join again.
    pub known: bool,
    /// Which resources hold now.
    pub resources: ResourcesVersion,
}

impl Question for Heartbeat {
    const NAME: &'static str = "heartbeat";
    type Answer = Heard;
}

/// A worker takes no new work, or has finished and is gone.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Leave {
    /// The worker's name.
    pub node_id: String,
    /// False: it still finishes what it has. True: it is gone.
    pub drained: bool,
}

/// A worker wants to open a connection to a depot.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Borrow {
    /// Who.
    pub holder: SlotHolder,
    /// For what.
    pub kind: SlotKind,
    /// How many of this kind there are in the whole cluster, by the worker's resources.
    pub most: usize,
    /// What it was told when it asked for the same before, which keeps its place.
    pub ticket: Option<u64>,
}

/// The answer to [`Borrow`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Borrowed {
    /// By which number it is given back; `None` when there was none yet.
    pub number: Option<u64>,
    /// What to ask with next, when there was none yet. It can be given back, too.
    pub ticket: Option<u64>,
}

impl Question for Borrow {
    const NAME: &'static str = "borrow";
    type Answer = Borrowed;
}

/// A worker has closed a connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GiveBack {
    /// What it was for.
    pub kind: SlotKind,
    /// Its number.
    pub number: u64,
}

impl Question for GiveBack {
    const NAME: &'static str = "give-back";
    type Answer = Done;
}

/// A worker asks who waits for connections, and is answered when that is not what it knows.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// What it knows.
    pub known: Vec<(SlotKind, SlotHolder)>,
}

/// The answer to [`Wanted`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Waiters {
    /// All who wait.
    pub waiting: Vec<(SlotKind, SlotHolder)>,
}

impl Question for Wanted {
    const NAME: &'static str = "wanted";
    type Answer = Waiters;
}

/// An answer that says nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Done {}

impl Question for Leave {
    const NAME: &'static str = "leave";
    type Answer = Done;
}

/// Which resources hold: changes whenever a depot or a key changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResourcesVersion(pub String);

/// A worker asks for [`Resources`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResourcesRequest {
    /// The worker's name.
    pub node_id: String,
}

impl Question for ResourcesRequest {
    const NAME: &'static str = "resources";
    type Answer = Resources;
}

/// What a worker needs to open sources and to mask: it goes only to workers that hold the join token.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Which these are.
    pub version: ResourcesVersion,
    /// The depots with their credentials, as `ResourceSet::to_worker` writes them.
    set: String,
    /// The keys of masks in hexadecimal digits, by the name of their secret.
    keys: BTreeMap<String, String>,
}

impl fmt::Debug for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resources")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Resources {
    /// What workers are given of a resource set.
    pub fn new(set: &ResourceSet, keys: &KeyRing) -> Result<Self, Error> {
        let unwritable =
            |error: &dyn fmt::Display| Error::Answer(format!("cannot write the resources for workers: {error}"));
        let bytes = set.to_worker().map_err(|error| unwritable(&error))?;
        Ok(Self {
            version: ResourcesVersion(set.fingerprint().to_owned()),
            set: String::from_utf8(bytes).map_err(|error| unwritable(&error))?,
            keys: keys.iter().map(|(name, key)| (name.to_owned(), hex(key))).collect(),
        })
    }

    /// The depots.
    pub(crate) fn set(&self) -> Result<ResourceSet, Error> {
        ResourceSet::from_coordinator(self.set.as_bytes())
            .map_err(|error| Error::Answer(format!("cannot read the coordinator's resources: {error}")))
    }

    /// The keys.
    pub(crate) fn keys(&self) -> Result<KeyRing, Error> {
        let unreadable =
            |name: &str| Error::Answer(format!("cannot read the key `{name}` of the coordinator's resources"));
        let keys = self.keys.iter().map(|(name, digits)| {
            let key = unhex(digits).ok_or_else(|| unreadable(name))?;
            Ok((name.clone(), key))
        });
        keys.collect()
    }
}

pub(crate) fn write<T: Serialize>(message: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(message)
        .map_err(|error| Error::Answer(format!("cannot write a message of the cluster: {error}")))
}

pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| {
        Error::Answer(format!(
            "cannot read a message of the cluster ({error}); run the same version everywhere"
        ))
    })
}

/// Addresses as text.
mod text {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use url::Url;

    pub(super) fn serialize<S: Serializer>(url: &Url, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(url.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
        Url::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

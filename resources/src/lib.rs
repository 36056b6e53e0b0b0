//! Declarative resources: YAML manifests read, checked as a whole, held as one immutable set and reloaded live.
//!
//! In: folders of manifests. Out: a [`ResourceSet`] in which every reference resolves, or every [`Problem`] with file and line.
//! Deliberately absent: any DataFusion type, any network, any knowledge of what a depot type or a mask operator means (those who
//! know pass a [`Check`]).

mod address;
mod apply;
mod certificate_name;
mod digest;
mod environment;
mod files;
mod glob;
mod jwks;
mod kind;
mod listing;
mod manifest;
mod name;
mod node;
mod parameter;
mod problem;
mod reference;
mod set;
mod shown;
mod suggest;
mod time;
mod watch;

pub use address::Address;
pub use apply::{Action, Change, plan, plan_removal};
pub use certificate_name::{CertificateName, Subject};
pub use glob::{Glob, TagRule};
pub use jwks::{Algorithm, Jwk, Jwks, LARGEST_KEY_SET, PublicKey};
pub use kind::{
    Field, KINDS, Kind, Meta,
    access::AccessPolicy,
    cluster::{Cluster, Limits, Selector},
    data::{ColumnSelector, DataPolicy, FilterSpec, MaskSpec, Rule, Scope, UserSelector},
    dataset::{Column, Dataset, Unclassified},
    depot::{Depot, Timeouts},
    identity_provider::{IdentityProvider, KeySource, TagsClaim},
    policy_test::{PolicyTest, TestAccess, TestSubject},
    secret::Secret,
    user::{ApiKey, User},
};
pub use listing::{Declared, declared, kind_named, no_such};
pub use node::{Key, Node, Value};
pub use parameter::{Parameter, ParameterKind, Settings};
pub use problem::{Location, Problem, Problems};
pub use reference::reference;
pub use set::{Check, ResourceSet, load, load_bytes, load_changed};
pub use shown::KnownSettings;
pub use suggest::closest;
pub use watch::{Reload, Resources};

//! Who is asking: made only by the authenticator, from a declared user or a verified token.
//!
//! A principal is a value. It knows nothing of how it was authenticated and cannot be changed by a statement.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// An authenticated user as policies see them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Principal {
    /// The user's id.
    pub id: String,
    /// The user's tags, `users:id:<id>` included.
    pub tags: BTreeSet<String>,
    /// What row filters may ask for as `${user.attributes.NAME}`.
    pub attributes: BTreeMap<String, String>,
    /// Who acts as this user, if it is somebody else: a policy has allowed it, and records name both.
    pub impersonator: Option<String>,
}

impl Principal {
    /// The tag of the built-in role that may do everything, and is still masked and filtered.
    pub const OPERATOR: &str = "roles:id:operator";

    /// Makes a principal and adds the tag `users:id:<id>` that every user has.
    pub fn new(
        id: impl Into<String>,
        tags: impl IntoIterator<Item = String>,
        attributes: BTreeMap<String, String>,
    ) -> Self {
        let id = id.into();
        let own = format!("users:id:{id}");
        Self {
            id,
            tags: tags.into_iter().chain([own]).collect(),
            attributes,
            impersonator: None,
        }
    }

    /// Who speaks: the id, and who acts as that user. Two principals with the same name share sessions and handles.
    pub fn full_name(&self) -> Cow<'_, str> {
        // Ids have no blanks.
        match &self.impersonator {
            None => Cow::Borrowed(&self.id),
            Some(impersonator) => Cow::Owned(format!("{} by {impersonator}", self.id)),
        }
    }

    /// True for holders of the role `roles:id:operator`.
    pub fn is_operator(&self) -> bool {
        self.tags.contains(Self::OPERATOR)
    }
}

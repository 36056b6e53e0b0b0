//! Acting as somebody else: allowed by an access policy that says so in as many words, and by nothing else.
//!
//! The predicate is `impersonate`, the object the other user: `dataos:system:minerva:user:<id>` and the tags that the user has. A policy
//! allows it only if it names the predicate literally, so that one that allows everything on everything does not make everybody anybody.
//! Operators need such a policy as well, since policies mask for operators too; and nobody but an operator can act as one.

use crate::access::Object;
use crate::principal::Principal;
use crate::rules::Rules;

/// What acting as somebody needs.
pub(crate) const IMPERSONATE: &str = "impersonate";

impl Rules {
    /// The other user as the principal may act as them; `None` when no policy allows it.
    pub fn impersonate(&self, principal: &Principal, other: &Principal) -> Option<Principal> {
        let object = Object {
            paths: vec![],
            tags: std::iter::once(format!("dataos:system:minerva:user:{}", other.id))
                .chain(other.tags.iter().cloned())
                .collect(),
        };
        let may = principal.impersonator.is_none()
            && (principal.is_operator() || !other.is_operator())
            && self.authorize(principal, IMPERSONATE, &object).allowed;
        may.then(|| Principal {
            impersonator: Some(principal.id.clone()),
            ..other.clone()
        })
    }
}

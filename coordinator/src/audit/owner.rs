//! Who may see the record of a query, follow it and stop it.
//!
//! A query belongs to its user and to who acted as that user. The user sees all that was done in their name; who acts as the user sees what they
//! did themselves in that name, and nothing of the user's own. Operators see everybody's.

use minerva_policy::Principal;

/// Whose queries somebody may see who does not see everybody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    user: String,
    /// Who acts as the user, where somebody does.
    impersonator: Option<String>,
}

impl Owner {
    /// Whose queries the principal may see; `None` for everybody's.
    pub(crate) fn of(principal: &Principal) -> Option<Self> {
        (!principal.is_operator()).then(|| Self::themselves(principal))
    }

    /// The principal as the owner of queries, an operator too.
    pub(crate) fn themselves(principal: &Principal) -> Self {
        Self {
            user: principal.id.clone(),
            impersonator: principal.impersonator.clone(),
        }
    }

    /// Whether a query of this user, asked by this impersonator if by one, is theirs.
    pub(crate) fn owns(&self, user: &str, impersonator: Option<&str>) -> bool {
        self.user == user && (self.impersonator.is_none() || self.impersonator.as_deref() == impersonator)
    }

    /// The same as conditions on the columns of the file of records, all of which must hold.
    pub(crate) fn conditions(&self) -> Vec<(&'static str, &String)> {
        let user = ("user = ?", &self.user);
        let impersonator = self
            .impersonator
            .as_ref()
            .map(|impersonator| ("impersonator = ?", impersonator));
        [user].into_iter().chain(impersonator).collect()
    }
}

/// Whether the record of a query may be seen by this owner, or by who sees everybody's.
pub(crate) fn may_see(owner: Option<&Owner>, user: &str, impersonator: Option<&str>) -> bool {
    owner.is_none_or(|owner| owner.owns(user, impersonator))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_its_users_and_of_who_asked_it_in_their_name() {
        let jane = Principal::new("jane", [], Default::default());
        let by = |name: &str| Principal {
            impersonator: Some(name.to_owned()),
            ..jane.clone()
        };
        let operator = Principal::new("op", [Principal::OPERATOR.to_owned()], Default::default());
        let queries = [
            ("jane", None),
            ("jane", Some("boss")),
            ("jane", Some("desk")),
            ("boss", None),
            ("op", None),
        ];
        for (who, seen) in [
            (jane.clone(), [true, true, true, false, false]),
            (by("boss"), [false, true, false, false, false]),
            (by("desk"), [false, false, true, false, false]),
            (operator, [true; 5]),
        ] {
            let owner = Owner::of(&who);
            let found = queries.map(|(user, impersonator)| may_see(owner.as_ref(), user, impersonator));
            assert_eq!(found, seen, "{}", who.full_name());
        }
    }
}

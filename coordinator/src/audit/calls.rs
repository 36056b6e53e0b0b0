//! How many calls that are no statements are recorded one by one.
//!
//! In: each call. Out: whether it has a record of its own or is counted with others. Who may do nothing can still ask without end, and must not fill the
//! disk: beyond a number within a minute the calls of one user are counted in one record. A change is never counted so: what nobody could find
//! afterwards is not done.

use std::collections::HashMap;

use minerva_policy::Principal;

use super::record::QueryRecord;
use crate::{
    error::{Code, QueryError, Result},
    queries::State,
};

/// How many calls of one user within a minute have records of their own, and how many changes one may make who is no operator.
pub(super) const MOST_CALLS: u64 = 200;
const MINUTE: i64 = 60_000;

/// What a record of a call tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Something was asked, or refused.
    Asked,
    /// A change is about to be made.
    Begins,
    /// It was made, or failed; its record is replaced.
    Ended,
}

/// The calls of this minute.
#[derive(Debug, Default)]
pub(super) struct Calls {
    minute: i64,
    users: HashMap<(String, Option<String>), Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    asked: u64,
    changes: u64,
    several: Option<Several>,
}

/// The one record of further calls.
#[derive(Debug, Clone)]
pub(super) struct Several {
    id: String,
    since: i64,
    calls: u64,
}

impl Calls {
    /// Counts a call; `None` when it has a record of its own.
    pub(super) fn count(&mut self, now: i64, principal: &Principal, stage: Stage, id: &str) -> Result<Option<Several>> {
        let minute = now.div_euclid(MINUTE);
        if minute != self.minute {
            self.minute = minute;
            self.users.clear();
        }
        let who = (principal.id.clone(), principal.impersonator.clone());
        let counted = self.users.entry(who).or_default();
        match stage {
            Stage::Ended => Ok(None),
            Stage::Begins if counted.changes >= MOST_CALLS && !principal.is_operator() => {
                let message = format!("more than {MOST_CALLS} changes within a minute");
                Err(QueryError::new(Code::QueryQueueFull, message).with_hint("try again in a minute"))
            }
            Stage::Begins => {
                counted.changes += 1;
                Ok(None)
            }
            Stage::Asked if counted.asked < MOST_CALLS => {
                counted.asked += 1;
                Ok(None)
            }
            Stage::Asked => {
                let several = counted.several.get_or_insert_with(|| Several {
                    id: id.to_owned(),
                    since: now,
                    calls: 0,
                });
                several.calls += 1;
                Ok(Some(several.clone()))
            }
        }
    }
}

impl Several {
    /// The record of all of them, from that of the latest. It tells nothing of any single call.
    pub(super) fn record(self, latest: QueryRecord) -> QueryRecord {
        QueryRecord {
            query_id: self.id,
            query: format!("several: {} further calls within a minute", self.calls),
            created: self.since,
            state: State::Finished.as_str().to_owned(),
            error_code: None,
            error_message: None,
            ..latest
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> Principal {
        Principal::new(name, [], Default::default())
    }

    #[test]
    fn a_flood_of_calls_is_one_record_and_each_minute_begins_anew() {
        let mut calls = Calls::default();
        let mut asked = |who: &str, now: i64, id: &str| calls.count(now, &user(who), Stage::Asked, id).unwrap();
        for _ in 0..MOST_CALLS {
            assert!(asked("jane", 5, "own").is_none());
        }
        assert_eq!(asked("jane", 6, "first").unwrap().calls, 1);
        let several = asked("jane", 7, "second").unwrap();
        assert!(asked("lena", 8, "own").is_none(), "others are counted by themselves");
        let record = several.record(QueryRecord {
            query_id: "second".to_owned(),
            query: "GetPrimaryKeys a.b.c".to_owned(),
            error_code: Some("TABLE_NOT_FOUND".to_owned()),
            user: "jane".to_owned(),
            ..QueryRecord::default()
        });
        assert_eq!(
            (record.query_id.as_str(), record.user.as_str(), record.created),
            ("first", "jane", 6)
        );
        assert_eq!(record.query, "several: 2 further calls within a minute");
        assert!(record.error_code.is_none());
        assert!(asked("jane", MINUTE, "own").is_none());
    }

    #[test]
    fn changes_are_refused_and_not_counted_together() {
        let mut calls = Calls::default();
        let operator = Principal::new("op", [Principal::OPERATOR.to_owned()], Default::default());
        for _ in 0..MOST_CALLS {
            assert!(calls.count(0, &user("jane"), Stage::Begins, "a").unwrap().is_none());
            assert!(calls.count(0, &operator, Stage::Begins, "a").unwrap().is_none());
        }
        assert!(calls.count(0, &operator, Stage::Begins, "a").unwrap().is_none());
        let refused = calls.count(0, &user("jane"), Stage::Begins, "a").unwrap_err();
        assert_eq!(refused.code, Code::QueryQueueFull);
        assert!(
            calls.count(0, &user("jane"), Stage::Ended, "a").unwrap().is_none(),
            "it was begun"
        );
        assert!(calls.count(0, &user("jane"), Stage::Asked, "a").unwrap().is_none());
    }
}

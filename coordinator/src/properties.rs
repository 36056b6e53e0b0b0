//! Session properties: what `SET SESSION` changes for the statements that follow.
//!
//! In: a name and a value as text. Out: limits that are lower than the cluster's, and which depots are asked for whole rows. A new property is a
//! line in [`LIMITS`] or an arm in [`Properties::set`]. None of them touches what a user may see.

use std::collections::{BTreeMap, BTreeSet};

use minerva_resources::Limits;

use crate::error::{Code, QueryError, Result};

/// The limits that a session may lower: the name of the property, the cluster's key, its type, what it does.
const LIMITS: [(&str, &str, &str, &str); 5] = [
    (
        "query_max_run_time",
        "query.max-run-time",
        "duration",
        "longest time from a statement's arrival to its end",
    ),
    (
        "query_max_execution_time",
        "query.max-execution-time",
        "duration",
        "longest time that a statement executes",
    ),
    (
        "query_max_memory",
        "query.max-memory",
        "data size",
        "most memory of a statement",
    ),
    (
        "query_max_memory_per_node",
        "query.max-memory-per-node",
        "data size",
        "most memory of a statement on each node",
    ),
    ("query_max_rows", "query.max-rows", "bigint", "most rows of an answer"),
];

/// The property of each depot.
const PUSHDOWN: &str = "pushdown";
const STRATEGY: &str = "join_pushdown_strategy";
const AUTOMATIC: &str = "AUTOMATIC";
const EAGER: &str = "EAGER";
/// The property of joins.
const REORDERING: &str = "join_reordering_strategy";
const NONE: &str = "NONE";

/// What a session has set.
#[derive(Debug, Clone, Default)]
pub(crate) struct Properties {
    /// The text of each limit that is set, by the name of its property.
    texts: BTreeMap<&'static str, String>,
    limits: Limits,
    /// The depots whose push-down is switched off.
    unpushed: BTreeSet<String>,
    /// The depots that do all they can, whatever it costs.
    eager: BTreeSet<String>,
    /// Whether joins stay in the order that they are written in.
    keeps_order: bool,
}

/// A property as `SHOW SESSION` lists it: name, value, default, type, description.
pub(crate) type Shown = [String; 5];

impl Properties {
    /// Whether the depot of a property can have it; `computes` says that it does more than scans.
    ///
    /// # Errors
    /// `NOT_SUPPORTED` for a property that would change nothing.
    pub(crate) fn expect_of(name: &[String], property: &str, computes: bool) -> Result<()> {
        match property == STRATEGY && !computes {
            true => Err(QueryError::new(
                Code::NotSupported,
                format!(
                    "session property `{}` would change nothing: its depot is asked for scans only",
                    name.join(".")
                ),
            )
            .with_hint("docs/pushdown.md tells which types of depots compute more")),
            false => Ok(()),
        }
    }

    /// Sets a property. Whether the user may know of the depot is for the caller to see to.
    ///
    /// # Errors
    /// `NOT_FOUND` for a name that no property has, `INVALID_ARGUMENT` for a value that does not fit or is above the cluster's limit.
    pub(crate) fn set(&mut self, name: &[String], value: &str, cluster: &Limits) -> Result<()> {
        match name {
            [depot, property] if property == PUSHDOWN => {
                match value.to_ascii_lowercase().as_str() {
                    "true" => self.unpushed.remove(depot),
                    "false" => self.unpushed.insert(depot.clone()),
                    _ => return Err(unfit(name, value, "`true` or `false`")),
                };
                Ok(())
            }
            [depot, property] if property == STRATEGY => {
                match value.to_ascii_uppercase().as_str() {
                    AUTOMATIC => self.eager.remove(depot),
                    EAGER => self.eager.insert(depot.clone()),
                    _ => return Err(unfit(name, value, "`AUTOMATIC` or `EAGER`")),
                };
                Ok(())
            }
            [property] if property == REORDERING => {
                self.keeps_order = match value.to_ascii_uppercase().as_str() {
                    AUTOMATIC => false,
                    NONE => true,
                    _ => return Err(unfit(name, value, "`AUTOMATIC` or `NONE`")),
                };
                Ok(())
            }
            [property] => {
                let (property, key, ..) = limit(property).ok_or_else(|| unknown(name))?;
                let mut limits = self.limits.clone();
                limits
                    .set(key, value)
                    .map_err(|expected| unfit(name, value, expected))?;
                if let (true, Some(most)) = (cluster.lowest(&limits).text(key) != limits.text(key), cluster.text(key)) {
                    return Err(unfit(name, value, &format!("at most the cluster's `{most}`")));
                }
                self.limits = limits;
                self.texts.insert(property, value.to_owned());
                Ok(())
            }
            _ => Err(unknown(name)),
        }
    }

    /// Gives a property its default again.
    ///
    /// # Errors
    /// `NOT_FOUND` for a name that no property has.
    pub(crate) fn reset(&mut self, name: &[String]) -> Result<()> {
        match name {
            [depot, property] if property == PUSHDOWN => {
                self.unpushed.remove(depot);
            }
            [depot, property] if property == STRATEGY => {
                self.eager.remove(depot);
            }
            [property] if property == REORDERING => self.keeps_order = false,
            [property] => {
                let (property, ..) = limit(property).ok_or_else(|| unknown(name))?;
                self.texts.remove(property);
                let mut limits = Limits::default();
                for (property, key, ..) in LIMITS {
                    if let Some(text) = self.texts.get(property) {
                        limits.set(key, text).map_err(|expected| unfit(name, text, expected))?;
                    }
                }
                self.limits = limits;
            }
            _ => return Err(unknown(name)),
        }
        Ok(())
    }

    /// A cluster's limits, as far as they are not lowered.
    pub(crate) fn lower(&self, cluster: Limits) -> Limits {
        cluster.lowest(&self.limits)
    }

    /// Whether a depot may be asked to filter and to limit.
    pub(crate) fn pushes_down(&self, depot: &str) -> bool {
        !self.unpushed.contains(depot)
    }

    /// Whether a depot does all that it can, also where that is thought to cost more.
    pub(crate) fn is_eager(&self, depot: &str) -> bool {
        self.eager.contains(depot)
    }

    /// Whether joins may be done in another order than they are written in.
    pub(crate) fn orders_joins(&self) -> bool {
        !self.keeps_order
    }

    /// Every property with the value that is in force, and those of these depots, each with whether it computes more than scans.
    pub(crate) fn shown(&self, cluster: &Limits, depots: &[(String, bool)]) -> Vec<Shown> {
        let lowest = cluster.lowest(&self.limits);
        let limits = LIMITS.iter().map(|(name, key, kind, description)| {
            let default = cluster.text(key).unwrap_or_default();
            // A cluster may have been lowered below what was set before.
            let in_force = lowest.text(key);
            let own = self.texts.get(name).filter(|_| self.limits.text(key) == in_force);
            let value = own.cloned().or(in_force).unwrap_or_default();
            [
                (*name).to_owned(),
                value,
                default,
                (*kind).to_owned(),
                (*description).to_owned(),
            ]
        });
        let depots = depots.iter().flat_map(|(depot, computes)| {
            let pushdown = [
                format!("{depot}.{PUSHDOWN}"),
                self.pushes_down(depot).to_string(),
                "true".to_owned(),
                "boolean".to_owned(),
                "whether the depot itself filters, limits, joins and computes what is read".to_owned(),
            ];
            let strategy = [
                format!("{depot}.{STRATEGY}"),
                if self.is_eager(depot) { EAGER } else { AUTOMATIC }.to_owned(),
                AUTOMATIC.to_owned(),
                "varchar".to_owned(),
                "what the depot joins and computes: what is cheaper there, or all that it can".to_owned(),
            ];
            computes.then_some(strategy).into_iter().chain([pushdown])
        });
        let reordering = [
            REORDERING.to_owned(),
            if self.keeps_order { NONE } else { AUTOMATIC }.to_owned(),
            AUTOMATIC.to_owned(),
            "varchar".to_owned(),
            "the order of joins: what is expected to be cheapest, or as they are written".to_owned(),
        ];
        depots.chain(limits).chain([reordering]).collect()
    }
}

fn limit(name: &str) -> Option<(&'static str, &'static str, &'static str, &'static str)> {
    LIMITS.into_iter().find(|(known, ..)| *known == name)
}

fn unknown(name: &[String]) -> QueryError {
    let name = name.join(".");
    let known = LIMITS.iter().map(|(known, ..)| *known).chain([REORDERING]);
    QueryError::new(Code::NotFound, format!("session property `{name}` does not exist"))
        .with_hint("SHOW SESSION lists them")
        .suggest(&name, known)
}

fn unfit(name: &[String], value: &str, expected: &str) -> QueryError {
    QueryError::new(
        Code::InvalidArgument,
        format!("session property `{}` cannot be `{value}`", name.join(".")),
    )
    .with_hint(format!("expected {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Vec<String> {
        name.split('.').map(str::to_owned).collect()
    }

    fn cluster() -> Limits {
        let mut limits = Limits::default();
        limits.set("query.max-rows", "100").unwrap();
        limits.set("query.max-run-time", "10m").unwrap();
        limits
    }

    #[test]
    fn a_session_lowers_limits_and_never_raises_them() {
        let mut set = Properties::default();
        set.set(&named("query_max_rows"), "7", &cluster()).unwrap();
        set.set(&named("query_max_memory"), "1GB", &cluster()).unwrap();
        assert_eq!(set.lower(cluster()).max_rows, Some(7));
        assert_eq!(set.lower(cluster()).max_memory, Some(1 << 30));
        let refused = set.set(&named("query_max_rows"), "101", &cluster()).unwrap_err();
        assert_eq!(refused.code, Code::InvalidArgument);
        let refused = set.set(&named("query_max_run_time"), "11m", &cluster()).unwrap_err();
        assert!(refused.hint.unwrap().contains("10m"));
        assert_eq!(
            set.lower(cluster()).max_rows,
            Some(7),
            "a refused value changes nothing"
        );
        // A cluster that is lowered afterwards holds all the same.
        let mut lower = cluster();
        lower.set("query.max-rows", "5").unwrap();
        let value = |cluster: &Limits, name: &str| {
            let shown = set.shown(cluster, &[]);
            let row = shown.iter().find(|row| row[0] == name).unwrap();
            [row[1].clone(), row[2].clone()]
        };
        assert_eq!(value(&lower, "query_max_rows"), ["5", "5"], "what is in force is shown");
        assert_eq!(value(&cluster(), "query_max_rows"), ["7", "100"]);
        assert_eq!(value(&lower, "query_max_memory"), ["1GB", ""]);
        assert_eq!(set.lower(lower).max_rows, Some(5));
        set.reset(&named("query_max_rows")).unwrap();
        assert_eq!(set.lower(cluster()).max_rows, Some(100));
        assert_eq!(set.lower(cluster()).max_memory, Some(1 << 30), "others stay");
    }

    #[test]
    fn names_and_values_that_do_not_fit_are_errors() {
        let mut set = Properties::default();
        for (name, value, code) in [
            ("query_max_row", "7", Code::NotFound),
            ("crm.push", "false", Code::NotFound),
            ("a.b.c", "1", Code::NotFound),
            ("query_max_rows", "many", Code::InvalidArgument),
            ("query_max_rows", "-1", Code::InvalidArgument),
            ("query_max_run_time", "10", Code::InvalidArgument),
            ("query_max_memory", "1 potato", Code::InvalidArgument),
            ("crm.pushdown", "0", Code::InvalidArgument),
        ] {
            let refused = set.set(&named(name), value, &cluster()).unwrap_err();
            assert_eq!(refused.code, code, "{name} = {value}");
            assert!(refused.message.contains(name), "{refused:?}");
        }
        assert_eq!(set.reset(&named("nothing")).unwrap_err().code, Code::NotFound);
    }

    #[test]
    fn a_depot_that_only_scans_has_no_strategy() {
        let (air, crm) = (named("air.join_pushdown_strategy"), named("crm.join_pushdown_strategy"));
        let refused = Properties::expect_of(&air, STRATEGY, false).unwrap_err();
        assert_eq!(refused.code, Code::NotSupported);
        assert!(refused.message.contains("air.join_pushdown_strategy"), "{refused:?}");
        Properties::expect_of(&air, PUSHDOWN, false).unwrap();
        Properties::expect_of(&crm, STRATEGY, true).unwrap();
        let mut set = Properties::default();
        set.set(&crm, "eager", &cluster()).unwrap();
        assert!(set.is_eager("crm") && !set.is_eager("air"));
        assert_eq!(
            set.set(&crm, "sometimes", &cluster()).unwrap_err().code,
            Code::InvalidArgument
        );
        let shown = set.shown(&cluster(), &[("air".to_owned(), false), ("crm".to_owned(), true)]);
        let value = |name: &str| shown.iter().find(|row| row[0] == name).map(|row| row[1].as_str());
        assert_eq!(value("crm.join_pushdown_strategy"), Some("EAGER"));
        assert_eq!(value("air.join_pushdown_strategy"), None);
        set.reset(&crm).unwrap();
        assert!(!set.is_eager("crm"));
    }

    #[test]
    fn joins_may_be_kept_in_their_order() {
        let mut set = Properties::default();
        let name = named("join_reordering_strategy");
        let shown = |set: &Properties| {
            let shown = set.shown(&cluster(), &[]);
            let row = shown.iter().find(|row| row[0] == "join_reordering_strategy").unwrap();
            [row[1].clone(), row[2].clone()]
        };
        assert!(set.orders_joins());
        assert_eq!(shown(&set), ["AUTOMATIC", "AUTOMATIC"]);
        set.set(&name, "none", &cluster()).unwrap();
        assert!(!set.orders_joins());
        assert_eq!(shown(&set), ["NONE", "AUTOMATIC"]);
        let refused = set.set(&name, "ELIMINATE_CROSS_JOINS", &cluster()).unwrap_err();
        assert_eq!(refused.code, Code::InvalidArgument);
        assert!(refused.hint.unwrap().contains("`AUTOMATIC` or `NONE`"));
        assert!(!set.orders_joins(), "a refused value changes nothing");
        set.reset(&name).unwrap();
        assert!(set.orders_joins());
    }

    #[test]
    fn push_down_is_switched_for_one_depot() {
        let mut set = Properties::default();
        set.set(&named("crm.pushdown"), "FALSE", &cluster()).unwrap();
        assert!(!set.pushes_down("crm") && set.pushes_down("air"));
        let shown = set.shown(&cluster(), &[("air".to_owned(), false), ("crm".to_owned(), true)]);
        let value = |name: &str| shown.iter().find(|row| row[0] == name).map(|row| row[1].as_str());
        assert_eq!(value("crm.pushdown"), Some("false"));
        assert_eq!(value("air.pushdown"), Some("true"));
        assert_eq!(value("query_max_rows"), Some("100"));
        set.reset(&named("crm.pushdown")).unwrap();
        assert!(set.pushes_down("crm"));
    }
}

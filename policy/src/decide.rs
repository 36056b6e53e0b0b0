//! The decision: what may this principal see of this table.
//!
//! A pure function of the rules, the principal and the table's schema: no IO, no clock. Whatever cannot be applied
//! closes the table; nothing is skipped. Masks are chosen for what lies deepest: every field inside a column has the
//! mask of lowest priority number among those that match it or anything it lies in, and where all parts of a value
//! have the same mask and the mask can keep the whole, the whole is masked.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;
use datafusion::logical_expr::Expr;
use minerva_resources::Address;

use crate::access::AccessDecision;
use crate::filter::Condition;
use crate::opaque::Opaque;
use crate::principal::Principal;
use crate::row_filter::FilterFunction;
use crate::rules::{DataRule, Effect, Person, PolicyRef, Rules};
use crate::table::{Candidate, ColumnNode, TableFilter, TableRules};
use crate::verdict::{ClosedTable, ColumnMask, Compiled, Governance, HiddenColumn, RowFilter, Verdict};

/// Decides what a principal may see of a table with this schema.
pub fn decide(rules: &Rules, principal: &Principal, address: &Address, schema: &Schema) -> Verdict {
    let access = rules.may_select(principal, address);
    if !access.allowed {
        return Verdict::Deny(access);
    }
    match Decider::new(rules, principal, address, schema).governance() {
        Ok(governance) if is_all(&governance.hidden, schema) => Verdict::Deny(AccessDecision::default()),
        Ok(governance) => Verdict::Allow(governance),
        Err(closed) => Verdict::Closed(closed),
    }
}

/// Whether these are all columns of a table. A table of which nothing may be seen is none.
pub(crate) fn is_all(hidden: &[HiddenColumn], schema: &Schema) -> bool {
    !hidden.is_empty() && hidden.len() == schema.fields().len()
}

/// What masks would not fit of a table's columns, whoever meets them: for people who change policies. A mask that is
/// always outranked does no harm.
pub fn misfits(rules: &Rules, address: &Address, schema: &Schema) -> Vec<String> {
    let nobody = Principal::new("", [], BTreeMap::new());
    let decider = Decider::new(rules, &nobody, address, schema);
    let mut found = vec![];
    for column in &decider.table.columns {
        let mut seen = vec![];
        let mut nodes = vec![column];
        // From the outside in: what reaches the whole is tried on the whole first.
        while let Some(node) = nodes.pop() {
            for candidate in &node.candidates {
                if seen.contains(&candidate.rule) {
                    continue;
                }
                seen.push(candidate.rule);
                let choice = Choice::Whole(Some(candidate.rule));
                if let Err(closed) = decider.gather(column, node, &choice, &mut vec![]) {
                    found.push(format!("of `{address}`: {}", closed.message));
                }
            }
            nodes.extend(&node.parts);
        }
    }
    found
}

/// One decision being made.
pub(crate) struct Decider<'a> {
    rules: &'a Rules,
    principal: &'a Principal,
    address: &'a Address,
    schema: &'a Schema,
    person: Arc<Person>,
    pub(crate) table: Arc<TableRules>,
}

/// Which policies' masks the parts of a column have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    /// All of it has the mask of one policy, or none.
    Whole(Option<usize>),
    /// Its parts differ; one for each of them.
    Parts(Vec<Choice>),
}

impl<'a> Decider<'a> {
    pub(crate) fn new(rules: &'a Rules, principal: &'a Principal, address: &'a Address, schema: &'a Schema) -> Self {
        let person = rules.person(principal);
        let table = rules.table(address, schema);
        Self {
            rules,
            principal,
            address,
            schema,
            person,
            table,
        }
    }

    /// Masks and filters, or why the table is closed.
    pub(crate) fn governance(&self) -> Result<Governance, ClosedTable> {
        for (index, why) in &self.table.missing {
            let rule = self.rule(*index)?;
            let masks = rule.mask().is_some_and(|mask| !mask.is_pass_through());
            if masks && self.person.has(*index) {
                return Err(self.closed(format!("{}: {why}", rule.because), vec![Arc::clone(&rule.because)]));
            }
        }
        let hidden = self.hidden();
        let mut masks = vec![];
        for column in &self.table.columns {
            if hidden.iter().any(|hidden| column.path.first() == Some(&hidden.name)) {
                continue;
            }
            let choice = self.choose(column)?;
            self.gather(column, column, &choice, &mut masks)?;
        }
        let mut filters = vec![];
        for filter in self.table.filters.iter().filter(|filter| self.person.has(filter.rule)) {
            let rule = self.rule(filter.rule)?;
            filters.push(RowFilter {
                predicate: self.predicate(filter, rule)?,
                because: Arc::clone(&rule.because),
            });
        }
        Ok(Governance::hiding(hidden, masks, filters))
    }

    /// The columns that do not exist for the principal: those that access policies deny, and unclassified ones. Operators see what nobody has classified, so that somebody can.
    pub(crate) fn hidden(&self) -> Vec<HiddenColumn> {
        if self.principal.is_operator() {
            return vec![];
        }
        let mut hidden = self.table.unclassified.clone();
        for denial in &self.table.denials {
            let because = denial.because(self.rules, &self.person);
            if because.is_empty() || hidden.iter().any(|hidden| hidden.name == denial.name) {
                continue;
            }
            let policies: Vec<String> = because.iter().map(ToString::to_string).collect();
            hidden.push(HiddenColumn {
                name: denial.name.clone(),
                because: format!("denied by {}", policies.join(", ")),
            });
        }
        hidden
    }

    /// The masks of all parts of a column.
    pub(crate) fn choose(&self, node: &ColumnNode) -> Result<Choice, ClosedTable> {
        if node.parts.is_empty() {
            return Ok(Choice::Whole(self.winner(node)?));
        }
        let parts = node
            .parts
            .iter()
            .map(|part| self.choose(part))
            .collect::<Result<Vec<_>, _>>()?;
        match parts.split_first() {
            Some((Choice::Whole(winner), rest)) if rest.iter().all(|other| *other == Choice::Whole(*winner)) => {
                Ok(Choice::Whole(*winner))
            }
            _ => Ok(Choice::Parts(parts)),
        }
    }

    /// The policy whose mask wins for one plain value. Exemptions win like masks, and lose on a tie.
    fn winner(&self, node: &ColumnNode) -> Result<Option<usize>, ClosedTable> {
        let mut matching = self.matching(node);
        let Some(first) = matching.next() else { return Ok(None) };
        let winner = self.rule(first)?;
        for other in matching {
            let other = self.rule(other)?;
            if other.priority != winner.priority {
                break;
            }
            let (Some(left), Some(right)) = (winner.mask(), other.mask()) else {
                continue;
            };
            if !right.is_pass_through() && left.describe() != right.describe() {
                let message = format!(
                    "{} and {} have priority {} and give different masks on column `{}`; give one of them another priority",
                    winner.because,
                    other.because,
                    winner.priority,
                    node.path.join("."),
                );
                return Err(self.closed(message, vec![Arc::clone(&winner.because), Arc::clone(&other.because)]));
            }
        }
        Ok(Some(first))
    }

    /// The masks about this principal that may reach a column, best first.
    pub(crate) fn matching(&self, node: &ColumnNode) -> impl Iterator<Item = usize> {
        node.candidates
            .iter()
            .map(|candidate| candidate.rule)
            .filter(|rule| self.person.has(*rule))
    }

    /// Compiles the chosen masks of a column and everything inside it.
    fn gather(
        &self,
        column: &ColumnNode,
        node: &ColumnNode,
        choice: &Choice,
        masks: &mut Vec<ColumnMask>,
    ) -> Result<(), ClosedTable> {
        match choice {
            Choice::Whole(None) => Ok(()),
            Choice::Whole(Some(index)) => {
                let rule = self.rule(*index)?;
                let Some(mask) = rule.mask().filter(|mask| !mask.is_pass_through()) else {
                    return Ok(());
                };
                match self.compiled(column, node, *index) {
                    Ok(compiled) => {
                        masks.push(ColumnMask {
                            path: node.path.clone(),
                            mask: Arc::clone(mask),
                            because: Arc::clone(&rule.because),
                            compiled,
                        });
                        Ok(())
                    }
                    Err(_) if !node.parts.is_empty() => node
                        .parts
                        .iter()
                        .try_for_each(|part| self.gather(column, part, choice, masks)),
                    Err(why) => {
                        let message = format!(
                            "{}: mask `{}` does not fit column `{}` of type `{}`: {why}",
                            rule.because,
                            mask.name(),
                            node.path.join("."),
                            node.data_type,
                        );
                        Err(self.closed(message, vec![Arc::clone(&rule.because)]))
                    }
                }
            }
            Choice::Parts(choices) => node
                .parts
                .iter()
                .zip(choices)
                .try_for_each(|(part, choice)| self.gather(column, part, choice, masks)),
        }
    }

    fn compiled(&self, column: &ColumnNode, node: &ColumnNode, index: usize) -> Result<Compiled, String> {
        let find = |candidate: &&Candidate| candidate.rule == index;
        let candidate = node
            .candidates
            .iter()
            .find(find)
            .ok_or("the policy is not about the column")?;
        let compile = || {
            let mask = self
                .rules
                .data()
                .get(index)
                .and_then(DataRule::mask)
                .ok_or("the policy has no mask")?;
            if !node.is_nullable && mask.makes_null(&node.data_type) {
                return Err("expected a part that can be NULL".to_owned());
            }
            let inside = node.path.get(1..).unwrap_or_default();
            let functions = self.rules.functions();
            functions.compile(
                mask.as_ref(),
                inside,
                &column.data_type,
                &node.data_type,
                self.rules.keys(),
            )
        };
        candidate.compiled.get_or_init(compile).clone()
    }

    fn predicate(&self, filter: &TableFilter, rule: &DataRule) -> Result<Opaque<Expr>, ClosedTable> {
        let Effect::Filter(conditions) = &rule.effect else {
            return Err(self.closed(
                "a filter policy has no filters".to_owned(),
                vec![Arc::clone(&rule.because)],
            ));
        };
        let compile = || self.conjunction(conditions).map(Opaque::new);
        let predicate = if conditions.iter().all(Condition::is_fixed) {
            filter.predicate.get_or_init(compile).clone()
        } else {
            compile()
        };
        predicate.map_err(|why| self.closed(format!("{}: {why}", rule.because), vec![Arc::clone(&rule.because)]))
    }

    fn conjunction(&self, conditions: &[Condition]) -> Result<Expr, String> {
        let function = self
            .rules
            .functions()
            .get(FilterFunction::NAME)
            .ok_or("the filter function is missing")?;
        let lookup = |name: &str| self.lookup(name);
        let predicates = conditions
            .iter()
            .map(|condition| condition.predicate(self.schema, &lookup, function))
            .collect::<Result<Vec<_>, _>>()?;
        predicates
            .into_iter()
            .reduce(Expr::and)
            .ok_or_else(|| "the policy has no conditions".to_owned())
    }

    /// What `${name}` stands for.
    pub(crate) fn lookup(&self, name: &str) -> Option<String> {
        match name.strip_prefix("user.attributes.") {
            Some(attribute) => self.principal.attributes.get(attribute).cloned(),
            None => (name == "user.id").then(|| self.principal.id.clone()),
        }
    }

    /// What a filter policy asks for, as SQL with the principal's own values in it.
    pub(crate) fn filter_sql(&self, rule: &DataRule) -> Result<String, String> {
        let Effect::Filter(conditions) = &rule.effect else {
            return Err("it is no filter".to_owned());
        };
        let function = self.rules.functions().get(FilterFunction::NAME);
        let function = function.ok_or("the filter function is missing")?;
        let texts = conditions
            .iter()
            .map(|condition| condition.sql(self.schema, &|name: &str| self.lookup(name), function))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(match texts.as_slice() {
            [one] => one.clone(),
            several => several
                .iter()
                .map(|text| format!("({text})"))
                .collect::<Vec<_>>()
                .join(" AND "),
        })
    }

    fn rule(&self, index: usize) -> Result<&'a DataRule, ClosedTable> {
        self.rules
            .data()
            .get(index)
            .ok_or_else(|| self.closed("a policy is missing".to_owned(), vec![]))
    }

    fn closed(&self, message: String, because: Vec<Arc<PolicyRef>>) -> ClosedTable {
        ClosedTable {
            address: self.address.clone(),
            message,
            because,
        }
    }

    pub(crate) fn policy(&self, index: usize) -> Option<&'a DataRule> {
        self.rules.data().get(index)
    }

    /// The filters about this principal.
    pub(crate) fn filters(&self) -> impl Iterator<Item = &'a DataRule> {
        self.table
            .filters
            .iter()
            .filter(|filter| self.person.has(filter.rule))
            .filter_map(|filter| self.policy(filter.rule))
    }
}

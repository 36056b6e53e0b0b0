//! Casts of one thing to several types, told apart.
//!
//! DataFusion calls a cast by the name of what it casts, and so `sum(a)` beside `sum(CAST(a AS DOUBLE))`, or a group by `a` and by a cast of it, are two columns
//! of one name to it, which it refuses. In: a query. Out: the same query, in which such a cast is the only argument of `coalesce`: that has another name and the same
//! value, and is gone once the plan is simplified. Queries without such casts stay as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, GroupByExpr, Ident,
    ObjectName, Query, Select, SelectItem, Visit, VisitMut, Visitor, VisitorMut, visit_expressions,
    visit_expressions_mut,
};

use crate::columns::own_name;

/// Tells casts in a query apart, where they would have one name.
pub(crate) fn tell(query: &mut Query) {
    let found = visit_expressions(query, |expr| match expr {
        Expr::Cast { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    if found.is_continue() {
        return;
    }
    let mut called = Called::default();
    let _ = Visit::visit(query, &mut called);
    let alike = called.by_name.into_values().filter(|texts| texts.len() > 1);
    let casts: BTreeSet<(String, String)> = alike.flat_map(BTreeMap::into_values).flatten().collect();
    // Those of one thing are as many names.
    let mut depths: BTreeMap<String, usize> = BTreeMap::new();
    let mut apart = Apart::default();
    for (name, cast) in casts {
        let depth = depths.entry(name).or_default();
        *depth += 1;
        apart.depths.insert(cast, *depth);
    }
    if !apart.depths.is_empty() {
        let _ = VisitMut::visit(query, &mut apart);
    }
}

/// The expressions of a query that are columns of an inner plan, by the name that they have there: their texts, each with the casts in it, which have the name of
/// what they cast before their text.
#[derive(Default)]
struct Called {
    by_name: BTreeMap<String, BTreeMap<String, Vec<(String, String)>>>,
}

impl Called {
    fn take(&mut self, expr: &Expr) {
        let casts = outermost_casts(expr);
        self.by_name
            .entry(name(expr))
            .or_default()
            .insert(expr.to_string(), casts);
    }
}

impl Visitor for Called {
    type Break = ();

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        let groups = match &select.group_by {
            GroupByExpr::All(_) => &[],
            GroupByExpr::Expressions(groups, _) if groups.is_empty() => return ControlFlow::Continue(()),
            GroupByExpr::Expressions(groups, _) => groups.as_slice(),
        };
        // A group may be named by its place among the columns, or by its name.
        for item in &select.projection {
            if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                self.take(expr);
            }
        }
        for group in groups {
            match group {
                Expr::GroupingSets(sets) | Expr::Cube(sets) | Expr::Rollup(sets) => {
                    sets.iter().flatten().for_each(|expr| self.take(expr));
                }
                expr => self.take(expr),
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if matches!(expr, Expr::Function(_)) {
            self.take(expr);
        }
        ControlFlow::Continue(())
    }
}

/// The casts in an expression that are in no other cast.
fn outermost_casts(expr: &Expr) -> Vec<(String, String)> {
    struct Outermost {
        within: usize,
        found: Vec<(String, String)>,
    }
    impl Visitor for Outermost {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if let Expr::Cast { .. } = expr {
                if self.within == 0 {
                    self.found.push((name(expr), expr.to_string()));
                }
                self.within += 1;
            }
            ControlFlow::Continue(())
        }

        fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if let Expr::Cast { .. } = expr {
                self.within -= 1;
            }
            ControlFlow::Continue(())
        }
    }
    let mut casts = Outermost {
        within: 0,
        found: Vec::new(),
    };
    let _ = expr.visit(&mut casts);
    casts.found
}

/// About what DataFusion calls an expression: without casts, and without what does not matter to whether two are alike. Where it is too much alike nothing is lost.
fn name(expr: &Expr) -> String {
    let mut expr = expr.clone();
    let _ = visit_expressions_mut(&mut expr, |expr| {
        match expr {
            Expr::Cast { expr: inner, .. } | Expr::Nested(inner) => {
                let inner = std::mem::replace(inner.as_mut(), Expr::Identifier(Ident::new("")));
                *expr = inner;
            }
            Expr::CompoundIdentifier(parts) => {
                if let Some(last) = parts.pop() {
                    *expr = Expr::Identifier(last);
                }
            }
            _ => {}
        }
        ControlFlow::<()>::Continue(())
    });
    expr.to_string().to_lowercase()
}

/// Puts casts, by their texts, so deep.
#[derive(Default)]
struct Apart {
    depths: BTreeMap<String, usize>,
}

impl VisitorMut for Apart {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        // A column that casts another has its name, which it would lose.
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) = item
                && self.depths.contains_key(&expr.to_string())
                && let Some(own) = own_name(expr)
            {
                *item = SelectItem::ExprWithAlias {
                    expr: expr.clone(),
                    alias: Ident::with_quote('"', own),
                };
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Cast { .. } = expr
            && let Some(depth) = self.depths.get(&expr.to_string())
        {
            for _ in 0..*depth {
                let cast = std::mem::replace(expr, Expr::Identifier(Ident::new("")));
                *expr = coalesce(cast);
            }
        }
        ControlFlow::Continue(())
    }
}

fn coalesce(argument: Expr) -> Expr {
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new("coalesce")]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))],
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

//! Functions over windows: a value for each row, from the rows beside it.
//!
//! In: a node that computes them, and the statement that its input has become. Out: a derived table with them, so that whatever comes after (conditions on
//! them above all) is about its columns, or nothing.
//!
//! Only frames that are the same everywhere are sent: ROWS from before the row or the row itself to the row itself or after it, and those that a window has
//! without a frame. Which of several equal rows of an order comes first is nobody's to say, here as there.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::{
    Expr, Window, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition,
};

use super::dialect::{Aggregation, Value, Windowed};
use super::grow::Grown;
use super::select::Select;
use super::translate::Scope;
use crate::statistics::ColumnStatistics;

/// The rows of a statement, each with what functions find over its window.
pub(super) fn windows(node: &Window, input: &Grown) -> Option<Grown> {
    let orders = node.window_expr.iter().filter_map(function);
    let orders: Vec<_> = orders
        .map(|function| (&function.params.partition_by, &function.params.order_by))
        .collect();
    let has_many = orders.iter().any(|order| Some(order) != orders.first());
    if has_many && !input.dialect.has_windows_of_many_orders() {
        return None;
    }
    let mut select = input.select.clone().ungrouped();
    let scope = Scope {
        dialect: input.dialect,
        schema: node.input.schema(),
        columns: &select.outputs,
        unless: None,
    };
    let found = node.window_expr.iter().enumerate().map(|(at, expr)| {
        let field = node.schema.fields().get(select.outputs.len() + at)?;
        let value = scope.window(expr, field.data_type())?;
        Some(Value {
            known: numbers(expr, &scope, &select),
            ..value
        })
    });
    let found: Option<Vec<Value>> = found.collect();
    select.outputs.extend(found?);
    if select.outputs.len() != node.schema.fields().len() {
        return None;
    }
    select.estimate = select.estimate.windowed();
    let mut select = select.derived();
    for output in &mut select.outputs {
        // No index finds rows of what was computed.
        output.found_by_index = false;
    }
    Some(Grown::whole(select, input.dialect))
}

impl Scope<'_> {
    /// The function over a window that an expression is.
    pub(super) fn window(&self, expr: &Expr, to: &arrow::datatypes::DataType) -> Option<Value> {
        let WindowFunction { fun, params } = function(expr)?;
        // What makes no difference to these is not said.
        let is_framed = !matches!(fun.name(), "row_number" | "rank" | "dense_rank" | "lag" | "lead");
        let (over, is_ordered) = self.over(params, is_framed)?;
        if params.distinct || params.null_treatment.is_some() {
            return None;
        }
        match fun {
            WindowFunctionDefinition::AggregateUDF(function) => {
                let is_sent = match function.name() {
                    "count" | "sum" | "avg" => true,
                    "min" | "max" => !begins_anew(&params.window_frame),
                    _ => false,
                };
                self.folded(function.name(), params, &over, to).filter(|_| is_sent)
            }
            WindowFunctionDefinition::WindowUDF(function) => {
                let arguments: Option<Vec<Value>> = params.args.iter().map(|arg| self.value(arg)).collect();
                let call = Windowed {
                    name: function.name(),
                    arguments: &arguments.filter(|_| params.filter.is_none())?,
                    over: &over,
                    is_ordered,
                    to,
                };
                self.dialect.window(&call)
            }
        }
    }

    fn folded(
        &self,
        name: &str,
        params: &WindowFunctionParams,
        over: &str,
        to: &arrow::datatypes::DataType,
    ) -> Option<Value> {
        let argument = match params.args.as_slice() {
            // `count(*)` counts a constant.
            [Expr::Literal(literal, _)] if !literal.is_null() && name == "count" => None,
            [argument] => Some(self.value(argument)?),
            _ => return None,
        };
        let filter = match &params.filter {
            Some(filter) => Some(self.value(filter).filter(Value::is_condition)?),
            None => None,
        };
        self.dialect.aggregate(&Aggregation {
            name,
            argument: argument.as_ref(),
            distinct: false,
            filter: filter.as_ref(),
            over,
            to,
        })
    }

    /// The window, with a blank before it, and whether it has an order.
    fn over(&self, params: &WindowFunctionParams, is_framed: bool) -> Option<(String, bool)> {
        // One constant is as good as none.
        let is_constant = |value: &Value| value.literal.is_some();
        let mut parts = Vec::new();
        let mut keys = Vec::new();
        for key in &params.partition_by {
            let value = self.value(key)?;
            if !is_constant(&value) {
                keys.push(self.dialect.group_by(&self.dialect.group_key(&value)?));
            }
        }
        if !keys.is_empty() {
            parts.push(format!("PARTITION BY {}", keys.join(", ")));
        }
        let mut order = Vec::new();
        for by in &params.order_by {
            let is_literal = matches!(&by.expr, Expr::Literal(..));
            if is_literal {
                continue;
            }
            let value = self.value(&by.expr)?;
            if !is_constant(&value) {
                order.push(self.dialect.sort_key(&value, by.asc, by.nulls_first)?);
            }
        }
        if !order.is_empty() {
            parts.push(format!("ORDER BY {}", order.join(", ")));
        }
        if is_framed {
            parts.extend(frame(&params.window_frame)?);
        }
        Some((format!(" OVER ({})", parts.join(" ")), !order.is_empty()))
    }
}

fn function(expr: &Expr) -> Option<&WindowFunction> {
    match expr {
        Expr::WindowFunction(function) => Some(function),
        Expr::Alias(alias) => function(&alias.expr),
        _ => None,
    }
}

/// Frames of so many rows may be looked through for each row.
const FEW_ROWS: u64 = 100;

/// Whether a frame loses rows at its beginning, and is long: what can add a row and take none away, as least and greatest values of most databases, looks
/// through all of it again for each row.
fn begins_anew(frame: &WindowFrame) -> bool {
    let is_near = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::CurrentRow => frame.units == WindowFrameUnits::Rows,
        WindowFrameBound::Preceding(value) | WindowFrameBound::Following(value) => {
            matches!(value, ScalarValue::UInt64(Some(rows)) if *rows <= FEW_ROWS)
        }
    };
    let is_short = is_near(&frame.start_bound) && is_near(&frame.end_bound);
    !(frame.start_bound.is_unbounded() || is_short)
}

/// A frame in SQL; nothing inside where a window has it anyway.
fn frame(frame: &WindowFrame) -> Option<Option<String>> {
    let rows = |value: &ScalarValue, word: &str| match value {
        value if value.is_null() => Some(format!("UNBOUNDED {word}")),
        ScalarValue::UInt64(Some(rows)) if *rows <= i32::MAX as u64 => Some(format!("{rows} {word}")),
        _ => None,
    };
    let bound = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::Preceding(value) => rows(value, "PRECEDING"),
        WindowFrameBound::CurrentRow => Some("CURRENT ROW".to_owned()),
        WindowFrameBound::Following(value) => rows(value, "FOLLOWING"),
    };
    let (start, end) = (&frame.start_bound, &frame.end_bound);
    if matches!(start, WindowFrameBound::Following(_)) || matches!(end, WindowFrameBound::Preceding(_)) {
        return None;
    }
    match frame.units {
        WindowFrameUnits::Rows => Some(Some(format!("ROWS BETWEEN {} AND {}", bound(start)?, bound(end)?))),
        WindowFrameUnits::Range if start.is_unbounded() && *end == WindowFrameBound::CurrentRow => Some(None),
        WindowFrameUnits::Range if start.is_unbounded() && end.is_unbounded() => Some(Some(
            "ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING".to_owned(),
        )),
        WindowFrameUnits::Range | WindowFrameUnits::Groups => None,
    }
}

/// What is known of the numbers that rows of a window are given: they begin with one in each part.
fn numbers(expr: &Expr, scope: &Scope<'_>, select: &Select) -> Option<Arc<ColumnStatistics>> {
    let WindowFunction { fun, params } = function(expr)?;
    if !matches!(fun.name(), "row_number" | "rank" | "dense_rank") {
        return None;
    }
    let keys: Option<Vec<Value>> = params.partition_by.iter().map(|key| scope.value(key)).collect();
    let rows = select.estimate.rows;
    let most = (rows / select.estimate.groups(&keys?)).max(1.0);
    Some(Arc::new(ColumnStatistics {
        distinct: Some(most),
        bounds: vec![0.0, most],
        ..ColumnStatistics::default()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_frames_that_lose_rows_are_not_sent_for_extremes() {
        let (before, after) = (WindowFrameBound::Preceding, WindowFrameBound::Following);
        let of = |rows: Option<u64>| ScalarValue::UInt64(rows);
        let anew = |start, end| begins_anew(&WindowFrame::new_bounds(WindowFrameUnits::Rows, start, end));
        assert!(!anew(before(of(None)), WindowFrameBound::CurrentRow));
        assert!(!anew(before(of(None)), after(of(None))));
        assert!(!anew(before(of(Some(2))), after(of(Some(FEW_ROWS)))));
        assert!(anew(WindowFrameBound::CurrentRow, after(of(None))));
        assert!(anew(before(of(Some(FEW_ROWS + 1))), WindowFrameBound::CurrentRow));
    }

    #[test]
    fn only_frames_that_are_the_same_everywhere_are_sent() {
        let rows = |rows: u64| ScalarValue::UInt64(Some(rows));
        let all = || ScalarValue::UInt64(None);
        let (before, after) = (WindowFrameBound::Preceding, WindowFrameBound::Following);
        let current = WindowFrameBound::CurrentRow;
        let check = |units, start, end, expected: Option<Option<&str>>| {
            let found = frame(&WindowFrame::new_bounds(units, start, end));
            assert_eq!(found.as_ref().map(Option::as_deref), expected);
        };
        let (by_rows, by_range) = (WindowFrameUnits::Rows, WindowFrameUnits::Range);
        check(
            by_rows,
            before(rows(2)),
            after(rows(0)),
            Some(Some("ROWS BETWEEN 2 PRECEDING AND 0 FOLLOWING")),
        );
        check(
            by_rows,
            before(all()),
            current.clone(),
            Some(Some("ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW")),
        );
        check(
            by_rows,
            current.clone(),
            after(all()),
            Some(Some("ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING")),
        );
        check(by_range, before(all()), current.clone(), Some(None));
        check(
            by_range,
            before(all()),
            after(all()),
            Some(Some("ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING")),
        );
        check(by_range, current.clone(), after(all()), None);
        check(by_range, before(rows(1)), current.clone(), None);
        check(WindowFrameUnits::Groups, before(all()), current.clone(), None);
        check(by_rows, after(rows(1)), after(rows(2)), None);
        check(by_rows, before(rows(2)), before(rows(1)), None);
        check(by_rows, before(rows(u64::MAX)), current, None);
    }
}

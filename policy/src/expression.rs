//! SQL expressions in policies: parsed, planned and evaluated in a scope of their own.
//!
//! In: the text, the columns it may name, the principal's attributes. Out: a typed expression, or an evaluator. No
//! name of a session, a catalog or a user's function can be captured: only columns and the built-in scalar functions
//! exist here. Subqueries, aggregates, window functions, and functions that answer differently each time are
//! refused. Where evaluating could raise an error that carries a value, the expression is evaluated inside a
//! function of this crate, which tells nothing: the statement fails with a fixed text.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::compute::can_cast_types;
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result as DataFusionResult, ScalarValue, exec_err};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::utils::split_binary;
use datafusion::logical_expr::{Expr, ExprSchemable, Operator, ScalarUDF, Volatility};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion::sql::planner::{PlannerContext, SqlToRel};
use datafusion::sql::sqlparser::ast::{self, visit_expressions, visit_expressions_mut};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::filter::{LONGEST_LIST, any_of, cannot_fail, none_of, too_long};
use crate::scope::ISOLATED;
use crate::value::{Lookup, Template};

/// The longest text of an expression, in bytes.
const LONGEST_TEXT: usize = 256 * 1024;
/// How many operators may stand in an expression: each may make its tree one level deeper.
const MOST_OPERATORS: usize = 1000;

/// A SQL expression as parsed, before its columns are known.
#[derive(Debug, Clone)]
pub(crate) struct SqlExpression {
    text: String,
    tree: ast::Expr,
    is_fixed: bool,
}

impl SqlExpression {
    /// Parses one expression.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > LONGEST_TEXT {
            return Err(format!("the expression is longer than {} KiB", LONGEST_TEXT / 1024));
        }
        let quoted = quote_variables(text)?;
        let dialect = GenericDialect {};
        let tokens = Tokenizer::new(&dialect, &quoted)
            .tokenize_with_location()
            .map_err(|error| error.to_string())?;
        let is_operand = |token: &Token| match token {
            Token::Word(word) => !matches!(word.keyword, Keyword::AND | Keyword::OR | Keyword::NOT | Keyword::IS),
            Token::Whitespace(_)
            | Token::Comma
            | Token::LParen
            | Token::RParen
            | Token::Period
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::EOF => true,
            _ => false,
        };
        if tokens.iter().filter(|token| !is_operand(&token.token)).count() > MOST_OPERATORS {
            return Err(format!(
                "the expression has more than {MOST_OPERATORS} operators; a list of values is shorter as `IN (...)`"
            ));
        }
        let mut parser = Parser::new(&dialect).with_tokens_with_locations(tokens);
        let tree = parser.parse_expr().map_err(|error| error.to_string())?;
        let next = parser.peek_token();
        if next.token != Token::EOF {
            return Err(format!("unexpected `{}` after the expression", next.token));
        }
        match visit_expressions(&tree, refused) {
            ControlFlow::Break(why) => Err(why),
            ControlFlow::Continue(()) => Ok(Self {
                text: text.to_owned(),
                tree,
                is_fixed: Template::parse(text)?.is_fixed(),
            }),
        }
    }

    /// What the author wrote.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is the same for every principal.
    pub(crate) fn is_fixed(&self) -> bool {
        self.is_fixed
    }

    /// The expression as SQL, with the principal's own values in it.
    pub(crate) fn sql(&self, lookup: Lookup<'_>) -> Result<String, String> {
        let mut tree = self.tree.clone();
        let filled = visit_expressions_mut(&mut tree, |part| {
            if let ast::Expr::Value(value) = part
                && let ast::Value::SingleQuotedString(text) = &mut value.value
                && text.contains("${")
            {
                match Template::parse(text).and_then(|template| template.expand(lookup, |value| value)) {
                    Ok(expanded) => *text = expanded,
                    Err(why) => return ControlFlow::Break(why),
                }
            }
            ControlFlow::Continue(())
        });
        match filled {
            ControlFlow::Break(why) => Err(why),
            ControlFlow::Continue(()) => Ok(tree.to_string()),
        }
    }

    /// What must hold, each conjunct by itself and written the same way whatever the text looked like, sorted.
    pub(crate) fn conjuncts(&self, schema: &Schema, lookup: Lookup<'_>) -> Result<Vec<String>, String> {
        let df_schema = DFSchema::try_from(schema.clone()).map_err(|error| error.strip_backtrace())?;
        let planned = self.plan(&df_schema, lookup)?;
        let context = SimplifyContext::builder().with_schema(Arc::new(df_schema)).build();
        let simplified = ExprSimplifier::new(context)
            .simplify(planned)
            .map_err(|error| first_line(&error.strip_backtrace()))?;
        let mut conjuncts: Vec<_> = datafusion::logical_expr::utils::split_conjunction_owned(simplified)
            .iter()
            .map(in_one_order)
            .collect();
        conjuncts.sort();
        conjuncts.dedup();
        Ok(conjuncts)
    }

    /// Plans the expression over the columns of `schema`, with the principal's attributes filled in and every type
    /// made right.
    fn plan(&self, schema: &DFSchema, lookup: Lookup<'_>) -> Result<Expr, String> {
        let planner = SqlToRel::new(&*ISOLATED);
        let planned = planner
            .sql_to_expr(self.tree.clone(), schema, &mut PlannerContext::new())
            .map_err(|error| first_line(&error.strip_backtrace()))?;
        vet(&planned)?;
        let filled = fill_in(planned, lookup)?;
        let text = |error: datafusion::error::DataFusionError| first_line(&error.strip_backtrace());
        let context = SimplifyContext::builder().with_schema(Arc::new(schema.clone())).build();
        let coerced = ExprSimplifier::new(context.clone())
            .coerce(filled, schema)
            .map_err(text)?;
        let chained = coerced.transform_up(|expr| Ok(without_lists(expr))).map_err(text)?.data;
        resolved(chained, &context).map_err(text)
    }

    /// Compiles the expression to a physical one that answers with values of type `wanted`.
    pub(crate) fn evaluator(
        &self,
        schema: &Schema,
        lookup: Lookup<'_>,
        wanted: &DataType,
    ) -> Result<Evaluator, String> {
        let df_schema = DFSchema::try_from(schema.clone()).map_err(|error| error.strip_backtrace())?;
        let planned = self.plan(&df_schema, lookup)?;
        let found = planned.get_type(&df_schema).map_err(|error| error.strip_backtrace())?;
        let planned = if found == *wanted {
            planned
        } else if can_cast_types(&found, wanted) {
            planned
                .cast_to(wanted, &df_schema)
                .map_err(|error| error.strip_backtrace())?
        } else {
            return Err(format!(
                "expected an expression of type `{wanted}`, not `{found}`: `{}`",
                self.text
            ));
        };
        let context = PhysicalPlanningContext::default();
        let physical = create_physical_expr(&planned, &df_schema, &ExecutionProps::new(), &context)
            .map_err(|error| first_line(&error.strip_backtrace()))?;
        Ok(Evaluator {
            physical,
            schema: Arc::new(schema.clone()),
            wanted: wanted.clone(),
        })
    }

    /// The row filter that the expression is, over the bare columns of `schema`. What cannot fail stands in it as it
    /// is, so that it may reach the files; the rest is evaluated by `function`.
    pub(crate) fn predicate(
        &self,
        schema: &Schema,
        lookup: Lookup<'_>,
        function: &Arc<ScalarUDF>,
    ) -> Result<Expr, String> {
        let df_schema = DFSchema::try_from(schema.clone()).map_err(|error| error.strip_backtrace())?;
        let planned = self.plan(&df_schema, lookup)?;
        let found = planned.get_type(&df_schema).map_err(|error| error.strip_backtrace())?;
        if found != DataType::Boolean {
            return Err(format!(
                "`{}` is of type `{found}`; a filter must be true or false",
                self.text
            ));
        }
        let conjuncts = datafusion::logical_expr::utils::split_conjunction_owned(planned.clone());
        let count = conjuncts.len();
        let plain: Vec<_> = conjuncts
            .into_iter()
            .filter(|conjunct| cannot_fail(conjunct, schema))
            .collect();
        let is_plain = plain.len() == count;
        let guarded = if is_plain {
            None
        } else {
            Some(self.guarded(&planned, schema, lookup, function)?)
        };
        plain
            .into_iter()
            .chain(guarded)
            .reduce(Expr::and)
            .ok_or_else(|| "the expression is empty".to_owned())
    }

    /// A call of [`crate::row_filter::FilterFunction`]: the text, the attributes it asks for, the columns it names.
    fn guarded(
        &self,
        planned: &Expr,
        schema: &Schema,
        lookup: Lookup<'_>,
        function: &Arc<ScalarUDF>,
    ) -> Result<Expr, String> {
        let literal = |text: &str| Expr::Literal(ScalarValue::Utf8(Some(text.to_owned())), None);
        let count =
            |count: usize| i64::try_from(count).map(|count| Expr::Literal(ScalarValue::Int64(Some(count)), None));
        let variables = variables(&self.text);
        let mut columns: Vec<_> = planned
            .column_refs()
            .into_iter()
            .map(|column| column.name.clone())
            .collect();
        columns.sort_by_key(|name| schema.index_of(name).ok());
        let mut arguments = vec![
            literal(&self.text),
            count(variables.len()).map_err(|error| error.to_string())?,
        ];
        for name in &variables {
            let value =
                lookup(name).ok_or_else(|| format!("the user has no `{}`", name.trim_start_matches("user.")))?;
            arguments.extend([literal(name), literal(&value)]);
        }
        arguments.extend(columns.iter().map(|name| literal(name)));
        arguments.extend(
            columns
                .iter()
                .map(|name| Expr::Column(datafusion::common::Column::new_unqualified(name))),
        );
        Ok(function.call(arguments))
    }
}

/// An expression as text; what is joined by OR, or listed, in one order.
fn in_one_order(expr: &Expr) -> String {
    let sorted = |exprs: Vec<&Expr>| {
        let mut texts: Vec<_> = exprs.into_iter().map(ToString::to_string).collect();
        texts.sort();
        texts.dedup();
        texts
    };
    match expr {
        Expr::InList(list) => {
            let negated = if list.negated { "NOT " } else { "" };
            let values = sorted(list.list.iter().collect());
            format!("{} {negated}IN ({})", list.expr, values.join(", "))
        }
        _ => sorted(split_binary(expr, Operator::Or)).join(" OR "),
    }
}

/// The first line of a message of the planner, which may go on to list every column of a table.
fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}

/// Puts quotes round `${...}` where it stands outside of them, so that it is a text to the parser.
fn quote_variables(text: &str) -> Result<String, String> {
    Template::parse(text)?;
    let mut quoted = String::with_capacity(text.len());
    let mut inside: Option<char> = None;
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        if inside.is_none()
            && let Some(after) = rest.strip_prefix("${")
            && let Some((name, after)) = after.split_once('}')
        {
            quoted.push_str(&format!("'${{{name}}}'"));
            rest = after;
            continue;
        }
        match (inside, character) {
            (None, '\'' | '"' | '`') => inside = Some(character),
            (None, '-') if rest.starts_with("--") => return Err("a comment cannot stand in a policy".to_owned()),
            (None, '/') if rest.starts_with("/*") => return Err("a comment cannot stand in a policy".to_owned()),
            (Some(quote), found) if quote == found => inside = None,
            _ => {}
        }
        quoted.push(character);
        rest = rest.get(character.len_utf8()..).unwrap_or_default();
    }
    Ok(quoted)
}

/// The names between `${` and `}`, each once.
fn variables(text: &str) -> Vec<String> {
    let mut names: Vec<String> = vec![];
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("${") {
        let Some((name, after)) = after.split_once('}') else {
            break;
        };
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
        rest = after;
    }
    names
}

/// Says why a part of a parsed expression cannot stand in a policy.
fn refused(expr: &ast::Expr) -> ControlFlow<String> {
    match expr {
        ast::Expr::Subquery(_) | ast::Expr::Exists { .. } | ast::Expr::InSubquery { .. } => {
            ControlFlow::Break("a subquery cannot stand in a policy".to_owned())
        }
        ast::Expr::Function(function) if function.over.is_some() => {
            ControlFlow::Break("a window function cannot stand in a policy".to_owned())
        }
        ast::Expr::InList { list, .. } if list.len() > LONGEST_LIST => ControlFlow::Break(too_long(list.len())),
        // The parser takes everything to the right of `IS DISTINCT FROM` for its operand.
        ast::Expr::IsDistinctFrom(_, right) | ast::Expr::IsNotDistinctFrom(_, right)
            if !matches!(
                **right,
                ast::Expr::Identifier(_)
                    | ast::Expr::CompoundIdentifier(_)
                    | ast::Expr::Value(_)
                    | ast::Expr::Nested(_)
                    | ast::Expr::Function(_)
                    | ast::Expr::Cast { .. }
            ) =>
        {
            ControlFlow::Break("put what stands to the right of `IS DISTINCT FROM` into parentheses".to_owned())
        }
        _ => ControlFlow::Continue(()),
    }
}

/// Refuses every kind of expression that is not a plain computation over columns and literals.
fn vet(expr: &Expr) -> Result<(), String> {
    let mut wrong = None;
    let walked = expr.apply(|part| {
        let refused = match part {
            Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => Some(format!(
                "function `{}` answers differently each time; a policy must not",
                call.func.name()
            )),
            Expr::Column(_)
            | Expr::Literal(..)
            | Expr::Alias(_)
            | Expr::BinaryExpr(_)
            | Expr::Like(_)
            | Expr::SimilarTo(_)
            | Expr::Not(_)
            | Expr::IsNotNull(_)
            | Expr::IsNull(_)
            | Expr::IsTrue(_)
            | Expr::IsFalse(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotTrue(_)
            | Expr::IsNotFalse(_)
            | Expr::IsNotUnknown(_)
            | Expr::Negative(_)
            | Expr::Between(_)
            | Expr::Case(_)
            | Expr::Cast(_)
            | Expr::TryCast(_)
            | Expr::ScalarFunction(_)
            | Expr::InList(_) => None,
            other => Some(format!(
                "`{other}` cannot stand in a policy: only columns, literals, operators and scalar functions can"
            )),
        };
        Ok(match refused {
            None => TreeNodeRecursion::Continue,
            Some(why) => {
                wrong = Some(why);
                TreeNodeRecursion::Stop
            }
        })
    });
    match (walked, wrong) {
        (Err(error), _) => Err(error.strip_backtrace()),
        (_, Some(why)) => Err(why),
        (_, None) => Ok(()),
    }
}

/// Puts the principal's attributes into the literals that name them.
fn fill_in(expr: Expr, lookup: Lookup<'_>) -> Result<Expr, String> {
    let mut wrong = None;
    let filled = expr.transform_up(|part| {
        let Expr::Literal(ScalarValue::Utf8(Some(text)), metadata) = part else {
            return Ok(Transformed::no(part));
        };
        if !text.contains("${") {
            return Ok(Transformed::no(Expr::Literal(ScalarValue::Utf8(Some(text)), metadata)));
        }
        let value = Template::parse(&text).and_then(|template| template.expand(lookup, |value| value));
        let value = value.unwrap_or_else(|why| {
            wrong = Some(why);
            String::new()
        });
        Ok(Transformed::yes(Expr::Literal(
            ScalarValue::Utf8(Some(value)),
            metadata,
        )))
    });
    match (filled, wrong) {
        (_, Some(why)) => Err(why),
        (Err(error), None) => Err(error.strip_backtrace()),
        (Ok(filled), None) => Ok(filled.data),
    }
}

/// Writes `IN` and `NOT IN` as chains of comparisons, which are right for NULL and for -0.0.
fn without_lists(expr: Expr) -> Transformed<Expr> {
    match expr {
        Expr::InList(InList { expr, list, negated }) => {
            let chain = if negated {
                none_of(&expr, list)
            } else {
                any_of(&expr, list)
            };
            Transformed::yes(chain)
        }
        other => Transformed::no(other),
    }
}

/// Folds casts of literals and replaces functions that exist only as a way of writing something else.
fn resolved(expr: Expr, context: &SimplifyContext) -> DataFusionResult<Expr> {
    let mut current = expr;
    // Each pass resolves what the one before has brought to light; a few levels deep is enough for every function.
    for _ in 0..8 {
        let pass = current.transform_up(|part| match part {
            Expr::Cast(cast) => match cast.expr.as_ref() {
                Expr::Literal(value, _) => {
                    let data_type = cast.field.data_type();
                    Ok(Transformed::yes(Expr::Literal(value.cast_to(data_type)?, None)))
                }
                _ => Ok(Transformed::no(Expr::Cast(cast))),
            },
            Expr::ScalarFunction(mut call) => {
                let arguments = std::mem::take(&mut call.args);
                match call.func.simplify(arguments, context)? {
                    ExprSimplifyResult::Simplified(expr) => Ok(Transformed::yes(expr)),
                    ExprSimplifyResult::Original(arguments) => {
                        call.args = arguments;
                        Ok(Transformed::no(Expr::ScalarFunction(call)))
                    }
                }
            }
            other => Ok(Transformed::no(other)),
        })?;
        current = pass.data;
        if !pass.transformed {
            return Ok(current);
        }
    }
    Ok(current)
}

/// An expression ready to be evaluated over arrays.
#[derive(Debug, Clone)]
pub(crate) struct Evaluator {
    physical: Arc<dyn PhysicalExpr>,
    schema: SchemaRef,
    wanted: DataType,
}

impl Evaluator {
    /// The value for each row of the columns, in the order of the schema it was compiled for.
    pub(crate) fn evaluate(&self, columns: Vec<ArrayRef>, rows: usize) -> DataFusionResult<ArrayRef> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        let answer = self.physical.evaluate(&batch)?.into_array(rows)?;
        if *answer.data_type() == self.wanted {
            Ok(answer)
        } else {
            exec_err!("an expression of a policy answers with another type than it should")
        }
    }
}

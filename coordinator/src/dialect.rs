//! The SQL dialect: sqlparser's generic one, with `IS [NOT] DISTINCT FROM` read at its right precedence.
//!
//! In: tokens. Out: expressions. sqlparser 0.62 reads the right side of `IS [NOT] DISTINCT FROM` as a whole expression, so that
//! `a IS DISTINCT FROM b AND c` becomes `a IS DISTINCT FROM (b AND c)`: a silently wrong answer. This dialect takes those two
//! operators itself; everything else is delegated by answering as the generic dialect does. Deliberately absent: any operator of our own.
//!
//! Where something is wrong inside calls like `CAST(CAST(...))` sqlparser reads what is inside of each once more in other ways, which takes time that doubles or
//! trebles with each. What is begun is therefore counted, and after many more times than a right statement needs it is given up.

use std::{any::TypeId, cell::Cell};

use datafusion::sql::sqlparser::{
    ast::Expr,
    dialect::{Dialect, GenericDialect, Precedence},
    keywords::Keyword,
    parser::{Parser, ParserError},
};

/// The one dialect that every front door parses with.
#[derive(Debug)]
pub(crate) struct MinervaDialect {
    generic: GenericDialect,
    /// How many expressions may still be begun.
    left: Cell<usize>,
}

/// How many expressions may be begun in any text, and how many more for each of its tokens. Each begins one at most when it is read once.
const FEWEST_BEGUN: usize = 20_000;
const BEGUN_OF_TOKEN: usize = 8;

impl MinervaDialect {
    /// For a text of so many tokens.
    pub(crate) fn of(tokens: usize) -> Self {
        Self {
            generic: GenericDialect {},
            left: Cell::new(FEWEST_BEGUN.saturating_add(tokens.saturating_mul(BEGUN_OF_TOKEN))),
        }
    }
}

impl Default for MinervaDialect {
    /// For a short text.
    fn default() -> Self {
        Self::of(0)
    }
}

/// Answers these questions of the parser as the generic dialect does.
macro_rules! as_generic {
    ($($question:ident),* $(,)?) => {
        $(fn $question(&self) -> bool {
            self.generic.$question()
        })*
    };
}

impl Dialect for MinervaDialect {
    fn dialect(&self) -> TypeId {
        self.generic.dialect()
    }

    fn is_delimited_identifier_start(&self, character: char) -> bool {
        self.generic.is_delimited_identifier_start(character)
    }

    fn is_identifier_start(&self, character: char) -> bool {
        self.generic.is_identifier_start(character)
    }

    fn is_identifier_part(&self, character: char) -> bool {
        self.generic.is_identifier_part(character)
    }

    fn parse_prefix(&self, _parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        match self.left.get().checked_sub(1) {
            Some(left) => {
                self.left.set(left);
                None
            }
            // The one error after which no other way is tried.
            None => Some(Err(ParserError::RecursionLimitExceeded)),
        }
    }

    fn parse_infix(&self, parser: &mut Parser<'_>, left: &Expr, _precedence: u8) -> Option<Result<Expr, ParserError>> {
        let negated = match following_keywords(parser) {
            [Keyword::IS, Keyword::DISTINCT, Keyword::FROM, _] => false,
            [Keyword::IS, Keyword::NOT, Keyword::DISTINCT, Keyword::FROM] => true,
            _ => return None,
        };
        for _ in 0..if negated { 4 } else { 3 } {
            parser.next_token();
        }
        let left = Box::new(left.clone());
        Some(
            parser
                .parse_subexpr(self.prec_value(Precedence::Is))
                .map(|right| match negated {
                    false => Expr::IsDistinctFrom(left, Box::new(right)),
                    true => Expr::IsNotDistinctFrom(left, Box::new(right)),
                }),
        )
    }

    as_generic! {
        supports_unicode_string_literal,
        supports_partition_by_after_order_by,
        supports_array_join_syntax,
        supports_group_by_expr,
        supports_group_by_with_modifier,
        supports_left_associative_joins_without_parens,
        supports_connect_by,
        supports_match_recognize,
        supports_pipe_operator,
        supports_start_transaction_modifier,
        supports_window_function_null_treatment_arg,
        supports_dictionary_syntax,
        supports_window_clause_named_window_reference,
        supports_parenthesized_set_variables,
        supports_select_wildcard_except,
        support_map_literal_syntax,
        allow_extract_custom,
        allow_extract_single_quotes,
        supports_extract_comma_syntax,
        supports_create_view_comment_syntax,
        supports_parens_around_table_factor,
        supports_values_as_table_factor,
        supports_create_index_with_clause,
        supports_explain_with_utility_options,
        supports_limit_comma,
        supports_update_order_by,
        supports_from_first_select,
        supports_projection_trailing_commas,
        supports_asc_desc_in_column_definition,
        supports_try_convert,
        supports_bitwise_shift_operators,
        supports_comment_on,
        supports_load_extension,
        supports_named_fn_args_with_assignment_operator,
        supports_struct_literal,
        supports_empty_projections,
        supports_nested_comments,
        supports_multiline_comment_hints,
        supports_user_host_grantee,
        supports_string_escape_constant,
        supports_array_typedef_with_brackets,
        supports_match_against,
        supports_set_names,
        supports_comma_separated_set_assignments,
        supports_filter_during_aggregation,
        supports_select_wildcard_exclude,
        supports_data_type_signed_suffix,
        supports_interval_options,
        supports_quote_delimited_string,
        supports_select_wildcard_replace,
        supports_select_wildcard_ilike,
        supports_select_wildcard_rename,
        supports_optimize_table,
        supports_install,
        supports_detach,
        supports_prewhere,
        supports_with_fill,
        supports_limit_by,
        supports_interpolate,
        supports_settings,
        supports_select_format,
        supports_comment_optimizer_hint,
        supports_constraint_keyword_without_name,
        supports_key_column_option,
        supports_comma_separated_trim,
        supports_cte_without_as,
        supports_select_item_multi_column_alias,
        supports_xml_expressions,
    }
}

/// The next four tokens as keywords, `NoKeyword` for what is none.
fn following_keywords(parser: &Parser<'_>) -> [Keyword; 4] {
    std::array::from_fn(|offset| match parser.peek_nth_token(offset).token {
        datafusion::sql::sqlparser::tokenizer::Token::Word(word) => word.keyword,
        _ => Keyword::NoKeyword,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sql: &str, expected: &str) {
        let dialect = MinervaDialect::default();
        let expr = Parser::new(&dialect).try_with_sql(sql).unwrap().parse_expr().unwrap();
        assert_eq!(format!("{}", fully_parenthesised(&expr)), expected, "{sql}");
    }

    fn fully_parenthesised(expr: &Expr) -> String {
        let go = |e: &Expr| fully_parenthesised(e);
        match expr {
            Expr::BinaryOp { left, op, right } => format!("({} {op} {})", go(left), go(right)),
            Expr::IsDistinctFrom(left, right) => format!("({} IS DISTINCT FROM {})", go(left), go(right)),
            Expr::IsNotDistinctFrom(left, right) => format!("({} IS NOT DISTINCT FROM {})", go(left), go(right)),
            other => other.to_string(),
        }
    }

    #[test]
    fn is_distinct_from_binds_tighter_than_and() {
        check("a IS DISTINCT FROM b AND c", "((a IS DISTINCT FROM b) AND c)");
        check("a IS NOT DISTINCT FROM b OR c", "((a IS NOT DISTINCT FROM b) OR c)");
        check("a IS DISTINCT FROM b + 1 AND c", "((a IS DISTINCT FROM (b + 1)) AND c)");
        check("a AND b IS DISTINCT FROM c", "(a AND (b IS DISTINCT FROM c))");
    }

    #[test]
    fn other_uses_of_is_are_untouched() {
        check("a IS NOT NULL AND b", "(a IS NOT NULL AND b)");
        check("a IS TRUE OR b", "(a IS TRUE OR b)");
    }
}

//! DataFusion's three wrong answers that the planner is kept from: each gives a silently wrong result on plain tables.

use crate::minerva::Minerva;

fn minerva() -> Minerva {
    Minerva::start(&[], 1)
}

#[test]
fn is_distinct_from_binds_tighter_than_and() {
    let minerva = minerva();
    assert_eq!(
        minerva.rows(None, "SELECT true IS DISTINCT FROM false AND false"),
        ["false"]
    );
    assert_eq!(
        minerva.rows(None, "SELECT NULL IS NOT DISTINCT FROM NULL OR false"),
        ["true"]
    );
    assert_eq!(minerva.rows(None, "SELECT 1 IS DISTINCT FROM 1 + 1 AND true"), ["true"]);
}

#[test]
fn lists_that_share_nothing_are_null_where_the_value_is_null() {
    let minerva = minerva();
    let values = "(VALUES (1), (3), (7), (NULL)) AS t(a)";
    let kept = |predicate: &str| {
        minerva
            .rows(None, &format!("SELECT count(*) FROM {values} WHERE {predicate}"))
            .concat()
    };
    assert_eq!(kept("a NOT IN (3, -1) OR a NOT IN (5, 1)"), "3");
    assert_eq!(kept("NOT (a IN (3, -1) AND a IN (5, 1))"), "3");
    assert_eq!(kept("NOT ((a = 3 OR a = -1) AND (a = 5 OR a = 1))"), "3");
    assert_eq!(kept("NOT (a IN (3, 4) AND a NOT IN (3, 4))"), "3");
    assert_eq!(kept("(a IN (1, 2) AND a IN (3, 4)) IS NULL"), "1");
    assert_eq!(kept("(a NOT IN (1, 2, 9, 8) OR a NOT IN (3, 4, 6, 5)) IS NULL"), "1");
    // What is right stays so.
    assert_eq!(kept("a IN (1, 3) AND a IN (3, 7)"), "1");
    assert_eq!(kept("a IN (1) OR a IN (3) OR a = 7"), "3");
}

#[test]
fn a_list_of_floats_matches_both_zeros() {
    let minerva = minerva();
    let values = "(VALUES (CAST(-0.0 AS DOUBLE)), (CAST(0.0 AS DOUBLE)), (CAST(1.5 AS DOUBLE))) AS t(f)";
    let list = "(CAST(0.0 AS DOUBLE), CAST(1.5 AS DOUBLE), CAST(-1e-3 AS DOUBLE), CAST(1e10 AS DOUBLE))";
    assert_eq!(
        minerva.rows(None, &format!("SELECT count(*) FROM {values} WHERE f IN {list}")),
        ["3"]
    );
    assert_eq!(
        minerva.rows(None, &format!("SELECT count(*) FROM {values} WHERE f NOT IN {list}")),
        ["0"]
    );
}

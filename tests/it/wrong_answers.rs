//! DataFusion's wrong answers that the planner is kept from: each gives a silently wrong result on plain tables. And what it refuses that others take.

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

#[test]
fn whole_numbers_that_do_not_fit_are_an_error() {
    let lake = "name: big\nversion: v2alpha\ntype: depot\ndepot: {type: TPCH, tpch: {scale: 0.01}}\n";
    for workers in [1, 2] {
        let minerva = Minerva::start(&[("big.yaml", lake)], workers);
        let largest =
            "(SELECT 9223372036854775807 - l_linenumber AS x FROM big.tpch.lineitem WHERE l_linenumber < 3) t";
        for sql in [
            "SELECT 9223372036854775807 + 1".to_owned(),
            "SELECT CAST(-100 AS TINYINT) - CAST(100 AS TINYINT)".to_owned(),
            format!("SELECT max(x * x) FROM {largest}"),
            format!("SELECT count(*) FROM {largest} WHERE x + 3 > 0"),
            format!("SELECT sum(x) FROM {largest}"),
            format!("SELECT x, sum(x) FROM {largest} GROUP BY x"),
            format!("SELECT sum(x) OVER (ORDER BY x ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM {largest}"),
        ] {
            let error = minerva.error(None, &sql);
            assert!(error.contains("NUMERIC_VALUE_OUT_OF_RANGE"), "{sql}\n{error}");
        }
        let sql = format!("SELECT sum(CAST(x AS DECIMAL(38, 0))) > 9223372036854775807 FROM {largest}");
        assert_eq!(minerva.rows(None, &sql), ["true"]);
        // The sums of few, of none and of filtered rows are as they were.
        let sql = "SELECT l_linenumber % 2 AS odd, sum(l_linenumber), sum(l_linenumber) FILTER (WHERE l_linenumber > 6), sum(NULLIF(l_linenumber, l_linenumber)) \
                   FROM big.tpch.lineitem GROUP BY 1 ORDER BY 1";
        let oracle = "SELECT l_linenumber % 2 AS odd, CAST(sum(CAST(l_linenumber AS DECIMAL(38, 0))) AS BIGINT), \
                      CAST(sum(CASE WHEN l_linenumber > 6 THEN CAST(l_linenumber AS DOUBLE) END) AS BIGINT), CAST(NULL AS BIGINT) FROM big.tpch.lineitem GROUP BY 1 ORDER BY 1";
        assert_eq!(minerva.rows(None, sql), minerva.rows(None, oracle));
    }
}

#[test]
fn means_of_whole_numbers_are_exact() {
    let lake = "name: big\nversion: v2alpha\ntype: depot\ndepot: {type: TPCH, tpch: {scale: 0.01}}\n";
    let ours = |distinct: &str, x: &str, rest: &str| format!("avg({distinct}{x}){rest}");
    // Decimals hold all digits, and become the nearest doubles.
    let theirs = |distinct: &str, x: &str, rest: &str| {
        format!(
            "CAST(sum({distinct}CAST({x} AS DECIMAL(38, 0))){rest} AS DOUBLE) / CAST(count({distinct}{x}){rest} AS DOUBLE)"
        )
    };
    let source = "(SELECT l_orderkey AS id, l_linenumber AS n, 9223372036854775807 - l_partkey AS large, l_suppkey - 9223372036854775807 AS small, \
                  NULLIF(9007199254740990 + l_linenumber, 9007199254740992) AS beyond, CAST(l_linenumber AS SMALLINT) AS few FROM big.tpch.lineitem) t";
    type Mean<'a> = &'a dyn Fn(&str, &str, &str) -> String;
    let statements: [&dyn Fn(Mean<'_>) -> String; 6] = [
        &|mean| {
            format!(
                "SELECT {}, {}, {}, {} FROM {source}",
                mean("", "large", ""),
                mean("", "small", ""),
                mean("", "beyond", ""),
                mean("", "few", "")
            )
        },
        &|mean| {
            format!(
                "SELECT n, {}, {}, {} FROM {source} GROUP BY n ORDER BY n",
                mean("", "large", ""),
                mean("", "small", " FILTER (WHERE n > 5)"),
                mean("", "beyond", "")
            )
        },
        &|mean| {
            format!(
                "SELECT id, {}, {} FROM {source} GROUP BY id ORDER BY id",
                mean("", "large", " FILTER (WHERE n <> 2)"),
                mean("", "beyond", "")
            )
        },
        &|mean| {
            format!(
                "SELECT n, {} FROM {source} GROUP BY n ORDER BY n",
                mean("DISTINCT ", "large", "")
            )
        },
        &|mean| {
            format!(
                "SELECT n, {}, {} FROM {source} GROUP BY n ORDER BY n",
                mean("DISTINCT ", "small", ""),
                mean("DISTINCT ", "large", " FILTER (WHERE id > 9)")
            )
        },
        &|mean| {
            let over = " OVER (PARTITION BY n ORDER BY id, large ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING)";
            format!(
                "SELECT id, n, {}, {} FROM {source} ORDER BY id, n",
                mean("", "large", over),
                mean("", "beyond", over)
            )
        },
    ];
    for workers in [1, 2] {
        let minerva = Minerva::start(&[("big.yaml", lake)], workers);
        for statement in statements {
            let sql = statement(&ours);
            assert_eq!(
                minerva.rows(None, &sql),
                minerva.rows(None, &statement(&theirs)),
                "{workers} workers: {sql}"
            );
        }
        let two = "(VALUES (9007199254740993), (1)) AS t(x)";
        let sql = format!(
            "SELECT avg(x) AS a, mean(x) AS b, avg(DISTINCT x) AS c, avg(x) FILTER (WHERE x < 0), arrow_typeof(avg(x)) FROM {two}"
        );
        assert_eq!(
            minerva.rows(None, &sql),
            ["4503599627370497.0,4503599627370497.0,4503599627370497.0,,Float64"]
        );
        // Other types have the means that they had.
        for (kind, expected) in [("DOUBLE", "1.5"), ("REAL", "1.5"), ("DECIMAL(9, 2)", "1.500000")] {
            let sql = format!("SELECT avg(CAST(x AS {kind})) FROM (VALUES (1), (2), (NULL)) AS t(x)");
            assert_eq!(minerva.rows(None, &sql), [expected], "{kind}");
        }
    }
}

#[test]
fn columns_may_share_a_name_and_are_called_by_their_text() {
    let minerva = minerva();
    let header = |sql: &str| {
        let output = minerva.run(None, sql, "CSV");
        assert!(
            output.status.success(),
            "{sql}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let t = "(VALUES (1, 'a'), (2, 'b')) AS t(id, name)";
    assert_eq!(header(&format!("SELECT id, id, name, t.id FROM {t}")), "id,id,name,id");
    assert_eq!(
        header(&format!("SELECT count(*), COUNT(*), max(id) FROM {t}")),
        "count(*),COUNT(*),max(id)"
    );
    assert_eq!(header(&format!("SELECT * FROM (SELECT id, id FROM {t}) s")), "id,id");
    assert_eq!(header("WITH w AS (SELECT 1, 1) SELECT * FROM w"), "1,1");
    assert_eq!(
        minerva.rows(None, &format!("SELECT DISTINCT id + 1 FROM {t} ORDER BY id + 1 DESC")),
        ["3", "2"]
    );
    assert_eq!(
        minerva.rows(
            None,
            &format!("SELECT name, count(*), count(*) FROM {t} GROUP BY name ORDER BY count(*), name")
        ),
        ["a,1,1", "b,1,1"]
    );
    assert_eq!(
        minerva.rows(None, &format!("SELECT id AS x, id AS x FROM {t} ORDER BY id")),
        ["1,1", "2,2"]
    );
}

#[test]
fn all_in_a_set_operation_counts_rows() {
    let minerva = minerva();
    let left = "SELECT x FROM (VALUES (1), (1), (2), (3), (3), (3), (NULL), (NULL)) AS a(x)";
    let right = "SELECT y FROM (VALUES (1), (3), (NULL), (NULL), (NULL), (9)) AS b(y)";
    let rows = |operation: &str| {
        let mut rows = minerva.rows(None, &format!("{left} {operation} {right}"));
        rows.sort();
        rows
    };
    assert_eq!(rows("EXCEPT ALL"), ["1", "2", "3", "3"]);
    assert_eq!(rows("INTERSECT ALL"), ["", "", "1", "3"]);
    assert_eq!(rows("EXCEPT"), ["2"]);
    assert_eq!(rows("INTERSECT"), ["", "1", "3"]);
}

#[test]
fn a_subquery_as_a_value_has_one_row() {
    let minerva = minerva();
    let several = "SELECT x FROM (VALUES (1), (2)) AS t(x)";
    for sql in [
        format!("SELECT ({several})"),
        format!("SELECT 1 FROM (VALUES (1)) AS a(y) WHERE y = ({several})"),
    ] {
        let error = minerva.error(None, &sql);
        assert!(error.contains("more than one row"), "{sql}: {error}");
    }
    assert_eq!(
        minerva.rows(None, &format!("SELECT ({several} WHERE x = 2) + 1")),
        ["3"]
    );
    assert_eq!(
        minerva.rows(None, &format!("SELECT ({several} WHERE x = 9) IS NULL")),
        ["true"]
    );
    assert_eq!(
        minerva.rows(None, &format!("SELECT ({several} LIMIT 1) IS NULL")),
        ["false"]
    );
}

/// Filters above a join belong to a side, though both have a column of that name.
#[test]
fn a_filter_above_an_outer_join_stays_on_its_side() {
    let minerva = minerva();
    let a = "(VALUES (1, 'x'), (2, 'x'), (3, NULL)) AS a(k, at)";
    let b = "(VALUES (1, NULL, 0), (3, 'y', 0), (9, 'y', 0), (2, 'z', 0), (1, 'q', 5)) AS b(k, at, n)";
    for join in ["FULL", "RIGHT"] {
        for filter in [
            "upper(a.at) IS NOT NULL",
            "CASE WHEN a.at IS NULL THEN false ELSE true END",
            "a.at IS NOT DISTINCT FROM 'x'",
        ] {
            let sql = format!(
                "SELECT coalesce(b.at, 'none') AS c FROM {a} {join} JOIN {b} ON a.k = b.k WHERE b.n IN (0) AND {filter} ORDER BY c"
            );
            assert_eq!(minerva.rows(None, &sql), ["none", "z"], "{sql}");
        }
        let sql = format!(
            "SELECT count(*) FROM {a} {join} JOIN {b} ON a.k = b.k WHERE b.n < 3 AND a.at IS DISTINCT FROM 'x'"
        );
        assert_eq!(minerva.rows(None, &sql), ["2"], "{sql}");
    }
}

#[test]
fn a_union_with_constants_is_ordered_by_them() {
    let minerva = minerva();
    let many = "(SELECT 'a' || CAST(value AS VARCHAR) AS w FROM (SELECT unnest(range(1, 20001)) AS value) r)";
    let few = "(VALUES (1), (2), (3)) AS f(x)";
    let union = format!("SELECT -3 AS c0, w AS c1 FROM {many} UNION ALL SELECT 5, 'z' FROM {few}");
    let sql = format!("SELECT * FROM ({union}) u ORDER BY c0 DESC, c1 LIMIT 2");
    for _ in 0..10 {
        assert_eq!(minerva.rows(None, &sql), ["5,z", "5,z"]);
    }
    let sql = format!("SELECT * FROM ({union}) u ORDER BY c1 DESC, c0 LIMIT 4");
    assert_eq!(minerva.rows(None, &sql), ["5,z", "5,z", "5,z", "-3,a9999"]);
}

#[test]
fn nulls_are_equal_in_no_other_join() {
    let minerva = minerva();
    let a = "(VALUES (1, 1), (NULL, 2), (2, NULL)) AS a(x, y)";
    let b = "(VALUES (1, 1), (NULL, NULL), (2, NULL), (NULL, 2)) AS b(x, y)";
    let c = "(VALUES (1), (NULL)) AS c(y)";
    let count = |from: &str| minerva.rows(None, &format!("SELECT count(*) FROM {from}")).concat();
    assert_eq!(
        count(&format!(
            "{a} JOIN {b} ON a.x = b.x JOIN {c} ON b.y IS NOT DISTINCT FROM c.y"
        )),
        "2"
    );
    assert_eq!(
        count(&format!(
            "{a} JOIN {b} ON a.x IS NOT DISTINCT FROM b.x JOIN {c} ON b.y = c.y"
        )),
        "1"
    );
    assert_eq!(
        count(&format!("{a} JOIN {b} ON a.x IS NOT DISTINCT FROM b.x WHERE a.y = b.y")),
        "2"
    );
    assert_eq!(count(&format!("{a} JOIN {b} ON a.x IS NOT DISTINCT FROM b.x")), "4");
    assert_eq!(
        count(&format!(
            "{a} JOIN {b} ON a.x IS NOT DISTINCT FROM b.x AND a.y IS NOT DISTINCT FROM b.y"
        )),
        "3"
    );
    let plan = minerva
        .rows(
            None,
            &format!("EXPLAIN SELECT * FROM {a} JOIN {b} ON a.x IS NOT DISTINCT FROM b.x"),
        )
        .concat();
    assert!(plan.contains("HashJoinExec"), "{plan}");
}

#[test]
fn years_before_nanoseconds_are_compared() {
    let minerva = minerva();
    let days = "(VALUES (DATE '2020-05-01'), (DATE '1969-12-31'), (NULL)) AS t(day)";
    let kept = |predicate: &str| {
        let year = predicate.replace("YEAR", "date_part('year', CAST(day AS TIMESTAMP))");
        minerva
            .rows(None, &format!("SELECT count(*) FROM {days} WHERE {year}"))
            .concat()
    };
    assert_eq!(kept("YEAR > 1600"), "2");
    assert_eq!(kept("1600 < YEAR"), "2");
    assert_eq!(kept("YEAR < 2300"), "2");
    assert_eq!(kept("YEAR <> 1600"), "2");
    assert_eq!(kept("YEAR IN (1600, 2020)"), "1");
    assert_eq!(kept("YEAR NOT IN (1600, 2020)"), "1");
    assert_eq!(kept("YEAR = 2020"), "1");
    assert_eq!(kept("YEAR = 2262"), "0");
    assert_eq!(kept("(YEAR = 1600) IS NULL"), "1");
    assert_eq!(
        kept(
            "EXTRACT(YEAR FROM CAST(day AS TIMESTAMP)) > 800 * 2"
                .replace("YEAR FROM", "year FROM")
                .as_str()
        ),
        "2"
    );
}

#[test]
fn running_aggregates_are_ordered_by() {
    let minerva = minerva();
    let t = "(VALUES (1, NULL, 'a'), (2, 5, 'a'), (3, 2, 'b'), (4, 9, 'b'), (NULL, 1, 'b')) AS t(k, v, g)";
    let ordered = |window: &str| {
        minerva
            .rows(
                None,
                &format!(
                    "SELECT coalesce(CAST(c AS VARCHAR), 'NULL') FROM (SELECT {window} AS c FROM {t}) s ORDER BY c"
                ),
            )
            .join(" ")
    };
    assert_eq!(ordered("max(v) OVER (ORDER BY k)"), "5 5 9 9 NULL");
    assert_eq!(ordered("min(v) OVER (ORDER BY k)"), "1 2 2 5 NULL");
    assert_eq!(ordered("sum(v) OVER (ORDER BY k)"), "5 7 16 17 NULL");
    let frame = "ROWS BETWEEN 1 PRECEDING AND CURRENT ROW";
    assert_eq!(
        ordered(&format!("count(*) OVER (PARTITION BY g ORDER BY k {frame})")),
        "1 1 2 2 2"
    );
    assert_eq!(ordered(&format!("count(v) OVER (ORDER BY v {frame})")), "1 1 2 2 2");
    assert_eq!(
        ordered(&format!("max(v) OVER (ORDER BY v NULLS FIRST {frame})")),
        "1 2 5 9 NULL"
    );
}

#[test]
fn nan_is_one_group_among_the_first() {
    let minerva = minerva();
    let f = "(VALUES ('NaN'), ('1.5'), ('NaN'), ('-Infinity'), ('NaN'), ('2.5')) AS t(w)";
    let f = format!("(SELECT CAST(w AS DOUBLE) AS f FROM {f}) t");
    let sql = format!("SELECT DISTINCT f FROM {f} ORDER BY f DESC LIMIT 3");
    assert_eq!(
        minerva.rows(None, &format!("SELECT count(*), count(DISTINCT f) FROM ({sql}) s")),
        ["3,3"]
    );
    assert_eq!(minerva.rows(None, &sql), ["NaN", "2.5", "1.5"]);
    let sql = format!("SELECT f FROM {f} GROUP BY f ORDER BY f LIMIT 10");
    assert_eq!(minerva.rows(None, &sql).len(), 4);
}

#[test]
fn extremes_of_groups_may_be_infinite_or_no_number() {
    let lake = "name: big\nversion: v2alpha\ntype: depot\ndepot: {type: TPCH, tpch: {scale: 0.01}}\n";
    let values = "SELECT l_linenumber AS g, CAST(CASE l_linenumber WHEN 1 THEN '-Infinity' WHEN 2 THEN 'Infinity' WHEN 3 THEN 'NaN' \
                  ELSE CASE l_orderkey % 3 WHEN 0 THEN 'NaN' WHEN 1 THEN '1.5' ELSE '-2.5' END END AS FLOATS) AS f FROM big.tpch.lineitem";
    for workers in [1, 2] {
        let minerva = Minerva::start(&[("big.yaml", lake)], workers);
        for kind in ["DOUBLE", "REAL"] {
            let values = values.replace("FLOATS", kind);
            let sql = format!("SELECT g, min(f), max(f) FROM ({values}) t WHERE g < 5 GROUP BY g ORDER BY g");
            let expected = [
                "1,-Infinity,-Infinity",
                "2,Infinity,Infinity",
                "3,NaN,NaN",
                "4,-2.5,NaN",
            ];
            assert_eq!(minerva.rows(None, &sql), expected, "{workers} workers");
            let whole = minerva.rows(None, &format!("SELECT min(f), max(f) FROM ({values}) t WHERE g = 4"));
            assert_eq!(whole, ["-2.5,NaN"]);
        }
    }
}

/// Such a condition is about the row that an aggregate has where its input has none.
#[test]
fn a_condition_without_columns_stays_above_an_aggregate() {
    let minerva = minerva();
    let (t, u) = (
        "(VALUES (1), (1), (2)) AS t(a)",
        "(SELECT max(b) FROM (VALUES (3)) AS u(b))",
    );
    let rows = |sql: String| minerva.rows(None, &sql);
    let none = Vec::<String>::new();
    assert_eq!(rows(format!("SELECT count(*) FROM {t} HAVING {u} < 0")), none);
    assert_eq!(rows(format!("SELECT count(*) FROM {t} HAVING {u} > 0")), ["3"]);
    assert_eq!(rows(format!("SELECT count(*) FROM {t} WHERE {u} < 0")), ["0"]);
    let counted = format!("(SELECT CAST('-1.5' AS DOUBLE) AS c, count(*) AS n FROM {t}) AS k");
    assert_eq!(rows(format!("SELECT n FROM {counted} WHERE abs(c) IS NULL")), none);
    assert_eq!(
        rows(format!("SELECT n FROM {counted} WHERE abs(c) > 1 AND n > 2")),
        ["3"]
    );
    let all = format!("(SELECT a, count(*) AS n FROM {t} GROUP BY ROLLUP(a)) AS k");
    assert_eq!(rows(format!("SELECT n FROM {all} WHERE {u} < 0")), none);
    assert_eq!(
        rows(format!("SELECT n FROM {all} WHERE {u} > 0 ORDER BY n")),
        ["1", "2", "3"]
    );
    let by_chance = format!("(SELECT a, count(*) AS n FROM {t} GROUP BY a) AS k");
    assert_eq!(
        rows(format!("SELECT n FROM {by_chance} WHERE random() < -1 OR {u} < 0")),
        none
    );
}

#[test]
fn texts_are_joined_in_several_orders() {
    let lake = "name: big\nversion: v2alpha\ntype: depot\ndepot: {type: TPCH, tpch: {scale: 0.01}}\n";
    for workers in [1, 2] {
        let minerva = Minerva::start(&[("big.yaml", lake)], workers);
        let rows =
            |columns: &str, rest: &str| minerva.rows(None, &format!("SELECT {columns} FROM big.tpch.nation{rest}"));
        let (up, down) = (
            "string_agg(n_name, '-' ORDER BY n_name)",
            "string_agg(n_name, '-' ORDER BY n_name DESC)",
        );
        let by_number = "string_agg(CAST(n_nationkey AS VARCHAR), '-' ORDER BY n_regionkey DESC, n_nationkey)";
        let some = " WHERE n_regionkey IN (1, 4)";
        let together = rows(&format!("{up}, {down}, {by_number}"), some);
        let apart = [up, down, by_number].map(|column| rows(column, some).concat());
        assert_eq!(together, [apart.join(",")]);
        assert_eq!(apart[2], "4-10-11-13-20-1-2-3-17-24");
        assert!(apart[0].starts_with("ARGENTINA-BRAZIL-") && apart[1].ends_with("-BRAZIL-ARGENTINA"));
        let grouped = rows(
            &format!("n_regionkey, {down}, {up}, string_agg(DISTINCT n_name, '-' ORDER BY n_name)"),
            " GROUP BY n_regionkey ORDER BY n_regionkey",
        );
        assert_eq!(grouped.len(), 5);
        let names = "ETHIOPIA-ALGERIA";
        let first = &grouped[0];
        assert!(
            first.starts_with("0,MOZAMBIQUE-MOROCCO-KENYA-") && first.contains(names),
            "{first}"
        );
        assert!(first.ends_with(",ALGERIA-ETHIOPIA-KENYA-MOROCCO-MOZAMBIQUE"), "{first}");
        let lists = rows(
            "array_to_string(array_agg(n_regionkey ORDER BY n_regionkey DESC), ''), array_to_string(array_agg(DISTINCT n_regionkey ORDER BY n_regionkey), ''), \
             array_to_string(array_agg(n_nationkey ORDER BY n_nationkey), '')",
            " WHERE n_nationkey < 6",
        );
        assert_eq!(lists, ["411100,014,012345"]);
    }
}

#[test]
fn statements_that_once_failed() {
    let minerva = minerva();
    let t = "(VALUES (true, 1.234), (false, 0.29), (NULL, 0.21)) AS t(ok, d)";
    let sql = format!("SELECT DISTINCT ok IS TRUE AS y FROM {t} ORDER BY y");
    assert_eq!(minerva.rows(None, &sql), ["false", "true"]);
    let sql = format!("SELECT ok IS NOT FALSE AS y, count(*) FROM {t} GROUP BY ok IS NOT FALSE ORDER BY y");
    assert_eq!(minerva.rows(None, &sql), ["false,1", "true,2"]);
    let d = "CAST(d AS DECIMAL(12, 2))";
    let sql = format!("SELECT count(*) FROM {t} WHERE round({d}, 1) < CAST('0.26' AS DECIMAL(12, 2))");
    assert_eq!(minerva.rows(None, &sql), ["1"]);
    let sql = format!("SELECT count(*) FROM {t} WHERE round({d}, -1) < CAST('0.26' AS DECIMAL(12, 2))");
    assert_eq!(minerva.rows(None, &sql), ["3"]);
    let sql = format!(
        "SELECT sum(DISTINCT length(CAST(ok AS VARCHAR))) AS n, sum({d}) AS s FROM {t} HAVING sum({d}) > CAST('1.00' AS DECIMAL(12, 2))"
    );
    assert_eq!(minerva.rows(None, &sql), ["9,1.73"]);
    // Of microseconds and nanoseconds.
    let at = |text: &str| format!("CAST(TIMESTAMP '{text}' AS TIMESTAMP(6))");
    let (one, other) = (at("2024-01-01 00:00:00"), at("2024-02-02 00:00:00"));
    let t = format!("(VALUES (1, {one}), (2, {other})) AS t(i, at)");
    let mixed =
        format!("(SELECT i, CASE WHEN i > 1 THEN at ELSE TIMESTAMP '2024-02-02 00:00:00' END AS c FROM {t}) AS m");
    let sql = format!("SELECT i FROM {mixed} WHERE EXISTS (SELECT 1 FROM {t} WHERE t.at = m.c) ORDER BY i");
    assert_eq!(minerva.rows(None, &sql), ["1", "2"]);
    let sql = format!(
        "SELECT i, (SELECT max(t.i) FROM {t} WHERE t.at = m.c) FROM {mixed} WHERE c > TIMESTAMP '2023-01-01 00:00:00' AND EXISTS (SELECT 1 FROM {t} WHERE t.at = m.c) ORDER BY i"
    );
    assert_eq!(minerva.rows(None, &sql), ["1,2", "2,2"]);
    let (t, u) = ("(VALUES (3), (NULL), (1)) AS t(a)", "(VALUES (2), (NULL)) AS u(b)");
    let sql = format!("SELECT a AS x, a AS y FROM {t} UNION ALL SELECT b, b FROM {u} ORDER BY y, x NULLS FIRST");
    assert_eq!(minerva.rows(None, &sql), ["1,1", "2,2", "3,3", ",", ","]);
}

/// DataFusion takes `nation` and `lake.tpch.nation` for one table, the first, where both are looked up.
#[test]
fn a_name_that_may_mean_two_tables_is_an_error() {
    let depot = |name: &str| {
        format!("name: {name}\nversion: v2alpha\ntype: depot\ndepot: {{type: TPCH, tpch: {{scale: 0.01}}}}\n")
    };
    let minerva = Minerva::start(&[("one.yaml", &depot("one")), ("two.yaml", &depot("two"))], 1);
    let whole = "SELECT one.tpch.nation.n_name, two.tpch.nation.n_name FROM one.tpch.nation JOIN two.tpch.nation \
                 ON one.tpch.nation.n_nationkey + 1 = two.tpch.nation.n_nationkey ORDER BY 1 LIMIT 1";
    assert_eq!(minerva.rows(None, whole), ["ALGERIA,ARGENTINA"]);
    let named = "SELECT nation.n_name, o.n_name FROM nation JOIN two.tpch.nation o ON nation.n_nationkey + 1 = o.n_nationkey ORDER BY 1 LIMIT 1";
    assert_eq!(
        minerva.rows(None, &format!("USE one.tpch; {named}")),
        ["ALGERIA,ARGENTINA"]
    );
    for sql in [
        "SELECT nation.n_name, two.tpch.nation.n_name FROM nation JOIN two.tpch.nation ON nation.n_nationkey + 1 = two.tpch.nation.n_nationkey",
        "WITH nation AS (SELECT 'x' AS n_name, 1 AS n_nationkey) SELECT nation.n_name, two.tpch.nation.n_name FROM nation \
         JOIN two.tpch.nation ON nation.n_nationkey = two.tpch.nation.n_nationkey",
        "SELECT nation.n_name FROM one.tpch.nation CROSS JOIN two.tpch.nation",
    ] {
        let error = minerva.error(None, &format!("USE one.tpch; {sql}"));
        assert!(
            error.contains("AMBIGUOUS_NAME") && error.contains("give one of the tables an alias"),
            "{sql}: {error}"
        );
    }
}

/// DataFusion calls a cast by the name of what it casts, and refuses two columns of one name inside a plan.
#[test]
fn casts_of_one_column_are_told_apart() {
    let minerva = Minerva::start(
        &[(
            "t.yaml",
            "name: t\nversion: v2alpha\ntype: depot\ndepot: {type: TPCH, tpch: {scale: 0.01}}\n",
        )],
        1,
    );
    let rows = |sql: &str| minerva.rows(None, &format!("USE t.tpch; {sql}"));
    assert_eq!(
        rows(
            "SELECT sum(n_nationkey), sum(CAST(n_nationkey AS DOUBLE)), sum(n_nationkey::SMALLINT), SUM(nation.n_nationkey) FROM nation"
        ),
        ["300,300.0,300,300"]
    );
    assert_eq!(
        rows("SELECT max(n_nationkey), max(CAST(n_nationkey AS VARCHAR)) FROM nation"),
        ["24,9"]
    );
    assert_eq!(
        rows("SELECT max(n_nationkey) FROM nation HAVING max(CAST(n_nationkey AS VARCHAR)) = '9'"),
        ["24"]
    );
    assert_eq!(
        rows(
            "SELECT n_regionkey FROM nation GROUP BY n_regionkey ORDER BY max(CAST(n_nationkey AS VARCHAR)) DESC, max(n_nationkey) LIMIT 2"
        ),
        ["2", "3"]
    );
    assert_eq!(
        rows(
            "SELECT n_regionkey, CAST(n_regionkey AS DOUBLE), count(*) FROM nation GROUP BY n_regionkey, CAST(n_regionkey AS DOUBLE) ORDER BY 1 LIMIT 1"
        ),
        ["0,0.0,5"]
    );
    assert_eq!(
        rows("SELECT CAST(n_regionkey AS DOUBLE) AS d, n_regionkey FROM nation GROUP BY d, 2 ORDER BY d LIMIT 1"),
        ["0.0,0"]
    );
    assert_eq!(
        rows(
            "SELECT count(*) FROM nation GROUP BY ROLLUP (n_regionkey, CAST(n_regionkey AS VARCHAR)) ORDER BY 1 DESC LIMIT 2"
        ),
        ["25", "5"]
    );
    assert_eq!(
        rows(
            "SELECT sum(n_nationkey) OVER (), sum(CAST(n_nationkey AS DOUBLE)) OVER (), \
              row_number() OVER (PARTITION BY n_regionkey ORDER BY n_nationkey), row_number() OVER (PARTITION BY CAST(n_regionkey AS VARCHAR) ORDER BY n_nationkey) \
              FROM nation ORDER BY n_nationkey LIMIT 1"
        ),
        ["300,300.0,1,1"]
    );
    assert_eq!(
        rows(
            "CREATE VIEW v AS SELECT avg(n_nationkey) AS a, avg(CAST(n_nationkey AS DOUBLE)) AS b FROM nation; SELECT a = b FROM v"
        ),
        ["true"]
    );
}

/// DataFusion adds different numbers modulo their width where several of its aggregates are of different values.
#[test]
fn sums_of_different_numbers_do_not_wrap_around() {
    let minerva = Minerva::start(&[], 1);
    let large = "(VALUES (9223372036854775807, 1), (9223372036854775807, 1), (1, 2), (-5, NULL)) AS t (a, b)";
    for sum in [
        format!("SELECT sum(DISTINCT a), count(DISTINCT b) FROM {large} WHERE a > 0"),
        format!("SELECT sum(DISTINCT a) OVER (ORDER BY a) FROM {large} WHERE a > 0"),
    ] {
        let error = minerva.error(None, &sum);
        assert!(error.contains("NUMERIC_VALUE_OUT_OF_RANGE"), "{sum}: {error}");
    }
    assert_eq!(
        minerva.rows(
            None,
            &format!("SELECT sum(DISTINCT a), sum(DISTINCT b), count(DISTINCT b), sum(DISTINCT a) FILTER (WHERE a > 1) FROM {large}")
        ),
        ["9223372036854775803,3,2,9223372036854775807"]
    );
    assert_eq!(
        minerva.rows(
            None,
            &format!("SELECT b, sum(DISTINCT a), sum(DISTINCT b) FROM {large} GROUP BY b ORDER BY b")
        ),
        ["1,9223372036854775807,1", "2,1,2", ",-5,"]
    );
    assert_eq!(
        minerva.rows(
            None,
            "SELECT a, sum(DISTINCT b) OVER (ORDER BY a ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM \
             (VALUES (1, 4), (2, 4), (3, 5), (4, NULL), (5, NULL)) AS t (a, b) ORDER BY a"
        ),
        ["1,4", "2,4", "3,9", "4,5", "5,"]
    );
}

//! What PostgreSQL is asked to do beyond scans, and what it is not.
//!
//! That the answers are the same is compared here for each statement, and for thousands by `tests/python/pushdown.py`.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::util::pretty::pretty_format_batches;
use datafusion::catalog::TableProvider;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::prelude::{SessionConfig, SessionContext};
use minerva_connectors::{Error, ErrorKind, LeafSource, PushDown, RemotePlanner, ScanExec, leaf_addresses};

use crate::server::{Place, shared};

const TABLES: &str = "
    CREATE TABLE a (id int8 PRIMARY KEY, n int4, small int2, f float8, d numeric(10, 2), big numeric, s text, c char(4), v varchar(20) COLLATE \"C\",
        day date, at timestamp, zoned timestamptz, yes bool, u uuid, raw bytea, list int4[], odd text COLLATE ci);
    INSERT INTO a SELECT i, CASE WHEN i % 7 > 0 THEN i % 5 END, i % 3, CASE WHEN i % 4 > 0 THEN i / 3.0 ELSE 'NaN' END, i * 1.37 - 20, i / 8.0,
        (ARRAY['a', 'B', 'ab', 'Ab', 'é', 'É', '', NULL, 'k', '\u{212a}'])[i % 10 + 1], (ARRAY['x', 'y ', NULL])[i % 3 + 1], 'v' || i % 4,
        date '2024-01-30' + i, timestamp '1999-12-31 23:59:59.5' + i * interval '1 day', timestamptz '2024-05-01 12:00+02' + i * interval '1 hour',
        i % 3 = 0, ('00000000-0000-4000-8000-00000000000' || i % 10)::uuid, decode(lpad((i % 100)::text, 2, '0'), 'hex'), ARRAY[i, NULL],
        (ARRAY['one', 'ONE', 'two', NULL])[i % 4 + 1]
        FROM generate_series(1, 100) i;
    INSERT INTO a (id, d, s) VALUES (-1, 'NaN', 'nan'), (-2, 5, NULL);
    DELETE FROM a WHERE id = -1;
    CREATE TABLE b (a_id int8, w numeric(10, 2), t text, odd text COLLATE ci);
    INSERT INTO b SELECT i % 40, i * 0.5, (ARRAY['a', 'ab', 'É', NULL])[i % 4 + 1], (ARRAY['One', 'two', NULL])[i % 3 + 1] FROM generate_series(1, 200) i;
    CREATE TABLE c (odd text COLLATE ci); INSERT INTO c SELECT (ARRAY['A', 'a', 'AB', 'ab'])[i % 4 + 1] FROM generate_series(1, 9) i; ANALYZE c;
    CREATE TABLE empty (id int8, d numeric(10, 2), s text);";

const COLLATION: &str = "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);";

struct Pushed {
    context: SessionContext,
    tables: Vec<Arc<dyn TableProvider>>,
    place: Place,
}

/// A plan that has run, as far as it could.
struct Ran {
    statements: Vec<String>,
    nodes: BTreeSet<String>,
    /// How many rows came from PostgreSQL.
    sent: usize,
    /// In how many pieces.
    pieces: usize,
    rows: Result<String, Error>,
}

impl Pushed {
    async fn new(name: &str, statements: &str) -> Pushed {
        let place = shared().database(name, statements).await;
        let config = SessionConfig::new()
            .set_str("datafusion.sql_parser.dialect", "PostgreSQL")
            .with_target_partitions(2)
            .with_extension(Arc::clone(&place.depots));
        let mut builder = SessionStateBuilder::new().with_default_features().with_config(config);
        let functions = builder.aggregate_functions().get_or_insert_default();
        functions.extend(minerva_cluster::aggregates());
        let context = SessionContext::new_with_state(builder.build());
        let mut tables = Vec::new();
        for table in place.source().await.datasets("public").await.unwrap() {
            let provider = place.table(&table).await;
            context.register_table(table, Arc::clone(&provider)).unwrap();
            tables.push(provider);
        }
        Pushed { context, tables, place }
    }

    async fn run(&self, sql: &str, is_pushed: bool) -> Ran {
        let state = self.context.state();
        let plan = self
            .context
            .sql(sql)
            .await
            .unwrap_or_else(|failure| panic!("{sql}: {failure}"));
        let plan = plan.into_unoptimized_plan();
        let mut plan: LogicalPlan = state.optimize(&plan).unwrap();
        if is_pushed {
            let same = |found: &dyn TableProvider| {
                self.tables
                    .iter()
                    .find(|table| std::ptr::addr_eq(table.as_ref(), found))
                    .cloned()
            };
            let pushing = PushDown {
                table_of: &same,
                fences: None,
                is_eager: &|_| true,
                reads_only: false,
            };
            plan = pushing.push(plan).unwrap().0;
        }
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(RemotePlanner)]);
        let plan = planner.create_physical_plan(&plan, &state).await.unwrap();
        let (mut statements, mut nodes) = (Vec::new(), BTreeSet::new());
        look(&plan, &mut statements, &mut nodes);
        let rows = collect(Arc::clone(&plan), state.task_ctx()).await;
        let (sent, pieces) = (sent(&plan), pieces(&plan));
        let rows = rows.map_err(|failure| {
            Error::find(&failure)
                .unwrap_or_else(|| panic!("{sql}: {failure}"))
                .clone()
        });
        let rows = rows.map(|batches| {
            let text = pretty_format_batches(&batches).unwrap().to_string();
            let mut lines: Vec<&str> = text.lines().collect();
            lines.sort_unstable();
            lines.join("\n")
        });
        Ran {
            statements,
            nodes,
            sent,
            pieces,
            rows,
        }
    }

    /// The whole statement becomes one of PostgreSQL's, which has these parts; at most the nodes that are named stay.
    async fn whole(&self, sql: &str, parts: &[&str]) {
        let (with, without) = (self.run(sql, true).await, self.run(sql, false).await);
        let [statement] = with.statements.as_slice() else {
            panic!("{sql} becomes {:?}", with.statements);
        };
        for part in parts {
            assert!(statement.contains(part), "{sql} becomes {statement}, without {part}");
        }
        let stays: Vec<&String> = with
            .nodes
            .iter()
            .filter(|node| {
                ![
                    "ScanExec",
                    "SortExec",
                    "SortExec(TopK)",
                    "ProjectionExec",
                    "GlobalLimitExec",
                    // For what is only sent as another type.
                    "RepartitionExec",
                ]
                .contains(&node.as_str())
            })
            .collect();
        assert!(stays.is_empty(), "{sql} leaves {stays:?}");
        assert_eq!(with.rows.unwrap(), without.rows.unwrap(), "{sql}\n{statement}");
    }

    /// Nothing of it is pushed down but scans, although the rows are the same.
    async fn nothing(&self, sql: &str) {
        let (with, without) = (self.run(sql, true).await, self.run(sql, false).await);
        assert_eq!(with.statements, Vec::<String>::new(), "{sql}");
        assert_eq!(with.rows.unwrap(), without.rows.unwrap(), "{sql}");
    }
}

fn sent(plan: &Arc<dyn ExecutionPlan>) -> usize {
    let own = plan
        .metrics()
        .filter(|_| plan.is::<ScanExec>())
        .and_then(|metrics| metrics.output_rows());
    own.unwrap_or_default() + plan.children().into_iter().map(sent).sum::<usize>()
}

fn pieces(plan: &Arc<dyn ExecutionPlan>) -> usize {
    let own = plan
        .downcast_ref::<ScanExec>()
        .map(|scan| scan.partitions().iter().flatten().count());
    own.unwrap_or_default() + plan.children().into_iter().map(pieces).sum::<usize>()
}

fn look(plan: &Arc<dyn ExecutionPlan>, statements: &mut Vec<String>, nodes: &mut BTreeSet<String>) {
    nodes.insert(plan.name().to_owned());
    if let Some(query) = plan
        .downcast_ref::<ScanExec>()
        .and_then(|scan| scan.scan().query.clone())
    {
        let text = query.text(None, plan.fetch());
        statements.push(
            text.replace("pg_catalog.", "")
                .replace("OPERATOR(", "")
                .replace([')', '('], ""),
        );
    }
    for child in plan.children() {
        look(child, statements, nodes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_means_the_same_is_done_by_postgresql() {
    let pushed = Pushed::new("pushed", &format!("{COLLATION}{TABLES}")).await;
    for (sql, parts) in [
        ("SELECT count(*) FROM a", &["count*"][..]),
        (
            "SELECT count(*), count(n), count(DISTINCT n), count(f), count(list) FROM a WHERE id > 3",
            &["countDISTINCT"],
        ),
        (
            "SELECT n, sum(id), sum(d), avg(d), min(day), max(at), min(s), max(u) FROM a GROUP BY n",
            &["GROUP BY", "COLLATE"],
        ),
        (
            "SELECT s, count(*) FROM a GROUP BY s HAVING count(*) > 2 AND min(n) IS NOT NULL",
            &["HAVING"],
        ),
        (
            "SELECT odd, count(*), count(DISTINCT odd) FROM a GROUP BY odd",
            &["GROUP BY t.\"odd\" COLLATE"],
        ),
        ("SELECT DISTINCT small, yes FROM a", &["GROUP BY"]),
        (
            "SELECT sum(d) FILTER (WHERE yes), count(*) FILTER (WHERE s = 'a') FROM a",
            &["FILTER"],
        ),
        ("SELECT sum(id), avg(d), max(s), count(*) FROM empty", &["div"]),
        (
            "SELECT id, s FROM a ORDER BY s DESC NULLS LAST, id LIMIT 5",
            &["ORDER BY", "DESC NULLS LAST", "LIMIT 5"],
        ),
        (
            "SELECT id, odd FROM a ORDER BY odd, id LIMIT 7 OFFSET 2",
            &["COLLATE \"C\" ASC NULLS LAST", "LIMIT 7 OFFSET 2"],
        ),
        (
            "SELECT id FROM a WHERE length(s) > 1 OR s LIKE '%b' OR c = 'x'",
            &["length", "~~"],
        ),
        (
            "SELECT id FROM a WHERE odd IN ('one', 'TWO', 'a', 'b', 'c') OR v NOT IN ('v1', 'v2') OR length(v) > 9",
            &["ANY"],
        ),
        (
            "SELECT id, n + 1, d * d - d, CASE WHEN n > 2 THEN s ELSE v END, coalesce(n, id) FROM a WHERE id < n * 30",
            &["CASE"],
        ),
        (
            "SELECT id FROM a WHERE (n IS DISTINCT FROM small) AND (s || v) <> 'av1'",
            &["IS TRUE"],
        ),
        (
            "SELECT date_part('year', day), date_part('month', day), count(*) FROM a GROUP BY 1, 2",
            &["date_part'year'"],
        ),
        (
            "SELECT substr(s, 1, 1), trim(c), strpos(v, '1'), starts_with(s, 'A') FROM a WHERE octet_length(s) = 2",
            &["substr"],
        ),
        (
            "SELECT a.id, b.w FROM a JOIN b ON a.id = b.a_id WHERE a.yes AND b.w > 20",
            &["JOIN"],
        ),
        (
            "SELECT a.id, b.w FROM a LEFT JOIN b ON a.id = b.a_id AND b.w > 90 AND a.n = 1",
            &["LEFT JOIN"],
        ),
        (
            "SELECT a.s, sum(b.w) FROM a JOIN b ON a.s = b.t GROUP BY a.s",
            &["COLLATE \"C\" ="],
        ),
        (
            "SELECT a.id FROM a JOIN b ON a.odd = b.odd AND a.id < b.a_id",
            &["COLLATE \"C\" ="],
        ),
        (
            "SELECT id FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.a_id = a.id AND b.w > a.d)",
            &["EXISTS"],
        ),
        // PostgreSQL makes the inside of it unique first, by the collation of the column unless told otherwise.
        (
            "SELECT id FROM a WHERE s IN (SELECT odd FROM c)",
            &["EXISTS", "COLLATE"],
        ),
        (
            "SELECT id FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.a_id = a.id)",
            &["NOT EXISTS"],
        ),
        ("SELECT avg(n), avg(small), n FROM a GROUP BY n", &["/"]),
        ("SELECT avg(n), avg(id) FROM a WHERE id > 1000", &["/"]),
        (
            "SELECT avg(id), avg(DISTINCT id) FILTER (WHERE n > 1), avg(n) FILTER (WHERE yes), avg(DISTINCT small), avg(CAST(n AS DOUBLE)) FROM a",
            &["sumDISTINCT t.\"id\" FILTER", "sumt.\"n\" FILTER", "sumDISTINCT t.\"small\""],
        ),
        (
            "SELECT id, avg(id) OVER (PARTITION BY s ORDER BY id ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING), avg(n) FILTER (WHERE s = 'a') OVER (ORDER BY small), avg(d) OVER (PARTITION BY n) FROM a",
            &["ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING", "count"],
        ),
        (
            "SELECT s, count(*) FROM (SELECT s, id FROM a UNION ALL SELECT t, a_id FROM b WHERE w > 5 UNION ALL SELECT odd, 3 FROM a) AS u GROUP BY s",
            &["UNION ALL"],
        ),
        (
            "SELECT t, count(*) FROM (SELECT t, a_id, sum(w) AS w FROM b GROUP BY t, a_id) AS x WHERE w > 10 GROUP BY t",
            &["FROM SELECT"],
        ),
        (
            "SELECT id, row_number() OVER (PARTITION BY small ORDER BY s NULLS FIRST, id DESC), rank() OVER (ORDER BY n), dense_rank() OVER (ORDER BY odd DESC) FROM a",
            &["row_number OVER PARTITION BY", "dense_rank OVER"],
        ),
        (
            "SELECT id, s FROM (SELECT id, s, row_number() OVER (PARTITION BY n ORDER BY id) AS place FROM a) AS w WHERE place <= 2",
            &["row_number", "WHERE", " <= "],
        ),
        (
            "SELECT place, count(*), max(place) FROM (SELECT rank() OVER (ORDER BY odd) AS place FROM a) AS w WHERE place BETWEEN 2 AND 60 GROUP BY place",
            &["rank", "GROUP BY"],
        ),
        (
            "SELECT id, count(s) OVER (ORDER BY small), sum(id) OVER (PARTITION BY s ORDER BY id ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING), min(s) OVER (PARTITION BY n),
                max(odd) OVER (ORDER BY id ROWS BETWEEN 3 PRECEDING AND CURRENT ROW), count(*) FILTER (WHERE s = 'a') OVER (ORDER BY n) FROM a",
            &["ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING"],
        ),
        (
            "SELECT id, lag(s) OVER (ORDER BY id), lead(n, 3) OVER (PARTITION BY s ORDER BY id), first_value(odd) OVER (ORDER BY id DESC), last_value(s) OVER (ORDER BY id) FROM a",
            &["lead"],
        ),
        (
            "SELECT n, total, rank() OVER (ORDER BY total DESC, n) FROM (SELECT n, sum(id) AS total FROM a GROUP BY n) AS g",
            &["GROUP BY", "OVER"],
        ),
        (
            "SELECT id, row_number() OVER (ORDER BY id) + n FROM (SELECT id, lag(n) OVER (ORDER BY id) AS n FROM a) AS w WHERE n > 1",
            &["lag"],
        ),
        (
            "SELECT a.id, a.s, b.w FROM a FULL JOIN b ON a.id = b.a_id AND b.w > 20",
            &["FULL JOIN"],
        ),
        (
            "SELECT a.id, b.w FROM (SELECT id, n FROM a WHERE n > 1) AS a FULL JOIN b ON a.n = b.a_id AND a.id < b.w WHERE coalesce(a.id, 7) > 5",
            &["FULL JOIN"],
        ),
        // A constant is no key that it could sort or hash by.
        (
            "SELECT x.k, b.w FROM (SELECT 7::bigint AS k, id FROM a) AS x FULL JOIN b ON x.k = b.a_id",
            &["FULL JOIN"],
        ),
        (
            "SELECT s FROM a INTERSECT SELECT t FROM b",
            &["COALESCE"],
        ),
        (
            "SELECT s, id FROM a EXCEPT SELECT t, a_id FROM b",
            &["COALESCE"],
        ),
        ("SELECT s FROM a UNION SELECT t FROM b", &["UNION ALL", "GROUP BY"]),
        (
            "SELECT s, odd FROM a INTERSECT ALL SELECT t, odd FROM b",
            &["COALESCE"],
        ),
        (
            "SELECT odd FROM a EXCEPT ALL SELECT t FROM b",
            &["NOT EXISTS"],
        ),
        (
            "SELECT s FROM a ORDER BY s, odd, id LIMIT 5 OFFSET 50",
            &["LIMIT 5 OFFSET 50"],
        ),
        (
            "SELECT s, count(*) FROM a GROUP BY s ORDER BY s LIMIT 3 OFFSET 2",
            &["GROUP BY", "LIMIT 3 OFFSET 2"],
        ),
    ] {
        pushed.whole(sql, parts).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_mean_something_else_is_not() {
    let pushed = Pushed::new("unpushed", &format!("{COLLATION}{TABLES}")).await;
    for sql in [
        "SELECT id FROM a WHERE f > 1.5 + n",
        "SELECT max(f), sum(f) FROM a",
        "SELECT f, count(*) FROM a GROUP BY f",
        "SELECT id / 2, d / 3, id % 7 FROM a",
        "SELECT id FROM a WHERE s SIMILAR TO 'a%'",
        "SELECT id FROM a WHERE s LIKE 'a\\%'",
        "SELECT avg(f), avg(CAST(id AS DOUBLE)) FROM a",
        "SELECT avg(CAST(id AS DOUBLE)) FROM a",
        "SELECT sum(big) FROM a",
        "SELECT reverse(s) FROM a",
        "SELECT id FROM a ORDER BY f, id LIMIT 3",
    ] {
        pushed.nothing(sql).await;
    }
}

/// Sums of more digits than a double has are rounded there as they are here.
#[tokio::test(flavor = "multi_thread")]
async fn means_of_large_whole_numbers_are_the_same_to_the_last_bit() {
    let tables = "
        CREATE TABLE wide (id int8 PRIMARY KEY, g int4, any_size int8, beyond int8, near int8);
        INSERT INTO wide SELECT i, i % 700, nullif(x, 0) >> (i % 60)::int4, 9007199254740992 + i * (1 - i % 2 * 2), (CASE WHEN i % 2 = 0 THEN 9223372036854775807 ELSE -9223372036854775808 END)
            FROM (SELECT i, ('x' || substr(md5(i::text), 1, 16))::bit(64)::int8 AS x FROM generate_series(1, 5000) i) AS of;
        INSERT INTO wide VALUES (0, NULL, 9007199254740993, 9007199254740993, 9223372036854775807), (-1, NULL, 1, NULL, 9223372036854775807), (-2, NULL, NULL, 1, 9223372036854775806);";
    let pushed = Pushed::new("means", tables).await;
    for sql in [
        "SELECT g, avg(any_size), avg(beyond), avg(near) FROM wide GROUP BY g",
        "SELECT avg(any_size), avg(beyond), avg(near), avg(DISTINCT any_size), avg(DISTINCT near) FROM wide",
        "SELECT id, avg(any_size) FROM wide GROUP BY id",
        "SELECT id, avg(any_size) OVER (ORDER BY id ROWS BETWEEN 3 PRECEDING AND 2 FOLLOWING), avg(near) OVER (ORDER BY id) FROM wide",
    ] {
        pushed.whole(sql, &["/"]).await;
    }
}

/// Letters are not the same everywhere: PostgreSQL leaves out most rows, and what stays is decided here.
#[tokio::test(flavor = "multi_thread")]
async fn conditions_on_letters_leave_out_most_rows() {
    let pushed = Pushed::new("letters", &format!("{COLLATION}{TABLES}")).await;
    for sql in [
        "SELECT id FROM a WHERE lower(s) = 'ab'",
        "SELECT id FROM a WHERE lower(s) = 'k'",
        "SELECT id FROM a WHERE upper(s) <> 'AB' AND id < 50",
        "SELECT id FROM a WHERE s ILIKE 'a%' OR s ILIKE 'É'",
        "SELECT id FROM a WHERE NOT (lower(s) = 'é')",
        "SELECT id FROM a WHERE s ILIKE 'k'",
    ] {
        let (with, without) = (pushed.run(sql, true).await, pushed.run(sql, false).await);
        assert_eq!(with.rows.unwrap(), without.rows.unwrap(), "{sql}");
        let is_loose = with
            .statements
            .iter()
            .any(|statement| statement.contains("octet_length"));
        assert_eq!(is_loose, !sql.contains("ILIKE 'É'"), "{sql}: {:?}", with.statements);
    }
}

/// Names and constants stay what they are, whatever is in them.
#[tokio::test(flavor = "multi_thread")]
async fn names_and_constants_cannot_leave_their_quotes() {
    let names = "CREATE TABLE \"t\"\" AS (SELECT 1) --\" (\"c\"\"; DROP TABLE x --\" text, id int4);
        INSERT INTO \"t\"\" AS (SELECT 1) --\" VALUES ('\\'' OR 1=1 --', 1), ('a''''b', 2), (E'new\\nline', 3), ('', 4), (NULL, 5);";
    let pushed = Pushed::new("quoted", names).await;
    let column = "\"c\"\"; DROP TABLE x --\"";
    let table = "\"t\"\" AS (SELECT 1) --\"";
    for value in ["\\'' OR 1=1 --", "a''''b", "new\nline", "", "é''", "\\", "x\\''y"] {
        let sql = format!(
            "SELECT {column}, count(*), max({column} || '{value}') FROM {table} WHERE {column} || '' = '{value}' OR {column} IN ('{value}', 'z') GROUP BY {column}"
        );
        pushed.whole(&sql, &["GROUP BY"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_reads_what_its_leaf_says() {
    let pushed = Pushed::new("leaves", &format!("{COLLATION}{TABLES}")).await;
    let state = pushed.context.state();
    let plan = pushed
        .context
        .sql("SELECT count(*) FROM a JOIN b ON a.id = b.a_id")
        .await
        .unwrap();
    let plan = state.optimize(&plan.into_unoptimized_plan()).unwrap();
    let same = |found: &dyn TableProvider| {
        pushed
            .tables
            .iter()
            .find(|table| std::ptr::addr_eq(table.as_ref(), found))
            .cloned()
    };
    let pushing = PushDown {
        table_of: &same,
        fences: None,
        is_eager: &|_| true,
        reads_only: false,
    };
    let plan = pushing.push(plan).unwrap().0;
    let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(RemotePlanner)]);
    let plan = planner.create_physical_plan(&plan, &state).await.unwrap();
    let mut leaf = plan;
    while let Some(child) = leaf.children().first().map(|child| Arc::clone(child)) {
        leaf = child;
    }
    let LeafSource::Datasets(addresses) = leaf_addresses(leaf.as_ref(), &pushed.place.depots) else {
        panic!("{}", leaf.name());
    };
    let names: Vec<String> = addresses.iter().map(|address| address.dataset.clone()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_postgresql_cannot_compute_is_a_typed_error() {
    let pushed = Pushed::new(
        "uncomputed",
        "CREATE TABLE big (n int8, d numeric(30, 10)); INSERT INTO big VALUES (9223372036854775807, 1), (1, 2);",
    )
    .await;
    let failure = pushed.run("SELECT sum(n) FROM big", true).await.rows.unwrap_err();
    assert_eq!(failure.kind, ErrorKind::OutOfRange, "{failure}");
    pushed.place.admin.batch_execute("DROP TABLE big").await.unwrap();
    let failure = pushed.run("SELECT sum(n) FROM big", true).await.rows.unwrap_err();
    assert_eq!(failure.kind, ErrorKind::Changed, "{failure}");
}

/// What reads a table row by row is dealt to several readers, of a partitioned table as well.
#[tokio::test(flavor = "multi_thread")]
async fn statements_over_partitions_have_several_readers() {
    let parted = "CREATE TABLE parted (id int8, filler text, day date) PARTITION BY RANGE (id);
         CREATE TABLE low PARTITION OF parted FOR VALUES FROM (0) TO (50000); CREATE TABLE high PARTITION OF parted FOR VALUES FROM (50000) TO (200001);
         INSERT INTO parted SELECT i, repeat('x', 200), date '2024-01-01' + (i % 400)::int4 FROM generate_series(1, 200000) i; ANALYZE;";
    let pushed = Pushed::new("parted", parted).await;
    let sql = "SELECT id + 1 AS next FROM parted WHERE extract(month FROM day) = 7 AND length(filler) = 200";
    let (with, without) = (pushed.run(sql, true).await, pushed.run(sql, false).await);
    let [statement] = with.statements.as_slice() else {
        panic!("{:?}", with.statements)
    };
    assert!(statement.contains("length"), "{statement}");
    assert!(
        with.pieces > 1 && with.sent < 20_000,
        "{} pieces, {} rows",
        with.pieces,
        with.sent
    );
    assert_eq!(with.rows.unwrap(), without.rows.unwrap());
    // One group of all is made in one place.
    let whole = pushed.run("SELECT count(*), max(id) FROM parted", true).await;
    assert_eq!((whole.pieces, whole.sent), (1, 1));
    assert!(whole.rows.unwrap().contains("200000"));
}

/// A join that knows its keys asks the other side for these alone; a subquery's value is asked for as well.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_joins_and_values_of_subqueries_reach_the_other_side() {
    let many = "CREATE TABLE many (k int8, t text, n int4); INSERT INTO many SELECT i, 'k' || i, i % 10 FROM generate_series(1, 50000) i;
        CREATE TABLE few (k int8, t text); INSERT INTO few VALUES (7, 'k7'), (8, NULL), (60000, 'k9'), (NULL, 'k10');";
    let pushed = Pushed::new("keys", many).await;
    let here = pushed
        .context
        .sql("SELECT * FROM (VALUES (7, 'k7'), (8, NULL), (60000, 'k9'), (NULL, 'k10')) AS v(k, t)")
        .await
        .unwrap();
    pushed.context.register_table("here", here.into_view()).unwrap();
    for (sql, at_most) in [
        ("SELECT many.n FROM here JOIN many ON here.k = many.k", 2),
        ("SELECT many.n FROM here JOIN many ON here.t = many.t", 3),
        ("SELECT n FROM many WHERE k IN (SELECT k FROM here)", 2),
        (
            "SELECT n FROM many WHERE k > (SELECT max(k) - 20000 FROM here) AND length(t) > 2",
            10_000,
        ),
        (
            "SELECT x.c FROM here JOIN (SELECT k % 9 AS k, count(*) AS c FROM many GROUP BY k % 9) AS x ON here.k = x.k",
            50_000,
        ),
        (
            "SELECT x.c FROM here JOIN (SELECT n, count(*) AS c FROM many GROUP BY n) AS x ON here.k = x.n",
            2,
        ),
    ] {
        let (with, without) = (pushed.run(sql, true).await, pushed.run(sql, false).await);
        assert_eq!(with.rows.unwrap(), without.rows.unwrap(), "{sql}");
        assert!(with.sent <= at_most, "{sql} has {} rows sent", with.sent);
    }
}

/// What is written where it is used would be written for ever.
#[tokio::test(flavor = "multi_thread")]
async fn statements_stay_of_a_size_that_databases_take() {
    let pushed = Pushed::new(
        "sizes",
        "CREATE TABLE t (k int8, n int4); INSERT INTO t SELECT 0, i FROM generate_series(1, 9) i;",
    )
    .await;
    let doubled: Vec<String> = (1..60)
        .map(|at| format!("a{at} AS (SELECT x + x AS x FROM a{})", at - 1))
        .collect();
    let grouped: Vec<String> = (1..100)
        .map(|at| format!("a{at} AS (SELECT max(x) AS x, n FROM a{} GROUP BY n)", at - 1))
        .collect();
    let first = "WITH a0 AS (SELECT k AS x, n FROM t)";
    for sql in [
        format!("{first}, {} SELECT * FROM a59", doubled.join(", ")),
        format!("{first}, {} SELECT x, n FROM a99", grouped.join(", ")),
        "SELECT 'x' FROM (SELECT sum(k) AS s FROM t) AS u".to_owned(),
        "SELECT count(*) FROM (SELECT sum(k) AS s FROM t) AS u".to_owned(),
    ] {
        let (with, without) = (pushed.run(&sql, true).await, pushed.run(&sql, false).await);
        assert_eq!(with.rows.unwrap(), without.rows.unwrap(), "{sql}");
        assert!(with.statements.iter().all(|statement| statement.len() < 8 << 20));
    }
}

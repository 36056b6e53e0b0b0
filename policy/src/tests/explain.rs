//! Explanations compared: with what was expected, and with those after a change.

use datafusion::arrow::datatypes::{DataType, Schema};

use crate::testing::{
    EVERYTHING, SECRET, documents, filter_policy, mask_policy, person, problems, resources, rules, schema, table,
};
use crate::{Rules, advise, alterations, compare, explain, explain_names, misfits};

const ALL: &str = "users:id:**";

fn depot() -> &'static str {
    "name: crm\nversion: v1\ntype: depot\ndepot: {type: MEMORY, spec: {}}"
}

fn columns() -> Schema {
    schema(&[
        ("id", DataType::Int64),
        ("email", DataType::Utf8),
        ("region", DataType::Utf8View),
        ("born", DataType::Date32),
    ])
}

/// `subject: got` for each expectation that does not hold.
fn failing(policies: &[&str], expect: &str) -> Vec<String> {
    let test = format!(
        "tests:\n- as: {{id: tom, tags: [roles:id:a], attributes: {{region: EU}}}}\n  table: crm.public.customer\n  expect: {expect}"
    );
    let mut yaml = vec![EVERYTHING, depot()];
    yaml.extend(policies);
    yaml.push(&test);
    let set = resources(&documents(&yaml));
    let rules = Rules::compile(&set).unwrap();
    let principal = person("tom", &["roles:id:a", "region=EU"]);
    let explanation = explain(&rules, &principal, &table(), &columns());
    let outcomes = compare(&set.policy_tests()[0], &explanation, &columns());
    assert!(!outcomes.is_empty());
    let failing = outcomes.iter().filter(|outcome| !outcome.holds);
    failing
        .map(|outcome| format!("{}: {}", outcome.subject, outcome.got))
        .collect()
}

#[test]
fn expectations_hold_or_say_what_was_found() {
    let hash = mask_policy("hashed", 50, ALL, "{names: [email]}", "{operator: hash}");
    let own = filter_policy("own", "[{column: region, value: '${user.attributes.region}'}]");
    let young = filter_policy("young", "[{expression: \"born >= '2000-01-01' and id in (1, 2)\"}]");
    for (expect, wrong) in [
        (
            "{access: allowed, email: hash, id: visible, rows: \"region = 'EU' and born >= '2000-01-01' and id in (2, 1)\"}",
            "",
        ),
        (
            "{rows: \"id in (1, 2) AND 'EU' = region AND (born >= DATE '2000-01-01')\"}",
            "",
        ),
        ("{rows: \"region = 'EU'\"}", "rows: (region = 'EU') AND"),
        ("{rows: all}", "rows: (region = 'EU') AND"),
        ("{rows: none}", "rows: (region = 'EU') AND"),
        ("{rows: 'region ='}", "what is expected cannot be read"),
        ("{access: denied}", "access: allowed"),
        ("{email: masked, columns: {email: 'hash(algo: sha256)'}}", ""),
        ("{email: visible}", "column `email`: hash(algo: sha256) by `hashed`"),
        ("{email: redact}", "column `email`: hash(algo: sha256) by `hashed`"),
        ("{email: denied}", "column `email`: hash"),
        ("{email: hsh}", "did you mean `hash`"),
        ("{emial: hash}", "there is no column `emial`; did you mean `email`?"),
    ] {
        let found = failing(&[&hash, &own, &young], expect).join("\n");
        assert!(
            if wrong.is_empty() {
                found.is_empty()
            } else {
                found.contains(wrong)
            },
            "{expect}: {found}"
        );
    }
    let never = filter_policy("never", "[{expression: '1 = 2'}]");
    assert_eq!(failing(&[&never], "{rows: none, email: visible}"), Vec::<String>::new());
    let closes = filter_policy("closes", "[{column: nothing, operator: is_null}]");
    assert_eq!(
        failing(&[&closes], "{access: closed, rows: none}"),
        Vec::<String>::new()
    );
    assert_eq!(failing(&[&closes], "{email: visible}").len(), 1);
}

/// `masked` says that nothing of a column is shown as it is.
#[test]
fn a_column_is_masked_when_all_of_it_is() {
    use datafusion::arrow::datatypes::Field;
    let address = DataType::Struct(
        vec![
            Field::new("city", DataType::Utf8, true),
            Field::new("street", DataType::Utf8, true),
        ]
        .into(),
    );
    let columns = schema(&[("id", DataType::Int64), ("address", address)]);
    let of = |masks: &[&str], expect: &str| {
        let test = format!("tests:\n- {{as: {{id: tom}}, table: crm.public.customer, expect: {expect}}}");
        let set = resources(&documents(&[&[EVERYTHING, depot()], masks, &[&test]].concat()));
        let explanation = explain(&Rules::compile(&set).unwrap(), &person("tom", &[]), &table(), &columns);
        let outcomes = compare(&set.policy_tests()[0], &explanation, &columns);
        outcomes
            .into_iter()
            .map(|outcome| (outcome.holds, outcome.got))
            .next()
            .unwrap()
    };
    let city = mask_policy("city", 50, ALL, "{names: [address.city]}", "{operator: redact}");
    let street = mask_policy("street", 50, ALL, "{names: [address.street]}", "{operator: hash}");
    let (holds, got) = of(&[&city], "{address: masked}");
    assert_eq!(
        (holds, got.as_str()),
        (false, "`address.city` redact by `city`; `address.street` as it is")
    );
    assert!(!of(&[&city], "{address: visible}").0);
    assert!(of(&[&city], "{address.city: masked}").0 && of(&[&city], "{address.street: visible}").0);
    assert!(of(&[&city, &street], "{address: masked}").0);
    assert!(
        of(
            &[&mask_policy(
                "all",
                50,
                ALL,
                "{names: [address]}",
                "{operator: nullify}"
            )],
            "{address: masked}"
        )
        .0
    );
}

/// A table of which no column is left is none, and all that decide about it say so.
#[test]
fn a_table_without_a_visible_column_is_denied_in_explanations_too() {
    let deny = |columns: &str| {
        format!(
            "name: x\nversion: v1\ntype: policy\npolicy: {{access: {{subjects: {{tags: ['users:**']}}, predicates: [select], \
             objects: {{paths: ['dataos://crm:public/customer/{columns}']}}, allow: false}}}}"
        )
    };
    let tom = person("tom", &[]);
    for (hidden, is_allowed) in [("?*", false), ("[!iI]*", true)] {
        let rules = rules(&documents(&[EVERYTHING, &deny(hidden)]));
        for explanation in [
            explain(&rules, &tom, &table(), &columns()),
            explain_names(&rules, &tom, &table(), &columns()),
        ] {
            assert_eq!(explanation.access.allowed, is_allowed, "{explanation}");
            let says = explanation
                .to_string()
                .contains("may not read `dataos://crm:public/customer`: every column of it is denied");
            assert_eq!(says, !is_allowed, "{explanation}");
        }
        let verdict = crate::decide(&rules, &tom, &table(), &columns());
        assert_eq!(matches!(verdict, crate::Verdict::Allow(_)), is_allowed);
        let operator = explain(&rules, &person("op", &["roles:id:operator"]), &table(), &columns());
        assert!(operator.access.allowed);
    }
}

#[test]
fn what_a_change_alters_is_told() {
    let of = |policies: &[&str]| {
        let mut yaml = vec![EVERYTHING];
        yaml.extend(policies);
        rules(&documents(&yaml))
    };
    let principal = person("tom", &["roles:id:a", "region=EU"]);
    let (hash, redact) = (
        mask_policy("hashed", 50, ALL, "{names: [email]}", "{operator: hash}"),
        mask_policy("hashed", 50, ALL, "{names: [email]}", "{operator: redact}"),
    );
    let own = filter_policy("own", "[{column: region, value: '${user.attributes.region}'}]");
    let broken = filter_policy("own", "[{column: regio, value: x}]");
    let nobody = "name: x\nversion: v1\ntype: policy\npolicy: {access: {subjects: {tags: [roles:id:a]}, predicates: [select], objects: {paths: ['dataos://**']}, allow: false}}";
    for (before, after, expected) in [
        (vec![hash.as_str()], vec![hash.as_str()], vec![]),
        (
            vec![],
            vec![&hash],
            vec!["column `email`: as it is -> hash(algo: sha256) by `hashed`"],
        ),
        (
            vec![&hash],
            vec![&redact],
            vec!["column `email`: hash(algo: sha256) by `hashed` -> redact by `hashed`"],
        ),
        (vec![], vec![&own], vec!["rows: all -> region = 'EU' by `own`"]),
        (vec![&hash], vec![&hash, nobody], vec!["access: allowed -> denied"]),
        (vec![], vec![&broken], vec!["access: allowed -> closed"]),
        (vec![nobody], vec![nobody, &hash], vec![]),
    ] {
        let explained = |policies: &[&str]| explain(&of(policies), &principal, &table(), &columns());
        let found = alterations(Some(&explained(&before)), Some(&explained(&after)));
        let found: Vec<_> = found
            .iter()
            .map(|found| format!("{}: {} -> {}", found.subject, found.before, found.after))
            .collect();
        for expected in &expected {
            assert!(
                found.iter().any(|found| found.starts_with(expected)),
                "{expected}: {found:?}"
            );
        }
        assert_eq!(found.is_empty(), expected.is_empty(), "{found:?}");
    }
    let new = explain(&of(&[&hash]), &principal, &table(), &columns());
    assert_eq!(alterations(None, Some(&new)).len(), 2 + columns().fields().len());
}

#[test]
fn a_table_that_could_not_be_looked_at_is_explained_by_its_names() {
    let hash = mask_policy("hashed", 50, ALL, "{names: [id]}", "{operator: hash}");
    let own = filter_policy("own", "[{column: region, value: '${user.attributes.region}'}]");
    let names = schema(&[("id", DataType::Null), ("region", DataType::Null)]);
    let rules = rules(&documents(&[EVERYTHING, &hash, &own]));
    let explanation = explain_names(&rules, &person("tom", &["region=EU"]), &table(), &names);
    assert!(explanation.closed.is_none());
    let text = explanation.to_string();
    assert!(text.contains("column `id`: hash(algo: sha256)"), "{text}");
    assert!(
        text.contains("rows: only where region equals ${user.attributes.region}"),
        "{text}"
    );
}

#[test]
fn masks_that_fit_no_column_they_are_about_are_found_without_a_user() {
    let rules = rules(&documents(&[
        EVERYTHING,
        &mask_policy(
            "hash-all",
            50,
            "roles:id:nobody",
            "{names: [id, email]}",
            "{operator: hash}",
        ),
        &mask_policy("fits", 40, "roles:id:nobody", "{names: [born]}", "{operator: redact}"),
    ]));
    let found = misfits(&rules, &table(), &columns());
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("policy `hash-all`") && found[0].contains("column `id` of type `Int64`"),
        "{found:?}"
    );
}

#[test]
fn a_hash_takes_the_default_key_unless_it_asks_for_none() {
    let mask = |parameters: &str| mask_policy("p", 50, ALL, "{names: [email]}", parameters);
    let default = SECRET.replace("masking", "mask-key");
    for (parameters, secrets, expected) in [
        ("{operator: hash}", "", "hash(algo: sha256)"),
        (
            "{operator: hash}",
            default.as_str(),
            "hash(algo: sha256, keySecret: mask-key)",
        ),
        ("{operator: hash, hash: {keyed: false}}", &default, "hash(algo: sha256)"),
        (
            "{operator: hash, hash: {keyed: true}}",
            &default,
            "hash(algo: sha256, keySecret: mask-key)",
        ),
    ] {
        let mut yaml = vec![EVERYTHING.to_owned(), mask(parameters)];
        yaml.extend((!secrets.is_empty()).then(|| secrets.to_owned()));
        let yaml: Vec<&str> = yaml.iter().map(String::as_str).collect();
        let rules = rules(&documents(&yaml));
        let explanation = explain(&rules, &person("tom", &[]), &table(), &columns());
        assert_eq!(
            explanation.columns[1].winner.as_ref().unwrap().0,
            expected,
            "{parameters}"
        );
        let is_advised = !advise(&resources(&documents(&yaml))).is_empty();
        assert_eq!(is_advised, secrets.is_empty(), "{parameters}");
    }
    let found = problems(&mask("{operator: hash, hash: {keyed: true}}"));
    assert!(found[0].contains("there is no secret `mask-key`"), "{found:?}");
    let both = documents(&[
        &mask("{operator: hash, hash: {keyed: false, keySecret: masking}}"),
        SECRET,
    ]);
    assert!(problems(&both)[0].contains("`keyed` must be"), "{:?}", problems(&both));
}

#[test]
fn lists_and_expressions_without_bound_are_refused() {
    let list = (0..100_000)
        .map(|number| number.to_string())
        .collect::<Vec<_>>()
        .join(",");
    let chain = (0..100_000)
        .map(|number| format!("id={number}"))
        .collect::<Vec<_>>()
        .join(" or ");
    let deep = format!("{}id = 1{}", "(".repeat(20_000), ")".repeat(20_000));
    let nots = format!("{} true", "not ".repeat(20_000));
    let cases = [1000, 5000].map(|count| format!("case {} end", "when id = 1 then true ".repeat(count)));
    for (filter, expected) in [
        (
            format!("[{{column: id, operator: in, value: [{list}]}}]"),
            "a list has 100000 values; at most 10000",
        ),
        (
            format!("[{{column: id, operator: not_in, value: [{list}]}}]"),
            "a list has 100000 values; at most 10000",
        ),
        (format!("[{{expression: 'id in ({list})'}}]"), "longer than 256 KiB"),
        (format!("[{{expression: '{chain}'}}]"), "longer than 256 KiB"),
        (
            format!(
                "[{{expression: '{}'}}]",
                &chain[..200_000].trim_end_matches(|c| c != ' ')
            ),
            "more than 1000 operators",
        ),
        (format!("[{{expression: '{deep}'}}]"), ""),
        (format!("[{{expression: '{nots}'}}]"), "more than 1000 operators"),
        (format!("[{{expression: '{}'}}]", cases[0]), ""),
        (format!("[{{expression: '{}'}}]", cases[1]), "more than 1000 operators"),
    ] {
        let found = problems(&filter_policy("p", &filter));
        let start: String = filter.chars().take(40).collect();
        let said: Vec<String> = found.iter().map(|found| found.chars().take(200).collect()).collect();
        assert!(
            expected.is_empty() || said.iter().any(|found| found.contains(expected)),
            "{start}: {said:?}"
        );
    }
    // The longest list that may stand there is decided about in no long time.
    let list = (0..10_000)
        .map(|number| number.to_string())
        .collect::<Vec<_>>()
        .join(",");
    let long = rules(&documents(&[
        EVERYTHING,
        &filter_policy("p", &format!("[{{column: id, operator: in, value: [{list}]}}]")),
    ]));
    let explanation = explain(&long, &person("tom", &[]), &table(), &columns());
    assert!(explanation.closed.is_none() && explanation.filters.len() == 1);
}

#[test]
fn names_in_an_expression_are_columns_and_built_in_functions_only() {
    for (expression, expected) in [
        ("customer.id = 1", "customer.id"),
        ("crm.public.customer.id = 1", "crm.public.customer.id"),
        ("id = @setting", "@setting"),
        ("my_function(id) = 1", "my_function"),
        ("count(id) = 1", "count"),
        ("row_number() over () = 1", "a window function cannot stand in a policy"),
        ("exists (select 1)", "a subquery cannot stand in a policy"),
        ("id in (select id from t)", "a subquery cannot stand in a policy"),
        ("now() > born", "answers differently each time"),
        ("random() > 0.5", "answers differently each time"),
        ("id = current_date", "current_date"),
    ] {
        let yaml = documents(&[
            EVERYTHING,
            &filter_policy("p", &format!("[{{expression: \"{expression}\"}}]")),
        ]);
        let found = problems(&yaml).join("\n");
        let found = if found.is_empty() {
            crate::testing::closed(&rules(&yaml), &person("tom", &[]), &columns())
        } else {
            found
        };
        assert!(found.contains(expected), "{expression}: {found}");
    }
}

//! Which mask wins where: priorities, ties, inheritance of tags, nested fields, what closes a table, explanations.

use std::time::Instant;

use datafusion::arrow::datatypes::{DataType, Field};
use minerva_resources::Address;

use crate::testing::{
    EVERYTHING, SECRET, allowed, closed, documents, filter_policy, mask_policy, person, problems, resources, rules,
    schema, table,
};
use crate::{Governance, Verdict, advise, decide, explain};

const ALL: &str = "users:id:**";

fn tagged(address: &str, tags: &str, columns: &str) -> String {
    let name = address.replace(|character: char| !character.is_ascii_alphanumeric(), "");
    format!(
        "name: {name}\nversion: v1\ntype: dataset\ndataset: {{address: '{address}', tags: {tags}, columns: {columns}}}"
    )
}

fn depot() -> &'static str {
    "name: crm\nversion: v1\ntype: depot\ntags: [Depot.Tag]\ndepot: {type: MEMORY, spec: {}}"
}

/// `column: mask by policy` for each mask.
fn masks(governance: &Governance) -> Vec<String> {
    let line = |mask: &crate::ColumnMask| {
        format!(
            "{}: {} by {}",
            mask.path.join("."),
            mask.mask.describe(),
            mask.because.name
        )
    };
    governance.masks.iter().map(line).collect()
}

#[test]
fn lowest_number_wins_and_a_mask_beats_an_exemption_on_a_tie() {
    let email = "{names: [email]}";
    let columns = schema(&[("email", DataType::Utf8), ("age", DataType::Int64)]);
    let nullify = mask_policy("weak", 90, ALL, email, "{operator: nullify}");
    let redact = mask_policy("strong", 10, ALL, email, "{operator: redact}");
    let exempt = mask_policy("exempt", 10, "roles:id:steward", email, "{operator: pass_through}");
    let outranks = mask_policy("outranks", 5, "roles:id:steward", email, "{operator: pass_through}");
    let same = mask_policy("same", 10, ALL, email, "{operator: redact}");
    for (policies, expected) in [
        (vec![&nullify], vec!["email: nullify by weak"]),
        (vec![&nullify, &redact], vec!["email: redact by strong"]),
        (vec![&nullify, &redact, &exempt], vec!["email: redact by strong"]),
        (vec![&nullify, &redact, &outranks], vec![]),
        (vec![&same, &redact], vec!["email: redact by same"]),
    ] {
        let yaml: Vec<&str> = [EVERYTHING]
            .into_iter()
            .chain(policies.iter().map(|policy| policy.as_str()))
            .collect();
        let governance = allowed(
            &rules(&documents(&yaml)),
            &person("sue", &["roles:id:steward"]),
            &columns,
        );
        assert_eq!(masks(&governance), expected);
        assert_eq!(governance.is_open(), expected.is_empty());
    }
}

#[test]
fn ties_are_refused_where_seen_and_close_the_table_where_not() {
    let left = mask_policy("left", 7, "roles:id:a", "{names: [email]}", "{operator: nullify}");
    let right = mask_policy("right", 7, "roles:id:b", "{tags: [PII.Email]}", "{operator: redact}");
    let tags = tagged(
        "dataos://crm:public/customer",
        "[]",
        "[{name: Email, tags: [PII.Email]}]",
    );
    let unseen = documents(&[EVERYTHING, depot(), &left, &right, &tags]);
    assert_eq!(problems(&unseen), Vec::<String>::new());
    let columns = schema(&[("email", DataType::Utf8)]);
    let message = closed(&rules(&unseen), &person("tom", &["roles:id:a", "roles:id:b"]), &columns);
    assert!(
        message.contains("`left` (test.yaml:") && message.contains("`right` (test.yaml:"),
        "{message}"
    );
    assert!(message.contains("column `email`"), "{message}");
    assert_eq!(
        masks(&allowed(&rules(&unseen), &person("tom", &["roles:id:a"]), &columns)),
        ["email: nullify by left"]
    );

    // A declared user who meets both shows the conflict; so do selectors that say the same.
    let user = "name: tom\nversion: v1\ntype: user\nuser: {tags: [roles:id:a, roles:id:b]}";
    let found = problems(&documents(&[&unseen, user]));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("`left` and `right` have priority 7") && found[0].contains("`Email`"),
        "{found:?}"
    );
    let other = mask_policy("other", 7, "roles:id:*", "{names: [EMAIL]}", "{operator: redact}");
    assert_eq!(problems(&documents(&[&left, &other])).len(), 1);
    let apart = other.replace("selector:", "depot: hr\n    selector:");
    let here = left.replace("selector:", "depot: crm\n    selector:");
    let hr = "name: hr\nversion: v1\ntype: depot\ndepot: {type: MEMORY, spec: {}}";
    assert_eq!(
        problems(&documents(&[depot(), hr, &here, &apart])),
        Vec::<String>::new()
    );
}

#[test]
fn tags_are_inherited_down_to_the_last_field() {
    let city = Field::new("city", DataType::Utf8, true);
    let zip = Field::new("zip", DataType::Int32, true);
    let address = DataType::Struct(vec![city, zip].into());
    let columns = schema(&[("address", address), ("name", DataType::Utf8)]);
    let city_first = vec!["address.city: redact by p"];
    for (manifest, tag, expected) in [
        (
            tagged("dataos://crm", "[T]", "[]"),
            "T",
            vec!["address: redact by p", "name: redact by p"],
        ),
        (
            tagged("dataos://crm:public", "[T]", "[]"),
            "T",
            vec!["address: redact by p", "name: redact by p"],
        ),
        (
            tagged("dataos://crm:public/customer", "[T.x]", "[]"),
            "T.*",
            vec!["address: redact by p", "name: redact by p"],
        ),
        (
            tagged("dataos://crm:public/customer", "[]", "[{name: address, tags: [T]}]"),
            "T",
            vec!["address: redact by p"],
        ),
        (
            tagged(
                "dataos://crm:public/customer",
                "[]",
                "[{name: Address.City, tags: [T]}]",
            ),
            "T",
            city_first,
        ),
        (tagged("dataos://crm:other", "[T]", "[]"), "T", vec![]),
        (
            tagged("dataos://crm:public/customer", "[T]", "[]"),
            "Depot.Tag",
            vec!["address: redact by p", "name: redact by p"],
        ),
    ] {
        let policy = mask_policy("p", 50, ALL, &format!("{{tags: ['{tag}']}}"), "{operator: redact}");
        let rules = rules(&documents(&[EVERYTHING, depot(), &manifest, &policy]));
        assert_eq!(
            masks(&allowed(&rules, &person("tom", &[]), &columns)),
            expected,
            "{manifest} {tag}"
        );
    }
}

#[test]
fn a_field_may_be_shown_while_the_rest_is_masked() {
    let fields = vec![
        Field::new("city", DataType::Utf8, true),
        Field::new("zip", DataType::Utf8, true),
    ];
    let columns = schema(&[("address", DataType::Struct(fields.into()))]);
    let whole = mask_policy("whole", 90, ALL, "{names: [address]}", "{operator: redact}");
    let city = mask_policy("city", 10, ALL, "{names: [address.city]}", "{operator: pass_through}");
    let rules = rules(&documents(&[EVERYTHING, &whole, &city]));
    assert_eq!(
        masks(&allowed(&rules, &person("tom", &[]), &columns)),
        ["address.zip: redact by whole"]
    );
}

#[test]
fn what_cannot_be_applied_closes_the_table() {
    let columns = schema(&[("email", DataType::Utf8), ("age", DataType::Int64)]);
    let hash_age = mask_policy("hash-age", 5, ALL, "{names: [age]}", "{operator: hash}");
    let local = mask_policy("local", 5, ALL, "{names: [emial]}", "{operator: nullify}")
        .replace("selector:", "dataset_id: crm.public.customer\n    selector:");
    let region = "[{column: email, operator: equals, value: '${user.attributes.region}'}]";
    for (policy, expected) in [
        (
            hash_age,
            "mask `hash` does not fit column `age` of type `Int64`: expected a column of text",
        ),
        (local, "there is no column `emial`; did you mean `email`?"),
        (
            filter_policy("gone", "[{column: emails, operator: is_null}]"),
            "no column `emails`; did you mean `email`?",
        ),
        (
            filter_policy("kind", "[{column: age, value: x}]"),
            "column `age` of type `Int64`: expected a value of type `Int64`, not `x`",
        ),
        (
            filter_policy("quote", "[{column: email, value: 7}]"),
            "expected a text, not 7; write it in quotes",
        ),
        (filter_policy("lacks", region), "the user has no `attributes.region`"),
        (filter_policy("sql", "[{expression: 'nobody = 1'}]"), "nobody"),
        (
            filter_policy("number", "[{expression: 'age + 1'}]"),
            "is of type `Int64`; a filter must be true or false",
        ),
    ] {
        let message = closed(
            &rules(&documents(&[EVERYTHING, depot(), &policy])),
            &person("tom", &[]),
            &columns,
        );
        assert!(
            message.starts_with("table `dataos://crm:public/customer` is closed: policy `"),
            "{message}"
        );
        assert!(message.contains(expected), "{message}");
    }
}

/// A dataset manifest about `address` with these keys besides.
fn dataset(address: &str, keys: &str) -> String {
    let name = address.replace(|character: char| !character.is_ascii_alphanumeric(), "");
    format!("name: {name}\nversion: v1\ntype: dataset\ntags: [Head.Tag]\ndataset: {{address: '{address}', {keys}}}")
}

#[test]
fn unclassified_columns_follow_the_nearest_rule() {
    let columns = schema(&[
        ("id", DataType::Int64),
        ("email", DataType::Utf8),
        ("ssn", DataType::Utf8),
        ("name", DataType::Utf8),
    ]);
    let customer = "dataos://crm:public/customer";
    let only_tags = "columns: [{name: email, tags: [PII.Email]}]";
    let inventory = "columns: [{name: id}, {name: Email, tags: [PII.Email]}, {name: name.first}]";
    let masked = vec!["id", "name", "ssn"];
    let deny = |address, columns: &str| dataset(address, &format!("unclassified: deny, columns: [{columns}]"));
    let (allow_all, mask_all) = ("unclassified: allow", "unclassified: mask");
    for (manifests, hidden, redacted) in [
        (vec![], vec![], vec![]),
        // Tags on columns are no inventory; a column without one makes the list one.
        (vec![dataset(customer, only_tags)], vec![], vec![]),
        (vec![dataset(customer, inventory)], vec!["ssn"], vec![]),
        (
            vec![deny(customer, "{name: id, tags: [T]}, {name: email, tags: [T]}")],
            vec!["ssn", "name"],
            vec![],
        ),
        (
            vec![
                dataset("dataos://crm:public", "unclassified: deny"),
                dataset(customer, only_tags),
            ],
            vec!["id", "ssn", "name"],
            vec![],
        ),
        (
            vec![dataset("dataos://crm", mask_all), dataset(customer, only_tags)],
            vec![],
            masked.clone(),
        ),
        // The nearest manifest that says something decides.
        (
            vec![
                dataset("dataos://crm", "unclassified: deny"),
                dataset("dataos://crm:public", mask_all),
                dataset(customer, only_tags),
            ],
            vec![],
            masked.clone(),
        ),
        (
            vec![
                dataset("dataos://crm:public", "unclassified: deny"),
                dataset(customer, &format!("{inventory}, {allow_all}")),
            ],
            vec![],
            vec![],
        ),
        (
            vec![dataset("dataos://crm:public", mask_all), dataset(customer, inventory)],
            vec![],
            vec!["ssn"],
        ),
        (
            vec![dataset("dataos://crm:other", "unclassified: deny")],
            vec![],
            vec![],
        ),
    ] {
        let mut yaml = vec![EVERYTHING, depot()];
        yaml.extend(manifests.iter().map(String::as_str));
        let rules = rules(&documents(&yaml));
        let governance = allowed(&rules, &person("tom", &[]), &columns);
        let found: Vec<_> = governance.hidden.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(found, hidden, "{manifests:?}");
        let mut found: Vec<_> = governance.masks.iter().map(|mask| mask.column()).collect();
        found.sort_unstable();
        assert_eq!(found, redacted, "{manifests:?}");
        assert_eq!(governance.is_open(), hidden.is_empty() && redacted.is_empty());
        assert_eq!(governance.fingerprint.is_empty(), governance.is_open());
        // Operators see what is to be classified, and are masked as everybody is.
        let operator = allowed(&rules, &person("root", &["roles:id:operator"]), &columns);
        assert_eq!((operator.hidden.len(), operator.masks.len()), (0, redacted.len()));
    }
    // Nothing of the table is classified: it does not exist.
    let all = dataset("dataos://crm:public", "unclassified: deny");
    let nothing = rules(&documents(&[EVERYTHING, depot(), &all]));
    assert!(matches!(
        decide(&nothing, &person("tom", &[]), &table(), &columns),
        Verdict::Deny(_)
    ));
    // Every other mask outranks that of unclassified columns, an exemption too.
    let mask = dataset("dataos://crm:public", "unclassified: mask");
    let shown = mask_policy("shown", 100, ALL, "{names: [id]}", "{operator: pass_through}");
    let hashed = mask_policy("hashed", 100, ALL, "{names: [name]}", "{operator: hash}");
    let outranked = rules(&documents(&[EVERYTHING, depot(), &mask, &shown, &hashed]));
    assert_eq!(
        masks(&allowed(&outranked, &person("tom", &[]), &columns)),
        [
            "email: redact by unclassified of dataoscrmpublic",
            "ssn: redact by unclassified of dataoscrmpublic",
            "name: hash(algo: sha256) by hashed",
        ]
    );
    let found = problems(&documents(&[
        depot(),
        &dataset("dataos://crm:public", "unclassified: mask-it"),
    ]));
    assert!(
        found[0].contains("`unclassified` is `mask-it`; expected one of `allow`, `mask`, `deny`"),
        "{found:?}"
    );
}

#[test]
fn a_filter_reads_columns_that_the_user_cannot() {
    let columns = schema(&[("id", DataType::Int64), ("region", DataType::Utf8)]);
    let manifest = dataset("dataos://crm:public/customer", "columns: [{name: id}]");
    let filter = filter_policy(
        "eu",
        "[{column: region, value: EU}, {expression: \"lower(region) = 'eu'\"}]",
    );
    let rules = rules(&documents(&[EVERYTHING, depot(), &manifest, &filter]));
    let governance = allowed(&rules, &person("tom", &[]), &columns);
    assert!(governance.hides("region") && governance.filters.len() == 1);
}

#[test]
fn a_tag_on_a_column_that_is_gone_closes_the_table_and_one_on_a_head_counts() {
    let columns = schema(&[("mail", DataType::Utf8), ("note", DataType::Utf8)]);
    let manifest = dataset(
        "dataos://crm:public/customer",
        "columns: [{name: email, tags: [PII.Email]}]",
    );
    let policy = |tag: &str| {
        mask_policy(
            "p",
            5,
            "roles:id:a",
            &format!("{{tags: [{tag}]}}"),
            "{operator: redact}",
        )
    };
    let gone = rules(&documents(&[EVERYTHING, depot(), &manifest, &policy("PII.Email")]));
    let message = closed(&gone, &person("tom", &["roles:id:a"]), &columns);
    assert!(
        message.contains("there is no column `email`, to which dataset `dataoscrmpubliccustomer`"),
        "{message}"
    );
    assert!(
        allowed(&gone, &person("ann", &[]), &columns).is_open(),
        "the policy is not about her"
    );
    let head = rules(&documents(&[
        EVERYTHING,
        depot(),
        &dataset("dataos://crm:public", "tags: []"),
        &policy("Head.Tag"),
    ]));
    assert_eq!(allowed(&head, &person("tom", &["roles:id:a"]), &columns).masks.len(), 2);
}

#[test]
fn what_cannot_be_taken_apart_is_masked_as_a_whole() {
    let inner = Field::new(
        "item",
        DataType::Struct(vec![Field::new("email", DataType::Utf8, true)].into()),
        true,
    );
    let columns = schema(&[
        ("people", DataType::ListView(inner.into())),
        ("contact", DataType::Utf8),
    ]);
    for selected in ["{names: [people.element.email, contact.email]}", "{tags: [PII.Email]}"] {
        let manifest = tagged(
            "dataos://crm:public/customer",
            "[]",
            "[{name: people.element.email, tags: [PII.Email]}, {name: contact.email, tags: [PII.Email]}]",
        );
        let policy = mask_policy("p", 5, ALL, selected, "{operator: redact}");
        let rules = rules(&documents(&[EVERYTHING, depot(), &manifest, &policy]));
        assert_eq!(
            masks(&allowed(&rules, &person("tom", &[]), &columns)),
            ["people: redact by p", "contact: redact by p"]
        );
    }
}

#[test]
fn policies_are_about_datasets_by_tag_wherever_it_is_inherited_from() {
    let columns = schema(&[("email", DataType::Utf8), ("region", DataType::Utf8)]);
    let of_tag = |policy: String| policy.replace("selector:", "selector:\n      dataset: {tags: ['Tenant.*']}");
    let of_tag = |policy: String| match policy.contains("type: filter") {
        true => policy.replace("selector: {", "selector: {dataset: {tags: ['Tenant.*']}, "),
        false => of_tag(policy),
    };
    let mask = of_tag(mask_policy("m", 5, ALL, "{names: [email]}", "{operator: redact}"));
    let filter = of_tag(filter_policy("f", "[{column: region, value: EU}]"));
    for (manifest, is_about) in [
        (dataset("dataos://crm", "tags: [Tenant.A]"), true),
        (dataset("dataos://crm:public", "tags: [Tenant.A]"), true),
        (dataset("dataos://crm:public/customer", "tags: [Tenant.A]"), true),
        (dataset("dataos://crm:public/customer", "tags: [Tenants]"), false),
        (dataset("dataos://crm:public/other", "tags: [Tenant.A]"), false),
        (
            dataset(
                "dataos://crm:public/customer",
                "columns: [{name: email, tags: [Tenant.A]}]",
            ),
            false,
        ),
    ] {
        let rules = rules(&documents(&[EVERYTHING, depot(), &manifest, &mask, &filter]));
        let governance = allowed(&rules, &person("tom", &[]), &columns);
        let found = (governance.masks.len(), governance.filters.len());
        assert_eq!(found, if is_about { (1, 1) } else { (0, 0) }, "{manifest}");
    }
}

#[test]
fn user_tags_are_matched_any_or_all() {
    let columns = schema(&[("email", DataType::Utf8)]);
    for (how, expected) in [("any", [true, true, true, false]), ("all", [true, false, false, false])] {
        let policy = mask_policy("p", 5, ALL, "{names: [email]}", "{operator: redact}").replace(
            &format!("tags: ['{ALL}']"),
            &format!("match: {how}, tags: ['roles:id:a*', 'roles:id:b']"),
        );
        let rules = rules(&documents(&[EVERYTHING, &policy]));
        let people = [
            &["roles:id:ab", "roles:id:b"][..],
            &["roles:id:b"],
            &["roles:id:a"],
            &["roles:id:c"],
        ];
        let masked = people.map(|tags| !allowed(&rules, &person("tom", tags), &columns).masks.is_empty());
        assert_eq!(masked, expected, "{how}");
    }
}

#[test]
fn wrong_policies_are_refused_with_file_line_and_suggestion() {
    for (mask, expected) in [
        (
            "{operator: hsh}",
            "unknown mask operator `hsh`; did you mean `hash`? (test.yaml:12)",
        ),
        (
            "{operator: hash, hash: {algorithm: sha256}}",
            "unknown parameter `algorithm`",
        ),
        ("{operator: hash, hash: {algo: md5}}", "`algo` must be `sha256`"),
        (
            "{operator: hash, hash: {keySecret: maskin}}",
            "there is no secret `maskin`; did you mean `masking`?",
        ),
        ("{operator: tokenize}", "mask `tokenize` needs `keySecret`"),
        (
            "{operator: bucket_number, bucket_number: {buckets: []}}",
            "`buckets` must be a list of at least one number",
        ),
        (
            "{operator: bucket_date, bucket_date: {precision: mnth}}",
            "did you mean `month`?",
        ),
        (
            "{operator: regex_replace, regex_replace: {pattern: '('}}",
            "`pattern` must be a regular expression",
        ),
        ("{operator: partial}", "mask `partial` needs `keep_first`"),
        (
            "{operator: partial, partial: {keep_first: -1}}",
            "`keep_first` must be a whole number",
        ),
        (
            "{operator: expression, expression: {sql: 'upper(value'}}",
            "`sql` must be a SQL expression",
        ),
        (
            "{operator: expression, expression: '(select 1)'}",
            "a subquery cannot stand in a policy",
        ),
        (
            "{operator: constant, constant: {value: [1]}}",
            "`value` must be a single value",
        ),
        ("{operator: nullify, nullify: {a: 1}}", "this mask has no parameters"),
    ] {
        let policy = mask_policy("p", 5, ALL, "{names: [email]}", mask);
        let found = problems(&documents(&[&policy, SECRET]));
        assert!(found.len() == 1 && found[0].contains(expected), "{mask}: {found:?}");
    }
    for (filters, expected) in [
        ("[{expression: 'a = 1; drop'}]", "unexpected `;` after the expression"),
        (
            "[{expression: 'a in (select 1)'}]",
            "a subquery cannot stand in a policy",
        ),
        ("[{expression: 'a is distinct from b and c'}]", "into parentheses"),
        ("[{expression: 'a = ${user.name}'}]", "`${user.name}` is not"),
        ("[{expression: 'a = 1 -- x'}]", "a comment cannot stand in a policy"),
        (
            "[{column: a, value: '${user.attributes.}'}]",
            "`${user.attributes.}` is not",
        ),
    ] {
        let found = problems(&filter_policy("p", filters));
        assert!(
            found.iter().any(|problem| problem.contains(expected)),
            "{filters}: {found:?}"
        );
    }
}

#[test]
fn hashes_without_a_key_are_advised_against() {
    let plain = mask_policy("plain", 5, ALL, "{names: [a]}", "{operator: hash}");
    let keyed = mask_policy(
        "keyed",
        6,
        ALL,
        "{names: [a]}",
        "{operator: hash, hash: {keySecret: masking}}",
    );
    let advice = advise(&resources(&documents(&[&plain, &keyed, SECRET])));
    assert_eq!(advice.len(), 1);
    assert!(
        advice[0].to_string().contains("policy `plain` hashes without a key"),
        "{}",
        advice[0]
    );
}

#[test]
fn operators_are_masked_and_strangers_denied() {
    let policy = mask_policy("p", 5, ALL, "{names: [email]}", "{operator: nullify}");
    let rules = rules(&policy);
    let columns = schema(&[("email", DataType::Utf8)]);
    assert_eq!(
        masks(&allowed(&rules, &person("root", &["roles:id:operator"]), &columns)),
        ["email: nullify by p"]
    );
    assert!(matches!(
        decide(&rules, &person("tom", &[]), &table(), &columns),
        Verdict::Deny(_)
    ));
}

#[test]
fn a_decision_depends_on_who_asks_and_on_the_schema_it_is_asked_for() {
    let region = filter_policy("region", "[{column: region, value: '${user.attributes.region}'}]");
    let rules = rules(&documents(&[EVERYTHING, &region]));
    let text = schema(&[("region", DataType::Utf8)]);
    let view = schema(&[("region", DataType::Utf8View)]);
    let (eu, us) = (person("tom", &["region=EU"]), person("ann", &["region=US"]));
    let of = |governance: Governance| governance.filters[0].predicate.to_string();
    assert_eq!(of(allowed(&rules, &eu, &text)), "region = Utf8(\"EU\")");
    assert_eq!(of(allowed(&rules, &us, &text)), "region = Utf8(\"US\")");
    assert_eq!(of(allowed(&rules, &eu, &view)), "region = Utf8View(\"EU\")");
    let fingerprints = [&eu, &us].map(|person| allowed(&rules, person, &text).fingerprint);
    assert_ne!(fingerprints[0], fingerprints[1]);
    assert_eq!(allowed(&rules, &eu, &text).fingerprint, fingerprints[0]);
}

#[test]
fn an_explanation_names_winner_losers_filters_and_denial() {
    let yaml = documents(&[
        EVERYTHING,
        &mask_policy("weak", 90, ALL, "{names: [email]}", "{operator: hash}"),
        &mask_policy("strong", 10, ALL, "{names: [email]}", "{operator: redact}"),
        &filter_policy("adults", "[{column: age, operator: greater_than_equals, value: 18}]"),
    ]);
    let columns = schema(&[("email", DataType::Utf8), ("age", DataType::Int64)]);
    let rules = rules(&yaml);
    let text = explain(&rules, &person("tom", &[]), &table(), &columns).to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "user `tom` may read `dataos://crm:public/customer` because of policy `everything` (test.yaml:2)",
            "rows: only where age >= 18 -- policy `adults` (test.yaml:42)",
            "column `email`: redact -- policy `strong` (test.yaml:28), priority 10",
            "    outranked: hash(algo: sha256) -- policy `weak` (test.yaml:14), priority 90: priority 90 is weaker than 10",
            "column `age`: as it is",
        ]
    );
}

/// Not a benchmark, but a guard: a decision among a thousand policies must not become slow by an order.
#[test]
fn a_decision_among_a_thousand_policies_is_fast() {
    let mut yaml = vec![EVERYTHING.to_owned(), depot().to_owned()];
    for index in 0..500 {
        let (priority, tag) = (
            index % 100 + 1,
            format!("{{tags: ['Group{index}.*'], names: [column{index}]}}"),
        );
        yaml.push(mask_policy(
            &format!("m{index}"),
            priority,
            &format!("roles:id:r{}", index % 50),
            &tag,
            "{operator: redact}",
        ));
        let filter = format!(
            "[{{column: column{}, operator: not_equals, value: v{index}}}]",
            index % 20
        );
        let filter = filter_policy(&format!("f{index}"), &filter).replace(ALL, &format!("roles:id:r{}", index % 100));
        yaml.push(filter);
    }
    let yaml: Vec<&str> = yaml.iter().map(String::as_str).collect();
    let rules = rules(&documents(&yaml));
    let names: Vec<String> = (0..20).map(|index| format!("column{index}")).collect();
    let columns = schema(
        &names
            .iter()
            .map(|name| (name.as_str(), DataType::Utf8))
            .collect::<Vec<_>>(),
    );
    let person = person("tom", &["roles:id:r7", "roles:id:user"]);
    let governance = allowed(&rules, &person, &columns);
    assert_eq!((governance.masks.len(), governance.filters.len()), (1, 5));
    let round = |_| {
        let started = Instant::now();
        for _ in 0..100 {
            assert!(matches!(decide(&rules, &person, &table(), &columns), Verdict::Allow(_)));
        }
        started.elapsed() / 100
    };
    let each = (0..20).map(round).min().unwrap();
    println!("a decision among 1000 policies: {each:?}");
    let other = Address::new("crm", "public", "other");
    let started = Instant::now();
    assert!(matches!(decide(&rules, &person, &other, &columns), Verdict::Allow(_)));
    println!("the first one for a table: {:?}", started.elapsed());
    assert!(each.as_micros() < 500, "{each:?}");
}

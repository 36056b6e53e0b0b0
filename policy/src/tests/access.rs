//! Who may select what, see what in listings, and use which cluster.

use minerva_resources::Address;

use crate::testing::{documents, person, resources, rules};
use crate::{Object, Rules};

fn policy(name: &str, subjects: &str, predicates: &str, objects: &str, allow: bool) -> String {
    format!(
        "
name: {name}
version: v1
type: policy
policy:
  access:
    subjects: {{tags: {subjects}}}
    predicates: {predicates}
    objects: {objects}
    allow: {allow}
"
    )
}

fn crm() -> Rules {
    let dataset = "
name: gold
version: v1
type: dataset
dataset: {address: 'dataos://shop:sales/order', tags: [DPTier.Gold]}
---
name: shop
version: v1
type: depot
depot: {type: MEMORY, description: a shop, spec: {}}
";
    rules(&documents(&[
        dataset,
        &policy(
            "crm",
            "[['roles:id:analyst', 'roles:id:user']]",
            "[select]",
            "{paths: ['dataos://crm:public/*']}",
            true,
        ),
        &policy(
            "not-pay",
            "['roles:id:user']",
            "['**']",
            "{paths: ['dataos://crm:public/pay*']}",
            false,
        ),
        &policy(
            "by-tag",
            "['users:id:tom']",
            "[select]",
            "{tags: ['dataos:system:minerva:table:hr:**']}",
            true,
        ),
        &policy("gold", "['roles:id:gold']", "[sel*]", "{tags: [[DPTier.Gold]]}", true),
        &policy(
            "none-of-hr",
            "['roles:id:intern']",
            "[select]",
            "{paths: ['dataos://hr:**']}",
            false,
        ),
        &policy(
            "cluster",
            "['roles:id:user']",
            "[read]",
            "{tags: ['dataos:resource:cluster:{small,tiny}']}",
            true,
        ),
    ]))
}

#[test]
fn default_is_deny_and_a_deny_beats_any_allow() {
    let rules = crm();
    let analyst = ["roles:id:analyst", "roles:id:user"];
    for (tags, address, allowed, because) in [
        (&analyst[..], "dataos://crm:public/customer", true, "crm"),
        (&analyst[..1], "dataos://crm:public/customer", false, ""),
        (&analyst[..], "dataos://crm:public/payroll", false, "not-pay"),
        (&analyst[..], "dataos://crm:secret/customer", false, ""),
        (&analyst[..], "dataos://crm:public/a/b", false, ""),
        (&[], "dataos://hr:public/staff", true, "by-tag"),
        (&["roles:id:intern"], "dataos://hr:public/staff", false, "none-of-hr"),
        (&["roles:id:gold"], "dataos://shop:sales/order", true, "gold"),
        (&["roles:id:gold"], "dataos://shop:sales/other", false, ""),
        (
            &["roles:id:operator", "roles:id:intern"],
            "dataos://hr:public/staff",
            true,
            "",
        ),
    ] {
        let address: Address = address.parse().unwrap_or_else(|_| Address::new("crm", "public", "a/b"));
        let decision = rules.may_select(&person("tom", tags), &address);
        let names: Vec<_> = decision.because.iter().map(|policy| policy.name.as_str()).collect();
        assert_eq!(
            (decision.allowed, names.join(" ").as_str()),
            (allowed, because),
            "{tags:?} {address}"
        );
    }
}

#[test]
fn predicates_and_clusters() {
    let rules = crm();
    let jane = person("jane", &["roles:id:user"]);
    assert!(rules.may_use_cluster(&jane, "small").allowed);
    assert!(!rules.may_use_cluster(&jane, "large").allowed);
    let object = Object {
        paths: vec!["dataos://crm:public/customer".to_owned()],
        tags: vec![],
    };
    assert!(
        !rules
            .authorize(
                &person("jane", &["roles:id:analyst", "roles:id:user"]),
                "delete",
                &object
            )
            .allowed
    );
}

#[test]
fn listings_show_only_what_may_hold_something() {
    let rules = crm();
    let tom = person("tom", &[]);
    assert!(rules.may_see_depot(&tom, "hr") && rules.may_see_collection(&tom, "hr", "public"));
    assert!(!rules.may_see_depot(&tom, "crm") && !rules.may_see_depot(&tom, "shop"));
    assert!(!rules.may_see_depot(&person("tom", &["roles:id:intern"]), "hr"));
    let gold = person("ann", &["roles:id:gold"]);
    assert!(rules.may_see_depot(&gold, "shop") && rules.may_see_collection(&gold, "shop", "sales"));
    assert!(!rules.may_see_depot(&gold, "hr"));
    let analyst = person("ann", &["roles:id:analyst", "roles:id:user"]);
    assert!(
        rules.may_see_collection(&analyst, "crm", "public") && !rules.may_see_collection(&analyst, "crm", "secret")
    );
}

/// A listing that says no must be right for every table: the same globs, asked both ways.
#[test]
fn a_listing_never_hides_a_table_that_may_be_read() {
    let globs = [
        "dataos://crm:public/**",
        "dataos://c*:public/customer",
        "dataos://**/customer",
        "dataos://{crm,hr}:public/*",
        "dataos://{crm:public,hr:x}/*",
        "dataos://{crm:{secret,pub*},hr:x}/cust*",
        "{dataos://crm:public/*,hr}",
        "dataos://{crm**,x}",
        "dataos://c?m:*/*",
        "dataos://[a-d]rm:pub*/cust*",
        "**",
        "dataos://crm:**",
        "dataos:**",
        "dataos://crm:public/customer",
    ];
    let address = Address::new("crm", "public", "customer");
    let tom = person("tom", &[]);
    for glob in globs {
        let yaml = policy(
            "one",
            "['users:id:tom']",
            "[select]",
            &format!("{{paths: ['{glob}']}}"),
            true,
        );
        let rules = Rules::compile(&resources(&yaml)).unwrap();
        assert!(rules.may_select(&tom, &address).allowed, "{glob}");
        assert!(
            rules.may_see_depot(&tom, "crm") && rules.may_see_collection(&tom, "crm", "public"),
            "{glob}"
        );
    }
}

#[test]
fn a_list_of_depots_shows_no_other_depot() {
    let tom = person("tom", &[]);
    for (names, glob) in [
        ("paths", "dataos://{crm,hr}:*/*"),
        ("paths", "dataos://{crm:*,hr:x}/*"),
        ("paths", "dataos://{crm:public/customer,hr:x/y}"),
        ("paths", "{dataos://crm:public/*,dataos://hr:x/*}"),
        ("paths", "dataos://crm**"),
        ("tags", "dataos:system:minerva:table:{crm:public:customer,hr:x:y}"),
        ("tags", "dataos:system:minerva:table:{crm:public:*,hr:x:y}"),
        ("tags", "dataos:system:minerva:table:crm**"),
    ] {
        let yaml = policy(
            "one",
            "['users:id:tom']",
            "[select]",
            &format!("{{{names}: ['{glob}']}}"),
            true,
        );
        let rules = Rules::compile(&resources(&yaml)).unwrap();
        let customer = rules.may_select(&tom, &Address::new("crm", "public", "customer"));
        assert!(
            customer.allowed && rules.may_see_depot(&tom, "crm") && rules.may_see_collection(&tom, "crm", "public"),
            "{glob}"
        );
        // What the name of a depot or collection begins with is another.
        for other in ["shop", "cr", "c", "h"] {
            assert!(!rules.may_see_depot(&tom, other), "{glob}: {other}");
        }
        if !glob.contains('*') {
            assert!(!rules.may_see_collection(&tom, "crm", "publi"), "{glob}");
        }
    }
}

/// Acting as somebody needs a policy that says `impersonate`; everything else, an operator's role included, is not enough.
#[test]
fn acting_as_somebody_is_allowed_in_so_many_words() {
    let rules = rules(&documents(&[
        &policy(
            "all",
            "['roles:id:all']",
            "['**']",
            "{tags: ['**'], paths: ['**']}",
            true,
        ),
        &policy(
            "desk",
            "['roles:id:desk']",
            "[impersonate]",
            "{tags: ['dataos:system:minerva:user:*']}",
            true,
        ),
        &policy(
            "lead",
            "['roles:id:lead']",
            "[impersonate]",
            "{tags: [['dataos:system:minerva:user:**', 'roles:id:team']]}",
            true,
        ),
        &policy(
            "not-vip",
            "['**']",
            "['**']",
            "{tags: ['dataos:system:minerva:user:vip']}",
            false,
        ),
    ]));
    let team = person("ann", &["roles:id:team"]);
    let (other, boss) = (person("bob", &[]), person("root", &["roles:id:operator"]));
    let may = |who: &[&str], as_whom: &crate::Principal| rules.impersonate(&person("me", who), as_whom).is_some();
    assert!(!may(&[], &team) && !may(&["roles:id:all"], &team) && !may(&["roles:id:operator"], &team));
    assert!(may(&["roles:id:desk"], &team) && may(&["roles:id:desk"], &other));
    assert!(may(&["roles:id:lead"], &team) && !may(&["roles:id:lead"], &other));
    assert!(!may(&["roles:id:desk"], &person("vip", &[])), "a policy denies");
    assert!(!may(&["roles:id:desk"], &boss), "nobody rises to an operator");
    assert!(may(&["roles:id:desk", "roles:id:operator"], &boss));
    let acting = rules.impersonate(&person("me", &["roles:id:desk"]), &team).unwrap();
    assert_eq!(
        (acting.id.as_str(), acting.impersonator.as_deref()),
        ("ann", Some("me"))
    );
    assert_eq!(acting.tags, team.tags);
    assert_eq!(acting.full_name(), "ann by me");
    let desk = person("desk", &["roles:id:desk"]);
    let first = rules.impersonate(&person("me", &["roles:id:desk"]), &desk).unwrap();
    assert!(rules.impersonate(&first, &team).is_none(), "no chains");
}

/// Who is denied `write`, or one of what writing is, is denied it by whatever name the thing goes.
#[test]
fn a_denial_of_writing_holds_for_columns_and_tags() {
    let dataset = "
name: customer
version: v1
type: dataset
dataset: {address: 'dataos://crm:public/customer', columns: [{name: email, tags: [PII.Email]}, {name: id}]}
";
    let shop = "name: crm\nversion: v1\ntype: depot\ndepot: {type: MEMORY, spec: {}}";
    let allow = policy(
        "all",
        "['users:**']",
        "[select, write]",
        "{paths: ['dataos://crm:**'], tags: [Some.Tag]}",
        true,
    );
    let table = "dataos://crm:public/customer";
    let email = "dataos://crm:public/customer/email";
    let tom = person("tom", &[]);
    for (predicates, objects, predicate, path, tags, expected) in [
        // By the path of a column.
        ("[write]", format!("{{paths: ['{email}']}}"), "insert", email, "", false),
        (
            "[write]",
            format!("{{paths: ['{email}']}}"),
            "update",
            "dataos://crm:public/customer/EMAIL",
            "",
            false,
        ),
        (
            "[insert]",
            format!("{{paths: ['{email}']}}"),
            "insert",
            email,
            "",
            false,
        ),
        ("[insert]", format!("{{paths: ['{email}']}}"), "update", email, "", true),
        (
            "[write]",
            format!("{{paths: ['{email}']}}"),
            "insert",
            "dataos://crm:public/customer/id",
            "",
            true,
        ),
        ("[write]", format!("{{paths: ['{email}']}}"), "insert", table, "", true),
        ("[write]", format!("{{paths: ['{email}']}}"), "select", email, "", true),
        // What removes a row removes all of it.
        ("[write]", format!("{{paths: ['{email}']}}"), "delete", table, "", false),
        ("[drop]", format!("{{paths: ['{email}']}}"), "drop", table, "", false),
        // By the tag of a column.
        (
            "[write]",
            "{tags: [[PII.Email, 'dataos:type:column']]}".to_owned(),
            "insert",
            email,
            "",
            false,
        ),
        (
            "[delete]",
            "{tags: [[PII.*, 'dataos:type:column']]}".to_owned(),
            "delete",
            email,
            "",
            false,
        ),
        (
            "[write]",
            "{tags: [PII.Email]}".to_owned(),
            "insert",
            "dataos://crm:public/customer/id",
            "",
            true,
        ),
        // By tags that are asked about.
        (
            "[write]",
            "{tags: [Some.Tag]}".to_owned(),
            "insert",
            table,
            "Some.Tag",
            false,
        ),
        ("[write]", "{tags: [Some.Tag]}".to_owned(), "insert", table, "", true),
        (
            "[write]",
            "{tags: [Some.Tag]}".to_owned(),
            "insert",
            email,
            "Some.Tag",
            false,
        ),
        (
            "[select]",
            "{tags: [Some.Tag]}".to_owned(),
            "select",
            email,
            "Some.Tag",
            false,
        ),
        (
            "[write]",
            "{tags: [Some.Tag]}".to_owned(),
            "insert",
            "",
            "Some.Tag",
            false,
        ),
        (
            "[update]",
            "{tags: [Some.Tag]}".to_owned(),
            "insert",
            "",
            "Some.Tag",
            true,
        ),
    ] {
        let deny = policy("deny", "['users:**']", predicates, &objects, false);
        let rules = rules(&documents(&[shop, dataset, &allow, &deny]));
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let object = Object {
            paths: words(path),
            tags: words(tags),
        };
        let decision = rules.decide_access(&tom, predicate, &object);
        assert_eq!(
            decision.allowed, expected,
            "{predicates} {objects}: {predicate} {path} {tags}"
        );
        assert!(
            rules
                .decide_access(&person("op", &["roles:id:operator"]), predicate, &object)
                .allowed
        );
        // What Heimdall says of a column, a statement meets.
        if let (Some(column), "") = (path.strip_prefix("dataos://crm:public/customer/"), tags) {
            let address = Address::new("crm", "public", "customer");
            let denied = rules.unwritable(&tom, predicate, &address, std::iter::once((column, vec![])));
            assert_eq!(denied.is_none(), expected, "{predicates} {objects}: {predicate} {path}");
        }
    }
}

/// What removes rows is denied with any of their columns, whether a manifest declares them or not.
#[test]
fn what_removes_a_table_removes_the_columns_that_policies_name() {
    let shop = "name: crm\nversion: v1\ntype: depot\ndepot: {type: MEMORY, spec: {}}";
    let allow = policy(
        "all",
        "['users:**']",
        "[select, write]",
        "{paths: ['dataos://crm:**'], tags: ['dataos:system:minerva:table:crm:**']}",
        true,
    );
    let tom = person("tom", &[]);
    for (predicates, objects, expected) in [
        ("[delete]", "{paths: ['dataos://crm:public/customer/ssn']}", false),
        ("[write]", "{paths: ['dataos://crm:public/customer/ssn']}", false),
        ("[delete]", "{paths: ['dataos://crm:*/{customer,sale}/ssn']}", false),
        ("[delete]", "{paths: ['dataos://**/ssn']}", false),
        ("[delete]", "{paths: ['dataos://crm:public/customer/s\\*n']}", false),
        // Every column there may be.
        ("[delete]", "{paths: ['dataos://crm:public/customer/*']}", false),
        ("[delete]", "{tags: ['dataos:type:column']}", false),
        // Another thing, another table, or everything but the rows.
        ("[insert]", "{paths: ['dataos://crm:public/customer/ssn']}", true),
        ("[delete]", "{paths: ['dataos://crm:public/sale/ssn']}", true),
        ("[delete]", "{paths: ['dataos://crm:public/customer/ssn/part']}", true),
    ] {
        let deny = policy("deny", "['users:**']", predicates, objects, false);
        let rules = rules(&documents(&[shop, &allow, &deny]));
        for (paths, tags) in [
            (vec!["dataos://crm:public/customer".to_owned()], vec![]),
            (
                vec![],
                vec!["dataos:system:minerva:table:crm:public:customer".to_owned()],
            ),
        ] {
            let decision = rules.decide_access(&tom, "delete", &Object { paths, tags });
            assert_eq!(decision.allowed, expected, "{predicates} {objects}");
        }
    }
    let others = policy(
        "deny",
        "['users:id:ann']",
        "[delete]",
        "{paths: ['dataos://crm:public/customer/ssn']}",
        false,
    );
    let rules = rules(&documents(&[shop, &allow, &others]));
    let object = Object {
        paths: vec!["dataos://crm:public/customer".to_owned()],
        tags: vec![],
    };
    assert!(rules.decide_access(&tom, "delete", &object).allowed, "it is about ann");
}

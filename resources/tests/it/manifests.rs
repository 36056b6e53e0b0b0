//! `tests/manifests`: what is good loads as a whole, what is bad gives every problem with its line.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use minerva_resources::{Address, FilterSpec, Limits, Problem, ResourceSet, Rule, Timeouts, Value, load};

use crate::{load_text, project};

fn good() -> ResourceSet {
    load(&[project("tests/manifests/good")], &[]).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn good_manifests_load() {
    let set = good();
    let names = |names: Vec<&str>| names.join(" ");
    assert_eq!(
        names(set.depots().map(|depot| depot.name()).collect()),
        "archive generated scratch shop"
    );
    assert_eq!(
        names(set.users().map(|user| user.id.as_str()).collect()),
        "jane robot-7"
    );
    assert_eq!(
        names(set.clusters().map(|cluster| cluster.meta.name.as_str()).collect()),
        "analytics small"
    );
    assert_eq!(set.datasets().count(), 3);
    assert_eq!((set.access_policies().len(), set.data_policies().len()), (2, 3));
}

#[test]
fn depots_have_their_settings_and_credentials() {
    let set = good();
    let shop = set.depot("shop").unwrap();
    assert_eq!(shop.depot_type, "sqlite");
    assert_eq!(shop.path("path").unwrap(), project("tests/manifests/good/shop/shop.db"));
    assert_eq!(shop.metadata_ttl, Some(Duration::ZERO));
    let (connect, query) = (Duration::from_millis(1500), Some(Duration::from_secs(5400)));
    assert_eq!(
        shop.timeouts,
        Timeouts {
            connect,
            query,
            ..Timeouts::default()
        }
    );
    let credential = |key: &str| shop.credentials.get(key).map(String::as_str);
    assert_eq!(credential("username"), Some("reader"));
    assert_eq!(credential("password"), Some("0123"));
    assert_eq!(credential("certificate"), Some("not a real certificate\n"));
    assert_eq!(
        credential("search"),
        None,
        "only two keys of the second secret are wanted"
    );
    let archive = set.depot("archive").unwrap();
    assert_eq!(archive.credentials.get("username").map(String::as_str), Some("reader"));
    assert_eq!(
        archive.credentials.get("password").map(String::as_str),
        Some("for-writing")
    );
    assert_eq!(archive.settings.text("format"), Some("PARQUET"));
    assert_eq!(set.depot("generated").unwrap().settings.number("scale"), Some(0.01));
    let written = format!("{set:?}");
    for hidden in ["for-writing", "0123", "not a real certificate"] {
        assert!(!written.contains(hidden), "`Debug` shows `{hidden}`");
    }
}

#[test]
fn policies_users_and_clusters_say_what_was_written() {
    let set = good();
    let reads = set
        .access_policies()
        .iter()
        .find(|policy| policy.meta.name == "everybody-reads")
        .unwrap();
    assert!(reads.allow && reads.subjects.matches(["roles:id:analyst"]) && !reads.subjects.matches(["roles:id:user"]));
    assert!(
        reads
            .paths
            .iter()
            .any(|glob| glob.matches("dataos://generated:tiny/lineitem"))
    );
    let rows = set
        .data_policies()
        .iter()
        .find(|policy| policy.meta.name == "rows")
        .unwrap();
    let Rule::Filter(filters) = &rows.rule else {
        panic!("not a filter")
    };
    let FilterSpec {
        column,
        operator,
        value,
        ..
    } = filters.first().unwrap();
    assert_eq!((column.as_deref(), operator.as_str()), (Some("region"), "equals"));
    assert_eq!(
        value.as_ref().unwrap().value,
        Value::Text("${user.attributes.region}".to_string())
    );
    assert_eq!(
        filters.last().unwrap().expression.as_deref(),
        Some("amount > 10 AND code LIKE '%$'")
    );
    assert!(rows.scope.dataset.is_literal() && rows.scope.dataset.matches("customer"));
    let email = set
        .data_policies()
        .iter()
        .find(|policy| policy.meta.name == "email")
        .unwrap();
    let Rule::Mask(mask) = &email.rule else {
        panic!("not a mask")
    };
    assert_eq!(
        (
            mask.operator.as_str(),
            mask.parameters.get("algo").and_then(|node| node.as_text())
        ),
        ("hash", Some("sha256"))
    );
    assert!(email.users.all && email.scope.depot.matches("anything") && email.priority == 99);

    let jane = set.user("jane").unwrap();
    assert_eq!(jane.tags, ["users:id:jane", "roles:id:user", "roles:id:steward"]);
    assert_eq!(jane.attributes.get("floor").map(String::as_str), Some("3"));
    assert_eq!(jane.apikeys.first().unwrap().expires, Some(1_798_761_600));
    let customer = set.dataset(&Address::new("shop", "main", "customer")).unwrap();
    assert_eq!((customer.owner.as_deref(), customer.columns.len()), (Some("jane"), 2));
    assert_eq!(
        customer
            .columns
            .first()
            .map(|column| (column.name.as_str(), column.line)),
        Some(("email", 19))
    );

    let analytics = set.cluster("analytics").unwrap();
    let expected = Limits {
        max_run_time: Some(Duration::from_secs(600)),
        max_execution_time: Some(Duration::from_secs(5400)),
        max_memory: Some(2 << 30),
        max_memory_per_node: Some(512 << 20),
        max_rows: Some(1_000_000),
        ..Limits::default()
    };
    assert_eq!(analytics.limits, expected);
    assert_eq!((analytics.replicas, analytics.depots.len()), (2, 2));
    assert!(set.cluster("small").unwrap().selector.is_none());
}

#[test]
fn a_worker_gets_depots_and_secrets_and_nothing_else() {
    let set = good();
    let sent = ResourceSet::from_coordinator(&set.to_worker().unwrap()).unwrap();
    assert_eq!(sent.fingerprint(), set.fingerprint());
    let (here, there) = (set.depot("shop").unwrap(), sent.depot("shop").unwrap());
    assert_eq!(
        (&here.credentials, &here.fingerprint, &here.base),
        (&there.credentials, &there.fingerprint, &there.base)
    );
    assert_eq!(here.path("path"), there.path("path"));
    assert_eq!(sent.depot("generated").unwrap().settings.number("scale"), Some(0.01));
    assert!(sent.secret("masks").is_some());
    assert_eq!(
        (
            sent.users().count(),
            sent.clusters().count(),
            sent.access_policies().len()
        ),
        (0, 0, 0)
    );
}

/// Each `bad/x.yaml` has its problems in `bad/x.expected`, a line each. MINERVA_WRITE_EXPECTED=1 writes them anew.
#[test]
fn bad_manifests_give_every_problem() {
    let folder = project("tests/manifests/bad");
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    assert!(files.len() > 10);
    for file in files {
        let problems = load(std::slice::from_ref(&file), &[]).expect_err(&file.display().to_string());
        let prefix = format!("{}/", folder.display());
        let shown: String = problems
            .0
            .iter()
            .map(|problem| format!("{problem}\n").replace(&prefix, ""))
            .collect();
        let expected = file.with_extension("expected");
        if std::env::var_os("MINERVA_WRITE_EXPECTED").is_some() {
            fs::write(&expected, &shown).unwrap();
        }
        let expected = fs::read_to_string(&expected).unwrap_or_default();
        assert_eq!(shown, expected, "{}", file.display());
        let in_order = problems.0.windows(2).all(|two| two[0].location <= two[1].location);
        assert!(in_order, "{}", file.display());
    }
}

#[test]
fn checks_of_others_are_heard_with_our_own() {
    fn no_depots(set: &ResourceSet) -> Vec<Problem> {
        set.depots()
            .map(|depot| Problem::new(depot.meta.location.clone(), "no depots here"))
            .collect()
    }
    let problems = load(&[project("tests/manifests/good")], &[no_depots]).unwrap_err();
    assert_eq!(problems.0.len(), 4);
    let missing = load(&[project("tests/manifests/nowhere")], &[]).unwrap_err();
    assert!(missing.to_string().starts_with("cannot read"), "{missing}");
}

#[test]
fn connectors_are_told_what_is_wrong_with_settings() {
    use minerva_resources::{Parameter, ParameterKind};
    let parameter = |name, kind, required, secret| Parameter {
        name,
        kind,
        required,
        default: None,
        secret,
        description: "",
    };
    let parameters = [
        parameter("path", ParameterKind::Path, true, false),
        parameter("format", ParameterKind::Choice(&["PARQUET", "CSV"]), false, false),
        parameter("port", ParameterKind::Integer, false, false),
        parameter("nodes", ParameterKind::List, false, false),
        parameter("user", ParameterKind::Text, false, false),
        parameter("password", ParameterKind::Text, true, true),
    ];
    let check = |spec: &str| {
        let set = load_text(&format!(
            "name: d\nversion: v1\ntype: depot\ndepot:\n  type: x\n  spec: {spec}\n"
        ))
        .unwrap();
        let problems = set.depot("d").unwrap().check(&parameters);
        problems
            .iter()
            .map(|problem| problem.to_string().replace("depot `d`: ", ""))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let no_secret = "no secret has the key `password`; put it in the `data` of a secret and name the secret under `secrets` (f.yaml:1)";
    assert_eq!(
        check("{path: a, format: csv, port: '5', nodes: [a, 1], user: 7}"),
        no_secret
    );
    assert_eq!(
        check("{pth: a, format: PARKET, port: x, nodes: a, user: true, password: p}"),
        format!(
            "unknown key `pth`; did you mean `path`? (f.yaml:6)\n\
             `format` is `PARKET`; expected one of `PARQUET`, `CSV`; did you mean `PARQUET`? (f.yaml:6)\n\
             `port` is text; expected a whole number (f.yaml:6)\n\
             `nodes` is text; expected a list of texts (f.yaml:6)\n\
             `user` is true or false; expected text; put it in quotes (f.yaml:6)\n\
             `password` is a credential and does not belong here; put it in the `data` of a secret of the depot (f.yaml:6)\n\
             the key `path` is missing; expected a path (f.yaml:6)\n{no_secret}"
        )
    );
}

//! How long a policy decision takes, and how long a changed policy.
//!
//! `decide MICROSECONDS`: one table of 16 columns, 1,000 data policies, of which a few match; the median of many. Run by `run.py`.
//! With the argument `large` instead: 10,000 policies, 1,000 users, 2,000 datasets of 50 tagged columns. `large decide`, `large first` (a decision
//! about a user and a table that were not asked about before) in microseconds, medians; `large load`, `large compile` and `large reload` (a changed
//! policy, from looking at the files until its rules are compiled) in milliseconds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark may fail loudly"
)]

use std::{fmt::Write, time::Instant};

use datafusion::arrow::datatypes::{DataType, Field, Schema};
use minerva_policy::{Principal, Rules, Verdict, decide};
use minerva_resources::{Address, Reload, Resources, load};

const POLICIES: usize = 1_000;

fn main() {
    if std::env::args().any(|argument| argument == "large") {
        return large();
    }
    let folder = std::env::temp_dir().join(format!("minerva-decide-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut text = String::from(
        "name: d\nversion: v2alpha\ntype: depot\ndepot: {type: MEMORY, memory: {}}\n---\nname: t\nversion: v1\ntype: dataset\ndataset:\n  address: dataos://d:c/t\n  columns:\n",
    );
    for column in 0..16 {
        writeln!(text, "    - {{name: c{column}, tags: [PII.T{column}]}}").unwrap();
    }
    for number in 0..POLICIES {
        let (role, tag) = (number % 50, number % 100);
        writeln!(
            text,
            "---\nname: p{number}\nversion: v1\ntype: policy\npolicy:\n  data:\n    type: mask\n    priority: {}\n    selector:\n      \
             user: {{match: any, tags: ['roles:id:r{role}']}}\n      column: {{tags: [PII.T{tag}]}}\n    mask: {{operator: nullify}}",
            number % 100 + 1
        )
        .unwrap();
    }
    std::fs::write(folder.join("all.yaml"), text).unwrap();
    let set = load(std::slice::from_ref(&folder), &[]).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let rules = Rules::compile(&set).unwrap();
    let fields: Vec<Field> = (0..16)
        .map(|column| Field::new(format!("c{column}"), DataType::Utf8, true))
        .collect();
    let (schema, address) = (Schema::new(fields), Address::new("d", "c", "t"));
    let principal = Principal::new(
        "jane",
        ["roles:id:operator".to_owned(), "roles:id:r3".to_owned()],
        Default::default(),
    );
    let mut times: Vec<f64> = (0..2_000)
        .map(|_| {
            let begin = Instant::now();
            let verdict = decide(&rules, &principal, &address, &schema);
            let taken = begin.elapsed().as_secs_f64() * 1e6;
            assert!(matches!(verdict, Verdict::Allow(_)));
            taken
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("decide {:.1}", times[times.len() / 2]);
}

const LARGE: usize = 10_000;
const USERS: usize = 1_000;
const DATASETS: usize = 2_000;
const COLUMNS: usize = 50;

fn large() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write(
        "depot.yaml",
        "name: d\nversion: v2alpha\ntype: depot\ndepot: {type: MEMORY, memory: {}}\n",
    );
    let mut text = String::new();
    for user in 0..USERS {
        writeln!(
            text,
            "---\nname: u{user}\nversion: v1\ntype: user\nuser: {{tags: ['roles:id:r{}', 'roles:id:s{}'], attributes: {{region: R{}}}}}",
            user % 50,
            user % 7,
            user % 9
        )
        .unwrap();
    }
    write("users.yaml", &text);
    for part in 0..20 {
        let mut text = String::new();
        for dataset in (part * DATASETS / 20)..((part + 1) * DATASETS / 20) {
            writeln!(
                text,
                "---\nname: t{dataset}\nversion: v1\ntype: dataset\ndataset:\n  address: dataos://d:c{}/t{dataset}\n  columns:",
                dataset % 40
            )
            .unwrap();
            for column in 0..COLUMNS {
                writeln!(
                    text,
                    "    - {{name: c{column}, tags: [PII.T{}]}}",
                    (dataset + column) % 400
                )
                .unwrap();
            }
        }
        write(&format!("datasets{part}.yaml"), &text);
    }
    let policy = |text: &mut String, number: usize, mask: &str| {
        let (role, tag) = (number % 50, number % 400);
        let what = match number % 4 {
            0 => format!(
                "type: filter\n    collection: c{}\n    selector: {{user: {{tags: ['roles:id:r{role}']}}}}\n    filters: [{{column: c{}, value: '${{user.attributes.region}}'}}]",
                number % 40,
                number % COLUMNS
            ),
            _ => format!(
                "type: mask\n    priority: {}\n    selector: {{user: {{tags: ['roles:id:r{role}']}}, column: {{tags: [PII.T{tag}]}}}}\n    mask: {{operator: {mask}}}",
                number / 400 % 100 + 1
            ),
        };
        writeln!(
            text,
            "---\nname: p{number}\nversion: v1\ntype: policy\npolicy:\n  data:\n    {what}"
        )
        .unwrap();
    };
    for part in 0..20 {
        let mut text = String::new();
        for number in (part * LARGE / 20)..((part + 1) * LARGE / 20) {
            policy(&mut text, number, "nullify");
        }
        write(&format!("policies{part}.yaml"), &text);
    }
    let mut grant = String::from(
        "name: all\nversion: v1\ntype: policy\npolicy: {access: {subjects: {tags: ['users:**']}, predicates: [select], objects: {paths: ['dataos://d:**']}, allow: true}}\n",
    );
    write("changing.yaml", &grant);

    let begin = Instant::now();
    let resources = Resources::open(vec![folder.path().to_owned()], vec![]).unwrap();
    println!("large load {:.0}", begin.elapsed().as_secs_f64() * 1e3);
    let begin = Instant::now();
    let rules = Rules::compile(&resources.current()).unwrap();
    println!("large compile {:.0}", begin.elapsed().as_secs_f64() * 1e3);

    let fields: Vec<Field> = (0..COLUMNS)
        .map(|column| Field::new(format!("c{column}"), DataType::Utf8, true))
        .collect();
    let schema = Schema::new(fields);
    let (mut first, mut warm) = (vec![], vec![]);
    for round in 0..400 {
        let user = format!("u{round}");
        let set = resources.current();
        let declared = set.user(&user).unwrap();
        let principal = Principal::new(
            &user,
            declared.tags.iter().cloned(),
            declared.attributes.clone().into_iter().collect(),
        );
        let table = round * 5;
        let address = Address::new("d", format!("c{}", table % 40), format!("t{table}"));
        let took = || {
            let begin = Instant::now();
            let verdict = decide(&rules, &principal, &address, &schema);
            let taken = begin.elapsed().as_secs_f64() * 1e6;
            assert!(matches!(verdict, Verdict::Allow(_)), "{verdict:?}");
            taken
        };
        first.push(took());
        warm.extend((0..20).map(|_| took()));
    }
    for (name, mut times) in [("first", first), ("decide", warm)] {
        times.sort_by(f64::total_cmp);
        println!("large {name} {:.1}", times[times.len() / 2]);
    }

    let mut reloads = vec![];
    for round in 0..5 {
        policy(&mut grant, LARGE + round, "redact");
        write("changing.yaml", &grant);
        let begin = Instant::now();
        let Reload::Swapped(set) = resources.poll() else {
            panic!("the change was not seen")
        };
        let rules = Rules::compile(&set).unwrap();
        reloads.push(begin.elapsed().as_secs_f64() * 1e3);
        drop(rules);
    }
    reloads.sort_by(f64::total_cmp);
    println!("large reload {:.0}", reloads[reloads.len() / 2]);
}

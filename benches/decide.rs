//! How long a policy decision takes: one table of 16 columns, 1,000 data policies, of which a few match.
//!
//! Out: one line `decide MICROSECONDS`, the median of many. Run by `run.py`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark may fail loudly"
)]

use std::{fmt::Write, time::Instant};

use datafusion::arrow::datatypes::{DataType, Field, Schema};
use minerva_policy::{Principal, Rules, Verdict, decide};
use minerva_resources::{Address, load};

const POLICIES: usize = 1_000;

fn main() {
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

//! The prompt of `minerva sql`, typed at through a pseudo-terminal.

use crate::minerva::{Minerva, program, python};

const DEPOT: &str = "name: small\nversion: v2alpha\ntype: depot\ndepot: {type: TPCH, tpch: {scale: 0.01}}\n";

#[test]
fn a_person_can_work_at_the_prompt() {
    let minerva = Minerva::start(&[("depots.yaml", DEPOT)], 1);
    let key = std::fs::read_to_string(minerva.data().join("admin-key")).unwrap();
    let output = python()
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/prompt.py"))
        .arg(program().get_program())
        .arg(minerva.flight())
        .arg(minerva.data())
        .args(["admin", key.trim()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        said.lines().filter(|line| line.starts_with("ok ")).count() >= 14,
        "{said}"
    );
}

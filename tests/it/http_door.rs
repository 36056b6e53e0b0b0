//! The HTTP door and the audit against the real program, by clients written in Python's own library and by hand.

use crate::{
    governed_data::{run, script},
    minerva::program,
};

fn against_the_program(name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = script(name);
    command.arg(program().get_program()).arg(folder.path());
    run(&mut command);
}

#[test]
fn the_http_door_keeps_its_promises() {
    against_the_program("http_door.py");
}

#[test]
fn each_statement_leaves_one_record() {
    against_the_program("audit.py");
}

//! Random statements on databases: the rows are the same with push-down, without it, and by the database's own client.
//!
//! `tests/python/pushdown.py` says what is compared; `make fuzz` asks for more statements, from a seed by chance.

use std::process::Command;

use crate::{
    governed_data::{run, script},
    private_mariadb::MariaDb,
    private_postgres::Postgres,
};

/// The script over depots of one kind. Statements and seed are those of the test, unless `make fuzz` asks for others.
fn compared(depot: &str) -> Command {
    let asked = |name: &str, otherwise: &str| std::env::var(name).unwrap_or_else(|_| otherwise.to_owned());
    let mut command = script("pushdown.py");
    command
        .args(["--minerva", env!("CARGO_BIN_EXE_minerva"), "--depots", depot])
        .args(["--statements", &asked("MINERVA_FUZZ_STATEMENTS", "1000")])
        .args(["--seed", &asked("MINERVA_FUZZ_SEED", "11")]);
    command
}

#[test]
fn mariadb_answers_the_same_with_and_without_push_down_and_by_its_own_client() {
    let mariadb = MariaDb::start();
    mariadb.sql("GRANT ALL ON pushdown.* TO reader");
    run(compared("mariadb").args(["--mariadb", &mariadb.socket()]));
}

#[test]
fn postgresql_answers_the_same_with_and_without_push_down_and_by_its_own_client() {
    let postgres = Postgres::start();
    run(compared("postgresql").args(["--postgresql", &postgres.port().to_string()]));
}

#[test]
fn sqlite_answers_the_same_with_and_without_push_down_and_by_its_own_client() {
    run(&mut compared("sqlite"));
}

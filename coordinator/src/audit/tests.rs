//! The thread that writes: what becomes of statements when it fails.

use std::{cmp::Ordering, fmt, hash::Hash};

use datafusion::{
    common::{DFSchema, DFSchemaRef},
    logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore},
};

use super::*;

/// A plan that cannot be looked at.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Unreadable(DFSchemaRef);

impl PartialOrd for Unreadable {
    fn partial_cmp(&self, _: &Self) -> Option<Ordering> {
        None
    }
}

impl UserDefinedLogicalNodeCore for Unreadable {
    fn name(&self) -> &str {
        "Unreadable"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        panic!("nobody looks into this");
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.0
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unreadable")
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, _: Vec<LogicalPlan>) -> datafusion::error::Result<Self> {
        Ok(Self(Arc::clone(&self.0)))
    }
}

fn opened(folder: &Path) -> Audit {
    let keeping = Keeping {
        retention: Duration::from_secs(60),
        redact: false,
    };
    Audit::open(folder, keeping).unwrap()
}

fn called<'a>(principal: &'a Principal, client: &'a Client, traced: Traced) -> Call<'a> {
    Call {
        id: "one".to_owned(),
        principal,
        client,
        cluster: "minerva",
        what: "GetPrimaryKeys a.b.c".to_owned(),
        error: None,
        traced,
    }
}

#[tokio::test]
async fn when_the_thread_fails_no_statement_runs() {
    let folder = tempfile::tempdir().unwrap();
    let audit = opened(folder.path());
    let principal = Principal::new("jane", [], BTreeMap::new());
    let client = Client {
        door: "flight",
        address: "127.0.0.1:5".to_owned(),
        source: None,
    };
    audit.call(called(&principal, &client, Traced::default()));
    assert_eq!(
        audit
            .list(Wanted {
                limit: Some(9),
                ..Wanted::default()
            })
            .await
            .unwrap()
            .len(),
        1
    );
    assert!(audit.expect_writable().is_ok() && audit.failure().is_none());

    let mut traced = Traced::default();
    traced.planned(&LogicalPlan::Extension(Extension {
        node: Arc::new(Unreadable(Arc::new(DFSchema::empty()))),
    }));
    audit.call(called(&principal, &client, traced));
    let thread = locked(&audit.thread).take().unwrap();
    assert!(thread.join().is_err(), "else this test shows nothing");
    let refused = audit.expect_writable().unwrap_err();
    assert_eq!(refused.code, Code::InsufficientDisk);
    assert!(
        refused.message.contains("the thread that writes it has failed"),
        "{refused}"
    );
    assert!(audit.failure().unwrap().contains("restart the coordinator"));
    // Who reads what is there does not wait for what never comes.
    assert_eq!(
        audit
            .list(Wanted {
                limit: Some(9),
                ..Wanted::default()
            })
            .await
            .unwrap()
            .len(),
        1
    );
}

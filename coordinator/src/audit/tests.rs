//! The thread that writes: what becomes of statements when it fails.

use std::{cmp::Ordering, fmt, hash::Hash};

use datafusion::{
    common::{DFSchema, DFSchemaRef},
    logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore},
};
use minerva_policy::AccessDecision;
use minerva_resources::Address;

use super::*;

/// A plan that cannot be looked at, or one that the thread which writes cannot let go.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Unreadable(DFSchemaRef, bool);

impl Drop for Unreadable {
    fn drop(&mut self) {
        let writes = std::thread::current().name() == Some("audit");
        assert!(self.1 || !writes || std::thread::panicking(), "nobody throws this away");
    }
}

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
        match self.1 {
            true => panic!("nobody looks into this"),
            false => Vec::new(),
        }
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
        Ok(Self(Arc::clone(&self.0), self.1))
    }
}

fn opened(folder: &Path) -> Audit {
    let keeping = Keeping {
        retention: Duration::from_secs(60),
        redact: false,
    };
    Audit::open(folder, keeping).unwrap()
}

fn called<'a>(id: &str, principal: &'a Principal, client: &'a Client, traced: Traced) -> Call<'a> {
    Call {
        id: id.to_owned(),
        principal,
        client,
        cluster: "minerva",
        what: "GetPrimaryKeys a.b.c".to_owned(),
        error: None,
        traced,
        stage: Stage::Asked,
    }
}

fn traced(is_unreadable: bool) -> Traced {
    let mut traced = Traced::default();
    let access = AccessDecision {
        allowed: true,
        because: Vec::new(),
    };
    traced.named(&Address::new("crm", "public", "x".repeat(600)), &access);
    traced.planned(&LogicalPlan::Extension(Extension {
        node: Arc::new(Unreadable(Arc::new(DFSchema::empty()), is_unreadable)),
    }));
    traced
}

async fn all(audit: &Audit) -> Vec<QueryRecord> {
    let wanted = Wanted {
        limit: Some(1_000),
        ..Wanted::default()
    };
    audit.list(wanted).await.unwrap()
}

fn client() -> Client {
    Client {
        door: "flight",
        address: "127.0.0.1:5".to_owned(),
        source: None,
    }
}

#[tokio::test]
async fn a_plan_that_cannot_be_looked_through_leaves_its_record_and_harms_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let audit = opened(folder.path());
    let (principal, client) = (Principal::new("jane", [], BTreeMap::new()), client());
    audit.call(called("one", &principal, &client, traced(true))).unwrap();
    audit
        .call(called("two", &principal, &client, Traced::default()))
        .unwrap();
    let mut kept = all(&audit).await;
    kept.sort_by(|a, b| a.query_id.cmp(&b.query_id));
    let tables: serde_json::Value = serde_json::from_str(&kept[0].tables).unwrap();
    assert_eq!(tables[0]["decision"], "ALLOWED");
    assert_eq!(tables[0]["table"], format!("{}...", "x".repeat(500)));
    assert_eq!(tables[1]["unreadable"], "columns");
    assert_eq!((kept.len(), kept[1].tables.as_str()), (2, "[]"));
    assert!(audit.expect_writable().is_ok() && audit.failure().is_none());
}

#[tokio::test]
async fn calls_without_end_do_not_grow_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let audit = opened(folder.path());
    let (principal, client) = (Principal::new("jane", [], BTreeMap::new()), client());
    let calls = 3 * calls::MOST_CALLS;
    for number in 0..calls {
        let mut call = called(&number.to_string(), &principal, &client, Traced::default());
        call.what = "x".repeat(10_000);
        audit.call(call).unwrap();
    }
    let kept = all(&audit).await;
    // The minute may have ended meanwhile.
    assert!(kept.len() as u64 <= 2 * (calls::MOST_CALLS + 1), "{}", kept.len());
    assert!(kept.iter().any(|record| record.query.starts_with("several: ")));
    assert!(kept.iter().all(|record| record.query.len() <= LONGEST_CALL + 3));
}

#[tokio::test]
async fn when_the_thread_fails_no_statement_runs() {
    let folder = tempfile::tempdir().unwrap();
    let audit = opened(folder.path());
    let principal = Principal::new("jane", [], BTreeMap::new());
    let client = client();
    audit
        .call(called("one", &principal, &client, Traced::default()))
        .unwrap();
    assert_eq!(all(&audit).await.len(), 1);
    assert!(audit.expect_writable().is_ok() && audit.failure().is_none());

    audit.call(called("two", &principal, &client, traced(false))).unwrap();
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
    assert_eq!(all(&audit).await.len(), 1);
}

//! Barriers that statements take in: what opens, what the verifier wants of a statement with fences, and what is shown of it.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, displayable};
use minerva_policy::{
    FenceSeal, Grants, Leaf, OpenedBarrier, PolicyFence, PolicyFenceExec, Seal, decode_fence, encode_fence,
    fence_digest, redact_logical_plan, redact_plan, verify,
};

use crate::world::{World, address};

/// The node of an optimised plan that opens.
async fn opened(world: &World, sql: &str) -> Option<OpenedBarrier> {
    let plan = world.session.sql(sql).await.unwrap().into_optimized_plan().unwrap();
    let mut found = None;
    plan.apply(|node| {
        found = found.take().or_else(|| OpenedBarrier::of(node));
        Ok(TreeNodeRecursion::Continue)
    })
    .unwrap();
    found
}

#[tokio::test]
async fn a_barrier_opens_when_nothing_below_it_can_fail() {
    let world = World::new().await;
    let barrier = opened(
        &world,
        "SELECT name, letter, id FROM people WHERE id < 20 AND CAST(code AS INT) > 1",
    )
    .await
    .unwrap();
    let inside = barrier.inside().display_indent().to_string();
    // The row filter, the masks and what was let through are there, and nothing else of the user's.
    for part in ["region", "REDACTED", "repeat(", "< Int64(20)"] {
        assert!(inside.contains(part), "{part}: {inside}");
    }
    assert!(
        !inside.contains("minerva_mask") && !inside.contains("CAST(people.code"),
        "{inside}"
    );
    assert!(!barrier.inside().inputs().is_empty());
    // A predicate without a column is kept at the barrier, which then stays.
    assert!(
        opened(&world, "SELECT id FROM people WHERE random() < 2")
            .await
            .is_none_or(|barrier| { !barrier.inside().display_indent().to_string().contains("random") })
    );
    assert!(
        opened(&world, "SELECT id FROM orders").await.is_none(),
        "nothing governs it"
    );
    let _: &LogicalPlan = barrier.inside();
}

fn sealed(seal: &Seal, sql: &str) -> FenceSeal {
    FenceSeal {
        seal: seal.clone(),
        digest: fence_digest(sql),
    }
}

#[tokio::test]
async fn a_statement_without_its_own_fences_is_refused() {
    let world = World::new().await;
    let barrier = opened(&world, "SELECT name FROM people").await.unwrap();
    let seal = Seal::clone(barrier.seal());
    let leaf = world.plan("SELECT id FROM orders").await;
    let leaf = leaf_of(&leaf);
    let fence = |seals: Vec<FenceSeal>| -> Arc<dyn ExecutionPlan> {
        Arc::new(PolicyFenceExec::try_new(seals, Arc::clone(&leaf)).unwrap())
    };
    let reads = |open: &[&str], fences: Vec<FenceSeal>| Leaf::Fenced {
        open: open.iter().map(|name| address(name)).collect(),
        fences,
    };
    let good = sealed(&seal, "the text");
    let plan = fence(vec![good.clone()]);
    let granted = |plan: &Arc<dyn ExecutionPlan>, read: Leaf| verify(plan, &world.grants, &|_| read.clone());
    granted(&plan, reads(&["orders"], vec![good.clone()])).unwrap();
    granted(&plan, reads(&[], vec![good.clone()])).unwrap();
    // It arrives as it was sent.
    let decoded = decode_fence(&encode_fence(plan.as_ref()).unwrap(), &[Arc::clone(&leaf)]).unwrap();
    granted(&decoded, reads(&[], vec![good.clone()])).unwrap();

    let refused = |plan: &Arc<dyn ExecutionPlan>, grants: &Grants, read: Leaf, why: &str| {
        let error = verify(plan, grants, &|_| read.clone()).unwrap_err().to_string();
        assert!(error.contains(why), "{why}: {error}");
    };
    let other = sealed(
        &Seal {
            fingerprint: "0".repeat(32),
            ..seal.clone()
        },
        "the text",
    );
    for (plan, read, why) in [
        // Not behind what was put over it, or behind a barrier's.
        (&leaf, reads(&[], vec![good.clone()]), "does not lie behind them"),
        // Another text, another policy, one fence more, one less.
        (&plan, reads(&[], vec![sealed(&seal, "a text")]), "has other fences"),
        (&plan, reads(&[], vec![other.clone()]), "has other fences"),
        (&plan, reads(&[], vec![good.clone(), good.clone()]), "has other fences"),
        (&plan, reads(&[], vec![]), "has other fences"),
        (
            &fence(vec![other.clone()]),
            reads(&[], vec![other]),
            "made for other policies",
        ),
        // What is governed is read outside of its fence, or nobody granted it.
        (&plan, reads(&["people"], vec![good.clone()]), "outside a barrier"),
        (&plan, reads(&["nothing"], vec![good.clone()]), "outside a barrier"),
        // A leaf that has no fences.
        (
            &plan,
            Leaf::Dataset(vec![address("orders")]),
            "is read behind the fence of",
        ),
        (
            &plan,
            Leaf::Datasets(vec![address("people")]),
            "is read behind the fence of",
        ),
    ] {
        refused(plan, &world.grants, read, why);
    }
    refused(
        &plan,
        &Grants::default(),
        reads(&[], vec![good.clone()]),
        "is not granted",
    );
    let twice: Arc<dyn ExecutionPlan> =
        Arc::new(PolicyFenceExec::try_new(vec![good.clone()], Arc::clone(&plan)).unwrap());
    refused(
        &twice,
        &world.grants,
        reads(&[], vec![good.clone()]),
        "a fence lies behind the fence",
    );
    assert!(PolicyFenceExec::try_new(vec![], Arc::clone(&leaf)).is_err());
}

fn leaf_of(plan: &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    match plan.children().first() {
        Some(child) => leaf_of(child),
        None => Arc::clone(plan),
    }
}

#[tokio::test]
async fn of_a_statement_with_fences_users_see_what_is_outside() {
    let world = World::new().await;
    let barrier = opened(&world, "SELECT name FROM people WHERE id < 20").await.unwrap();
    let scan = world
        .session
        .sql("SELECT id FROM orders")
        .await
        .unwrap()
        .into_optimized_plan()
        .unwrap();
    let rendered = barrier.rendered("f0".to_owned(), "secret text");
    let fence = PolicyFence::over(scan, vec![rendered], "SELECT f0.c0 FROM f0".to_owned()).unwrap();
    let shown = redact_logical_plan(fence.clone()).unwrap().display_indent().to_string();
    assert_eq!(
        shown,
        "GovernedStatement: f0=[dataos://lake:main/people, columns=[name], filters=[lake.main.people.id < Int64(20)]], sql=SELECT f0.c0 FROM f0"
    );
    let LogicalPlan::Extension(node) = &fence else {
        panic!("{fence}")
    };
    assert!(node.node.with_exprs_and_inputs(vec![], vec![]).is_err());
    let exec: Arc<dyn ExecutionPlan> = Arc::new(
        PolicyFenceExec::try_new(
            vec![sealed(
                &Seal {
                    address: address("people"),
                    fingerprint: String::new(),
                },
                "x",
            )],
            world.plan("SELECT id FROM orders").await,
        )
        .unwrap(),
    );
    let shown = displayable(redact_plan(&exec).unwrap().as_ref())
        .indent(true)
        .to_string();
    assert!(
        shown.starts_with("GovernedStatement: ") && shown.lines().count() == 1,
        "{shown}"
    );
}

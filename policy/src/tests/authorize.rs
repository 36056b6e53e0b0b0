//! Access decisions against a reckoning by hand: any policies, any user, any object.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::testing::{documents, person, rules};
use crate::{AccessDecision, Object};

/// A policy as numbers: subjects and object tags as alternatives of lists, predicates, paths, and whether it allows.
#[derive(Debug, Clone)]
struct Drawn {
    subjects: Vec<Vec<usize>>,
    predicates: Vec<usize>,
    paths: Vec<usize>,
    tags: Vec<Vec<usize>>,
    allow: bool,
}

const SUBJECTS: [&str; 4] = ["roles:id:a", "roles:id:b", "roles:id:*", "users:id:tom"];
const PREDICATES: [&str; 3] = ["select", "read", "**"];
/// Patterns, and which of the paths below each matches.
const PATTERNS: [(&str, [bool; 3]); 5] = [
    ("dataos://d:c/t", [true, false, false]),
    ("dataos://d:c/*", [true, true, false]),
    ("dataos://d:**", [true, true, true]),
    ("dataos://d:{e,f}/*", [false, false, true]),
    ("/api/**", [false, false, false]),
];
const PATHS: [&str; 3] = ["dataos://d:c/t", "dataos://d:c/u", "dataos://d:e/t"];
const TAGS: [&str; 3] = ["PII.Email", "DPTier.Gold", "PII.*"];
const OBJECT_TAGS: [&str; 3] = ["PII.Email", "DPTier.Gold", "PII.Name"];

fn lists(most: usize) -> impl Strategy<Value = Vec<Vec<usize>>> {
    vec(vec(0..most, 1..3), 1..3)
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let objects = (
        vec(0..PATTERNS.len(), 0..3),
        prop_oneof![Just(vec![]), lists(TAGS.len())],
    );
    let objects = objects.prop_filter("an object has a name", |(paths, tags)| {
        !paths.is_empty() || !tags.is_empty()
    });
    (
        lists(SUBJECTS.len()),
        vec(0..PREDICATES.len(), 1..3),
        objects,
        any::<bool>(),
    )
        .prop_map(|(subjects, predicates, (paths, tags), allow)| Drawn {
            subjects,
            predicates,
            paths,
            tags,
            allow,
        })
}

fn yaml(number: usize, drawn: &Drawn) -> String {
    let quoted = |text: &str| format!("'{text}'");
    let list = |texts: Vec<String>| format!("[{}]", texts.join(", "));
    let nested = |lists: &[Vec<usize>], names: &[&str]| {
        list(
            lists
                .iter()
                .map(|all| list(all.iter().map(|index| quoted(names[*index])).collect()))
                .collect(),
        )
    };
    let mut objects = vec![];
    if !drawn.paths.is_empty() {
        let paths = drawn.paths.iter().map(|index| quoted(PATTERNS[*index].0)).collect();
        objects.push(format!("paths: {}", list(paths)));
    }
    if !drawn.tags.is_empty() {
        objects.push(format!("tags: {}", nested(&drawn.tags, &TAGS)));
    }
    format!(
        "
name: p{number}
version: v1
type: policy
policy:
  access:
    subjects: {{tags: {}}}
    predicates: {}
    objects: {{{}}}
    allow: {}
",
        nested(&drawn.subjects, &SUBJECTS),
        list(
            drawn
                .predicates
                .iter()
                .map(|index| quoted(PREDICATES[*index]))
                .collect()
        ),
        objects.join(", "),
        drawn.allow
    )
}

/// Whether a drawn policy is about this, reckoned from the numbers.
fn is_about(drawn: &Drawn, roles: &[bool], predicate: usize, path: usize, tags: &[bool]) -> bool {
    let subject = |index: usize| match index {
        0 | 1 => roles[index],
        2 => roles.contains(&true),
        _ => true,
    };
    let tag = |index: usize| match index {
        2 => tags[0] || tags[2],
        other => tags[other],
    };
    drawn.subjects.iter().any(|all| all.iter().all(|index| subject(*index)))
        && drawn.predicates.iter().any(|index| *index == predicate || *index == 2)
        && (drawn.paths.iter().any(|index| PATTERNS[*index].1[path])
            || drawn.tags.iter().any(|all| all.iter().all(|index| tag(*index))))
}

fn names(decision: &AccessDecision) -> Vec<String> {
    let mut names: Vec<_> = decision.because.iter().map(|policy| policy.name.clone()).collect();
    names.sort();
    names
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn decisions_agree_with_a_reckoning_by_hand(
        policies in vec(drawn(), 0..6),
        roles in proptest::array::uniform2(any::<bool>()),
        tags in proptest::array::uniform3(any::<bool>()),
        predicate in 0..2_usize,
        path in 0..PATHS.len(),
        operator in proptest::bool::weighted(0.1),
    ) {
        let texts: Vec<String> = policies.iter().enumerate().map(|(number, drawn)| yaml(number, drawn)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let mut held: Vec<&str> = (0..2).filter(|index| roles[*index]).map(|index| SUBJECTS[index]).collect();
        if operator {
            held.push("roles:id:operator");
        }
        let object = Object {
            paths: vec![PATHS[path].to_owned()],
            tags: (0..3).filter(|index| tags[*index]).map(|index| OBJECT_TAGS[index].to_owned()).collect(),
        };
        // `roles:id:*` is met by the operator's role as well, which is no matter: an operator may do everything.
        let about: Vec<usize> = (0..policies.len()).filter(|index| is_about(&policies[*index], &roles, predicate, path, &tags)).collect();
        let denied = about.iter().any(|index| !policies[*index].allow);
        let expected = operator || (!denied && about.iter().any(|index| policies[*index].allow));

        let in_order = rules(&documents(&texts));
        let tom = person("tom", &held);
        let decision = in_order.authorize(&tom, PREDICATES[predicate], &object);
        prop_assert_eq!(decision.allowed, expected, "{:?}", policies);
        if !operator {
            let deciding: Vec<String> = about.iter().filter(|index| policies[**index].allow != denied).map(|index| format!("p{index}")).collect();
            prop_assert_eq!(names(&decision), deciding);
        }
        // What a stranger asks about the same thing is answered the same, and the order of the policies is no matter.
        prop_assert_eq!(in_order.decide_access(&tom, PREDICATES[predicate], &object).allowed, expected);
        let backwards: Vec<&str> = texts.iter().rev().copied().collect();
        prop_assert_eq!(rules(&documents(&backwards)).authorize(&tom, PREDICATES[predicate], &object).allowed, expected);
    }
}

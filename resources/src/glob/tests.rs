//! Patterns against what DataOS says of them, and against a matcher that tries everything.

use proptest::prelude::*;

use super::*;

fn check(pattern: &str, matching: &[&str], not: &[&str]) {
    let glob = Glob::new(pattern).unwrap();
    for text in matching {
        assert!(glob.matches(text), "`{pattern}` should match `{text}`");
    }
    for text in not {
        assert!(!glob.matches(text), "`{pattern}` should not match `{text}`");
    }
}

#[test]
fn patterns_mean_what_dataos_says() {
    check(
        "roles:id:analyst",
        &["roles:id:analyst"],
        &["roles:id:analysts", "roles:id", ""],
    );
    check(
        "roles:id:*",
        &["roles:id:user", "roles:id:"],
        &["roles:id:a:b", "roles:direct:x"],
    );
    check("users:**", &["users:id:jane", "users:"], &["users", "roles:id:user"]);
    check(
        "foo:**:bar",
        &["foo:bar", "foo:x:bar", "foo:x:y:bar"],
        &["foobar", "foo:xbar", "foo:bar:"],
    );
    check("**:bar", &["bar", "x:bar", "x/y:bar"], &["xbar"]);
    check(
        "dataos://lakehouse:retail/*",
        &["dataos://lakehouse:retail/city"],
        &["dataos://lakehouse:retail/a/b", "dataos://lakehouse:x/city"],
    );
    check(
        "dataos://crmbq**",
        &["dataos://crmbq01:public/t", "dataos://crmbq"],
        &["dataos://crm:public/t"],
    );
    check(
        "/metis/api/v2/**",
        &["/metis/api/v2/tables/1", "/metis/api/v2/"],
        &["/metis/api/v1/x"],
    );
    check(
        "{cat,bat,[mt]at}",
        &["cat", "bat", "mat", "tat"],
        &["at", "rat", "cat,bat"],
    );
    check("a{,b{1,2}}c", &["ac", "ab1c", "ab2c"], &["abc"]);
    check("[!ab]?[a-c]", &["czb", "-xa"], &["axa", "c:a", ":xa", "cza "]);
    check("a\\*[\\]]", &["a*]"], &["ab]", "a*"]);
    check("[{,}]x", &["{x", ",x", "}x"], &["[x"]);
    check("PII.*", &["PII.Email"], &["PII.A:B"]);
    check("ü?*", &["üß", "üßx"], &["ü"]);
    check("**", &["", "a:b/c"], &[]);
}

#[test]
fn literals_are_known() {
    assert!(Glob::new("roles:id:user").unwrap().is_literal());
    assert_eq!(Glob::new("a\\*b").unwrap().literal(), Some("a*b"));
    assert!(!Glob::new("a*").unwrap().is_literal());
    let odd = "a[b]{c,d}*\\?";
    assert_eq!(Glob::exactly(odd).literal(), Some(odd));
    assert_eq!(Glob::new(Glob::exactly(odd).as_str()).unwrap().literal(), Some(odd));
    assert!(Glob::everything().matches("a:b"));
}

#[test]
fn what_is_not_a_pattern_is_refused() {
    let many = "{a,b}".repeat(9);
    let long = "a".repeat(3000);
    for text in [
        "",
        "[",
        "[]",
        "[!]",
        "[b-a]",
        "[a-]",
        "{a",
        "a}",
        "a]",
        "\\",
        many.as_str(),
        long.as_str(),
    ] {
        assert!(Glob::new(text).is_err(), "{text}");
    }
}

#[test]
fn tag_rules_are_alternatives_of_lists() {
    let rule = |lists: &[&[&str]]| {
        TagRule(
            lists
                .iter()
                .map(|all| all.iter().map(|tag| Glob::new(tag).unwrap()).collect())
                .collect(),
        )
    };
    let tags = ["roles:id:user", "users:id:jane"];
    assert!(rule(&[&["roles:id:user", "users:id:*"], &["x"]]).matches(tags));
    assert!(rule(&[&["x"], &["users:**"]]).matches(tags));
    assert!(!rule(&[&["roles:id:user", "roles:id:analyst"]]).matches(tags));
    assert!(!rule(&[]).matches(tags));
    assert!(!rule(&[&[]]).matches(tags));
}

#[test]
fn a_hostile_pattern_is_matched_in_time() {
    let glob = Glob::new(&("**a".repeat(300) + "b")).unwrap();
    assert!(!glob.matches(&"a".repeat(2000)));
}

/// The alternatives that braces stand for, one after the other.
fn alternatives(pattern: &[char]) -> Vec<Vec<char>> {
    let mut depth = 0;
    let mut start = 0;
    let mut cuts = Vec::new();
    let mut escaped = false;
    for (index, c) in pattern.iter().enumerate() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '{' => {
                depth += 1;
                if depth == 1 {
                    start = index;
                }
            }
            ',' if depth == 1 => cuts.push(index),
            '}' => {
                depth -= 1;
                if depth == 0 {
                    cuts.push(index);
                    let mut from = start + 1;
                    let mut all = Vec::new();
                    for cut in cuts {
                        all.extend(alternatives(
                            &[&pattern[..start], &pattern[from..cut], &pattern[index + 1..]].concat(),
                        ));
                        from = cut + 1;
                    }
                    return all;
                }
            }
            _ => {}
        }
    }
    vec![pattern.to_vec()]
}

/// The meaning of a pattern without braces, tried out.
fn naive(pattern: &[char], text: &[char], level_start: bool) -> bool {
    let level = |c: char| c != ':' && c != '/';
    match pattern {
        [] => text.is_empty(),
        ['*', '*', ..] => {
            let stars = pattern.iter().take_while(|c| **c == '*').count();
            let rest = &pattern[stars..];
            let none = level_start && rest.first().is_some_and(|c| !level(*c)) && naive(&rest[1..], text, true);
            none || (0..=text.len()).any(|taken| naive(rest, &text[taken..], false))
        }
        ['*', rest @ ..] => {
            (0..=text.len()).any(|n| text[..n].iter().all(|c| level(*c)) && naive(rest, &text[n..], false))
        }
        ['?', rest @ ..] => text.first().is_some_and(|c| level(*c)) && naive(rest, &text[1..], false),
        ['[', '!', 'a', '-', 'b', ']', rest @ ..] => {
            text.first().is_some_and(|c| level(*c) && !"ab".contains(*c)) && naive(rest, &text[1..], false)
        }
        ['[', 'a', ':', ']', rest @ ..] => {
            text.first().is_some_and(|c| "a:".contains(*c)) && naive(rest, &text[1..], false)
        }
        ['\\', c, rest @ ..] | [c, rest @ ..] => text.first() == Some(c) && naive(rest, &text[1..], !level(*c)),
    }
}

proptest! {
    #[test]
    fn matching_agrees_with_trying_everything(
        pattern in "(a|b|:|/|\\?|\\*|\\*\\*|\\[!a-b\\]|\\[a:\\]|\\\\\\*|\\{(a|\\*\\*|:|\\?)?,(b|\\*|:a)?\\}){1,7}",
        text in "[ab:/*]{0,7}",
    ) {
        let glob = Glob::new(&pattern).unwrap();
        let chars: Vec<char> = text.chars().collect();
        let expected = alternatives(&pattern.chars().collect::<Vec<_>>()).iter().any(|one| naive(one, &chars, true));
        prop_assert_eq!(glob.matches(&text), expected, "pattern {} text {}", pattern, text);
    }

    #[test]
    fn what_matches_may_begin_with_every_beginning_of_it(
        pattern in "(a|b|:|/|\\?|\\*|\\*\\*|\\[!a-b\\]|\\{(a|\\*\\*|:)?,(b|\\*|:a)?\\}){1,6}",
        text in "[ab:/]{0,6}",
    ) {
        let glob = Glob::new(&pattern).unwrap();
        if glob.matches(&text) {
            for end in 0..=text.len() {
                prop_assert!(glob.may_begin_with(&text[..end]), "pattern {} text {} end {}", pattern, text, end);
            }
        }
    }

    #[test]
    fn any_text_is_a_pattern_or_refused(pattern in "\\PC{0,40}", text in "\\PC{0,40}") {
        if let Ok(glob) = Glob::new(&pattern) {
            glob.matches(&text);
        }
        prop_assert!(Glob::exactly(&text).matches(&text));
    }
}

#[test]
fn the_end_may_be_in_another_case_and_nothing_before_it() {
    let begin = "dataos://d:c/t/";
    for (pattern, end, expected) in [
        ("dataos://d:c/t/HomeAddress", "homeaddress", true),
        ("dataos://d:c/t/homeAddress", "HOMEADDRESS", true),
        ("dataos://d:c/T/homeaddress", "homeaddress", false),
        ("dataos://d:*/t/home*.City", "HomeAddress.CITY", true),
        ("dataos://d:c/t/[H-I]?me", "hOME", true),
        ("dataos://d:c/t/[!h]ome", "home", true),
        ("dataos://d:c/t/[!hH]ome", "home", false),
        ("dataos://d:c/t/ÉTAT", "état", true),
        ("dataos://D:c/**", "home", false),
        ("dataos://d:**", "home", true),
        ("dataos://d:c/t/home", "homes", false),
        ("dataos://d:c/t/homes", "home", false),
    ] {
        let glob = Glob::new(pattern).unwrap();
        assert_eq!(glob.matches_end_in_any_case(begin, end), expected, "{pattern} {end}");
    }
}

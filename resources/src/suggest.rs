//! "Did you mean": the nearest of the names that would have been right.

use strsim::damerau_levenshtein;

/// The candidate that `wanted` is most likely a misspelling of, if one is near enough to be worth saying.
pub fn closest<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Comparing is quadratic in the length, and nothing this long is a slip of the finger.
    const LONGEST: usize = 128;
    if wanted.len() > LONGEST {
        return None;
    }
    let plain = |text: &str| text.to_lowercase().replace(['-', '_'], "");
    let asked = plain(wanted);
    let near = (asked.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= LONGEST && *candidate != wanted)
        .map(|candidate| (damerau_levenshtein(&asked, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= near && *distance < candidate.chars().count())
        .min()
        .map(|(_, candidate)| candidate)
}

/// The help for a name that does not exist: the nearest that does, else all of them.
pub(crate) fn instead<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> Option<String> {
    const SHOWN: usize = 30;
    if let Some(candidate) = closest(wanted, candidates.clone()) {
        return Some(format!("did you mean `{candidate}`?"));
    }
    let mut names: Vec<&str> = candidates.into_iter().collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return None;
    }
    let more = if names.len() > SHOWN { ", ..." } else { "" };
    names.truncate(SHOWN);
    let one_of = if names.len() == 1 {
        "expected"
    } else {
        "expected one of"
    };
    Some(format!("{one_of} {}{more}", quoted(names)))
}

/// "`a`, `b`".
pub(crate) fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names
        .into_iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::closest;

    #[test]
    fn a_slip_is_recognised_and_a_stranger_is_not() {
        let names = ["host", "port", "database", "icebergCatalogType"];
        assert_eq!(closest("hots", names), Some("host"));
        assert_eq!(closest("data_base", names), Some("database"));
        assert_eq!(closest("iceberg-catalog-type", names), Some("icebergCatalogType"));
        assert_eq!(closest("PORT", names), Some("port"));
        assert_eq!(closest("warehouse", names), None);
        assert_eq!(closest("a", ["b"]), None);
        assert_eq!(closest("", names), None);
    }
}

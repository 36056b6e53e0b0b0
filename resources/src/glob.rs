//! Patterns for tags, predicates and paths, and rules made of them.
//!
//! `?` is one character of a level and `*` any number of them; `**` is anything, levels included, and a `**` between delimiters may
//! also be no level at all (`foo:**:bar` matches `foo:bar`). `[ab]`, `[a-c]`, `[!ab]` is one character of a set, `{a,b}` one of several
//! patterns, `\` takes the next character as it is. Levels are separated by `:` and `/`. Matching takes time proportional to the
//! pattern times the text, whatever the pattern.

use std::fmt::{self, Display};

/// The longest pattern, and the most patterns that `{a,b}` may stand for.
const LONGEST: usize = 2048;
const MOST_ALTERNATIVES: usize = 256;

/// A pattern.
#[derive(Debug, Clone)]
pub struct Glob {
    text: String,
    alternatives: Vec<Alternative>,
}

/// A pattern without `{}`: what it begins with, then the rest.
#[derive(Debug, Clone)]
struct Alternative {
    prefix: String,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// This character.
    One(char),
    /// One character of a level.
    Any,
    /// One character in (or not in) these ranges.
    Set { ranges: Vec<(char, char)>, except: bool },
    /// Characters of a level.
    Level,
    /// Characters.
    All,
    /// Perhaps passes over the `Levels` that follows.
    Maybe,
    /// Characters that end with this delimiter.
    Levels(char),
}

/// A piece of a pattern before `{}` is multiplied out: characters that mean themselves are told from those that do not.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Sign {
    Plain(char),
    Special(char),
}

impl Glob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// A sentence about what is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("`{text}` is not a pattern: {why}"));
        if text.is_empty() {
            return Err("a pattern is empty".to_string());
        }
        if text.len() > LONGEST {
            return Err(format!("a pattern is longer than {LONGEST} bytes"));
        }
        let signs = match signs(text) {
            Ok(signs) => signs,
            Err(why) => return wrong(why),
        };
        let mut alternatives = Vec::new();
        let mut open = vec![signs];
        while let Some(signs) = open.pop() {
            match expand(&signs) {
                Ok(None) => match steps(&signs) {
                    Ok(alternative) => alternatives.push(alternative),
                    Err(why) => return wrong(why),
                },
                Ok(Some(branches)) => open.extend(branches),
                Err(why) => return wrong(why),
            }
            if alternatives.len() + open.len() > MOST_ALTERNATIVES {
                return wrong(&format!("it stands for more than {MOST_ALTERNATIVES} patterns"));
            }
        }
        Ok(Self {
            text: text.to_string(),
            alternatives,
        })
    }

    /// The pattern that matches this text and nothing else.
    pub fn exactly(text: &str) -> Self {
        let mut escaped = String::with_capacity(text.len());
        for c in text.chars() {
            if matches!(c, '?' | '*' | '[' | ']' | '{' | '}' | '\\') {
                escaped.push('\\');
            }
            escaped.push(c);
        }
        Self {
            text: escaped,
            alternatives: vec![Alternative {
                prefix: text.to_string(),
                steps: Vec::new(),
            }],
        }
    }

    /// The pattern `**`, which matches everything.
    pub fn everything() -> Self {
        let alternative = Alternative {
            prefix: String::new(),
            steps: vec![Step::All],
        };
        Self {
            text: "**".to_string(),
            alternatives: vec![alternative],
        }
    }

    /// Whether the whole of `text` is as the pattern says.
    pub fn matches(&self, text: &str) -> bool {
        self.alternatives.iter().any(|alternative| alternative.matches(text))
    }

    /// Whether the pattern matches `begin` followed by `end`, or by `end` with other letters in upper and lower case. For what forbids: a name that
    /// is written otherwise still names the thing.
    pub fn matches_end_in_any_case(&self, begin: &str, end: &str) -> bool {
        self.alternatives.iter().any(|alternative| {
            if !alternative.prefix.starts_with(begin) && !begin.starts_with(&alternative.prefix) {
                return false;
            }
            // What a pattern begins with may reach into the end.
            let prefix = alternative.prefix.chars().map(Step::One);
            let steps: Vec<Step> = prefix.chain(alternative.steps.iter().cloned()).collect();
            let exact = begin.chars().map(|c| (c, false));
            walk(&steps, exact.chain(end.chars().map(|c| (c, true))))
        })
    }

    /// Whether some text that begins like this could match. A no is certain, a yes is not.
    pub fn may_begin_with(&self, begin: &str) -> bool {
        self.alternatives.iter().any(|alternative| {
            let prefix = alternative.prefix.as_str();
            prefix.starts_with(begin) || (begin.starts_with(prefix) && !alternative.steps.is_empty())
        })
    }

    /// What the texts that match end with behind their last `/`, where the pattern says it letter by letter.
    pub fn last_names(&self) -> impl Iterator<Item = String> {
        self.alternatives.iter().filter_map(Alternative::last_name)
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether one text only matches.
    pub fn is_literal(&self) -> bool {
        self.literal().is_some()
    }

    /// The one text that matches, if there is only one.
    pub fn literal(&self) -> Option<&str> {
        match self.alternatives.as_slice() {
            [alternative] if alternative.steps.is_empty() => Some(&alternative.prefix),
            _ => None,
        }
    }
}

impl Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Glob {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Glob {}

fn is_delimiter(c: char) -> bool {
    matches!(c, ':' | '/')
}

fn signs(text: &str) -> Result<Vec<Sign>, &'static str> {
    let mut signs = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        signs.push(match c {
            '\\' => Sign::Plain(chars.next().ok_or("nothing follows the last `\\`")?),
            '?' | '*' | '[' | ']' | '{' | '}' | ',' | '-' | '!' => Sign::Special(c),
            c => Sign::Plain(c),
        });
    }
    Ok(signs)
}

/// Multiplies out the first `{}`; `None` if there is none. Sets are passed over: braces and commas in them are characters.
fn expand(signs: &[Sign]) -> Result<Option<Vec<Vec<Sign>>>, &'static str> {
    let mut depth = 0_usize;
    let mut in_set = false;
    let mut start = None;
    let mut cuts = Vec::new();
    for (index, sign) in signs.iter().enumerate() {
        match sign {
            Sign::Special('[') if !in_set => in_set = true,
            Sign::Special(']') if in_set => in_set = false,
            _ if in_set => {}
            Sign::Special('{') => {
                depth += 1;
                start = start.or(Some(index));
            }
            Sign::Special(',') if depth == 1 => cuts.push(index),
            Sign::Special('}') if depth == 1 => {
                cuts.push(index);
                let from = start.unwrap_or_default();
                let before = signs.get(..from).unwrap_or_default();
                let after = signs.get(index + 1..).unwrap_or_default();
                let mut from = from + 1;
                let mut branches = Vec::with_capacity(cuts.len());
                for cut in cuts {
                    let branch = signs.get(from..cut).unwrap_or_default();
                    branches.push([before, branch, after].concat());
                    from = cut + 1;
                }
                return Ok(Some(branches));
            }
            Sign::Special('}') => {
                depth = depth
                    .checked_sub(1)
                    .ok_or("a `}` has no `{`; write `\\}` for the character")?
            }
            _ => {}
        }
    }
    if depth > 0 {
        Err("a `{` is not closed")
    } else {
        Ok(None)
    }
}

fn steps(signs: &[Sign]) -> Result<Alternative, &'static str> {
    let mut steps: Vec<Step> = Vec::new();
    let mut left = signs.iter().copied().peekable();
    let mut level_start = true;
    while let Some(sign) = left.next() {
        let mut next_level_start = false;
        match sign {
            Sign::Special('?') => steps.push(Step::Any),
            Sign::Special('*') => {
                let mut stars = 1;
                while left.next_if_eq(&Sign::Special('*')).is_some() {
                    stars += 1;
                }
                let delimiter = match left.peek() {
                    Some(Sign::Plain(c)) if is_delimiter(*c) => Some(*c),
                    _ => None,
                };
                match delimiter {
                    _ if stars == 1 => steps.push(Step::Level),
                    Some(delimiter) if level_start => {
                        left.next();
                        steps.extend([Step::Maybe, Step::Levels(delimiter)]);
                        next_level_start = true;
                    }
                    _ => steps.push(Step::All),
                }
            }
            Sign::Special('[') => {
                let except = left.next_if_eq(&Sign::Special('!')).is_some();
                let mut ranges = Vec::new();
                loop {
                    let first = match left.next().ok_or("a `[` is not closed")? {
                        Sign::Special(']') => break,
                        Sign::Plain(c) | Sign::Special(c) => c,
                    };
                    let mut last = first;
                    if left.next_if_eq(&Sign::Special('-')).is_some() {
                        last = match left.next().ok_or("a `[` is not closed")? {
                            Sign::Special(']') => {
                                return Err("a range in `[]` has no end; write `\\-` for the character");
                            }
                            Sign::Plain(c) | Sign::Special(c) => c,
                        };
                    }
                    if last < first {
                        return Err("a range in `[]` ends before it begins");
                    }
                    ranges.push((first, last));
                }
                if ranges.is_empty() {
                    return Err("a `[]` is empty");
                }
                steps.push(Step::Set { ranges, except });
            }
            Sign::Special(']') => return Err("a `]` has no `[`; write `\\]` for the character"),
            Sign::Plain(c) | Sign::Special(c) => {
                next_level_start = is_delimiter(c);
                steps.push(Step::One(c));
            }
        }
        level_start = next_level_start;
    }
    let plain = steps.iter().take_while(|step| matches!(step, Step::One(_))).count();
    let prefix = steps
        .drain(..plain)
        .filter_map(|step| if let Step::One(c) = step { Some(c) } else { None })
        .collect();
    Ok(Alternative { prefix, steps })
}

impl Alternative {
    fn last_name(&self) -> Option<String> {
        let prefix = self.prefix.chars().map(Step::One);
        let mut name = None;
        for step in prefix.chain(self.steps.iter().cloned()) {
            match step {
                Step::One('/') | Step::Levels('/') => name = Some(String::new()),
                Step::One(c) => name.iter_mut().for_each(|name: &mut String| name.push(c)),
                Step::Any | Step::Set { .. } | Step::Level | Step::All | Step::Maybe | Step::Levels(_) => name = None,
            }
        }
        name.filter(|name| !name.is_empty())
    }

    fn matches(&self, text: &str) -> bool {
        let Some(rest) = text.strip_prefix(self.prefix.as_str()) else {
            return false;
        };
        match self.steps.as_slice() {
            [] => rest.is_empty(),
            [Step::All] => true,
            [Step::Level] => !rest.contains(is_delimiter),
            steps => walk(steps, rest.chars().map(|c| (c, false))),
        }
    }
}

/// The character, and where its case is no matter its other cases.
fn cases(c: char, any_case: bool) -> impl Iterator<Item = char> + Clone {
    let others = any_case.then(|| c.to_lowercase().chain(c.to_uppercase()));
    std::iter::once(c).chain(others.into_iter().flatten())
}

/// Follows all ways through the steps at once. `here[i]` says that step `i` is to be taken next; the last is the end. Of each character it is told
/// whether its case is no matter.
fn walk(steps: &[Step], text: impl Iterator<Item = (char, bool)>) -> bool {
    let mut here = vec![false; steps.len() + 1];
    let mut there = vec![false; steps.len() + 1];
    let mark = |places: &mut [bool], index: usize| {
        if let Some(place) = places.get_mut(index) {
            *place = true;
        }
    };
    mark(&mut here, 0);
    let settle = |places: &mut [bool]| {
        for (index, step) in steps.iter().enumerate() {
            if places.get(index).is_some_and(|set| *set) {
                match step {
                    Step::Level | Step::All => mark(places, index + 1),
                    Step::Maybe => {
                        mark(places, index + 1);
                        mark(places, index + 2);
                    }
                    Step::One(_) | Step::Any | Step::Set { .. } | Step::Levels(_) => {}
                }
            }
        }
    };
    settle(&mut here);
    for (c, any_case) in text {
        there.fill(false);
        for (index, step) in steps.iter().enumerate() {
            if !here.get(index).is_some_and(|set| *set) {
                continue;
            }
            match step {
                Step::One(one) if cases(c, any_case).any(|c| c == *one) => mark(&mut there, index + 1),
                Step::Any if !is_delimiter(c) => mark(&mut there, index + 1),
                Step::Set { ranges, except } => {
                    let fits = |c: char| {
                        let listed = ranges.iter().any(|(first, last)| (*first..=*last).contains(&c));
                        (*except && !listed && !is_delimiter(c)) || (!*except && listed)
                    };
                    if cases(c, any_case).any(fits) {
                        mark(&mut there, index + 1);
                    }
                }
                Step::Level if !is_delimiter(c) => mark(&mut there, index),
                Step::All => mark(&mut there, index),
                Step::Levels(delimiter) => {
                    mark(&mut there, index);
                    if *delimiter == c {
                        mark(&mut there, index + 1);
                    }
                }
                Step::One(_) | Step::Any | Step::Level | Step::Maybe => {}
            }
        }
        settle(&mut there);
        std::mem::swap(&mut here, &mut there);
        if !here.contains(&true) {
            return false;
        }
    }
    here.last().is_some_and(|set| *set)
}

/// Patterns for tags: one of the lists must have all its patterns met.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TagRule(pub Vec<Vec<Glob>>);

impl TagRule {
    /// Whether there is a list of which every pattern matches some tag. Without lists nothing matches.
    pub fn matches<'a>(&self, tags: impl IntoIterator<Item = &'a str> + Clone) -> bool {
        self.0.iter().any(|all| {
            !all.is_empty()
                && all
                    .iter()
                    .all(|glob| tags.clone().into_iter().any(|tag| glob.matches(tag)))
        })
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests;

//! What a resource may be called.

/// What is wrong with a resource's name, if anything; names of depots and clusters become SQL catalogs and are narrower.
pub(crate) fn check(name: &str, narrow: bool) -> Result<(), String> {
    const LONGEST: usize = 48;
    if name.is_empty() {
        return Err("the name is empty".to_string());
    }
    if name.chars().count() > LONGEST {
        return Err(format!("the name is longer than {LONGEST} characters"));
    }
    let letter_or_digit = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if narrow {
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(letter_or_digit) {
            return Err(format!(
                "`{name}` is not a name here: expected a lower-case letter, then lower-case letters and digits"
            ));
        }
    } else if !name.starts_with(letter_or_digit)
        || !name.ends_with(letter_or_digit)
        || !name.chars().all(|c| letter_or_digit(c) || c == '-')
    {
        return Err(format!(
            "`{name}` is not a name here: expected lower-case letters, digits and inner hyphens, such as `sales-policy`"
        ));
    }
    Ok(())
}

/// Catalogs of the program itself, which no depot may hide.
pub(crate) const RESERVED_DEPOTS: [&str; 2] = ["gateway", "system"];

//! The page of the documentation about a kind of resource, made from what the kind says of itself.

use std::fmt::Write;

use crate::kind::{Field, Kind};
use crate::suggest;

const HEAD: &[(&str, &str, &str)] = &[
    ("name", "yes", "What the resource is called."),
    ("version", "yes", "The version of the form."),
    ("type", "yes", "The kind of resource."),
    ("tags", "", "Free tags of the resource itself."),
    ("description", "", "A sentence for people."),
    ("owner", "", "Who answers for the resource."),
    ("layer", "", "`user` or `system`; `user` when absent."),
    ("workspace", "", "The workspace of a `secret`; `public` when absent."),
];

/// The page about a kind, in Markdown.
pub fn reference(kind: &dyn Kind) -> String {
    let mut page = String::new();
    // Writing to a string cannot fail.
    let _ = write_page(&mut page, kind);
    page
}

fn write_page(page: &mut String, kind: &dyn Kind) -> std::fmt::Result {
    let types = std::iter::once(kind.name()).chain(kind.aliases().iter().copied());
    let names = if kind.has_narrow_names() {
        "a lower-case letter, then lower-case letters and digits, at most 48"
    } else {
        "lower-case letters, digits and inner hyphens, at most 48"
    };
    writeln!(page, "# {}\n", kind.name())?;
    writeln!(page, "{}\n", kind.description())?;
    writeln!(
        page,
        "`type`: {}; `version`: {}. Names are {names}.\n",
        suggest::quoted(types),
        suggest::quoted(kind.versions().iter().copied())
    )?;
    writeln!(page, "```yaml\n{}```\n", kind.example())?;
    writeln!(page, "## The head\n\n| key | required | meaning |\n| --- | --- | --- |")?;
    for (key, required, meaning) in HEAD {
        writeln!(page, "| `{key}` | {required} | {meaning} |")?;
    }
    writeln!(
        page,
        "\n## The block `{}`\n\n| key | required | value | meaning |\n| --- | --- | --- | --- |",
        kind.name()
    )?;
    for Field {
        path,
        value,
        required,
        description,
    } in kind.fields()
    {
        let required = if *required { "yes" } else { "" };
        writeln!(page, "| `{path}` | {required} | {value} | {description} |")?;
    }
    writeln!(
        page,
        "\nAny other key is an error. `${{NAME}}` in a value is filled in from the environment; `$$` is the character `$`. A file may hold \
         several manifests, as documents separated by `---` or as a list."
    )
}

//! Changes of manifests that are worked out, looked at, and then written as a whole.

use std::fs;
use std::path::{Path, PathBuf};

use minerva_resources::{Action, Change, Problems, load, load_changed, plan, plan_removal};
use tempfile::TempDir;

fn user(name: &str, tag: &str) -> String {
    format!("name: {name}\nversion: v1\ntype: user\nuser: {{tags: [{tag}]}} # of {name}\n")
}

/// A folder in force and one with what is given.
struct Folders {
    held: TempDir,
    given: TempDir,
}

impl Folders {
    fn new(held: &[(&str, &str)], given: &[(&str, &str)]) -> Self {
        let folders = Self {
            held: TempDir::new().unwrap(),
            given: TempDir::new().unwrap(),
        };
        for (folder, files) in [(folders.held.path(), held), (folders.given.path(), given)] {
            for (name, text) in files {
                fs::write(folder.join(name), text).unwrap();
            }
        }
        folders
    }

    fn path(&self) -> Vec<PathBuf> {
        vec![self.held.path().to_path_buf()]
    }

    fn plan(&self) -> Result<Change, Problems> {
        plan(&self.path(), self.held.path(), &[self.given.path().to_path_buf()])
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.held.path().join(name)).unwrap()
    }
}

fn actions(change: &Change) -> Vec<(&str, Action)> {
    let named = change.resources.iter();
    named.map(|(_, name, action)| (name.as_str(), *action)).collect()
}

#[test]
fn what_is_declared_is_replaced_where_it_stands_and_what_is_new_comes_beside() {
    let held = format!("# the first line\n{}---\n{}", user("jane", "a"), user("joe", "a"));
    let given = format!(
        "{}---\n{}---\n{}",
        user("joe", "b"),
        user("jill", "a"),
        user("jane", "a")
    );
    let folders = Folders::new(&[("users.yaml", &held)], &[("more.yaml", &given)]);
    let change = folders.plan().unwrap();
    assert_eq!(
        actions(&change),
        [
            ("joe", Action::Changed),
            ("jill", Action::Created),
            // The line before it belongs to the document, so it is another now.
            ("jane", Action::Changed)
        ]
    );
    let set = load_changed(&folders.path(), &change, &[]).unwrap();
    assert_eq!(set.users().count(), 3);
    assert_eq!(folders.file("users.yaml"), held, "nothing is written yet");
    change.write().unwrap();
    let set = load(&folders.path(), &[]).unwrap();
    let tags = |id: &str| set.user(id).unwrap().tags.contains(&"b".to_owned());
    assert_eq!(["jane", "joe", "jill"].map(tags), [false, true, false]);
    assert!(folders.file("users.yaml").contains("# of joe") && folders.file("more.yaml").contains("jill"));
    let again = folders.plan().unwrap();
    assert!(again.files.is_empty());
    assert!(actions(&again).iter().all(|(_, action)| *action == Action::Unchanged));
    let left: Vec<_> = fs::read_dir(folders.held.path()).unwrap().collect();
    assert_eq!(left.len(), 2, "nothing else is left in the folder: {left:?}");
}

#[test]
fn what_cannot_be_put_in_its_place_is_refused_by_file_and_line() {
    let list = "- {name: jane, version: v1, type: user, user: {}}\n- {name: joe, version: v1, type: user, user: {}}\n";
    let depot = "---\nname: crm\nversion: v2alpha\ntype: depot\ndepot:\n  type: SQLITE\n  sqlite: {path: crm.db}\n";
    for (held, given, expected) in [
        (list, user("joe", "a").as_str(), "user `joe` is declared at"),
        ("", depot, "the path `crm.db` is relative"),
        ("", "a: [", "given.yaml:"),
        ("", "# nothing\n", "there is no manifest in it"),
    ] {
        let folders = Folders::new(&[("held.yaml", held)], &[("given.yaml", given)]);
        let problems = folders.plan().unwrap_err().to_string();
        assert!(problems.contains(expected), "{given}: {problems}");
    }
    let absolute = depot.replace("crm.db", "/var/crm.db");
    assert!(Folders::new(&[], &[("given.yaml", &absolute)]).plan().is_ok());
    let missing = plan(&[], Path::new("/nowhere"), &[PathBuf::from("/nowhere/a.yaml")]);
    assert!(missing.unwrap_err().to_string().contains("/nowhere/a.yaml"));
}

#[test]
fn a_change_that_is_not_in_order_is_seen_before_it_is_written() {
    let folders = Folders::new(
        &[("users.yaml", &user("jane", "a"))],
        &[(
            "data.yaml",
            "name: d\nversion: v1\ntype: dataset\ndataset: {address: 'dataos://gone:a/b'}\n",
        )],
    );
    let change = folders.plan().unwrap();
    let problems = load_changed(&folders.path(), &change, &[]).unwrap_err().to_string();
    assert!(problems.contains("there is no depot `gone`"), "{problems}");
}

#[test]
fn one_file_that_cannot_be_written_leaves_all_as_they_were() {
    let folders = Folders::new(&[("a.yaml", &user("jane", "a"))], &[]);
    let mut change = Change::default();
    let (first, second) = (folders.held.path().join("a.yaml"), folders.held.path().join("b.yaml"));
    fs::create_dir_all(second.join("inside")).unwrap();
    change.files.insert(first, (Some(user("jane", "a")), user("jane", "b")));
    change.files.insert(second, (None, user("joe", "b")));
    assert!(change.write().unwrap_err().contains("b.yaml"));
    assert_eq!(folders.file("a.yaml"), user("jane", "a"));
}

#[test]
fn a_file_that_nobody_would_read_is_refused() {
    for name in ["users.txt", "users", ".users.yaml"] {
        let folders = Folders::new(&[], &[(name, &user("jane", "a"))]);
        let file = folders.given.path().join(name);
        let refused = plan(&folders.path(), folders.held.path(), &[file])
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains(name) && refused.contains("ends with `.yaml` or `.yml`"),
            "{refused}"
        );
    }
}

#[test]
fn what_is_taken_out_leaves_the_rest_of_its_file_as_it_was() {
    let (jane, joe, jill) = (user("jane", "a"), user("joe", "a"), user("jill", "a"));
    for (held, unwanted, after) in [
        (
            format!("# head\n\n{jane}---\n# of joe\n{joe}\n\n--- # end\n{jill}"),
            "joe",
            Some(format!("# head\n\n{jane}--- # end\n{jill}")),
        ),
        (format!("{jane}---\r\n{joe}"), "jane", Some(format!("---\r\n{joe}"))),
        (
            format!("---\n{jane}---\n{joe}---\n"),
            "joe",
            Some(format!("---\n{jane}---\n")),
        ),
        (
            format!("{jane}---\n{joe}").trim_end().to_owned(),
            "joe",
            Some(jane.clone()),
        ),
        (
            format!("--- {{name: joe, version: v1, type: user, user: {{}}}}\n---\n{jane}"),
            "joe",
            Some(format!("---\n{jane}")),
        ),
        (format!("# kept\n---\n{joe}"), "joe", Some("# kept\n".to_owned())),
        (joe.clone(), "joe", None),
        (format!("---\n{joe}---\n"), "joe", None),
    ] {
        let folders = Folders::new(&[("users.yaml", &held), ("other.yaml", &user("ann", "a"))], &[]);
        let change = plan_removal(&folders.path(), &[("user", unwanted)]).unwrap();
        assert_eq!(actions(&change), [(unwanted, Action::Deleted)]);
        assert_eq!(folders.file("users.yaml"), held, "nothing is written yet");
        let set = load_changed(&folders.path(), &change, &[]).unwrap();
        assert!(set.user(unwanted).is_none() && set.user("ann").is_some());
        change.write().unwrap();
        let found = fs::read_to_string(folders.held.path().join("users.yaml")).ok();
        assert_eq!(found, after, "{held}");
        assert_eq!(load(&folders.path(), &[]).unwrap().users().count(), set.users().count());
    }
    let list = "- {name: jane, version: v1, type: user, user: {}}\n- {name: joe, version: v1, type: user, user: {}}\n";
    let folders = Folders::new(&[("users.yaml", list)], &[]);
    let refused = plan_removal(&folders.path(), &[("user", "joe")])
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("user `joe` is declared in one document with user `jane`"),
        "{refused}"
    );
    let both = plan_removal(&folders.path(), &[("user", "joe"), ("user", "jane")]).unwrap();
    assert_eq!(actions(&both).len(), 2);
    // A file that is named by itself is read at the next start.
    let file = folders.held.path().join("users.yaml");
    plan_removal(std::slice::from_ref(&file), &[("user", "joe"), ("user", "jane")])
        .unwrap()
        .write()
        .unwrap();
    assert_eq!(load(&[file], &[]).unwrap().users().count(), 0);
}

#[test]
fn what_others_refer_to_is_not_taken_out_of_a_set_that_holds() {
    let depot = "name: crm\nversion: v1\ntype: depot\ndepot: {type: MEMORY, spec: {}}\n";
    let dataset = "name: d\nversion: v1\ntype: dataset\ndataset: {address: 'dataos://crm:a/b'}\n";
    let folders = Folders::new(&[("crm.yaml", depot), ("d.yaml", dataset)], &[]);
    let change = plan_removal(&folders.path(), &[("depot", "crm")]).unwrap();
    let problems = load_changed(&folders.path(), &change, &[]).unwrap_err().to_string();
    assert!(problems.contains("dataset `d`: there is no depot `crm`"), "{problems}");
}

/// Between the working out of a change and its writing somebody may edit a file: an edit is never lost.
#[test]
fn what_was_changed_meanwhile_is_not_written_over() {
    let (jane, joe) = (user("jane", "a"), user("joe", "a"));
    let given = format!("{}---\n{}", user("jane", "b"), user("ann", "b"));
    let applied = Folders::new(&[("jane.yaml", &jane), ("joe.yaml", &joe)], &[("new.yaml", &given)]);
    let removed = Folders::new(&[("jane.yaml", &jane), ("joe.yaml", &joe)], &[]);
    let edit = user("jane", "edited");
    for (folders, change) in [
        (&applied, applied.plan().unwrap()),
        (
            &removed,
            plan_removal(&removed.path(), &[("user", "jane"), ("user", "joe")]).unwrap(),
        ),
    ] {
        fs::write(folders.held.path().join("jane.yaml"), &edit).unwrap();
        let refused = change.write().unwrap_err();
        assert!(
            refused.contains("jane.yaml") && refused.contains("changed meanwhile"),
            "{refused}"
        );
        assert_eq!(
            (folders.file("jane.yaml"), folders.file("joe.yaml")),
            (edit.clone(), joe.clone())
        );
        assert_eq!(fs::read_dir(folders.held.path()).unwrap().count(), 2, "nothing is left");
    }
    // A file that appears where a new one was to be, and one that went away.
    let change = applied.plan().unwrap();
    fs::write(applied.held.path().join("new.yaml"), "# mine\n").unwrap();
    assert!(change.write().unwrap_err().contains("new.yaml"));
    assert_eq!(applied.file("new.yaml"), "# mine\n");
    let change = plan_removal(&removed.path(), &[("user", "joe")]).unwrap();
    fs::remove_file(removed.held.path().join("joe.yaml")).unwrap();
    assert!(change.write().unwrap_err().contains("joe.yaml"));
}

/// Files keep who may read them, whatever the process gives to new ones, when they are written and when they are put back.
#[cfg(target_os = "linux")]
#[test]
fn files_keep_their_rights() {
    use std::os::unix::fs::PermissionsExt;

    let (jane, joe) = (user("jane", "a"), user("joe", "a"));
    let folders = Folders::new(
        &[("a.yaml", &jane), ("b.yaml", &joe)],
        &[("a.yaml", &user("jane", "b"))],
    );
    let path = |name: &str| folders.held.path().join(name);
    let rights = |name: &str| fs::metadata(path(name)).unwrap().permissions().mode() & 0o777;
    fs::set_permissions(path("a.yaml"), fs::Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(path("b.yaml"), fs::Permissions::from_mode(0o646)).unwrap();
    let mut change = folders.plan().unwrap();
    // Nobody removes this one, and it comes after the others.
    fs::create_dir(path("c")).unwrap();
    let up = "../".repeat(folders.held.path().components().count());
    let kernel = path("c").join(format!("{up}proc/version"));
    change.files.insert(path("b.yaml"), (Some(joe.clone()), String::new()));
    change.files.insert(
        kernel.clone(),
        (Some(fs::read_to_string(&kernel).unwrap()), String::new()),
    );
    let refused = change.write().unwrap_err();
    assert!(refused.contains("proc/version` cannot be removed"), "{refused}");
    assert_eq!((folders.file("a.yaml"), folders.file("b.yaml")), (jane, joe));
    assert_eq!([rights("a.yaml"), rights("b.yaml")], [0o666, 0o646]);
    change.files.remove(&kernel);
    change.write().unwrap();
    assert!(folders.file("a.yaml").contains("[b]") && !path("b.yaml").exists());
    assert_eq!(rights("a.yaml"), 0o666);
}

//! Files that change under a running program.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use minerva_resources::{Reload, Resources};
use tempfile::TempDir;

fn user(name: &str) -> String {
    format!("name: {name}\nversion: v1\ntype: user\nuser: {{}}\n")
}

fn open(folder: &Path) -> Resources {
    Resources::open(vec![folder.to_path_buf()], Vec::new()).unwrap()
}

fn unchanged(resources: &Resources) -> bool {
    matches!(resources.poll(), Reload::Unchanged)
}

#[test]
fn a_good_change_is_taken_over_and_a_bad_one_is_not() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, user("jane")).unwrap();
    let resources = open(folder.path());
    assert!(unchanged(&resources));

    fs::create_dir(folder.path().join("more")).unwrap();
    fs::write(folder.path().join("more/b.yml"), user("joe")).unwrap();
    let Reload::Swapped(set) = resources.poll() else {
        panic!("a new file was not seen")
    };
    assert!(set.user("joe").is_some() && resources.current().user("joe").is_some());
    assert!(unchanged(&resources));

    fs::write(&file, "name: jane\nversion: v1\ntype: user\nuser: {ta").unwrap();
    let Reload::Refused(problems) = resources.poll() else {
        panic!("half a file was taken over")
    };
    assert!(problems.to_string().contains("a.yaml:"), "{problems}");
    assert!(unchanged(&resources), "a refusal is said once");
    assert!(resources.last_refusal().is_some() && resources.current().user("jane").is_some());

    fs::write(&file, user("jill")).unwrap();
    assert!(matches!(resources.poll(), Reload::Swapped(_)));
    assert!(resources.last_refusal().is_none() && resources.current().user("jane").is_none());

    fs::remove_file(folder.path().join("more/b.yml")).unwrap();
    assert!(matches!(resources.poll(), Reload::Swapped(_)));
    assert!(resources.current().user("joe").is_none());
}

#[test]
fn a_bad_change_that_is_taken_back_leaves_no_trace() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, user("jane")).unwrap();
    let resources = open(folder.path());
    let before = resources.current();
    fs::write(&file, "[").unwrap();
    assert!(matches!(resources.poll(), Reload::Refused(_)));
    fs::write(&file, user("jane")).unwrap();
    assert!(unchanged(&resources));
    assert!(resources.last_refusal().is_none() && std::sync::Arc::ptr_eq(&before, &resources.current()));
}

#[test]
fn a_change_within_one_tick_of_the_clock_is_seen() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, user("aaaa")).unwrap();
    let resources = open(folder.path());
    for name in ["bbbb", "cccc", "dddd", "eeee", "ffff"] {
        fs::write(&file, user(name)).unwrap();
        assert!(matches!(resources.poll(), Reload::Swapped(_)), "{name}");
        assert!(resources.current().user(name).is_some());
    }
}

#[test]
fn a_change_that_keeps_length_and_time_is_seen() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("a.yaml");
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let write = |name: &str| {
        fs::write(&file, user(name)).unwrap();
        fs::File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
    };
    write("jane");
    let resources = open(folder.path());
    assert!(unchanged(&resources) && unchanged(&resources));
    let other = folder.path().join("b.tmp");
    fs::write(&other, user("jill")).unwrap();
    fs::File::options()
        .write(true)
        .open(&other)
        .unwrap()
        .set_modified(long_ago)
        .unwrap();
    fs::rename(&other, &file).unwrap();
    assert!(matches!(resources.poll(), Reload::Swapped(_)));
}

#[test]
fn files_that_manifests_name_are_watched_and_a_lost_folder_changes_nothing() {
    let parent = TempDir::new().unwrap();
    let folder = parent.path().join("resources");
    fs::create_dir(&folder).unwrap();
    let secret = "name: s\nversion: v1\ntype: secret\nsecret: {files: {key: ./key.txt}}\n";
    let depot = "---\nname: d\nversion: v2alpha\ntype: depot\ndepot: {type: memory, secrets: [{name: s}]}\n";
    fs::write(folder.join("key.txt"), "one").unwrap();
    fs::write(folder.join("a.yaml"), format!("{secret}{depot}")).unwrap();
    let resources = open(&folder);
    let before = resources.current().depot("d").unwrap().fingerprint.clone();
    fs::write(folder.join("key.txt"), "two").unwrap();
    let Reload::Swapped(set) = resources.poll() else {
        panic!("a new key was not seen")
    };
    let depot = set.depot("d").unwrap();
    assert_eq!(depot.credentials.get("key").map(String::as_str), Some("two"));
    assert_ne!(depot.fingerprint, before);

    fs::rename(&folder, parent.path().join("elsewhere")).unwrap();
    assert!(matches!(resources.poll(), Reload::Refused(_)));
    assert!(unchanged(&resources) && resources.current().depot("d").is_some());
    fs::rename(parent.path().join("elsewhere"), &folder).unwrap();
    assert!(unchanged(&resources) && resources.last_refusal().is_none());
}

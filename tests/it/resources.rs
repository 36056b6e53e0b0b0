//! `minerva get` and `minerva delete`: the resources of a running coordinator and of folders, the real program on real ports.

use std::{
    fs,
    process::{Command, Output},
};

use serde_json::Value;

use crate::{
    minerva::{Minerva, program},
    policies::wait_until,
};

const SHOP: &str = "\
# the shop's depots
name: notes
version: v2alpha
type: depot
depot: {type: memory, memory: {}}
---
name: spare # nothing is in it
version: v2alpha
type: depot
depot: {type: memory, memory: {}}
---
name: kept
version: v1
type: dataset
dataset: {address: 'dataos://notes:none/kept', columns: [{name: id}]}
";

const PEOPLE: &str = "\
name: analyst
version: v1
type: user
user: {tags: [roles:id:user]}
---
name: login
version: v1
type: instance-secret
instance-secret: {acl: r, data: {username: geheim1, password: geheim2}}
---
{name: readers, version: v1, type: policy, policy: {access: {subjects: {tags: [roles:id:user]}, predicates: ['**'], objects: {paths: ['dataos://notes:**']}, allow: true}}}
---
{name: masked, version: v1, type: policy, policy: {data: {type: mask, priority: 5, dataset_id: notes.none.kept, selector: {user: {tags: [roles:id:user]}, column: {names: [id]}}, mask: {operator: nullify}}}}
";

fn start() -> Minerva {
    Minerva::start(&[("shop.yaml", SHOP), ("people.yaml", PEOPLE)], 1)
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn good(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}", said(&output));
    said(&output)
}

fn bad(mut command: Command, code: i32, expected: &str) {
    let output = command.output().unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(code), "{command:?}\n{text}");
    assert!(text.contains(expected), "{command:?}: `{expected}` is not in: {text}");
}

#[test]
fn resources_are_listed_and_shown_without_their_secrets() {
    let minerva = start();
    let all = good(minerva.client(&["get"]));
    for line in [
        "| notes",
        "| spare",
        "| analyst",
        "| login",
        "| readers",
        "| admin",
        "shop.yaml:2",
        "people.yaml:6",
    ] {
        assert!(all.contains(line), "{line}\n{all}");
    }
    let users = good(minerva.client(&["get", "users"]));
    assert!(
        users.contains("analyst") && users.contains("admin") && !users.contains("notes"),
        "{users}"
    );
    let yaml = good(minerva.client(&["get", "dataset", "kept", "-o", "yaml"]));
    assert_eq!(
        yaml,
        "name: kept\nversion: v1\ntype: dataset\ndataset:\n  address: \"dataos://notes:none/kept\"\n  columns:\n    - name: id\n"
    );
    let json: Value = serde_json::from_str(&good(minerva.client(&["get", "policy", "masked", "-o", "json"]))).unwrap();
    assert_eq!(json["policy"]["data"]["mask"]["operator"], "nullify");
    let list: Value = serde_json::from_str(&good(minerva.client(&["get", "policies", "-o", "json"]))).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 2);
    // Neither the values of secrets nor the hashes of keys leave the server, in whatever form.
    for form in ["table", "yaml", "json"] {
        let everything = good(minerva.client(&["get", "-o", form]));
        assert!(
            !everything.contains("geheim") && !everything.contains("sha256"),
            "{everything}"
        );
    }
    let secret: Value = serde_json::from_str(&good(minerva.client(&[
        "get",
        "instance-secret",
        "login",
        "-o",
        "json",
    ])))
    .unwrap();
    assert_eq!(
        secret["instance-secret"]["data"],
        serde_json::json!(["username", "password"])
    );
    // What `get` writes can be applied again where nothing was left out.
    let given = minerva.folder.path().join("given.yaml");
    fs::write(&given, &yaml).unwrap();
    let again = minerva.client(&["apply", "--dry-run", "-f", given.to_str().unwrap()]);
    assert!(good(again).contains("no decision about a declared user is altered"));

    bad(
        minerva.client(&["get", "usr"]),
        2,
        "there is no resource type `usr`; did you mean `user`?",
    );
    bad(
        minerva.client(&["get", "user", "analist"]),
        1,
        "there is no user `analist`; did you mean `analyst`?",
    );
    let key = minerva.key("analyst");
    let as_analyst = |words: &[&str]| {
        let mut command = minerva.client(words);
        command.args(["-u", "analyst"]).env("MINERVA_APIKEY", &key);
        command
    };
    bad(as_analyst(&["get"]), 1, "PERMISSION_DENIED");
    bad(as_analyst(&["delete", "policy", "masked"]), 1, "PERMISSION_DENIED");
    // The same without a coordinator.
    let offline = |words: &[&str]| {
        let mut command = program();
        command.args(words).arg("--resources").arg(minerva.resources());
        command
    };
    assert_eq!(good(offline(&["get", "dataset", "kept", "-o", "yaml"])), yaml);
    assert!(!good(offline(&["get", "-o", "yaml"])).contains("geheim"));
    bad(offline(&["get", "user", "nobody"]), 1, "there is no user `nobody`");
    // What lies there and is not in force is said.
    fs::write(
        minerva.resources().join("wrong.yaml"),
        "{name: x, version: v1, type: user, user: {tgs: []}}",
    )
    .unwrap();
    wait_until(|| said(&minerva.client(&["get", "users"]).output().unwrap()).contains("not in force"));
}

#[test]
fn a_resource_that_is_deleted_leaves_the_rest_as_it_was() {
    let minerva = start();
    let shop = minerva.resources().join("shop.yaml");
    minerva.rows(None, "CREATE TABLE notes.none.kept AS SELECT 1 AS id");
    let key = minerva.key("analyst");
    let analyst = Some(("analyst", key.as_str()));
    let sql = "SELECT id FROM notes.none.kept";
    assert_eq!(minerva.rows(analyst, sql), [""]);

    let dry = good(minerva.client(&["delete", "policy", "masked", "--dry-run"]));
    for line in [
        "policy/masked deleted\n",
        "user `analyst`, `dataos://notes:none/kept`:\n  column `id`:\n    - nullify by `masked`\n    + as it is\n",
        "nothing was changed",
    ] {
        assert!(dry.contains(line), "{line}\n{dry}");
    }
    assert_eq!(
        fs::read_to_string(minerva.resources().join("people.yaml")).unwrap(),
        PEOPLE
    );
    good(minerva.client(&["delete", "policy", "masked"]));
    // It is in force when the command has ended.
    assert_eq!(minerva.rows(analyst, sql), ["1"]);
    let (before, _) = PEOPLE.split_once("---\n{name: masked").unwrap();
    assert_eq!(
        fs::read_to_string(minerva.resources().join("people.yaml")).unwrap(),
        before
    );

    // What the rest refers to stays, and it is said what that is.
    bad(
        minerva.client(&["delete", "depot", "notes"]),
        1,
        "dataset `kept`: there is no depot `notes`",
    );
    bad(
        minerva.client(&["delete", "depot", "nots"]),
        1,
        "there is no depot `nots`; did you mean `notes`?",
    );
    bad(
        minerva.client(&["delete", "depot", "spare", "gone"]),
        1,
        "there is no depot `gone`",
    );
    assert_eq!(fs::read_to_string(&shop).unwrap(), SHOP);
    good(minerva.client(&["delete", "depots", "spare"]));
    let left = SHOP.replace(
        "name: spare # nothing is in it\nversion: v2alpha\ntype: depot\ndepot: {type: memory, memory: {}}\n---\n",
        "",
    );
    assert_eq!(fs::read_to_string(&shop).unwrap(), left);

    // Manifests name what is to go; so does a folder without a coordinator.
    let given = minerva.folder.path().join("given.yaml");
    fs::write(
        &given,
        "{name: readers, version: v1, type: policy}\n---\n{name: login, version: v1, type: secret}\n",
    )
    .unwrap();
    let mut offline = program();
    offline
        .args(["delete", "-f"])
        .arg(&given)
        .arg("--resources")
        .arg(minerva.resources());
    let text = good(offline);
    assert!(
        text.contains("policy/readers deleted\n") && text.contains("secret/login deleted\n"),
        "{text}"
    );
    wait_until(|| said(&minerva.run(analyst, sql, "CSV")).contains("NOT_FOUND"));
    bad(
        minerva.client(&["delete", "user", "admin"]),
        1,
        "user `admin` cannot delete themselves",
    );
    bad(minerva.client(&["delete"]), 2, "required");
    bad(minerva.client(&["delete", "user"]), 2, "required");
    // API keys that were made by command.
    let keys = good(minerva.client(&["user", "apikey", "get", "-u", "analyst"]));
    assert_eq!(keys.matches("analyst").count(), 1, "{keys}");
}

#[test]
fn a_file_that_nobody_would_read_is_not_applied() {
    let minerva = start();
    for name in ["x.txt", ".x.yaml"] {
        let given = minerva.folder.path().join(name);
        fs::write(&given, "{name: joe, version: v1, type: user, user: {}}").unwrap();
        for is_offline in [false, true] {
            let path = given.to_str().unwrap();
            let mut command = program();
            command
                .args(["apply", "-f", path, "--resources"])
                .arg(minerva.resources());
            if !is_offline {
                command = minerva.client(&["apply", "-f", path]);
            }
            let output = command.output().unwrap();
            let text = said(&output);
            assert!(
                !output.status.success() && text.contains("ends with `.yaml` or `.yml`"),
                "{text}"
            );
        }
        assert!(!minerva.resources().join(name).exists());
    }
}

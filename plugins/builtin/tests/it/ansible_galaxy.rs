//! What `builtin:ansible` installs from requirements files, with the real ansible-galaxy, from git repositories and a file: what has a
//! fixed version is fetched once, and what has none each time.

use std::path::{Path, PathBuf};
use std::process::Command;

use forge_plugin_host::{Done, ExecuteError, ExecuteRequest, Grants, Job, Limits};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::ansible::{ansible, programs};
use crate::ansible_core;
use crate::processes::Seen;

/// Runs what the requirements bring, and names the set that it came from.
const PLAYBOOK: &str = "
- hosts: all
  gather_facts: false
  roles: [announce]
  tasks:
    - ansible.builtin.debug:
        msg: \"{{ 'it' | acme.tools.shout }}\"
    - ansible.builtin.debug:
        msg: \"{{ 'it' | acme.more.shout }}\"
";

/// A checkout, a cache, and places that requirements come from.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a folder") };
        for folder in ["cache", "checkout"] {
            std::fs::create_dir(place.path(folder)).expect("a folder");
        }
        place.write("checkout/site.yml", PLAYBOOK);
        place.write("role/meta/main.yml", "dependencies: []\n");
        place.role("the role of v1");
        place.git("role", &["tag", "v1.0.0"]);
        place.collection("tools");
        let artifact = place.path("checkout");
        place.run_program(
            "collection/tools",
            "ansible-galaxy",
            &["collection", "build", "--output-path", utf8(&artifact)],
        );
        place.collection("more");
        place.commit("collection/more");
        place.git("collection/more", &["tag", "1.0.0"]);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    }

    fn run_program(&self, folder: &str, program: &str, arguments: &[&str]) {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(self.path(folder))
            .env("PATH", ansible_core::path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("ANSIBLE_HOME", self.path("ansible-home"))
            .output()
            .expect("it starts");
        assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn git(&self, folder: &str, arguments: &[&str]) {
        let who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"];
        self.run_program(folder, "git", &[&who[..], arguments].concat());
    }

    fn commit(&self, folder: &str) {
        self.git(folder, &["init", "--quiet", "--initial-branch=main"]);
        self.git(folder, &["add", "--all"]);
        self.git(folder, &["commit", "--quiet", "-m", "Change"]);
    }

    /// Commits a role that says so.
    fn role(&self, words: &str) {
        self.write("role/tasks/main.yml", &format!("- ansible.builtin.debug:\n    msg: {words} ran\n"));
        self.commit("role");
    }

    /// Writes a collection with a filter.
    fn collection(&self, name: &str) {
        let folder = format!("collection/{name}");
        let galaxy = format!(
            "namespace: acme\nname: {name}\nversion: 1.0.0\nreadme: README.md\nauthors: [Ada]\nrepository: \"\"\n"
        );
        self.write(&format!("{folder}/galaxy.yml"), &galaxy);
        self.write(&format!("{folder}/README.md"), "A filter.\n");
        let filter = format!(
            "class FilterModule:\n    def filters(self):\n        return {{'shout': lambda text: text.upper() + ' by {name}'}}\n"
        );
        self.write(&format!("{folder}/plugins/filter/shout.py"), &filter);
    }

    /// Each kind at its own place, all with fixed versions; the collection of a file is known by the file.
    fn requirements(&self, role_version: &str) {
        let role =
            format!("- name: announce\n  src: file://{}\n  scm: git\n  version: {role_version}\n", self.url("role"));
        self.write("checkout/roles/requirements.yml", &role);
        self.write(
            "checkout/collections/requirements.yml",
            "collections:\n- name: ./acme-tools-1.0.0.tar.gz\n  type: file\n",
        );
        let more =
            format!("collections:\n- name: file://{}\n  type: git\n  version: 1.0.0\n", self.url("collection/more"));
        self.write("checkout/requirements.yml", &more);
    }

    fn url(&self, folder: &str) -> String {
        self.path(folder).display().to_string()
    }

    /// An attempt in a workspace of its own; answers how it ended and the log.
    fn run(&self) -> (Result<Done, ExecuteError>, String) {
        let workspace = tempfile::tempdir().expect("a folder");
        for folder in ["home", "tmp"] {
            std::fs::create_dir(workspace.path().join(folder)).expect("a folder");
        }
        self.run_program(".", "cp", &["-r", "checkout", utf8(&workspace.path().join("repository"))]);
        let inventory = workspace.path().join("hosts");
        std::fs::write(&inventory, "web-1 ansible_connection=local\n").expect("a file");
        let seen = Seen { path: Some(ansible_core::path().clone()), ..Seen::default() };
        let request = ExecuteRequest {
            job: Job {
                params: json!({ "playbook": "site.yml", "color": false }),
                config: Value::Null,
                checkout: Some("repository".to_owned()),
                inventory: Some(utf8(&inventory).to_owned()),
                cache: Some(self.path("cache").display().to_string()),
                ..Job::default()
            },
            workspace: workspace.path().to_owned(),
            grants: Grants { plugin_name: "ansible".to_owned(), programs: programs() },
            limits: Limits::default(),
            file_user: None,
        };
        let ended = ansible().execute(request, seen.services());
        (ended, seen.log())
    }

    /// The log of an attempt that ends well.
    fn log(&self) -> String {
        let (ended, log) = self.run();
        assert!(ended.is_ok(), "{ended:?}\n{log}");
        log
    }

    /// What lies in the cache, sets or not.
    fn sets(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path("cache/galaxy")) else { return Vec::new() };
        entries.map(|entry| entry.expect("listed").file_name().to_string_lossy().into_owned()).collect()
    }
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("the path is UTF-8")
}

#[test]
fn roles_and_collections_with_fixed_versions_are_fetched_once() {
    let place = Place::new();
    place.requirements("v1.0.0");
    // Attempts that begin together do not disturb one another, and leave one set.
    let logs: Vec<String> = std::thread::scope(|scope| {
        [0, 1].map(|_| scope.spawn(|| place.log())).map(|run| run.join().expect("no panic")).into()
    });
    for log in logs {
        assert!(
            log.contains("the role of v1 ran") && log.contains("IT by tools") && log.contains("IT by more"),
            "{log}"
        );
    }
    let sets = place.sets();
    assert!(sets.len() == 1 && !sets[0].starts_with("new-"), "{sets:?}");

    // The sources are gone: what was installed is taken, and nothing else is asked for.
    for source in ["role", "collection"] {
        std::fs::rename(place.path(source), place.path(&format!("{source}-gone"))).expect("moved");
    }
    let log = place.log();
    assert!(log.contains("taking roles and collections that an earlier task installed"), "{log}");
    assert!(!log.contains("Starting galaxy") && !log.contains("WARNING"), "{log}");
    assert!(log.contains("the role of v1 ran") && log.contains("IT by tools") && log.contains("IT by more"), "{log}");

    // Other requirements are another set: these cannot be had any more, and leave none.
    place.requirements("v2.0.0");
    let (ended, log) = place.run();
    let Err(ExecuteError::Failed { message, .. }) = ended else { panic!("{ended:?}\n{log}") };
    assert!(message.starts_with("ansible-galaxy did not install roles/requirements.yml: exit code"), "{message}");
    assert_eq!(place.sets(), sets, "nothing half made is left");
}

#[test]
fn a_changed_file_is_another_collection_and_a_branch_is_fetched_each_time() {
    let place = Place::new();
    place.requirements("v1.0.0");
    place.log();
    // The same line names another file.
    place.write(
        "collection/tools/plugins/filter/shout.py",
        "class FilterModule:\n    def filters(self):\n        return {'shout': lambda text: text + ' anew'}\n",
    );
    let artifact = place.path("checkout");
    place.run_program(
        "collection/tools",
        "ansible-galaxy",
        &["collection", "build", "--force", "--output-path", utf8(&artifact)],
    );
    assert!(place.log().contains("it anew"));
    assert_eq!(place.sets().len(), 2);

    // A branch moves: nothing of it is kept.
    place.requirements("main");
    let log = place.log();
    assert!(
        log.contains("for this attempt alone: roles/requirements.yml names no fixed version of announce, but 'main'"),
        "{log}"
    );
    place.role("the role of tomorrow");
    let log = place.log();
    assert!(log.contains("the role of tomorrow ran"), "{log}");
    assert_eq!(place.sets().len(), 2);
}

#[test]
fn what_the_settings_of_the_project_name_is_found_besides() {
    let place = Place::new();
    place.requirements("v1.0.0");
    place.write("checkout/ansible.cfg", "[defaults]\nroles_path = ./mine\n");
    place.write("checkout/mine/own/tasks/main.yml", "- ansible.builtin.debug:\n    msg: the project's own role ran\n");
    place.write("checkout/site.yml", &PLAYBOOK.replace("[announce]", "[announce, own]"));
    for _ in ["made", "kept"] {
        let log = place.log();
        assert!(log.contains("the project's own role ran") && log.contains("the role of v1 ran"), "{log}");
    }
    let [kept] = place.sets().try_into().expect("one set");

    // What was not used for long goes beyond ten, and what an attempt that was ended left; what may be in use stays.
    let day = std::time::Duration::from_secs(24 * 3600);
    for (name, days) in (0..12).map(|number| (format!("old-{number:02}"), 3 + number)).chain([
        ("new-left".to_owned(), 3),
        ("new-now".to_owned(), 0),
        ("young".to_owned(), 1),
    ]) {
        let folder = place.path("cache/galaxy").join(&name);
        std::fs::create_dir_all(folder.join("roles")).expect("a folder");
        let used = std::time::SystemTime::now() - day * days;
        std::fs::File::open(folder).and_then(|folder| folder.set_modified(used)).expect("aged");
    }
    place.log();
    let mut left = place.sets();
    left.retain(|name| *name != kept);
    left.sort();
    let mut expected: Vec<String> = (0..8).map(|number| format!("old-{number:02}")).collect();
    expected.splice(0..0, ["new-now".to_owned()]);
    expected.push("young".to_owned());
    assert_eq!(left, expected, "eight, the young one and the one in use are ten");
}

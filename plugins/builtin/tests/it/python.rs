//! `builtin:python`, from its component, with the machine's Python and packages that the test writes: no network.

use std::path::PathBuf;
use std::sync::OnceLock;

use forge_plugin_host::{
    Capability, Done, ExecuteError, ExecuteRequest, Grants, Host, HostOptions, Job, Limits, Outcome, Plugin,
};
use serde_json::{Value, json};

use crate::processes::Seen;

/// Writes a wheel of a module `greeter` that says which version it is: the folder and the version are its arguments.
const WHEEL: &str = r#"
import sys, zipfile
folder, version = sys.argv[1:]
with zipfile.ZipFile(f"{folder}/greeter-{version}-py3-none-any.whl", "w") as wheel:
    info = f"greeter-{version}.dist-info"
    wheel.writestr("greeter.py", f"WORDS = 'greeter {version}'\n")
    wheel.writestr("greeter_main/__main__.py", "import greeter; print('main of', greeter.WORDS)\n")
    wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: greeter\nVersion: {version}\n")
    wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(f"{info}/RECORD", "")
"#;

/// Compiled once for all tests.
fn python() -> &'static Plugin {
    static PYTHON: OnceLock<Plugin> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let host = Host::new(HostOptions::default()).expect("the engine starts");
        let builtin = forge_plugin_builtins::get("python").expect("it is built in");
        host.load(builtin.wasm).expect("it is a plugin")
    })
}

/// A workspace with a checkout, a cache, and a folder of packages.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a folder") };
        for folder in ["workspace/home", "workspace/repository", "cache", "packages"] {
            std::fs::create_dir_all(place.path(folder)).expect("a folder");
        }
        place.write("workspace/repository/requirements.txt", &place.lines("greeter==1.0").join("\n"));
        place.write(
            "workspace/repository/tool.py",
            "import greeter, own, sys\nprint(greeter.WORDS, own.X, sys.argv[1:])\n",
        );
        place.write("workspace/repository/own.py", "X = 7\n");
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

    /// Requirements that come from the test's own packages.
    fn lines(&self, requirement: &str) -> [String; 2] {
        [format!("--no-index --find-links {}", self.path("packages").display()), requirement.to_owned()]
    }

    fn package(&self, version: &str) {
        let folder = self.path("packages");
        let written = std::process::Command::new("python3").args(["-c", WHEEL]).arg(folder).arg(version).status();
        assert!(written.expect("python3 is there").success());
    }

    fn request(&self, params: Value) -> ExecuteRequest {
        ExecuteRequest {
            job: Job {
                params,
                config: json!({}),
                checkout: Some("repository".to_owned()),
                cache: Some(self.path("cache").display().to_string()),
                ..Job::default()
            },
            workspace: self.path("workspace"),
            grants: Grants { plugin_name: "python".to_owned(), programs: vec!["python3".to_owned()] },
            limits: Limits::default(),
            file_user: None,
        }
    }

    /// Runs to its end; answers the summary's output and the log.
    fn run(&self, params: Value) -> (Value, String) {
        let seen = Seen::default();
        match python().execute(self.request(params), seen.services()) {
            Ok(Done::Finished(Outcome { output: Some(output), .. })) => (output, seen.log()),
            other => panic!("{other:?}\n{}", seen.log()),
        }
    }

    fn fail(&self, params: Value) -> (ExecuteError, String) {
        let seen = Seen::default();
        let error = python().execute(self.request(params), seen.services()).expect_err("it fails");
        (error, seen.log())
    }

    /// The environments in the cache.
    fn environments(&self) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.path("cache/environments")) else { return Vec::new() };
        let paths = entries.map(|entry| entry.expect("listed").path());
        paths.filter(|path| path.is_dir()).collect()
    }
}

#[test]
fn says_what_it_is() {
    let info = python().describe().expect("it describes itself");
    assert_eq!(info.name, "python");
    assert!(info.wants.contains(&Capability::Process(vec!["python3".to_owned()])));
}

#[test]
fn runs_a_script_a_file_and_a_module_without_an_environment() {
    let place = Place::new();
    let (output, log) = place.run(json!({
        "script": "import json, own, sys, os\nprint(own.X, sys.argv, os.path.basename(os.getcwd()))",
        "arguments": ["one two"]
    }));
    assert_eq!(log, "7 ['../forge-script.py', 'one two'] repository\n");
    assert_eq!((&output["exit_code"], output.get("environment")), (&json!(0), None));
    assert!(output["python"].as_str().is_some_and(|version| version.starts_with("3.")), "{output}");
    // A module of the checkout that has the name of one of Python's own does not disturb the starter.
    place.write("workspace/repository/json.py", "raise SystemExit('not this one')\n");
    place.write("workspace/repository/exits.py", "import sys\nprint(__name__, sys.argv[0])\nsys.exit(3)\n");
    let (error, log) = place.fail(json!({ "file": "exits.py" }));
    assert_eq!(log, "__main__ ./exits.py\n");
    let ExecuteError::Failed { message, exit_code, .. } = error else { panic!("{error:?}") };
    assert_eq!((message.as_str(), exit_code), ("exit code 3", Some(3)));
    let (_, log) = place.run(json!({ "module": "own" }));
    assert_eq!(log, "");
    assert_eq!(place.environments(), [] as [PathBuf; 0]);
}

#[test]
fn an_environment_is_made_once_and_kept() {
    let place = Place::new();
    place.package("1.0");
    let params = json!({ "file": "tool.py", "requirements": "requirements.txt", "arguments": ["x"] });
    // Attempts that begin together make one environment.
    let ended: Vec<(Value, String)> = std::thread::scope(|scope| {
        let runs = [0, 1, 2].map(|_| scope.spawn(|| place.run_apart(params.clone())));
        runs.map(|run| run.join().expect("no panic")).into()
    });
    let made = ended.iter().filter(|(output, _)| output["environment"] == "made").count();
    assert_eq!(made, 1, "{ended:?}");
    assert!(ended.iter().all(|(_, log)| log.contains("greeter 1.0 7 ['x']")), "{ended:?}");
    let [environment] = place.environments().try_into().expect("one");

    let (output, log) = place.run(params.clone());
    assert_eq!((&output["environment"], log.as_str()), (&json!("kept"), "greeter 1.0 7 ['x']\n"));

    // What an attempt that was ended left is not taken for whole.
    std::fs::remove_file(environment.join("forge-complete.json")).expect("removed");
    // The link itself: what it leads to is the machine's.
    std::fs::remove_file(environment.join("bin/python")).expect("removed");
    assert_eq!(place.run(params).0["environment"], "made");
    assert_eq!(place.environments().as_slice(), std::slice::from_ref(&environment));

    // The same lines elsewhere are the same; a module of the requirements can be what runs.
    let (output, log) = place.run(json!({ "module": "greeter_main", "requirements": place.lines("greeter==1.0") }));
    assert_eq!(output["environment"], "made", "a file without a last line's end is another text");
    assert!(log.contains("main of greeter 1.0\n"), "{log}");
    assert_eq!(place.environments().len(), 2);
}

impl Place {
    /// As another attempt at the same time: a workspace of its own, the same cache.
    fn run_apart(&self, params: Value) -> (Value, String) {
        let workspace = tempfile::tempdir().expect("a folder");
        let copied = std::process::Command::new("cp")
            .arg("-r")
            .args([self.path("workspace/repository"), workspace.path().join("repository")])
            .status();
        assert!(copied.expect("cp is there").success());
        let seen = Seen::default();
        let request = ExecuteRequest { workspace: workspace.path().to_owned(), ..self.request(params) };
        match python().execute(request, seen.services()) {
            Ok(Done::Finished(Outcome { output: Some(output), .. })) => (output, seen.log()),
            other => panic!("{other:?}\n{}", seen.log()),
        }
    }
}

#[test]
fn the_oldest_environments_go_and_one_in_use_stays() {
    let place = Place::new();
    let folder = place.path("cache/environments");
    for number in 0..12_u64 {
        place.write(&format!("cache/environments/old-{number}/forge-complete.json"), "{}");
        let lock = std::fs::File::create(folder.join(format!("old-{number}.lock"))).expect("made");
        let used = std::time::SystemTime::now() - std::time::Duration::from_secs(1_000 - number);
        lock.set_modified(used).expect("aged");
    }
    let used = std::fs::File::open(folder.join("old-0.lock")).expect("there");
    used.lock_shared().expect("locked");
    // No package at all: an environment with nothing but pip, and no look for one.
    place.run(json!({ "script": "", "requirements": ["--no-index"] }));
    let mut left: Vec<String> = place
        .environments()
        .iter()
        .filter_map(|path| path.file_name()?.to_str()?.strip_prefix("old-").map(str::to_owned))
        .collect();
    left.sort();
    // Ten stay, one of them the new one, and the one in use.
    assert_eq!(left, ["0", "10", "11", "3", "4", "5", "6", "7", "8", "9"]);
    assert!(!folder.join("old-1.lock").exists());
}

#[test]
fn what_lies_in_the_checkout_is_installed_anew_each_time() {
    let place = Place::new();
    place.package("1.0");
    let wheel = place.path("packages/greeter-1.0-py3-none-any.whl");
    std::fs::copy(wheel, place.path("workspace/repository/greeter-1.0-py3-none-any.whl")).expect("copied");
    place.write("workspace/repository/base.txt", "--no-index\n./greeter-1.0-py3-none-any.whl\n");
    place.write("workspace/repository/requirements.txt", "# more stands there\n-r base.txt\n");
    let (output, log) = place.run(json!({ "file": "tool.py", "requirements": "requirements.txt" }));
    assert_eq!(output["environment"], "made");
    assert!(log.contains("'./greeter-1.0-py3-none-any.whl', which lies on this machine"), "{log}");
    assert!(log.contains("greeter 1.0 7 []\n"), "{log}");
    assert_eq!(place.environments(), [] as [PathBuf; 0]);
}

#[test]
fn what_pip_cannot_do_is_told_and_leaves_nothing() {
    let place = Place::new();
    place.package("1.0");
    let params = json!({ "file": "tool.py", "requirements": place.lines("greeter==2.0") });
    let (error, log) = place.fail(params.clone());
    let ExecuteError::Failed { message, exit_code, .. } = error else { panic!("{error:?}") };
    assert!(message.starts_with("pip could not install the requirements (exit code 1): "), "{message}");
    assert!(message.contains("No matching distribution found for greeter==2.0"), "{message}");
    assert_eq!(exit_code, None);
    assert!(log.contains("ERROR: No matching distribution"), "pip's own words are in the log: {log}");
    assert_eq!(place.environments(), [] as [PathBuf; 0]);
    place.package("2.0");
    assert!(place.run(params).1.contains("greeter 2.0 7 []\n"));
}

#[test]
fn a_runner_without_the_interpreter_says_what_to_install() {
    let place = Place::new();
    let seen = Seen { path: Some(place.path("cache").into()), ..Seen::default() };
    let error = python().execute(place.request(json!({ "script": "1" })), seen.services()).expect_err("not there");
    assert!(error.to_string().starts_with("the interpreter python3 is not on this runner"), "{error}");
    assert!(error.to_string().contains("install it there"), "{error}");
}

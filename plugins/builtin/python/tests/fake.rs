//! The executor against the sdk's fake host: what it runs for which params, and how each ending reads.

use forge_plugin::fake::{Answer, FakeHost};
use forge_plugin::{Capability, Command, Done, Executor, Exit, Failure, HostError, Job, Outcome};
use forge_plugin_python::Python;
use serde_json::{Value, json};

fn job(params: &Value) -> Job {
    Job { params_json: params.to_string(), ..Job::default() }
}

fn in_checkout(params: &Value) -> Job {
    Job { checkout: Some("repository".to_owned()), ..job(params) }
}

fn execute(job: Job, host: &mut FakeHost) -> Result<Done, Failure> {
    Python::execute(job, host)
}

fn plan(host: &FakeHost) -> Value {
    serde_json::from_slice(&host.files["forge-python/plan.json"]).expect("it is JSON")
}

fn starter(cwd: Option<&str>) -> Command {
    let up = if cwd.is_some() { "../" } else { "./" };
    Command::new("python3").args(["-I", &format!("{up}forge-python/forge_python.py")]).cwd(cwd)
}

#[test]
fn an_inline_script_and_its_requirements_are_files_beside_the_checkout() {
    let mut host = FakeHost::new();
    let params = json!({ "script": "import yaml", "arguments": ["one"], "requirements": ["pyyaml==6.0.2", "rich"] });
    let job = Job { arguments: vec!["--now".to_owned()], cache: Some("/caches/1".to_owned()), ..in_checkout(&params) };
    let done = execute(job, &mut host);
    let outcome = Outcome::new("exit code 0").exit_code(0).output(&json!({ "exit_code": 0 })).expect("it is JSON");
    assert_eq!(done, Ok(Done::Finished(outcome)));
    assert_eq!(host.files["forge-script.py"], b"import yaml\n");
    assert_eq!(host.files["forge-python/requirements.txt"], b"pyyaml==6.0.2\nrich\n");
    assert_eq!(host.commands, [starter(Some("repository"))]);
    let expected = json!({
        "kind": "script",
        "name": "../forge-script.py",
        "arguments": ["one", "--now"],
        "requirements": "../forge-python/requirements.txt",
        "pip_arguments": [],
        "cache": "/caches/1",
    });
    assert_eq!(plan(&host), expected);
}

#[test]
fn files_lie_in_the_repository() {
    let mut host = FakeHost::new().file("repository/-tool.py", "").file("repository/requirements.txt", "rich\n");
    let params =
        json!({ "file": "-tool.py", "requirements": "requirements.txt", "pip_arguments": ["--require-hashes"] });
    execute(in_checkout(&params), &mut host).expect("it is there");
    let told = plan(&host);
    assert_eq!([&told["name"], &told["requirements"]], ["./-tool.py", "./requirements.txt"]);
    assert_eq!(told["pip_arguments"], json!(["--require-hashes"]));
    assert_eq!(told["cache"], Value::Null);

    let invalid = |job: Job| match execute(job, &mut FakeHost::new().file("repository/a.py", "")) {
        Err(Failure::Invalid(message)) => message,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        invalid(in_checkout(&json!({ "file": "gone.py" }))),
        "[params].file = \"gone.py\" is not in the repository at this commit"
    );
    assert_eq!(
        invalid(in_checkout(&json!({ "file": "a.py", "requirements": "gone.txt" }))),
        "[params].requirements = \"gone.txt\" is not in the repository at this commit"
    );
    assert!(invalid(job(&json!({ "file": "a.py" }))).contains("write the code itself as `script`"));
    assert!(invalid(job(&json!({ "script": "1", "requirements": "r.txt" }))).contains("as a list of lines"));
    assert!(invalid(in_checkout(&json!({ "file": "../../etc/passwd" }))).contains("leaves the workspace"));
}

#[test]
fn a_module_needs_no_repository() {
    let mut host = FakeHost::new();
    let params = json!({ "module": "http.server", "interpreter": "python3.12" });
    execute(job(&params), &mut host).expect("it ends well");
    let expected = Command { program: "python3.12".to_owned(), ..starter(None) };
    assert_eq!(host.commands, [expected]);
    let told = plan(&host);
    assert_eq!(
        [&told["kind"], &told["name"], &told["requirements"]],
        [&json!("module"), &json!("http.server"), &json!(null)]
    );
}

#[test]
fn exactly_one_of_script_file_and_module() {
    for (params, expected) in [
        (json!({}), "neither `file` nor `module` nor `script`"),
        (json!({ "script": "a", "file": "b" }), "more than one of `file`, `module` and `script`"),
        (json!({ "script": "a", "pip_arguments": ["-q"] }), "`pip_arguments` and no `requirements`"),
        (json!({ "scrpt": "a" }), "unknown field `scrpt`"),
    ] {
        let error = execute(job(&params), &mut FakeHost::new()).expect_err("it makes no sense");
        let Failure::Invalid(message) = error else { panic!("{error:?}") };
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn endings() {
    let ended = |host: FakeHost| {
        let mut host = host;
        match execute(job(&json!({ "script": "x" })), &mut host) {
            Err(Failure::Failed(failed)) => (failed.message, failed.exit_code, failed.output_json),
            other => panic!("{other:?}"),
        }
    };
    let told = r#"{"python": "3.12.1", "environment": "kept"}"#;
    let three = ended(FakeHost::new().file("forge-python/outcome.json", told).answer(Answer::code(3)));
    let output = r#"{"exit_code":3,"python":"3.12.1","environment":"kept"}"#;
    assert_eq!(three, ("exit code 3".to_owned(), Some(3), Some(output.to_owned())));
    let told = r#"{"failed": "pip could not install the requirements (exit code 1): no such package"}"#;
    let pip = ended(FakeHost::new().file("forge-python/outcome.json", told).answer(Answer::code(1)));
    assert_eq!(pip.0, "pip could not install the requirements (exit code 1): no such package");
    assert_eq!(pip.1, None, "the code did not end: it never began");
    let killed = Answer { exit: Exit::Signal(9), ..Answer::code(0) };
    assert_eq!(ended(FakeHost::new().answer(killed)).0, "the code was ended by SIGKILL (signal 9)");
    assert_eq!(
        ended(FakeHost::new().deny("python3")).0,
        "denied: python3 is not in [allow].programs of plugins/fake.toml"
    );
    let missing = HostError::NotFound("python3 on PATH".to_owned());
    assert!(ended(FakeHost::new().refuse(missing)).0.starts_with("the interpreter python3 is not on this runner"));

    let mut canceled = FakeHost::new();
    canceled.canceled = true;
    assert_eq!(execute(job(&json!({ "script": "x" })), &mut canceled), Err(Failure::Canceled));
}

#[test]
fn the_schema_says_plainly_what_is_wrong() {
    let info = Python::describe();
    assert_eq!(info.wants.first(), Some(&Capability::Process(vec!["python3".to_owned()])));
    let schema: Value = serde_json::from_str(&info.params_schema.expect("it has one")).expect("it is JSON");
    let validator = jsonschema::validator_for(&schema).expect("it is a schema");
    let mistakes = |params: Value| -> Vec<String> {
        validator.iter_errors(&params).map(|error| format!("{}: {error}", error.instance_path())).collect()
    };
    let none: [&str; 0] = [];
    for right in [
        json!({ "file": "a.py", "interpreter": "python3.12", "arguments": ["b"], "requirements": "requirements.txt" }),
        json!({ "module": "pip", "requirements": ["rich"], "pip_arguments": ["-q"] }),
        json!({ "script": "1" }),
    ] {
        assert_eq!(mistakes(right), none);
    }
    assert_eq!(mistakes(json!({})), [": \"file\" is a required property"]);
    let two = mistakes(json!({ "script": "a", "file": "b" }));
    assert!(two.iter().any(|mistake| mistake.contains("('file' was unexpected)")), "{two:?}");
    let wrong = mistakes(json!({ "module": "-c", "interpreter": "/usr/bin/python3", "requirements": 1 }));
    assert_eq!(wrong.len(), 3, "{wrong:?}");
}

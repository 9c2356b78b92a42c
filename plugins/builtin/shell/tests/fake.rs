//! The executor against the sdk's fake host: what it runs for which params, and how each ending reads.

use forge_plugin::fake::{Answer, FakeHost};
use forge_plugin::{Command, Done, Executor, Exit, Failure, HostError, Job, Outcome};
use forge_plugin_shell::Shell;
use serde_json::{Value, json};

fn job(params: &Value) -> Job {
    Job { params_json: params.to_string(), ..Job::default() }
}

fn execute(job: Job, host: &mut FakeHost) -> Result<Done, Failure> {
    Shell::execute(job, host)
}

#[test]
fn an_inline_script_is_a_file_beside_the_checkout() {
    let mut host = FakeHost::new();
    let job = Job {
        checkout: Some("src/shop".to_owned()),
        arguments: vec!["--now".to_owned()],
        ..job(&json!({ "script": "echo $1", "arguments": ["one"] }))
    };
    let done = execute(job, &mut host);
    let outcome = Outcome::new("exit code 0").exit_code(0).output(&json!({ "exit_code": 0 })).expect("it is JSON");
    assert_eq!(done, Ok(Done::Finished(outcome)));
    assert_eq!(host.files["forge-script"], b"echo $1\n");
    let expected = Command::new("bash").args(["../../forge-script", "one", "--now"]).cwd(Some("src/shop"));
    assert_eq!(host.commands, [expected]);
}

#[test]
fn without_a_repository_it_runs_in_the_workspace() {
    let mut host = FakeHost::new();
    execute(job(&json!({ "script": "print(1)", "interpreter": "python3" })), &mut host).expect("it ends well");
    assert_eq!(host.commands, [Command::new("python3").arg("./forge-script")]);
}

#[test]
fn a_file_lies_in_the_repository() {
    let mut host = FakeHost::new().file("checkout/-deploy.sh", "exit 0");
    let with = |file: &str, checkout: Option<&str>| Job {
        checkout: checkout.map(str::to_owned),
        ..job(&json!({ "file": file }))
    };
    execute(with("-deploy.sh", Some("checkout")), &mut host).expect("it is there");
    assert_eq!(host.commands, [Command::new("bash").arg("./-deploy.sh").cwd(Some("checkout"))]);

    let invalid = |job: Job| match execute(job, &mut FakeHost::new()) {
        Err(Failure::Invalid(message)) => message,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        invalid(with("gone.sh", Some("checkout"))),
        "[params].file = \"gone.sh\" is not in the repository at this commit"
    );
    assert!(invalid(with("x.sh", None)).contains("the template names none"));
    assert!(invalid(with("../../etc/passwd", Some("checkout"))).contains("leaves the workspace"));
}

#[test]
fn exactly_one_of_script_and_file() {
    for (params, expected) in [
        (json!({}), "neither `script` nor `file`"),
        (json!({ "script": "a", "file": "b" }), "both `script` and `file`"),
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
    let three = ended(FakeHost::new().answer(Answer::code(3)));
    assert_eq!(three, ("exit code 3".to_owned(), Some(3), Some("{\"exit_code\":3}".to_owned())));
    let killed = Answer { exit: Exit::Signal(9), ..Answer::code(0) };
    assert_eq!(ended(FakeHost::new().answer(killed)).0, "the script was ended by SIGKILL (signal 9)");
    assert_eq!(ended(FakeHost::new().deny("bash")).0, "denied: bash is not in [allow].programs of plugins/fake.toml");
    let missing = HostError::NotFound("bash on PATH".to_owned());
    assert!(ended(FakeHost::new().refuse(missing)).0.starts_with("the interpreter bash is not on this runner"));

    let mut canceled = FakeHost::new();
    canceled.canceled = true;
    assert_eq!(execute(job(&json!({ "script": "x" })), &mut canceled), Err(Failure::Canceled));
}

#[test]
fn describes_params_that_are_closed() {
    let info = Shell::describe();
    let schema: Value = serde_json::from_str(&info.params_schema.expect("it has one")).expect("it is JSON");
    for branch in ["then", "else"] {
        assert_eq!(schema[branch]["additionalProperties"], Value::Bool(false), "{branch}");
        for name in schema[branch]["properties"].as_object().expect("an object").keys() {
            assert!(schema["properties"].get(name).is_some(), "{name}");
        }
    }
}

#[test]
fn the_schema_says_plainly_what_is_wrong() {
    let schema: Value =
        serde_json::from_str(&Shell::describe().params_schema.expect("it has one")).expect("it is JSON");
    let validator = jsonschema::validator_for(&schema).expect("it is a schema");
    let mistakes = |params: Value| -> Vec<String> {
        validator.iter_errors(&params).map(|error| format!("{}: {error}", error.instance_path())).collect()
    };
    let none: [&str; 0] = [];
    assert_eq!(mistakes(json!({ "script": "a", "interpreter": "python3", "arguments": ["b"] })), none);
    assert_eq!(mistakes(json!({ "file": "a" })), none);
    assert_eq!(mistakes(json!({})), [": \"file\" is a required property"]);
    assert_eq!(
        mistakes(json!({ "script": "a", "file": "b" })),
        [": Additional properties are not allowed ('file' was unexpected)"]
    );
    assert_eq!(
        mistakes(json!({ "script": "a", "argumants": [] })),
        [": Additional properties are not allowed ('argumants' was unexpected)"]
    );
    assert_eq!(mistakes(json!({ "script": 1 })), ["/script: 1 is not of type \"string\""]);
    assert_eq!(mistakes(json!({ "script": "" })), ["/script: \"\" is shorter than 1 character"]);
    assert_eq!(mistakes(json!({ "script": "a", "interpreter": "/bin/bash" })).len(), 1);
}

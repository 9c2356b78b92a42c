//! The executor against the sdk's fake host: what it runs for which params, and how each ending reads.

use forge_plugin::fake::{Answer, FakeHost};
use forge_plugin::{Command, Done, Executor, Exit, Failure, HostError, Job, Outcome};
use forge_plugin_powershell::PowerShell;
use serde_json::{Value, json};

fn job(params: &Value) -> Job {
    Job { params_json: params.to_string(), ..Job::default() }
}

fn text(host: &FakeHost, file: &str) -> String {
    String::from_utf8(host.files[file].clone()).expect("it is UTF-8")
}

fn pwsh(starter: &str) -> Command {
    Command::new("pwsh")
        .args(["-NoLogo", "-NoProfile", "-NonInteractive", "-File", starter])
        .env("POWERSHELL_TELEMETRY_OPTOUT", "1")
        .env("POWERSHELL_UPDATECHECK", "Off")
}

#[test]
fn an_inline_script_is_a_file_that_the_starter_calls() {
    let mut host = FakeHost::new();
    let job = Job {
        checkout: Some("src/shop".to_owned()),
        arguments: vec!["-Force".to_owned()],
        ..job(&json!({ "script": "param($Name)\nWrite-Output \"größe $Name\"", "arguments": ["-Name", "one"] }))
    };
    let done = PowerShell::execute(job, &mut host);
    let outcome = Outcome::new("exit code 0").exit_code(0).output(&json!({ "exit_code": 0 })).expect("it is JSON");
    assert_eq!(done, Ok(Done::Finished(outcome)));
    assert_eq!(text(&host, "forge-powershell/script.ps1"), "param($Name)\nWrite-Output \"größe $Name\"\n");
    let expected = "# Written by Forge's powershell executor.\n\
                    $ErrorActionPreference = 'Stop'\n\
                    # A bar of progress is for a terminal.\n\
                    $ProgressPreference = 'SilentlyContinue'\n\
                    & '../../forge-powershell/script.ps1' @args\n\
                    # Of the script's `exit`, or else of the last program that it ran.\n\
                    if ($null -ne $LASTEXITCODE) { exit $LASTEXITCODE }\n";
    assert_eq!(text(&host, "forge-powershell/start.ps1"), expected);
    let expected = pwsh("../../forge-powershell/start.ps1").args(["-Name", "one", "-Force"]).cwd(Some("src/shop"));
    assert_eq!(host.commands, [expected]);
}

#[test]
fn without_a_repository_it_runs_in_the_workspace() {
    let mut host = FakeHost::new();
    let params = json!({ "script": "Get-Date", "error_action": "continue" });
    PowerShell::execute(job(&params), &mut host).expect("it ends well");
    assert_eq!(host.commands, [pwsh("./forge-powershell/start.ps1")]);
    let starter = text(&host, "forge-powershell/start.ps1");
    assert!(starter.contains("$ErrorActionPreference = 'Continue'"), "{starter}");
    assert!(starter.contains("& './forge-powershell/script.ps1' @args"), "{starter}");
}

#[test]
fn a_file_lies_in_the_repository_and_its_name_cannot_leave_its_quotes() {
    let mut host = FakeHost::new().file("checkout/it's ’here’.ps1", "exit 0");
    let with = |file: &str, checkout: Option<&str>| Job {
        checkout: checkout.map(str::to_owned),
        ..job(&json!({ "file": file }))
    };
    PowerShell::execute(with("it's ’here’.ps1", Some("checkout")), &mut host).expect("it is there");
    let starter = text(&host, "forge-powershell/start.ps1");
    assert!(starter.contains("\n& './it''s ’’here’’.ps1' @args\n"), "{starter}");
    assert!(!host.files.contains_key("forge-powershell/script.ps1"));

    let invalid = |job: Job| match PowerShell::execute(job, &mut FakeHost::new()) {
        Err(Failure::Invalid(message)) => message,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        invalid(with("gone.ps1", Some("checkout"))),
        "[params].file = \"gone.ps1\" is not in the repository at this commit"
    );
    assert!(invalid(with("x.ps1", None)).contains("the template names none"));
    assert!(invalid(with("../../x.ps1", Some("checkout"))).contains("leaves the workspace"));
    assert!(invalid(with("x.sh", Some("checkout"))).contains("names end with .ps1"));
}

#[test]
fn exactly_one_of_script_and_file() {
    for (params, expected) in [
        (json!({}), "neither `script` nor `file`"),
        (json!({ "script": "a", "file": "b.ps1" }), "both `script` and `file`"),
        (json!({ "scrpt": "a" }), "unknown field `scrpt`"),
        (json!({ "script": "a", "error_action": "ask" }), "unknown variant `ask`"),
    ] {
        let error = PowerShell::execute(job(&params), &mut FakeHost::new()).expect_err("it makes no sense");
        let Failure::Invalid(message) = error else { panic!("{error:?}") };
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn endings() {
    let ended = |host: FakeHost| {
        let mut host = host;
        match PowerShell::execute(job(&json!({ "script": "x" })), &mut host) {
            Err(Failure::Failed(failed)) => (failed.message, failed.exit_code, failed.output_json),
            other => panic!("{other:?}"),
        }
    };
    let three = ended(FakeHost::new().answer(Answer::code(3)));
    assert_eq!(three, ("exit code 3".to_owned(), Some(3), Some("{\"exit_code\":3}".to_owned())));
    let killed = Answer { exit: Exit::Signal(9), ..Answer::code(0) };
    assert_eq!(ended(FakeHost::new().answer(killed)).0, "the script was ended by SIGKILL (signal 9)");
    let late = Answer { exit: Exit::TimedOut, ..Answer::code(0) };
    assert_eq!(ended(FakeHost::new().answer(late)).0, "the script's time ran out");
    assert_eq!(ended(FakeHost::new().deny("pwsh")).0, "denied: pwsh is not in [allow].programs of plugins/fake.toml");
    let missing = HostError::NotFound("pwsh on PATH".to_owned());
    assert!(ended(FakeHost::new().refuse(missing)).0.starts_with("pwsh is not on this runner (pwsh on PATH)"));

    let mut canceled = FakeHost::new();
    canceled.canceled = true;
    assert_eq!(PowerShell::execute(job(&json!({ "script": "x" })), &mut canceled), Err(Failure::Canceled));
}

#[test]
fn the_schema_says_plainly_what_is_wrong() {
    let schema: Value =
        serde_json::from_str(&PowerShell::describe().params_schema.expect("it has one")).expect("it is JSON");
    let validator = jsonschema::validator_for(&schema).expect("it is a schema");
    let mistakes = |params: Value| -> Vec<String> {
        validator.iter_errors(&params).map(|error| format!("{}: {error}", error.instance_path())).collect()
    };
    let none: [&str; 0] = [];
    assert_eq!(mistakes(json!({ "script": "a", "error_action": "continue", "arguments": ["b"] })), none);
    assert_eq!(mistakes(json!({ "file": "a.ps1" })), none);
    assert_eq!(mistakes(json!({})), [": \"file\" is a required property"]);
    assert_eq!(
        mistakes(json!({ "script": "a", "file": "b.ps1" })),
        [": Additional properties are not allowed ('file' was unexpected)"]
    );
    assert_eq!(mistakes(json!({ "file": "a.sh" })).len(), 1);
    assert_eq!(mistakes(json!({ "script": "" })), ["/script: \"\" is shorter than 1 character"]);
    for branch in ["then", "else"] {
        assert_eq!(schema[branch]["additionalProperties"], Value::Bool(false), "{branch}");
        for name in schema[branch]["properties"].as_object().expect("an object").keys() {
            assert!(schema["properties"].get(name).is_some(), "{name}");
        }
    }
}

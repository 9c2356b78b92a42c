//! The executor against the sdk's fake host: what it runs for which params, what it asks of the answers, and how each ending reads.

use forge_plugin::fake::{Answer, FakeHost};
use forge_plugin::{Command, Done, Executor, Exit, Failure, HostError, Job, Level, Outcome, Pending, Retry};
use forge_plugin_terraform::Terraform;
use serde_json::{Value, json};

const SHOWN: &str = r#"{"format_version": "1.2", "variables": {"token": {"value": "hush"}},
    "resource_changes": [{"address": "a", "change": {"actions": ["create"], "after": {"password": "hush"}}},
        {"address": "b", "change": {"actions": ["delete"]}}],
    "configuration": {"root_module": {"variables": {"token": {}}}}}"#;

const OUTPUTS: &str =
    r#"{"ip": {"sensitive": false, "value": "10.0.0.1"}, "token": {"sensitive": true, "value": "hush"}}"#;

/// Beside the counts of [`SHOWN`].
const COUNTED: &str = r#"{"counts":{"add":1,"change":0,"destroy":1},"changes_outputs":false,"needs_variables":false}"#;

fn job(params: &Value) -> Job {
    Job { params_json: params.to_string(), checkout: Some("repository".to_owned()), ..Job::default() }
}

fn module() -> FakeHost {
    FakeHost::new().file("repository/main.tf", "x")
}

/// That init went well, that there are changes, and which.
fn with_changes(host: FakeHost) -> FakeHost {
    host.answer(Answer::code(0)).answer(Answer::code(2)).answer(Answer::code(0).stdout(SHOWN))
}

fn lines(host: &FakeHost) -> Vec<String> {
    host.commands.iter().map(|command| format!("{} {}", command.program, command.args.join(" "))).collect()
}

fn variable<'a>(command: &'a Command, name: &str) -> Option<&'a str> {
    command.env.iter().find(|pair| pair.key == name).map(|pair| pair.value.as_str())
}

fn finished(done: Result<Done, Failure>) -> (String, Value) {
    match done {
        Ok(Done::Finished(outcome)) => report(outcome),
        other => panic!("{other:?}"),
    }
}

fn report(outcome: Outcome) -> (String, Value) {
    assert_eq!(outcome.exit_code, Some(0));
    (outcome.summary, serde_json::from_str(&outcome.output_json.expect("a summary")).expect("it is JSON"))
}

fn failed(done: Result<Done, Failure>) -> String {
    match done {
        Err(Failure::Failed(failed)) => failed.message,
        other => panic!("{other:?}"),
    }
}

fn invalid(job: Job, mut host: FakeHost) -> String {
    match Terraform::execute(job, &mut host) {
        Err(Failure::Invalid(message)) if host.commands.is_empty() => message,
        other => panic!("{other:?}"),
    }
}

fn said(host: &FakeHost, level: Level) -> String {
    host.log.iter().filter(|(of, _)| *of == level).map(|(_, line)| line.as_str()).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_bare_plan_is_two_bare_commands() {
    let mut host = with_changes(module());
    let (summary, output) = finished(Terraform::execute(job(&json!({ "command": "plan" })), &mut host));
    assert_eq!(summary, "1 to add, 0 to change, 1 to destroy");
    assert_eq!(output, json!({ "add": 1, "change": 0, "destroy": 1, "applied": false }));
    let expected = [
        "terraform init -input=false",
        "terraform plan -input=false -detailed-exitcode -out=../forge-terraform/plan",
        "terraform show -json -no-color ../forge-terraform/plan",
    ];
    assert_eq!(lines(&host), expected);
    for command in &host.commands {
        assert_eq!(command.cwd.as_deref(), Some("repository"));
        assert_eq!(variable(command, "TF_IN_AUTOMATION"), Some("1"));
        assert_eq!(variable(command, "TF_DATA_DIR"), Some("../forge-terraform/data"));
        assert_eq!(variable(command, "TF_PLUGIN_CACHE_DIR"), None);
    }
    let everything = format!("{:?} {output} {summary}", host.log);
    assert!(!everything.contains("hush"), "{everything}");
}

#[test]
fn every_param_and_file_has_its_option() {
    let params = json!({
        "command": "plan", "working_dir": "live/prod", "workspace": "blue", "var_files": ["prod.tfvars", "../all.tfvars"],
        "backend_config": { "bucket": "state", "encrypt": true, "max_retries": 3 }, "backend_config_files": ["s3.tfbackend"],
        "parallelism": 4, "lock_timeout": "5m", "targets": ["module.a"], "replace": ["x.y"], "color": false,
        "binary": "tofu", "arguments": ["-refresh=false"]
    });
    let mut host = FakeHost::new()
        .file("repository/live/prod/main.tofu", "x")
        .file("repository/live/prod/prod.tfvars", "x")
        .file("repository/live/all.tfvars", "x")
        .file("repository/live/prod/s3.tfbackend", "x");
    let job = Job {
        variables_file: "/private/variables.json".to_owned(),
        arguments: vec!["-target=b".to_owned()],
        ..job(&params)
    };
    let (summary, _) = finished(Terraform::execute(job, &mut host));
    assert_eq!(summary, "no changes");
    let expected = [
        "tofu init -input=false -no-color -backend-config=./s3.tfbackend -backend-config=bucket=state \
         -backend-config=encrypt=true -backend-config=max_retries=3",
        "tofu workspace select -or-create=true -no-color blue",
        "tofu plan -input=false -no-color -parallelism=4 -lock-timeout=5m -target=module.a -replace=x.y \
         -var-file=./prod.tfvars -var-file=./../all.tfvars -var-file=/private/variables.json -refresh=false -target=b \
         -detailed-exitcode -out=../../../forge-terraform/plan",
    ];
    assert_eq!(lines(&host), expected);
    assert_eq!(host.commands[0].cwd.as_deref(), Some("repository/live/prod"));
    assert_eq!(variable(&host.commands[0], "TF_DATA_DIR"), Some("../../../forge-terraform/data"));
}

#[test]
fn applying_and_destroying_apply_the_plan_that_was_just_made() {
    for (command, more) in [("apply", ""), ("destroy", "-destroy ")] {
        let mut host =
            with_changes(module()).answer(Answer::code(0).stdout("the log")).answer(Answer::code(0).stdout(OUTPUTS));
        let (summary, output) = finished(Terraform::execute(job(&json!({ "command": command })), &mut host));
        assert_eq!(summary, "1 added, 0 changed, 1 destroyed");
        let expected = json!({
            "add": 1, "change": 0, "destroy": 1, "applied": true, "outputs": { "ip": "10.0.0.1" }, "sensitive_outputs": ["token"]
        });
        assert_eq!(output, expected);
        let expected = [
            "terraform init -input=false".to_owned(),
            format!("terraform plan -input=false {more}-detailed-exitcode -out=../forge-terraform/plan"),
            "terraform show -json -no-color ../forge-terraform/plan".to_owned(),
            "terraform apply -input=false ../forge-terraform/plan".to_owned(),
            "terraform output -json -no-color".to_owned(),
        ];
        assert_eq!(lines(&host), expected);
    }
}

#[test]
fn without_changes_nothing_is_applied_and_nobody_is_asked() {
    for command in ["apply", "destroy", "plan-then-apply", "plan-then-destroy"] {
        let mut host = module().answer(Answer::code(0)).answer(Answer::code(0)).answer(Answer::code(0).stdout(OUTPUTS));
        let (summary, output) = finished(Terraform::execute(job(&json!({ "command": command })), &mut host));
        assert_eq!((summary.as_str(), &output["applied"]), ("no changes", &json!(false)), "{command}");
        assert_eq!(output["outputs"], json!({ "ip": "10.0.0.1" }), "{command}");
        assert_eq!(host.commands.len(), 3, "{:?}", lines(&host));
    }
}

#[test]
fn a_plan_waits_for_a_person_with_all_that_applying_takes() {
    let params = json!({ "command": "plan-then-apply", "working_dir": "live", "carry": ["build/function.zip"] });
    let mut host = with_changes(
        FakeHost::new()
            .file("repository/live/main.tf", "x")
            .file("repository/live/.terraform.lock.hcl", "versions")
            .file("repository/live/build/function.zip", "made by planning"),
    );
    let done = Terraform::execute(job(&params), &mut host);
    let Ok(Done::Pending(Pending { outcome, carry })) = done else { panic!("{done:?}") };
    let (summary, output) = report(outcome);
    assert_eq!(summary, "1 to add, 0 to change, 1 to destroy");
    assert_eq!(output, json!({ "add": 1, "change": 0, "destroy": 1, "applied": false }));
    let expected = [
        "forge-terraform/plan",
        "forge-terraform/planned.json",
        "forge-terraform/lock.hcl",
        "repository/live/build/function.zip",
    ];
    assert_eq!(carry, expected);
    assert_eq!(host.files["forge-terraform/lock.hcl"], b"versions");
    assert_eq!(String::from_utf8_lossy(&host.files["forge-terraform/planned.json"]), COUNTED);
    assert_eq!(host.commands.len(), 3, "nothing is applied: {:?}", lines(&host));

    let params = json!({ "command": "plan-then-destroy", "carry": ["gone.zip"] });
    let mut host = with_changes(module());
    let message = failed(Terraform::execute(job(&params), &mut host));
    assert!(message.starts_with("[params].carry: \"gone.zip\" is not there after planning"), "{message}");
    assert!(lines(&host)[1].contains("-destroy"), "{:?}", lines(&host));
}

fn approved(params: &Value) -> Job {
    Job { resume: true, attempt: 2, variables_file: "/private/variables.json".to_owned(), ..job(params) }
}

fn carried() -> FakeHost {
    module()
        .file("forge-terraform/plan", "zip")
        .file("forge-terraform/planned.json", COUNTED)
        .file("forge-terraform/lock.hcl", "versions")
}

#[test]
fn an_approved_plan_is_applied_and_never_made_anew() {
    let params = json!({ "command": "plan-then-apply", "workspace": "blue", "parallelism": 2, "targets": ["a"], "arguments": ["-x"] });
    let mut host = carried()
        .answer(Answer::code(0))
        .answer(Answer::code(0))
        .answer(Answer::code(0))
        .answer(Answer::code(0).stdout("{}"));
    let (summary, output) = finished(Terraform::execute(approved(&params), &mut host));
    assert_eq!(summary, "1 added, 0 changed, 1 destroyed");
    assert_eq!(output, json!({ "add": 1, "change": 0, "destroy": 1, "applied": true, "outputs": {} }));
    let expected = [
        "terraform init -input=false",
        "terraform workspace select -or-create=true blue",
        "terraform apply -input=false -parallelism=2 ../forge-terraform/plan",
        "terraform output -json -no-color",
    ];
    assert_eq!(lines(&host), expected);
    assert_eq!(host.files["repository/.terraform.lock.hcl"], b"versions", "init chooses the same providers");
}

#[test]
fn ephemeral_variables_are_given_again() {
    let known = COUNTED.replace("\"needs_variables\":false", "\"needs_variables\":true");
    let mut host = carried().file("forge-terraform/planned.json", known);
    Terraform::execute(approved(&json!({ "command": "plan-then-apply" })), &mut host).expect("it ends well");
    assert_eq!(
        lines(&host)[1],
        "terraform apply -input=false -var-file=/private/variables.json ../forge-terraform/plan"
    );
}

#[test]
fn an_approval_without_its_plan_applies_nothing() {
    let resume = |command: &str, mut host: FakeHost| {
        let done = Terraform::execute(approved(&json!({ "command": command })), &mut host);
        assert!(host.commands.is_empty(), "{:?}", lines(&host));
        done
    };
    let message = failed(resume("plan-then-apply", module()));
    assert!(message.starts_with("the approved plan did not come with this attempt"), "{message}");
    assert!(matches!(resume("apply", carried()), Err(Failure::Invalid(_))));
}

#[test]
fn a_stale_plan_says_what_to_do_and_keeps_what_was_planned() {
    let stale = Answer::code(1).stdout("\u{1b}[31m│\u{1b}[0m Error: Saved plan is stale\n");
    let mut host = carried().answer(Answer::code(0)).answer(stale);
    let Err(Failure::Failed(failed)) =
        Terraform::execute(approved(&json!({ "command": "plan-then-apply" })), &mut host)
    else {
        panic!("it is stale");
    };
    assert!(failed.message.contains("run the template again for a new plan"), "{}", failed.message);
    assert_eq!(failed.exit_code, Some(1));
    assert!(!host.files.contains_key("forge-terraform/plan"), "no kept workspace has a plan, which holds secrets");
    let output: Value = serde_json::from_str(&failed.output_json.expect("what was planned")).expect("it is JSON");
    assert_eq!(output, json!({ "add": 1, "change": 0, "destroy": 1, "applied": false }));
}

#[test]
fn a_locked_state_is_worth_another_try() {
    let words = "Error: Error acquiring the state lock\n  ID:   5cc0\n  Who:  jane@desk\n";
    let locked = Answer { stderr: words.into(), ..Answer::code(1) };
    let mut host = module().answer(Answer::code(0)).answer(locked);
    let done = Terraform::execute(job(&json!({ "command": "plan" })), &mut host);
    let Err(Failure::Retry(Retry { message, after_ms: None })) = done else { panic!("{done:?}") };
    assert!(message.starts_with("the state is locked by jane@desk (lock 5cc0)"), "{message}");
}

#[test]
fn a_plan_that_cannot_be_counted_is_still_a_plan() {
    for answer in [Answer::code(1), Answer::code(0).stdout("{\"resource_changes\": hush}")] {
        let mut host = module().answer(Answer::code(0)).answer(Answer::code(2)).answer(answer);
        let (summary, output) = finished(Terraform::execute(job(&json!({ "command": "plan" })), &mut host));
        assert_eq!((summary.as_str(), output), ("changes are planned", json!({ "applied": false })));
        assert!(said(&host, Level::Warn).contains("the plan's changes are not counted"), "{:?}", host.log);
        assert!(!format!("{:?}", host.log).contains("hush"), "{:?}", host.log);
    }
}

#[test]
fn the_plugin_cache_is_used_only_with_a_lock_file() {
    let run = |host: FakeHost| {
        let mut host = host;
        let job = Job { cache: Some("/cache".to_owned()), ..job(&json!({ "command": "plan" })) };
        Terraform::execute(job, &mut host).expect("it ends well");
        host
    };
    let with_lock = || module().file("repository/.terraform.lock.hcl", "versions");
    assert_eq!(variable(&run(module()).commands[0], "TF_PLUGIN_CACHE_DIR"), None);
    let host = run(with_lock());
    assert_eq!(variable(&host.commands[0], "TF_PLUGIN_CACHE_DIR"), Some("/cache"));
    assert_eq!(variable(&host.commands[1], "TF_PLUGIN_CACHE_DIR"), None, "init alone fills it");

    // Two first inits at a time may be in each other's way.
    let clash = Answer::code(1).stdout("│ Error: Failed to install provider\n│ \n│ text file busy\n");
    let host = run(with_lock().answer(clash));
    let caches: Vec<_> = host.commands.iter().map(|command| variable(command, "TF_PLUGIN_CACHE_DIR")).collect();
    assert_eq!(caches, [Some("/cache"), None, None]);
    assert!(said(&host, Level::Warn).contains("trying without it"));

    // Another error is not tried again.
    let mut host = with_lock().answer(Answer::code(1).stdout("Error: Invalid backend\n"));
    let job = Job { cache: Some("/cache".to_owned()), ..job(&json!({ "command": "plan" })) };
    let message = failed(Terraform::execute(job, &mut host));
    assert_eq!(message, "terraform init failed with exit code 1: Invalid backend; the log says where");
    assert_eq!(host.commands.len(), 1);
}

#[test]
fn a_state_that_dies_with_the_workspace_is_warned_of() {
    let run = |command: &str, noted: Option<&str>| {
        let mut host = module();
        if let Some(noted) = noted {
            host = host.file("forge-terraform/data/terraform.tfstate", noted);
        }
        Terraform::execute(job(&json!({ "command": command })), &mut host).expect("it ends well");
        host
    };
    let local = |config: &str| format!("{{\"backend\": {{\"type\": \"local\", \"config\": {config}}}}}");
    let thrown_away = said(&run("apply", None), Level::Warn);
    assert!(thrown_away.contains("it names no backend, and the state is thrown away"), "{thrown_away}");
    let unknown = said(&run("plan", None), Level::Warn);
    assert!(unknown.contains("knows nothing of earlier runs"), "{unknown}");
    let relative = said(&run("destroy", Some(&local("{\"path\": \"x.tfstate\"}"))), Level::Warn);
    assert!(relative.contains("`local` has a relative path"), "{relative}");
    let absolute = run("plan", Some(&local("{\"path\": \"/states/x\", \"workspace_dir\": null}")));
    assert_eq!(said(&absolute, Level::Warn), "");
    assert!(said(&absolute, Level::Info).contains("/states/x on this runner"));
    for quiet in ["{\"backend\": {\"type\": \"s3\", \"config\": {\"path\": [1]}}}", "not JSON"] {
        assert_eq!(run("plan", Some(quiet)).log, []);
    }
}

#[test]
fn endings() {
    let run = |host: FakeHost| {
        let mut host = host;
        Terraform::execute(job(&json!({ "command": "apply" })), &mut host)
    };
    let missing = HostError::NotFound("not on PATH".to_owned());
    assert!(failed(run(module().refuse(missing))).starts_with("terraform is not on this runner (not on PATH)"));
    assert_eq!(
        failed(run(module().deny("terraform"))),
        "denied: terraform is not in [allow].programs of plugins/fake.toml"
    );
    let killed = Answer { exit: Exit::Signal(9), ..Answer::code(0) };
    assert_eq!(failed(run(module().answer(killed))), "terraform init was ended by SIGKILL (signal 9)");
    let broken = with_changes(module()).answer(Answer::code(1).stdout("│ Error: creating x: refused\n"));
    assert_eq!(failed(run(broken)), "terraform apply failed with exit code 1: creating x: refused; the log says where");

    let mut canceled = module();
    canceled.canceled = true;
    assert_eq!(run(canceled), Err(Failure::Canceled));
    // The work is done by the time that outputs are asked for.
    let without_outputs = with_changes(module()).answer(Answer::code(0)).answer(Answer::code(1));
    assert_eq!(finished(run(without_outputs)).0, "1 added, 0 changed, 1 destroyed");
}

#[test]
fn what_makes_no_sense_runs_nothing() {
    let plan = |more: Value| {
        let mut params = json!({ "command": "plan" });
        for (name, value) in more.as_object().expect("an object") {
            params[name] = value.clone();
        }
        invalid(job(&params), module())
    };
    assert!(
        invalid(Job { checkout: None, ..job(&json!({ "command": "plan" })) }, module()).contains("set `repository`")
    );
    assert_eq!(plan(json!({ "working_dir": "../x" })), "[params].working_dir = \"../x\" leaves the repository");
    assert_eq!(
        plan(json!({ "working_dir": "live" })),
        "[params].working_dir = \"live\" is not a folder of the repository at this commit"
    );
    assert!(plan(json!({ "var_files": ["gone.tfvars"] })).starts_with("[params].var_files: \"gone.tfvars\" is not in"));
    assert!(plan(json!({ "backend_config_files": ["../../x"] })).contains("leaves the repository"));
    assert!(plan(json!({ "workspace": "-x" })).contains("is not a workspace's name"));
    assert!(plan(json!({ "command": "import" })).contains("unknown variant `import`"));
    assert!(plan(json!({ "workdir": "x" })).contains("unknown field `workdir`"));
    let empty = invalid(job(&json!({ "command": "plan" })), FakeHost::new().file("repository/README.md", "x"));
    assert!(empty.starts_with("the repository's top holds no configuration (*.tf) at this commit"), "{empty}");
}

#[test]
fn the_schema_says_plainly_what_is_wrong() {
    let schema: Value =
        serde_json::from_str(&Terraform::describe().params_schema.expect("it has one")).expect("it is JSON");
    let validator = jsonschema::validator_for(&schema).expect("it is a schema");
    let mistakes = |params: Value| -> Vec<String> {
        validator.iter_errors(&params).map(|error| format!("{}: {error}", error.instance_path())).collect()
    };
    let none: [&str; 0] = [];
    assert_eq!(mistakes(json!({})), [": \"command\" is a required property"]);
    assert_eq!(
        mistakes(json!({ "command": "plan", "parallelism": 0 })),
        ["/parallelism: 0 is less than the minimum of 1"]
    );
    assert_eq!(mistakes(json!({ "command": "plan", "lock_timeout": "5" })).len(), 1);
    assert_eq!(mistakes(json!({ "command": "plan", "backend_config": { "a": [] } })).len(), 1);
    assert_eq!(mistakes(json!({ "command": "apply-all" })).len(), 1);
    assert_eq!(
        mistakes(json!({ "command": "plan", "var_file": "x" })),
        [": Additional properties are not allowed ('var_file' was unexpected)"]
    );
    // What the schema takes, the plugin reads.
    for (name, value) in [
        ("working_dir", json!(".")),
        ("binary", json!("tofu")),
        ("workspace", json!("blue.1")),
        ("var_files", json!(["main.tf"])),
        ("backend_config", json!({ "a": 1, "b": true, "c": "d" })),
        ("backend_config_files", json!(["main.tf"])),
        ("targets", json!(["x"])),
        ("replace", json!(["x"])),
        ("parallelism", json!(1)),
        ("lock_timeout", json!("90s")),
        ("carry", json!(["main.tf"])),
        ("color", json!(false)),
        ("arguments", json!(["-x"])),
    ] {
        let mut params = json!({ "command": "plan" });
        params[name] = value;
        assert_eq!(mistakes(params.clone()), none, "{name}");
        Terraform::execute(job(&params), &mut module()).unwrap_or_else(|error| panic!("{name}: {error:?}"));
    }
    assert_eq!(schema["properties"].as_object().expect("an object").len(), 14, "each one stands above");
}

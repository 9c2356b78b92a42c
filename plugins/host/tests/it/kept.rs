//! `testdata/plugins`: components of versions that are out. Each is what it was, and runs.

use std::path::{Path, PathBuf};

use forge_plugin_host::{
    AwsCredentials, Capability, Disposition, Done, ExecuteError, ExecuteRequest, Grants, HmacHeader, HttpRequest,
    HttpResponse, Job, Kind, Level, Limits, Method, Outcome, Plugin, Sent, Signing, TargetCall, TargetError,
    TargetServices, TrapCause, WebhookEvent,
};
use serde_json::{Value, json};

use crate::guests::{Seen, host};
use crate::targets::Silent;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/plugins")
}

/// Name and digest of every one.
fn sums() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(folder().join("SHA256SUMS")).expect("the sums");
    let sums = text.lines().map(|line| line.split_once("  ").expect("digest and name"));
    sums.map(|(digest, name)| (name.to_owned(), digest.to_owned())).collect()
}

fn load(name: &str) -> Plugin {
    host().load(&std::fs::read(folder().join(name)).expect("it is there")).expect("every Forge loads it")
}

fn execute(plugin: &Plugin, seen: &Seen, params: Value) -> Result<Done, ExecuteError> {
    let workspace = tempfile::tempdir().expect("a folder");
    let request = ExecuteRequest {
        job: Job { id: "7".to_owned(), params, ..Job::default() },
        workspace: workspace.path().to_owned(),
        grants: Grants { plugin_name: "kept".to_owned(), programs: vec!["true".to_owned()] },
        limits: Limits::default(),
        file_user: None,
    };
    plugin.execute(request, Box::new(seen.clone()))
}

#[test]
fn no_kept_component_was_built_anew() {
    let sums = sums();
    for entry in std::fs::read_dir(folder()).expect("the folder") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        assert!(
            !name.ends_with(".wasm") || sums.iter().any(|(known, _)| *known == name),
            "{name} is not in SHA256SUMS"
        );
    }
    for (name, digest) in sums {
        assert_eq!(load(&name).sha256_hex(), digest, "{name}: put the old bytes back, see testdata/plugins/README.md");
    }
}

#[test]
fn the_executor_of_0_1_0_runs() {
    let plugin = load("executor-0.1.0.wasm");
    assert_eq!(plugin.kind(), Kind::Executor);
    let info = plugin.describe().expect("it describes itself");
    assert_eq!((info.name.as_str(), info.version.as_str()), ("kept", "0.1.0"));
    assert_eq!(info.wants, [Capability::Process(vec!["true".to_owned()])]);
    let schema = info.params_schema.expect("it has params");
    assert_eq!(schema["properties"]["greeting"], json!({ "type": "string", "description": "How it greets" }));
    assert_eq!(schema["additionalProperties"], false);

    let seen = Seen::default();
    let done = execute(&plugin, &seen, json!({ "greeting": "hello" })).expect("it ends well");
    let output = json!({ "bytes": 6, "names": ["last.txt"], "elapsed": true, "spawned": true });
    let outcome = Outcome { summary: "greeted: hello".to_owned(), output: Some(output.clone()), exit_code: Some(0) };
    assert_eq!(done, Done::Finished(outcome.clone()));
    assert_eq!(*seen.log.lock().expect("nobody panics with it"), [(Level::Info, "hello".to_owned())]);
    let commands = seen.commands.lock().expect("nobody panics with it").clone();
    assert_eq!(commands.len(), 1);
    assert_eq!((commands[0].program.as_str(), commands[0].args.as_slice()), ("true", &["hello".to_owned()][..]));

    let ending = |word: &str| execute(&plugin, &Seen::default(), json!({ "greeting": "hello", "ending": word }));
    assert_eq!(ending("pending"), Ok(Done::Pending { outcome, carry: vec!["plan".to_owned()] }));
    let failed = ExecuteError::Failed { message: "as asked".to_owned(), exit_code: Some(3), output: Some(output) };
    assert_eq!(ending("failed"), Err(failed));
    assert_eq!(ending("retry"), Err(ExecuteError::Retry { message: "later".to_owned(), after_ms: Some(5) }));
    assert!(matches!(ending("soon"), Err(ExecuteError::Invalid(_))));
    let Err(ExecuteError::Trapped(trap)) = ending("panic") else { panic!("it panics") };
    assert!(matches!(&trap.cause, TrapCause::Panic(message) if message.contains("as asked")), "{trap}");
}

/// What the target of 0.1.0 says to the operator.
struct Logged(Seen);

impl TargetServices for Logged {
    fn log(&mut self, level: Level, message: &str, _fields: &[(String, String)]) {
        self.0.log.lock().expect("nobody panics with it").push((level, message.to_owned()));
    }

    fn canceled(&self) -> bool {
        false
    }
}

const TOKEN: &str = "{{secret:token:0123}}";

fn target_call() -> TargetCall {
    TargetCall { plugin_name: "kept".to_owned(), limits: Limits::default() }
}

/// An event for a target that is to do this.
fn event(doing: &str) -> WebhookEvent {
    WebhookEvent {
        id: "d-1".to_owned(),
        kind: "task.finished".to_owned(),
        at_ms: 1_700_000_000_000,
        payload_json: json!({ "task": 7 }).to_string(),
        config_json: json!({ "url": "https://example.com/in", "token": TOKEN, "doing": doing }).to_string(),
        plugin_config_json: json!({ "sender": "forge" }).to_string(),
        attempt: 2,
    }
}

fn planned(method: Method, body: &str, signing: Signing) -> HttpRequest {
    let url = "https://example.com/in".to_owned();
    HttpRequest { method, url, headers: Vec::new(), body: body.as_bytes().to_vec(), timeout_ms: None, signing }
}

#[test]
fn the_webhook_target_of_0_1_0_plans() {
    let plugin = load("webhook-target-0.1.0.wasm");
    assert_eq!(plugin.kind(), Kind::WebhookTarget);
    let info = plugin.describe().expect("it describes itself");
    assert_eq!((info.name.as_str(), info.version.as_str()), ("kept-target", "0.1.0"));
    assert_eq!(info.wants, [Capability::Http(vec!["example.com".to_owned(), "http://127.0.0.1:8080".to_owned()])]);
    let schema = info.params_schema.expect("it has a config of its targets");
    assert_eq!(schema["properties"]["url"], json!({ "type": "string", "description": "Where it tells" }));
    assert_eq!(info.config_schema.expect("it has one of its own")["required"], json!(["sender"]));

    let seen = Seen::default();
    let plan = plugin.plan(&target_call(), &event("tell"), Logged(seen.clone())).expect("it plans");
    let [told, put, patch, delete, get] = plan.as_slice() else { panic!("{plan:?}") };
    assert_eq!((told.method, told.timeout_ms, &told.signing), (Method::Post, Some(500), &Signing::Forge));
    let header = |name: &str, value: String| (name.to_owned(), value);
    let headers =
        [header("Authorization", format!("Bearer {TOKEN}")), header("Content-Type", "application/json".to_owned())];
    assert_eq!(told.headers, headers);
    let body: Value = serde_json::from_slice(&told.body).expect("it is JSON");
    let expected = json!({ "id": "d-1", "kind": "task.finished", "at_ms": 1_700_000_000_000_u64, "attempt": 2, "task": 7,
        "sender": "forge" });
    assert_eq!(body, expected);
    let hmac = HmacHeader { name: "X-Sign".to_owned(), prefix: "sha256=".to_owned(), key: Some(TOKEN.to_owned()) };
    assert_eq!(*put, planned(Method::Put, "put", Signing::HmacSha256(hmac)));
    let aws = AwsCredentials {
        region: "eu-central-1".to_owned(),
        service: "lambda".to_owned(),
        access_key_id: "key".to_owned(),
        secret_access_key: TOKEN.to_owned(),
        session_token: None,
    };
    assert_eq!(*patch, planned(Method::Patch, "patch", Signing::AwsSigV4(aws)));
    assert_eq!(*delete, planned(Method::Delete, "", Signing::None));
    assert_eq!(*get, planned(Method::Get, "", Signing::None));
    let said = (Level::Info, "task.finished of forge".to_owned());
    assert_eq!(*seen.log.lock().expect("nobody panics with it"), [said]);

    let plan = |doing: &str| plugin.plan(&target_call(), &event(doing), Silent);
    assert_eq!(plan("nothing"), Ok(Vec::new()));
    assert_eq!(plan("refuse"), Err(TargetError::Refused("as asked".to_owned())));
    assert!(matches!(plan("sing"), Err(TargetError::Refused(why)) if why.starts_with("[config]: ")));
    let Err(TargetError::Trapped(trap)) = plan("panic") else { panic!("it panics") };
    assert!(matches!(&trap.cause, TrapCause::Panic(message) if message.contains("as asked")), "{trap}");
}

#[test]
fn the_webhook_target_of_0_1_0_judges() {
    let plugin = load("webhook-target-0.1.0.wasm");
    let judge = |round: u32, status: u16, headers: &[(&str, &str)], body: &str| {
        let request = planned(Method::Post, "", Signing::None);
        let headers = headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let response = HttpResponse { status, headers, body: body.as_bytes().to_vec() };
        plugin.judge(&target_call(), &event("tell"), &Sent { round, index: 3, request }, &response, Silent)
    };
    assert_eq!(judge(0, 200, &[], ""), Ok(Disposition::Done));
    let mut next = planned(Method::Get, "", Signing::None);
    next.url = "https://example.com/in/3?ticket".to_owned();
    next.headers = vec![("X-Came".to_owned(), "there".to_owned())];
    assert_eq!(judge(0, 202, &[("X-Place", "there")], "ticket"), Ok(Disposition::Then(vec![next])));
    assert_eq!(judge(1, 202, &[], ""), Ok(Disposition::Done), "it knows the second round");
    assert_eq!(judge(0, 208, &[], ""), Ok(Disposition::Skip("it knew of task.finished".to_owned())));
    let retry = |message: &str, after_ms: Option<u64>| Ok(Disposition::Retry { message: message.to_owned(), after_ms });
    assert_eq!(judge(0, 423, &[], ""), retry("later", Some(5)));
    assert_eq!(judge(0, 503, &[("Retry-After", "7")], ""), retry("the answer was 503", Some(7_000)));
    assert_eq!(judge(0, 404, &[], ""), Ok(Disposition::GiveUp("the answer was 404".to_owned())));
    let Err(TargetError::Trapped(trap)) = judge(0, 500, &[], "") else { panic!("it panics") };
    assert!(matches!(&trap.cause, TrapCause::Panic(message) if message.contains("as asked")), "{trap}");
}

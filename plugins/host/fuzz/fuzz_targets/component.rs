//! Arbitrary bytes as a component: what loads is called, with little memory and little time.
#![no_main]

use std::sync::OnceLock;

use forge_plugin_host::{
    CapabilityError, ChildProcess, Command, ExecuteRequest, Finished, Grants, Host, HostOptions, HttpRequest,
    HttpResponse, Job, Kind, Level, Limits, Method, Plugin, Sent, Services, Signing, TargetCall, TargetServices,
    WebhookEvent,
};
use libfuzzer_sys::fuzz_target;

/// Refuses everything.
struct Nothing;

impl Services for Nothing {
    fn log(&mut self, _level: Level, _message: &str, _fields: &[(String, String)]) {}

    fn progress(&mut self, _current: u64, _total: Option<u64>, _message: Option<&str>) {}

    fn canceled(&self) -> bool {
        false
    }

    fn run(&mut self, _command: Command) -> Result<Finished, CapabilityError> {
        Err(CapabilityError::Denied("nothing runs here".to_owned()))
    }

    fn spawn(&mut self, _command: Command) -> Result<Box<dyn ChildProcess>, CapabilityError> {
        Err(CapabilityError::Denied("nothing runs here".to_owned()))
    }
}

impl TargetServices for Nothing {
    fn log(&mut self, _level: Level, _message: &str, _fields: &[(String, String)]) {}

    fn canceled(&self) -> bool {
        false
    }
}

const LIMITS: Limits = Limits { memory_bytes: 4 << 20, time_ms: 50 };

static HOST: OnceLock<Host> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let host = HOST.get_or_init(|| Host::new(HostOptions::default()).expect("the engine starts"));
    let Ok(plugin) = host.load(data) else { return };
    // How it ends does not matter: that it ends does.
    let _ = plugin.describe();
    match plugin.kind() {
        Kind::Executor => execute(&plugin),
        Kind::WebhookTarget => tell(&plugin),
    }
});

fn execute(plugin: &Plugin) {
    let request = ExecuteRequest {
        job: Job::default(),
        workspace: std::env::temp_dir(),
        grants: Grants::default(),
        limits: LIMITS,
        file_user: None,
    };
    let _ = plugin.execute(request, Box::new(Nothing));
}

fn tell(plugin: &Plugin) {
    let call = TargetCall { plugin_name: "x".to_owned(), limits: LIMITS };
    let event = WebhookEvent { payload_json: "{}".to_owned(), config_json: "{}".to_owned(), ..WebhookEvent::default() };
    let _ = plugin.plan(&call, &event, Nothing);
    let request = HttpRequest {
        method: Method::Get,
        url: "https://example.com/".to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
        timeout_ms: None,
        signing: Signing::None,
    };
    let response = HttpResponse { status: 200, headers: Vec::new(), body: b"{}".to_vec() };
    let _ = plugin.judge(&call, &event, &Sent { round: 0, index: 0, request }, &response, Nothing);
}

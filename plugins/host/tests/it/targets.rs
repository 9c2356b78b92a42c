//! Webhook targets that misbehave end their own call; what they plan is bounded before anyone looks at it.

use std::sync::atomic::Ordering;

use forge_plugin_host::{
    CallError, Disposition, ExecuteError, HttpRequest, HttpResponse, Kind, Level, Limits, Method, Sent, Signing,
    TargetCall, TargetError, TargetServices, TrapCause, WebhookEvent,
};

use crate::guests::{Seen, execute, load};

/// Says nothing to nobody, and never ends a call.
pub(crate) struct Silent;

impl TargetServices for Silent {
    fn log(&mut self, _level: Level, _message: &str, _fields: &[(String, String)]) {}

    fn canceled(&self) -> bool {
        false
    }
}

struct Canceled(Seen);

impl TargetServices for Canceled {
    fn log(&mut self, _level: Level, _message: &str, _fields: &[(String, String)]) {}

    fn canceled(&self) -> bool {
        self.0.canceled.load(Ordering::Relaxed)
    }
}

fn call(time_ms: u64) -> TargetCall {
    let limits = Limits { memory_bytes: 64 * 1024 * 1024, time_ms };
    TargetCall { plugin_name: "x".to_owned(), limits }
}

fn plan(name: &str) -> Result<Vec<HttpRequest>, TargetError> {
    load(name).plan(&call(5_000), &WebhookEvent::default(), Silent)
}

fn sent() -> Sent {
    let request = HttpRequest {
        method: Method::Post,
        url: "https://example.com/".to_owned(),
        headers: vec![("a".to_owned(), "b".to_owned())],
        body: vec![0; 1024],
        timeout_ms: Some(1),
        signing: Signing::Forge,
    };
    Sent { round: 0, index: 0, request }
}

fn judge(name: &str) -> Result<Disposition, TargetError> {
    let response = HttpResponse { status: 200, headers: Vec::new(), body: vec![0; 256 * 1024] };
    load(name).judge(&call(5_000), &WebhookEvent::default(), &sent(), &response, Silent)
}

#[test]
fn a_target_describes_itself_plans_and_judges() {
    let plugin = load("webhook-plain");
    assert_eq!(plugin.kind(), Kind::WebhookTarget);
    assert_eq!(plugin.describe().expect("it describes itself").name, "hostile");
    plugin.warm_up();
    let planned = plan("webhook-plain").expect("it plans");
    let empty = HttpRequest {
        method: Method::Get,
        url: String::new(),
        headers: Vec::new(),
        body: Vec::new(),
        timeout_ms: None,
        signing: Signing::None,
    };
    assert_eq!(planned, [empty]);
    assert_eq!(judge("webhook-plain"), Ok(Disposition::Done));
}

#[test]
fn each_kind_is_called_as_what_it_is() {
    assert_eq!(load("run").kind(), Kind::Executor);
    assert_eq!(plan("run"), Err(TargetError::NotATarget));
    let workspace = tempfile::tempdir().expect("a folder");
    let ended = execute(&load("webhook-plain"), &Seen::default(), workspace.path(), Limits::default(), &[]);
    assert_eq!(ended, Err(ExecuteError::Invalid("the plugin is a webhook target and runs no jobs".to_owned())));
}

#[test]
fn an_endless_plan_ends_at_its_time_limit_and_on_a_cancel() {
    let plugin = load("webhook-endless");
    let Err(TargetError::Trapped(trap)) = plugin.plan(&call(100), &WebhookEvent::default(), Silent) else {
        panic!("it never answers")
    };
    assert_eq!(
        trap.to_string(),
        "plugins/x.toml [limits].time = \"100ms\" used up: if it needs more, write `time = \"200ms\"` there (in spin < plan)"
    );
    let response = HttpResponse { status: 200, headers: Vec::new(), body: Vec::new() };
    let judged = plugin.judge(&call(100), &WebhookEvent::default(), &sent(), &response, Silent);
    assert!(matches!(judged, Err(TargetError::Trapped(_))), "{judged:?}");
    let seen = Seen::default();
    seen.canceled.store(true, Ordering::Relaxed);
    let ended = plugin.plan(&call(3_600_000), &WebhookEvent::default(), Canceled(seen));
    assert_eq!(ended, Err(TargetError::Canceled));
    // It still says what it is.
    assert!(!matches!(plugin.describe(), Err(CallError::Trapped(_))));
}

#[test]
fn a_flood_of_requests_is_no_plan() {
    let too_many = "its plan has 17 requests; at most 16 are taken".to_owned();
    assert_eq!(plan("webhook-flood"), Err(TargetError::BadAnswer(too_many.clone())));
    assert_eq!(judge("webhook-flood"), Err(TargetError::BadAnswer(too_many)));
}

#[test]
fn a_huge_body_is_no_plan_and_many_words_are_cut() {
    let too_large = "the body of its request 1 has 1048577 bytes; at most 1048576 are taken".to_owned();
    assert_eq!(plan("webhook-body"), Err(TargetError::BadAnswer(too_large)));
    let Ok(Disposition::GiveUp(why)) = judge("webhook-body") else { panic!("it gives up") };
    assert_eq!(why.len(), 4 * 1024 + '…'.len_utf8());
}

#[test]
fn a_plan_that_is_large_only_when_it_is_copied_is_not_copied() {
    let Err(TargetError::Trapped(trap)) = plan("webhook-copies") else { panic!("500 MiB were copied") };
    assert!(matches!(trap.cause, TrapCause::Other(_)), "{trap}");
}

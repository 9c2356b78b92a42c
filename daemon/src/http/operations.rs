//! What each route of the table takes and answers, for the document that describes the API. A test holds the two against each other.

use forge_api::{
    ApplyConfig, Attempt, AttemptResult, AuditEntry, ClaimRequest, ClaimResponse, ConfigRevision, ConfigStatus,
    CreateTask, Decision, HeartbeatRequest, HeartbeatResponse, IntegrationAnswer, IntegrationRequest, Load,
    LogAccepted, LogLines, LogMatches, Page, PluginSummary, ProjectSummary, RegisterRequest, RegisterResponse,
    ResultAccepted, RetryTask, RevokeToken, RevokedToken, Runner, Schedule, ServedConfig, StartRequest, StartResponse,
    Task, TemplateStats, TemplateSummary, TestWebhook, WebhookDelivery, WebhookTarget, Why,
};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::audit::AuditQuery;
use super::config::RevisionsQuery;
use super::events::EventsQuery;
use super::insight::LoadQuery;
use super::listing::ListingQuery;
use super::log_lines::{LinesQuery, SearchQuery};
use super::task_log::LogQuery;
use super::user_side::{StatsQuery, TaskQuery};
use super::webhooks::DeliveryQuery;

/// Makes the schema of a type.
pub(super) type Shape = fn(&mut SchemaGenerator) -> Schema;

fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// What a body is.
#[derive(Clone, Copy)]
pub(super) enum Content {
    /// There is none.
    Nothing,
    /// JSON of one shape.
    Json(Shape),
    /// JSON of whatever shape.
    AnyJson,
    /// Bytes of this media type.
    Bytes(&'static str),
}

/// One operation.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    /// Its name for programs.
    pub(super) id: &'static str,
    /// One line for people.
    pub(super) summary: &'static str,
    pub(super) query: Option<Shape>,
    pub(super) body: Content,
    /// Whether it has to be there.
    pub(super) needs_body: bool,
    pub(super) answer: Content,
    /// The statuses of an answer that is no problem.
    pub(super) statuses: &'static [u16],
    /// The statuses of problems beside those that every route of its kind has.
    pub(super) problems: &'static [u16],
}

impl Operation {
    const fn new(method: &'static str, path: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self {
            method,
            path,
            id,
            summary,
            query: None,
            body: Content::Nothing,
            needs_body: true,
            answer: Content::Nothing,
            statuses: &[200],
            problems: &[],
        }
    }

    const fn asks(mut self, query: Shape) -> Self {
        self.query = Some(query);
        self
    }

    const fn takes(mut self, body: Content) -> Self {
        self.body = body;
        self
    }

    /// The same of a body that may be left out.
    const fn may_take(mut self, body: Content) -> Self {
        self.needs_body = false;
        self.takes(body)
    }

    const fn answers(mut self, answer: Content) -> Self {
        self.answer = answer;
        self
    }

    const fn with(mut self, statuses: &'static [u16]) -> Self {
        self.statuses = statuses;
        self
    }

    const fn or(mut self, problems: &'static [u16]) -> Self {
        self.problems = problems;
        self
    }
}

const fn get(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation::new("GET", path, id, summary)
}

const fn post(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation::new("POST", path, id, summary)
}

/// Every operation; paths as the table has them, without the API's prefix where they stand under it.
pub(super) fn all() -> Vec<Operation> {
    let mut all = of_runners();
    all.extend(of_users());
    all.extend(of_operators());
    all
}

fn of_runners() -> Vec<Operation> {
    use Content::{Bytes, Json};
    const BYTES: &str = "application/octet-stream";
    vec![
        post("/runners", "registerRunner", "Register a runner")
            .takes(Json(of::<RegisterRequest>))
            .answers(Json(of::<RegisterResponse>))
            .with(&[201])
            .or(&[403, 409, 426]),
        Operation::new("DELETE", "/runner", "unregisterRunner", "End the runner's own registration").with(&[204]),
        post("/runner/claim", "claim", "Wait for work, up to 30 seconds")
            .takes(Json(of::<ClaimRequest>))
            .answers(Json(of::<ClaimResponse>))
            .or(&[409, 426]),
        post("/runner/heartbeat", "heartbeat", "Renew the leases of everything that the runner holds")
            .takes(Json(of::<HeartbeatRequest>))
            .answers(Json(of::<HeartbeatResponse>))
            .or(&[409, 426]),
        get("/plugins/{sha256}", "getComponent", "Fetch a plugin's component")
            .answers(Bytes("application/wasm"))
            .or(&[404]),
        post("/attempts/{id}/start", "startAttempt", "Say that an attempt's process is about to run")
            .takes(Json(of::<StartRequest>))
            .answers(Json(of::<StartResponse>))
            .or(&[404, 409, 410]),
        Operation::new("PATCH", "/attempts/{id}/log", "appendLog", "Hand in bytes of an attempt's log")
            .takes(Bytes(BYTES))
            .answers(Json(of::<LogAccepted>))
            .or(&[404, 409, 410, 416, 507]),
        Operation::new("PUT", "/attempts/{id}/result", "finishAttempt", "Report an attempt's end")
            .takes(Json(of::<AttemptResult>))
            .answers(Json(of::<ResultAccepted>))
            .or(&[404, 409, 410]),
        Operation::new("PUT", "/attempts/{id}/carry", "putCarry", "Leave what a plan hands to its apply")
            .takes(Bytes(BYTES))
            .with(&[204])
            .or(&[404, 409, 410, 507]),
        get("/attempts/{id}/carry", "getCarry", "Fetch what an approved plan has left")
            .answers(Bytes(BYTES))
            .or(&[404, 409, 410]),
    ]
}

fn of_users() -> Vec<Operation> {
    use Content::{AnyJson, Bytes, Json};
    vec![
        get("/openapi.json", "getOpenApi", "This document").answers(AnyJson),
        get("/projects", "listProjects", "List projects").answers(Json(of::<Page<ProjectSummary>>)),
        get("/projects/{project}/templates", "listTemplates", "List a project's templates")
            .answers(Json(of::<Page<TemplateSummary>>)),
        post("/projects/{project}/templates/{template}/tasks", "createTask", "Start a task")
            .takes(Json(of::<CreateTask>))
            .answers(Json(of::<Task>))
            .with(&[201, 200])
            .or(&[409, 422, 507]),
        get("/projects/{project}/templates/{template}/stats", "getTemplateStats", "How a template's newest tasks went")
            .asks(of::<StatsQuery>)
            .answers(Json(of::<TemplateStats>)),
        get(
            "/projects/{project}/integrations/{integration}/log",
            "listIntegrationRequests",
            "List what came to an integration",
        )
        .answers(Json(of::<Page<IntegrationRequest>>)),
        get("/schedules", "listSchedules", "List schedules")
            .asks(of::<ListingQuery>)
            .answers(Json(of::<Page<Schedule>>)),
        get("/tasks", "listTasks", "List tasks, the newest first")
            .asks(of::<TaskQuery>)
            .answers(Json(of::<Page<Task>>)),
        get("/tasks/{number}", "getTask", "Show a task").answers(Json(of::<Task>)),
        get("/tasks/{number}/attempts", "listAttempts", "List a task's attempts").answers(Json(of::<Page<Attempt>>)),
        get("/tasks/{number}/log", "getLog", "Read a log: whole, in part, or as it grows")
            .asks(of::<LogQuery>)
            .answers(Bytes("text/plain; charset=utf-8"))
            .with(&[200, 206])
            .or(&[416]),
        get("/tasks/{number}/log/lines", "getLogLines", "Read some lines of a log as a terminal shows them")
            .asks(of::<LinesQuery>)
            .answers(Json(of::<LogLines>)),
        get("/tasks/{number}/log/search", "searchLog", "Find lines of a log")
            .asks(of::<SearchQuery>)
            .answers(Json(of::<LogMatches>)),
        get("/tasks/{number}/why", "getWhy", "Say why a task is where it is").answers(Json(of::<Why>)),
        post("/tasks/{number}/cancel", "cancelTask", "End a task").answers(Json(of::<Task>)).or(&[409]),
        post("/tasks/{number}/retry", "retryTask", "Give a task another attempt")
            .may_take(Json(of::<RetryTask>))
            .answers(Json(of::<Task>))
            .or(&[409, 507]),
        post("/tasks/{number}/approve", "approveTask", "Have a plan carried out")
            .takes(Json(of::<Decision>))
            .answers(Json(of::<Task>))
            .or(&[409]),
        post("/tasks/{number}/reject", "rejectTask", "Have a plan dropped")
            .takes(Json(of::<Decision>))
            .answers(Json(of::<Task>))
            .or(&[409]),
    ]
}

fn of_operators() -> Vec<Operation> {
    use Content::{AnyJson, Bytes, Json};
    vec![
        get("/runners", "listRunners", "List runners").asks(of::<ListingQuery>).answers(Json(of::<Page<Runner>>)),
        get("/runners/{name}", "getRunner", "Show a runner").answers(Json(of::<Runner>)),
        Operation::new("DELETE", "/runners/{name}", "removeRunner", "End a runner's registration").with(&[204]),
        post("/runners/{name}/drain", "drainRunner", "Have a runner take nothing new").answers(Json(of::<Runner>)),
        post("/runners/{name}/resume", "resumeRunner", "Have a runner take work again").answers(Json(of::<Runner>)),
        get("/events", "listen", "Be told of what changes (server-sent events)")
            .asks(of::<EventsQuery>)
            .answers(Bytes("text/event-stream")),
        get("/config", "getConfig", "Show the revision that serves, and what keeps a newer one away")
            .answers(Json(of::<ConfigStatus>)),
        get("/config/revisions", "listRevisions", "List what became of the newest revisions")
            .asks(of::<RevisionsQuery>)
            .answers(Json(of::<Page<ConfigRevision>>)),
        post("/config/apply", "applyConfig", "Have the source looked at now")
            .takes(Json(of::<ApplyConfig>))
            .answers(Json(of::<ConfigStatus>))
            .or(&[409, 504]),
        get("/config/objects", "getConfigObjects", "Show everything that the revision that serves holds")
            .answers(Json(of::<ServedConfig>)),
        get("/plugins", "listPlugins", "List the tree's plugins").answers(Json(of::<Page<PluginSummary>>)),
        get("/stats/load", "getLoad", "How busy the runners were").asks(of::<LoadQuery>).answers(Json(of::<Load>)),
        post("/tokens/revoke", "revokeToken", "Refuse a token from now on")
            .takes(Json(of::<RevokeToken>))
            .answers(Json(of::<RevokedToken>)),
        get("/webhooks", "listWebhookTargets", "List webhook targets")
            .asks(of::<ListingQuery>)
            .answers(Json(of::<Page<WebhookTarget>>)),
        get("/webhooks/deliveries", "listDeliveries", "List deliveries, the newest first")
            .asks(of::<DeliveryQuery>)
            .answers(Json(of::<Page<WebhookDelivery>>)),
        get("/webhooks/deliveries/{id}", "getDelivery", "Show a delivery")
            .answers(Json(of::<WebhookDelivery>))
            .or(&[404]),
        post("/webhooks/deliveries/{id}/redeliver", "redeliver", "Send a delivery once more")
            .answers(Json(of::<WebhookDelivery>))
            .or(&[404, 409]),
        post("/webhooks/{name}/test", "testWebhook", "Send a target a test")
            .takes(Json(of::<TestWebhook>))
            .answers(Json(of::<WebhookDelivery>))
            .or(&[404, 409]),
        get("/audit", "listAudit", "List who did what, the newest first")
            .asks(of::<AuditQuery>)
            .answers(Json(of::<Page<AuditEntry>>)),
        post("/hooks/config", "pushHook", "Tell of a push to the configuration's repository")
            .takes(Bytes("*/*"))
            .with(&[202])
            .or(&[400, 401, 404, 408, 413, 429]),
        post("/hooks/{project}/{integration}", "callIntegration", "Ask an integration for a task")
            .takes(AnyJson)
            .answers(Json(of::<IntegrationAnswer>))
            .with(&[200, 201])
            .or(&[400, 401, 404, 408, 409, 413, 415, 422, 429, 507]),
    ]
}

//! The walk of the table: every route × every kind of bearer × the objects of a project that the bearer reaches and of one that it does not.
//!
//! What is meant stands in `POLICY`, written by hand and apart from the daemon's own table: a route that asks for less or more than it did,
//! and one that is new and stands not here, fail the walk.

use std::net::{IpAddr, Ipv4Addr};

use forge_daemon::{RouteFacts, routes};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Place, REGISTRATION_TOKEN, Running, trusting};

/// Roles from the least to the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Viewer,
    Operator,
    Owner,
    Admin,
}
use Role::{Admin, Operator, Owner, Viewer};

/// Whom a route answers.
#[derive(Clone, Copy, Debug)]
enum Policy {
    /// Anybody.
    Anyone,
    /// Who proves it in the request itself: no token counts.
    Proof,
    /// A registration token.
    Registration,
    /// A runner's token.
    Runner,
    /// An attempt's token.
    Attempt,
    /// An access token of this role or a higher one; the answer holds what it reaches.
    Listing(Role),
    /// The same, and it reaches every project.
    Everywhere(Role),
    /// The same, and it reaches the project, the task or the runner that the path names.
    Of(Object, Role),
}
use Policy::{Anyone, Attempt, Everywhere, Listing, Of, Proof, Registration, Runner};

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Object {
    Project,
    Task,
    Runner,
}
use Object::{Project, Task};

impl Object {
    fn word(self) -> &'static str {
        match self {
            Project => "project",
            Task => "task",
            Self::Runner => "runner",
        }
    }
}

/// What is meant. Paths without a slash at their beginning stand under the API's prefix.
const POLICY: &[(&str, &str, Policy)] = &[
    ("POST", "runners", Registration),
    ("DELETE", "runner", Runner),
    ("POST", "runner/claim", Runner),
    ("POST", "runner/heartbeat", Runner),
    ("GET", "plugins/{sha256}", Runner),
    ("POST", "attempts/{id}/start", Attempt),
    ("PATCH", "attempts/{id}/log", Attempt),
    ("PUT", "attempts/{id}/result", Attempt),
    ("PUT", "attempts/{id}/carry", Attempt),
    ("GET", "attempts/{id}/carry", Attempt),
    ("GET", "openapi.json", Anyone),
    ("GET", "projects", Listing(Viewer)),
    ("GET", "projects/{project}/templates", Of(Project, Viewer)),
    ("POST", "projects/{project}/templates/{template}/tasks", Of(Project, Operator)),
    ("GET", "projects/{project}/templates/{template}/stats", Of(Project, Viewer)),
    ("GET", "projects/{project}/integrations/{integration}/log", Of(Project, Viewer)),
    ("GET", "schedules", Listing(Viewer)),
    ("GET", "tasks", Listing(Viewer)),
    ("GET", "tasks/{number}", Of(Task, Viewer)),
    ("GET", "tasks/{number}/attempts", Of(Task, Viewer)),
    ("GET", "tasks/{number}/log", Of(Task, Viewer)),
    ("GET", "tasks/{number}/log/lines", Of(Task, Viewer)),
    ("GET", "tasks/{number}/log/search", Of(Task, Viewer)),
    ("GET", "tasks/{number}/why", Of(Task, Viewer)),
    ("POST", "tasks/{number}/cancel", Of(Task, Operator)),
    ("POST", "tasks/{number}/retry", Of(Task, Operator)),
    ("POST", "tasks/{number}/approve", Of(Task, Operator)),
    ("POST", "tasks/{number}/reject", Of(Task, Operator)),
    ("GET", "runners", Listing(Viewer)),
    ("GET", "runners/{name}", Of(Object::Runner, Viewer)),
    ("DELETE", "runners/{name}", Of(Object::Runner, Owner)),
    ("POST", "runners/{name}/drain", Of(Object::Runner, Owner)),
    ("POST", "runners/{name}/resume", Of(Object::Runner, Owner)),
    ("GET", "events", Listing(Viewer)),
    ("GET", "config", Listing(Viewer)),
    ("GET", "config/revisions", Listing(Viewer)),
    ("POST", "config/apply", Everywhere(Admin)),
    ("GET", "config/objects", Everywhere(Viewer)),
    ("GET", "plugins", Everywhere(Viewer)),
    ("GET", "stats/load", Everywhere(Viewer)),
    ("POST", "tokens/revoke", Everywhere(Admin)),
    ("GET", "webhooks", Everywhere(Admin)),
    ("GET", "webhooks/deliveries", Everywhere(Admin)),
    ("GET", "webhooks/deliveries/{id}", Everywhere(Admin)),
    ("POST", "webhooks/deliveries/{id}/redeliver", Everywhere(Admin)),
    ("POST", "webhooks/{name}/test", Everywhere(Admin)),
    ("GET", "audit", Listing(Owner)),
    ("POST", "/hooks/config", Proof),
    ("POST", "/hooks/{project}/{integration}", Proof),
    ("GET", "/", Listing(Viewer)),
    ("GET", "/login", Anyone),
    ("POST", "/login", Proof),
    ("POST", "/logout", Listing(Viewer)),
    ("GET", "/assets/{hash}/{name}", Anyone),
    ("GET", "/tasks", Listing(Viewer)),
    ("GET", "/tasks/{number}", Of(Task, Viewer)),
    ("POST", "/tasks/{number}/cancel", Of(Task, Operator)),
    ("POST", "/tasks/{number}/retry", Of(Task, Operator)),
    ("POST", "/tasks/{number}/approve", Of(Task, Operator)),
    ("POST", "/tasks/{number}/reject", Of(Task, Operator)),
    ("GET", "/templates", Listing(Viewer)),
    ("GET", "/projects/{project}/templates/{template}", Of(Project, Viewer)),
    ("GET", "/projects/{project}/templates/{template}/run", Of(Project, Operator)),
    ("POST", "/projects/{project}/templates/{template}/run", Of(Project, Operator)),
    ("GET", "/runners", Listing(Viewer)),
    ("POST", "/runners/{name}/drain", Of(Object::Runner, Owner)),
    ("POST", "/runners/{name}/resume", Of(Object::Runner, Owner)),
    ("POST", "/runners/{name}/remove", Of(Object::Runner, Owner)),
    ("GET", "/schedules", Listing(Viewer)),
    ("GET", "/integrations", Listing(Viewer)),
    ("GET", "/projects/{project}/integrations/{integration}", Of(Project, Viewer)),
    ("GET", "/config", Listing(Viewer)),
    ("GET", "/config/codes", Listing(Viewer)),
    ("GET", "/plugins", Everywhere(Viewer)),
    ("GET", "/audit", Listing(Owner)),
    ("GET", "/webhooks", Everywhere(Admin)),
    ("GET", "/webhooks/deliveries/{id}", Everywhere(Admin)),
    ("POST", "/webhooks/deliveries/{id}/redeliver", Everywhere(Admin)),
    ("POST", "/webhooks/{name}/test", Everywhere(Admin)),
];

/// Whose objects a route is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owned {
    Shop,
    Bank,
    Nobody,
}

/// Who asks.
#[derive(Clone, Debug)]
enum Bearer {
    Nobody,
    Garbage,
    Runner,
    Registration,
    /// An access token: its role, and whether it reaches every project or `shop` alone.
    Access(Role, Reach),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Shop,
    All,
}

/// What is to come of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Who asks is unknown: 401, or the way to sign in.
    Unknown,
    /// 403.
    Forbidden,
    /// 404, in the words of an object that is not there.
    Hidden,
    /// The handler's own, whatever it is.
    Through,
}

fn expected(policy: Policy, bearer: &Bearer, owned: Owned) -> Answer {
    let (role, reach) = match (policy, bearer) {
        (Anyone | Proof, _) | (Registration, Bearer::Registration) | (Runner, Bearer::Runner) => {
            return Answer::Through;
        }
        (Registration | Runner | Attempt, _) => return Answer::Unknown,
        (Listing(_) | Everywhere(_) | Of(..), Bearer::Access(role, reach)) => (*role, *reach),
        (Listing(_) | Everywhere(_) | Of(..), _) => return Answer::Unknown,
    };
    let is_enough = |needed: Role| if role >= needed { Answer::Through } else { Answer::Forbidden };
    let foreign = owned == Owned::Bank && reach == Reach::Shop;
    match policy {
        Listing(needed) => is_enough(needed),
        Everywhere(_) if reach == Reach::Shop => Answer::Forbidden,
        Everywhere(needed) => is_enough(needed),
        Of(..) if foreign => Answer::Hidden,
        // A runner that serves every project is seen by all, and changed by an admin of all.
        Of(Object::Runner, needed) if owned == Owned::Nobody && needed > Viewer => match reach {
            Reach::All => is_enough(Admin),
            Reach::Shop => Answer::Forbidden,
        },
        Of(_, needed) => is_enough(needed),
        Anyone | Proof | Registration | Runner | Attempt => Answer::Through,
    }
}

/// A daemon with two projects and objects in each.
struct World {
    daemon: Running,
    key: age::x25519::Identity,
    runner: String,
    tokens: Vec<(Role, Reach, String)>,
}

impl World {
    async fn new(place: &Place) -> Self {
        place.put("plugins/shell.toml", "source = \"builtin:shell\"\n[allow]\nprograms = [\"bash\"]\n");
        for project in ["shop", "bank"] {
            place.put(&format!("projects/{project}/project.toml"), "");
            let template = "executor = \"shell\"\n[params]\nscript = \"true\"\n";
            place.put(&format!("projects/{project}/templates/hello.toml"), template);
            let integration = "template = \"hello\"\nauth = \"none\"\n";
            place.put(&format!("projects/{project}/integrations/push.toml"), integration);
            place.put(&format!("runners/{project}-1.toml"), &format!("project = \"{project}\"\n"));
        }
        place.put("runners/any-1.toml", "");
        let mut tokens = Vec::new();
        for (role, name) in [(Viewer, "viewer"), (Operator, "operator"), (Owner, "owner"), (Admin, "admin")] {
            let all = place.token(&format!("{name}-all"), &format!("role = {name:?}"));
            let shop = place.token(&format!("{name}-shop"), &format!("role = {name:?}\nprojects = [\"shop\"]"));
            tokens.extend([(role, Reach::All, all), (role, Reach::Shop, shop)]);
        }
        let daemon = place.start().await;
        let mut world = Self { daemon, key: age::x25519::Identity::generate(), runner: String::new(), tokens };
        world.runner = world.register("walker").await;
        let admin = world.token(&Bearer::Access(Admin, Reach::All));
        for (project, number) in [("shop", 1), ("bank", 2)] {
            let path = format!("/projects/{project}/templates/hello/tasks");
            let made = world.daemon.request(Method::POST, &path, &admin).json(&json!({})).send().await;
            let made: Value = made.expect("an answer").json().await.expect("a task");
            assert_eq!(made["number"], number);
        }
        world
    }

    fn registration(&self, name: &str) -> Value {
        json!({"name": name, "public_key": self.key.to_public().to_string(), "version": "0.1.0"})
    }

    /// Registers a runner, again where it is already, and answers its token.
    async fn register(&self, name: &str) -> String {
        let request = self.daemon.request(Method::POST, "/runners", REGISTRATION_TOKEN);
        let answer = request.json(&self.registration(name)).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap_or_default());
        let registered: forge_api::RegisterResponse = answer.json().await.expect("a registration");
        let sealed = registered.sealed_token_bytes().expect("base64");
        String::from_utf8(age::decrypt(&self.key, &sealed).expect("sealed to us")).expect("text")
    }

    fn token(&self, bearer: &Bearer) -> String {
        match bearer {
            Bearer::Nobody => String::new(),
            Bearer::Garbage => "forge_access_garbage".to_owned(),
            Bearer::Runner => self.runner.clone(),
            Bearer::Registration => REGISTRATION_TOKEN.to_owned(),
            Bearer::Access(role, reach) => {
                let found = self.tokens.iter().find(|(r, s, _)| r == role && s == reach);
                found.map(|(_, _, token)| token.clone()).expect("a token")
            }
        }
    }

    /// Asks a route for the objects of one owner.
    async fn ask(&self, http: &reqwest::Client, route: &RouteFacts, owned: Owned, token: &str) -> Response {
        self.request(http, route, owned, token).await.send().await.expect("an answer")
    }

    async fn request(
        &self,
        http: &reqwest::Client,
        route: &RouteFacts,
        owned: Owned,
        token: &str,
    ) -> reqwest::RequestBuilder {
        let path = filled(&route.path, owned);
        let of_runner = path.strip_prefix("/api/v1").unwrap_or(&path).strip_prefix("/runners/");
        let runner = of_runner.and_then(|rest| rest.split('/').next());
        if let Some(runner) = runner.filter(|_| route.method != Method::GET) {
            // What an earlier request of the walk removed is there again.
            let _ = self.register(runner).await;
        }
        let request = http.request(route.method.clone(), format!("{}{path}", self.daemon.addresses.api));
        let request = if token.is_empty() { request } else { request.bearer_auth(token) };
        if route.method == Method::GET {
            return request;
        }
        if !route.path.starts_with("/api/") && !route.path.starts_with("/hooks/") {
            return request.header("content-type", "application/x-www-form-urlencoded").body("");
        }
        // The body of a registration is looked at before its token; for the others anything will do.
        let body = if route.path.ends_with("/runners") { self.registration("walker-2") } else { json!({}) };
        request.json(&body)
    }
}

/// A route's path for the objects of one owner.
fn filled(path: &str, owned: Owned) -> String {
    let (project, number, runner) = match owned {
        Owned::Shop => ("shop", "1", "shop-1"),
        Owned::Bank => ("bank", "2", "bank-1"),
        Owned::Nobody => ("none", "999", "any-1"),
    };
    let name = if path.contains("runners/") { runner } else { "ops" };
    let zeros = "0".repeat(64);
    let values = [
        ("{project}", project),
        ("{template}", "hello"),
        ("{integration}", "push"),
        ("{number}", number),
        ("{name}", name),
        ("{id}", "1-1"),
        ("{sha256}", &zeros),
        ("{hash}", &zeros),
    ];
    let path = values.into_iter().fold(path.to_owned(), |path, (key, value)| path.replace(key, value));
    assert!(!path.contains('{'), "{path} has a part that the walk does not know: add it to `filled`");
    path
}

/// A client with an address of its own: wrong tokens are counted by address.
fn client_from(daemon: &Running, number: usize) -> reqwest::Client {
    let number = u8::try_from(number + 2).expect("few routes");
    let address = IpAddr::V4(Ipv4Addr::new(127, 0, 1, number));
    let builder = trusting(daemon.addresses.ca_file.as_deref()).local_address(address);
    builder.redirect(reqwest::redirect::Policy::none()).build().expect("a client")
}

async fn met(answer: Response, policy: Policy, is_page: bool) -> Answer {
    let status = answer.status();
    let to_sign_in = |answer: &Response| {
        answer.headers().get("location").is_some_and(|to| to.to_str().is_ok_and(|to| to.starts_with("/login")))
    };
    match status {
        StatusCode::UNAUTHORIZED => Answer::Unknown,
        // Who signed out is sent there, too, with a cookie that ends.
        StatusCode::SEE_OTHER if is_page && to_sign_in(&answer) && !answer.headers().contains_key("set-cookie") => {
            Answer::Unknown
        }
        StatusCode::FORBIDDEN => Answer::Forbidden,
        StatusCode::NOT_FOUND => match policy {
            Of(object, _) if answer.text().await.expect("text").contains(&format!("there is no {}", object.word())) => {
                Answer::Hidden
            }
            _ => Answer::Through,
        },
        StatusCode::TOO_MANY_REQUESTS => panic!("the walk asks too much of one address"),
        _ => Answer::Through,
    }
}

fn policy_of(route: &RouteFacts) -> Policy {
    let path = route.path.strip_prefix("/api/v1/").unwrap_or(&route.path);
    let found = POLICY.iter().find(|(method, known, _)| *method == route.method.as_str() && *known == path);
    let Some((_, _, policy)) = found else {
        panic!("{} {} is new: say in POLICY of daemon/tests/edge/walk.rs whom it answers", route.method, route.path)
    };
    *policy
}

/// Each route is asked by each kind of bearer, for what the bearer reaches and for what it does not.
#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_whom_it_is_meant_to_and_nobody_else() {
    let place = Place::new();
    let world = World::new(&place).await;
    let mut bearers = vec![Bearer::Nobody, Bearer::Garbage, Bearer::Runner, Bearer::Registration];
    bearers.extend(world.tokens.iter().map(|(role, reach, _)| Bearer::Access(*role, *reach)));
    let routes = routes();
    let mut wrong = Vec::new();
    for (number, route) in routes.iter().enumerate() {
        let policy = policy_of(route);
        let http = client_from(&world.daemon, number);
        let owners = match policy {
            Of(Object::Runner, _) => &[Owned::Shop, Owned::Bank, Owned::Nobody][..],
            Of(..) => &[Owned::Shop, Owned::Bank],
            _ => &[Owned::Shop],
        };
        // The runner's own end comes last, or nobody would be a runner any more.
        let ends_the_runner = route.path == "/api/v1/runner";
        for bearer in bearers.iter().filter(|bearer| !(ends_the_runner && matches!(bearer, Bearer::Runner))) {
            for owned in owners {
                let answer = world.ask(&http, route, *owned, &world.token(bearer)).await;
                let status = answer.status();
                let met = met(answer, policy, !route.path.starts_with("/api/")).await;
                let expected = expected(policy, bearer, *owned);
                if met != expected {
                    let asked = format!("{} {}", route.method, filled(&route.path, *owned));
                    wrong.push(format!("{asked} by {bearer:?}: {status} is {met:?}, and {expected:?} was meant"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let gone: Vec<_> = POLICY
        .iter()
        .filter(|(method, path, _)| {
            !routes.iter().any(|route| {
                route.method.as_str() == *method && route.path.strip_prefix("/api/v1/").unwrap_or(&route.path) == *path
            })
        })
        .collect();
    assert!(gone.is_empty(), "no such route any more: {gone:?}");
    world.daemon.stop().await;
}

/// A cookie is sent by the browser, whoever made it ask: what changes something wants more, on every route.
#[tokio::test(flavor = "multi_thread")]
async fn no_route_that_changes_something_takes_a_cookie_alone() {
    let place = Place::new();
    let world = World::new(&place).await;
    let http = world.daemon.browser();
    let token = world.token(&Bearer::Access(Admin, Reach::All));
    let body = form_urlencoded::Serializer::new(String::new()).append_pair("token", &token).finish();
    let login = http.post(format!("{}/login", world.daemon.addresses.api)).body(body);
    let login = login.header("content-type", "application/x-www-form-urlencoded").send().await.expect("an answer");
    let cookie = login.headers()["set-cookie"].to_str().expect("text").split(';').next().expect("a pair").to_owned();
    for route in routes() {
        if !matches!(policy_of(&route), Listing(_) | Everywhere(_) | Of(..)) {
            continue;
        }
        let request = world.request(&http, &route, Owned::Shop, "").await.header("cookie", &cookie);
        let status = request.send().await.expect("an answer").status();
        if route.method == Method::GET {
            assert!(status != 401 && status != 403 && status != 303, "{} {}: {status}", route.method, route.path);
        } else {
            assert_eq!(status, 403, "{} {}", route.method, route.path);
        }
    }
    world.daemon.stop().await;
}

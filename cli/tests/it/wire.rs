//! Runners of other versions, played by hand against today's daemon: each says what `testdata/wire` holds of its version, and gets from
//! the answers all that it looks for in them.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forge_runner::trust::{Trust, http_client};
use serde_json::{Value, json};

use crate::approval;
use crate::harness::{Daemon, World};
use crate::packed::pack;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/wire")
}

pub(crate) fn sample(version: &str, name: &str) -> Value {
    let path = folder().join(version).join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("JSON")
}

/// `sample` with some fields changed.
pub(crate) fn with(mut sample: Value, fields: Value) -> Value {
    let Value::Object(fields) = fields else { panic!("fields") };
    sample.as_object_mut().expect("an object").extend(fields);
    sample
}

/// Every field of the sample is in the answer: an older peer may need it.
fn assert_says(answer: &Value, sample: &Value, what: &str) {
    for key in sample.as_object().expect("an object").keys() {
        assert!(answer.get(key).is_some(), "{what} has no {key}: {answer}");
    }
}

/// A runner that has only what an HTTP client and a key are.
pub(crate) struct ByHand {
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
    api: String,
    identity: age::x25519::Identity,
    signing_key: String,
    pub(crate) token: String,
}

impl ByHand {
    pub(crate) fn new(daemon: &Daemon) -> Self {
        Self {
            client: http_client(&Trust::CaFile(daemon.ca_file.clone())).expect("a client"),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"),
            api: format!("{}/api/v1", daemon.api),
            identity: age::x25519::Identity::generate(),
            signing_key: String::new(),
            token: String::new(),
        }
    }

    fn send(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        self.runtime.block_on(async {
            let response = request.send().await.expect("an answer");
            let status = response.status().as_u16();
            (status, serde_json::from_slice(&response.bytes().await.expect("a body")).unwrap_or_default())
        })
    }

    pub(crate) fn call(&self, method: &str, path: &str, token: &str, body: &Value) -> (u16, Value) {
        let method = method.parse().expect("a method");
        self.send(self.client.request(method, format!("{}{path}", self.api)).bearer_auth(token).json(body))
    }

    /// The same, which has to succeed.
    pub(crate) fn done(&self, method: &str, path: &str, token: &str, body: &Value) -> Value {
        let (status, answer) = self.call(method, path, token, body);
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    /// What is there, as it is.
    pub(crate) fn bytes(&self, path: &str, token: &str) -> Vec<u8> {
        self.runtime.block_on(async {
            let answer =
                self.client.get(format!("{}{path}", self.api)).bearer_auth(token).send().await.expect("an answer");
            assert_eq!(answer.status().as_u16(), 200, "{path}");
            answer.bytes().await.expect("a body").to_vec()
        })
    }

    pub(crate) fn unseal(&self, sealed: &Value) -> Vec<u8> {
        let bytes = STANDARD.decode(sealed.as_str().expect("a text")).expect("base64");
        age::decrypt(&self.identity, &bytes).expect("sealed to this runner")
    }

    pub(crate) fn register(&mut self, world: &World, request: Value) -> Value {
        let request = with(request, json!({"public_key": self.identity.to_public().to_string()}));
        let answer = self.done("POST", "/runners", world.registration_token(), &request);
        self.token = String::from_utf8(self.unseal(&answer["sealed_token"])).expect("a token");
        answer["signing_key"].as_str().expect("a key").clone_into(&mut self.signing_key);
        answer
    }
}

#[test]
fn a_runner_of_every_version_registers_works_and_hands_in() {
    let today = env!("CARGO_PKG_VERSION");
    let world = World::new();
    world.template("hello", "concurrency = \"parallel\"", "true");
    let daemon = world.daemon();
    let versions = std::fs::read_dir(folder()).expect("testdata/wire").map(|entry| entry.expect("an entry"));
    let versions = versions.filter(|entry| entry.path().is_dir());
    let mut versions: Vec<String> = versions.map(|entry| entry.file_name().into_string().expect("text")).collect();
    versions.sort();
    assert!(versions.len() >= 2 && versions.iter().any(|version| version == today), "{versions:?}");
    for version in &versions {
        let mut runner = ByHand::new(&daemon);
        let name = format!("of-{}", version.replace('.', "-"));
        let registered = runner.register(&world, with(sample(version, "register-request"), json!({"name": &name})));
        assert_says(&registered, &sample(version, "register-response"), "the registration's answer");

        let number = world.start_task(&daemon, "hello");
        let claim = with(sample(version, "claim-request"), json!({"held": [], "wait_ms": 20_000}));
        let claimed = runner.done("POST", "/runner/claim", &runner.token, &claim);
        assert_says(&claimed, &sample(version, "claim-response"), "a claim's answer");
        let sealed = &claimed["jobs"][0];
        assert_says(sealed, &sample(version, "claim-response")["jobs"][0], "a sealed job");
        let job: Value = serde_json::from_slice(&runner.unseal(&sealed["sealed"])).expect("a job");
        assert_says(&job, &sample(version, "job"), "a job");
        assert_eq!(job["runner"], name.as_str());

        let (attempt, token) = (job["attempt"].as_str().expect("an attempt"), job["token"].as_str().expect("a token"));
        let beat = with(sample(version, "heartbeat-request"), json!({"held": [attempt]}));
        let beaten = runner.done("POST", "/runner/heartbeat", &runner.token, &beat);
        assert_says(&beaten, &sample(version, "heartbeat-response"), "a heartbeat's answer");
        let begun =
            runner.done("POST", &format!("/attempts/{attempt}/start"), token, &sample(version, "start-request"));
        assert_says(&begun, &sample(version, "start-response"), "a start's answer");

        let log = format!("by hand, as {version} does\n");
        let patch = runner.client.patch(format!("{}/attempts/{attempt}/log", runner.api)).bearer_auth(token);
        let patch = patch.header("content-range", format!("bytes 0-{}/*", log.len() - 1)).body(log.clone());
        let (status, taken) = runner.send(patch);
        assert_eq!((status, taken["length"].as_u64()), (200, Some(log.len() as u64)), "{taken}");
        assert_says(&taken, &sample(version, "log-accepted"), "a patch's answer");

        let digest = ring::digest::digest(&ring::digest::SHA256, log.as_bytes());
        let sha256: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let result = json!({"outcome": "succeeded", "reason": null, "log_length": log.len(), "log_sha256": sha256});
        let result = with(sample(version, "result"), result);
        let ended = runner.done("PUT", &format!("/attempts/{attempt}/result"), token, &result);
        assert_says(&ended, &sample(version, "result-accepted"), "a result's answer");
        assert_eq!((&ended["state"], &ended["log_whole"]), (&json!("succeeded"), &json!(true)));
        assert_eq!(world.log(&daemon, number), log.as_bytes());

        if version == today && std::env::var_os("FORGE_TEST_REWRITE").is_some() {
            use age::secrecy::ExposeSecret as _;
            let kept = json!({
                "runner": name,
                "identity": runner.identity.to_string().expose_secret(),
                "signing_key": runner.signing_key,
                "opened_at": job["expires_at"],
                "sealed": sealed,
            });
            let text = serde_json::to_string_pretty(&kept).expect("JSON") + "\n";
            std::fs::write(folder().join(version).join("sealed-job.json"), text).expect("written");
        }
    }
}

#[test]
fn a_runner_that_would_plan_anew_gets_no_plan_that_was_approved() {
    let world = approval::world("concurrency = \"parallel\"");
    let daemon = world.daemon();
    let planning = world.runner(&daemon, "ny-1", "");
    let number = approval::start(&world, &daemon);
    world.wait_state(&daemon, number, "awaiting_approval");
    assert_eq!(planning.stop().code(), Some(0));
    approval::decide(&world, &daemon, "approve", number, &[]).expect_code(0);

    let today = env!("CARGO_PKG_VERSION");
    let mut runner = ByHand::new(&daemon);
    runner.register(&world, with(sample("0.1.0-alpha", "register-request"), json!({"name": "of-alpha"})));
    let claim = |version: &str, held: &Value, wait_ms: u64| -> Vec<Value> {
        let fields = json!({"held": held, "refused": [], "wait_ms": wait_ms});
        let claim = with(sample(version, "claim-request"), fields);
        let answer = runner.done("POST", "/runner/claim", &runner.token, &claim);
        answer["jobs"].as_array().expect("jobs").iter().map(|job| job["attempt"].clone()).collect()
    };
    assert_eq!(claim("0.1.0-alpha", &json!([]), 1_000), [Value::Null; 0], "it would plan anew");
    assert_eq!(world.task(&daemon, number)["state"], "queued");
    // Another task of the template has no plan yet, and is given to it.
    let other = json!(format!("{}-1", approval::start(&world, &daemon)));
    assert_eq!(claim("0.1.0-alpha", &json!([]), 20_000), std::slice::from_ref(&other));

    // The same machine, upgraded; then put back while the job was on its way.
    let (attempt, held) = (json!(format!("{number}-2")), json!([other]));
    assert_eq!(claim(today, &held, 20_000), std::slice::from_ref(&attempt));
    assert_eq!(claim("0.1.0-alpha", &held, 1_000), [Value::Null; 0], "it is not delivered again to an older one");
    assert_eq!(claim(today, &held, 20_000), [attempt]);
}

#[test]
fn a_runner_that_is_too_old_is_told_what_to_install_and_keeps_what_it_holds() {
    let world = World::new();
    world.template("hello", "", "true");
    let daemon = world.daemon();
    let mut runner = ByHand::new(&daemon);
    let today = env!("CARGO_PKG_VERSION");
    runner.register(&world, sample(today, "register-request"));
    world.start_task(&daemon, "hello");
    let claim = with(sample(today, "claim-request"), json!({"held": [], "wait_ms": 20_000}));
    let claimed = runner.done("POST", "/runner/claim", &runner.token, &claim);
    let attempt = &claimed["jobs"][0]["attempt"];
    let problem_of = |(status, problem): (u16, Value)| {
        assert_eq!((status, &problem["type"]), (426, &json!("/problems/runner-too-old")), "{problem}");
        let text = format!("{} {}", problem["detail"], problem["hint"]);
        for words in ["is forge 0.0.9", "works with 0.1.0 or newer", &format!("install forge {today}")] {
            assert!(text.contains(words), "{words:?} is missing: {text}");
        }
    };

    // It was put back to an older version while it had a task.
    let older = with(claim, json!({"held": [attempt], "version": "0.0.9"}));
    problem_of(runner.call("POST", "/runner/claim", &runner.token, &older));
    let beat = with(sample(today, "heartbeat-request"), json!({"held": [attempt], "version": "0.0.9"}));
    let beaten = runner.done("POST", "/runner/heartbeat", &runner.token, &beat);
    assert_eq!(beaten["lost"], json!([]), "its lease goes on");

    let stranger = ByHand::new(&daemon);
    let public_key = stranger.identity.to_public().to_string();
    let fields = json!({"name": "ny-2", "public_key": public_key, "version": "0.0.9"});
    let request = with(sample(today, "register-request"), fields);
    problem_of(stranger.call("POST", "/runners", world.registration_token(), &request));
}

#[test]
fn a_plugin_is_read_as_it_is_sent_and_never_held_whole() {
    const PLUGIN_BYTES: usize = 32 << 20;
    const READERS: usize = 8;
    let world = World::new();
    let root = folder().join("../..");
    let guest = std::fs::read_to_string(root.join("testdata/guests/run.wat")).expect("the guest");
    let wasm = pack(&root, "large", &format!("{guest}\n(data \"{}\")", "x".repeat(PLUGIN_BYTES)));
    let digest = ring::digest::digest(&ring::digest::SHA256, &wasm);
    let sha256: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(world.path("tree/plugins/large.wasm"), &wasm).expect("the plugin");
    world.write("plugins/large.toml", &format!("source = \"plugins/large.wasm\"\nsha256 = \"{sha256}\"\n"));
    let daemon = world.daemon();
    let mut runner = ByHand::new(&daemon);
    runner.register(&world, sample(env!("CARGO_PKG_VERSION"), "register-request"));

    let ask = || runner.client.get(format!("{}/plugins/{sha256}", runner.api)).bearer_auth(&runner.token).send();
    let resident = || resident_bytes(daemon.process.pid());
    let before = resident();
    // Whoever asks and reads on in a moment.
    let answers: Vec<reqwest::Response> = runner
        .runtime
        .block_on(async { futures_util::future::try_join_all((0..READERS).map(|_| ask())).await.expect("answers") });
    let more = resident().saturating_sub(before);
    assert!(more < 2 * PLUGIN_BYTES, "{READERS} of {PLUGIN_BYTES} bytes are sent, and {more} bytes more are held");
    for answer in answers {
        let sent = runner.runtime.block_on(answer.bytes()).expect("a body");
        assert!(sent == wasm, "{} bytes", sent.len());
    }
}

/// What a process holds, in bytes.
fn resident_bytes(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("this is Linux");
    let kib: usize = line.trim().trim_end_matches(" kB").trim().parse().expect("a number");
    kib * 1024
}

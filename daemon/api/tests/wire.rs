//! What older versions said is read for ever: `testdata/wire` holds a folder a version, and nothing of it may become unreadable.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use forge_api::{
    AttemptResult, ClaimRequest, ClaimResponse, HeartbeatRequest, HeartbeatResponse, Job, LogAccepted, Problem,
    RegisterRequest, RegisterResponse, ResultAccepted, StartRequest, StartResponse,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Reads a sample as its type and writes it again.
type Again = fn(&Value) -> Result<Value, serde_json::Error>;

/// Every file of a version's folder, and what it is.
const SAMPLES: &[(&str, Again)] = &[
    ("register-request", again::<RegisterRequest>),
    ("register-response", again::<RegisterResponse>),
    ("claim-request", again::<ClaimRequest>),
    ("claim-response", again::<ClaimResponse>),
    ("heartbeat-request", again::<HeartbeatRequest>),
    ("heartbeat-response", again::<HeartbeatResponse>),
    ("start-request", again::<StartRequest>),
    ("start-response", again::<StartResponse>),
    ("log-accepted", again::<LogAccepted>),
    ("result", again::<AttemptResult>),
    ("result-accepted", again::<ResultAccepted>),
    ("problem", again::<Problem>),
    ("job", again::<Job>),
];

/// Folders whose versions are out, and the SHA-256 over their files' names and texts, by name.
const OUT: &[(&str, &str)] = &[("0.1.0-alpha", "e4f93a6bb4225d8dd9090c1f8f86e5ca2db0613ffdc4808103d52cc2d0a0e56a")];

/// Fields whose objects are anyone's own: what stands in them is data and no field.
const FREE: &[&str] =
    &["summary", "params", "config", "variables", "secret_variables", "env", "secret_env", "plugin_secrets"];

fn again<T: DeserializeOwned + Serialize>(sample: &Value) -> Result<Value, serde_json::Error> {
    serde_json::to_value(serde_json::from_value::<T>(sample.clone())?)
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/wire")
}

fn versions() -> Vec<String> {
    let entries = fs::read_dir(folder()).expect("testdata/wire").map(|entry| entry.expect("an entry"));
    let folders = entries.filter(|entry| entry.path().is_dir());
    folders.map(|entry| entry.file_name().into_string().expect("text")).collect()
}

fn sample(version: &str, name: &str) -> Value {
    let path = folder().join(version).join(format!("{name}.json"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What `old` says and `new` does not say the same way.
fn lost(old: &Value, new: &Value, at: &str) -> Vec<String> {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => old
            .iter()
            .flat_map(|(key, value)| match new.get(key) {
                Some(found) => lost(value, found, &format!("{at}.{key}")),
                None => vec![format!("{at}.{key}")],
            })
            .collect(),
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            old.iter().zip(new).flat_map(|(old, new)| lost(old, new, &format!("{at}[]"))).collect()
        }
        (old, new) if old == new => Vec::new(),
        _ => vec![at.to_owned()],
    }
}

/// The same with a field that nobody knows in every object that has fields. An object with one key may be an enum's variant.
fn with_unknown(value: &Value) -> Value {
    let deeper = |key: &str, value: &Value| if FREE.contains(&key) { value.clone() } else { with_unknown(value) };
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| (key.clone(), deeper(key, value)));
            let mut fields: serde_json::Map<String, Value> = fields.collect();
            if fields.len() > 1 {
                fields.insert("of_a_later_version".to_owned(), json!({"a": [1]}));
            }
            Value::Object(fields)
        }
        Value::Array(items) => Value::Array(items.iter().map(with_unknown).collect()),
        other => other.clone(),
    }
}

#[test]
fn what_every_version_said_is_read_and_keeps_its_meaning() {
    let versions = versions();
    assert!(versions.iter().any(|version| version == "0.1.0-alpha"), "{versions:?}");
    for version in &versions {
        for (name, again) in SAMPLES {
            let sample = sample(version, name);
            let read = again(&sample).unwrap_or_else(|error| panic!("{version}/{name}.json: {error}"));
            assert_eq!(lost(&sample, &read, name), Vec::<String>::new(), "{version}");
        }
    }
}

#[test]
fn what_a_version_said_that_is_out_is_never_changed() {
    for (version, expected) in OUT {
        let entries =
            fs::read_dir(folder().join(version)).expect("its folder").map(|entry| entry.expect("an entry").path());
        let files: BTreeSet<PathBuf> = entries.collect();
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        for file in files {
            digest.update(file.file_name().expect("a name").as_encoded_bytes());
            digest.update(&fs::read(&file).expect("read"));
        }
        let found: String = digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            found, *expected,
            "runners and daemons of {version} are out there: write a folder of a new version instead"
        );
    }
}

#[test]
fn what_a_later_version_adds_is_passed_over() {
    for (name, again) in SAMPLES {
        let sample = sample(env!("CARGO_PKG_VERSION"), name);
        let later = with_unknown(&sample);
        assert!(later != sample || sample.as_object().is_some_and(|fields| fields.len() < 2), "{name}");
        let read = again(&later).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(read, sample, "{name}");
    }
}

#[test]
fn todays_version_says_what_its_folder_holds_and_nothing_more() {
    let version = env!("CARGO_PKG_VERSION");
    for (name, again) in SAMPLES {
        let sample = sample(version, name);
        let today = again(&sample).expect("read");
        assert_eq!(
            today, sample,
            "{name}: add what is new to testdata/wire/{version} as long as that version is not out, else to a folder of the next"
        );
    }
    let known: BTreeSet<String> = SAMPLES.iter().map(|(name, _)| format!("{name}.json")).collect();
    let files = fs::read_dir(folder().join(version)).expect("today's folder");
    let files = files.map(|file| file.expect("an entry").file_name().into_string().expect("text"));
    let unknown: Vec<String> = files.filter(|file| !known.contains(file) && file != "sealed-job.json").collect();
    assert!(unknown.is_empty(), "nobody reads {unknown:?}");
}

#[test]
fn only_what_the_first_version_always_said_is_needed() {
    for (name, again) in SAMPLES {
        let (first, today) = (sample("0.1.0-alpha", name), sample(env!("CARGO_PKG_VERSION"), name));
        let (Value::Object(first), Value::Object(today)) = (&first, &today) else { panic!("{name} is an object") };
        for key in today.keys().filter(|key| !first.contains_key(*key)) {
            let mut without = today.clone();
            without.remove(key);
            assert!(again(&Value::Object(without)).is_ok(), "{name}: {key} needs #[serde(default)]");
        }
    }
}

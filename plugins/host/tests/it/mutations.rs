//! Arbitrary bytes as a component never crash the host: they are refused, or they load and their calls end within the limits.
//!
//! `plugins/host/fuzz` looks for more of the same with a compiler's help; this runs in seconds and the same way each time.

use std::path::Path;

use forge_plugin_host::{
    Host, HttpRequest, HttpResponse, Kind, Limits, Method, Plugin, Sent, Signing, TargetCall, WebhookEvent,
};

use crate::guests::{Seen, bytes, execute, host};
use crate::targets::Silent;

/// How many variants of each guest are tried.
const VARIANTS: u32 = 150;
/// What a variant that loads may use.
const LIMITS: Limits = Limits { memory_bytes: 4 * 1024 * 1024, time_ms: 20 };

/// A small generator of numbers (SplitMix64): the same seed makes the same ones.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).expect("it is below a usize")
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}

fn mutate(original: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = original.to_vec();
    for _ in 0..=numbers.below(4) {
        if bytes.is_empty() {
            break;
        }
        let at = numbers.below(bytes.len());
        let to = (at + numbers.below(64)).min(bytes.len());
        match numbers.below(6) {
            0 => bytes[at] ^= 1 << numbers.below(8),
            1 => bytes[at] = numbers.byte(),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..to)),
            4 => {
                let part = bytes[at..to].to_vec();
                let target = numbers.below(bytes.len());
                bytes.splice(target..target, part);
            }
            _ => bytes[at..to].fill(numbers.byte()),
        }
    }
    bytes
}

/// Whether it loads; what loads is called, as what it says that it is.
fn survives(host: &Host, bytes: &[u8], workspace: &Path) -> Option<Kind> {
    let plugin = host.load(bytes).ok()?;
    drop(plugin.describe());
    match plugin.kind() {
        Kind::Executor => drop(execute(&plugin, &Seen::default(), workspace, LIMITS, &["true"])),
        Kind::WebhookTarget => tell(&plugin),
    }
    Some(plugin.kind())
}

/// Plans for an event, and judges an answer to each request, or to one that it never planned.
fn tell(plugin: &Plugin) {
    let call = TargetCall { plugin_name: "x".to_owned(), limits: LIMITS };
    let event = WebhookEvent { kind: "task.finished".to_owned(), payload_json: "{}".to_owned(), ..Default::default() };
    let never_planned = || HttpRequest {
        method: Method::Get,
        url: "https://example.com/".to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
        timeout_ms: None,
        signing: Signing::None,
    };
    let planned = plugin.plan(&call, &event, Silent).unwrap_or_else(|_| vec![never_planned()]);
    for request in planned.into_iter().take(2) {
        let response = HttpResponse { status: 200, headers: Vec::new(), body: b"{}".to_vec() };
        drop(plugin.judge(&call, &event, &Sent { round: 0, index: 0, request }, &response, Silent));
    }
}

#[test]
fn mutations_of_components_never_crash_the_host() {
    let (host, workspace) = (host(), tempfile::tempdir().expect("a folder"));
    let mut numbers = Numbers(1);
    for (kind, names) in [
        (Kind::Executor, ["run", "workspace", "endless-loop", "table-bomb"]),
        (Kind::WebhookTarget, ["webhook-plain", "webhook-body", "webhook-copies", "webhook-endless"]),
    ] {
        let mut loaded = 0;
        for name in names {
            let original = bytes(name);
            for _ in 0..VARIANTS {
                let survived = survives(&host, &mutate(&original, &mut numbers), workspace.path());
                loaded += u32::from(survived == Some(kind));
            }
        }
        assert!(loaded > 0, "some loaded as {kind:?}: the calls are tried, too");
    }
}

#[test]
fn every_beginning_of_a_component_is_refused_or_runs() {
    let (host, workspace) = (host(), tempfile::tempdir().expect("a folder"));
    for (kind, name) in [(Kind::Executor, "run"), (Kind::WebhookTarget, "webhook-body")] {
        let whole = bytes(name);
        assert_eq!(survives(&host, &whole, workspace.path()), Some(kind));
        for length in (0..whole.len()).step_by(7) {
            let _ = survives(&host, &whole[..length], workspace.path());
        }
    }
}

#[test]
fn random_bytes_behind_a_component_s_header_are_refused() {
    let host = host();
    let mut numbers = Numbers(2);
    for _ in 0..2_000 {
        let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
        let length = 1 + numbers.below(200);
        bytes.extend((0..length).map(|_| numbers.byte()));
        assert!(host.load(&bytes).is_err(), "{bytes:?}");
    }
}

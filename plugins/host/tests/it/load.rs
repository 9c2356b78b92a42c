//! What is not a plugin is refused with words that lead on.

use forge_plugin_host::LoadError;

use crate::guests::{bytes, host, load};

fn refusal(name: &str) -> LoadError {
    host().load(&bytes(name)).expect_err("it is no plugin")
}

#[test]
fn an_unknown_import_is_named_with_what_is_offered() {
    assert_eq!(
        refusal("unknown-import").to_string(),
        "the plugin imports wasi:clocks/wall-clock@0.2.0, which this host does not offer; it offers \
         forge:plugin/types@0.1.0, forge:plugin/host@0.1.0, forge:plugin/workspace@0.1.0, forge:plugin/process@0.1.0. \
         It was built for WASI: build it for wasm32-unknown-unknown, and a plugin in Python with `--stub-wasi`"
    );
    let LoadError::UnknownImports { imports } = refusal("unknown-imports") else { panic!("three are unknown") };
    assert_eq!(imports, ["wasi:clocks/wall-clock@0.2.0", "wasi:random/random@0.2.0", "forge:plugin/clock@0.1.0"]);
}

#[test]
fn what_is_not_an_executor_is_said_to_be_none() {
    assert_eq!(
        refusal("no-executor").to_string(),
        "the plugin exports nothing; an executor exports forge:plugin/executor@0.1.0, a webhook target \
         forge:plugin/webhook-target@0.1.0"
    );
    assert!(matches!(refusal("wrong-types"), LoadError::Mismatch(_)));
    assert!(matches!(refusal("core-module"), LoadError::CoreModule));
}

#[test]
fn an_executor_of_another_version_is_told_which_one_is_spoken() {
    assert_eq!(
        refusal("newer-executor").to_string(),
        "the plugin exports forge:plugin/executor@0.2.0, and this Forge speaks 0.1.0: build it with the SDK of that version, \
         or run a Forge that speaks its own"
    );
    assert_eq!(
        refusal("newer-import").to_string(),
        "the plugin imports forge:plugin/host@0.9.0, and this Forge speaks 0.1.0: build it with the SDK of that version, \
         or run a Forge that speaks its own"
    );
}

#[test]
fn a_webhook_target_has_no_processes_and_no_files() {
    assert_eq!(
        refusal("webhook-process").to_string(),
        "the plugin is a webhook target and imports forge:plugin/process@0.1.0, which only an executor may: a target plans requests \
         and the host sends them; it may import forge:plugin/types@0.1.0, forge:plugin/host@0.1.0"
    );
    let LoadError::NotForTargets { import } = refusal("webhook-workspace") else { panic!("it wants files") };
    assert_eq!(import, "forge:plugin/workspace@0.1.0");
    assert!(matches!(refusal("two-kinds"), LoadError::TwoKinds));
}

#[test]
fn bytes_that_are_no_component_are_refused() {
    let host = host();
    for bytes in [&b""[..], b"#!/bin/sh\n", b"\0asm"] {
        assert!(matches!(host.load(bytes), Err(LoadError::NotWasm { .. })), "{bytes:?}");
    }
    let mut cut = bytes("run");
    cut.truncate(cut.len() / 2);
    assert!(matches!(host.load(&cut), Err(LoadError::Invalid(_))));
    assert!(matches!(host.load(&vec![0; 64 * 1024 * 1024 + 1]), Err(LoadError::TooLarge { .. })));
}

#[test]
fn a_plugin_is_known_by_its_digest() {
    let plugin = load("run");
    let digest = plugin.sha256_hex().to_owned();
    assert_eq!(digest.len(), 64);
    assert_eq!(plugin.describe().expect("it describes itself").name, "hostile");
    // Without a cache folder nothing is kept beyond the process, and within it only while it is in use.
    assert!(host().load_cached(&digest).expect("it is a digest").is_none());
    for wrong in ["", "../../etc/passwd", &digest.to_uppercase()] {
        assert!(matches!(host().load_cached(wrong), Err(LoadError::NotADigest(_))), "{wrong}");
    }
}

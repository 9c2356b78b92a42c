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
         forge:plugin/types@0.1.0, forge:plugin/host@0.1.0, forge:plugin/workspace@0.1.0, forge:plugin/process@0.1.0"
    );
    let LoadError::UnknownImport { import } = refusal("newer-import") else { panic!("it is newer") };
    assert_eq!(import, "forge:plugin/host@0.9.0");
}

#[test]
fn what_is_not_an_executor_is_said_to_be_none() {
    assert_eq!(
        refusal("no-executor").to_string(),
        "the plugin exports nothing; an executor exports forge:plugin/executor@0.1.0"
    );
    assert!(matches!(refusal("wrong-types"), LoadError::Mismatch(_)));
    assert!(matches!(refusal("core-module"), LoadError::CoreModule));
}

#[test]
fn bytes_that_are_no_component_are_refused() {
    let host = host();
    for bytes in [&b""[..], b"#!/bin/sh\n", b"\0asm"] {
        assert!(matches!(host.load(bytes), Err(LoadError::NotWasm)), "{bytes:?}");
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

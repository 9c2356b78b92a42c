//! Guests out of `testdata/guests`, packed into components: for every test program that needs one.

use std::path::Path;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// What the two kinds export. The guests' prelude describes an executor; a target describes itself in the same way.
const EXECUTOR: &str = "forge:plugin/executor@0.1.0";
const WEBHOOK_TARGET: &str = "forge:plugin/webhook-target@0.1.0";

/// The component of the guest of this name, in the repository at `root`.
pub(crate) fn component(root: &Path, name: &str) -> Vec<u8> {
    let text = read(root, name);
    if text.starts_with('(') {
        return wat::parse_str(text).expect("it is WebAssembly text");
    }
    pack(root, name, &text)
}

/// The component of a guest with this text, as it would stand in a file.
pub(crate) fn pack(root: &Path, name: &str, text: &str) -> Vec<u8> {
    let is_target = text.contains(WEBHOOK_TARGET);
    let prelude = read(root, "prelude");
    let (prelude, world) = if is_target {
        (prelude.replace(EXECUTOR, WEBHOOK_TARGET), "webhook-plugin")
    } else {
        (prelude, "executor-plugin")
    };
    let mut module = wat::parse_str(format!("(module ${name}\n{text}\n{prelude})")).expect("it is a module");
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(root.join("plugins/wit")).expect("the contract parses");
    let world = resolve.select_world(&[package], Some(world)).expect("the world is there");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("it takes metadata");
    ComponentEncoder::default().module(&module).expect("it fits").encode().expect("it is a component")
}

fn read(root: &Path, name: &str) -> String {
    let path = root.join("testdata/guests").join(name).with_extension("wat");
    std::fs::read_to_string(path).expect("the guest is there")
}

//! What a story needs to build a plugin as its author does: cargo, and a compiler for WebAssembly.
//!
//! The compiler is the one that the built-ins are built with, found by the very code of their build: rustup's where it has the target,
//! else Debian's out of the cache.
#![expect(dead_code, reason = "the built-ins' build does more than find a compiler")]

#[path = "../../../../plugins/builtin/build/debian.rs"]
mod debian;
#[path = "../../../../plugins/builtin/build/guests.rs"]
mod guests;
#[path = "../../../../plugins/builtin/build/settings.rs"]
mod settings;
#[path = "../../../../plugins/builtin/build/toolchain.rs"]
mod toolchain;

use std::path::{Path, PathBuf};
use std::process::Command;

type Result<T> = std::result::Result<T, String>;

/// Variables for `forge plugin build`, beside cargo's own.
pub(crate) fn build_environment() -> Vec<(String, PathBuf)> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace");
    let rustc = Command::new("rustc").arg("-vV").output().expect("rustc runs");
    let said = String::from_utf8_lossy(&rustc.stdout).into_owned();
    let host = said.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host");
    let settings = settings::Settings {
        out_dir: workspace.join("target"),
        guests_target: workspace.join("target/guests"),
        workspace,
        cargo: env!("CARGO").into(),
        rustc: "rustc".into(),
        host: host.to_owned(),
        rust_version: env!("CARGO_PKG_RUST_VERSION").to_owned(),
        plugins_dir: None,
        forced: None,
        cache: settings::cache().expect("a cache folder"),
    };
    let found = toolchain::find(&settings).expect("a compiler for WebAssembly");
    let mut variables = vec![("RUSTC".to_owned(), found.rustc)];
    variables.extend(found.libraries.map(|folder| ("LD_LIBRARY_PATH".to_owned(), folder)));
    let linker = |path| ("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER".to_owned(), path);
    variables.extend(found.linker.map(linker));
    variables
}

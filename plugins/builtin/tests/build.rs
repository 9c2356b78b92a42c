//! The build of the plugins, as a packager and a newcomer meet it: cargo itself, run on this workspace with a target folder of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugins-build")
}

/// Builds the crate with the variables that a person sets; those of the outer cargo are gone.
fn build(variables: &[(&str, &Path)]) -> Output {
    let mut command = Command::new(env!("CARGO"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_") && text != "CARGO_HOME"
            || text.starts_with("FORGE_") && text != "FORGE_WASM_CACHE"
        {
            command.env_remove(name);
        }
    }
    command
        .args(["build", "--verbose", "--locked", "--package", "forge-plugin-builtins", "--target-dir"])
        .arg(target())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .envs(variables.iter().copied())
        .output()
        .expect("cargo runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// One story in one test: the steps share a target folder.
#[test]
fn prebuilt_components_are_taken_and_what_is_missing_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let empty = build(&[("FORGE_PLUGINS_DIR", folder.path())]);
    assert!(!empty.status.success());
    let said = stderr(&empty);
    assert!(said.contains("FORGE_PLUGINS_DIR") && said.contains("put the prebuilt component there"), "{said}");

    for builtin in forge_plugin_builtins::all() {
        std::fs::write(folder.path().join(format!("{}.wasm", builtin.name)), builtin.wasm).expect("a file");
    }
    let prebuilt = build(&[("FORGE_PLUGINS_DIR", folder.path())]);
    assert!(prebuilt.status.success(), "{}", stderr(&prebuilt));
    assert!(!target().join("guests").exists(), "nothing was compiled for WebAssembly");

    // A second build costs nothing.
    let again = build(&[("FORGE_PLUGINS_DIR", folder.path())]);
    let said = stderr(&again);
    assert!(said.contains("Fresh forge-plugin-builtins"), "{said}");

    let unknown = build(&[("FORGE_WASM_TOOLCHAIN", Path::new("gcc"))]);
    assert!(!unknown.status.success());
    let said = stderr(&unknown);
    assert!(said.contains("FORGE_WASM_TOOLCHAIN is \"gcc\": write `rustup` or `debian`"), "{said}");

    let rustup = build(&[("FORGE_WASM_TOOLCHAIN", Path::new("rustup"))]);
    let said = stderr(&rustup);
    assert!(
        rustup.status.success() || said.contains("rustup target add wasm32-unknown-unknown"),
        "with rustup's target it builds, without it says how to get it: {said}"
    );
}

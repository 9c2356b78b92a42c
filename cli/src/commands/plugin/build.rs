//! `forge plugin build`: cargo for WebAssembly, and the packing of what comes out into a component.
//!
//! It needs cargo and a compiler for `wasm32-unknown-unknown`, and no other tool. The compiler is the one that `cargo` would take,
//! `RUSTC` included; where it lacks the target, the error says what to run. The same source makes the same bytes on every machine that
//! has the same compiler: no path of this one is written into them.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use serde_json::Value;
use wit_component::ComponentEncoder;

use super::size_text;
use crate::error::{CliError, file_error};
use crate::printer::Printer;

/// What a plugin is built for: nothing but computing. Without WASI there is nothing to take away.
const TARGET: &str = "wasm32-unknown-unknown";
/// Between the flags in `CARGO_ENCODED_RUSTFLAGS`.
const FLAG_SEPARATOR: &str = "\u{1f}";

pub(crate) fn run(directory: &Path, output: Option<&Path>, printer: &Printer) -> Result<ExitCode, CliError> {
    let manifest = directory.join("Cargo.toml");
    let text = std::fs::read_to_string(&manifest).map_err(|error| {
        file_error("read", &manifest, &error)
            .hint("name the folder of a plugin's crate; `forge plugin new NAME` writes one")
    })?;
    let directory = directory.canonicalize().map_err(|error| file_error("find", directory, &error))?;
    let name = package_name(&manifest, &text)?;
    check_compiler(&directory)?;
    let module = build(&directory)?;
    let core = std::fs::read(&module).map_err(|error| file_error("read", &module, &error))?;
    let component = ComponentEncoder::default()
        .module(&core)
        .and_then(|encoder| encoder.validate(true).encode())
        .map_err(|error| {
            CliError::failed(format_args!("what was built is no plugin: {error:#}"))
                .hint("is `forge_plugin::export!(YourType);` in src/lib.rs? `forge plugin new` shows where")
        })?;
    let output = output.map_or_else(|| directory.join(format!("{name}.wasm")), Path::to_owned);
    std::fs::write(&output, &component).map_err(|error| file_error("write", &output, &error))?;
    printer.done(&format!("{} ({})", output.display(), size_text(component.len() as u64)));
    printer.hint(&format!("look at it with `forge plugin check {}`", output.display()));
    Ok(ExitCode::SUCCESS)
}

fn package_name(manifest: &Path, text: &str) -> Result<String, CliError> {
    let parsed: toml::Table =
        text.parse().map_err(|error| CliError::failed(format_args!("{}: {error}", manifest.display())))?;
    let name = parsed.get("package").and_then(|package| package.get("name")).and_then(toml::Value::as_str);
    name.map(str::to_owned).ok_or_else(|| {
        CliError::failed(format_args!("{} has no [package].name", manifest.display()))
            .hint("name the folder of the plugin's own crate, not that of a workspace")
    })
}

/// Asks before cargo does: its own words for a missing std are long and do not say what to run.
fn check_compiler(directory: &Path) -> Result<(), CliError> {
    let rustc = env::var_os("RUSTC").filter(|rustc| !rustc.is_empty()).unwrap_or_else(|| "rustc".into());
    let asked = Command::new(&rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(directory)
        .output()
        .map_err(|error| {
            CliError::failed(format_args!("{} does not run: {error}", Path::new(&rustc).display()))
                .hint("plugins are built with Rust: https://rustup.rs says how to install it")
        })?;
    let folder = PathBuf::from(String::from_utf8_lossy(&asked.stdout).trim_end());
    let has_std = std::fs::read_dir(folder).is_ok_and(|mut entries| {
        entries.any(|entry| entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("libstd-")))
    });
    if asked.status.success() && has_std {
        return Ok(());
    }
    Err(CliError::failed(format_args!(
        "{} cannot build for WebAssembly: it lacks {TARGET}",
        Path::new(&rustc).display()
    ))
    .hint(format_args!("run `rustup target add {TARGET}`; without rustup, let RUSTC name a compiler that has it")))
}

/// Builds the crate in the folder and answers with its core module.
fn build(directory: &Path) -> Result<PathBuf, CliError> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--release", "--target", TARGET, "--message-format", "json-render-diagnostics"])
        .current_dir(directory)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    // Flags of the author's own are left alone, and then paths are theirs to remove.
    if env::var_os("RUSTFLAGS").is_none() && env::var_os("CARGO_ENCODED_RUSTFLAGS").is_none() {
        cargo.env("CARGO_ENCODED_RUSTFLAGS", without_paths(directory));
    }
    let ended = cargo.output().map_err(|error| {
        CliError::failed(format_args!("cargo does not run: {error}"))
            .hint("plugins are built with Rust: https://rustup.rs says how to install it")
    })?;
    if !ended.status.success() {
        return Err(CliError::failed("the plugin does not build").hint("cargo says above what to mend"));
    }
    let manifest = directory.join("Cargo.toml");
    String::from_utf8_lossy(&ended.stdout).lines().filter_map(|line| module_of(line, &manifest)).next_back().ok_or_else(
        || {
            CliError::failed(format_args!("{} makes no WebAssembly module", manifest.display()))
                .hint("write `crate-type = [\"cdylib\"]` below [lib]")
        },
    )
}

/// The module that a message of cargo's tells of, when it is this crate's.
fn module_of(line: &str, manifest: &Path) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    let is_ours = message["reason"] == "compiler-artifact"
        && Path::new(message["manifest_path"].as_str()?).canonicalize().ok()? == manifest
        && message["target"]["kind"].as_array()?.iter().any(|kind| kind == "cdylib");
    let files = message["filenames"].as_array().filter(|_| is_ours)?;
    files.iter().filter_map(Value::as_str).find(|file| file.ends_with(".wasm")).map(PathBuf::from)
}

/// Flags that take this machine's paths out of what is built: the crate's folder, and where cargo unpacks others.
fn without_paths(directory: &Path) -> OsString {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let unpacked = cargo_home.iter().filter_map(|home| std::fs::read_dir(home.join("registry/src")).ok()).flatten();
    let unpacked = unpacked.filter_map(|entry| Some((entry.ok()?.path(), "/cargo")));
    // The last one that fits is taken.
    let all = [(directory.to_owned(), "/plugin")].into_iter().chain(unpacked);
    let flags = all.map(|(from, to)| {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push("=");
        flag.push(to);
        flag
    });
    flags.collect::<Vec<_>>().join(OsStr::new(FLAG_SEPARATOR))
}

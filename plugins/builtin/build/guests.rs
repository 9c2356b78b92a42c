//! Which guests there are, and how one is built and packed.
//!
//! A guest is a package of this workspace, so its crates stand in the one Cargo.lock. A nested cargo builds it for
//! WebAssembly with a clean environment: what the outer build is told (flags, profiles, wrappers such as Clippy's) is
//! not the guest's, so that debug, release, Clippy and doc builds share one result, the same bytes on every machine.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Result;
use super::settings::{Settings, watch};
use super::toolchain::{self, Toolchain};

/// What every guest is built for.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// Between the flags in `CARGO_ENCODED_RUSTFLAGS`.
pub(crate) const FLAG_SEPARATOR: &str = "\u{1f}";

/// What the outer cargo is told about registries, the network and WebAssembly's linker is told to the nested one. Nothing else is.
const KEPT: [&str; 9] = [
    "CARGO_HOME",
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTRIES_",
    "CARGO_REGISTRY_",
    "CARGO_SOURCE_",
    "CARGO_TERM_",
    "CARGO_LOG",
    "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER",
];

/// Variables of the outer build, beside those that begin with `CARGO` or `RUSTC`.
const REMOVED: [&str; 12] = [
    "RUSTFLAGS",
    "RUSTDOC",
    "RUSTDOCFLAGS",
    "OUT_DIR",
    "TARGET",
    "HOST",
    "NUM_JOBS",
    "OPT_LEVEL",
    "DEBUG",
    "PROFILE",
    "MAKEFLAGS",
    "CLIPPY_ARGS",
];

/// A folder beside this one that holds a package.
#[derive(Debug)]
pub(crate) struct Guest {
    /// The folder's name: what `builtin:NAME` says.
    pub(crate) name: String,
    /// The package's name.
    package: String,
}

/// Every guest, by name.
pub(crate) fn find(settings: &Settings) -> Result<Vec<Guest>> {
    let here = settings.workspace.join("plugins/builtin");
    let failed = |error: std::io::Error| format!("{}: {error}", here.display());
    let mut guests = Vec::new();
    for entry in fs::read_dir(&here).map_err(failed)? {
        let folder = entry.map_err(failed)?.path();
        let manifest = folder.join("Cargo.toml");
        let (Some(name), Ok(text)) = (folder.file_name().and_then(|name| name.to_str()), fs::read_to_string(&manifest))
        else {
            continue;
        };
        let package = text
            .lines()
            .find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
            .ok_or_else(|| format!("{}: no line `name = \"...\"`", manifest.display()))?;
        watch(&manifest);
        watch(&folder.join("src"));
        guests.push(Guest { name: name.to_owned(), package: package.to_owned() });
    }
    guests.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(guests)
}

/// Builds a guest's core module and packs it into a component.
pub(crate) fn build(settings: &Settings, guest: &Guest, component: &Path) -> Result<()> {
    let toolchain = toolchain::find(settings)?;
    let mut cargo = clean_cargo(settings, &toolchain);
    cargo
        .args(["build", "--quiet", "--locked", "--profile", "guest", "--target", TARGET, "--package", &guest.package])
        .arg("--target-dir")
        .arg(&settings.guests_target)
        .env("CARGO_ENCODED_RUSTFLAGS", remap(&settings.workspace, "/forge"));
    run(&mut cargo).map_err(|error| format!("the plugin {} does not build: {error}", guest.name))?;

    let module: PathBuf =
        settings.guests_target.join(TARGET).join("guest").join(format!("{}.wasm", guest.package.replace('-', "_")));
    let core = fs::read(&module).map_err(|error| format!("{}: {error}", module.display()))?;
    let packed = wit_component::ComponentEncoder::default()
        .module(&core)
        .and_then(|encoder| encoder.validate(true).encode())
        .map_err(|error| format!("the plugin {} does not fit plugins/wit: {error:#}", guest.name))?;
    fs::write(component, packed).map_err(|error| format!("{}: {error}", component.display()))
}

/// No path of this machine stands in what is built: neither `folder`, which becomes `/name`, nor where cargo unpacked the
/// crates, which is named after the registry that they came from.
pub(crate) fn remap(folder: &Path, name: &str) -> OsString {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let registries = cargo_home.iter().filter_map(|home| fs::read_dir(home.join("registry/src")).ok()).flatten();
    let registries = registries.filter_map(|entry| Some(entry.ok()?.path()));
    // The last one that fits is taken.
    let from = [(folder.to_owned(), name)].into_iter().chain(cargo_home.iter().map(|home| (home.clone(), "/cargo")));
    let flags = from.chain(registries.map(|registry| (registry, "/cargo"))).map(|(from, to)| {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push("=");
        flag.push(to);
        flag
    });
    flags.collect::<Vec<_>>().join(OsStr::new(FLAG_SEPARATOR))
}

/// cargo with the toolchain's compiler and nothing of the outer build.
pub(crate) fn clean_cargo(settings: &Settings, toolchain: &Toolchain) -> Command {
    let mut cargo = Command::new(&settings.cargo);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let of_cargo = text.starts_with("CARGO") || text.starts_with("RUSTC") || text.starts_with("DEP_");
        let kept = KEPT.iter().any(|kept| text.starts_with(kept));
        if (of_cargo && !kept) || REMOVED.contains(&text.as_ref()) {
            cargo.env_remove(&name);
        }
    }
    cargo.current_dir(&settings.workspace).env("RUSTC", &toolchain.rustc);
    if let Some(folder) = &toolchain.libraries {
        cargo.env("LD_LIBRARY_PATH", folder);
    }
    if let Some(linker) = &toolchain.linker {
        cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
    }
    cargo
}

/// Runs a command to its end; a failure carries what it said.
pub(crate) fn run(command: &mut Command) -> Result<Vec<u8>> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(format!("{program} ended with {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end()))
}

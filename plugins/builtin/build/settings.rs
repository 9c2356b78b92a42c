//! What the environment says: cargo's part of it, and the few variables that people set.

use std::env;
use std::path::{Path, PathBuf};

use super::Result;

/// Use prebuilt components from this folder, `NAME.wasm` each.
const PLUGINS_DIR: &str = "FORGE_PLUGINS_DIR";
/// `rustup` or `debian`: use that compiler and no other.
const TOOLCHAIN: &str = "FORGE_WASM_TOOLCHAIN";
/// Where an unpacked compiler is kept; else `forge-wasm` in the user's cache folder.
const CACHE: &str = "FORGE_WASM_CACHE";

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forced {
    Rustup,
    Debian,
}

/// What the build script works with.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The root of the workspace.
    pub(crate) workspace: PathBuf,
    pub(crate) out_dir: PathBuf,
    /// Where guests are built, whatever the profile of the outer build.
    pub(crate) guests_target: PathBuf,
    pub(crate) cargo: PathBuf,
    pub(crate) rustc: PathBuf,
    /// The triple that builds.
    pub(crate) host: String,
    /// The oldest compiler that the workspace takes, such as `1.95`.
    pub(crate) rust_version: String,
    pub(crate) plugins_dir: Option<PathBuf>,
    pub(crate) forced: Option<Forced>,
    pub(crate) cache: PathBuf,
}

impl Settings {
    pub(crate) fn read() -> Result<Self> {
        let here = path("CARGO_MANIFEST_DIR")?;
        let workspace = here
            .ancestors()
            .nth(2)
            .ok_or_else(|| format!("{} is not plugins/builtin of a workspace", here.display()))?
            .to_owned();
        let out_dir = path("OUT_DIR")?;
        let forced = match env::var(TOOLCHAIN).as_deref() {
            Err(_) | Ok("") => None,
            Ok("rustup") => Some(Forced::Rustup),
            Ok("debian") => Some(Forced::Debian),
            Ok(other) => return Err(format!("{TOOLCHAIN} is {other:?}: write `rustup` or `debian`, or unset it")),
        };
        Ok(Self {
            guests_target: guests_target(&out_dir)?,
            workspace,
            out_dir,
            cargo: path("CARGO")?,
            rustc: path("RUSTC")?,
            host: text("HOST")?,
            rust_version: text("CARGO_PKG_RUST_VERSION")?,
            plugins_dir: optional(PLUGINS_DIR),
            forced,
            cache: cache()?,
        })
    }

    /// When cargo runs this script again.
    pub(crate) fn tell_cargo(&self) {
        for variable in [PLUGINS_DIR, TOOLCHAIN, CACHE] {
            tell(&format!("rerun-if-env-changed={variable}"));
        }
        // The script itself is watched by cargo, its modules are not. A manifest decides what a guest is built with.
        for part in ["Cargo.toml", "Cargo.lock", "plugins/wit", "plugins/sdk/Cargo.toml", "plugins/sdk/src"] {
            watch(&self.workspace.join(part));
        }
        watch(&self.workspace.join("plugins/builtin/build"));
    }
}

/// Asks cargo to run this script again when the file, or a file in the folder, changes.
pub(crate) fn watch(path: &Path) {
    tell(&format!("rerun-if-changed={}", path.display()));
}

/// Ends the build with these words.
pub(crate) fn fail(message: &str) {
    for line in message.lines() {
        tell(&format!("error={line}"));
    }
}

#[expect(clippy::print_stdout, reason = "this is how a build script speaks to cargo")]
fn tell(directive: &str) {
    println!("cargo::{directive}");
}

/// `<target>/guests`, from `<target>[/<triple>]/<profile>/build/<package>/out`.
fn guests_target(out_dir: &Path) -> Result<PathBuf> {
    out_dir
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").is_file())
        .or_else(|| out_dir.ancestors().nth(4))
        .map(|target| target.join("guests"))
        .ok_or_else(|| format!("{} does not lie in a target folder", out_dir.display()))
}

pub(crate) fn cache() -> Result<PathBuf> {
    if let Some(folder) = optional(CACHE) {
        return std::path::absolute(&folder).map_err(|error| format!("{CACHE}: {}: {error}", folder.display()));
    }
    optional("XDG_CACHE_HOME")
        .or_else(|| optional("HOME").map(|home| home.join(".cache")))
        .map(|folder| folder.join("forge-wasm"))
        .ok_or_else(|| format!("neither {CACHE} nor HOME is set: set {CACHE} to a folder for the plugins' compiler"))
}

fn optional(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn path(name: &str) -> Result<PathBuf> {
    optional(name).ok_or_else(|| format!("cargo did not set {name}"))
}

fn text(name: &str) -> Result<String> {
    env::var(name).map_err(|error| format!("cargo did not set {name}: {error}"))
}

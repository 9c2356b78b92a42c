//! Which compiler builds for WebAssembly: rustup's when its target is installed, else Debian's, unpacked into a cache.

use std::path::PathBuf;
use std::process::Command;

use super::guests::{TARGET, run};
use super::settings::{Forced, Settings};
use super::{Result, debian};

/// The one line that tells a newcomer what to install.
const WHAT_TO_INSTALL: &str = "Forge's plugins need a Rust compiler for WebAssembly: run `rustup target add \
     wasm32-unknown-unknown` (on Debian 12 or newer without rustup's, `apt-get update` is enough), or point \
     FORGE_PLUGINS_DIR to prebuilt plugins";

/// A compiler with a std for [`TARGET`].
#[derive(Debug, Clone)]
pub(crate) struct Toolchain {
    pub(crate) rustc: PathBuf,
    /// Where its shared libraries are, when the system does not know.
    pub(crate) libraries: Option<PathBuf>,
    /// What links, when the compiler does not know.
    pub(crate) linker: Option<PathBuf>,
}

/// The first that is there, or what `FORGE_WASM_TOOLCHAIN` forces.
pub(crate) fn find(settings: &Settings) -> Result<Toolchain> {
    match settings.forced {
        Some(Forced::Rustup) => rustup(settings)?.ok_or_else(|| WHAT_TO_INSTALL.to_owned()),
        Some(Forced::Debian) => debian::toolchain(settings).map_err(|why| format!("{WHAT_TO_INSTALL}; {why}")),
        None => match rustup(settings)? {
            Some(toolchain) => Ok(toolchain),
            None => debian::toolchain(settings).map_err(|why| format!("{WHAT_TO_INSTALL}; {why}")),
        },
    }
}

/// The compiler of the outer build, when it has the target.
fn rustup(settings: &Settings) -> Result<Option<Toolchain>> {
    let folder = ask(settings, &["--print", "target-libdir", "--target", TARGET])?;
    let has_std = std::fs::read_dir(folder).is_ok_and(|mut entries| {
        entries.any(|entry| entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("libstd-")))
    });
    Ok(has_std.then(|| Toolchain { rustc: settings.rustc.clone(), libraries: None, linker: None }))
}

/// A linker for WebAssembly: the outer compiler's own, else one of the system.
pub(crate) fn linker(settings: &Settings) -> Result<PathBuf> {
    const OF_SYSTEM: [&str; 8] =
        ["wasm-ld", "wasm-ld-21", "wasm-ld-20", "wasm-ld-19", "wasm-ld-18", "wasm-ld-16", "wasm-ld-15", "wasm-ld-14"];
    let sysroot = ask(settings, &["--print", "sysroot"])?;
    let own = sysroot.join("lib/rustlib").join(&settings.host).join("bin/rust-lld");
    if own.is_file() {
        return Ok(own);
    }
    let folders: Vec<PathBuf> = std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect();
    OF_SYSTEM
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|path| path.is_file())
        .ok_or_else(|| "no linker for WebAssembly is there: install the package `lld`".to_owned())
}

fn ask(settings: &Settings, arguments: &[&str]) -> Result<PathBuf> {
    let answer = run(Command::new(&settings.rustc).args(arguments))?;
    Ok(PathBuf::from(String::from_utf8_lossy(&answer).trim_end()))
}

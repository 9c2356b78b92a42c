//! Builds every guest beside it, `plugins/builtin/*/`, to a WASM component, and lists them for `src/lib.rs`.
//!
//! | module | what it decides |
//! |---|---|
//! | `settings` | what the environment says, and when to build again |
//! | `guests` | which guests there are, and how one is built and packed |
//! | `toolchain` | which compiler builds for WebAssembly |
//! | `debian` | how to come to one without rustup's, and without root |
//!
//! With `FORGE_PLUGINS_DIR` nothing is built: packagers bring `NAME.wasm`. Otherwise a failure ends in one line that
//! says what to install. A second build costs nothing: cargo runs this again only when a guest, the sdk, the contract,
//! Cargo.lock or one of the settings changed, and the guests' own target folder is shared by all profiles.

mod debian;
mod guests;
mod settings;
mod toolchain;

use std::fmt::Write as _;
use std::path::Path;

use settings::Settings;

/// What goes wrong in a build is one text for the person who reads cargo's output.
type Result<T> = std::result::Result<T, String>;

fn main() -> std::process::ExitCode {
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(message) => {
            settings::fail(&message);
            std::process::ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let settings = Settings::read()?;
    let guests = guests::find(&settings)?;
    settings.tell_cargo();
    let mut list = String::from("&[\n");
    for guest in &guests {
        let component = settings.out_dir.join(format!("{}.wasm", guest.name));
        match &settings.plugins_dir {
            Some(folder) => take_prebuilt(&folder.join(format!("{}.wasm", guest.name)), &component)?,
            None => guests::build(&settings, guest, &component)?,
        }
        // A String takes every write.
        let _ = writeln!(list, "    Builtin {{ name: {:?}, wasm: include_bytes!({component:?}) }},", guest.name);
    }
    list.push_str("]\n");
    let path = settings.out_dir.join("builtins.rs");
    std::fs::write(&path, list).map_err(|error| format!("{}: {error}", path.display()))
}

fn take_prebuilt(from: &Path, to: &Path) -> Result<()> {
    settings::watch(from);
    std::fs::copy(from, to).map(drop).map_err(|error| {
        format!(
            "FORGE_PLUGINS_DIR: {}: {error}; put the prebuilt component there, or unset it to build from source",
            from.display()
        )
    })
}

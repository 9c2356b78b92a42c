//! Forge's own plugins, built to WASM components by this crate's build script and embedded.
//!
//! They have no privilege: what runs them is the same host that runs everyone's, and they get what `plugins/NAME.toml`
//! grants. This crate holds bytes and looks nothing up anywhere else.

/// A plugin that comes with Forge.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Builtin {
    /// What `source = "builtin:NAME"` says.
    pub name: &'static str,
    /// The component.
    pub wasm: &'static [u8],
}

impl std::fmt::Debug for Builtin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Builtin").field("name", &self.name).field("bytes", &self.wasm.len()).finish()
    }
}

static ALL: &[Builtin] = include!(concat!(env!("OUT_DIR"), "/builtins.rs"));

/// Every one, by name.
pub fn all() -> &'static [Builtin] {
    ALL
}

/// The one of this name.
pub fn get(name: &str) -> Option<&'static Builtin> {
    ALL.iter().find(|builtin| builtin.name == name)
}

//! Why bytes are not a plugin that this host runs, in words that lead on: all that is wrong of a kind is named, and not the first alone.

use crate::cache::CacheError;
use crate::limits::COMPONENT_BYTES_MAX;

/// What this host offers to a guest: interfaces of `plugins/wit`.
pub(crate) const OFFERED: [&str; 4] = [
    "forge:plugin/types@0.1.0",
    "forge:plugin/host@0.1.0",
    "forge:plugin/workspace@0.1.0",
    "forge:plugin/process@0.1.0",
];

/// What a webhook target may import of it: it plans requests, and the host sends them.
pub(crate) const OFFERED_TO_TARGETS: [&str; 2] = ["forge:plugin/types@0.1.0", "forge:plugin/host@0.1.0"];

/// What an executor exports.
pub(crate) const EXECUTOR: &str = "forge:plugin/executor@0.1.0";
/// What a webhook target exports.
pub(crate) const WEBHOOK_TARGET: &str = "forge:plugin/webhook-target@0.1.0";

/// What an export of any version begins with.
const OURS: &str = "forge:plugin/";

/// The version of the contract.
const VERSION: &str = "0.1.0";

/// Why bytes are not a plugin that this host runs.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// More bytes than a component may have.
    #[error("the plugin has {bytes} bytes; at most {COMPONENT_BYTES_MAX} are taken")]
    TooLarge {
        /// How many it has.
        bytes: usize,
    },
    /// Something else than WebAssembly.
    #[error("this is not a WASM component: {looks_like}; `forge plugin build` makes a component of a plugin's crate")]
    NotWasm {
        /// What it is instead.
        looks_like: &'static str,
    },
    /// WebAssembly, but only a core module.
    #[error(
        "this is a core WASM module and not a component: `forge plugin build` packs one, and so does `wasm-tools component new`"
    )]
    CoreModule,
    /// It is a component, and needs more at a time than this host has for one call.
    #[error("the plugin needs more than this host has for one call, which no key changes: {0}")]
    TooMuch(String),
    /// The engine refuses it.
    #[error("the WASM component is not valid, most likely it was cut or changed after it was built: {0}")]
    Invalid(String),
    /// It wants something that this host does not have.
    #[error("the plugin imports {}, which this host does not offer; it offers {}{}", imports.join(", "), OFFERED.join(", "), hints(.imports))]
    UnknownImports {
        /// All that it wants and does not get.
        imports: Vec<String>,
    },
    /// It is a plugin of another version of the contract.
    #[error(
        "the plugin {does} {}, and this Forge speaks {VERSION}: build it with the SDK of that version, or run a Forge that speaks its own",
        names.join(", ")
    )]
    UnknownVersion {
        /// `imports` or `exports`.
        does: &'static str,
        /// What it imports or exports.
        names: Vec<String>,
    },
    /// It wants what only an executor may have.
    #[error(
        "the plugin is a webhook target and imports {import}, which only an executor may: a target plans requests and the host sends \
         them; it may import {}", OFFERED_TO_TARGETS.join(", ")
    )]
    NotForTargets {
        /// What it wants.
        import: String,
    },
    /// It exports both things that Forge calls.
    #[error(
        "the plugin exports {EXECUTOR} and {WEBHOOK_TARGET}: make two plugins of it, since each is granted for itself"
    )]
    TwoKinds,
    /// It exports nothing that Forge calls.
    #[error("the plugin exports {}; an executor exports {EXECUTOR}, a webhook target {WEBHOOK_TARGET}", list(.exports))]
    NotAPlugin {
        /// What it exports.
        exports: Vec<String>,
    },
    /// The names fit and the functions do not.
    #[error("the plugin does not fit forge:plugin@0.1.0: {0}")]
    Mismatch(String),
    /// A digest that is not 64 lower-case hexadecimal digits.
    #[error("`{0}` is not a SHA-256 digest: 64 digits 0-9 and a-f")]
    NotADigest(String),
    /// The folder of compiled plugins cannot be read.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl LoadError {
    /// Of imports that this host does not offer. One that only speaks another version has nothing else wrong with it.
    pub(crate) fn of_unknown_imports(imports: Vec<String>) -> Self {
        if imports.iter().all(|import| is_of_another_version(import)) {
            Self::UnknownVersion { does: "imports", names: imports }
        } else {
            Self::UnknownImports { imports }
        }
    }
}

/// What most likely went wrong with a guest that would like to have more.
fn hints(imports: &[String]) -> String {
    let mut hints = String::new();
    if imports.iter().any(|import| is_of_another_version(import)) {
        hints.push_str(&format!(". This Forge speaks {VERSION}: build it with the SDK of that version"));
    }
    if imports.iter().any(|import| import.starts_with("wasi:")) {
        hints.push_str(
            ". It was built for WASI: build it for wasm32-unknown-unknown, and a plugin in Python with `--stub-wasi`",
        );
    }
    hints
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// Ours, but not of the version that this host speaks.
pub(crate) fn is_of_another_version(name: &str) -> bool {
    name.starts_with(OURS) && name.rsplit_once('@').is_some_and(|(_, version)| version != VERSION)
}

/// What bytes that are no WASM most likely are, for whoever gave the wrong file.
pub fn looks_like(bytes: &[u8]) -> &'static str {
    /// What a file begins with, and what it is then.
    const BEGINNINGS: [(&[u8], &str); 9] = [
        (b"\0asm", "it was cut short"),
        (b"(module", WAT),
        (b"(component", WAT),
        (b"version https://git-lfs", "it is a pointer of Git LFS, whose file was not fetched: run `git lfs pull`"),
        (b"#!", "it is a script"),
        (b"\x7fELF", "it is a program for this machine and not for the sandbox"),
        (b"PK\x03\x04", ARCHIVE),
        (b"\x1f\x8b", ARCHIVE),
        (b"\x28\xb5\x2f\xfd", ARCHIVE),
    ];
    const WAT: &str = "it is WebAssembly's text form; `wasm-tools parse` makes the binary one";
    const ARCHIVE: &str = "it is an archive: give the component in it";
    /// How much of a file tells text from other bytes.
    const LOOKED_AT: usize = 1_024;
    if bytes.is_empty() {
        return "it is empty";
    }
    if let Some((_, what)) = BEGINNINGS.iter().find(|(beginning, _)| bytes.starts_with(beginning)) {
        return what;
    }
    let beginning = bytes.get(..LOOKED_AT).unwrap_or(bytes);
    // A character that is cut at the end of what is looked at is text, too.
    let is_text = match std::str::from_utf8(beginning) {
        Ok(text) => !text.contains('\0'),
        Err(error) => error.error_len().is_none() && !beginning.contains(&0),
    };
    if is_text { "it is text, such as a source file" } else { "it does not begin with the bytes of one" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_instead_is_named() {
        for (bytes, expected) in [
            (&b""[..], "empty"),
            (b"\0asm", "cut short"),
            (b"(component)", "text form"),
            (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
            (b"#!/bin/sh\n", "a script"),
            (b"\x7fELF\x02", "a program"),
            (b"PK\x03\x04", "an archive"),
            (b"fn main() {}\n", "it is text"),
            ("é".repeat(1_000).as_bytes(), "it is text"),
            (b"text\0", "does not begin"),
            (b"\xff\xfe", "does not begin"),
        ] {
            assert!(looks_like(bytes).contains(expected), "{expected}: {}", looks_like(bytes));
        }
        let cut = ["x", &"é".repeat(1_000)].concat();
        assert!(looks_like(cut.as_bytes()).contains("it is text"), "a character is cut where the look ends");
    }

    #[test]
    fn each_unknown_import_is_named_and_a_version_alone_is_told_as_one() {
        let of = |imports: &[&str]| {
            LoadError::of_unknown_imports(imports.iter().map(|&import| import.to_owned()).collect()).to_string()
        };
        assert_eq!(
            of(&["forge:plugin/host@0.9.0", "forge:plugin/http@0.9.0"]),
            "the plugin imports forge:plugin/host@0.9.0, forge:plugin/http@0.9.0, and this Forge speaks 0.1.0: build it with the SDK of \
             that version, or run a Forge that speaks its own"
        );
        let mixed = of(&["wasi:io/poll@0.2.0", "forge:plugin/host@0.9.0", "wasi:cli/stdin@0.2.0"]);
        let named =
            "imports wasi:io/poll@0.2.0, forge:plugin/host@0.9.0, wasi:cli/stdin@0.2.0, which this host does not offer";
        assert!(mixed.contains(named) && mixed.contains("speaks 0.1.0") && mixed.contains("--stub-wasi"), "{mixed}");
        let ours = of(&["forge:plugin/clock@0.1.0"]);
        assert!(ours.contains("which this host does not offer") && !ours.contains("speaks"), "{ours}");
    }
}

//! `forge plugin` as authors and reviewers meet it, without building anything; `plugin_guide.rs` builds one.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::harness::{World, utf8};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The component that every Forge runs.
fn kept() -> PathBuf {
    root().join("testdata/plugins/executor-0.1.0.wasm")
}

/// A component that says of itself what `describe` makes at 1024, and does nothing else.
fn component(describe: &str, text: &str) -> Vec<u8> {
    let text: String = text.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    let module = format!(
        r#"(module
          (memory (export "memory") 1)
          (data (i32.const 16) "{text}")
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
          (func (export "forge:plugin/executor@0.1.0#describe") (result i32) {describe} (i32.const 1024))
          (func (export "forge:plugin/executor@0.1.0#execute") (param i32) (result i32) unreachable))"#
    );
    let mut module = wat::parse_str(module).expect("it is a module");
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(root().join("plugins/wit")).expect("the contract parses");
    let world = resolve.select_world(&[package], Some("executor-plugin")).expect("the world is there");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("it takes metadata");
    ComponentEncoder::default().module(&module).expect("it fits").encode().expect("it is a component")
}

/// A world with a file in it, and what `forge plugin check` says of that; the exit code is 1.
fn refusal(bytes: &[u8]) -> String {
    let world = World::new();
    std::fs::write(world.path("x.wasm"), bytes).expect("written");
    let said = world.run(&["plugin", "check", "x.wasm"]).expect_code(1);
    let json = world.run(&["plugin", "check", "x.wasm", "--output", "json"]).expect_code(1).json();
    let mistakes = json["mistakes"].as_array().expect("mistakes").clone();
    assert!(!mistakes.is_empty(), "{json}");
    for mistake in &mistakes {
        assert!(said.stderr.contains(mistake.as_str().expect("a text")), "{}\n{json}", said.stderr);
    }
    said.stderr
}

#[test]
fn a_component_is_checked_as_the_daemon_would() {
    let world = World::new();
    let file = kept();
    let checked = world.run(&["plugin", "check", utf8(&file)]).expect_code(0).text();
    for expected in [
        "is an executor",
        "kept",
        "forge:plugin/host@0.1.0",
        "sha256",
        "KiB, compiled in",
        "[params]\n  ",
        "required",
        "How it greets",
        "done | pending | failed | retry | panic  optional",
        "[config]\n  it takes none",
        "plugins/kept.toml, when you have reviewed it:\n\nsource = \"plugins/kept.wasm\"\nsha256 = \"",
        "[allow]\nprograms = [\"true\"]",
    ] {
        assert!(checked.contains(expected), "{expected:?} is missing:\n{checked}");
    }
    let json = world.run(&["plugin", "check", utf8(&file), "--output", "json"]).expect_code(0).json();
    assert_eq!(json["kind"], "executor");
    assert_eq!(json["wants"], json!({ "programs": ["true"], "env": [], "hosts": [] }));
    assert_eq!(json["params_schema"]["additionalProperties"], false);
    assert_eq!(json["mistakes"], json!([]));

    // Its TOML is what a tree takes as it is, and the list shows what is granted.
    let toml = world.run(&["plugin", "check", utf8(&file), "--output", "toml"]).expect_code(0).text();
    std::fs::copy(&file, world.path("tree/plugins/kept.wasm")).expect("copied");
    world.write("plugins/kept.toml", &toml);
    world.run(&["config", "check", "tree"]).expect_code(0);
    let listed = world.run(&["plugin", "list", "tree", "--output", "json"]).expect_code(0).json();
    let kept = listed.as_array().expect("a list").iter().find(|plugin| plugin["name"] == "kept").expect("it is there");
    assert_eq!(kept["granted"]["programs"], json!(["true"]));
    assert_eq!(kept["not_granted"], json!([]));

    world.write("plugins/kept.toml", &toml.replace("programs = [\"true\"]", "programs = []"));
    let listed = world.run(&["plugin", "list", "tree"]).expect_code(0).text();
    assert!(listed.lines().next().is_some_and(|head| head.contains("GRANTED BY [allow]")), "{listed}");
    let line = listed.lines().find(|line| line.starts_with("kept")).expect("it is there");
    let cells: Vec<&str> = line.split_whitespace().collect();
    assert!(cells.ends_with(&["-", "true"]) && cells.contains(&"plugins/kept.wasm"), "{listed}");

    world.write("plugins/kept.toml", &toml.replace("sha256 = \"", "sha256 = \"0"));
    let broken = world.run(&["plugin", "list", "tree"]).expect_code(1).stderr;
    assert!(broken.contains("`forge config check tree` shows them"), "{broken}");
}

#[test]
fn what_the_daemon_would_refuse_is_said_with_what_to_do() {
    let not_wasm = refusal(b"#!/bin/sh\n");
    assert!(not_wasm.contains("error: x.wasm: this is not a WASM component"), "{not_wasm}");
    assert!(not_wasm.contains("it is a script; `forge plugin build` makes a component"), "{not_wasm}");
    let core = refusal(b"\0asm\x01\0\0\0");
    assert!(core.contains("a core WASM module and not a component: `forge plugin build` packs one"), "{core}");
    let guest = |name: &str| {
        wat::parse_file(root().join("testdata/guests").join(name).with_extension("wat")).expect("it is WASM text")
    };
    let import = refusal(&guest("unknown-import"));
    assert!(import.contains("imports wasi:clocks/wall-clock@0.2.0") && import.contains("host@0.1.0"), "{import}");
    let imports = refusal(&guest("unknown-imports"));
    for name in ["wasi:clocks/wall-clock@0.2.0", "wasi:random/random@0.2.0", "forge:plugin/clock@0.1.0"] {
        assert!(imports.contains(name), "{name} is not named: {imports}");
    }
    let newer_import = refusal(&guest("newer-import"));
    assert!(newer_import.contains("imports forge:plugin/host@0.9.0, and this Forge speaks 0.1.0"), "{newer_import}");
    let newer = refusal(&guest("newer-executor"));
    assert!(newer.contains("executor@0.2.0, and this Forge speaks 0.1.0"), "{newer}");
    let traps = refusal(&component("unreachable", ""));
    assert!(traps.contains("it does not describe itself"), "{traps}");

    // Its params' schema is this text.
    let described = |text: &str| {
        let store = |at: u32, value: usize| format!("(i32.store (i32.const {at}) (i32.const {value}))");
        refusal(&component(&[store(1048, 1), store(1052, 16), store(1056, text.len())].concat(), text))
    };
    let schema = described(r#"{"type": "objekt"}"#);
    assert!(schema.contains("its schema of [params] is no JSON Schema"), "{schema}");
    let no_table = described(r#"{"type": "string"}"#);
    assert!(no_table.contains("write \"type\": \"object\" at its top"), "{no_table}");
    let no_json = described("{");
    assert!(no_json.contains("it does not describe itself"), "{no_json}");

    let world = World::new();
    let missing = world.run(&["plugin", "check", "gone.wasm"]).expect_code(1).stderr;
    assert!(missing.contains("cannot read gone.wasm"), "{missing}");
    let folder = world.run(&["plugin", "check", "."]).expect_code(1).stderr;
    assert!(folder.contains(". is not a file") && folder.contains("forge plugin build"), "{folder}");
}

#[test]
fn what_is_inside_is_shown_and_not_run() {
    let world = World::new();
    let file = kept();
    let shown = world.run(&["plugin", "inspect", utf8(&file)]).expect_code(0).text();
    for expected in [
        "a component of",
        "exports\n  forge:plugin/executor@0.1.0",
        "  forge:plugin/host@0.1.0",
        "code",
        "CUSTOM SECTION",
        "processed-by",
        "rustc",
        "wit-component",
    ] {
        assert!(shown.contains(expected), "{expected:?} is missing:\n{shown}");
    }
    let json = world.run(&["plugin", "inspect", utf8(&file), "--output", "json"]).expect_code(0).json();
    assert_eq!(json["format"], "component");
    assert_eq!(json["exports"], json!(["forge:plugin/executor@0.1.0"]));
    assert_eq!(json["memories"], 1);
    assert!(json["core_modules"].as_u64().expect("a number") >= 1, "{json}");
    let bytes: u64 = json["sections"]
        .as_object()
        .expect("sections")
        .values()
        .map(|sections| sections["bytes"].as_u64().expect("a number"))
        .sum();
    let size = std::fs::metadata(&file).expect("it is there").len();
    assert!(bytes < size && bytes > size * 9 / 10, "{bytes} of {size} are in sections");

    std::fs::write(world.path("text"), "no WASM").expect("written");
    let refused = world.run(&["plugin", "inspect", "text"]).expect_code(1).stderr;
    assert!(refused.contains("text is no WASM that can be read: it is text, such as a source file\n"), "{refused}");
    assert!(refused.contains("hint: name a component, such as plugins/NAME.wasm"), "{refused}");
    let whole = std::fs::read(&file).expect("it is there");
    std::fs::write(world.path("cut"), &whole[..whole.len() / 2]).expect("written");
    let refused = world.run(&["plugin", "inspect", "cut"]).expect_code(1).stderr;
    assert!(
        refused.contains("cut is WASM that cannot be read to its end") && refused.contains("hint: most"),
        "{refused}"
    );
}

#[test]
fn built_in_plugins_are_listed() {
    let world = World::new();
    let listed = world.run(&["plugin", "list"]).expect_code(0).text();
    let shell = listed.lines().find(|line| line.starts_with("builtin:shell ")).expect("it is there");
    for expected in ["executor", env!("CARGO_PKG_VERSION"), "script", "programs: bash", "Runs a script"] {
        assert!(shell.contains(expected), "{expected:?} is missing:\n{shell}");
    }
    let json = world.run(&["plugin", "list", "--output", "json"]).expect_code(0).json();
    let shell = json.as_array().expect("a list").iter().find(|plugin| plugin["name"] == "shell").expect("it is there");
    assert_eq!(shell["wants"]["programs"], json!(["bash"]));
    assert!(shell["params_schema"].is_object() && shell["config_schema"] == Value::Null, "{shell}");
}

#[test]
fn a_new_crate_takes_a_name_and_overwrites_nothing() {
    let world = World::new();
    let made = world.run(&["plugin", "new", "hello"]).expect_code(0).stderr;
    assert!(made.contains("cd hello; cargo test; forge plugin build; forge plugin check hello.wasm"), "{made}");
    for file in ["Cargo.toml", "Cargo.lock", "README.md", ".gitignore", "src/lib.rs", "forge/wit/types.wit"] {
        let text = std::fs::read_to_string(world.path("hello").join(file)).expect(file);
        assert!(!text.contains("{{"), "{file} is filled in:\n{text}");
    }
    let again = world.run(&["plugin", "new", "hello"]).expect_code(1).stderr;
    assert!(again.contains("hello is there already") && again.contains("nothing is ever overwritten"), "{again}");
    for (name, expected) in [
        ("Hello", "a name holds a-z, 0-9 and `-`"),
        ("../forge-new", "a name holds a-z, 0-9 and `-`"),
        ("2fast", "begins with a digit"),
        ("serde", "the name of a crate that the plugin itself needs"),
    ] {
        let refused = world.run(&["plugin", "new", name]).expect_code(2).stderr;
        assert!(refused.contains(expected), "{name}: {refused}");
        assert!(!world.path(name).exists(), "{name}");
    }
}

#[test]
fn a_build_says_what_it_lacks() {
    let world = World::new();
    let nowhere = world.run(&["plugin", "build"]).expect_code(1).stderr;
    assert!(nowhere.contains("cannot read") && nowhere.contains("forge plugin new NAME"), "{nowhere}");
    world.run(&["plugin", "new", "hello"]).expect_code(0);
    let with = |rustc: &Path| {
        let mut command = world.forge(&["plugin", "build", "hello"]);
        command.env("RUSTC", rustc);
        crate::harness::Finished::of(command, b"").expect_code(1).stderr
    };
    let none = with(Path::new("/nowhere/rustc"));
    assert!(none.contains("/nowhere/rustc does not run") && none.contains("https://rustup.rs"), "{none}");
    let without = world.path("rustc");
    std::fs::write(&without, "#!/bin/sh\necho /nowhere\n").expect("written");
    std::fs::set_permissions(&without, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("executable");
    let lacking = with(&without);
    assert!(lacking.contains("hint: run `rustup target add wasm32-unknown-unknown`"), "{lacking}");
}

/// What stands behind `const NAME:` in a file of this repository.
fn constant(file: &str, name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
    let (_, rest) = text.split_once(&format!("const {name}:")).unwrap_or_else(|| panic!("{file} has no {name}"));
    rest.split_once(";\n").expect("a constant has an end").0.to_owned()
}

#[test]
fn the_fake_host_of_the_sdk_refuses_what_the_host_refuses() {
    let of_the_sdk = "plugins/sdk/src/checks.rs";
    for (file, names) in [
        ("plugins/host/src/grants.rs", &["REFUSED_NAMES", "REFUSED_PREFIXES"][..]),
        (
            "plugins/host/src/limits.rs",
            &["ARGUMENT_BYTES_MAX", "COMMAND_BYTES_MAX", "COMMAND_ITEMS_MAX", "STDIN_BYTES_MAX"],
        ),
    ] {
        for name in names {
            assert_eq!(constant(of_the_sdk, name), constant(file, name), "{name} of {of_the_sdk} and of {file}");
        }
    }
}

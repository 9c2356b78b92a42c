//! Plugins: what nobody has reviewed is not even looked at.

use forge_config::{CheckOptions, Digest, Files, PluginCatalog, PluginFacts, check_tree};

/// Measures components and is never asked for more.
#[derive(Debug)]
struct OnlyMeasures;

impl PluginCatalog for OnlyMeasures {
    fn builtin_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn builtin(&self, _name: &str) -> Option<Result<PluginFacts, String>> {
        None
    }

    fn digest(&self, _bytes: &[u8]) -> Digest {
        Digest([7; 32])
    }

    fn inspect(&self, _bytes: &[u8]) -> Result<PluginFacts, String> {
        panic!("a component that nobody has reviewed was compiled and called")
    }
}

#[test]
fn a_component_is_compiled_only_when_its_digest_is_the_one_that_is_written() {
    let own = Digest([7; 32]).hex();
    for written in [String::new(), format!("sha256 = \"{}\"\n", "08".repeat(32)), "sha256 = \"08\"\n".to_owned()] {
        let plugin = format!("source = \"plugins/x.wasm\"\n{written}");
        let files = Files::from([
            ("plugins/x.toml".to_owned(), plugin.into_bytes()),
            ("plugins/x.wasm".to_owned(), b"anything".to_vec()),
        ]);
        let checked = check_tree(&files, &OnlyMeasures, &CheckOptions::default());
        let [only] = checked.diagnostics.as_slice() else { panic!("{:?}", checked.diagnostics) };
        let said = format!("{} {}", only.message, only.hint.as_deref().unwrap_or_default());
        assert!(said.contains(&own), "it says what to write: {said}");
    }
}

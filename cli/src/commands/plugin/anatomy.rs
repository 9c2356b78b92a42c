//! What a WASM file holds, read and never run: what it imports and exports, and where its bytes are.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Serialize;
use wasmparser::{CustomSectionReader, Encoding, KnownCustom, Parser, Payload};

/// The whole of it.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Anatomy {
    /// `component` or `core module`.
    pub(crate) format: &'static str,
    /// What the component imports, with versions.
    pub(crate) imports: Vec<String>,
    /// What it exports, with versions.
    pub(crate) exports: Vec<String>,
    /// How many core modules lie in it.
    pub(crate) core_modules: usize,
    /// How many components lie in it.
    pub(crate) components: usize,
    /// How many memories its core modules have of their own.
    pub(crate) memories: u64,
    /// Where its bytes are, by kind of section, over all its modules.
    pub(crate) sections: BTreeMap<&'static str, Sections>,
    /// The custom sections in their order.
    pub(crate) custom_sections: Vec<Custom>,
    /// What made it, as its `producers` sections say.
    pub(crate) producers: Vec<Producer>,
}

/// All sections of a kind.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Sections {
    pub(crate) count: usize,
    pub(crate) bytes: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Custom {
    pub(crate) name: String,
    /// `component`, or `core module 1` and on.
    pub(crate) inside: String,
    pub(crate) bytes: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Producer {
    pub(crate) field: String,
    pub(crate) name: String,
    pub(crate) version: String,
}

/// Reads a file's bytes.
pub(crate) fn read(bytes: &[u8]) -> Result<Anatomy, String> {
    let mut anatomy = Anatomy::default();
    // What is being read, the innermost last: a module or component stands in its section, and ends with an `End`.
    let mut inside: Vec<String> = Vec::new();
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(|error| error.to_string())?;
        anatomy.count(&payload);
        match payload {
            Payload::Version { encoding, .. } if inside.is_empty() => {
                anatomy.format = match encoding {
                    Encoding::Component => "component",
                    Encoding::Module => "core module",
                };
                inside.push(anatomy.format.to_owned());
            }
            Payload::ModuleSection { .. } => {
                anatomy.core_modules += 1;
                inside.push(format!("core module {}", anatomy.core_modules));
            }
            Payload::ComponentSection { .. } => {
                anatomy.components += 1;
                inside.push(format!("component {}", anatomy.components));
            }
            Payload::End(_) => drop(inside.pop()),
            Payload::MemorySection(memories) => anatomy.memories += u64::from(memories.count()),
            Payload::ComponentImportSection(imports) if inside.len() == 1 => {
                for import in imports {
                    anatomy.imports.push(import.map_err(|error| error.to_string())?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(exports) if inside.len() == 1 => {
                for export in exports {
                    anatomy.exports.push(export.map_err(|error| error.to_string())?.name.name.to_owned());
                }
            }
            Payload::CustomSection(custom) => anatomy.custom(&custom, inside.last().map_or("", String::as_str)),
            _ => {}
        }
    }
    Ok(anatomy)
}

impl Anatomy {
    fn count(&mut self, payload: &Payload<'_>) {
        // What lies in a module or component is counted by itself.
        if matches!(payload, Payload::ModuleSection { .. } | Payload::ComponentSection { .. }) {
            return;
        }
        if let Some((_, range)) = payload.as_section() {
            let sections = self.sections.entry(kind(payload)).or_default();
            sections.count += 1;
            sections.bytes += length(&range);
        }
    }

    fn custom(&mut self, section: &CustomSectionReader<'_>, inside: &str) {
        self.custom_sections.push(Custom {
            name: section.name().to_owned(),
            inside: inside.to_owned(),
            bytes: length(&section.range()),
        });
        let KnownCustom::Producers(fields) = section.as_known() else { return };
        // Who made it is talk: a section that cannot be read is left out.
        for field in fields.into_iter().flatten() {
            for value in field.values.into_iter().flatten() {
                let producer = Producer {
                    field: field.name.to_owned(),
                    name: value.name.to_owned(),
                    version: value.version.to_owned(),
                };
                if !self.producers.contains(&producer) {
                    self.producers.push(producer);
                }
            }
        }
    }
}

fn length(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

fn kind(payload: &Payload<'_>) -> &'static str {
    match payload {
        Payload::CodeSectionStart { .. } => "code",
        Payload::DataSection(_) => "data",
        Payload::CustomSection(_) => "custom",
        Payload::TypeSection(_) | Payload::CoreTypeSection(_) | Payload::ComponentTypeSection(_) => "types",
        Payload::ImportSection(_) | Payload::ComponentImportSection(_) => "imports",
        Payload::ExportSection(_) | Payload::ComponentExportSection(_) => "exports",
        Payload::FunctionSection(_) | Payload::ComponentCanonicalSection(_) => "functions",
        Payload::TableSection(_) | Payload::ElementSection(_) => "tables",
        Payload::MemorySection(_) => "memories",
        Payload::GlobalSection(_) => "globals",
        Payload::InstanceSection(_) | Payload::ComponentInstanceSection(_) | Payload::ComponentAliasSection(_) => {
            "instances"
        }
        _ => "other",
    }
}

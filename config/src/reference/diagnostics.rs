//! A page for each diagnostic: what it means, what to do, and what it looks like in a sample of `testdata/config`.

use crate::diagnostic::Code;
use crate::reference::markdown::GENERATED;

/// How many samples a page shows.
const SAMPLES_MAX: usize = 3;

/// A diagnostic as it was drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiagnosticSample {
    /// Its code.
    pub code: String,
    /// The drawn text.
    pub drawn: String,
}

impl DiagnosticSample {
    /// The samples in drawn text: one after the other, with an empty line between them.
    pub fn all_in(drawn: &str) -> Vec<Self> {
        drawn
            .split("\n\n")
            .filter_map(|drawn| {
                let (_, rest) = drawn.lines().next()?.split_once("[FORGE-C")?;
                let (number, _) = rest.split_once(']')?;
                Some(Self { code: format!("FORGE-C{number}"), drawn: drawn.trim_end().to_owned() })
            })
            .collect()
    }
}

/// The page of a code. Of the samples, the first few of this code are shown.
pub fn diagnostic_page(code: Code, samples: &[DiagnosticSample]) -> String {
    let mut page = format!("{GENERATED}\n\n# {code}\n\n{}\n\n{}\n", code.meaning(), code.remedy());
    let own: Vec<_> = samples.iter().filter(|sample| sample.code == code.as_str()).collect();
    // Different messages tell more than the same one on different lines.
    let mut shown: Vec<&DiagnosticSample> = Vec::new();
    for sample in own {
        let message = |sample: &DiagnosticSample| {
            let line = sample.drawn.lines().next().unwrap_or_default();
            line.split_once("]: ").map_or(line, |(_, message)| message).chars().take(12).collect::<String>()
        };
        if shown.len() < SAMPLES_MAX && !shown.iter().any(|other| message(other) == message(sample)) {
            shown.push(sample);
        }
    }
    if !shown.is_empty() {
        page.push_str("\n## What it looks like\n");
    }
    for sample in shown {
        page.push_str(&format!("\n```text\n{}\n```\n", sample.drawn));
    }
    page.push_str("\n[All diagnostics](README.md)\n");
    page
}

/// The list of all codes.
pub fn diagnostics_index() -> String {
    let mut page = format!(
        "{GENERATED}\n\n# Diagnostics\n\nWhat `forge config check`, the daemon's log and `forge config status` say of a tree or of a host's \
         settings. An *error* keeps a tree from being applied, a *warning* is likely not what was meant, and a *note* is worth knowing. A code \
         keeps its meaning for good.\n\n| code | meaning |\n|---|---|\n"
    );
    for code in Code::ALL {
        page.push_str(&format!("| [{code}]({code}.md) | {} |\n", code.meaning()));
    }
    page.push_str(
        "\nWhat is wrong with the repository that a tree comes from has [codes of its own](source/README.md).\n",
    );
    page
}

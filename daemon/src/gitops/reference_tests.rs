//! The pages of the source's codes are what the declarations say, and each shows what is printed when it happens to a real repository.
//!
//! `FORGE_TEST_REWRITE=1 cargo test --release --workspace` writes pages and samples anew; review what changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tokio::runtime::Runtime;

use super::apply::Look;
use super::failure::{SOURCE, SourceCode};
use super::git::GitOptions;
use super::sequence_tests::{Step, World};

const GENERATED: &str = "<!-- Generated from the declarations in daemon/src/gitops. FORGE_TEST_REWRITE=1 cargo test --release --workspace writes it anew. -->";

fn root(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(part)
}

/// Has `code` happen in a world of its own, and answers what is printed of it.
fn printed(code: SourceCode) -> String {
    let mut world = World::new();
    let signers = world.folder.path().join("allowed-signers");
    let with = |change: fn(&mut GitOptions, &Path)| (change, signers.clone());
    let same = with(|_, _| {});
    let runner = world.folder.path().join("tree/runners/ny-1.toml");
    // What is so before the daemon starts, and what becomes of it.
    let (change, file) = match code {
        SourceCode::Unreachable | SourceCode::BranchGone | SourceCode::Rewritten => same,
        SourceCode::SetBack => {
            world.take(Step::Valid);
            same
        }
        SourceCode::Unsigned | SourceCode::Foreign => {
            fs::write(&signers, "").expect("written");
            with(|options, signers| options.allowed_signers_file = Some(signers.to_owned()))
        }
        SourceCode::Host => with(|options, signers| options.allowed_signers_file = Some(signers.to_owned())),
        SourceCode::Prunes => {
            fs::create_dir_all(runner.parent().expect("a folder")).expect("made");
            fs::write(&runner, "").expect("written");
            world.take(Step::Valid);
            same
        }
        SourceCode::NoDirectory => with(|options, _| "deploy".clone_into(&mut options.directory)),
    };
    if code == SourceCode::Foreign {
        world.sign("-----BEGIN PGP SIGNATURE-----\n\n aGVsbG8=\n -----END PGP SIGNATURE-----");
    }
    let applier = world.applier_with(|options| change(options, &file));
    match code {
        SourceCode::Unreachable => world.take(Step::Moved),
        SourceCode::BranchGone => world.take(Step::Renamed),
        SourceCode::Rewritten => world.take(Step::Amended { valid: true }),
        SourceCode::SetBack => world.take(Step::SetBack(1)),
        SourceCode::Prunes => {
            fs::remove_file(&runner).expect("removed");
            world.take(Step::Valid);
        }
        SourceCode::Unsigned | SourceCode::Foreign | SourceCode::Host | SourceCode::NoDirectory => {}
    }
    applier.look(&Look::Again);
    let failure = applier.view().status().last_error.unwrap_or_else(|| panic!("{} did not happen", code.as_str()));
    let found = failure.diagnostics.first().expect("one");
    assert_eq!((found.code.as_str(), found.file.as_str()), (code.as_str(), SOURCE), "{failure:?}");
    let text =
        format!("source: error[{}]: {}\nhint: {}\n", found.code, found.message, found.hint.as_deref().unwrap_or("-"));
    plain(&text.replace(&world.folder.path().display().to_string(), "/srv/git"))
}

/// The text with commits that are the same at every run.
fn plain(text: &str) -> String {
    let is_hex = |letter: char| letter.is_ascii_digit() || ('a'..='f').contains(&letter);
    let mut known: Vec<String> = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(begin) = rest.find(is_hex) {
        plain.push_str(&rest[..begin]);
        rest = &rest[begin..];
        let (word, after) = rest.split_at(rest.find(|letter| !is_hex(letter)).unwrap_or(rest.len()));
        rest = after;
        if word.len() != 40 {
            plain.push_str(word);
            continue;
        }
        let number = known.iter().position(|other| other == word).unwrap_or(known.len());
        if number == known.len() {
            known.push(word.to_owned());
        }
        plain.push_str(&["1f", "2e", "3d"][number].repeat(20));
    }
    plain + rest
}

/// Compares a folder's files with what they should be; nothing else may lie there.
fn compare(folder: &str, expected: &BTreeMap<String, String>) {
    let folder = root(folder);
    let rewrites = std::env::var_os("FORGE_TEST_REWRITE").is_some();
    let mut stale = Vec::new();
    for (name, text) in expected {
        let path = folder.join(name);
        if fs::read_to_string(&path).ok().as_ref() == Some(text) {
            continue;
        }
        if rewrites {
            fs::create_dir_all(&folder).expect("made");
            fs::write(&path, text).expect("written");
        } else {
            stale.push(name.clone());
        }
    }
    let present = fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    stale.extend(present.filter_map(|name| name.into_string().ok()).filter(|name| !expected.contains_key(name)));
    assert!(stale.is_empty(), "{} is stale: {stale:?}; FORGE_TEST_REWRITE=1 writes it anew", folder.display());
}

#[test]
fn every_code_of_the_source_happens_to_a_real_repository_and_has_a_page_that_shows_it() {
    let runtime = Runtime::new().expect("a runtime");
    let _entered = runtime.enter();
    let mut samples = BTreeMap::new();
    let mut pages = BTreeMap::new();
    let mut index = format!(
        "{GENERATED}\n\n# Diagnostics of the source\n\nWhat keeps the newest revision from serving that is no mistake in its files: the repository, its \
         history, and the guards around it. `forge config status`, the daemon's log and the event `config.failed` say it; what served keeps serving. \
         [The tree from git](../../../guides/gitops.md) tells how they go together.\n\n| code | meaning |\n|---|---|\n"
    );
    for (number, code) in SourceCode::ALL.iter().enumerate() {
        let name = code.as_str();
        assert_eq!(name, format!("FORGE-S{:03}", number + 1), "numbered without a gap");
        let sample = printed(*code);
        pages.insert(
            format!("{name}.md"),
            format!(
                "{GENERATED}\n\n# {name}\n\n{}\n\n{}\n\n## What it looks like\n\n```text\n{sample}```\n\n[All of them](README.md)\n",
                code.meaning().trim(),
                code.remedy()
            ),
        );
        index.push_str(&format!("| [{name}]({name}.md) | {} |\n", code.meaning().trim()));
        samples.insert(format!("{name}.txt"), sample);
    }
    pages.insert("README.md".to_owned(), index);
    compare("testdata/config/source", &samples);
    compare("docs/reference/diagnostics/source", &pages);
}

#[test]
fn the_guide_links_each_page() {
    let guide = include_str!("../../../docs/guides/gitops.md");
    for code in SourceCode::ALL {
        let name = code.as_str();
        let link = format!("| [`{name}`](../reference/diagnostics/source/{name}.md) |");
        assert!(guide.contains(&link), "{name} is not in the guide");
    }
}

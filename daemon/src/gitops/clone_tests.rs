//! The clone of the configuration's repository, against real repositories: it is a copy, so whatever becomes of it, the next commit
//! serves.

use std::fs;
use std::path::{Path, PathBuf};

use tokio::runtime::Runtime;

use super::apply::{Acceptance, Look};
use super::git::PACKS_MAX;
use super::sequence_tests::{Step, World};

fn clone_of(world: &World) -> PathBuf {
    world.folder.path().join("data/source/repository.git")
}

/// The files of the clone's packs.
fn packs(clone: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(clone.join("objects/pack")).expect("packs").flatten().map(|file| file.path());
    files.filter(|file| file.extension().is_some_and(|end| end == "pack")).collect()
}

fn rewrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("read");
    change(&mut bytes);
    // git writes packs read-only.
    fs::remove_file(path).expect("removed");
    fs::write(path, bytes).expect("written");
}

/// What spoils a clone.
type Spoil = fn(&Path);

/// Every way to spoil it, by name.
const SPOILS: &[(&str, Spoil)] = &[
    ("no HEAD", |clone| fs::remove_file(clone.join("HEAD")).expect("removed")),
    ("no clone", |clone| fs::remove_dir_all(clone).expect("removed")),
    ("locks that a killed git left behind", |clone| {
        for lock in ["config.lock", "HEAD.lock", "refs/forge/head.lock"] {
            fs::write(clone.join(lock), "").expect("written");
        }
    }),
    ("no objects", |clone| fs::remove_dir_all(clone.join("objects")).expect("removed")),
    ("no packs", |clone| packs(clone).iter().for_each(|pack| fs::remove_file(pack).expect("removed"))),
    ("packs cut short", |clone| {
        packs(clone).iter().for_each(|pack| rewrite(pack, |bytes| bytes.truncate(bytes.len() / 2)))
    }),
    ("packs full of something else", |clone| {
        packs(clone).iter().for_each(|pack| {
            rewrite(pack, |bytes| {
                let end = bytes.len() - 20;
                bytes[12..end].fill(0x55);
            });
        });
    }),
    ("a configuration that is none", |clone| fs::write(clone.join("config"), "[[[").expect("written")),
    ("a head that is no commit", |clone| {
        fs::write(clone.join("refs/forge/head"), format!("{}\n", "1".repeat(40))).expect("written");
    }),
];

fn spoil_and_push(filtered: bool) {
    let runtime = Runtime::new().expect("a runtime");
    let _entered = runtime.enter();
    for (name, spoil) in SPOILS {
        for restarts in [true, false] {
            // While a daemon lives, its git ends in order and leaves no lock.
            if !restarts && name.starts_with("locks") {
                continue;
            }
            let mut world = World::new();
            world.git(&["config", "uploadpack.allowFilter", if filtered { "true" } else { "false" }]);
            let mut running = Some(world.applier());
            world.look();
            if restarts {
                running = None;
            }
            spoil(&clone_of(&world));
            world.take(Step::Valid);
            let applier = running.unwrap_or_else(|| world.applier());
            applier.look(&Look::Again);
            assert!(world.look());
            assert_eq!(applier.view().status().last_error, None, "{name}, restarted: {restarts}");
            world.assert_serves(&applier);
        }
    }
}

#[test]
fn a_spoiled_clone_is_made_anew() {
    spoil_and_push(false);
}

#[test]
fn a_spoiled_clone_without_blobs_is_made_anew() {
    spoil_and_push(true);
}

#[test]
fn a_damaged_clone_does_not_make_a_rewritten_history_pass() {
    let runtime = Runtime::new().expect("a runtime");
    let _entered = runtime.enter();
    let mut world = World::new();
    let applier = world.applier();
    world.look();
    world.take(Step::Amended { valid: true });
    fs::remove_dir_all(clone_of(&world).join("objects")).expect("removed");
    applier.look(&Look::Again);
    assert!(!world.look());
    world.assert_serves(&applier);
    let code = |applier: &super::apply::Applier| {
        applier
            .view()
            .status()
            .last_error
            .and_then(|failure| failure.diagnostics.first().map(|found| found.code.clone()))
    };
    assert_eq!(code(&applier).as_deref(), Some("FORGE-S003"));
}

#[test]
fn a_server_that_is_away_costs_no_clone() {
    let runtime = Runtime::new().expect("a runtime");
    let _entered = runtime.enter();
    let mut world = World::new();
    let applier = world.applier();
    world.look();
    let marked = clone_of(&world).join("forge-test-mark");
    fs::write(&marked, "").expect("written");
    for step in [Step::Moved, Step::Moved, Step::Renamed, Step::Renamed, Step::SetBack(1), Step::Valid] {
        world.take(step);
        applier.look(&Look::Again);
        world.look();
        world.assert_serves(&applier);
    }
    assert!(marked.exists(), "a clone that is whole was thrown away");
}

#[test]
fn a_server_that_refuses_filters_is_asked_for_everything() {
    let runtime = Runtime::new().expect("a runtime");
    let _entered = runtime.enter();
    let mut world = World::new();
    world.git(&["config", "uploadpack.allowFilter", "true"]);
    world.git(&["config", "uploadpackfilter.allow", "false"]);
    let mut applier = world.applier();
    assert!(world.look());
    world.assert_serves(&applier);
    for restarts in [false, true] {
        if restarts {
            drop(applier);
            applier = world.applier();
        }
        world.take(Step::Valid);
        applier.look(&Look::Again);
        assert!(world.look());
        world.assert_serves(&applier);
        assert_eq!(applier.view().status().last_error, None);
    }
}

#[test]
fn an_accepted_history_is_accepted_after_a_restart_too() {
    let runtime = Runtime::new().expect("a runtime");
    let _entered = runtime.enter();
    let mut world = World::new();
    let applier = world.applier();
    world.look();
    // Another history, whose head is broken: it is accepted, and what mends it comes after a restart.
    world.take(Step::Amended { valid: false });
    let accepted = world.commits[world.head].id.clone();
    applier.look(&Look::Asked(Acceptance { prune: None, rewrite: Some(accepted) }));
    world.assert_serves(&applier);
    drop(applier);
    world.take(Step::Valid);
    let applier = world.applier();
    applier.look(&Look::Again);
    world.serves_newest();
    world.assert_serves(&applier);
    assert_eq!(applier.view().status().last_error, None);
    // The word was for going on from what served then. A second rewrite needs a second word.
    world.take(Step::Amended { valid: true });
    applier.look(&Look::Again);
    world.assert_serves(&applier);
    drop(applier);
    let applier = world.applier();
    applier.look(&Look::Again);
    world.assert_serves(&applier);
    assert!(applier.view().status().last_error.is_some());
}

#[test]
fn a_clone_of_many_pushes_stays_small() {
    let runtime = Runtime::new().expect("a runtime");
    let _entered = runtime.enter();
    let mut world = World::new();
    // Then each push is a pack of its history and one of its files.
    world.git(&["config", "uploadpack.allowFilter", "true"]);
    let applier = world.applier();
    world.look();
    let clone = clone_of(&world);
    let mut most = 0;
    for _ in 0..=PACKS_MAX / 2 {
        world.take(Step::Valid);
        applier.look(&Look::Again);
        world.look();
        most = most.max(packs(&clone).len());
    }
    world.assert_serves(&applier);
    let left = packs(&clone).len();
    assert!(most >= PACKS_MAX && left < PACKS_MAX, "{most} packs became {left}");
}

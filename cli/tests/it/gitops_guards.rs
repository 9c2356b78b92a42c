//! What a commit has to get past before it serves: a history that goes on, a signature that is known, and an admin's word where
//! it takes much away. And the identity that opens the tree's secrets, exchanged while the daemon runs.

use std::path::{Path, PathBuf};

use crate::git::git;
use crate::git_keys::key_pair;
use crate::gitops::{apply, code, commit, commit_with, repository, status};
use crate::harness::{Daemon, Finished, World, utf8, wait_for};
use crate::secrets::{encrypted, identity};

#[test]
fn a_rewritten_history_waits_for_an_admin_who_names_it() {
    let world = World::new();
    let first = repository(&world, "");
    let tree = world.path("tree");
    world.write("projects/shop/project.toml", "description = \"two\"\n");
    let second = commit(&tree, "Two");
    let daemon = world.daemon();
    let serves = |daemon: &Daemon, revision: &str, wrong: &str| {
        let shown = status(&world, daemon);
        assert_eq!((shown["revision"].as_str(), code(&shown)), (Some(revision), wrong), "{shown:#}");
    };
    serves(&daemon, &second, "");

    // An older commit, as somebody would replay it who may push and not sign.
    git(&tree, &["reset", "--quiet", "--hard", &first]);
    let replayed = apply(&world, &daemon, &[]).expect_code(1);
    assert!(replayed.stderr.contains("an older commit than"), "{}", replayed.stderr);
    serves(&daemon, &second, "FORGE-S004");

    world.write("projects/shop/project.toml", "description = \"other\"\n");
    let other = commit(&tree, "Another second");
    let refused = apply(&world, &daemon, &[]).expect_code(1);
    assert!(refused.stderr.contains(&format!("--accept-rewrite {other}")), "{}", refused.stderr);
    serves(&daemon, &second, "FORGE-S003");
    assert_eq!(daemon.stop().code(), Some(0));

    // A restart forgets neither what served nor that the history is another one.
    let daemon = world.daemon();
    wait_for("the rewrite is shown", || (code(&status(&world, &daemon)) == "FORGE-S003").then_some(()));
    serves(&daemon, &second, "FORGE-S003");
    for wrong in [second.as_str(), "main", &other[..12]] {
        let refused = apply(&world, &daemon, &["--accept-rewrite", wrong]).expect_code(1);
        assert!(refused.stderr.contains(&other), "{wrong}: {}", refused.stderr);
        serves(&daemon, &second, "FORGE-S003");
    }
    apply(&world, &daemon, &["--accept-rewrite", &other]).expect_code(0);
    serves(&daemon, &other, "");
    let next = commit(&tree, "Go on");
    apply(&world, &daemon, &[]).expect_code(0);
    serves(&daemon, &next, "");
}

#[test]
fn what_is_accepted_is_an_admins_to_say() {
    let world = World::new();
    let (owner, hash) = world.new_token();
    world.write("access/owner.toml", &format!("hash = \"{hash}\"\nrole = \"owner\"\n"));
    let (narrow, hash) = world.new_token();
    world.write("access/narrow.toml", &format!("hash = \"{hash}\"\nrole = \"admin\"\nprojects = [\"shop\"]\n"));
    let head = repository(&world, "");
    let daemon = world.daemon();
    for (token, why) in [(owner, "needs the role admin"), (narrow, "this token reaches only some")] {
        let mut command = world.client(&daemon, &["config", "apply", "--prune", &head]);
        command.env("FORGE_TOKEN", &token);
        let refused = Finished::of(command, b"").expect_code(1);
        assert!(refused.stderr.contains(why), "{}", refused.stderr);
    }
    apply(&world, &daemon, &["--prune", &head, "--accept-rewrite", &head]).expect_code(0);
}

/// git's options that sign with an ssh key.
fn signing(key: &Path) -> [String; 6] {
    let key = format!("user.signingKey={}", key.display());
    ["-c", "gpg.format=ssh", "-c", "commit.gpgSign=true", "-c", &key].map(str::to_owned)
}

fn signed(tree: &Path, subject: &str, key: &Path) -> String {
    let options = signing(key);
    commit_with(tree, subject, &options.iter().map(String::as_str).collect::<Vec<_>>())
}

fn allow(file: &Path, who: &str, key: &Path) {
    let public = std::fs::read_to_string(key.with_extension("pub")).expect("a public key");
    std::fs::write(file, format!("{who} namespaces=\"git\" {public}")).expect("the allowed signers");
}

#[test]
fn only_commits_signed_by_an_allowed_key_serve() {
    let world = World::new();
    let (ada, eve): (PathBuf, PathBuf) = (key_pair(&world, "ada", ""), key_pair(&world, "eve", ""));
    let signers = world.path("signers");
    allow(&signers, "ada@example.com", &ada);
    let unsigned = repository(&world, &format!("allowed_signers_file = {signers:?}\n"));
    let tree = world.path("tree");

    // Without a last good revision an empty tree serves: nothing of an unsigned commit, not even its tokens.
    let daemon = world.daemon();
    let local = || world.run(&["config", "status", "--config", "forge.toml", "--output", "json"]).expect_code(0).json();
    let shown = local();
    assert_eq!((shown["revision"].as_str(), code(&shown)), (Some(""), "FORGE-S005"), "{shown:#}");
    assert_eq!(shown["last_error"]["revision"], unsigned.as_str());
    let good = signed(&tree, "Signed", &ada);
    daemon.process.signal("HUP");
    wait_for("the signed commit serves", || (local()["revision"] == good.as_str()).then_some(()));
    assert_eq!(status(&world, &daemon)["commit"]["signed_by"], "ada@example.com");

    let foreign = signed(&tree, "By a stranger", &eve);
    let refused = apply(&world, &daemon, &[]).expect_code(1);
    assert!(refused.stderr.contains("FORGE-S006") && refused.stderr.contains(&foreign), "{}", refused.stderr);
    let unsigned = commit(&tree, "Not signed");
    let refused = apply(&world, &daemon, &[]).expect_code(1);
    let who = "(\"Not signed\" by Ada Lovelace <ada@example.com>) was refused at";
    assert!(refused.text().contains(who), "{}", refused.text());
    assert!(refused.stderr.contains("FORGE-S005") && refused.stderr.contains(&unsigned), "{}", refused.stderr);
    // An admin's word lets a history pass, and never a signature.
    apply(&world, &daemon, &["--accept-rewrite", &unsigned]).expect_code(1);
    assert_eq!(status(&world, &daemon)["revision"], good.as_str());

    // A signature that was made for something else than this commit.
    let raw = git(&tree, &["cat-file", "commit", &foreign]);
    let forged = git(&tree, &["cat-file", "commit", &good]).replace("Signed", "Forged");
    assert!(raw.contains("gpgsig") && forged.contains("gpgsig"));
    std::fs::write(world.path("forged"), forged + "\n").expect("a file");
    let forged = git(&tree, &["hash-object", "-t", "commit", "-w", utf8(&world.path("forged"))]);
    git(&tree, &["update-ref", "refs/heads/main", &forged]);
    let refused = apply(&world, &daemon, &["--accept-rewrite", &forged]).expect_code(1);
    assert!(refused.stderr.contains("FORGE-S006"), "{}", refused.stderr);
    git(&tree, &["update-ref", "refs/heads/main", &unsigned]);

    let next = signed(&tree, "Signed again", &ada);
    apply(&world, &daemon, &[]).expect_code(0);
    // Whoever is not allowed any more cannot go on; what serves stays.
    allow(&signers, "eve@example.com", &eve);
    signed(&tree, "Signed once too often", &ada);
    let refused = apply(&world, &daemon, &[]).expect_code(1);
    assert!(refused.stderr.contains("FORGE-S006"), "{}", refused.stderr);
    std::fs::remove_file(&signers).expect("removed");
    let refused = apply(&world, &daemon, &[]).expect_code(1);
    assert!(refused.stderr.contains("FORGE-S009") && refused.stderr.contains("signers"), "{}", refused.stderr);
    assert_eq!(status(&world, &daemon)["revision"], next.as_str());
}

fn templates(world: &World, count: u32) {
    for number in 0..count {
        world.template(&format!("t{number}"), "", "echo hello");
    }
}

fn remove_templates(world: &World, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let file = world.path("tree").join(format!("projects/shop/templates/t{number}.toml"));
        std::fs::remove_file(file).expect("removed");
    }
}

#[test]
fn a_commit_that_removes_most_templates_waits_for_an_admin() {
    let world = World::new();
    templates(&world, 5);
    let all = repository(&world, "");
    let tree = world.path("tree");
    let daemon = world.daemon();
    remove_templates(&world, 0..3);
    let few = commit(&tree, "Tidy up");
    let waits = apply(&world, &daemon, &[]).expect_code(1);
    let said = "it removes 3 of 5 templates: shop/t0, shop/t1, shop/t2";
    assert!(waits.stderr.contains(said) && waits.stderr.contains(&format!("--prune {few}")), "{}", waits.stderr);
    let who = "(\"Tidy up\" by Ada Lovelace <ada@example.com>) waits for an admin since";
    assert!(waits.text().contains(who), "{}", waits.text());
    let shown = status(&world, &daemon);
    assert_eq!((shown["revision"].as_str(), code(&shown)), (Some(all.as_str()), "FORGE-S007"));
    let wrong = apply(&world, &daemon, &["--prune", &all]).expect_code(1);
    assert!(wrong.stderr.contains(&few), "{}", wrong.stderr);

    // A restart is no way around it, and neither is another commit on top.
    assert_eq!(daemon.stop().code(), Some(0));
    let daemon = world.daemon();
    wait_for("it waits", || (code(&status(&world, &daemon)) == "FORGE-S007").then_some(()));
    let next = commit(&tree, "On top");
    apply(&world, &daemon, &["--prune", &few]).expect_code(1);
    assert_eq!(status(&world, &daemon)["revision"], all.as_str());
    apply(&world, &daemon, &["--prune", &next]).expect_code(0);
    assert_eq!(status(&world, &daemon)["revision"], next.as_str());
}

#[test]
fn a_folder_that_loses_most_of_it_waits_too_and_rights_go_at_once() {
    let world = World::new();
    templates(&world, 4);
    world.write("runners/ny-1.toml", "");
    for number in 0..4 {
        let (_, hash) = world.new_token();
        world.write(&format!("access/a{number}.toml"), &format!("hash = \"{hash}\"\nrole = \"viewer\"\n"));
    }
    let daemon = world.daemon();
    let first = status(&world, &daemon);
    for number in 0..4 {
        std::fs::remove_file(world.path("tree").join(format!("access/a{number}.toml"))).expect("removed");
    }
    apply(&world, &daemon, &[]).expect_code(0);
    let second = status(&world, &daemon);
    assert_ne!(second["revision"], first["revision"]);
    assert!(second["last_error"].is_null());

    std::fs::remove_file(world.path("tree/runners/ny-1.toml")).expect("removed");
    let waiting = wait_for("the last runner waits", || {
        Some(status(&world, &daemon)).filter(|status| code(status) == "FORGE-S007")
    });
    assert_eq!(waiting["revision"], second["revision"]);
    let revision = waiting["last_error"]["revision"].as_str().expect("a revision").to_owned();
    let meaningless = apply(&world, &daemon, &["--accept-rewrite", &revision]).expect_code(1);
    assert!(meaningless.stderr.contains("no history"), "{}", meaningless.stderr);
    apply(&world, &daemon, &["--prune", &revision]).expect_code(0);
    assert_eq!(status(&world, &daemon)["revision"], revision.as_str());

    // What is put back before anybody said anything is as if nothing had been.
    let before = world.path("before");
    std::fs::rename(world.path("tree/projects"), &before).expect("moved away");
    wait_for("it waits", || (code(&status(&world, &daemon)) == "FORGE-S007").then_some(()));
    std::fs::rename(&before, world.path("tree/projects")).expect("moved back");
    wait_for("nothing waits", || status(&world, &daemon)["last_error"].is_null().then_some(()));
    assert_eq!(status(&world, &daemon)["revision"], revision.as_str());
}

#[test]
fn what_happened_to_the_configuration_is_recorded_in_its_order() {
    let world = World::new();
    let first = repository(&world, "");
    let tree = world.path("tree");
    let daemon = world.daemon();
    world.write("projects/shop/templates/a.toml", "executor = 5\n");
    let broken = commit(&tree, "Break it");
    apply(&world, &daemon, &[]).expect_code(1);
    std::fs::remove_file(tree.join("projects/shop/templates/a.toml")).expect("removed");
    let mended = commit(&tree, "Mend it");
    apply(&world, &daemon, &[]).expect_code(0);
    let events = wait_for("three events", || {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let store = rusqlite::Connection::open_with_flags(world.path("data/forge.db"), flags).expect("the store");
        let mut statement = store.prepare("SELECT event, body FROM events ORDER BY id").expect("SQL");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
        let rows: Vec<(String, String)> = rows.map(|row| row.expect("a row")).collect();
        (rows.len() >= 3).then_some(rows)
    });
    let told: Vec<_> = events
        .iter()
        .map(|(event, body)| {
            let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
            (event.as_str(), body["config"]["revision"].as_str().unwrap_or_default().to_owned())
        })
        .collect();
    assert_eq!(told, [("config.applied", first), ("config.failed", broken), ("config.applied", mended)]);
    assert!(!events[1].1.contains("executor = 5"), "the user's own line stays where only admins look");
    assert!(daemon.process.stderr().contains("a revision of the configuration was refused"));
}

#[test]
fn the_daemons_identity_is_exchanged_without_a_restart() {
    let world = World::new();
    let file = identity(&world, "");
    let value = encrypted(&world, "shop", "hunter2");
    world.write("projects/shop/keys/door.toml", &format!("type = \"string\"\nvalue = {value}\n"));
    let daemon = world.daemon();
    let old = std::fs::read_to_string(&file).expect("the identity");
    let first = status(&world, &daemon);
    assert!(first["last_error"].is_null(), "{first:#}");

    // The tree comes first: encrypted to a recipient whose identity the daemon does not have yet.
    let next = world.path("next.age");
    let made = world.run(&["secret", "keygen", "--output", utf8(&next)]).expect_code(0);
    world.write("secrets.toml", &format!("recipients = [{:?}]\n", made.text().trim()));
    let value = encrypted(&world, "shop", "hunter3");
    world.write("projects/shop/keys/door.toml", &format!("type = \"string\"\nvalue = {value}\n"));
    let refused =
        wait_for("it does not open", || Some(status(&world, &daemon)).filter(|status| code(status) == "FORGE-C031"));
    let revision = refused["last_error"]["revision"].clone();

    // Then the identity, with the old one beside it: nothing else changes, and the same tree is looked at again.
    std::fs::write(&file, format!("{old}{}", std::fs::read_to_string(&next).expect("an identity"))).expect("written");
    daemon.process.signal("HUP");
    wait_for("it opens", || (status(&world, &daemon)["revision"] == revision).then_some(()));

    // At last the old one goes. Taking the new one away as well is noticed, and changes nothing that serves.
    std::fs::copy(&next, &file).expect("written");
    daemon.process.signal("HUP");
    let alone = apply(&world, &daemon, &[]).expect_code(0);
    assert!(alone.stderr.contains("serves"), "{}", alone.stderr);
    std::fs::write(&file, old).expect("written");
    daemon.process.signal("HUP");
    wait_for("it is noticed", || (code(&status(&world, &daemon)) == "FORGE-C031").then_some(()));
    assert_eq!(status(&world, &daemon)["revision"], revision);
}

//! The watched folder: however it changes, a good tree is applied once and whole, and a broken one changes nothing.

use std::os::unix::fs::symlink;

use crate::harness::{Place, Running, wait_for};

const APPLIED: &str = "forge_config_applied_total";

fn access(place: &Place) -> String {
    place.token("ann", "role = \"viewer\"")
}

async fn project_names(daemon: &Running, token: &str) -> Vec<String> {
    let list = daemon.get_json("/projects", token).await;
    let items = list["items"].as_array().expect("a list");
    items.iter().map(|item| item["name"].as_str().expect("a name").to_owned()).collect()
}

async fn has_project(daemon: &Running, token: &str, name: &str) -> Option<()> {
    project_names(daemon, token).await.iter().any(|project| project == name).then_some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_300_files_is_one_reload() {
    let place = Place::new();
    let token = access(&place);
    let daemon = place.start().await;
    let before = daemon.config(&token).await;
    assert_eq!(daemon.metric(APPLIED).await, 1);
    for number in 0..300 {
        place.put(&format!("projects/p{number}/project.toml"), "");
    }
    wait_for("the last of 300 projects", || has_project(&daemon, &token, "p299")).await;
    assert_eq!(daemon.get_json("/projects", &token).await["items"].as_array().map(Vec::len), Some(300));
    assert_eq!(daemon.metric(APPLIED).await, 2);
    let after = daemon.config(&token).await;
    assert_ne!(after.revision, before.revision);
    assert_eq!(after.revision.len(), 64);
    assert!(after.applied_at > before.applied_at);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn symlinks_swapped_as_kubernetes_does_are_followed() {
    let place = Place::new();
    let token = access(&place);
    let tree = place.tree();
    for (version, project) in [("..one", "old"), ("..two", "new")] {
        place.put(&format!("{version}/projects/{project}/project.toml"), "");
    }
    symlink("..one", tree.join("..data")).expect("linked");
    symlink("..data/projects", tree.join("projects")).expect("linked");
    let daemon = place.start().await;
    assert_eq!(project_names(&daemon, &token).await, ["old"]);
    symlink("..two", tree.join("..data_tmp")).expect("linked");
    std::fs::rename(tree.join("..data_tmp"), tree.join("..data")).expect("swapped");
    wait_for("the new project", || has_project(&daemon, &token, "new")).await;
    assert_eq!(project_names(&daemon, &token).await, ["new"]);
    // A change behind the new symlink is heard, too.
    place.put("..two/projects/newer/project.toml", "");
    wait_for("the newer project", || has_project(&daemon, &token, "newer")).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_removed_and_made_anew_is_applied_again() {
    let place = Place::new();
    let token = access(&place);
    place.put("projects/shop/project.toml", "");
    let daemon = place.start().await;
    let aside = place.folder().join("aside");
    std::fs::rename(place.tree(), &aside).expect("moved away");
    let failure = wait_for("the failure", || async { daemon.config(&token).await.last_error }).await;
    assert!(failure.diagnostics[0].message.contains("cannot be read"), "{failure:?}");
    assert_eq!(project_names(&daemon, &token).await, ["shop"], "the last good one serves");
    std::fs::create_dir(aside.join("projects/bank")).expect("made");
    std::fs::write(aside.join("projects/bank/project.toml"), "").expect("written");
    std::fs::rename(&aside, place.tree()).expect("moved back");
    // What SIGHUP does; without it the daemon looks by itself a moment later.
    daemon.reloader.reload().await;
    wait_for("the new project", || has_project(&daemon, &token, "bank")).await;
    assert_eq!(daemon.config(&token).await.last_error, None);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_tree_keeps_the_last_good_one_over_a_restart() {
    let place = Place::new();
    let token = access(&place);
    place.put("projects/shop/project.toml", "description = \"good\"\n");
    let daemon = place.start().await;
    let good = daemon.config(&token).await;
    place.put("projects/shop/project.toml", "description = 7\n");
    place.put("projects/bank/project.toml", "");
    let failure = wait_for("the failure", || async { daemon.config(&token).await.last_error }).await;
    let found = &failure.diagnostics[0];
    assert_eq!((found.file.as_str(), found.line), ("projects/shop/project.toml", 1), "{found:?}");
    assert_eq!(found.source_line, "description = 7");
    assert_eq!(daemon.config(&token).await.revision, good.revision);
    assert_eq!(project_names(&daemon, &token).await, ["shop"], "nothing of the broken tree serves");
    daemon.stop().await;

    let daemon = place.start().await;
    let status = daemon.config(&token).await;
    assert_eq!((&status.revision, status.applied_at), (&good.revision, good.applied_at));
    assert_eq!(status.last_error.map(|failure| failure.revision), Some(failure.revision));
    place.put("projects/shop/project.toml", "description = \"better\"\n");
    wait_for("the mended tree", || has_project(&daemon, &token, "bank")).await;
    assert_eq!(daemon.config(&token).await.last_error, None);
    let mended = daemon.config(&token).await;
    daemon.stop().await;

    let daemon = place.start().await;
    let status = daemon.config(&token).await;
    assert_eq!(status, mended, "a restart is no new application");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_first_tree_serves_an_empty_one_and_the_error() {
    let place = Place::new();
    let token = access(&place);
    place.put("projects/shop/project.toml", "description = [\n");
    let daemon = place.start().await;
    let status = daemon.local_config(&place).await;
    assert_eq!((status.revision.as_str(), status.applied_at), ("", None));
    assert!(!status.last_error.expect("the error").diagnostics.is_empty());
    assert_eq!(daemon.get("/projects", &token).await.status(), 401, "an empty tree knows no token");
    place.put("projects/shop/project.toml", "");
    wait_for("the mended tree", || async { (daemon.get("/projects", &token).await.status() == 200).then_some(()) })
        .await;
    assert_eq!(project_names(&daemon, &token).await, ["shop"]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revisions_plugins_lie_ready_before_it_serves() {
    let place = Place::new();
    let token = access(&place);
    let builtin = forge_plugin_builtins::get("shell").expect("the shell executor");
    let hash = ring::digest::digest(&ring::digest::SHA256, builtin.wasm);
    let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let daemon = place.start().await;
    assert!(!place.data().join(format!("plugins/{hex}.wasm")).exists());
    place.put("plugins/own.toml", &format!("source = \"plugins/own.wasm\"\nsha256 = \"{hex}\"\n"));
    std::fs::write(place.tree().join("plugins/own.wasm"), builtin.wasm).expect("written");
    place.put("projects/shop/project.toml", "");
    wait_for("the revision", || has_project(&daemon, &token, "shop")).await;
    let kept = std::fs::read(place.data().join(format!("plugins/{hex}.wasm"))).expect("kept");
    assert_eq!(kept, builtin.wasm);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_checked_without_a_daemon() {
    let place = Place::new();
    place.put("projects/shop/project.toml", "descripton = \"x\"\n");
    place.put("plugins/shell.toml", "source = \"builtin:shel\"\n");
    symlink("/etc", place.tree().join("outside")).expect("linked");
    let report = forge_daemon::check_folder(&place.tree(), Some(&place.settings())).expect("the host starts");
    let files: std::collections::BTreeSet<_> = report.diagnostics.iter().map(|found| found.file.as_str()).collect();
    assert!(report.has_errors());
    assert_eq!(files.into_iter().collect::<Vec<_>>(), ["outside", "plugins/shell.toml", "projects/shop/project.toml"]);
    assert!(report.summary().contains("3 errors"), "{}", report.summary());
}

//! The watched folder under the tools that write there: however many files they touch and in whatever way, one change is one reload.

use std::fs;
use std::os::unix::fs::symlink;

use crate::harness::{Place, Running, git, wait_for};

const APPLIED: &str = "forge_config_applied_total";
const FAILED: &str = "forge_config_failed_total";

/// How many files a burst has.
const FILES: usize = 1_000;

async fn descriptions(daemon: &Running, token: &str) -> Vec<String> {
    let list = daemon.get_json("/projects", token).await;
    let items = list["items"].as_array().expect("a list");
    items.iter().map(|item| item["description"].as_str().expect("a text").to_owned()).collect()
}

/// Waits until every project says this, and there are so many.
async fn all_say(daemon: &Running, token: &str, count: usize, text: &str) {
    wait_for(&format!("{count} projects say {text}"), || async {
        let found = descriptions(daemon, token).await;
        (found.len() == count && found.iter().all(|found| found == text)).then_some(())
    })
    .await;
}

fn write_all(place: &Place, text: &str) {
    for number in 0..FILES {
        place.put(&format!("projects/p{number}/project.toml"), &format!("description = \"{text}\"\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_a_thousand_files_is_one_reload() {
    let place = Place::new();
    let token = place.token("ann", "role = \"viewer\"");
    let daemon = place.start().await;
    assert_eq!(daemon.metric(APPLIED).await, 1);
    write_all(&place, "one");
    all_say(&daemon, &token, FILES, "one").await;
    assert_eq!(daemon.metric(APPLIED).await, 2);
    // As editors and configuration tools do it: each file beside its place, and then over it.
    for number in 0..FILES {
        let folder = place.tree().join(format!("projects/p{number}"));
        fs::write(folder.join(".project.toml.swp"), "description = \"two\"\n").expect("written");
        fs::rename(folder.join(".project.toml.swp"), folder.join("project.toml")).expect("renamed");
    }
    all_say(&daemon, &token, FILES, "two").await;
    assert_eq!((daemon.metric(APPLIED).await, daemon.metric(FAILED).await), (3, 0));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkout_of_a_thousand_files_is_one_reload() {
    let place = Place::new();
    let token = place.token("ann", "role = \"viewer\"");
    let tree = place.tree();
    git(&tree, &["init", "--quiet", "--initial-branch=one"]);
    write_all(&place, "one");
    git(&tree, &["add", "--all"]);
    git(&tree, &["commit", "--quiet", "--message=One"]);
    git(&tree, &["checkout", "--quiet", "-b", "two"]);
    write_all(&place, "two");
    git(&tree, &["commit", "--quiet", "--all", "--message=Two"]);
    let daemon = place.start().await;
    assert_eq!(daemon.metric(APPLIED).await, 1);
    let two = daemon.config(&token).await.revision;
    for (applied, branch) in [(2, "one"), (3, "two")] {
        git(&tree, &["checkout", "--quiet", branch]);
        all_say(&daemon, &token, FILES, branch).await;
        assert_eq!(daemon.metric(APPLIED).await, applied);
    }
    assert_eq!(daemon.config(&token).await.revision, two, "the same files are the same revision");
    assert_eq!(daemon.metric(FAILED).await, 0, "half of a checkout was taken for a tree");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkout_that_takes_long_is_one_reload_too() {
    let place = Place::new();
    let token = place.token("ann", "role = \"viewer\"");
    let tree = place.tree();
    let write = |text: &str| {
        for number in 0..8 {
            place.put(&format!("projects/p{number}/project.toml"), &format!("description = \"{text}\"\n"));
        }
    };
    git(&tree, &["init", "--quiet", "--initial-branch=one"]);
    // A disk that stalls in the middle, far longer than any burst's end is waited for.
    git(&tree, &["config", "filter.slow.smudge", "sleep 2; cat"]);
    place.put(".gitattributes", "projects/p4/* filter=slow\n");
    write("one");
    git(&tree, &["add", "--all"]);
    git(&tree, &["commit", "--quiet", "--message=One"]);
    git(&tree, &["checkout", "--quiet", "-b", "two"]);
    write("two");
    git(&tree, &["commit", "--quiet", "--all", "--message=Two"]);
    let daemon = place.start().await;
    git(&tree, &["checkout", "--quiet", "one"]);
    all_say(&daemon, &token, 8, "one").await;
    assert_eq!((daemon.metric(APPLIED).await, daemon.metric(FAILED).await), (2, 0), "half of a checkout was applied");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_map_of_a_thousand_files_is_swapped_in_one_reload() {
    let place = Place::new();
    let token = place.token("ann", "role = \"viewer\"");
    let tree = place.tree();
    for (version, text) in [("..one", "one"), ("..two", "two")] {
        for number in 0..FILES {
            let path = format!("{version}/projects/p{number}/project.toml");
            place.put(&path, &format!("description = \"{text}\"\n"));
        }
    }
    symlink("..one", tree.join("..data")).expect("linked");
    symlink("..data/projects", tree.join("projects")).expect("linked");
    let daemon = place.start().await;
    all_say(&daemon, &token, FILES, "one").await;
    symlink("..two", tree.join("..data_tmp")).expect("linked");
    fs::rename(tree.join("..data_tmp"), tree.join("..data")).expect("swapped");
    fs::remove_dir_all(tree.join("..one")).expect("removed");
    all_say(&daemon, &token, FILES, "two").await;
    assert_eq!((daemon.metric(APPLIED).await, daemon.metric(FAILED).await), (2, 0));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tree_itself_may_be_a_symlink_that_is_swapped() {
    let mut place = Place::new();
    let token = place.token("ann", "role = \"viewer\"");
    place.put("projects/shop/project.toml", "description = \"one\"\n");
    let (one, two, link) = (place.tree(), place.folder().join("two"), place.folder().join("current"));
    for folder in ["access", "projects/shop"] {
        fs::create_dir_all(two.join(folder)).expect("made");
    }
    fs::copy(one.join("access/ann.toml"), two.join("access/ann.toml")).expect("copied");
    fs::write(two.join("projects/shop/project.toml"), "description = \"two\"\n").expect("written");
    symlink(&one, &link).expect("linked");
    place.source = format!("path = {link:?}");
    let daemon = place.start().await;
    all_say(&daemon, &token, 1, "one").await;
    symlink(&two, place.folder().join("next")).expect("linked");
    fs::rename(place.folder().join("next"), &link).expect("swapped");
    all_say(&daemon, &token, 1, "two").await;
    // A change behind the new one is heard, and one behind the old one is nobody's business.
    fs::write(one.join("projects/shop/project.toml"), "description = \"old\"\n").expect("written");
    fs::write(two.join("projects/shop/project.toml"), "description = \"three\"\n").expect("written");
    all_say(&daemon, &token, 1, "three").await;
    assert_eq!((daemon.metric(APPLIED).await, daemon.metric(FAILED).await), (3, 0));
    daemon.stop().await;
}

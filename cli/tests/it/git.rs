//! Jobs from a real git repository.

use std::path::Path;
use std::process::Command;

use crate::harness::World;

/// A repository with `deploy.sh` on branch `main`; answers the commit.
pub(crate) fn repository(folder: &Path, script: &str) -> String {
    std::fs::create_dir_all(folder).expect("a folder");
    git(folder, &["init", "--quiet", "--initial-branch=main"]);
    commit(folder, script)
}

/// Commits `script` as `deploy.sh`; answers the commit.
pub(crate) fn commit(folder: &Path, script: &str) -> String {
    std::fs::write(folder.join("deploy.sh"), script).expect("a file");
    git(folder, &["add", "deploy.sh"]);
    git(folder, &["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "commit", "--quiet", "-m", "Deploy"]);
    git(folder, &["rev-parse", "HEAD"])
}

/// Runs git with nothing of the machine's configuration; answers what it prints.
pub(crate) fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .expect("git runs");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

fn world_with_repository(url: &str) -> World {
    let world = World::new();
    world.write("projects/shop/repositories/app.toml", &format!("url = {url:?}\nbranch = \"main\"\n"));
    world.write(
        "projects/shop/templates/deploy.toml",
        "executor = \"shell\"\nrepository = \"app\"\n[params]\nfile = \"deploy.sh\"\n",
    );
    world
}

/// Complaint 15 (same-template tasks share a checkout): the commit is the first attempt's, whatever the branch has become.
#[test]
fn a_script_runs_from_the_commit_at_the_branch_s_head_and_a_retry_keeps_it() {
    let world = World::new();
    let origin = world.path("origin");
    let first = repository(&origin, "echo \"first $FORGE_COMMIT\"\n");
    world.write(
        "projects/shop/repositories/app.toml",
        &format!("url = \"file://{}\"\nbranch = \"main\"\n", origin.display()),
    );
    world.write(
        "projects/shop/templates/deploy.toml",
        "executor = \"shell\"\nrepository = \"app\"\n[params]\nfile = \"deploy.sh\"\n",
    );
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let done = world.ask(&daemon, &["run", "shop/deploy"]).expect_code(0);
    assert!(done.text().contains(&format!("first {first}\n")), "{}", done.text());
    assert_eq!(world.task(&daemon, 1)["commit"], first.as_str());

    let second = commit(&origin, "echo \"second $FORGE_COMMIT\"\n");
    let done = world.ask(&daemon, &["run", "shop/deploy"]).expect_code(0);
    assert!(done.text().contains(&format!("second {second}\n")), "{}", done.text());

    world.ask(&daemon, &["task", "retry", "1"]).expect_code(0);
    let retried = crate::harness::wait_for("the retry has ended", || {
        let task = world.task(&daemon, 1);
        (task["attempt"] == 2 && task["state"] == "succeeded").then_some(task)
    });
    assert_eq!(retried["commit"], first.as_str(), "a retry keeps the commit");
    assert!(String::from_utf8_lossy(&world.log(&daemon, 1)).contains(&format!("first {first}\n")));
}

#[test]
fn a_repository_that_cannot_be_cloned_fails_the_task_with_git_s_own_words() {
    let world = world_with_repository("file:///nowhere/at/all.git");
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let done = world.ask(&daemon, &["run", "shop/deploy", "--output", "json"]).expect_code(1);
    let reason = done.json()["reason"].as_str().expect("a reason").to_owned();
    assert!(reason.contains("/nowhere/at/all.git") && reason.contains("does not"), "{reason}");
    assert!(done.stderr.contains("fatal:"), "git's words stand in the log: {}", done.stderr);
}

/// Complaint 15 (same-template tasks share a checkout): two tasks of one template at the same time, from one cache, each in a checkout
/// of its own.
#[test]
fn two_tasks_of_one_template_at_a_time_have_a_checkout_each() {
    let world = World::new();
    let barrier = world.path("barrier");
    std::fs::create_dir(&barrier).expect("a folder");
    let origin = world.path("origin");
    // Both write the same file, wait for one another, and then read what they wrote.
    let script = format!(
        "echo \"of $FORGE_TASK\" > mine; echo \"changed by $FORGE_TASK\" >> deploy.sh; : > {0}/$FORGE_TASK\n\
         until [ \"$(ls {0} | wc -l)\" -ge 2 ]; do sleep 0.02; done\n\
         cat mine; tail -n 1 deploy.sh; git status --short; exit\n",
        barrier.display()
    );
    repository(&origin, &script);
    world.write(
        "projects/shop/repositories/app.toml",
        &format!("url = \"file://{}\"\nbranch = \"main\"\n", origin.display()),
    );
    world.write(
        "projects/shop/templates/deploy.toml",
        "executor = \"shell\"\nrepository = \"app\"\nconcurrency = \"parallel\"\n[params]\nfile = \"deploy.sh\"\n",
    );
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let numbers = [world.start_task(&daemon, "deploy"), world.start_task(&daemon, "deploy")];
    for number in numbers {
        world.wait_state(&daemon, number, "succeeded");
        let log = String::from_utf8_lossy(&world.log(&daemon, number)).into_owned();
        let own: Vec<&str> = log.lines().filter(|line| !line.starts_with("[forge] ")).collect();
        let (mine, changed) = (format!("of {number}"), format!("changed by {number}"));
        assert_eq!(own, [&mine, &changed, " M deploy.sh", "?? mine"], "{log}");
    }
    let caches = std::fs::read_dir(world.path("ny-1/tmp/git")).expect("listed").flatten();
    let caches = caches.filter(|entry| entry.path().extension().is_some_and(|end| end == "git")).count();
    assert_eq!(caches, 1, "they were fetched once");
}

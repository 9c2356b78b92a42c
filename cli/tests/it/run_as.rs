//! `run_as`: jobs as a second user, who gets at nothing of the runner's and, with a range, at nothing of another attempt's. Real users and
//! processes: the stories need root; started as anyone else, they check that the runner says so.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use crate::git;
use crate::harness::{Daemon, Finished, World, utf8, wait_for};

/// A user that every Linux machine has.
const SECOND_USER: &str = "nobody";

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether a story can be told; where it cannot, that is said past the capture of a test's output.
fn is_root_or_says(story: &str) -> bool {
    if !is_root() {
        drop(writeln!(std::io::stderr(), "\nNOT TESTED without root: {story}"));
    }
    is_root()
}

fn set_mode(folder: &Path, mode: u32) {
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode)).expect("a folder of this user");
}

/// Lets everyone pass through a runner's folder and those above it in its world.
fn open_way(world: &World, runner: &str) {
    for folder in [world.path(""), world.path(runner)] {
        set_mode(&folder, 0o711);
    }
}

/// Registers a runner and writes `run_as` into its settings.
fn register_as(world: &World, daemon: &Daemon, name: &str, run_as: &str, more: &str) -> std::path::PathBuf {
    let settings = world.runner_settings(daemon, name, more);
    world.register(&settings).expect_code(0);
    let text = std::fs::read_to_string(&settings).expect("the settings");
    std::fs::write(&settings, format!("run_as = {run_as:?}\n{text}")).expect("written");
    settings
}

fn start_to_end(world: &World, settings: &Path) -> Finished {
    Finished::of(world.forge(&["runner", "--config", utf8(settings)]), b"")
}

#[test]
fn a_job_of_another_user_reads_and_changes_nothing_of_the_runner() {
    let world = World::new();
    let origin = world.path("origin");
    let tried = "token private.key tmp/daemon.key tmp/attempts tmp/git tmp/plugins tmp/lock";
    let script = format!(
        r#"
        echo "I am $(id -u) $USER"
        for path in {tried}; do
            (cat "$HERE/$path" || ls "$HERE/$path/") >/dev/null 2>&1 && echo "READ $path"
        done
        ls "$HERE/tmp/workspaces" >/dev/null 2>&1 && echo "LISTED"
        git log -1 --format='commit %H' && git status --short && echo "tree is whole"
        for object in .git/objects/*/*; do
            (echo bad >> "$object" || chmod u+w "$object") 2>/dev/null && echo "CHANGED $object"
        done
        echo made > made && cat made && echo kept > "$HOME/kept" && mktemp >/dev/null && echo "through a path" > /dev/stdout
        "#
    );
    let commit = git::repository(&origin, &script);
    let url = format!("url = \"file://{}\"\nbranch = \"main\"\n", origin.display());
    world.write("projects/shop/repositories/app.toml", &url);
    let here = world.path("ny-1");
    world.write("projects/shop/environments/here.toml", &format!("[env]\nHERE = {here:?}\n"));
    world.write(
        "projects/shop/templates/look.toml",
        "executor = \"shell\"\nrepository = \"app\"\nenvironment = \"here\"\n[params]\nfile = \"deploy.sh\"\n",
    );
    let daemon = world.daemon();
    let settings = register_as(&world, &daemon, "ny-1", "70000-70001", "");
    if !is_root() {
        let refused = start_to_end(&world, &settings).expect_code(1);
        assert!(refused.stderr.contains("run_as needs a runner that is started as root"), "{}", refused.stderr);
        return;
    }
    // No other user gets to a workspace in a folder that is closed to it.
    set_mode(&world.path(""), 0o700);
    let refused = start_to_end(&world, &settings).expect_code(1);
    assert!(refused.stderr.contains("the user forge-70000 cannot reach"), "{}", refused.stderr);
    assert!(refused.stderr.contains("chmod o+x"), "{}", refused.stderr);

    open_way(&world, "ny-1");
    let _runner = world.start_runner("ny-1");
    for (number, uid) in [(1, 70_000), (2, 70_001), (3, 70_000)] {
        let done = world.ask(&daemon, &["run", "shop/look"]);
        let text = done.text();
        assert_eq!(world.task(&daemon, number)["state"], "succeeded", "{text}{}", done.stderr);
        let expected = format!("I am {uid} forge-{uid}\ncommit {commit}\ntree is whole\nmade\nthrough a path\n");
        let own: String =
            text.lines().filter(|line| !line.starts_with("[forge] ")).map(|line| format!("{line}\n")).collect();
        assert_eq!(own, expected, "{text}");
    }
}

#[test]
fn attempts_of_a_range_cannot_reach_one_another_and_are_ended_like_any_other() {
    if !is_root_or_says("attempts of a range cannot reach one another and are ended like any other") {
        return;
    }
    let world = World::new();
    let proof = world.path("proof");
    std::fs::create_dir(&proof).expect("a folder");
    set_mode(&proof, 0o777);
    world.template(
        "hold",
        "concurrency = \"parallel\"",
        &format!(
            "trap '' TERM\necho mine > secret\n(setsid sleep 1000 & echo $! > {0}/sleeper.new; mv {0}/sleeper.new {0}/sleeper)\n\
             echo \"$FORGE_WORKSPACE $$\" > {0}/held.new; mv {0}/held.new {0}/held\nsleep 1000 & wait; wait",
            proof.display()
        ),
    );
    world.template(
        "look",
        "concurrency = \"parallel\"",
        &format!(
            "read -r other pid < {}/held\nls \"$other\" && echo LISTED\ncat \"$other/secret\" && echo READ\nkill -0 \"$pid\" && echo REACHED\n\
             cat \"/proc/$pid/environ\" >/dev/null && echo SEEN\necho looked",
            proof.display()
        ),
    );
    let daemon = world.daemon();
    register_as(&world, &daemon, "ny-1", "70100-70101", "");
    open_way(&world, "ny-1");
    let _runner = world.start_runner("ny-1");
    let holding = world.start_task(&daemon, "hold");
    let read = |name: &str| wait_for(name, || std::fs::read_to_string(proof.join(name)).ok());
    read("held");
    let sleeper: u32 = read("sleeper").trim().parse().expect("a number");

    let looked = world.ask(&daemon, &["run", "shop/look"]).expect_code(0);
    let text = looked.text();
    assert!(text.contains("looked\n"), "{text}");
    for word in ["LISTED", "READ", "REACHED", "SEEN"] {
        assert!(!text.contains(word), "{text}");
    }
    // The range has two users, so a third attempt waits for one of them.
    let shown = world.wait_runner(&daemon, "ny-1", "online");
    assert_eq!(shown["max_parallel_tasks"], 2, "{shown}");

    world.ask(&daemon, &["task", "cancel", &holding.to_string()]).expect_code(0);
    world.wait_state(&daemon, holding, "canceled");
    assert!(!crate::harness::is_alive(sleeper), "what the other user's job left is ended");
    let workspace = world.path(&format!("ny-1/tmp/workspaces/{holding}-1"));
    wait_for("the workspace is removed", || (!workspace.exists()).then_some(()));
}

#[test]
fn a_kept_workspace_stays_its_users_and_is_closed_to_other_jobs() {
    if !is_root_or_says("a kept workspace stays its users and is closed to other jobs") {
        return;
    }
    let world = World::new();
    world.template("fail", "", "echo mine > secret; mkdir d; touch d/x; chmod 500 d; exit 3");
    let kept = world.path("ny-1/tmp/kept");
    let at = kept.join("1-1");
    world.template(
        "look",
        "",
        &format!("ls {0}; ls {0}/1-1; cat {0}/1-1/secret && echo READ; echo looked", kept.display()),
    );
    let daemon = world.daemon();
    let settings = register_as(&world, &daemon, "ny-1", SECOND_USER, "");
    let text = std::fs::read_to_string(&settings).expect("the settings");
    std::fs::write(&settings, format!("keep_failed_workspaces = true\n{text}")).expect("written");
    open_way(&world, "ny-1");
    let runner = world.start_runner("ny-1");
    let failed = world.ask(&daemon, &["run", "shop/fail"]).expect_code(1).text();
    assert_eq!(failed.lines().last(), Some(format!("[forge] the workspace is kept: {}", at.display()).as_str()));
    assert!(at.join("d/x").is_file());
    let owner = |path: &Path| std::fs::metadata(path).expect("there").uid();
    let user = owner(&at.join("secret"));
    assert!(user != 0 && owner(&at) == user, "the files keep their owner");
    assert_eq!(owner(&kept), 0);
    // The same user's next job gets no further than any other's.
    let looked = world.ask(&daemon, &["run", "shop/look"]).expect_code(0).text();
    assert!(looked.contains("looked\n") && !looked.contains("mine") && !looked.contains("READ"), "{looked}");
    let said = runner.process.stderr();
    assert!(said.contains("is kept") && said.contains(utf8(&at)), "the runner's log names it: {said}");
}

#[test]
fn one_user_for_all_jobs_is_a_user_by_name_and_never_root() {
    if !is_root_or_says("one user for all jobs is a user by name and never root") {
        return;
    }
    let world = World::new();
    world.template("who", "", "id -un; id -u; echo \"$LOGNAME\"");
    let daemon = world.daemon();
    let settings = register_as(&world, &daemon, "ny-1", SECOND_USER, "");
    let text = std::fs::read_to_string(&settings).expect("the settings");
    for (written, says) in [("root", "as root"), ("no-such-user", "useradd --system no-such-user")] {
        std::fs::write(&settings, text.replace(SECOND_USER, written)).expect("written");
        let refused = start_to_end(&world, &settings).expect_code(1);
        assert!(refused.stderr.contains(says), "{}", refused.stderr);
    }
    std::fs::write(&settings, &text).expect("written");
    open_way(&world, "ny-1");
    let runner = world.start_runner("ny-1");
    let done = world.ask(&daemon, &["run", "shop/who"]).expect_code(0);
    let uid =
        String::from_utf8(std::process::Command::new("id").args(["-u", SECOND_USER]).output().expect("id").stdout);
    assert!(done.text().contains(&format!("{SECOND_USER}\n{}{SECOND_USER}\n", uid.expect("text"))), "{}", done.text());
    let warned = runner.process.stderr();
    assert!(warned.contains("max_parallel_tasks = 1"), "an operator is told what one user for all means: {warned}");
}

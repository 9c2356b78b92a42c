//! Checkouts from real repositories.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use forge_api::{AttemptOutcome, KeyMaterial, Repository, Secret};
use forge_runner::Settings;

use crate::Place;
use crate::git_server::{GitServer, LOGIN, PASSWORD};

fn git(folder: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"])
        .args(args)
        .current_dir(folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .expect("git runs");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn commit(folder: &Path, text: &str) -> String {
    std::fs::write(folder.join("version"), text).expect("written");
    git(folder, &["add", "."]);
    git(folder, &["commit", "--quiet", "-m", text]);
    git(folder, &["rev-parse", "HEAD"])
}

fn repository(url: String) -> Repository {
    Repository { name: "shop".to_owned(), url, branch: None, commit: None, submodules: false, depth: None, key: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn branches_pins_and_depths_are_checked_out() {
    let place = Place::registered().await;
    let origin = place.path("origin");
    std::fs::create_dir(&origin).expect("made");
    git(&origin, &["init", "--quiet"]);
    let first = commit(&origin, "one\n");
    let second = commit(&origin, "two\n");
    git(&origin, &["checkout", "--quiet", "-b", "side"]);
    let third = commit(&origin, "three\n");
    git(&origin, &["checkout", "--quiet", "main"]);
    let base = repository(format!("file://{}", origin.display()));
    let cases = [
        (base.clone(), &second, "two", "2"),
        (Repository { branch: Some("side".to_owned()), ..base.clone() }, &third, "three", "3"),
        (Repository { commit: Some(first.clone()), ..base.clone() }, &first, "one", "1"),
        (Repository { depth: Some(1), ..base.clone() }, &second, "two", "1"),
    ];
    let working = place.work();
    for (task, (repository, expected, text, history)) in (1..).zip(cases) {
        let script = "cd repository; cat version; git rev-list --count HEAD; git status --short; echo $FORGE_COMMIT";
        let mut job = place.job(task, &format!("cd \"$FORGE_WORKSPACE\"; {script}"));
        job.repository = Some(repository);
        place.daemon.queue(&job);
        let (result, log) = place.daemon.result(job.attempt).await;
        assert_eq!(result.outcome, AttemptOutcome::Succeeded, "{result:?}\n{log}");
        assert_eq!(result.commit.as_ref(), Some(expected));
        let lines: Vec<&str> = log.lines().filter(|line| !line.starts_with("[forge] ")).collect();
        assert_eq!(lines, [text, history, expected], "{log}");
        assert_eq!(place.daemon.seen.lock().expect("free").commits.get(&job.attempt), Some(expected));
    }
    working.drained().await.expect("it ends");
}

/// Complaint 20 (a git URL runs a command): a URL that is an option or a program is refused, and starts nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_cannot_be_had_fails_the_attempt_in_gits_own_words() {
    let place = Place::registered().await;
    let working = place.work();
    let marker = place.path("marker");
    let cases = [
        (format!("file://{}", place.path("nowhere").display()), "does not appear to be a git repository"),
        (format!("ext::sh -c touch% {}", marker.display()), "is refused"),
        (format!("--upload-pack=touch {}", marker.display()), "is refused"),
    ];
    for (task, (url, words)) in (1..).zip(cases) {
        let mut job = place.job(task, "true");
        job.repository = Some(repository(url));
        place.daemon.queue(&job);
        let (result, log) = place.daemon.result(job.attempt).await;
        assert_eq!(result.outcome, AttemptOutcome::Failed);
        let reason = result.reason.unwrap_or_default();
        assert!(reason.contains(words) && log.contains(words), "{reason}\n{log}");
    }
    assert!(!marker.exists(), "a URL started a program");
    working.drained().await.expect("it ends");
}

/// A repository with one commit.
fn origin(place: &Place, name: &str) -> PathBuf {
    let origin = place.path(name);
    std::fs::create_dir_all(&origin).expect("made");
    git(&origin, &["init", "--quiet"]);
    commit(&origin, "one\n");
    origin
}

/// What lies beside a runner's caches and in them, with the given end.
fn caches(place: &Place, end: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(place.path("tmp/git")).expect("listed").map(|entry| entry.expect("one").path());
    entries.filter(|path| path.extension().is_some_and(|found| found == end)).collect()
}

/// The only cache of a runner, with the given end.
fn cache(place: &Place, end: &str) -> PathBuf {
    let mut all = caches(place, end);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_projects_share_no_cache_of_one_url() {
    let place = Place::registered().await;
    let working = place.work();
    let origin = origin(&place, "origin");
    git(&origin, &["checkout", "--quiet", "-b", "side"]);
    let of_side = commit(&origin, "two\n");
    git(&origin, &["checkout", "--quiet", "main"]);
    let base = repository(format!("file://{}", origin.display()));
    let script = format!(
        "cd \"$FORGE_WORKSPACE/repository\"; cat .git/objects/info/alternates; git cat-file -e {of_side} 2>/dev/null; echo $?"
    );
    let run = async |task: u64, project: &str, branch: &str| {
        let mut job = place.job(task, &script);
        job.project = project.to_owned();
        job.repository = Some(Repository { branch: Some(branch.to_owned()), ..base.clone() });
        place.daemon.queue(&job);
        let (result, log) = place.daemon.result(job.attempt).await;
        assert_eq!(result.outcome, AttemptOutcome::Succeeded, "{result:?}\n{log}");
        let own: Vec<&str> = log.lines().filter(|line| !line.starts_with("[forge] ")).collect();
        let [alternates, status] = own[..] else { panic!("{log}") };
        (alternates.to_owned(), status == "0")
    };
    let (of_shop, has_side) = run(1, "shop", "side").await;
    assert!(has_side);
    let (of_bank, has_side) = run(2, "bank", "main").await;
    assert_ne!(of_shop, of_bank, "a project reads what another one fetched");
    assert!(!has_side, "what only the other project fetched can be read");
    let (again, has_side) = run(3, "shop", "main").await;
    assert_eq!(of_shop, again, "one project's tasks share one");
    assert!(has_side);
    assert_eq!(caches(&place, "git").len(), 2);
    working.drained().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_does_not_wait_for_another_attempts_fetch() {
    let place = Place::registered().await;
    let working = place.work();
    let url = format!("file://{}", origin(&place, "origin").display());
    let mut first = place.job(1, "true");
    first.repository = Some(repository(url.clone()));
    place.daemon.queue(&first);
    place.daemon.result(first.attempt).await;
    let lock = std::fs::File::options().write(true).open(cache(&place, "lock")).expect("opened");
    lock.lock().expect("locked");
    let mut second = place.job(2, "true");
    second.repository = Some(repository(url));
    place.daemon.queue(&second);
    let is_told = |log: &Vec<u8>| String::from_utf8_lossy(log).contains("[forge] waiting for another task");
    place.daemon.wait("its words", |seen| seen.logs.get(&second.attempt).filter(|log| is_told(log)).map(drop)).await;
    place.daemon.cancel(second.attempt);
    let (result, _) = place.daemon.result(second.attempt).await;
    assert_eq!(result.outcome, AttemptOutcome::Canceled, "{result:?}");
    working.drained().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_locks_of_a_git_that_was_killed_hold_nobody() {
    let place = Place::registered().await;
    let working = place.work();
    let origin = origin(&place, "origin");
    let shallow = Repository { depth: Some(1), ..repository(format!("file://{}", origin.display())) };
    let mut first = place.job(1, "true");
    first.repository = Some(shallow.clone());
    place.daemon.queue(&first);
    place.daemon.result(first.attempt).await;
    let cache = cache(&place, "git");
    for left in ["shallow.lock", "refs/forge/HEAD.lock"] {
        std::fs::write(cache.join(left), "").expect("written");
    }
    let newest = commit(&origin, "two\n");
    let mut second = place.job(2, "true");
    second.repository = Some(shallow);
    place.daemon.queue(&second);
    let (result, log) = place.daemon.result(second.attempt).await;
    assert_eq!(result.outcome, AttemptOutcome::Succeeded, "{result:?}\n{log}");
    assert_eq!(result.commit, Some(newest));
    working.drained().await.expect("it ends");
}

/// Adds a submodule without asking whether it is there.
fn add_submodule(origin: &Path, name: &str, url: &str, commit: &str) {
    let file = origin.join(".gitmodules");
    let known = std::fs::read_to_string(&file).unwrap_or_default();
    std::fs::write(&file, format!("{known}[submodule \"{name}\"]\n\tpath = {name}\n\turl = {url}\n")).expect("written");
    git(origin, &["add", ".gitmodules"]);
    git(origin, &["update-index", "--add", "--cacheinfo", &format!("160000,{commit},{name}")]);
    git(origin, &["commit", "--quiet", "-m", name]);
}

/// Complaint 20 (a git URL runs a command): what a repository names as its submodules starts no program and reads nothing of this
/// machine, also where the repository itself lies on it, and whatever git's own configuration allows.
#[tokio::test(flavor = "multi_thread")]
async fn submodules_start_no_program_and_reach_nothing_of_this_machine() {
    let place = Place::registered().await;
    // A git that allows everything, so that nothing but the runner's own list stands in the way.
    let client = place.path("git-that-allows-all");
    let allows = ["protocol.allow", "protocol.ext.allow", "protocol.file.allow"].map(|key| format!("-c {key}=always"));
    std::fs::write(&client, format!("#!/bin/sh\nexec git {} \"$@\"\n", allows.join(" "))).expect("written");
    std::fs::set_permissions(&client, std::fs::Permissions::from_mode(0o755)).expect("a program");
    let marker = place.path("marker");
    let library = origin(&place, "library");
    let commit = git(&library, &["rev-parse", "HEAD"]);
    let cases = [
        ("by-program", format!("ext::sh -c touch% {}", marker.display()), "transport 'ext' not allowed"),
        ("by-file", format!("file://{}", library.display()), "transport 'file' not allowed"),
        ("by-path", library.display().to_string(), "transport 'file' not allowed"),
        ("relative", "../library".to_owned(), "transport 'file' not allowed"),
    ];
    let working = place.work_as(Settings { git_client: client.display().to_string(), ..place.settings.clone() });
    for (task, (name, url, words)) in (1..).zip(cases) {
        let origin = origin(&place, name);
        add_submodule(&origin, "lib", &url, &commit);
        // Without the runner's list the submodule does what it is made for.
        let trial = place.path(&format!("trial-{name}"));
        let clone = ["clone", "--quiet", "--recurse-submodules", "--"].map(str::to_owned);
        let output = Command::new(&client)
            .args(clone)
            .args([origin.as_os_str(), trial.as_os_str()])
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .expect("git runs");
        let is_bitten = marker.exists() || trial.join("lib/version").exists();
        assert!(is_bitten, "{name}: the trap is none: {}", String::from_utf8_lossy(&output.stderr));
        if marker.exists() {
            std::fs::remove_file(&marker).expect("removed");
        }

        let mut job = place.job(task, "cat \"$FORGE_WORKSPACE\"/repository/lib/version");
        job.repository = Some(Repository { submodules: true, ..repository(format!("file://{}", origin.display())) });
        place.daemon.queue(&job);
        let (result, log) = place.daemon.result(job.attempt).await;
        assert_eq!(result.outcome, AttemptOutcome::Failed, "{name}: {result:?}\n{log}");
        let reason = result.reason.unwrap_or_default();
        assert!(reason.contains(words), "{name}: {reason}");
        assert!(reason.contains("over https:// or ssh:// only"), "{name}: it says what to do: {reason}");
        assert!(!marker.exists(), "{name}: a submodule started a program");
    }
    working.drained().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_repository_is_had_with_its_password_and_its_submodules() {
    let place = Place::registered().await;
    let server = GitServer::start(&place.path("served"), &place.path("git.pem")).await;
    let stranger = GitServer::start(&place.path("served"), &place.path("stranger.pem")).await;
    let both = [&server, &stranger].map(|server| std::fs::read_to_string(&server.certificate).expect("read")).concat();
    let certificates = place.path("both.pem");
    std::fs::write(&certificates, both).expect("written");
    let library = origin(&place, "served/library");
    let commit = git(&library, &["rev-parse", "HEAD"]);
    let own = origin(&place, "served/own");
    add_submodule(&own, "lib", "../library", &commit);
    let foreign = origin(&place, "served/foreign");
    add_submodule(&foreign, "lib", &format!("{}/library", stranger.url), &commit);
    let local = origin(&place, "served/local");
    add_submodule(&local, "lib", &format!("file://{}", library.display()), &commit);
    let _runner = place.apart(&[("GIT_SSL_CAINFO", &certificates)]);
    let key = KeyMaterial::LoginPassword { login: LOGIN.to_owned(), password: Secret::new(format!("{PASSWORD}\n")) };
    let wrong = KeyMaterial::LoginPassword { login: LOGIN.to_owned(), password: Secret::new("wrong-word") };
    let over_https = |name: &str, key: &KeyMaterial| Repository {
        submodules: true,
        key: Some(key.clone()),
        ..repository(format!("{}/{name}", server.url))
    };
    let cases = [
        (over_https("own", &key), Ok(())),
        (over_https("own", &wrong), Err("Authentication failed")),
        (over_https("foreign", &key), Err("could not read Username")),
        (over_https("local", &key), Err("transport 'file' not allowed")),
    ];
    for (task, (repository, expected)) in (1..).zip(cases) {
        let mut job = place.job(task, "cat \"$FORGE_WORKSPACE\"/repository/lib/version");
        job.repository = Some(repository);
        place.daemon.queue(&job);
        let (result, log) = place.daemon.result(job.attempt).await;
        match expected {
            Ok(()) => assert!(log.ends_with("\none\n"), "{result:?}\n{log}"),
            Err(words) => {
                assert_eq!(result.outcome, AttemptOutcome::Failed);
                assert!(log.contains(words), "{log}");
            }
        }
        assert!(!log.contains(PASSWORD), "{log}");
    }
    assert!(!server.credentials.lock().expect("free").is_empty());
    assert_eq!(
        *stranger.credentials.lock().expect("free"),
        [] as [String; 0],
        "a password goes to its own server only"
    );
}

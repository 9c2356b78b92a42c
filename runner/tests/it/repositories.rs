//! Checkouts from real repositories.

use std::path::Path;
use std::process::Command;

use forge_api::{AttemptOutcome, KeyMaterial, Repository, Secret};
use fs4::fs_std::FileExt as _;

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

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_cannot_be_had_fails_the_attempt_in_gits_own_words() {
    let place = Place::registered().await;
    let working = place.work();
    let cases = [
        (format!("file://{}", place.path("nowhere").display()), "does not appear to be a git repository"),
        ("ext::sh -c touch% /tmp/x".to_owned(), "is refused"),
        ("--upload-pack=touch".to_owned(), "is refused"),
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
    working.drained().await.expect("it ends");
}

/// A repository with one commit.
fn origin(place: &Place, name: &str) -> std::path::PathBuf {
    let origin = place.path(name);
    std::fs::create_dir_all(&origin).expect("made");
    git(&origin, &["init", "--quiet"]);
    commit(&origin, "one\n");
    origin
}

/// The only cache of a runner, with the given end.
fn cache(place: &Place, end: &str) -> std::path::PathBuf {
    let mut entries = std::fs::read_dir(place.path("tmp/git")).expect("listed").map(|entry| entry.expect("one").path());
    entries.find(|path| path.extension().is_some_and(|found| found == end)).expect("a cache")
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
    lock.lock_exclusive().expect("locked");
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

#[tokio::test(flavor = "multi_thread")]
async fn a_private_repository_is_had_with_its_password_and_its_submodules() {
    let place = Place::registered().await;
    let Some(server) = GitServer::start(&place.path("served"), &place.path("git.pem")).await else {
        // This git came without its server.
        return;
    };
    let stranger = GitServer::start(&place.path("served"), &place.path("stranger.pem")).await.expect("a server");
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
    let from_disk = Repository { submodules: true, ..repository(format!("file://{}", local.display())) };
    let cases = [
        (over_https("own", &key), Ok(())),
        (from_disk, Ok(())),
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

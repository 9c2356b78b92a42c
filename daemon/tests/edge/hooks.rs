//! `POST /hooks/config`: whoever knows the secret has the repository fetched at once, and nobody else.

use ring::hmac;

use crate::harness::{Place, Running, git, problem, wait_for};

const SECRET: &str = "a secret of the git server";

/// A place whose tree is a repository that nothing but a hook has fetched again.
fn place() -> (Place, String) {
    let mut place = Place::new();
    let token = place.token("ann", "role = \"viewer\"");
    let tree = place.tree();
    git(&tree, &["init", "--quiet", "--initial-branch=main"]);
    commit(&place);
    let secret = place.folder().join("hook-secret");
    std::fs::write(&secret, format!("{SECRET}\n")).expect("written");
    place.source =
        format!("git = \"file://{}\"\npoll_interval = \"24h\"\nhook_secret_file = {secret:?}", tree.display());
    (place, token)
}

fn commit(place: &Place) -> String {
    git(&place.tree(), &["add", "--all"]);
    git(&place.tree(), &["commit", "--quiet", "--allow-empty", "--message=Push"]);
    git(&place.tree(), &["rev-parse", "HEAD"])
}

fn mac(secret: &str, text: &str) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), text.as_bytes());
    tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn now_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs()
}

async fn serves(daemon: &Running, token: &str, revision: &str) {
    wait_for("the push serves", || async { (daemon.config(token).await.revision == revision).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_git_servers_way_to_prove_itself_has_the_push_applied() {
    let (place, token) = place();
    let daemon = place.start().await;
    // Longer than one read of the connection, since it is hashed as it comes.
    let body = format!("{{\"ref\":\"refs/heads/main\",\"padding\":\"{}\"}}", "x".repeat(200_000));
    let (github, moment) = (format!("sha256={}", mac(SECRET, &body)), now_s());
    let forge = format!("t={moment},v1={}", mac(SECRET, &format!("{moment}.{body}")));
    for (header, value) in
        [("X-Hub-Signature-256", github.as_str()), ("X-Gitlab-Token", SECRET), ("Forge-Signature", &forge)]
    {
        let pushed = commit(&place);
        let answer = daemon.post("/hooks/config").header(header, value).body(body.clone()).send().await;
        assert_eq!(answer.expect("an answer").status(), 202, "{header}");
        serves(&daemon, &token, &pushed).await;
    }
    // A new secret counts at once.
    std::fs::write(place.folder().join("hook-secret"), "another").expect("written");
    let old = daemon.post("/hooks/config").header("X-Gitlab-Token", SECRET).send().await.expect("an answer");
    assert_eq!(old.status(), 401);
    let new = daemon.post("/hooks/config").header("X-Gitlab-Token", "another").send().await.expect("an answer");
    assert_eq!(new.status(), 202);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_know_the_secret_is_refused_and_soon_not_heard_any_more() {
    let (place, token) = place();
    let daemon = place.start().await;
    let before = daemon.config(&token).await;
    commit(&place);
    let body = "{}";
    let stale = now_s() - 3_600;
    let wrong = [
        ("X-Hub-Signature-256", format!("sha256={}", mac("guessed", body))),
        ("X-Hub-Signature-256", format!("sha256={}", mac(SECRET, "another body"))),
        ("X-Hub-Signature", format!("sha1={}", mac(SECRET, body))),
        ("X-Gitlab-Token", "guessed".to_owned()),
        ("Forge-Signature", format!("t={stale},v1={}", mac(SECRET, &format!("{stale}.{body}")))),
        ("Forge-Signature", format!("t={},v1={}", now_s(), mac(SECRET, body))),
        ("Authorization", format!("Bearer {SECRET}")),
    ];
    for (header, value) in &wrong {
        let answer = daemon.post("/hooks/config").header(*header, value).body(body).send().await.expect("an answer");
        let problem = problem(answer).await;
        assert_eq!(problem.status, 401, "{header}: {value}");
        assert!(problem.hint.is_some_and(|hint| hint.contains("hook_secret_file")));
    }
    let blocked = wait_for("too many", || async {
        let answer = daemon.post("/hooks/config").header("X-Gitlab-Token", "guessed").send().await.expect("an answer");
        (answer.status() == 429).then_some(answer)
    })
    .await;
    assert!(blocked.headers().contains_key("retry-after"));
    let blocked = daemon.post("/hooks/config").header("X-Gitlab-Token", SECRET).send().await.expect("an answer");
    assert_eq!(blocked.status(), 429, "an address that guesses is not listened to, whatever it says next");
    assert_eq!(daemon.config(&token).await.fetched_at, before.fetched_at, "nothing was fetched");
    // Others behind its address who sign are heard: a signature is not guessed.
    let pushed = commit(&place);
    let signed = format!("sha256={}", mac(SECRET, body));
    let heard = daemon.post("/hooks/config").header("X-Hub-Signature-256", signed).body(body).send().await;
    assert_eq!(heard.expect("an answer").status(), 202);
    serves(&daemon, &token, &pushed).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_secret_there_is_no_hook_and_an_empty_one_keeps_the_daemon_from_starting() {
    let place = Place::new();
    let daemon = place.start().await;
    let answer = daemon.post("/hooks/config").header("X-Gitlab-Token", "").send().await.expect("an answer");
    let problem = problem(answer).await;
    assert_eq!(problem.status, 404);
    assert!(problem.hint.is_some_and(|hint| hint.contains("hook_secret_file")));
    daemon.stop().await;

    let (place, _token) = self::place();
    std::fs::write(place.folder().join("hook-secret"), " \n").expect("written");
    let error = place.try_start().await.err().expect("refused");
    assert!(error.to_string().contains("hook_secret_file"), "{error}");
    assert!(error.hint().is_some());
}

//! Registering: once, again, and every way to fail before and after the daemon is asked.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use forge_api::Secret;
use forge_runner::{RegisterError, Settings, register, unregister};

use crate::Place;
use crate::daemon::{REGISTRATION_TOKEN, RUNNER_TOKEN};

fn token() -> Secret {
    Secret::new(REGISTRATION_TOKEN)
}

#[tokio::test]
async fn registering_again_keeps_the_key_and_leaving_removes_the_token() {
    let place = Place::new().await;
    let registered = register(&place.settings, token()).await.expect("registered");
    assert_eq!((registered.name.as_str(), registered.tags), ("east-1", vec!["east".to_owned()]));
    let key = fs::read(&place.settings.private_key_file).expect("a key");
    assert_eq!(fs::read_to_string(&place.settings.token_file).expect("a token").trim(), RUNNER_TOKEN);
    for file in [&place.settings.token_file, &place.settings.private_key_file, &place.path("tmp/daemon.key")] {
        assert_eq!(fs::metadata(file).expect("there").permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
    register(&place.settings, token()).await.expect("registered again");
    assert_eq!(fs::read(&place.settings.private_key_file).expect("a key"), key);
    unregister(&place.settings).await.expect("left");
    assert!(!place.settings.token_file.exists());
    assert!(unregister(&place.settings).await.expect_err("left already").to_string().contains("not registered"));
}

#[tokio::test]
async fn what_is_wrong_here_is_said_before_the_daemon_is_asked() {
    let place = Place::new().await;
    let missing = Settings { token_file: place.path("nowhere/token"), ..place.settings.clone() };
    let error = register(&missing, token()).await.expect_err("no folder").to_string();
    assert!(error.contains("token_file") && error.contains("mkdir -p"), "{error}");
    fs::write(&place.settings.private_key_file, "AGE-SECRET-KEY-1\n").expect("written");
    fs::set_permissions(&place.settings.private_key_file, fs::Permissions::from_mode(0o644)).expect("opened");
    let error = register(&place.settings, token()).await.expect_err("readable").to_string();
    assert!(error.contains("chmod 600"), "{error}");
    fs::set_permissions(&place.settings.private_key_file, fs::Permissions::from_mode(0o600)).expect("closed");
    let error = register(&place.settings, token()).await.expect_err("garbled").to_string();
    assert!(error.contains("no age identity"), "{error}");
    assert!(place.daemon.seen.lock().expect("free").public_key.is_empty(), "the daemon was not asked");
}

#[tokio::test]
async fn the_daemons_words_are_shown() {
    let place = Place::new().await;
    let error = register(&place.settings, Secret::new("wrong")).await.expect_err("a wrong token");
    assert!(matches!(error, RegisterError::Token { .. }), "{error}");
    register(&place.settings, token()).await.expect("registered");
    let stranger = Settings { private_key_file: place.path("other.key"), ..place.settings.clone() };
    let error = register(&stranger, token()).await.expect_err("a taken name");
    assert!(error.to_string().contains("forge runners remove east-1"), "{error}");
    let nobody = Settings { web_host: "https://127.0.0.1:1".to_owned(), ..place.settings.clone() };
    let error = register(&nobody, token()).await.expect_err("nobody there").to_string();
    assert!(error.contains("is the daemon running at https://127.0.0.1:1?"), "{error}");
    let plain = Settings { web_host: "http://forge.example.com".to_owned(), ..place.settings.clone() };
    let error = register(&plain, token()).await.expect_err("plain").to_string();
    assert!(error.contains("https://"), "{error}");
    let tls = Settings { web_host: place.daemon.address.replace("http:", "https:"), ..place.settings.clone() };
    let error = register(&tls, token()).await.expect_err("no TLS there").to_string();
    assert!(error.contains("plain HTTP"), "{error}");
}

//! Secrets of the tree: made and opened by hand, kept to their project, and seen by the job alone.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use forge_runner::trust::{Trust, http_client};

use crate::harness::{Daemon, Finished, World, utf8, wait_for};

/// Makes an identity for the world's daemon, lists its recipient in the tree, and writes forge.toml with it and `more`.
pub(crate) fn identity(world: &World, more: &str) -> PathBuf {
    let file = world.path("identity.age");
    let made = world.run(&["secret", "keygen", "--output", utf8(&file)]).expect_code(0);
    world.write("secrets.toml", &format!("recipients = [{:?}]\n", made.text().trim()));
    world.daemon_settings(&format!("[secrets]\nidentity_file = {file:?}\n{more}"));
    file
}

/// A value as the tree takes it, encrypted by `forge secret encrypt` for the recipients of the world's tree.
pub(crate) fn encrypted(world: &World, project: &str, value: &str) -> String {
    let command = world.forge(&["secret", "encrypt", "--project", project, "tree"]);
    Finished::of(command, value.as_bytes()).expect_code(0).text().trim_end().to_owned()
}

#[test]
fn a_value_is_encrypted_for_one_project_and_decrypted_again() {
    let world = World::new();
    let file = identity(&world, "");
    let mode = std::fs::metadata(&file).expect("the identity").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let again = world.run(&["secret", "keygen", "--output", utf8(&file)]).expect_code(1).stderr;
    assert!(again.contains("identity.age") && again.contains("never overwritten"), "{again}");
    let shown = world.run(&["secret", "keygen"]).expect_code(0);
    assert!(shown.text().contains("AGE-SECRET-KEY-1") && shown.stderr.contains("age1"), "{}", shown.text());

    let value = "hunter2 \"quoted\"\nline two";
    let toml = encrypted(&world, "shop", &format!("{value}\n"));
    assert!(toml.starts_with("{ age = \"\"\"\n-----BEGIN AGE") && toml.ends_with("\"\"\" }"), "{toml}");
    let decrypt = |identity: &Path, project: &str, text: &str| {
        let arguments = ["secret", "decrypt", "--identity", utf8(identity), "--project", project];
        Finished::of(world.forge(&arguments), text.as_bytes())
    };
    assert_eq!(decrypt(&file, "shop", &toml).expect_code(0).text(), value, "the last line feed is no part of it");

    let other = decrypt(&file, "bank", &toml).expect_code(1);
    assert!(other.stderr.contains("another project than bank") && other.text().is_empty(), "{}", other.stderr);
    let stranger = world.path("stranger.age");
    world.run(&["secret", "keygen", "--output", utf8(&stranger)]).expect_code(0);
    let locked = decrypt(&stranger, "shop", &toml).expect_code(1).stderr;
    assert!(locked.contains("does not open the value") && locked.contains("secrets.toml"), "{locked}");
    let none = decrypt(&file, "shop", "nothing").expect_code(1).stderr;
    assert!(none.contains("no whole age value"), "{none}");
}

#[test]
fn a_command_line_that_cannot_encrypt_says_what_to_write() {
    let world = World::new();
    let encrypt = |arguments: &[&str], stdin: &str| {
        Finished::of(world.forge(&[&["secret", "encrypt"], arguments].concat()), stdin.as_bytes())
    };
    let without = encrypt(&["--project", "shop", "tree"], "x").expect_code(1).stderr;
    assert!(without.contains("tree/secrets.toml") && without.contains("--recipient"), "{without}");
    let identity_as_recipient = world.run(&["secret", "keygen"]).expect_code(0).text();
    let key =
        identity_as_recipient.lines().find(|line| line.starts_with("AGE-SECRET")).expect("an identity").to_owned();
    let wrong = encrypt(&["--project", "shop", "--recipient", &key], "x").expect_code(2).stderr;
    assert!(wrong.contains("private half") && !wrong.contains(&key), "{wrong}");
    let recipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    let empty = encrypt(&["--project", "shop", "--recipient", recipient], "\n").expect_code(1).stderr;
    assert!(empty.contains("stdin holds no value"), "{empty}");
    let name = encrypt(&["--project", "Shop!", "--recipient", recipient], "x").expect_code(2).stderr;
    assert!(name.contains("Shop!"), "{name}");
    let typed = encrypt(&["--project", "shop", "--recipient", recipient], "x").expect_code(0);
    assert!(typed.text().contains("BEGIN AGE"), "{}", typed.stderr);

    world.write("secrets.toml", "recipients = [\"age1qqqq\"]\n");
    let listed = encrypt(&["--project", "shop", "tree"], "x").expect_code(1).stderr;
    assert!(listed.contains("secrets.toml:1:15") && listed.contains("no age recipient"), "{listed}");
    let checked = world.run(&["config", "check", "tree"]).expect_code(1).stderr;
    assert!(checked.contains("secrets.toml:1:15"), "{checked}");
}

#[test]
fn a_value_of_another_project_or_for_others_is_refused_with_file_and_line() {
    let world = World::new();
    identity(&world, "");
    let own = encrypted(&world, "shop", "hunter2");
    world.write("projects/shop/keys/own.toml", &format!("type = \"string\"\nvalue = {own}\n"));
    world.template("hello", "", "echo hello");
    world.run(&["config", "check", "tree", "--config", "forge.toml"]).expect_code(0);
    let daemon = world.daemon();
    let status = || world.ask(&daemon, &["config", "status", "--output", "json"]).expect_code(0).json();
    let first = status();
    assert!(first["last_error"].is_null(), "{first}");

    // The value of shop, pasted into bank.
    world.write("projects/bank/project.toml", "");
    world.write("projects/bank/keys/stolen.toml", &format!("type = \"string\"\nvalue = {own}\n"));
    let refused = world.run(&["config", "check", "tree", "--config", "forge.toml"]).expect_code(1).stderr;
    assert!(
        refused.contains("projects/bank/keys/stolen.toml:2:9")
            && refused.contains("another project")
            && refused.contains("forge secret encrypt --project bank"),
        "{refused}"
    );
    let failed = wait_for("the pasted value is refused", || {
        let status = status();
        status["last_error"]["diagnostics"][0].is_object().then_some(status)
    });
    assert_eq!(failed["revision"], first["revision"], "the last good revision serves");
    let found = &failed["last_error"]["diagnostics"][0];
    assert_eq!((found["file"].as_str(), found["line"].as_u64()), (Some("projects/bank/keys/stolen.toml"), Some(2)));
    world.run(&["config", "check", "tree"]).expect_code(0);

    // A value for somebody else.
    let stranger = world.run(&["secret", "keygen", "--output", utf8(&world.path("stranger.age"))]).expect_code(0);
    let arguments =
        ["secret", "encrypt", "--project", "bank", "--recipient", stranger.text().trim()].map(str::to_owned);
    let command = world.forge(&arguments.each_ref().map(String::as_str));
    let foreign = Finished::of(command, b"hunter2").expect_code(0).text();
    world.write("projects/bank/keys/stolen.toml", &format!("type = \"string\"\nvalue = {foreign}\n"));
    let found = wait_for("the foreign value is refused", || {
        let found = status()["last_error"]["diagnostics"][0].clone();
        found["message"].as_str().is_some_and(|text| text.contains("encrypted to others")).then_some(found)
    });
    assert_eq!((found["line"].as_u64(), found["code"].as_str()), (Some(2), Some("FORGE-C031")));

    let mended = encrypted(&world, "bank", "hunter2");
    world.write("projects/bank/keys/stolen.toml", &format!("type = \"string\"\nvalue = {mended}\n"));
    wait_for("its own value is applied", || status()["last_error"].is_null().then_some(()));
}

#[test]
fn host_kinds_reach_only_the_project_that_the_host_allows_them() {
    let world = World::new();
    let folder = world.path("host");
    let credentials = world.path("credentials");
    for made in [&folder, &credentials] {
        std::fs::create_dir_all(made).expect("a folder");
    }
    std::fs::write(folder.join("token"), "from-a-file\n").expect("a file");
    std::fs::write(credentials.join("shop-db"), "from-a-credential\n").expect("a file");
    let allow = format!(
        "[secrets.allow.shop]\nfiles = [\"{}/*\"]\nenv = [\"SHOP_*\"]\ncredentials = [\"shop-*\"]\n",
        folder.display()
    );
    world.daemon_settings(&allow);
    let secrets = format!(
        "[secrets]\nA_FILE = {{ file = \"{}/token\" }}\nAN_ENV = {{ env = \"SHOP_TOKEN\" }}\nA_CREDENTIAL = {{ credential = \"shop-db\" }}\na_variable = {{ env = \"SHOP_TOKEN\", as = \"var\" }}\n",
        folder.display()
    );
    world.write("projects/shop/environments/host.toml", &secrets);
    let lengths = "echo ${#A_FILE} ${#AN_ENV} ${#A_CREDENTIAL}; echo \"$A_FILE $AN_ENV\"";
    world.template("look", "environment = \"host\"\n", lengths);
    let credentials = utf8(&credentials).to_owned();
    let daemon = world.daemon_with(&[("SHOP_TOKEN", "from-a-variable"), ("CREDENTIALS_DIRECTORY", &credentials)]);
    let _runner = world.runner(&daemon, "ny-1", "");
    let done = world.ask(&daemon, &["run", "shop/look"]).expect_code(0);
    assert_eq!(done.text(), "11 15 17\n[masked] [masked]\n", "{}", done.stderr);

    // The same words in another project's commit.
    world.write("projects/bank/project.toml", "");
    world.write("projects/bank/environments/host.toml", &secrets);
    let status = wait_for("bank is refused", || {
        let status = world.ask(&daemon, &["config", "status", "--output", "json"]).expect_code(0).json();
        (!status["last_error"].is_null()).then_some(status)
    });
    let found = status["last_error"]["diagnostics"].as_array().expect("mistakes").clone();
    assert_eq!(found.len(), 4, "{found:#?}");
    for one in &found {
        assert_eq!(one["file"], "projects/bank/environments/host.toml");
        assert_eq!(one["code"], "FORGE-C019");
        assert!(one["hint"].as_str().expect("a hint").contains("[secrets.allow.bank]"), "{one}");
    }
}

/// What a secret looks like wherever it must not be: as it is, by line, in base64 at each alignment, in JSON and in a URL.
fn forms(secret: &str) -> Vec<String> {
    let mut forms: Vec<String> = vec![secret.to_owned()];
    forms.extend(secret.lines().filter(|line| line.len() >= 16 && !line.starts_with("-----")).map(str::to_owned));
    for before in ["", "x", "xx"] {
        let whole = STANDARD.encode(format!("{before}{secret}"));
        // Both ends depend on what stands around the secret.
        forms.push(whole[4..whole.len() - 4].to_owned());
    }
    forms.push(serde_json::to_string(secret).expect("JSON").trim_matches('"').to_owned());
    let escaped = secret.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    forms.push(escaped.collect());
    forms
}

/// Pieces of a long secret in base64 that is wrapped, whatever stands before it.
fn wrapped_forms(secret: &str) -> Vec<String> {
    ["", "x", "xx"]
        .iter()
        .flat_map(|before| {
            let whole = STANDARD.encode(format!("{before}{secret}"));
            (4..whole.len() - 40).step_by(4).map(|from| whole[from..from + 24].to_owned()).collect::<Vec<_>>()
        })
        .collect()
}

fn refuse_in(bytes: &[u8], place: &str, forms: &[String]) {
    // What is no UTF-8 becomes another character, and every form is ASCII.
    let text = String::from_utf8_lossy(bytes);
    for form in forms {
        assert!(!text.contains(form.as_str()), "the secret form {form:?} stands in {place}");
    }
}

pub(crate) fn refuse_in_files(folder: &Path, forms: &[String]) {
    let mut folders = vec![folder.to_owned()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let kind = entry.file_type().expect("a type");
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file()
                && let Ok(bytes) = std::fs::read(&path)
            {
                files += 1;
                refuse_in(&bytes, utf8(&path), forms);
            }
        }
    }
    assert!(files > 0, "{} holds files", folder.display());
}

/// How many key files of attempts hold a value; each must be its user's alone.
pub(crate) fn key_files_in_memory(value: &str) -> usize {
    let attempts = std::fs::read_dir("/dev/shm").expect("a file system in memory").flatten();
    let keys = attempts
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("forge-"))
        .flat_map(|entry| std::fs::read_dir(entry.path().join("keys")).into_iter().flatten().flatten());
    let holding = keys.filter(|file| std::fs::read_to_string(file.path()).is_ok_and(|text| text.trim_end() == value));
    holding
        .map(|file| {
            let mode = file.metadata().expect("a file").permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", file.path().display());
        })
        .count()
}

/// Looks at the command line of every process of the machine; answers how many there were.
fn refuse_in_command_lines(forms: &[String]) -> usize {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    processes
        .filter_map(|entry| {
            let command = std::fs::read(entry.path().join("cmdline")).ok().filter(|bytes| !bytes.is_empty())?;
            refuse_in(&command, &format!("the command line {:?}", String::from_utf8_lossy(&command)), forms);
            Some(())
        })
        .count()
}

/// A private key as ssh-keygen makes it: many lines.
fn private_key(world: &World) -> String {
    let file = world.path("made-key");
    crate::harness::need("ssh-keygen", "openssh-client");
    let status = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", utf8(&file)])
        .status()
        .expect("ssh-keygen runs");
    assert!(status.success());
    std::fs::read_to_string(&file).expect("a key")
}

/// Everything that the API says to an admin about a world with one task and the runner `ny-1`: headers and bodies as they cross the wire.
fn raw_answers(world: &World, daemon: &Daemon) -> Vec<(String, Vec<u8>)> {
    let paths = [
        "/projects",
        "/projects/shop/templates",
        "/tasks",
        "/tasks/1",
        "/tasks/1/log",
        "/tasks/1/log?follow=true",
        "/tasks/1/why",
        "/runners",
        "/runners/ny-1",
        "/config",
    ];
    let client = http_client(&Trust::CaFile(daemon.ca_file.clone())).expect("a client");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut answers = Vec::new();
        for path in paths {
            let request = client.get(format!("{}/api/v1{path}", daemon.api)).bearer_auth(world.admin_token());
            let answer = request.send().await.expect("an answer");
            assert_eq!(answer.status(), 200, "{path}");
            let mut bytes = format!("{:?}\n", answer.headers()).into_bytes();
            bytes.extend_from_slice(&answer.bytes().await.expect("a body"));
            answers.push((path.to_owned(), bytes));
        }
        answers
    })
}

/// Complaint 18 (secrets in `ps`): every process's command line is read while the job has its secrets, and all else that others see.
#[test]
fn no_secret_stands_in_argv_a_file_an_answer_or_the_log() {
    let world = World::new();
    let (aged, filed, of_variable, credential, answer) = (
        "age \"value\"/one?&%",
        "file 'value'\\two+=",
        "environment-value/three#",
        "credential value~four",
        "survey answer \"five\"",
    );
    let key = private_key(&world);
    std::fs::create_dir_all(world.path("host")).expect("a folder");
    std::fs::create_dir_all(world.path("credentials")).expect("a folder");
    std::fs::write(world.path("host/token"), filed).expect("a file");
    std::fs::write(world.path("credentials/db"), credential).expect("a file");
    let allow = format!(
        "[secrets.allow.shop]\nfiles = [{:?}]\nenv = [\"SHOP_TOKEN\"]\ncredentials = [\"db\"]\n",
        world.path("host/token")
    );
    identity(&world, &allow);
    let sealed = encrypted(&world, "shop", aged);
    let sealed_key = encrypted(&world, "shop", &key);
    world.write(
        "projects/shop/environments/all.toml",
        &format!(
            "[secrets]\nAGED = {sealed}\nFILED = {{ file = {:?} }}\nOF_VARIABLE = {{ env = \"SHOP_TOKEN\" }}\nCREDENTIAL = {{ credential = \"db\" }}\nKEY = {sealed_key}\n",
            world.path("host/token")
        ),
    );
    world.write(
        "projects/shop/keys/hosts.toml",
        &format!("type = \"ssh\"\nlogin = \"ops\"\nprivate_key = {sealed_key}\n"),
    );
    world.write("projects/shop/keys/root.toml", &format!("type = \"string\"\nvalue = {sealed}\n"));
    world.write(
        "projects/shop/inventories/east.toml",
        "type = \"static\"\ncontent = \"localhost\"\nssh_key = \"hosts\"\nbecome_key = \"root\"\n",
    );
    let (ready, go) = (world.path("ready"), world.path("go"));
    let script = format!(
        "for value in \"$AGED\" \"$FILED\" \"$OF_VARIABLE\" \"$CREDENTIAL\" \"$FORGE_VAR_PASSWORD\" \"$KEY\"; do\n  echo \"${{#value}}\"\n  printf '%s\\n' \"$value\"\n  for before in '' x xx; do printf '%s%s' \"$before\" \"$value\" | base64 -w0; echo; printf '%s%s' \"$before\" \"$value\" | base64; done\n  printf '%s' \"$value\" | sed -e 's/\\\\/\\\\\\\\/g' -e 's/\"/\\\\\"/g' | sed -z 's/\\n/\\\\n/g'; echo\n  printf '%s' \"$value\" | od -An -v -tx1 | tr -d '\\n' | sed 's/ /%/g' > /dev/null\ndone\nprintf '%s\\n' \"$KEY\" | while read -r line; do echo \"a line: $line\"; done\ntouch {}\nuntil [ -e {} ]; do sleep 0.02; done",
        ready.display(),
        go.display()
    );
    world.template(
        "all",
        "environment = \"all\"\ninventory = \"east\"\n[survey.password]\ntype = \"secret\"\nrequired = true\n",
        &script,
    );
    let credentials = world.path("credentials");
    let daemon = world.daemon_with(&[("SHOP_TOKEN", of_variable), ("CREDENTIALS_DIRECTORY", utf8(&credentials))]);
    let _runner = world.runner(&daemon, "ny-1", "");
    let command = world.client(&daemon, &["run", "shop/all", "--detach", "--var", "password=@-", "--output", "json"]);
    let created = Finished::of(command, answer.as_bytes()).expect_code(0);
    wait_for("the job has its secrets", || {
        let task = world.task(&daemon, 1);
        assert!(task["finished_at"].is_null(), "{task}\n{}", String::from_utf8_lossy(&world.log(&daemon, 1)));
        ready.exists().then_some(())
    });

    let secrets = [aged, filed, of_variable, credential, answer, key.trim_end()];
    let forms: Vec<String> = secrets.iter().flat_map(|secret| forms(secret)).collect();
    assert!(refuse_in_command_lines(&forms) > 3, "the daemon, the runner, the supervisor and the job were looked at");
    refuse_in_files(&world.path("data"), &forms);
    refuse_in_files(&world.path("ny-1"), &forms);
    for held in [key.trim_end(), aged] {
        assert_eq!(key_files_in_memory(held), 1, "the inventory's keys lie in memory, for the job's user alone");
    }
    std::fs::write(&go, "").expect("a file");
    let done = world.wait_state(&daemon, 1, "succeeded");

    let log = world.log(&daemon, 1);
    let text = String::from_utf8_lossy(&log).into_owned();
    for secret in secrets {
        assert!(text.contains(&format!("{}\n[masked]", secret.chars().count())), "the job had all of it: {text}");
    }
    refuse_in(&log, "the log", &forms);
    refuse_in(&log, "the log", &wrapped_forms(&key));
    for (place, bytes) in [
        ("the created task", created.stdout),
        ("the finished task", done.to_string().into_bytes()),
        ("the list of tasks", world.ask(&daemon, &["task", "list", "--output", "json"]).expect_code(0).stdout),
        ("the configuration", world.ask(&daemon, &["config", "status", "--output", "json"]).expect_code(0).stdout),
        ("the runners", world.ask(&daemon, &["runners", "list", "--output", "json"]).expect_code(0).stdout),
        ("the daemon's own log", daemon.process.stderr().into_bytes()),
    ] {
        refuse_in(&bytes, place, &forms);
    }
    for (path, bytes) in raw_answers(&world, &daemon) {
        refuse_in(&bytes, &path, &forms);
    }
    assert_eq!(key_files_in_memory(key.trim_end()) + key_files_in_memory(aged), 0, "they went with the attempt");
    assert_eq!(daemon.stop().code(), Some(0));
    refuse_in_files(&world.path("data"), &forms);
    refuse_in_files(&world.path("ny-1"), &forms);
    refuse_in_files(&world.path("out"), &forms);
}

//! Repositories that a key opens: git over ssh against a real sshd, and over https with a login.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::git::repository;
use crate::harness::{Daemon, Finished, Process, SSHD, World, free_port, need, utf8, wait_for};
use crate::secrets::{encrypted, identity};

/// A key pair of a story.
pub(crate) fn key_pair(world: &World, name: &str, passphrase: &str) -> PathBuf {
    let file = world.path(name);
    need("ssh-keygen", "openssh-client");
    let status = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-C", name, "-N", passphrase, "-f", utf8(&file)])
        .status()
        .expect("ssh-keygen runs");
    assert!(status.success(), "ssh-keygen makes {name}");
    file
}

pub(crate) fn user() -> String {
    let output = Command::new("id").arg("-un").output().expect("id runs");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// A real sshd on loopback that lets `keys` in as this user, with the host key `host_key`.
pub(crate) fn sshd(world: &World, port: u16, host_key: &Path, keys: &[&Path]) -> Process {
    need(SSHD, "openssh-server");
    let authorized: String =
        keys.iter().map(|key| std::fs::read_to_string(key.with_extension("pub")).expect("a public key")).collect();
    let (file, config) = (world.path("authorized_keys"), world.path("sshd_config"));
    std::fs::write(&file, authorized).expect("a file");
    let text = format!(
        "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n",
        host_key.display(),
        file.display()
    );
    std::fs::write(&config, text).expect("a file");
    if user() == "root" {
        // Debian's unit makes this; sshd drops its privileges there.
        std::fs::create_dir_all("/run/sshd").expect("sshd's folder");
    }
    let mut command = Command::new(SSHD);
    command.args(["-D", "-e", "-f", utf8(&config)]);
    let mut process = Process::start(command, &world.path("out"), "sshd");
    wait_for("sshd listens", || {
        assert!(process.exited().is_none(), "sshd ended: {}", process.stderr());
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    });
    process
}

fn key_file(world: &World, name: &str, lines: &str) {
    world.write(&format!("projects/shop/keys/{name}.toml"), lines);
}

fn template_from(world: &World, name: &str, url: &str, key: Option<&str>) {
    let key = key.map(|key| format!("ssh_key = \"{key}\"\n")).unwrap_or_default();
    world
        .write(&format!("projects/shop/repositories/{name}.toml"), &format!("url = {url:?}\nbranch = \"main\"\n{key}"));
    world.write(
        &format!("projects/shop/templates/{name}.toml"),
        &format!("executor = \"shell\"\nrepository = \"{name}\"\n[params]\nfile = \"deploy.sh\"\n"),
    );
}

fn reason(world: &World, daemon: &Daemon, template: &str) -> String {
    let done = world.ask(daemon, &["run", template, "--output", "json"]).expect_code(1);
    format!("{}\n{}", done.json()["reason"], done.stderr)
}

#[test]
fn a_repository_opens_over_ssh_with_a_key_of_the_tree_and_a_changed_host_is_refused() {
    let world = World::new();
    identity(&world, "");
    let origin = world.path("origin");
    let commit = repository(&origin, "echo \"deployed $FORGE_COMMIT\"\n");
    let (host, plain, locked) =
        (key_pair(&world, "host", ""), key_pair(&world, "plain", ""), key_pair(&world, "locked", "open sesame"));
    let stranger = key_pair(&world, "stranger", "");
    let private = |file: &Path| encrypted(&world, "shop", &std::fs::read_to_string(file).expect("a key"));
    let login = user();
    key_file(&world, "plain", &format!("type = \"ssh\"\nlogin = {login:?}\nprivate_key = {}\n", private(&plain)));
    key_file(
        &world,
        "locked",
        &format!(
            "type = \"ssh\"\nlogin = {login:?}\nprivate_key = {}\npassphrase = {}\n",
            private(&locked),
            encrypted(&world, "shop", "open sesame")
        ),
    );
    key_file(&world, "stranger", &format!("type = \"ssh\"\nprivate_key = {}\n", private(&stranger)));
    let port = free_port();
    let url = format!("ssh://127.0.0.1:{port}{}", origin.display());
    let url_with_login = format!("ssh://{login}@127.0.0.1:{port}{}", origin.display());
    template_from(&world, "plain", &url, Some("plain"));
    template_from(&world, "locked", &url, Some("locked"));
    template_from(&world, "stranger", &url_with_login, Some("stranger"));
    template_from(&world, "keyless", &url_with_login, None);
    let mut server = sshd(&world, port, &host, &[&plain, &locked]);
    let daemon = world.daemon();
    let runner = world.runner(&daemon, "ny-1", "");

    for template in ["shop/plain", "shop/locked"] {
        let done = world.ask(&daemon, &["run", template]).expect_code(0);
        assert!(done.text().contains(&format!("deployed {commit}\n")), "{template}: {}", done.text());
    }
    for template in ["shop/stranger", "shop/keyless"] {
        let reason = reason(&world, &daemon, template);
        assert!(reason.contains("Permission denied"), "{template}: {reason}");
    }

    // The runner remembers the host: another one at its address is refused.
    server.kill_hard();
    let impostor = key_pair(&world, "impostor", "");
    let _server = sshd(&world, port, &impostor, &[&plain, &locked]);
    let refused = reason(&world, &daemon, "shop/plain");
    assert!(refused.contains("Host key verification failed"), "{refused}");
    drop(runner);
}

#[test]
fn ssh_config_path_decides_which_hosts_a_runner_trusts() {
    let world = World::new();
    identity(&world, "");
    let origin = world.path("origin");
    repository(&origin, "echo deployed\n");
    let (host, plain, locked) =
        (key_pair(&world, "host", ""), key_pair(&world, "plain", ""), key_pair(&world, "locked", "open sesame"));
    let private = |file: &Path| encrypted(&world, "shop", &std::fs::read_to_string(file).expect("a key"));
    key_file(&world, "plain", &format!("type = \"ssh\"\nprivate_key = {}\n", private(&plain)));
    key_file(
        &world,
        "locked",
        &format!(
            "type = \"ssh\"\nprivate_key = {}\npassphrase = {}\n",
            private(&locked),
            encrypted(&world, "shop", "open sesame")
        ),
    );
    let port = free_port();
    // The alias, the port and the user stand in the runner's configuration alone.
    for key in ["plain", "locked"] {
        template_from(&world, key, &format!("ssh://git.internal{}", origin.display()), Some(key));
    }
    let _server = sshd(&world, port, &host, &[&plain, &locked]);
    let (config, known) = (world.path("ssh_config"), world.path("known_hosts"));
    let text = format!(
        "Host git.internal\n  HostName 127.0.0.1\n  Port {port}\n  User {}\n  UserKnownHostsFile {}\n",
        user(),
        known.display()
    );
    std::fs::write(&config, text).expect("a file");
    let daemon = world.daemon();
    let settings = world.runner_settings(&daemon, "ny-1", "");
    let written = std::fs::read_to_string(&settings).expect("runner.toml");
    std::fs::write(&settings, format!("ssh_config_path = {config:?}\n{written}")).expect("runner.toml");
    world.register(&settings).expect_code(0);
    let _runner = world.start_runner("ny-1");

    // Nobody has said yet that this host is to be trusted, and nobody is asked.
    for template in ["shop/plain", "shop/locked"] {
        let refused = reason(&world, &daemon, template);
        assert!(refused.contains("Host key verification failed"), "{template}: {refused}");
    }
    let public = std::fs::read_to_string(host.with_extension("pub")).expect("a key");
    std::fs::write(&known, format!("[127.0.0.1]:{port} {public}")).expect("a file");
    for template in ["shop/plain", "shop/locked"] {
        let done = world.ask(&daemon, &["run", template]).expect_code(0);
        assert!(done.text().contains("deployed\n"), "{template}: {}", done.text());
    }
}

/// A git server over TLS on loopback that asks for a login: Python's own server in front of `git http-backend`.
const HTTPS_SERVER: &str = r#"
import base64, http.server, os, ssl, subprocess, sys
root, certificate, key, login, address = sys.argv[1:]
backend = os.path.join(subprocess.check_output(["git", "--exec-path"], text=True).strip(), "git-http-backend")
wanted = "Basic " + base64.b64encode(open(login, "rb").read()).decode()

class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        if self.headers.get("Authorization") != wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        environment = dict(os.environ, GIT_PROJECT_ROOT=root, GIT_HTTP_EXPORT_ALL="1", PATH_INFO=path,
            QUERY_STRING=query, REQUEST_METHOD=self.command, REMOTE_USER="ci", REMOTE_ADDR="127.0.0.1",
            CONTENT_TYPE=self.headers.get("Content-Type") or "", CONTENT_LENGTH=str(len(body)),
            HTTP_CONTENT_ENCODING=self.headers.get("Content-Encoding") or "",
            GIT_PROTOCOL=self.headers.get("Git-Protocol") or "")
        output = subprocess.run([backend], input=body, env=environment, stdout=subprocess.PIPE).stdout
        head, _, content = output.partition(b"\r\n\r\n")
        fields = [line.split(": ", 1) for line in head.decode().split("\r\n") if line]
        status = next((value for name, value in fields if name.lower() == "status"), "200 OK")
        self.send_response(int(status.split()[0]))
        for name, value in fields:
            if name.lower() != "status":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
    do_GET = do_POST = answer

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
with open(address + ".new", "w") as file:
    file.write(str(server.server_address[1]))
os.rename(address + ".new", address)
server.serve_forever()
"#;

/// Starts the server; answers it, its port and its certificate.
pub(crate) fn https_server(world: &World, root: &Path, login: &str) -> (Process, u16, PathBuf) {
    let (certificate, key) = (world.path("https.pem"), world.path("https.key"));
    need("openssl", "openssl");
    need("python3", "python3");
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-keyout", utf8(&key), "-out", utf8(&certificate)])
        .stderr(Stdio::null())
        .status()
        .expect("openssl runs");
    assert!(made.success(), "openssl makes a certificate");
    let (script, wanted, address) = (world.path("server.py"), world.path("wanted"), world.path("https.port"));
    std::fs::write(&script, HTTPS_SERVER).expect("a file");
    std::fs::write(&wanted, login).expect("a file");
    let mut command = Command::new("python3");
    command
        .args([&script, root, &certificate, &key, &wanted, &address])
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*");
    let mut process = Process::start(command, &world.path("out"), "https");
    let port = wait_for("the https server listens", || {
        assert!(process.exited().is_none(), "the server ended: {}", process.stderr());
        std::fs::read_to_string(&address).ok()?.parse().ok()
    });
    (process, port, certificate)
}

#[test]
fn a_repository_opens_over_https_with_a_login_of_the_tree() {
    let world = World::new();
    identity(&world, "");
    let commit = repository(&world.path("served/app"), "echo \"deployed $FORGE_COMMIT\"\n");
    let password = "pass:word with \"quotes\" and 'more'";
    let (_server, port, certificate) = https_server(&world, &world.path("served"), &format!("ci:{password}"));
    let sealed = encrypted(&world, "shop", password);
    let wrong = encrypted(&world, "shop", "wrong-password");
    key_file(&world, "login", &format!("type = \"login_password\"\nlogin = \"ci\"\npassword = {sealed}\n"));
    key_file(&world, "wrong", &format!("type = \"login_password\"\nlogin = \"ci\"\npassword = {wrong}\n"));
    let url = format!("https://127.0.0.1:{port}/app/.git");
    template_from(&world, "login", &url, Some("login"));
    template_from(&world, "wrong", &url, Some("wrong"));
    let daemon = world.daemon();
    let settings = world.runner_settings(&daemon, "ny-1", "");
    world.register(&settings).expect_code(0);
    let mut command = world.forge(&["runner", "--config", utf8(&settings)]);
    command.env("GIT_SSL_CAINFO", &certificate);
    let runner = Process::start(command, &world.path("out"), "ny-1");

    let done = world.ask(&daemon, &["run", "shop/login"]).expect_code(0);
    assert!(done.text().contains(&format!("deployed {commit}\n")), "{}", done.text());
    assert!(!done.text().contains(password) && !done.stderr.contains(password), "{}", done.text());
    let refused = reason(&world, &daemon, "shop/wrong");
    assert!(refused.contains("Authentication failed") && !refused.contains("wrong-password"), "{refused}");

    // A runner that was not told of the server's CA trusts nobody.
    drop(runner);
    let _runner = world.start_runner("ny-1");
    let refused = reason(&world, &daemon, "shop/login");
    assert!(refused.contains("certificate"), "{refused}");
}

#[test]
fn a_password_without_a_login_is_a_token_for_https() {
    let world = World::new();
    identity(&world, "");
    repository(&world.path("served/app"), "echo deployed\n");
    let (_server, port, certificate) = https_server(&world, &world.path("served"), "git:token-of-a-robot");
    let sealed = encrypted(&world, "shop", "token-of-a-robot");
    // Servers that take tokens want any user beside it: Forge says `git`.
    key_file(&world, "token", &format!("type = \"login_password\"\npassword = {sealed}\n"));
    template_from(&world, "token", &format!("https://127.0.0.1:{port}/app/.git"), Some("token"));
    let checked = world.run(&["config", "check", "tree", "--config", "forge.toml"]);
    assert!(checked.status.success(), "{}", checked.stderr);
    let daemon = world.daemon();
    let settings = world.runner_settings(&daemon, "ny-1", "");
    world.register(&settings).expect_code(0);
    let mut command = world.forge(&["runner", "--config", utf8(&settings)]);
    command.env("GIT_SSL_CAINFO", &certificate);
    let _runner = Process::start(command, &world.path("out"), "ny-1");
    let done: Finished = world.ask(&daemon, &["run", "shop/token"]).expect_code(0);
    assert!(done.text().contains("deployed\n"), "{}", done.text());
}

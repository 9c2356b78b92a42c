//! The cloud of this example, by hand: `cargo run --release --example cloud-stand-in`, configured by the environment (see the README).

mod cloud;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use cloud::{Cloud, Image};

/// Where it listens: what the example's tree names.
const LISTEN: &str = "127.0.0.1:3001";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            say(&message);
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) {
    // Where nobody listens nothing is to be said.
    let _ = writeln!(std::io::stderr(), "cloud-stand-in: {line}");
}

fn run() -> Result<(), String> {
    let variable = |name: &str| std::env::var(name).map_err(|_| format!("set {name}: the README says to what"));
    let token_file = variable("CLOUD_REGISTRATION_TOKEN_FILE")?;
    let token = std::fs::read_to_string(&token_file).map_err(|error| format!("{token_file}: {error}"))?;
    let image = Image {
        forge: PathBuf::from(variable("CLOUD_FORGE")?),
        web_host: variable("CLOUD_WEB_HOST")?,
        ca_file: PathBuf::from(variable("CLOUD_CA_FILE")?),
        registration_token: token.trim().to_owned(),
        disks: std::env::temp_dir().join(format!("cloud-stand-in-{}", std::process::id())),
    };
    let server = tiny_http::Server::http(LISTEN).map_err(|error| format!("{LISTEN}: {error}"))?;
    say(&format!("listening on {LISTEN}, machines in {}", image.disks.display()));
    Cloud::new(image).serve(&server);
    Ok(())
}

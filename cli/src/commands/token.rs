//! `forge token new`: a random token for a person, a program or a registration, and the hash to commit for it. `forge token revoke`
//! ends one by that hash.

use std::path::Path;
use std::process::ExitCode;

use forge_api::RevokedToken;
use forge_config::Digest;
use forge_daemon::{TokenKind, new_token};
use serde::Serialize;

use super::CLIENT_THREADS;
use crate::args::{Ask, OutputFormat, TokenCommand, TokenFor};
use crate::client::Client;
use crate::error::CliError;
use crate::printer::Printer;
use crate::{runtime, settings};

#[derive(Serialize)]
struct NewToken<'a> {
    token: &'a str,
    hash: String,
}

pub(crate) fn run(command: TokenCommand, printer: &Printer) -> Result<ExitCode, CliError> {
    match command {
        TokenCommand::New { kind, output } => new(kind, output, printer),
        TokenCommand::Revoke { hash, config, at } => revoke(hash, config.as_deref(), &at, printer),
    }
}

fn revoke(hash: String, config: Option<&Path>, at: &Ask, printer: &Printer) -> Result<ExitCode, CliError> {
    let digest: Digest = hash.parse().map_err(|_| {
        // What was given may be the token itself, which is not to be shown.
        CliError::usage("that is no hash of a token").hint(
            "write sha256:... as it stands in access/NAME.toml or registration-tokens/NAME.toml; the token itself is not needed",
        )
    })?;
    let revoked = match config {
        Some(path) => {
            let data_dir = settings::daemon(path, &settings::environment(), printer)?.data_dir;
            forge_daemon::revoke_token_on_host(&data_dir, &digest).map_err(CliError::failed)?;
            RevokedToken { hash: digest.to_string(), files: Vec::new() }
        }
        None => runtime::run(CLIENT_THREADS, async {
            Client::connect(&at.connection)?.revoke_token(digest.to_string()).await
        })?,
    };
    if at.output == OutputFormat::Json {
        printer.json(&revoked);
        return Ok(ExitCode::SUCCESS);
    }
    printer.done(&format!("{} is refused from now on", revoked.hash));
    if !revoked.files.is_empty() {
        printer.hint(&format!("take it out of the tree, too: {}", revoked.files.join(", ")));
    }
    Ok(ExitCode::SUCCESS)
}

fn new(kind: TokenFor, output: OutputFormat, printer: &Printer) -> Result<ExitCode, CliError> {
    let made_for = match kind {
        TokenFor::Access => TokenKind::Access,
        TokenFor::Registration => TokenKind::Registration,
    };
    let (token, hash) = new_token(made_for).map_err(CliError::failed)?;
    let new = NewToken { token: token.reveal(), hash: hash.to_string() };
    match output {
        OutputFormat::Json => printer.json(&new),
        OutputFormat::Text => {
            printer.data(&format!("token: {}\nhash:  {}", new.token, new.hash));
            printer.aside("The token is shown this once: keep it where secrets are kept. Commit the hash:");
            printer.aside(&match kind {
                TokenFor::Access => format!("access/NAME.toml:\n  hash = \"{}\"\n  role = \"operator\"", new.hash),
                TokenFor::Registration => format!("registration-tokens/NAME.toml:\n  hash = \"{}\"", new.hash),
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

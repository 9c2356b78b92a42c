//! The daemon's own runner (`use_remote_runner = false`): the code of any other runner, in the daemon's process, over the same API.
//!
//! There is no second path: it registers with a token, claims over HTTPS on loopback and starts supervisors. They outlive a
//! daemon that stops or dies, and its next start finds them again.

use std::convert::Infallible;
use std::path::PathBuf;

use forge_api::Secret;
use forge_config::{DaemonSettings, RegistrationTokenSource, SecretText};
use forge_daemon::{Addresses, TokenKind, new_token};
use forge_runner::trust::Trust;
use forge_runner::{Ended, OBEY_MARGIN_MS_DEFAULT, STOP_GRACE_MS_DEFAULT, Settings, Shutdown};
use tokio_util::sync::CancellationToken;

use super::super::runner::{log_event, register};
use crate::error::{CliError, file_error};
use crate::settings::supervisor_command;

/// The runner's name: `runners/local.toml` may give it tags and a limit.
const NAME: &str = "local";

/// Its folder in the data folder.
const FOLDER: &str = "local-runner";

/// What the own runner needs before the daemon starts.
#[derive(Debug)]
pub(super) struct OwnRunner {
    folder: PathBuf,
    token: Secret,
    web_host: Option<String>,
}

impl OwnRunner {
    /// Takes what it needs of the daemon's settings. Where they name no registration token, the daemon gets one that nobody else knows.
    pub(super) fn prepare(settings: &mut DaemonSettings) -> Result<Self, CliError> {
        let token = match &settings.runner_registration_token {
            Some(RegistrationTokenSource::Inline(token)) => Secret::new(token.reveal()),
            Some(RegistrationTokenSource::File(path)) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| file_error("read the registration token from", path, &error))?;
                Secret::new(text.trim())
            }
            None => {
                let (token, _hash) = new_token(TokenKind::Registration).map_err(CliError::failed)?;
                settings.runner_registration_token =
                    Some(RegistrationTokenSource::Inline(SecretText::new(token.reveal())));
                token
            }
        };
        Ok(Self { folder: settings.data_dir.join(FOLDER), token, web_host: settings.web_host.clone() })
    }

    /// Registers and works until `shutdown`. It answers only when it cannot go on.
    pub(super) async fn run(self, addresses: &Addresses, shutdown: CancellationToken) -> Result<Infallible, CliError> {
        std::fs::create_dir_all(&self.folder).map_err(|error| file_error("make", &self.folder, &error))?;
        let settings = self.settings(addresses)?;
        register(&settings, self.token).await?;
        tracing::info!(runner = NAME, "the daemon runs jobs itself (use_remote_runner = false)");
        // Attempts that run when the daemon stops go on under their supervisors: the next start takes them up.
        let stop = Shutdown { drain: shutdown, abort: CancellationToken::new() };
        match forge_runner::run(settings, stop, log_event).await.map_err(CliError::failed)? {
            Ended::Drained | Ended::Aborted | Ended::OneOff { .. } => std::future::pending().await,
        }
    }

    fn settings(&self, addresses: &Addresses) -> Result<Settings, CliError> {
        let (web_host, trust) = match (&addresses.ca_file, &self.web_host) {
            (Some(ca_file), _) => (addresses.api.clone(), Trust::CaFile(ca_file.clone())),
            (None, _) if addresses.api.starts_with("http://") => (addresses.api.clone(), Trust::SystemRoots),
            (None, Some(web_host)) => (web_host.clone(), Trust::SystemRoots),
            (None, None) => {
                return Err(CliError::failed(
                    "use_remote_runner = false: the daemon's own runner does not know the certificate's name",
                )
                .hint("set web_host in forge.toml to the URL that the certificate is for"));
            }
        };
        Ok(Settings {
            web_host,
            tmp_path: self.folder.join("tmp"),
            ssh_config_path: None,
            git_client: "git".to_owned(),
            trust,
            name: NAME.to_owned(),
            token_file: self.folder.join("token"),
            token: None,
            private_key_file: self.folder.join("private.key"),
            max_parallel_tasks: 0,
            one_off: false,
            supervisor_command: supervisor_command()?,
            stop_grace_ms: STOP_GRACE_MS_DEFAULT,
            obey_margin_ms: OBEY_MARGIN_MS_DEFAULT,
            run_as: None,
            keep_failed_workspaces: false,
            // The daemon's own reserve is for both: they share the disk.
            disk_reserve_bytes: 0,
            pass_env: Vec::new(),
            // The process is the daemon's, which speaks for it.
            alive_interval: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }
}

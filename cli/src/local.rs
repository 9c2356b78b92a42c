//! The operator socket: what a daemon on this host says to its owner without a token.

use std::path::Path;

use forge_api::ConfigStatus;

use crate::error::CliError;

/// The socket's name in the data folder.
const SOCKET: &str = "forge.sock";

/// What the daemon of `data_dir` serves.
pub(crate) async fn config_status(data_dir: &Path) -> Result<ConfigStatus, CliError> {
    let socket = data_dir.join(SOCKET);
    let silent = |why: &str| {
        CliError::failed(format_args!("no daemon answers at {}: {why}", socket.display()))
            .hint("is the daemon running on this host, and are you its user (or root)?")
    };
    let failed = |error: reqwest::Error| silent(&innermost(&error));
    if !socket.exists() {
        return Err(silent("there is no such socket"));
    }
    let http = reqwest::Client::builder().unix_socket(socket.clone()).no_proxy().build().map_err(failed)?;
    let answer = http.get("http://forge.local/config").send().await.map_err(failed)?;
    let answer = answer.error_for_status().map_err(failed)?;
    let body = answer.bytes().await.map_err(failed)?;
    serde_json::from_slice(&body).map_err(|error| silent(&error.to_string()))
}

/// What the system said: the end of the chain of causes.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

//! Where the state lives, from what `init` noted. A state that dies with the workspace is worth a warning: what was built is
//! forgotten, and the next run builds it again.

use forge_plugin::{Failure, Host, Level};
use serde::Deserialize;

use crate::ground::{OWN, read_file};
use crate::params::Action;

/// The most bytes of what `init` notes.
const NOTED_BYTES_MAX: usize = 1024 * 1024;

#[derive(Deserialize)]
struct Noted {
    backend: Option<Backend>,
}

#[derive(Deserialize)]
struct Backend {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    config: Option<Config>,
}

/// Of another backend than `local`, `path` means another thing, and may be anything.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    path: serde_json::Value,
}

/// Says in the log what becomes of the state, where that may surprise.
pub(crate) fn tell(action: Action, host: &mut dyn Host) -> Result<(), Failure> {
    let noted = read_file(&format!("{OWN}/data/terraform.tfstate"), NOTED_BYTES_MAX, host)?;
    // What another version notes in another shape is a backend all the same.
    let backend = match noted.as_deref().map(serde_json::from_slice) {
        None => None,
        Some(Ok(Noted { backend })) => backend,
        Some(Err(_)) => return Ok(()),
    };
    let path = match &backend {
        None => None,
        Some(Backend { kind, .. }) if kind != "local" => return Ok(()),
        Some(Backend { config, .. }) => config.as_ref().and_then(|config| config.path.as_str()),
    };
    if let Some(path) = path.filter(|path| path.starts_with('/')) {
        let message = format!(
            "the state is {path} on this runner: other runners do not see it (a runner_tag keeps the template here)"
        );
        host.log(Level::Info, &message, &[]);
        return Ok(());
    }
    let cause = if backend.is_some() { "its backend `local` has a relative path" } else { "it names no backend" };
    let meaning = if action == Action::Plan {
        "so this plan knows nothing of earlier runs, unless a state is committed"
    } else {
        "and the state is thrown away when this task ends: what it builds will be known to nobody"
    };
    let message = format!(
        "the state of this configuration lies in the task's workspace, since {cause}, {meaning}. Give it a backend that stays, such as \
         s3, http or pg"
    );
    host.log(Level::Warn, &message, &[]);
    Ok(())
}

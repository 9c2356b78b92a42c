//! What a client needs: `FORGE_URL`, `FORGE_TOKEN`, `FORGE_CA_FILE`, and a daemon that takes them.

use forge_runner::trust::Trust;

use super::{Findings, URL_OF_CLIENTS, probe};
use crate::settings::Environment;

pub(super) async fn look(environment: &Environment, findings: &mut Findings) {
    let text = |name: &str| environment.get(name).map(String::as_str).filter(|text| !text.is_empty());
    let Some(url) = text(URL_OF_CLIENTS) else { return };
    let trust = text("FORGE_CA_FILE").map_or(Trust::SystemRoots, |path| Trust::CaFile(path.into()));
    let token = text("FORGE_TOKEN").map(str::trim);
    let Some(answer) = probe::ask(findings, url, &trust, "/config", token).await else { return };
    match (answer.status, token) {
        (200, _) => findings.ok("token", "the daemon takes FORGE_TOKEN"),
        (_, None) => {
            findings.error("token", "FORGE_TOKEN is not set", "set it to an access token: `forge token new` makes one")
        }
        (_, Some(_)) => {
            let detail = answer.problem.map_or_else(|| format!("HTTP {}", answer.status), |problem| problem.detail);
            findings.error(
                "token",
                format!("the daemon does not take FORGE_TOKEN: {detail}"),
                "its hash must stand in access/NAME.toml of the tree that serves; `forge token new` makes one",
            );
        }
    }
}

//! `GET /config/objects`: what the revision that serves holds, without a secret.

use axum::Json;
use axum::extract::State;
use forge_api::ServedConfig;

use super::routes::Api;

/// Its route needs a token that reaches every project: the objects of one tell of the others.
pub(super) async fn objects(State(api): State<Api>) -> Json<ServedConfig> {
    let applied = api.config.borrow().clone();
    Json(ServedConfig { revision: applied.revision.clone(), objects: forge_config::objects(&applied.tree) })
}

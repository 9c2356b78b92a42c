//! `GET /config/objects`: what the revision that serves holds, without a secret.

use axum::Json;
use axum::extract::State;
use forge_api::ServedConfig;

use super::auth::Access;
use super::problem::Refusal;
use super::routes::Api;

/// Answers whoever may see every project: the objects of one tell of the others.
pub(super) async fn objects(State(api): State<Api>, access: Access) -> Result<Json<ServedConfig>, Refusal> {
    if access.visible().is_some() {
        let detail = "this token reaches some projects only, and the whole configuration tells of all of them";
        return Err(Refusal::new(403, "projects", "Not for a token of some projects", detail)
            .hint("use a token whose file in access/ has no `projects`"));
    }
    let applied = api.config.borrow().clone();
    Ok(Json(ServedConfig { revision: applied.revision.clone(), objects: forge_config::objects(&applied.tree) }))
}

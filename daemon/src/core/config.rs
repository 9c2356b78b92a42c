//! What happened to the configuration, recorded for whoever is to be told of it.

use super::{Core, CoreError, internal};
use crate::gitops::ConfigEvent;
use crate::store::NewEvent;

impl Core {
    /// Records events of the configuration, in their order.
    pub(crate) async fn record_config_events(&self, events: Vec<ConfigEvent>) -> Result<(), CoreError> {
        let new = |event: ConfigEvent| {
            let body = serde_json::json!({ "config": event.config });
            NewEvent { event: event.happened.as_str(), at: event.at, body, runner: None, targets: None }
        };
        self.inner.store.record_events(events.into_iter().map(new).collect()).await.map_err(internal)
    }
}

//! `GET /tasks/{n}/log/lines` and `/log/search`: what pages show of a log that is too long to be read whole.

use axum::Json;
use axum::extract::State;
use forge_api::{LOG_LINES_MAX, LogLines, LogMatches};
use schemars::JsonSchema;
use serde::Deserialize;

use super::gate::SeenTask;
use super::limits;
use super::path::QueryOf;
use super::problem::Refusal;
use super::routes::Api;
use crate::core::{LinesWanted, LogSearch};

/// What `/log/lines` takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LinesQuery {
    /// Which attempt's log; the newest one's without.
    attempt: Option<u32>,
    /// The number of the first line, from 1; a negative one counts from the end.
    from: Option<i64>,
    /// How many lines, 1,000 at most.
    #[schemars(range(min = 1, max = LOG_LINES_MAX))]
    count: Option<u32>,
}

/// What `/log/search` takes: one of `text`, `regex` and `errors`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SearchQuery {
    /// Which attempt's log; the newest one's without.
    attempt: Option<u32>,
    /// A text, in whatever case.
    text: Option<String>,
    /// A regular expression.
    regex: Option<String>,
    /// Whatever looks like an error.
    #[serde(default)]
    errors: bool,
    /// The number of the line to begin with.
    from: Option<u64>,
    /// How many lines are found, 1,000 at most.
    #[schemars(range(min = 1, max = LOG_LINES_MAX))]
    limit: Option<u32>,
}

/// `GET /tasks/{n}/log/lines`
pub(super) async fn lines(
    State(api): State<Api>,
    SeenTask(task): SeenTask,
    QueryOf(query): QueryOf<LinesQuery>,
) -> Result<Json<LogLines>, Refusal> {
    let count = limits::bounded("count", query.count, limits::LOG_LINES_DEFAULT, LOG_LINES_MAX)?;
    let wanted = LinesWanted::new(query.from.unwrap_or(1), count);
    Ok(Json(api.core.log_lines(task.number, query.attempt, wanted).await?))
}

/// `GET /tasks/{n}/log/search`
pub(super) async fn search(
    State(api): State<Api>,
    SeenTask(task): SeenTask,
    QueryOf(query): QueryOf<SearchQuery>,
) -> Result<Json<LogMatches>, Refusal> {
    let search = match (query.text, query.regex, query.errors) {
        (Some(text), None, false) => LogSearch::Text(text),
        (None, Some(pattern), false) => LogSearch::Pattern(pattern),
        (None, None, true) => LogSearch::Errors,
        _none_or_several => {
            return Err(Refusal::invalid("a search takes one of `text`, `regex` and `errors=true`")
                .hint("for instance `?text=timeout`"));
        }
    };
    let limit = limits::bounded("limit", query.limit, limits::LOG_MATCHES_DEFAULT, LOG_LINES_MAX)?;
    Ok(Json(api.core.search_log(task.number, query.attempt, &search, query.from.unwrap_or(1), limit).await?))
}

//! The public API and the metrics listener: what strangers reach. decisions.md section 1 says why it stands on axum and hyper.
//!
//! | module | what it does |
//! |---|---|
//! | `serve` | the accept loop, TLS, drain |
//! | `stall` | drops a client that never reads |
//! | `answer` | what every request has around it: Host check, span, panic net |
//! | `hosts` | the names that the API answers to |
//! | `auth` | tokens, roles, failed attempts by address |
//! | `rate` | how much one access token may ask |
//! | `session` | the dashboard's cookie, and what proves that a page of ours asks |
//! | `surface` | whether a program or a browser reads the answer, and what a browser is told beside it |
//! | `table`, `gate`, `routes` | every route with what it needs, what stands before each, the router |
//! | `standing`, `streams` | whether who listens to a stream still may; how many streams a token has open |
//! | `runner_side`, `user_side`, `task_log`, `log_lines`, `tokens`, `config`, `insight`, `events`, `webhooks`, `audit` | the routes themselves |
//! | `openapi`, `operations` | the contract, written from the table and the types |
//! | `hooks`, `integrations` | what git servers and other programs call |
//! | `requests`, `exposition`, `metrics` | how long answers take, everything that is measured as text, `/healthz`, `/readyz`, `/metrics` |
//! | `body`, `path`, `listing`, `problem` | reading requests, pages, and errors in one shape |
//! | `limits`, `places` | every bound, in one place; places for bodies that are held in memory |
//!
//! Nothing here decides what a task or a runner may do: that is the core's.

mod answer;
pub(crate) mod audit;
pub(crate) mod auth;
pub(crate) mod body;
mod carry;
pub(crate) mod config;
pub(crate) mod events;
mod exposition;
pub(crate) mod gate;
mod hooks;
pub(crate) mod hosts;
mod insight;
mod integrations;
pub(crate) mod limits;
mod listing;
mod log_lines;
pub(crate) mod metrics;
mod openapi;
mod operations;
pub(crate) mod path;
pub(crate) mod places;
pub(crate) mod problem;
pub(crate) mod rate;
pub(crate) mod requests;
pub(crate) mod routes;
mod runner_side;
pub(crate) mod serve;
mod served;
pub(crate) mod session;
mod stall;
mod standing;
pub(crate) mod streams;
pub(crate) mod surface;
pub(crate) mod table;
mod task_log;
mod tokens;
mod user_side;
mod webhooks;

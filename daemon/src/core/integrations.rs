//! Integrations: whether a request is what one waits for, which answers it holds, and the task that it starts.
//!
//! Who sends it has proved himself already: that is the route's business, which reads the secret here.

use std::sync::Arc;

use forge_api::{CreateTask, IntegrationAnswer, IntegrationOutcome, IntegrationRequest, Secret, Trigger, TriggerKind};
use forge_config::SecretValue;
use forge_config::meant::{Integration, Match, MatchTest, RequestPart};
use serde_json::{Map, Value};

use super::{Core, CoreError, stored};
use crate::hex;
use crate::secrets::SecretError;
use crate::store::Idempotency;

/// The most bytes of what a sender calls its request that are kept.
const DELIVERY_BYTES_MAX: usize = 200;

/// A request that has proved who sends it.
#[derive(Debug)]
pub(crate) struct Proved {
    /// Header names in lower case, and their values.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// What its sender calls it.
    pub(crate) delivery: Option<String>,
}

impl Core {
    /// An integration of the tree that serves.
    pub(crate) fn integration(&self, project: &str, name: &str) -> Option<Arc<Integration>> {
        let applied = self.inner.scheduler.applied();
        let found = applied.tree.projects.get(project)?.integrations.get(name)?;
        Some(Arc::new(found.clone()))
    }

    /// What an integration's sender proves itself with; it blocks for as long as a small file takes.
    pub(crate) fn integration_secret(&self, project: &str, value: &SecretValue) -> Result<Secret, SecretError> {
        let value = crate::scheduler::spec::secret_ref(value.clone());
        self.inner.resolver.resolve(project, &value)
    }

    /// Starts a task when the request is what the integration waits for, and remembers it either way.
    pub(crate) async fn integrate(
        &self,
        project: &str,
        name: &str,
        integration: &Integration,
        request: Proved,
    ) -> Result<IntegrationAnswer, CoreError> {
        let delivery = request.delivery.clone();
        let made = self.start_for(project, name, integration, request).await;
        let (outcome, message, answer) = match made {
            Ok(Started::Made { task, repeated }) => {
                let outcome = if repeated { IntegrationOutcome::Repeated } else { IntegrationOutcome::Started };
                let message = if repeated { "it came before" } else { "every match holds" }.to_owned();
                (outcome, message, Ok(IntegrationAnswer { matched: true, task: Some(task), repeated, reason: None }))
            }
            Ok(Started::NotMatched(reason)) => {
                let answer =
                    IntegrationAnswer { matched: false, task: None, repeated: false, reason: Some(reason.clone()) };
                (IntegrationOutcome::NotMatched, reason, Ok(answer))
            }
            // What does not fit is the sender's text, and said to the sender alone.
            Err(error @ CoreError::InvalidAnswers(_)) => {
                let message = "what it holds does not fit the template's survey; its answer says where".to_owned();
                (IntegrationOutcome::Refused, message, Err(error))
            }
            Err(error) => (IntegrationOutcome::Refused, error.to_string(), Err(error)),
        };
        let task = answer.as_ref().ok().and_then(|answer| answer.task);
        tracing::info!(
            project,
            integration = name,
            outcome = outcome.as_str(),
            message,
            task,
            "a request to an integration"
        );
        let delivery = delivery.map(|delivery| delivery.chars().take(DELIVERY_BYTES_MAX).collect());
        let request = IntegrationRequest { at: self.now(), delivery, outcome, message, task };
        let recorded = self.inner.store.record_request(project.to_owned(), name.to_owned(), request).await;
        if let Err(error) = recorded {
            // The sender's answer is worth more than the note of it.
            tracing::error!(project, integration = name, %error, "a request to an integration could not be written down");
        }
        answer
    }

    async fn start_for(
        &self,
        project: &str,
        name: &str,
        integration: &Integration,
        request: Proved,
    ) -> Result<Started, CoreError> {
        let found = Found { headers: &request.headers, document: serde_json::from_slice(&request.body).ok() };
        if let Some(reason) = integration.matches.iter().find_map(|rule| found.mismatch(rule)) {
            return Ok(Started::NotMatched(reason));
        }
        let mut variables = Map::new();
        for (question, extract) in &integration.extract {
            if let Some(answer) = found.text(&extract.part).and_then(|text| extract.answer(&text)) {
                variables.insert(question.clone(), Value::String(answer));
            }
        }
        let trigger = Trigger { kind: TriggerKind::Integration, by: name.to_owned() };
        // Whatever a sender calls its requests: hashed, it is short and another integration's is another. A delivery is the same by its
        // name, whatever is found in it by now.
        let idempotency = request.delivery.map(|delivery| {
            let text = format!("{project}/{name} {delivery}");
            let key = hex::encode(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref());
            Idempotency { key, request_mac: b"integration".to_vec() }
        });
        let task = CreateTask { variables, arguments: Vec::new() };
        let applied = self.inner.scheduler.applied();
        let template = integration.template.as_str();
        let new = self.new_task(&applied, project, template, task, trigger, idempotency)?;
        let made = self.make_task(new).await?;
        Ok(Started::Made { task: made.number, repeated: made.replayed })
    }

    /// The newest requests to an integration.
    pub async fn integration_log(&self, project: &str, name: &str) -> Result<Vec<IntegrationRequest>, CoreError> {
        self.inner.store.integration_requests(project.to_owned(), name.to_owned()).await.map_err(stored)
    }
}

enum Started {
    Made { task: u64, repeated: bool },
    NotMatched(String),
}

/// What a request holds.
struct Found<'a> {
    headers: &'a [(String, String)],
    /// The body, when it is JSON.
    document: Option<Value>,
}

impl Found<'_> {
    /// A part as text; an object or a list as its JSON.
    fn text(&self, part: &RequestPart) -> Option<String> {
        match part {
            RequestPart::Header(name) => {
                let found = self.headers.iter().find(|(known, _)| known == name);
                found.map(|(_, value)| value.clone())
            }
            RequestPart::Json(path) => match path.find(self.document.as_ref()?)? {
                Value::Null => None,
                Value::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            },
        }
    }

    /// Why a request does not hold what it must; nothing of the request itself, which may be anything.
    fn mismatch(&self, rule: &Match) -> Option<String> {
        let place = match &rule.part {
            RequestPart::Header(name) => format!("the header {name}"),
            RequestPart::Json(path) => format!("{path} of the body"),
        };
        let is_json = matches!(rule.part, RequestPart::Json(_));
        let Some(text) = self.text(&rule.part) else {
            return Some(if is_json && self.document.is_none() {
                format!("{place} is not there: the body is no JSON")
            } else {
                format!("{place} is not there")
            });
        };
        match &rule.test {
            MatchTest::Equals(wanted) if *wanted == text => None,
            MatchTest::Equals(wanted) => Some(format!("{place} is not {wanted:?}")),
            MatchTest::Pattern(pattern) if pattern.is_match(&text) => None,
            MatchTest::Pattern(pattern) => Some(format!("{place} does not match {:?}", pattern.as_str())),
        }
    }
}

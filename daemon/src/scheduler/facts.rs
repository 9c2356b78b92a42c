//! What a runner may do: by `runners/NAME.toml` when that exists, else by the token that registered it. Pure.

use forge_api::RunnerStatus;
use forge_config::meant::{RegistrationToken, RunnerRule, Tree};

use super::assign::RunnerFacts;
use crate::store::Registration;

/// What a runner may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Permission {
    pub(crate) project: Option<String>,
    pub(crate) tags: Vec<String>,
    /// 0 is unlimited.
    pub(crate) max_parallel_tasks: u32,
    pub(crate) run_untagged: bool,
    pub(crate) enabled: bool,
}

impl Permission {
    /// What the tree, or else the token that registered it, lets a runner do.
    pub(crate) fn of(tree: &Tree, name: &str, registration: Option<&Registration>) -> Self {
        if let Some(rule) = tree.runners.get(name) {
            return Self::of_rule(rule);
        }
        let Some(registration) = registration else {
            return Self { project: None, tags: Vec::new(), max_parallel_tasks: 0, run_untagged: true, enabled: true };
        };
        // The token's own file counts for as long as it stands; then what it gave at the registration.
        match registration.registered_by.as_deref().and_then(|token| tree.registration_tokens.get(token)) {
            Some(token) => Self::of_token(token),
            None => Self {
                project: registration.project.clone(),
                tags: registration.tags.clone(),
                max_parallel_tasks: registration.token_max,
                run_untagged: registration.tags.is_empty(),
                enabled: true,
            },
        }
    }

    fn of_rule(rule: &RunnerRule) -> Self {
        Self {
            project: rule.project.as_ref().map(|project| project.as_str().to_owned()),
            tags: rule.tags.clone(),
            max_parallel_tasks: rule.max_parallel_tasks,
            run_untagged: rule.run_untagged,
            enabled: rule.enabled,
        }
    }

    /// What a registration token gives to runners without a file.
    pub(crate) fn of_token(token: &RegistrationToken) -> Self {
        Self {
            project: token.project.as_ref().map(|project| project.as_str().to_owned()),
            tags: token.tags.clone(),
            max_parallel_tasks: token.max_parallel_tasks,
            run_untagged: token.tags.is_empty(),
            enabled: true,
        }
    }

    /// The smaller of this and the runner's own limit; 0 is unlimited in both.
    pub(crate) fn limit(&self, own_max: u32) -> u32 {
        match (self.max_parallel_tasks, own_max) {
            (0, limit) | (limit, 0) => limit,
            (one, other) => one.min(other),
        }
    }

    /// The facts that the assignment reads, of a runner of today.
    pub(crate) fn facts(
        self,
        name: &str,
        status: RunnerStatus,
        own_max: u32,
        running: u32,
        asking: u32,
    ) -> RunnerFacts {
        let max_parallel_tasks = self.limit(own_max);
        RunnerFacts {
            name: name.into(),
            project: self.project.map(Into::into),
            tags: self.tags.into(),
            run_untagged: self.run_untagged,
            status,
            max_parallel_tasks,
            running,
            asking,
            resumes: true,
        }
    }
}

/// How a runner stands.
pub(crate) fn status(enabled: bool, draining: bool, in_contact: Option<bool>) -> RunnerStatus {
    match (enabled, in_contact, draining) {
        (false, _, _) => RunnerStatus::Disabled,
        (true, None, _) => RunnerStatus::NeverConnected,
        (true, Some(false), _) => RunnerStatus::Offline,
        (true, Some(true), true) => RunnerStatus::Draining,
        (true, Some(true), false) => RunnerStatus::Online,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_limit_counts_and_zero_is_none() {
        let permission = |max_parallel_tasks| Permission {
            project: None,
            tags: Vec::new(),
            max_parallel_tasks,
            run_untagged: true,
            enabled: true,
        };
        for (file, own, limit) in [(0, 0, 0), (0, 3, 3), (3, 0, 3), (2, 3, 2), (3, 2, 2)] {
            assert_eq!(permission(file).limit(own), limit);
        }
    }
}

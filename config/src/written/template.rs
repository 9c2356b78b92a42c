//! `projects/<project>/templates/<template>.toml` as it is written.

use crate::written::declare::{choice, written};
use crate::written::raw::{RawTable, RawValue};
use crate::written::reader::{Duration, Named, Number, Whole};
use crate::written::sheet::At;

/// How many further attempts a failed one gets at most.
pub(crate) const RETRY_ATTEMPTS_MAX: i64 = 100;

written! {
    /// A template: what a task is made from.
    shown Template {
        /// What it does, for people.
        optional description: String,
        /// The name of the plugin that runs it: `plugins/<executor>.toml`.
        required executor: String,
        /// The repository that is checked out into the workspace.
        optional repository: String,
        /// The branch to check out. Default: the repository's.
        optional branch: String,
        /// What the executor works on.
        optional inventory: String,
        /// Variables and secrets for the job.
        optional environment: String,
        /// Keys that open Ansible's vaults: the name of a key, of the type string or login_password, by the vault's id.
        optional vault_keys: Named<String>,
        /// The tag that a runner must have. Default: the inventory's, else the project's.
        optional runner_tag: String,
        /// How long one attempt may take. Default: `"24h"`.
        optional timeout: Duration,
        /// How long a task may wait for a runner. Default: `"24h"`.
        optional queue_timeout: Duration,
        /// How long a plan may wait for a person to approve or reject it. Default: `"24h"`.
        optional approval_timeout: Duration,
        /// What a task does while another of this template is open. Default: `"queue"`.
        optional concurrency: Concurrency,
        /// What follows when the task's runner is gone. Default: `"fail"`. A job that its runner had not begun goes back to the queue either way.
        optional on_runner_lost: OnRunnerLost,
        /// How long the runner may be unreachable before the attempt is lost. Default: `"2m"`.
        optional runner_grace: Duration,
        /// Further attempts after a failed one. Default: `{ attempts = 0, delay = "30s" }`.
        optional retry: Retry,
        /// -100 to 100, higher first within the project. Default: 0.
        optional priority: Whole<-100, 100>,
        /// The webhook targets that are told of its tasks, in addition to the project's and the runner's.
        optional webhooks: Vec<At<String>>,
        /// Whether a trigger may append arguments. Default: false.
        optional allow_arguments: bool,
        /// What the executor is told, by its own schema.
        optional params: RawTable,
        /// What a trigger asks for, by the name of the variable that the answer becomes.
        optional survey: Named<Question>,
    }
}

choice! {
    /// What a task does while another of the same template is open.
    Concurrency { "queue" => Queue, "parallel" => Parallel, "skip" => Skip, "replace" => Replace, }
}

choice! {
    /// What follows when a task's runner is gone.
    OnRunnerLost { "fail" => Fail, "retry" => Retry, }
}

written! {
    /// Further attempts after a failed one.
    shown Retry {
        /// How many; 0 is none. Default: 0.
        optional attempts: Whole<0, RETRY_ATTEMPTS_MAX>,
        /// How long to wait before each. Default: `"30s"`.
        optional delay: Duration,
    }
}

choice! {
    /// What an answer must be.
    QuestionType {
        "string" => String,
        "integer" => Integer,
        "number" => Number,
        "boolean" => Boolean,
        "choice" => Choice,
        "secret" => Secret,
    }
}

written! {
    /// A question that is asked when a task is started.
    shown Question {
        /// What an answer must be.
        required kind as "type": QuestionType,
        /// Whether an answer is needed. Default: false.
        optional required: bool,
        /// The answer when none is given; not for a secret.
        optional default: RawValue,
        /// What to ask.
        optional description: String,
        /// A regular expression that a string must match; it is not anchored unless it says so.
        optional pattern: String,
        /// What a choice allows.
        optional choices: Vec<At<String>>,
        /// The least that a number may be.
        optional min: Number,
        /// The most that a number may be.
        optional max: Number,
    }
}

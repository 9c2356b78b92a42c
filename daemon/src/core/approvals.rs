//! A person's word on what a task has planned, and the files that the plan carries to the attempt that does it.

use bytes::Bytes;
use forge_api::{AttemptId, AuditAction, CARRY_BYTES_MAX, Carry, DECISION_REASON_BYTES_MAX, Decision, Task, TaskState};

use super::{Actor, AttemptAccess, Core, CoreError, internal, refused, stored};
use crate::carries::Incoming;
use crate::scheduler::task::Happening;
use crate::store::{Note, Refused, StoreError};

/// What an attempt hands in for the one after the approval.
#[derive(Debug)]
pub struct CarryIn {
    incoming: Incoming,
    attempt: AttemptId,
    free_bytes: u64,
    reserve_bytes: u64,
}

impl Core {
    /// Has a task go on with what it has planned. Where `decision` names an attempt, it must be the one that planned.
    pub async fn approve(&self, number: u64, by: impl Into<Actor>, decision: &Decision) -> Result<Task, CoreError> {
        let note = self.task_note(AuditAction::TaskApprove, number, by.into());
        self.decide(number, decision, Happening::Approve { by: note.actor.name.clone() }, note).await
    }

    /// Ends a task that has planned; nothing of the plan is done.
    pub async fn reject(&self, number: u64, by: impl Into<Actor>, decision: &Decision) -> Result<Task, CoreError> {
        let note = self.task_note(AuditAction::TaskReject, number, by.into());
        let reason = decision.reason.clone().filter(|reason| !reason.trim().is_empty());
        self.decide(number, decision, Happening::Reject { by: note.actor.name.clone(), reason }, note).await
    }

    async fn decide(
        &self,
        number: u64,
        decision: &Decision,
        happening: Happening,
        note: Note,
    ) -> Result<Task, CoreError> {
        if decision.reason.as_ref().is_some_and(|reason| reason.len() > DECISION_REASON_BYTES_MAX) {
            return Err(CoreError::Invalid {
                detail: format!("the reason is longer than {DECISION_REASON_BYTES_MAX} bytes"),
                hint: Some("say it shorter".to_owned()),
            });
        }
        let detail = serde_json::json!({ "attempt": decision.attempt, "reason": decision.reason });
        let note = Note { detail: Some(detail), ..note };
        let fate = self.inner.store.decide(number, decision.attempt, happening, note, self.now()).await;
        let fate = match fate {
            Ok(fate) => fate,
            Err(StoreError::Refused(Refused::Open { state } | Refused::Ended { state })) => {
                return Err(undecidable(number, state));
            }
            Err(StoreError::Refused(Refused::Older { newest })) => {
                return Err(CoreError::Conflict {
                    detail: format!("task {number} waits with another plan, that of attempt {newest}"),
                    hint: Some(format!(
                        "look at it with `forge task show {number}` and `forge task log {number}`, and decide again"
                    )),
                });
            }
            Err(error) => return Err(refused(error, "task", &number.to_string(), None)),
        };
        self.inner.scheduler.after(&[fate]);
        self.task(number).await
    }

    /// Begins to take what an attempt carries.
    pub async fn carry_in(&self, access: &AttemptAccess) -> Result<CarryIn, CoreError> {
        let attempt = access.attempt;
        let view = self.inner.store.attempt(attempt).await.map_err(stored)?.ok_or(CoreError::Unauthorized)?;
        if view.closed {
            self.inner.scheduler.count_fenced();
            return Err(CoreError::Gone { attempt, reason: "its task ended or went on without it".to_owned() });
        }
        self.inner.scheduler.heard_of_attempt(attempt);
        let free_bytes = self.inner.logs.free_bytes().unwrap_or_default();
        let reserve_bytes = self.inner.log_limits.disk_reserve_bytes;
        if free_bytes < reserve_bytes.saturating_add(CARRY_BYTES_MAX as u64) {
            return Err(CoreError::StorageFull { free_bytes, reserve_bytes });
        }
        let incoming = self.inner.carries.take(attempt).await;
        let incoming = incoming.map_err(|error| carry_error(&error, attempt, free_bytes, reserve_bytes))?;
        Ok(CarryIn { incoming, attempt, free_bytes, reserve_bytes })
    }

    /// What an approved attempt is to go on with, and its length.
    pub async fn carry_out(&self, access: &AttemptAccess) -> Result<(tokio::fs::File, u64), CoreError> {
        let attempt = access.attempt;
        let carry = self.inner.store.resume(attempt).await.map_err(stored)?;
        let none = || CoreError::NotFound { what: "carry of attempt", name: attempt.to_string(), nearest: None };
        let carry = carry.ok_or_else(none)?;
        let found = self.inner.carries.read(carry.attempt).await.map_err(internal)?;
        found.ok_or_else(|| {
            tracing::error!(%attempt, left_by = %carry.attempt, "the files that an approved plan needs are gone");
            none()
        })
    }

    /// An attempt awaits approval only with what the next one needs.
    pub(super) async fn check_carry(&self, attempt: AttemptId, carry: Option<&Carry>) -> Result<(), CoreError> {
        let detail = match carry {
            None => "it names no carry".to_owned(),
            Some(carry) if carry.attempt != attempt => format!("its carry is attempt {}'s", carry.attempt),
            Some(carry) if self.inner.carries.holds(carry).await.map_err(internal)? => return Ok(()),
            Some(carry) => format!("no carry of {} bytes with SHA-256 {} is here", carry.length, carry.sha256),
        };
        // What a closed attempt reports changes nothing, and is kept as it is.
        let view = self.inner.store.attempt(attempt).await.map_err(stored)?;
        if view.is_some_and(|view| view.closed) { Ok(()) } else { Err(CoreError::CarryMissing { detail }) }
    }
}

impl CarryIn {
    /// Takes more of it.
    pub async fn write(&mut self, bytes: &Bytes) -> Result<(), CoreError> {
        let Self { incoming, attempt, free_bytes, reserve_bytes } = self;
        let taken = incoming.write(bytes).await;
        if taken.map_err(|error| carry_error(&error, *attempt, *free_bytes, *reserve_bytes))? {
            return Ok(());
        }
        Err(CoreError::Invalid {
            detail: format!("what an attempt carries over an approval has {CARRY_BYTES_MAX} bytes at most"),
            hint: Some("carry the plan alone, and leave what can be made again".to_owned()),
        })
    }

    /// It is whole.
    pub async fn keep(self) -> Result<(), CoreError> {
        let Self { incoming, attempt, free_bytes, reserve_bytes } = self;
        incoming.keep().await.map_err(|error| carry_error(&error, attempt, free_bytes, reserve_bytes))
    }
}

/// A disk that is full is nobody's mistake: the runner keeps what it has and sends it again.
fn carry_error(error: &std::io::Error, attempt: AttemptId, free_bytes: u64, reserve_bytes: u64) -> CoreError {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    tracing::error!(%attempt, %error, "what an attempt carries could not be kept");
    if matches!(error.kind(), StorageFull | QuotaExceeded) {
        return CoreError::StorageFull { free_bytes, reserve_bytes };
    }
    internal(error)
}

fn undecidable(number: u64, state: TaskState) -> CoreError {
    let hint = if state.is_final() {
        format!("it is over: `forge task show {number}` says how; `forge task retry {number}` has it plan anew")
    } else {
        format!("`forge task why {number}` says what it waits for")
    };
    CoreError::Conflict { detail: format!("task {number} is {state}: nothing of it awaits approval"), hint: Some(hint) }
}

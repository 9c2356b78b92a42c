//! What a set calendar, a sleep of the machine and a start do to the moments of what is open (`docs/decisions/0016-clock.md`).
//!
//! What is over keeps the moments that were written.

use forge_api::Timestamp;
use rusqlite::{Connection, params};

use super::{Store, StoreError, work};

/// What is moved of a table.
struct Open {
    table: &'static str,
    /// Which rows are open.
    rows: &'static str,
    /// Its moments, each with when it was written: most are that themselves.
    moments: &'static [(&'static str, &'static str)],
}

/// When a task's present state was written.
const STATE_WRITTEN: &str =
    "CASE state WHEN 'queued' THEN ready_at - delay_ms * 1000 WHEN 'assigned' THEN coalesce(cancel_at, assigned_at)
     WHEN 'running' THEN coalesce(cancel_at, started_at) ELSE queued_at END";

/// When a delivery was last written.
const DELIVERY_WRITTEN: &str = "max(created_at, coalesce(tried_at, created_at))";

const OPEN: [Open; 6] = [
    Open {
        table: "tasks",
        rows: "deadline_at IS NOT NULL",
        moments: &[
            ("created_at", "created_at"),
            ("queued_at", "queued_at - iif(queued_at = ready_at, delay_ms * 1000, 0)"),
            ("ready_at", "ready_at - delay_ms * 1000"),
            ("assigned_at", "assigned_at"),
            ("started_at", "started_at"),
            ("cancel_at", "cancel_at"),
            ("deadline_at", STATE_WRITTEN),
            ("approved_at", "approved_at"),
            ("waiting_told_at", "waiting_told_at"),
        ],
    },
    Open {
        table: "attempts INDEXED BY attempts_live",
        rows: "closed_at IS NULL",
        moments: &[("assigned_at", "assigned_at"), ("started_at", "started_at")],
    },
    // Its end or its log is still awaited, and so is what it may still run.
    Open {
        table: "attempts INDEXED BY attempts_sending",
        rows: "closed_at IS NOT NULL AND log_state = 'open' AND started_at IS NOT NULL",
        moments: &[
            ("assigned_at", "assigned_at"),
            ("started_at", "started_at"),
            ("closed_at", "closed_at"),
            ("result_at", "result_at"),
        ],
    },
    Open {
        table: "runners",
        rows: "true",
        moments: &[
            ("registered_at", "registered_at"),
            ("begun_at", "begun_at"),
            ("last_contact_at", "last_contact_at"),
        ],
    },
    Open {
        table: "deliveries",
        rows: "state = 'waiting'",
        moments: &[("created_at", "created_at"), ("next_at", DELIVERY_WRITTEN), ("tried_at", "tried_at")],
    },
    // What has told of a task that still waits is compared with since when it does.
    Open {
        table: "deliveries",
        rows: "state <> 'waiting' AND event IN (SELECT e.id FROM tasks t JOIN events e INDEXED BY events_task ON e.task = t.number
             WHERE t.state = 'queued' AND e.event = 'task.waiting')",
        moments: &[("created_at", "created_at")],
    },
];

/// What is written this much later than the calendar was looked at is still by the calendar that was set, in milliseconds: an operation
/// waits for its turn.
const WRITTEN_LATER_MS: i64 = 2_000;

/// A calendar that was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CalendarSet {
    /// By how much, forward or back below 0.
    pub(crate) jump_ms: i64,
    /// The moment by it.
    pub(crate) now: Timestamp,
    /// How long ago it was not set yet: what was written since may be by it already.
    pub(crate) looked_ms: u64,
}

impl Store {
    /// The calendar was set: nothing that is open is older or younger for it.
    pub(crate) async fn calendar_was_set(&self, set: CalendarSet) -> Result<(), StoreError> {
        self.writer
            .execute(move |connection, marks| {
                marks.replan = true;
                was_set(connection, set)
            })
            .await
    }

    /// The machine slept for so long: what is with a runner could not be heard of meanwhile.
    pub(crate) async fn machine_slept(&self, slept_ms: u64) -> Result<(), StoreError> {
        self.writer.execute(move |connection, _marks| slept(connection, slept_ms)).await
    }
}

fn was_set(connection: &Connection, set: CalendarSet) -> Result<(), StoreError> {
    let CalendarSet { jump_ms, now, looked_ms } = set;
    let jump_micros = jump_ms.saturating_mul(1_000);
    let since = now.plus_millis(-i64::try_from(looked_ms).unwrap_or(i64::MAX)).unix_micros();
    // Nothing that was written by a calendar which was behind is later than that.
    let until = if jump_ms > 0 { i64::MAX } else { now.plus_millis(WRITTEN_LATER_MS).unix_micros() };
    // The ends of the range stand still: a sum beyond them would be no moment.
    let (least, most) = (i64::MIN.saturating_sub(jump_micros.min(0)), i64::MAX.saturating_sub(jump_micros.max(0)));
    for Open { table, rows, moments } in OPEN {
        let moved = moments.iter().map(|(moment, written)| {
            format!("{moment} = iif({written} BETWEEN ?2 AND ?3, {moment}, max(min({moment}, ?5), ?4) + ?1)")
        });
        let sql = format!("UPDATE {table} SET {} WHERE {rows}", moved.collect::<Vec<_>>().join(", "));
        connection.prepare_cached(&sql)?.execute(params![jump_micros, since, until, least, most])?;
    }
    Ok(())
}

fn slept(connection: &Connection, slept_ms: u64) -> Result<(), StoreError> {
    let slept_micros = i64::try_from(slept_ms).unwrap_or(i64::MAX).saturating_mul(1_000);
    connection
        .prepare_cached(
            "UPDATE tasks SET deadline_at = min(deadline_at, ?2) + ?1 WHERE state IN ('assigned', 'running')",
        )?
        .execute(params![slept_micros, i64::MAX.saturating_sub(slept_micros)])?;
    Ok(())
}

/// At a start: what lies in the future was written by a calendar that was ahead of today's. It begins anew, and a delay keeps its length.
pub(super) fn begin(connection: &Connection, now: Timestamp) -> Result<(), StoreError> {
    let micros = now.unix_micros();
    let changed = connection
        .prepare_cached(
            "UPDATE tasks SET deadline_at = deadline_at - max(queued_at - (?1 + delay_ms * 1000), 0),
                 queued_at = min(queued_at, ?1 + delay_ms * 1000), ready_at = min(ready_at, ?1 + delay_ms * 1000),
                 waiting_told_at = min(waiting_told_at, ?1), created_at = min(created_at, ?1)
             WHERE state = 'queued' AND max(queued_at, ready_at) > ?1 + delay_ms * 1000",
        )?
        .execute([micros])?;
    let asking = connection
        .prepare_cached(
            "UPDATE tasks SET deadline_at = deadline_at - (queued_at - ?1), queued_at = ?1, created_at = min(created_at, ?1)
             WHERE state = 'awaiting_approval' AND queued_at > ?1",
        )?
        .execute([micros])?;
    if changed + asking > 0 {
        tracing::warn!(
            tasks = changed + asking,
            "tasks were made by a clock that was ahead of today's: their wait begins anew"
        );
    }
    // The deadlines of these follow from their moments, right after this.
    connection
        .prepare_cached(
            "UPDATE tasks SET assigned_at = min(assigned_at, ?1), started_at = min(started_at, ?1), cancel_at = min(cancel_at, ?1),
                 queued_at = min(queued_at, ?1), created_at = min(created_at, ?1)
             WHERE state IN ('assigned', 'running')",
        )?
        .execute([micros])?;
    connection
        .prepare_cached(
            "UPDATE attempts INDEXED BY attempts_live SET assigned_at = min(assigned_at, ?1), started_at = min(started_at, ?1)
             WHERE closed_at IS NULL",
        )?
        .execute([micros])?;
    connection
        .prepare_cached(
            "UPDATE runners SET registered_at = min(registered_at, ?1), begun_at = min(begun_at, ?1),
                 last_contact_at = min(last_contact_at, ?1)",
        )?
        .execute([micros])?;
    connection
        .prepare_cached(
            "UPDATE deliveries SET next_at = min(next_at, ?1), created_at = min(created_at, ?1), tried_at = min(tried_at, ?1)
             WHERE state = 'waiting' AND max(created_at, coalesce(tried_at, created_at)) > ?1",
        )?
        .execute([micros])?;
    work::let_report(connection, now)
}

#[cfg(test)]
mod tests {
    use super::super::open;
    use super::*;

    /// Moments in seconds.
    const HOUR: i64 = 3_600;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix_micros(second * 1_000_000)
    }

    /// A task in each open state, each from 1,000 s on; the queued one waits for the end of a delay of a minute.
    fn store(folder: &std::path::Path) -> Connection {
        let connection = open::open_writer(&open::database_path(folder)).expect("a database");
        connection
            .execute_batch(
                "INSERT INTO specs VALUES (1, x'00', '{}', 600000, 1800000, 120000, 'fail', 0, 0, 7200000, '[]');
                 INSERT INTO tasks (number, project, template, state, attempt, required_tag, priority, concurrency, revision,
                     trigger_kind, trigger_by, variables, arguments, had_secret_answers, spec, retries_left, created_at, queued_at,
                     ready_at, assigned_at, started_at, finished_at, deadline_at, delay_ms)
                 SELECT value, 'shop', 'many', json_extract('[\"queued\",\"running\",\"awaiting_approval\",\"lost\"]', '$[' || (value - 1) || ']'),
                     1, '', 0, 'parallel', 'r', 'user', 'ann', '{}', '[]', 0, 1, 0, 1000000000, 1000000000, 1000000000, NULL, NULL,
                     NULL, 9000000000, 0 FROM json_each('[1,2,3,4]');
                 UPDATE tasks SET ready_at = 1060000000, queued_at = 1060000000, delay_ms = 60000, deadline_at = 2860000000 WHERE number = 1;
                 UPDATE tasks SET assigned_at = 1000000000, started_at = 1000000000, deadline_at = 1720000000 WHERE number = 2;
                 UPDATE tasks SET deadline_at = 8200000000 WHERE number = 3;
                 UPDATE tasks SET deadline_at = NULL, started_at = 1000000000, finished_at = 1200000000 WHERE number = 4;
                 INSERT INTO attempts (task, attempt, runner, project, template, nonce, token_sha256, grace_ms, assigned_at, started_at)
                 VALUES (2, 1, 'r', 'shop', 'many', x'00', x'00', 1000, 1000000000, 1000000000),
                     (4, 1, 'r', 'shop', 'many', x'00', x'00', 1000, 1000000000, 1000000000);
                 UPDATE attempts SET closed_at = 1200000000 WHERE task = 4;
                 INSERT INTO runners (name, token_sha256, public_key, registered_at, tags, token_max, own_max, one_off, version, last_contact_at)
                 VALUES ('r', x'00', '', 900000000, '[]', 0, 0, 0, '', 1000000000);",
            )
            .expect("tasks");
        connection
    }

    /// Every moment that is looked at below, in seconds.
    fn moments(connection: &Connection) -> Vec<i64> {
        let sql = "SELECT ready_at, 1 FROM tasks WHERE number = 1 UNION ALL SELECT deadline_at, 2 FROM tasks WHERE number = 1
             UNION ALL SELECT started_at, 3 FROM tasks WHERE number = 2 UNION ALL SELECT deadline_at, 4 FROM tasks WHERE number = 2
             UNION ALL SELECT deadline_at, 5 FROM tasks WHERE number = 3 UNION ALL SELECT finished_at, 6 FROM tasks WHERE number = 4
             UNION ALL SELECT started_at, 6 + task FROM attempts UNION ALL SELECT last_contact_at, 11 FROM runners ORDER BY 2";
        let mut statement = connection.prepare(sql).expect("a statement");
        let found = statement.query_map([], |row| row.get::<_, i64>(0)).expect("moments");
        found.map(|micros| micros.expect("a moment") / 1_000_000).collect()
    }

    /// Of what waits for its delay, runs, waits for a person and is lost, in the order of [`moments`].
    const BEFORE: [i64; 9] = [1_060, 2_860, 1_000, 1_720, 8_200, 1_200, 1_000, 1_000, 1_000];

    /// The calendar goes from `was` to `is`, and nothing was written since a second before.
    fn set(connection: &Connection, was: i64, is: i64) {
        let set = CalendarSet { jump_ms: (is - was) * 1_000, now: at(is), looked_ms: 1_000 };
        was_set(connection, set).expect("moved");
    }

    #[test]
    fn a_set_calendar_moves_what_is_open_and_nothing_else() {
        for jump_s in [HOUR, -HOUR, 40 * 365 * 24 * HOUR, -900, -250] {
            let folder = tempfile::tempdir().expect("a folder");
            let connection = store(folder.path());
            set(&connection, 1_300, 1_300 + jump_s);
            let mut expected = BEFORE.map(|moment| moment + jump_s);
            expected[5] = BEFORE[5];
            assert_eq!(moments(&connection), expected, "{jump_s}");
        }
    }

    /// Between the moment in which a calendar is set and the look that finds it tasks are made by it: they stay.
    #[test]
    fn what_was_written_by_the_set_calendar_already_stays() {
        for is in [1_001 + HOUR, 1_001 - HOUR] {
            let folder = tempfile::tempdir().expect("a folder");
            let connection = store(folder.path());
            connection
                .execute(
                    "UPDATE tasks SET ready_at = (?1 + 60) * 1000000, queued_at = (?1 + 60) * 1000000, deadline_at = (?1 + 1860) * 1000000
                     WHERE number = 1",
                    [is],
                )
                .expect("made");
            connection
                .execute(
                    "UPDATE tasks SET started_at = ?1 * 1000000, deadline_at = (?1 + 720) * 1000000 WHERE number = 2",
                    [is],
                )
                .expect("begun");
            set(&connection, 1_001, is);
            let found = moments(&connection);
            assert_eq!(found[..4], [is + 60, is + 1_860, is, is + 720]);
            assert_eq!(found[4], 8_200 + is - 1_001, "what was written before moves");
        }
    }

    #[test]
    fn a_moment_at_the_end_of_the_range_stands_still() {
        let folder = tempfile::tempdir().expect("a folder");
        let connection = store(folder.path());
        connection.execute("UPDATE tasks SET deadline_at = ?1 WHERE number = 1", [i64::MAX]).expect("set");
        set(&connection, 1_300, 1_300 + HOUR);
        set(&connection, 1_300 + HOUR, 1_300);
        let deadline: i64 = connection
            .query_row("SELECT deadline_at FROM tasks WHERE number = 1", [], |row| row.get(0))
            .expect("there");
        assert!(deadline > i64::MAX / 2);
    }

    #[test]
    fn a_sleep_gives_what_is_with_a_runner_time_and_lets_what_waits_wait() {
        let folder = tempfile::tempdir().expect("a folder");
        let connection = store(folder.path());
        slept(&connection, 600_000).expect("moved");
        let mut expected = BEFORE;
        expected[3] += 600;
        assert_eq!(moments(&connection), expected);
    }

    /// A machine without a battery begins in 1970, and its calendar is set a moment later.
    #[test]
    fn a_start_with_a_clock_that_is_behind_begins_waits_anew_and_the_jump_after_it_makes_them_no_longer() {
        let folder = tempfile::tempdir().expect("a folder");
        let connection = store(folder.path());
        begin(&connection, at(7)).expect("begun");
        // The delay of a minute keeps its length; what runs has at least `runner_grace` to be heard of.
        assert_eq!(moments(&connection), [67, 1_867, 7, 727, 7_207, 1_200, 7, 1_000, 7]);
        set(&connection, 20, 5_020);
        assert_eq!(moments(&connection), [5_067, 6_867, 5_007, 5_727, 12_207, 1_200, 5_007, 6_000, 5_007]);
        // By a calendar that is right nothing changes but the time to report.
        let mut expected = moments(&connection);
        begin(&connection, at(5_720)).expect("begun");
        expected[3] = 5_840;
        assert_eq!(moments(&connection), expected);
    }
}

//! Nothing that a claim, a step of a task, a metric or a page asks for reads all of the history: SQLite's own word on it.

use super::*;
use crate::store::{insight, open, retain, work};

/// 2,000 tasks that ended, every hundredth of them another project's.
fn with_history(folder: &std::path::Path) -> Connection {
    let connection = open::open_writer(&open::database_path(folder)).expect("a database");
    connection
        .execute_batch(
            "INSERT INTO specs VALUES (1, x'00', '{\"plugin\":{\"sha256\":\"aa\"}}', 1000, 1000, 1000, 'fail', 0, 0, 1000, '[]');
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
             INSERT INTO tasks (project, template, state, required_tag, priority, concurrency, revision, trigger_kind,
                 trigger_by, variables, arguments, had_secret_answers, spec, retries_left, created_at, queued_at, ready_at,
                 finished_at)
             SELECT iif(i % 100 = 0, 'bank', 'shop'), 'many', 'succeeded', '', 0, 'parallel', 'r', 'user', 'ann', '{}',
                 '[]', 0, 1, 0, i, i, i, i FROM n;",
        )
        .expect("history");
    connection
}

fn page_of(project: Option<&str>, state: Option<TaskState>) -> Listing {
    Listing { project: project.map(str::to_owned), state, limit: 50, ..Listing::default() }
}

#[test]
fn nothing_reads_the_whole_history() {
    let folder = tempfile::tempdir().expect("a folder");
    let connection = with_history(folder.path());
    let listings = [
        page_of(None, None),
        page_of(Some("shop"), None),
        Listing { before: Some(7), ..page_of(Some("shop"), None) },
        Listing { template: Some("many".to_owned()), ..page_of(Some("shop"), None) },
    ];
    let mut statements: Vec<String> = listings.iter().map(|listing| page_sql(listing).0).collect();
    statements.push(insight::bad_ends_sql());
    statements.extend(
        [
            COUNTS,
            insight::NEXT_PROJECT_OF_BAD_ENDS,
            READY,
            NEXT_PROJECT_IN_STATE,
            NEXT_TEMPLATE_IN_STATE,
            NUMBERS_IN_STATE,
            RUNNING_SIBLING,
            work::NEXT_READY,
            work::DUE,
            plan::NEXT_GROUP,
            plan::HEADS,
            plan::LIVE,
            retain::OLDEST,
        ]
        .map(str::to_owned),
    );
    for sql in statements {
        let mut explained = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("a statement");
        let steps = explained.raw_query().mapped(|row| row.get::<_, String>(3)).collect::<Result<Vec<_>, _>>();
        for step in steps.expect("a plan") {
            // The newest of all are read along the numbers themselves, and what runs along the index of what runs.
            let bounded = step.starts_with("SEARCH ") && !step.contains("PRIMARY KEY")
                || step.ends_with("USING INDEX attempts_live")
                || step == "SCAN task_counts"
                || step == "SCAN t" && sql.contains("WHERE true ORDER BY t.number DESC LIMIT")
                || step.contains("SUBQUERY")
                || step.contains("subquery")
                // The runner of each task on a page.
                || step == "SEARCH a USING PRIMARY KEY (task=? AND attempt=?)";
            assert!(bounded, "{step}: {sql}");
        }
    }
}

/// What is bound changes no plan: a statement that is used again is not prepared again.
#[test]
fn a_statement_is_prepared_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let connection = with_history(folder.path());
    let mut statement =
        connection.prepare("SELECT attempt FROM tasks WHERE number = ?1 AND state = ?2").expect("prepared");
    for (number, state) in [(1, "succeeded"), (2, "queued"), (3, "running")] {
        let _found = statement.query_row(params![number, state], |row| row.get::<_, u32>(0)).optional().expect("read");
    }
    assert_eq!(statement.get_status(rusqlite::StatementStatus::RePrepare), 0);
}

#[test]
fn pages_hold_what_may_be_seen_newest_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let connection = with_history(folder.path());
    let numbers = |listing: &Listing| -> Vec<u64> {
        tasks(&connection, listing).expect("a page").iter().map(|task| task.number).collect()
    };
    let visible = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    let bank: Vec<u64> = (1..=20).rev().map(|hundred| hundred * 100).collect();
    assert_eq!(numbers(&Listing { visible: visible(&["none", "bank"]), ..page_of(None, None) }), bank);
    let in_state = page_of(None, Some(TaskState::Succeeded));
    assert_eq!(numbers(&in_state), (1_951..=2_000).rev().collect::<Vec<u64>>());
    assert_eq!(numbers(&page_of(None, Some(TaskState::Running))), [0; 0]);
    let both = Listing { visible: visible(&["shop", "bank"]), before: Some(102), ..page_of(None, None) };
    assert_eq!(numbers(&both), (52..=101).rev().collect::<Vec<u64>>());
    assert_eq!(numbers(&Listing { visible: visible(&["shop"]), ..page_of(Some("bank"), None) }), [0; 0]);
    assert_eq!(numbers(&page_of(Some("bank"), Some(TaskState::Succeeded))), bank);
}

/// Two templates take turns, and what one of them seldom is stands far back.
#[test]
fn a_templates_tasks_in_a_state_are_found_whatever_else_there_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let connection = with_history(folder.path());
    connection
        .execute_batch(
            "UPDATE tasks SET template = 'few' WHERE number % 2 = 0 AND project = 'shop';
             UPDATE tasks SET state = 'failed' WHERE number IN (2, 4, 5, 1999)",
        )
        .expect("changed");
    let numbers = |template: Option<&str>, state: TaskState, before: Option<u64>, limit: u32| -> Vec<u64> {
        let template = template.map(str::to_owned);
        let listing = Listing { template, before, limit, ..page_of(Some("shop"), Some(state)) };
        tasks(&connection, &listing).expect("a page").iter().map(|task| task.number).collect()
    };
    let failed = TaskState::Failed;
    assert_eq!(numbers(Some("few"), failed, None, 50), [4, 2]);
    assert_eq!(numbers(Some("few"), failed, Some(4), 50), [2]);
    assert_eq!(numbers(Some("many"), failed, None, 50), [1_999, 5]);
    assert_eq!(numbers(None, failed, None, 3), [1_999, 5, 4], "merged, however they take turns");
    assert_eq!(numbers(None, failed, Some(4), 3), [2]);
    assert_eq!(numbers(Some("many"), TaskState::Succeeded, None, 3), [1_997, 1_995, 1_993]);
    assert_eq!(numbers(None, TaskState::Succeeded, Some(1_999), 4), [1_998, 1_997, 1_996, 1_995]);
    assert_eq!(numbers(Some("none"), failed, None, 50), [0; 0]);
}

#[test]
fn the_counts_follow_every_change() {
    let folder = tempfile::tempdir().expect("a folder");
    let connection = with_history(folder.path());
    connection.execute_batch("UPDATE tasks SET state = 'failed' WHERE number <= 10").expect("changed");
    connection.execute_batch("DELETE FROM tasks WHERE number > 1990").expect("deleted");
    let counts = counts(&connection).expect("counts");
    assert_eq!((counts[&TaskState::Succeeded], counts[&TaskState::Failed], counts[&TaskState::Lost]), (1_980, 10, 0));
}

/// In a template that runs in parallel others go beside it, and it is not among them.
#[test]
fn what_was_approved_stands_apart_and_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let connection = with_history(folder.path());
    connection
        .execute_batch(
            "UPDATE tasks SET state = 'queued', deadline_at = 9 WHERE number IN (11, 12);
             UPDATE tasks SET resume_attempt = 1 WHERE number = 12;",
        )
        .expect("changed");
    let groups = plan::groups(&connection, 10, Timestamp::from_unix_micros(5_000)).expect("groups");
    let found: Vec<(bool, Vec<u64>)> = groups
        .iter()
        .map(|group| (group.need.resume, group.waiting.iter().map(|waiting| waiting.task).collect()))
        .collect();
    assert_eq!(found, [(true, vec![12]), (false, vec![11])]);
}

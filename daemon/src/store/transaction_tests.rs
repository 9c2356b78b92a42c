//! Transactions of the writer with planners that refuse, panic and foretell.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use forge_api::{AuditActor, Trigger, TriggerKind};

use super::*;
use crate::scheduler::assign::Waiting;
use crate::scheduler::spec::sample;
use crate::store::events::{self, NewEvent};
use crate::store::writer::Writer;
use crate::store::{Actor, NewTask, WriterThread, create, open};

/// Panics whenever it is asked.
struct Panics;

impl Teller for Panics {}

impl Planner for Panics {
    fn free_slots(&self) -> u32 {
        1
    }
    fn declares(&self, _project: &str) -> bool {
        true
    }
    fn plan(&self, _facts: plan::QueueFacts) -> plan::Plan {
        panic!("on purpose")
    }
    fn outdated(&self, _runner: &str) {}
    fn committed(&self, _assigned: Vec<Assigned>, _foretold: ToldWhenCommitted) {}
    fn now(&self) -> forge_api::Timestamp {
        panic!("on purpose")
    }
}

fn start(folder: &std::path::Path, planner: Arc<dyn Planner>) -> (Writer, WriterThread) {
    let lock = open::lock(folder).expect("ours");
    let path = open::database_path(folder);
    let connection = open::open_writer(&path).expect("a database");
    Writer::start(connection, path, planner, lock).expect("starts")
}

async fn stop(writer: Writer, thread: WriterThread) {
    drop(writer);
    tokio::task::spawn_blocking(move || thread.join()).await.expect("it ends");
}

/// Tells one target of everything but of what it panics over, while it is told that it may.
#[derive(Default)]
struct Tells(AtomicBool);

impl Teller for Tells {
    fn tells(&self) -> Option<bool> {
        self.0.load(Ordering::SeqCst).then_some(true)
    }
    fn targets(&self, tidings: &outbox::Tidings<'_>) -> Vec<String> {
        assert_ne!(tidings.event, "config.failed", "on purpose");
        vec!["ops".to_owned()]
    }
}

impl Planner for Tells {
    fn free_slots(&self) -> u32 {
        0
    }
    fn declares(&self, _project: &str) -> bool {
        true
    }
    fn plan(&self, _facts: plan::QueueFacts) -> plan::Plan {
        panic!("there is no slot")
    }
    fn outdated(&self, _runner: &str) {}
    fn committed(&self, _assigned: Vec<Assigned>, _foretold: ToldWhenCommitted) {}
    fn now(&self) -> forge_api::Timestamp {
        forge_api::Timestamp::from_unix_micros(7)
    }
}

async fn happens(writer: &Writer, event: &'static str) -> Result<(), StoreError> {
    let now = forge_api::Timestamp::from_unix_micros(1);
    let event = NewEvent { event, at: now, body: serde_json::json!({}), runner: None, targets: None };
    writer.execute(move |connection, _marks| events::record(connection, &event)).await
}

async fn told(writer: &Writer) -> Vec<String> {
    let told = writer.execute(|connection, _marks| {
        let sql = "SELECT e.event FROM deliveries d JOIN events e ON e.id = d.event ORDER BY d.number";
        let mut statement = connection.prepare(sql)?;
        let found = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(found)
    });
    told.await.expect("read")
}

#[tokio::test]
async fn what_cannot_be_put_out_is_taken_back_and_nothing_of_its_neighbours() {
    let folder = tempfile::tempdir().expect("a folder");
    let planner = Arc::new(Tells::default());
    planner.0.store(true, Ordering::SeqCst);
    let (writer, thread) = start(folder.path(), planner);
    let (first, second, third) = tokio::join!(
        happens(&writer, "config.applied"),
        happens(&writer, "config.failed"),
        happens(&writer, "runner.online")
    );
    assert!(first.is_ok() && third.is_ok());
    assert!(matches!(second, Err(StoreError::Panicked)), "{second:?}");
    assert_eq!(told(&writer).await, ["config.applied", "runner.online"]);
    stop(writer, thread).await;
}

#[tokio::test]
async fn what_happens_while_no_tree_serves_is_told_when_one_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let planner = Arc::new(Tells::default());
    planner.0.store(true, Ordering::SeqCst);
    let (writer, thread) = start(folder.path(), Arc::clone(&planner) as Arc<dyn Planner>);
    happens(&writer, "config.applied").await.expect("kept");
    planner.0.store(false, Ordering::SeqCst);
    happens(&writer, "runner.online").await.expect("kept");
    assert_eq!(told(&writer).await, ["config.applied"], "nobody knows to whom");
    planner.0.store(true, Ordering::SeqCst);
    happens(&writer, "runner.idle").await.expect("kept");
    assert_eq!(told(&writer).await, ["config.applied", "runner.online", "runner.idle"]);
    stop(writer, thread).await;
}

#[tokio::test]
async fn what_panics_in_the_writer_changes_nothing_and_ends_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (writer, thread) = start(folder.path(), Arc::new(Panics));
    let insert = "INSERT INTO registration_uses VALUES (?1, 1)";
    let panicked = writer
        .execute(move |connection, _marks| -> Result<(), StoreError> {
            connection.execute(insert, [vec![1_u8]])?;
            panic!("on purpose")
        })
        .await;
    assert!(matches!(panicked, Err(StoreError::Panicked)));
    let kept = writer.execute(move |connection, marks| {
        marks.replan = true;
        Ok(connection.execute(insert, [vec![2_u8]])?)
    });
    assert_eq!(kept.await.expect("it writes on, and its planner's panic is its own"), 1);
    let count = writer.execute(|connection, _marks| {
        Ok(connection.query_row("SELECT count(*) FROM registration_uses", [], |row| row.get::<_, u32>(0))?)
    });
    assert_eq!(count.await.expect("counts"), 1);
    stop(writer, thread).await;
}

/// What a planner saw that gives the tasks of a queue to one runner.
#[derive(Default)]
struct Foretells {
    path: PathBuf,
    /// By what was foretold, how many attempts others could read then.
    foretold: Mutex<Vec<(Vec<AttemptId>, u32)>>,
    /// Who was told when it was committed, and how many attempts others could read then.
    committed: Mutex<Vec<(Vec<String>, u32)>>,
}

impl Foretells {
    fn seen_by_others(&self) -> u32 {
        let reader = open::open_reader(&self.path).expect("a reader");
        reader.query_row("SELECT count(*) FROM attempts", [], |row| row.get(0)).expect("counts")
    }
}

impl Teller for Foretells {}

impl Planner for Foretells {
    fn free_slots(&self) -> u32 {
        16
    }
    fn declares(&self, _project: &str) -> bool {
        true
    }
    fn plan(&self, facts: plan::QueueFacts) -> plan::Plan {
        let waiting = facts.groups.iter().flat_map(|group| &group.waiting);
        let choose =
            |waiting: &Waiting| plan::Choice { task: waiting.task, runner: "ny-1".to_owned(), key: 1, nonce: [0; 16] };
        plan::Plan { choices: waiting.map(choose).collect(), token_hash: Box::new(|_id, _nonce| [0; 32]) }
    }
    fn outdated(&self, runner: &str) {
        panic!("{runner} is as it was")
    }
    fn foretell(&self, runner: &str, deliveries: Vec<(AttemptId, Delivery)>) -> Option<oneshot::Sender<()>> {
        assert_eq!(runner, "ny-1");
        let ids = deliveries.iter().map(|(id, _)| *id).collect();
        self.foretold.lock().expect("whole").push((ids, self.seen_by_others()));
        Some(oneshot::channel().0)
    }
    fn committed(&self, _assigned: Vec<Assigned>, foretold: ToldWhenCommitted) {
        self.committed.lock().expect("whole").push((foretold.into_keys().collect(), self.seen_by_others()));
    }
    fn now(&self) -> forge_api::Timestamp {
        forge_api::Timestamp::from_unix_micros(5)
    }
}

fn task() -> NewTask {
    NewTask {
        spec: sample(),
        revision: "r".to_owned(),
        revision_commit: None,
        trigger: Trigger { kind: TriggerKind::User, by: "ann".to_owned() },
        actor: Actor::new(AuditActor::Access, "ann"),
        variables: serde_json::Map::new(),
        arguments: Vec::new(),
        secret_answers: None,
        idempotency: None,
    }
}

#[tokio::test]
async fn a_few_attempts_are_foretold_before_they_are_committed_and_many_are_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let planner = Arc::new(Foretells { path: open::database_path(folder.path()), ..Foretells::default() });
    let (writer, thread) = start(folder.path(), Arc::clone(&planner) as Arc<dyn Planner>);
    let registered = writer.execute(|connection, _marks| {
        let row = "1, 'ny-1', x'01', '', 1, '[]', 0, 0, 0, 0, ''";
        let columns =
            "key, name, token_sha256, public_key, registered_at, tags, token_max, own_max, one_off, draining, version";
        Ok(connection.execute(&format!("INSERT INTO runners ({columns}) VALUES ({row})"), [])?)
    });
    registered.await.expect("a runner");
    let make = async |tasks: u64| {
        let work = move |connection: &Connection, marks: &mut Marks| {
            marks.replan = true;
            for _ in 0..tasks {
                create::create(connection, &task(), forge_api::Timestamp::from_unix_micros(5))?;
            }
            Ok(())
        };
        writer.execute(work).await.expect("made");
    };
    let most = u64::try_from(FORETOLD_MAX).expect("few");
    make(most).await;
    make(most + 1).await;
    stop(writer, thread).await;
    let first = (1..=most).map(|task| AttemptId { task, attempt: 1 }).collect();
    assert_eq!(*planner.foretold.lock().expect("whole"), [(first, 0)], "nobody else can read them then");
    let (few, all) = (u32::try_from(most).expect("few"), u32::try_from(2 * most + 1).expect("few"));
    let told = [(vec!["ny-1".to_owned()], few), (Vec::new(), all)];
    assert_eq!(*planner.committed.lock().expect("whole"), told, "everybody can read them by then");
}

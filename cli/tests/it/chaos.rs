//! Everything dies, again and again, with a bad network between: afterwards every task has ended, no log byte is missing or
//! doubled, no process and no descriptor is left. Somebody cancels some of the tasks meanwhile, and those end by that.
//!
//! `FORGE_CHAOS_TASKS`, `FORGE_CHAOS_KILLS` and `FORGE_CHAOS_SEED` make it longer or another one; a failure says its seed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Daemon, Proxy, Random, World, free_port, wait_for};
use crate::wire::ByHand;

/// The runners.
const RUNNERS: [&str; 3] = ["ny-1", "ny-2", "ny-3"];

/// The states in which a task has ended.
const ENDS: [&str; 7] = ["succeeded", "failed", "canceled", "timed_out", "lost", "expired", "skipped"];

/// In so many of a hundred cases somebody cancels a task while all this goes on.
const CANCELED_PERCENT: u64 = 5;

/// A cancel comes at most so many kills after its task was made.
const CANCEL_AFTER_KILLS_MAX: u64 = 4;

/// What is killed. Each has its turn at first; then it is what the seed says.
const VICTIMS: [Victim; 5] = [Victim::Supervisor, Victim::Launcher, Victim::Runner, Victim::Daemon, Victim::Supervisor];

/// How many lines a job prints before its last one.
const LINES: u32 = 60;

/// How many tasks are run when all is quiet, to see what each leaves open.
const TASKS_AFTERWARDS: usize = 20;

/// A descriptor more or less is a connection under way; a leak is one for each task or kill.
const DESCRIPTORS_MORE_MAX: u32 = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Daemon,
    Runner,
    /// The process that a runner's supervisors are forked from.
    Launcher,
    Supervisor,
}

/// A cancel that is to come, or what the daemon said to it.
#[derive(Clone, Debug)]
enum Cancel {
    /// After so many kills in all.
    Due(u64),
    /// It took it: the task is to end as canceled.
    Accepted,
    /// The task had ended, as this.
    TooLate(String),
}

fn number(variable: &str, default: u64) -> u64 {
    let Ok(text) = std::env::var(variable) else { return default };
    text.parse().unwrap_or_else(|error| panic!("{variable} = {text:?}: {error}"))
}

/// Processes by what `is_one` says of their folder in /proc.
fn processes(is_one: impl Fn(&std::path::Path) -> bool) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("listed").flatten();
    let numbered = entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())));
    numbered.filter(|(_, path)| is_one(path)).map(|(pid, _)| pid).collect()
}

fn is_forge(proc: &std::path::Path) -> bool {
    std::fs::read_link(proc.join("exe")).is_ok_and(|exe| exe.ends_with("forge"))
}

fn parent(proc: &std::path::Path) -> Option<u32> {
    let stat = std::fs::read_to_string(proc.join("stat")).ok()?;
    // The name before it, in brackets, may hold anything.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The launchers of these runners, where there is one by now. A supervisor whose own launcher is dead is the runner's child, too: its last words go
/// to a file in memory.
fn launchers(runners: &[u32]) -> Vec<u32> {
    processes(|proc| {
        let words = std::fs::read_link(proc.join("fd/2"));
        let is_supervisor = words.is_ok_and(|words| words.to_string_lossy().contains("forge-last-words"));
        is_forge(proc) && parent(proc).is_some_and(|parent| runners.contains(&parent)) && !is_supervisor
    })
}

/// Kills a process that may have ended by itself just now.
fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// Supervisors of this world's runners: they work in their attempt's folder.
fn supervisors(world: &World) -> Vec<u32> {
    let attempts: Vec<PathBuf> = RUNNERS.iter().map(|name| world.path(name).join("tmp")).collect();
    processes(|proc| {
        let Ok(folder) = std::fs::read_link(proc.join("cwd")) else { return false };
        is_forge(proc) && attempts.iter().any(|attempts| folder.starts_with(attempts))
    })
}

/// Processes of this world's jobs.
fn jobs(world: &World) -> Vec<u32> {
    let mark = format!("FORGE_WORKSPACE={}", world.path("").display());
    processes(|proc| {
        let environment = std::fs::read(proc.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry.starts_with(mark.as_bytes()))
    })
}

/// Processes that hide: without an environment, in a session of their own, known by how long they sleep.
fn escapees(sleep_s: u64) -> Vec<u32> {
    let wanted = format!("sleep\0{sleep_s}\0");
    processes(|proc| std::fs::read(proc.join("cmdline")).is_ok_and(|line| line == wanted.as_bytes()))
}

/// Adds the sessions that the runners' files name now: each start is one, and a file keeps the latest of them.
fn note_sessions(world: &World, sessions: &mut BTreeSet<String>) {
    for name in RUNNERS {
        // One that was killed at once has not written any.
        let text = std::fs::read_to_string(world.path(name).join("tmp/session")).unwrap_or_default();
        sessions.extend(text.lines().map(|session| format!("forge-{session}-")));
    }
}

/// Workspaces, and folders of secret files in memory, of this world's runners.
fn left_behind(world: &World, sessions: &BTreeSet<String>) -> Vec<PathBuf> {
    let inside = |folder: PathBuf| std::fs::read_dir(folder).expect("listed").flatten().map(|entry| entry.path());
    assert!(sessions.len() >= RUNNERS.len(), "{sessions:?}");
    let is_secret = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        sessions.iter().any(|session| name.starts_with(session))
    };
    let workspaces = RUNNERS.iter().flat_map(|name| inside(world.path(name).join("tmp/workspaces")));
    workspaces.chain(inside("/dev/shm".into()).filter(is_secret)).collect()
}

/// How many descriptors a process has, without logs that were asked about a moment ago: those are closed within a minute.
fn descriptors(pid: u32) -> u32 {
    open_files(pid).iter().filter(|(target, _)| !target.ends_with(".log")).map(|(_, count)| count).sum()
}

/// What its descriptors are, and how many of each.
fn open_files(pid: u32) -> BTreeMap<String, u32> {
    let mut open: BTreeMap<String, u32> = BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let target = std::fs::read_link(entry.path()).unwrap_or_default().to_string_lossy().into_owned();
        let kind = target.split(":[").next().unwrap_or_default().to_owned();
        *open.entry(kind).or_default() += 1;
    }
    open
}

/// Leaves a process that hides, prints numbered lines, and tells of another process of the same task that runs at the same time. `then` is
/// what it does before its last line.
fn script(world: &World, sleep_s: u64, then: &str) -> String {
    let folder = world.path("at-work");
    std::fs::create_dir_all(&folder).expect("a folder");
    format!(
        "env -i setsid sleep {sleep_s} > /dev/null 2>&1 < /dev/null &\n\
         cd {folder}\n\
         for other in $FORGE_TASK.*; do\n\
         \x20 pid=${{other##*.}}\n\
         \x20 if [ -e \"$other\" ] && tr '\\0' '\\n' 2>/dev/null < /proc/$pid/environ | grep -qx FORGE_TASK=$FORGE_TASK; then\n\
         \x20   echo \"task $FORGE_TASK: $$ beside $pid\" >> twice\n\
         \x20 fi\n\
         done\n\
         : > $FORGE_TASK.$$\n\
         for i in $(seq 1 {LINES}); do echo \"line $i\"; sleep 0.01; done\n\
         {then}\n\
         rm -f $FORGE_TASK.$$; echo last",
        folder = folder.display()
    )
}

/// The lines of a log are the script's, each once and in order; a log that was cut short is so at its end. `end` is how its attempt ended.
fn check_log(end: &str, log: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(log);
    let own = text.lines().filter(|line| !line.starts_with("[forge] "));
    let lines: Vec<&str> = own.collect();
    let expected: Vec<String> = (1..=LINES).map(|i| format!("line {i}")).chain(["last".to_owned()]).collect();
    let is_whole = lines.len() == expected.len();
    let (last, before) = match lines.split_last() {
        Some((last, before)) => (*last, before),
        None => ("", &[][..]),
    };
    // A process that is killed may leave half a line.
    let fits = before.iter().zip(&expected).all(|(line, expected)| line == expected)
        && expected.get(before.len()).is_some_and(|expected| expected.starts_with(last));
    if fits && (is_whole || end != "succeeded") { Ok(()) } else { Err(format!("{end}: {text}")) }
}

/// The log of every attempt, earlier ones of a task too, is what its process has printed, and there to its last byte by its runner's own SHA-256
/// where its runner has reported. Answers how many attempts were not their task's last, and why some have failed.
fn check_attempts(world: &World, daemon: &Daemon, numbers: &[u64], seed: u64) -> (usize, Vec<String>) {
    let by_hand = ByHand::new(daemon);
    let (mut earlier, mut failures) = (0, Vec::new());
    for task in numbers {
        let path = format!("/tasks/{task}/attempts");
        let attempts = by_hand.done("GET", &path, world.admin_token(), &Value::Null);
        let attempts = attempts["items"].as_array().expect("attempts");
        for attempt in attempts {
            let what = format!("seed {seed}: task {task}: {attempt}");
            assert!(attempt["reported_at"].is_null() || attempt["log_state"] == "whole", "{what}");
            let path = format!("/tasks/{task}/log?attempt={}", attempt["number"]);
            let log = by_hand.bytes(&path, world.admin_token());
            assert_eq!(attempt["log_bytes"].as_u64(), Some(log.len() as u64), "{what}");
            let end = attempt["outcome"].as_str().unwrap_or("not reported");
            check_log(end, &log).unwrap_or_else(|words| panic!("{what}: {words}"));
            if end == "failed" {
                failures.push(attempt["reason"].to_string());
            }
        }
        earlier += attempts.len().saturating_sub(1);
    }
    (earlier, failures)
}

/// Cancels what is due by now.
fn cancel_due(world: &World, daemon: &Daemon, cancels: &mut BTreeMap<u64, Cancel>, killed: u64) {
    let by_hand = ByHand::new(daemon);
    for (task, cancel) in cancels.iter_mut().filter(|(_, cancel)| matches!(cancel, Cancel::Due(at) if *at <= killed)) {
        let path = format!("/tasks/{task}/cancel");
        *cancel = match by_hand.call("POST", &path, world.admin_token(), &Value::Null) {
            (200, _) => Cancel::Accepted,
            (409, _) => Cancel::TooLate(world.task(daemon, *task)["state"].as_str().expect("a state").to_owned()),
            other => panic!("the cancel of task {task}: {other:?}"),
        };
    }
}

/// A cancel that was taken is how the task ended, and one that came too late changed nothing.
fn check_cancel(cancel: &Cancel, state: &str) -> Result<(), String> {
    match cancel {
        Cancel::Accepted if state == "canceled" => Ok(()),
        Cancel::TooLate(ended) if state == ended && ENDS.contains(&state) => Ok(()),
        Cancel::Due(_) | Cancel::Accepted | Cancel::TooLate(_) => Err(format!("{cancel:?}, and it is {state}")),
    }
}

#[test]
fn whatever_is_killed_every_task_ends_and_nothing_is_lost_doubled_or_left() {
    let seed = number("FORGE_CHAOS_SEED", 20_261_121);
    let (tasks, kills) = (number("FORGE_CHAOS_TASKS", 60), number("FORGE_CHAOS_KILLS", 15));
    let mut random = Random::new(seed);
    let world = World::new();
    // A number that no other process of this machine sleeps for.
    let sleep_s = 1_000_000 + u64::from(std::process::id());
    let short = script(&world, sleep_s, "true");
    let rest = "runner_grace = \"10s\"\nqueue_timeout = \"1h\"\nconcurrency = \"parallel\"";
    let again = format!("{rest}\non_runner_lost = \"retry\"\nretry = {{ attempts = 1, delay = \"1s\" }}");
    world.template("once", &format!("{rest}\ntimeout = \"60s\""), &short);
    world.template("again", &format!("{again}\ntimeout = \"60s\""), &short);
    // It does not end by itself: only somebody who cancels it ends it, or what is killed.
    world.template("endless", &format!("{again}\ntimeout = \"1h\""), &script(&world, sleep_s, "tail -f /dev/null"));
    let port = free_port();
    // Every attempt's log is asked for at the end, one after the other.
    world.daemon_settings_of(port, "[limits]\nrequests_per_second = 0\n");
    let mut daemon = world.daemon();
    let proxy = Proxy::start(port, random.next());
    let through = Daemon {
        api: format!("https://127.0.0.1:{}", proxy.port()),
        ca_file: daemon.ca_file.clone(),
        process: crate::harness::Process::start(std::process::Command::new("true"), &world.path("out"), "nothing"),
    };
    let mut runners: BTreeMap<&str, _> = BTreeMap::new();
    for name in RUNNERS {
        let settings = world.runner_settings(&daemon, name, "max_parallel_tasks = 4");
        world.register(&settings).expect_code(0);
        world.runner_settings(&through, name, "max_parallel_tasks = 4");
        runners.insert(name, world.start_runner(name));
    }
    for name in RUNNERS {
        world.wait_runner(&daemon, name, "online");
    }
    let before = descriptors(daemon.process.pid());

    let mut numbers = Vec::new();
    let mut killed: BTreeMap<Victim, u64> = BTreeMap::new();
    let mut cancels: BTreeMap<u64, Cancel> = BTreeMap::new();
    let mut sessions = BTreeSet::new();
    let mut rounds = 0;
    while killed.values().sum::<u64>() < kills {
        rounds += 1;
        assert!(rounds <= 20 * kills, "seed {seed}: there is nothing to kill: {killed:?}");
        note_sessions(&world, &mut sessions);
        let count = killed.values().sum::<u64>();
        while (numbers.len() as u64) < tasks * (count + 1) / kills {
            let is_canceled = numbers.is_empty() || random.between(0, 99) < CANCELED_PERCENT;
            let template = match random.between(0, 3) {
                0 | 1 if is_canceled => "endless",
                0 | 2 => "once",
                _ => "again",
            };
            let number = world.start_task(&daemon, template);
            numbers.push(number);
            if is_canceled {
                cancels.insert(number, Cancel::Due(count + random.between(0, CANCEL_AFTER_KILLS_MAX)));
            }
        }
        std::thread::sleep(Duration::from_millis(random.between(50, 500)));
        cancel_due(&world, &daemon, &mut cancels, count);
        let by_chance = *random.pick(&VICTIMS).expect("some");
        let victim = usize::try_from(count).ok().and_then(|count| VICTIMS.get(count).copied()).unwrap_or(by_chance);
        match victim {
            Victim::Daemon => {
                daemon.process.kill_hard();
                daemon = world.daemon();
            }
            Victim::Runner => {
                let name = *random.pick(&RUNNERS).expect("some");
                runners.get_mut(name).expect("known").process.kill_hard();
                std::thread::sleep(Duration::from_millis(random.between(0, 1_500)));
                runners.insert(name, world.start_runner(name));
            }
            Victim::Launcher => {
                let runners: Vec<u32> = runners.values().map(|runner| runner.process.pid()).collect();
                let living = launchers(&runners);
                let Some(pid) = random.pick(&living) else { continue };
                kill(*pid);
            }
            Victim::Supervisor => {
                let living = supervisors(&world);
                let Some(pid) = random.pick(&living) else { continue };
                kill(*pid);
            }
        }
        *killed.entry(victim).or_default() += 1;
    }
    cancel_due(&world, &daemon, &mut cancels, u64::MAX);
    proxy.calm_down();

    let mut states: BTreeMap<String, u32> = BTreeMap::new();
    for task in &numbers {
        let ended = wait_for(&format!("task {task} ends (seed {seed})"), || {
            let task = world.task(&daemon, *task);
            ENDS.contains(&task["state"].as_str()?).then_some(task)
        });
        let state = ended["state"].as_str().expect("a state").to_owned();
        if let Some(cancel) = cancels.get(task) {
            check_cancel(cancel, &state).unwrap_or_else(|words| panic!("seed {seed}: task {task}: {words}\n{ended}"));
        }
        *states.entry(state).or_default() += 1;
    }
    wait_for(&format!("no process of a job or a supervisor is left (seed {seed})"), || {
        (jobs(&world).is_empty() && supervisors(&world).is_empty() && escapees(sleep_s).is_empty()).then_some(())
    });
    note_sessions(&world, &mut sessions);
    let spooled = |name: &&str| {
        let entries = std::fs::read_dir(world.path(name).join("tmp/attempts")).expect("listed").flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().contains('-')).count()
    };
    wait_for(&format!("everything is handed in (seed {seed})"), || {
        (RUNNERS.iter().map(spooled).sum::<usize>() == 0).then_some(())
    });
    let left = || left_behind(&world, &sessions);
    wait_for(&format!("no workspace and no secret file is left (seed {seed}): {:?}", left()), || {
        left().is_empty().then_some(())
    });
    for task in &numbers {
        let shown = world.task(&daemon, *task);
        let state = shown["state"].as_str().expect("a state");
        let log = world.log(&daemon, *task);
        assert_eq!(shown["log_bytes"].as_u64(), Some(log.len() as u64), "seed {seed}: {shown}");
        check_log(state, &log).unwrap_or_else(|words| panic!("seed {seed}: task {task}: {words}\n{shown}"));
    }
    let (earlier, failures) = check_attempts(&world, &daemon, &numbers, seed);
    // No job here fails by itself: what else dies is nothing that an attempt has to end by.
    let most = killed.get(&Victim::Supervisor).copied().unwrap_or_default();
    assert!(failures.len() as u64 <= most, "seed {seed}: {most} supervisors were killed: {failures:#?}");
    let twice = std::fs::read_to_string(world.path("at-work/twice")).unwrap_or_default();
    assert_eq!(twice, "", "seed {seed}: a task ran twice at a time");
    let open_before: Vec<(u32, u32)> =
        runners.values().map(|runner| (runner.process.pid(), descriptors(runner.process.pid()))).collect();
    let quiet: Vec<u64> = (0..TASKS_AFTERWARDS).map(|_| world.start_task(&daemon, "once")).collect();
    for task in quiet {
        world.wait_state(&daemon, task, "succeeded");
    }
    for (runner, before) in open_before {
        wait_for(&format!("a runner has the descriptors that it had (seed {seed}): {:#?}", open_files(runner)), || {
            (descriptors(runner) <= before + 8).then_some(())
        });
    }
    let pid = daemon.process.pid();
    wait_for(&format!("the daemon has the descriptors that it had (seed {seed}): {:#?}", open_files(pid)), || {
        (descriptors(pid) <= before + DESCRIPTORS_MORE_MAX).then_some(())
    });
    assert!(states.contains_key("succeeded"), "seed {seed}: {states:?}");
    assert!(proxy.faults() > 0, "seed {seed}: the network was never bad");
    let faults = proxy.faults();
    let taken = cancels.values().filter(|cancel| matches!(cancel, Cancel::Accepted)).count();
    assert!(taken > 0, "seed {seed}: nothing was canceled: {cancels:?}");
    let said = writeln!(
        std::io::stdout(),
        "seed {seed}: {tasks} tasks {states:?} in {earlier} more attempts, {taken} of {} cancels came in time, killed {killed:?}, {faults} \
         network faults",
        cancels.len()
    );
    said.expect("stdout is there");
}

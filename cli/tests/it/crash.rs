//! Whatever dies, the task goes on or ends, and its log has every byte once.

use forge_runner::trust::{Trust, http_client};

use crate::harness::{Daemon, Runner, World, free_port, is_alive, pids_in, wait_for};

/// A script that prints numbered lines until the file `go` appears, then ten more, then ends.
fn counting_script(go: &std::path::Path) -> String {
    format!(
        "i=0; while [ ! -e {go} ]; do i=$((i+1)); echo \"line $i\"; sleep 0.02; done\n\
         for j in 1 2 3 4 5 6 7 8 9 10; do i=$((i+1)); echo \"line $i\"; done; echo \"last $i\"",
        go = go.display()
    )
}

fn assert_counts(log: &[u8]) {
    let text = std::str::from_utf8(log).expect("text");
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("line ")).collect();
    for (index, line) in lines.iter().enumerate() {
        assert_eq!(*line, format!("line {}", index + 1), "every line once and in order");
    }
    assert!(
        text.ends_with(&format!("last {}\n", lines.len())),
        "the log is whole: {}",
        &text[text.len().saturating_sub(200)..]
    );
}

#[test]
fn a_killed_daemon_comes_back_and_the_task_goes_on_with_every_byte_once() {
    let world = World::new();
    let go = world.path("go");
    world.template("count", "", &counting_script(&go));
    // The same port after the restart: a runner knows one address.
    let port = free_port();
    world.daemon_settings_on(port);
    let mut daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let number = world.start_task(&daemon, "count");
    wait_for("the log has begun", || (world.task(&daemon, number)["log_bytes"].as_u64()? > 100).then_some(()));

    daemon.process.kill_hard();
    let daemon = world.daemon();
    let after = world.task(&daemon, number);
    assert_eq!(after["state"], "running", "{after}");
    assert_eq!(after["attempt"], 1, "the same attempt goes on: {after}");
    let before = after["log_bytes"].as_u64().expect("a length");
    wait_for("the log grows again", || (world.task(&daemon, number)["log_bytes"].as_u64()? > before).then_some(()));
    std::fs::write(&go, "").expect("go");
    let task = world.wait_state(&daemon, number, "succeeded");
    let log = world.log(&daemon, number);
    assert_eq!(task["log_bytes"].as_u64(), Some(log.len() as u64));
    assert_counts(&log);
}

#[test]
fn a_task_whose_runner_is_killed_ends_as_lost_and_its_processes_are_gone() {
    let world = World::new();
    let pids = world.path("pids");
    world.template(
        "forever",
        "runner_grace = \"2s\"\n",
        &format!(
            "sleep 100000 & echo $! > {pids}.new; echo $$ >> {pids}.new; mv {pids}.new {pids}; wait",
            pids = pids.display()
        ),
    );
    let daemon = world.daemon();
    let mut runner = world.runner(&daemon, "ny-1", "");
    let number = world.start_task(&daemon, "forever");
    let found = pids_in(&pids);
    assert!(found.iter().all(|pid| is_alive(*pid)), "{found:?}");

    runner.process.kill_hard();
    let task = world.wait_state(&daemon, number, "lost");
    assert!(task["reason"].as_str().expect("a reason").contains("ny-1"), "{task}");
    wait_for("no process of the job is left", || found.iter().all(|pid| !is_alive(*pid)).then_some(()));
}

#[test]
fn a_restarted_runner_attaches_to_its_attempt() {
    let world = World::new();
    let go = world.path("go");
    world.template("count", "", &counting_script(&go));
    let daemon = world.daemon();
    let mut runner = world.runner(&daemon, "ny-1", "");
    let number = world.start_task(&daemon, "count");
    wait_for("the log has begun", || (world.task(&daemon, number)["log_bytes"].as_u64()? > 100).then_some(()));
    runner.process.kill_hard();
    let _runner = world.start_runner("ny-1");
    let before = world.task(&daemon, number)["log_bytes"].as_u64().expect("a length");
    wait_for("the log grows again", || (world.task(&daemon, number)["log_bytes"].as_u64()? > before).then_some(()));
    std::fs::write(&go, "").expect("go");
    let task = world.wait_state(&daemon, number, "succeeded");
    assert_eq!(task["attempt"], 1, "{task}");
    assert_counts(&world.log(&daemon, number));
}

/// A runner whose one attempt goes on in `processes`: its supervisor, its script and a child of that.
struct Standing<'a> {
    world: &'a World,
    runner: Runner,
    number: u64,
    processes: Vec<u32>,
}

/// A script that says which processes are its attempt's, and prints numbered lines without end.
fn endless_script(pids: &std::path::Path) -> String {
    format!(
        "sleep 100000 & echo \"$PPID $$ $!\" > {pids}.new; mv {pids}.new {pids}\n\
         i=0; while :; do i=$((i+1)); echo \"line $i\"; sleep 0.02; done",
        pids = pids.display()
    )
}

impl<'a> Standing<'a> {
    /// Starts runner and task, and has the runner and the supervisor stand still.
    fn new(world: &'a World, daemon: &Daemon, pids: &std::path::Path) -> Self {
        let runner = world.runner(daemon, "ny-1", "");
        let number = world.start_task(daemon, "count");
        let processes = pids_in(pids);
        assert_eq!(processes.len(), 3, "{processes:?}");
        wait_for("the log has begun", || (world.task(daemon, number)["log_bytes"].as_u64()? > 100).then_some(()));
        let standing = Self { world, runner, number, processes };
        standing.signal(rustix::process::Signal::STOP);
        standing
    }

    fn signal(&self, signal: rustix::process::Signal) {
        for pid in [self.runner.process.pid(), self.processes[0]] {
            let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
            rustix::process::kill_process(pid, signal).expect("signalled");
        }
    }

    /// Has both go on, and waits until nothing of the attempt is left.
    fn go_on(&self) {
        assert!(self.processes.iter().all(|pid| is_alive(*pid)), "nobody was there to end them");
        self.signal(rustix::process::Signal::CONT);
        wait_for("no process of the attempt is left", || {
            self.processes.iter().all(|pid| !is_alive(*pid)).then_some(())
        });
        let spool = self.world.path("ny-1/tmp/attempts").join(format!("{}-1", self.number));
        wait_for("what it had to say is taken or refused", || (!spool.exists()).then_some(()));
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        // A story that failed leaves no process that stands still for ever.
        for pid in self.processes.iter().filter(|pid| is_alive(**pid)) {
            let pid = i32::try_from(*pid).ok().and_then(rustix::process::Pid::from_raw);
            let _ = pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::CONT));
        }
    }
}

/// Every line that the script printed is there once and in order.
fn check_lines(log: &str) {
    for (index, line) in log.lines().filter(|line| line.starts_with("line ")).enumerate() {
        assert_eq!(line, format!("line {}", index + 1), "every line once and in order");
    }
}

#[test]
fn a_runner_and_a_supervisor_that_stood_still_past_the_deadline_change_nothing_and_leave_nothing() {
    let world = World::new();
    let pids = world.path("pids");
    world.template("count", "runner_grace = \"4s\"\n", &endless_script(&pids));
    let daemon = world.daemon();
    let standing = Standing::new(&world, &daemon, &pids);
    let lost = world.wait_state(&daemon, standing.number, "lost");
    let log = world.log(&daemon, standing.number);
    standing.go_on();
    let mut after = world.task(&daemon, standing.number);
    // No other attempt came, so the rest of this one's log is taken; nothing that was there is touched.
    let longer = std::mem::replace(&mut after["log_bytes"], lost["log_bytes"].clone());
    assert_eq!(after, lost);
    let whole = world.log(&daemon, standing.number);
    assert!(whole.starts_with(&log), "what was there stays");
    assert_eq!(longer.as_u64(), Some(whole.len() as u64));
    let text = String::from_utf8_lossy(&whole).into_owned();
    check_lines(&text);
    world.wait_runner(&daemon, "ny-1", "online");
}

/// A daemon that is stopped for longer than any grace hears what waits for it before it gives anything up.
#[test]
fn a_daemon_that_stands_still_loses_no_task() {
    let world = World::new();
    let go = world.path("go");
    world.template("count", "runner_grace = \"4s\"\n", &counting_script(&go));
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let number = world.start_task(&daemon, "count");
    wait_for("the first line", || (!world.log(&daemon, number).is_empty()).then_some(()));
    daemon.process.signal("STOP");
    // Twice the grace: a line takes 20 ms at least.
    let spool = world.path("ny-1").join(format!("tmp/attempts/{number}-1/log"));
    wait_for("400 lines that the daemon has not heard of", || {
        (std::fs::read_to_string(&spool).ok()?.lines().count() > 400).then_some(())
    });
    daemon.process.signal("CONT");
    wait_for("the look that finds it", || daemon.process.stderr().contains("this daemon stood still").then_some(()));
    let before = world.log(&daemon, number).len();
    wait_for("more of the log", || (world.log(&daemon, number).len() > before).then_some(()));
    assert_eq!(world.task(&daemon, number)["state"], "running");
    std::fs::write(&go, "").expect("go");
    world.wait_state(&daemon, number, "succeeded");
    assert_counts(&world.log(&daemon, number));
}

#[test]
fn an_attempt_that_stood_still_while_another_took_its_place_adds_to_nothing_but_its_own_log() {
    let world = World::new();
    let pids = world.path("pids");
    let script = format!("[ \"$FORGE_RUNNER\" = ny-1 ] || {{ echo second; exit 0; }}\n{}", endless_script(&pids));
    // Half of it is the lease: on a busy machine several heartbeats must fit into that.
    let rest = "runner_grace = \"8s\"\non_runner_lost = \"retry\"\nretry = { attempts = 1, delay = \"1s\" }\n";
    world.template("count", rest, &script);
    let daemon = world.daemon();
    let standing = Standing::new(&world, &daemon, &pids);
    let _other = world.runner(&daemon, "ny-2", "");
    let done = world.wait_state(&daemon, standing.number, "succeeded");
    assert_eq!(done["runner"], "ny-2", "{done}");
    // The one that stands still may have been given it once more, over the claim that it had sent before.
    let newest = done["attempt"].as_u64().expect("a number");
    assert!(newest > 1, "{done}");
    let client = http_client(&Trust::CaFile(daemon.ca_file.clone())).expect("a client");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let logs = || {
        [1, newest].map(|attempt| {
            let url = format!("{}/api/v1/tasks/{}/log?attempt={attempt}", daemon.api, standing.number);
            let text = async {
                client.get(url).bearer_auth(world.admin_token()).send().await?.error_for_status()?.text().await
            };
            runtime.block_on(text).expect("a log")
        })
    };
    let before = logs();
    assert_eq!(before[1], "second\n");
    standing.go_on();
    assert_eq!(world.task(&daemon, standing.number), done);
    let after = logs();
    assert_eq!(after[1], before[1], "the newest attempt's log is its own");
    assert!(after[0].starts_with(&before[0]), "what was there stays: {}", after[0]);
    check_lines(&after[0]);
    world.wait_runner(&daemon, "ny-1", "online");
}

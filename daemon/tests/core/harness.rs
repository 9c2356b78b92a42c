//! A core on a temporary folder with a small tree, and runners that open what it sends them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forge_api::{
    AttemptId, AttemptOutcome, AttemptResult, ClaimRequest, ClaimResponse, CreateTask, CreatedTask, Job, RefusedJob,
    RegisterRequest, RegisterResponse, SIGNED_JOB_CONTEXT, SealedJob, Secret, StartRequest, TaskState, Timestamp,
    Trigger, TriggerKind,
};
use forge_config::meant::{
    Concurrency, Environment, EnvironmentSecret, ONE_OFF_WAIT_MS, OnRunnerLost, Plugin, PluginKind, PluginSource,
    Project, Question, QuestionKind, RegistrationToken, Retention, RunnerRule, SecretDestination, Template, Tree,
};
use forge_config::{Digest, Name, SecretValue, SecretsAllow};
use forge_daemon::clock::{Clock, TestClock};
use forge_daemon::core::{
    Applied, AttemptAccess, Core, CoreError, CoreOptions, CoreStartError, CoreTasks, Counters, FreeSpace, LogLimits,
    RunnerIdentity,
};
use forge_daemon::secrets::digest_of;
use tokio::sync::watch;

pub(crate) fn trigger() -> Trigger {
    Trigger { kind: TriggerKind::User, by: "ann".to_owned() }
}

pub(crate) fn result(outcome: AttemptOutcome, log: &[u8]) -> AttemptResult {
    let sha256 = ring::digest::digest(&ring::digest::SHA256, log);
    AttemptResult {
        outcome,
        reason: None,
        exit_code: Some(0),
        summary: None,
        commit: None,
        log_length: log.len() as u64,
        log_sha256: sha256.as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
        carry: None,
        no_retry: false,
        retry_after_ms: None,
        nothing_ran: false,
    }
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn template(text: &str, concurrency: Concurrency) -> Template {
    Template {
        name: name(text),
        description: String::new(),
        executor: name("shell"),
        repository: None,
        branch: None,
        inventory: None,
        environment: None,
        vault_keys: BTreeMap::new(),
        required_tag: None,
        timeout_ms: 30 * 60_000,
        queue_timeout_ms: 3_600_000,
        approval_timeout_ms: 7_200_000,
        concurrency,
        on_runner_lost: OnRunnerLost::Fail,
        runner_grace_ms: 120_000,
        retry_attempts: 0,
        retry_delay_ms: 30_000,
        priority: 0,
        allow_arguments: false,
        params: Default::default(),
        survey: BTreeMap::new(),
        webhooks: Vec::new(),
    }
}

pub(crate) fn rule(tags: &[&str], registration_token: Option<&str>) -> RunnerRule {
    RunnerRule {
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        project: None,
        max_parallel_tasks: 0,
        run_untagged: true,
        enabled: true,
        registration_token: registration_token.map(name),
        webhooks: Vec::new(),
        one_off_wait_ms: ONE_OFF_WAIT_MS,
    }
}

/// One project with a template for each case.
pub(crate) fn tree() -> Tree {
    tree_with(Retention { tasks: 1_000, age_ms: 0 }, None)
}

/// The same with another retention, and with an end of its registration token.
pub(crate) fn tree_with(retention: Retention, token_expires: Option<Timestamp>) -> Tree {
    let mut secretive = template("secretive", Concurrency::Parallel);
    let question = Question { kind: QuestionKind::Secret, description: String::new(), required: false, default: None };
    secretive.survey.insert("password".to_owned(), question);
    let elsewhere = Template { required_tag: Some("mars".to_owned()), ..template("elsewhere", Concurrency::Queue) };
    let unresolvable = Template { environment: Some(name("broken")), ..template("unresolvable", Concurrency::Queue) };
    let templates = [
        template("deploy", Concurrency::Queue),
        template("many", Concurrency::Parallel),
        secretive,
        elsewhere,
        unresolvable,
        template("skipping", Concurrency::Skip),
        template("replacing", Concurrency::Replace),
        Template { on_runner_lost: OnRunnerLost::Retry, ..template("again", Concurrency::Parallel) },
        // Its timeout is over long before its runner counts as lost.
        Template { timeout_ms: 1_000, runner_grace_ms: 86_400_000, ..template("brief", Concurrency::Parallel) },
        // Its delay is longer than its queue_timeout.
        Template { retry_attempts: 1, retry_delay_ms: 7_200_000, ..template("patient", Concurrency::Parallel) },
    ];
    let value = SecretValue::File("/etc/forge/shop/missing".to_owned());
    let secret = EnvironmentSecret { destination: SecretDestination::Env, value };
    let broken = Environment { secrets: [("DB_PASSWORD".to_owned(), secret)].into(), ..Environment::default() };
    let project = Project {
        name: name("shop"),
        description: String::new(),
        global_runners: true,
        max_parallel_tasks: 0,
        retention,
        templates: templates.into_iter().map(|template| (template.name.clone(), Arc::new(template))).collect(),
        inventories: BTreeMap::new(),
        environments: [(name("broken"), broken)].into(),
        repositories: BTreeMap::new(),
        keys: BTreeMap::new(),
        schedules: BTreeMap::new(),
        integrations: BTreeMap::new(),
        webhooks: Vec::new(),
    };
    let plugin = Plugin {
        name: name("shell"),
        source: PluginSource::Builtin("shell".to_owned()),
        sha256: Digest([7; 32]),
        kind: PluginKind::Executor,
        programs: vec!["bash".to_owned()],
        hosts: Vec::new(),
        env: Vec::new(),
        memory_bytes: 1 << 26,
        time_ms: 5_000,
        config: Default::default(),
        config_secrets: Default::default(),
    };
    let east = RegistrationToken {
        hash: digest_of(&Secret::new("east-token")),
        project: None,
        tags: vec!["east".to_owned()],
        max_parallel_tasks: 0,
        expires_unix_micros: token_expires.map(Timestamp::unix_micros),
        uses: Some(2),
        runner: None,
    };
    Tree {
        recipients: Vec::new(),
        projects: [(name("shop"), Arc::new(project))].into(),
        runners: [(name("declared"), rule(&[], None)), (name("bound"), rule(&["bound"], Some("east")))].into(),
        registration_tokens: [(name("east"), east)].into(),
        plugins: [(name("shell"), Arc::new(plugin))].into(),
        webhooks: BTreeMap::new(),
        access: BTreeMap::new(),
    }
}

/// The tree of [`tree`] with something changed.
pub(crate) fn tree_but(change: impl FnOnce(&mut Tree)) -> Tree {
    let mut tree = tree();
    change(&mut tree);
    tree
}

/// The one project, to be changed.
pub(crate) fn shop(tree: &mut Tree) -> &mut Project {
    tree.projects.get_mut("shop").and_then(Arc::get_mut).expect("the project")
}

/// A template of the one project, to be changed.
pub(crate) fn template_of<'a>(tree: &'a mut Tree, name: &str) -> &'a mut Template {
    shop(tree).templates.get_mut(name).and_then(Arc::get_mut).expect("the template")
}

/// A core that serves.
pub(crate) struct Daemon {
    pub(crate) core: Core,
    pub(crate) time: Arc<TestClock>,
    pub(crate) folder: tempfile::TempDir,
    /// What the next start goes by.
    pub(crate) disk_reserve_bytes: u64,
    /// The same: how much space it is told to be left.
    pub(crate) free_space: FreeSpace,
    tasks: Option<CoreTasks>,
    clock: Clock,
    config: watch::Sender<Arc<Applied>>,
}

impl Daemon {
    pub(crate) async fn start(tree: Tree) -> Self {
        Self::start_in(tempfile::tempdir().expect("a folder"), tree).await
    }

    /// A daemon on a folder that may hold what another one left.
    pub(crate) async fn start_in(folder: tempfile::TempDir, tree: Tree) -> Self {
        Self::start_with(folder, tree, BTreeMap::new()).await
    }

    /// One whose forge.toml allows a file of its host to a project, and nothing else.
    pub(crate) async fn start_allowing(project: &str, file: &str, tree: Tree) -> Self {
        let allow = SecretsAllow { files: vec![file.to_owned()], ..SecretsAllow::default() };
        Self::start_with(tempfile::tempdir().expect("a folder"), tree, [(project.to_owned(), allow)].into()).await
    }

    async fn start_with(folder: tempfile::TempDir, tree: Tree, secrets_allow: BTreeMap<String, SecretsAllow>) -> Self {
        let (clock, time) = Clock::test(START);
        let config = config(tree);
        let options = CoreOptions { secrets_allow, ..options(folder.path(), &config, &clock, 0) };
        let (core, tasks) = Core::start(options).await.expect("starts");
        let free_space = FreeSpace::Measured;
        Self { core, time, folder, disk_reserve_bytes: 0, free_space, tasks: Some(tasks), clock, config }
    }

    /// Another daemon on the same folder.
    pub(crate) async fn second(&self) -> Result<(Core, CoreTasks), CoreStartError> {
        let options = options(self.folder.path(), &self.config, &self.clock, self.disk_reserve_bytes);
        Core::start(CoreOptions { free_space: self.free_space.clone(), ..options }).await
    }

    pub(crate) async fn restart(&mut self) {
        self.restart_after(0).await;
    }

    /// Is away for so long and starts again.
    pub(crate) async fn restart_after(&mut self, away_ms: u64) {
        self.restart_when(|time| time.advance_ms(away_ms)).await;
    }

    /// Ends, and starts again once something has happened to the clock.
    pub(crate) async fn restart_when(&mut self, meanwhile: impl FnOnce(&TestClock)) {
        self.core.drain();
        self.tasks.take().expect("it serves").join().await;
        meanwhile(&self.time);
        let (core, tasks) = self.second().await.expect("starts again");
        (self.core, self.tasks) = (core, Some(tasks));
    }

    /// Serves another tree from now on.
    pub(crate) fn apply(&self, tree: Tree) {
        let applied =
            Applied { revision: "r2".to_owned(), tree: Arc::new(tree), applied_at: Some(START), commit: None };
        self.config.send_replace(Arc::new(applied));
    }

    /// Serves no revision any more, as at a start that has none yet.
    pub(crate) fn apply_nothing(&self) {
        let applied =
            Applied { revision: String::new(), tree: Arc::new(Tree::default()), applied_at: None, commit: None };
        self.config.send_replace(Arc::new(applied));
    }

    /// Waits until what is due was looked at: the first turn may have begun before.
    pub(crate) async fn turn(&self) {
        for _ in 0..2 {
            self.core.work_a_turn().await;
        }
    }

    pub(crate) async fn create(&self, template: &str) -> CreatedTask {
        self.create_in("shop", template).await
    }

    pub(crate) async fn create_in(&self, project: &str, template: &str) -> CreatedTask {
        self.core.create_task(project, template, CreateTask::default(), trigger(), None).await.expect("created")
    }

    pub(crate) async fn state(&self, number: u64) -> TaskState {
        self.core.task(number).await.expect("there").state
    }

    /// Has a runner wait for work as long as a claim may; answers once it waits.
    pub(crate) async fn park(&self, runner: &TestRunner, held: &[AttemptId]) -> Parked {
        let parked = self.core.counters().await.expect("counts").parked_claims;
        let (core, runner, held) = (self.core.clone(), runner.clone(), held.to_vec());
        let claim = tokio::spawn(async move { runner.claim_holding(&core, 30_000, &held).await });
        self.until(|counters| counters.parked_claims == parked + 1).await;
        claim
    }

    /// Waits for a fact; the test's own harness ends one that never comes.
    pub(crate) async fn until(&self, fact: impl Fn(&Counters) -> bool) {
        while !fact(&self.core.counters().await.expect("counts")) {
            tokio::task::yield_now().await;
        }
    }
}

/// A claim that waits.
pub(crate) type Parked = tokio::task::JoinHandle<Result<ClaimResponse, CoreError>>;

/// When a test's clock begins.
pub(crate) const START: Timestamp = Timestamp::from_unix_micros(1_700_000_000_000_000);

/// A revision that serves.
pub(crate) fn config(tree: Tree) -> watch::Sender<Arc<Applied>> {
    let applied = Applied { revision: "r1".to_owned(), tree: Arc::new(tree), applied_at: Some(START), commit: None };
    watch::Sender::new(Arc::new(applied))
}

pub(crate) fn options(
    folder: &Path,
    config: &watch::Sender<Arc<Applied>>,
    clock: &Clock,
    disk_reserve_bytes: u64,
) -> CoreOptions {
    CoreOptions {
        data_dir: folder.to_owned(),
        plugin_dir: folder.join("plugins"),
        config: config.subscribe(),
        registration_token: Some(Secret::new("the-single-token")),
        identity_file: None,
        secrets_allow: BTreeMap::new(),
        clock: clock.clone(),
        log_limits: LogLimits { attempt_bytes_max: 1 << 20, disk_reserve_bytes },
        audit_retention_ms: 0,
        free_space: FreeSpace::Measured,
    }
}

/// What a runner keeps.
#[derive(Clone)]
pub(crate) struct TestRunner {
    pub(crate) identity: RunnerIdentity,
    pub(crate) token: Secret,
    pub(crate) session: String,
    key: age::x25519::Identity,
    signing_key: String,
}

impl TestRunner {
    pub(crate) async fn register(daemon: &Daemon, name: &str) -> Self {
        Self::register_with(&daemon.core, name, false).await
    }

    pub(crate) async fn register_with(core: &Core, name: &str, one_off: bool) -> Self {
        let key = age::x25519::Identity::generate();
        let request = RegisterRequest {
            name: name.to_owned(),
            public_key: key.to_public().to_string(),
            version: "1".to_owned(),
            max_parallel_tasks: 0,
            one_off,
            ..RegisterRequest::default()
        };
        let registered = core.register(&Secret::new("the-single-token"), request).await.expect("registered");
        let token = open_token(&key, &registered);
        let identity = core.authenticate_runner(&token).await.expect("its token");
        Self { identity, token, session: format!("s-{name}"), key, signing_key: registered.signing_key }
    }

    /// The registration of the same name and key once more.
    pub(crate) fn request(&self, one_off: bool) -> RegisterRequest {
        RegisterRequest {
            name: self.identity.name().to_owned(),
            public_key: self.public_key(),
            version: "1".to_owned(),
            max_parallel_tasks: 0,
            one_off,
            ..RegisterRequest::default()
        }
    }

    pub(crate) fn public_key(&self) -> String {
        self.key.to_public().to_string()
    }

    pub(crate) fn open_token(&self, registered: &RegisterResponse) -> Secret {
        open_token(&self.key, registered)
    }

    pub(crate) async fn claim(&self, core: &Core, wait_ms: u64) -> Result<ClaimResponse, CoreError> {
        self.claim_holding(core, wait_ms, &[]).await
    }

    pub(crate) async fn claim_holding(
        &self,
        core: &Core,
        wait_ms: u64,
        held: &[AttemptId],
    ) -> Result<ClaimResponse, CoreError> {
        self.claim_slots(core, wait_ms, held, 1).await
    }

    pub(crate) async fn claim_slots(
        &self,
        core: &Core,
        wait_ms: u64,
        held: &[AttemptId],
        slots: u32,
    ) -> Result<ClaimResponse, CoreError> {
        let request = ClaimRequest {
            session: self.session.clone(),
            previous_sessions: Vec::new(),
            wait_ms,
            slots,
            max_parallel_tasks: 0,
            held: held.to_vec(),
            version: "1".to_owned(),
            resumes: true,
            ..ClaimRequest::default()
        };
        core.claim(&self.identity, request).await
    }

    /// A claim that waits for nothing and names jobs that are not begun.
    pub(crate) async fn claim_refusing(
        &self,
        core: &Core,
        held: &[AttemptId],
        refused: Vec<RefusedJob>,
    ) -> Result<ClaimResponse, CoreError> {
        let request = ClaimRequest {
            session: self.session.clone(),
            held: held.to_vec(),
            version: "1".to_owned(),
            refused,
            resumes: true,
            ..ClaimRequest::default()
        };
        core.claim(&self.identity, request).await
    }

    /// Opens a job as a runner does: with its own key, and only when the daemon signed it.
    pub(crate) fn open(&self, _daemon: &Daemon, sealed: &SealedJob) -> Job {
        self.open_job(sealed)
    }

    /// Takes the only job that is there and starts it.
    pub(crate) async fn begin(&self, core: &Core) -> AttemptAccess {
        let claimed = self.claim(core, 30_000).await.expect("a claim");
        self.begin_one(core, &claimed.jobs[0]).await
    }

    /// Starts a job that it was given.
    pub(crate) async fn begin_one(&self, core: &Core, sealed: &SealedJob) -> AttemptAccess {
        let job = self.open_job(sealed);
        let access = core.authenticate_attempt(job.attempt, &job.token).await.expect("its token");
        core.start_attempt(&access, StartRequest::default()).await.expect("starts");
        access
    }

    pub(crate) fn open_job(&self, sealed: &SealedJob) -> Job {
        let json = age::decrypt(&self.key, &STANDARD.decode(&sealed.sealed).expect("base64")).expect("sealed to it");
        let public = STANDARD.decode(&self.signing_key).expect("base64");
        let signature = STANDARD.decode(&sealed.signature).expect("base64");
        ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, public)
            .verify(&[SIGNED_JOB_CONTEXT, &json].concat(), &signature)
            .expect("signed by the daemon");
        serde_json::from_slice(&json).expect("a job")
    }
}

fn open_token(key: &age::x25519::Identity, registered: &RegisterResponse) -> Secret {
    let opened = age::decrypt(key, &registered.sealed_token_bytes().expect("base64")).expect("sealed to it");
    Secret::new(String::from_utf8(opened).expect("text"))
}

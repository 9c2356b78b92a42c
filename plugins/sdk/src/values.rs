//! What makes the contract's plain records pleasant: constructors, JSON in and out, endings in words.

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::schema;
use crate::{Capability, Command, Exit, Failed, Failure, HostError, Info, Job, Outcome, Pair};

/// The signals that people know by name; the numbers are those of Linux on all its common processors.
const SIGNALS: [(i32, &str); 14] = [
    (1, "SIGHUP"),
    (2, "SIGINT"),
    (3, "SIGQUIT"),
    (4, "SIGILL"),
    (6, "SIGABRT"),
    (7, "SIGBUS"),
    (8, "SIGFPE"),
    (9, "SIGKILL"),
    (11, "SIGSEGV"),
    (13, "SIGPIPE"),
    (14, "SIGALRM"),
    (15, "SIGTERM"),
    (24, "SIGXCPU"),
    (25, "SIGXFSZ"),
];

impl Info {
    /// A plugin that asks for nothing and takes no params.
    pub fn new(name: &str, version: &str, summary: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            summary: summary.to_owned(),
            params_schema: None,
            config_schema: None,
            wants: Vec::new(),
        }
    }

    /// With the type that a template's `[params]` are read into ([`Job::params`]): its JSON Schema is what the daemon checks them against.
    #[must_use]
    pub fn params<T: JsonSchema>(self) -> Self {
        self.params_schema(&schema::of::<T>())
    }

    /// With the type that the plugin's `[config]` is read into ([`Job::config`]).
    #[must_use]
    pub fn config<T: JsonSchema>(self) -> Self {
        self.config_schema(&schema::of::<T>())
    }

    /// With the JSON Schema of a template's `[params]`, for what no type says.
    #[must_use]
    pub fn params_schema(mut self, schema: &Value) -> Self {
        self.params_schema = Some(schema.to_string());
        self
    }

    /// With the JSON Schema of the plugin's `[config]`, for what no type says.
    #[must_use]
    pub fn config_schema(mut self, schema: &Value) -> Self {
        self.config_schema = Some(schema.to_string());
        self
    }

    /// That asks to run these programs.
    #[must_use]
    pub fn wants_programs(mut self, programs: &[&str]) -> Self {
        self.wants.push(Capability::Process(programs.iter().map(|&name| name.to_owned()).collect()));
        self
    }

    /// That asks for these variables of the runner's own environment, for its processes.
    #[must_use]
    pub fn wants_env(mut self, names: &[&str]) -> Self {
        self.wants.push(Capability::Env(names.iter().map(|&name| name.to_owned()).collect()));
        self
    }

    /// That asks to send requests to these hosts.
    #[must_use]
    pub fn wants_hosts(mut self, hosts: &[&str]) -> Self {
        self.wants.push(Capability::Http(hosts.iter().map(|&host| host.to_owned()).collect()));
        self
    }
}

impl Default for Job {
    /// A job without params, for tests.
    fn default() -> Self {
        Self {
            id: "1".to_owned(),
            attempt: 1,
            project: "project".to_owned(),
            template: "template".to_owned(),
            params_json: "{}".to_owned(),
            config_json: "{}".to_owned(),
            variables_json: "{}".to_owned(),
            variables_file: String::new(),
            inventory: None,
            checkout: None,
            key_files: Vec::new(),
            cache: None,
            arguments: Vec::new(),
            deadline_ms: None,
            resume: false,
        }
    }
}

impl Job {
    /// The template's `[params]`.
    ///
    /// # Errors
    /// They are not what the plugin understands; the failure says where.
    pub fn params<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        parse("params", &self.params_json)
    }

    /// The plugin's `[config]`. A secret in it is a text to pass on, whole, in a variable or on standard input of a command: the host fills it in there.
    ///
    /// # Errors
    /// As for [`Job::params`].
    pub fn config<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        parse("config", &self.config_json)
    }

    /// Variables and survey answers that are not secret.
    ///
    /// # Errors
    /// As for [`Job::params`].
    pub fn variables<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        parse("variables", &self.variables_json)
    }
}

fn parse<T: DeserializeOwned>(what: &str, json: &str) -> Result<T, Failure> {
    serde_json::from_str(json).map_err(|error| Failure::Invalid(format!("[{what}]: {error}")))
}

impl Command {
    /// A program by its bare name.
    pub fn new(program: impl Into<String>) -> Self {
        Self { program: program.into(), args: Vec::new(), env: Vec::new(), cwd: None, stdin: None, timeout_ms: None }
    }

    /// With one more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.args.push(argument.into());
        self
    }

    /// With more arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// With a variable beside the task's own.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push(Pair { key: name.into(), value: value.into() });
        self
    }

    /// In a folder of the workspace.
    #[must_use]
    pub fn cwd(mut self, folder: Option<impl Into<String>>) -> Self {
        self.cwd = folder.map(Into::into);
        self
    }

    /// With these bytes as its standard input.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// That is ended after this long.
    #[must_use]
    pub fn timeout_ms(mut self, timeout_ms: u64) -> Self {
        self.timeout_ms = Some(timeout_ms);
        self
    }
}

impl Exit {
    /// Nothing for exit code 0, and a failure that says how it ended for anything else.
    ///
    /// # Errors
    /// It ended with another code, by a signal or by its timeout.
    pub fn success(&self) -> Result<(), Failure> {
        match self {
            Self::Code(0) => Ok(()),
            Self::Code(_) | Self::Signal(_) | Self::TimedOut => {
                Err(Failure::Failed(Failed { message: self.to_string(), exit_code: self.code(), output_json: None }))
            }
        }
    }

    /// The exit code, when it ended by itself.
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Code(code) => Some(*code),
            Self::Signal(_) | Self::TimedOut => None,
        }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "exit code {code}"),
            Self::Signal(number) => match SIGNALS.iter().find(|(known, _)| known == number) {
                Some((_, name)) => write!(formatter, "ended by {name} (signal {number})"),
                None => write!(formatter, "ended by signal {number}"),
            },
            Self::TimedOut => write!(formatter, "its time ran out"),
        }
    }
}

impl Outcome {
    /// One line for people.
    pub fn new(summary: impl Into<String>) -> Self {
        Self { summary: summary.into(), output_json: None, exit_code: None }
    }

    /// With the exit code of the process that did the work.
    #[must_use]
    pub fn exit_code(mut self, exit_code: i32) -> Self {
        self.exit_code = Some(exit_code);
        self
    }

    /// With something for machines.
    ///
    /// # Errors
    /// It does not go into JSON, such as a map whose keys are no texts.
    pub fn output<T: Serialize>(mut self, output: &T) -> Result<Self, Failure> {
        let json = serde_json::to_string(output)
            .map_err(|error| Failure::failed(format!("the output does not go into JSON: {error}")))?;
        self.output_json = Some(json);
        Ok(self)
    }
}

impl Failure {
    /// Work that failed, in one line for people.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(Failed { message: message.into(), exit_code: None, output_json: None })
    }
}

/// What the host refuses, and a plugin does not handle, ends the job.
impl From<HostError> for Failure {
    fn from(error: HostError) -> Self {
        match error {
            HostError::Canceled => Self::Canceled,
            HostError::Denied(_) | HostError::NotFound(_) | HostError::Invalid(_) | HostError::Io(_) => {
                Self::failed(plain(&error))
            }
        }
    }
}

/// As people read it; the generated `Display` is for authors.
fn plain(error: &HostError) -> String {
    match error {
        HostError::Denied(message) => format!("denied: {message}"),
        HostError::NotFound(message) => format!("not found: {message}"),
        HostError::Invalid(message) => format!("invalid: {message}"),
        HostError::Canceled => "canceled".to_owned(),
        HostError::Io(message) => message.clone(),
    }
}

impl From<(&str, &str)> for Pair {
    fn from((key, value): (&str, &str)) -> Self {
        Self { key: key.to_owned(), value: value.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[test]
    fn endings_read_as_people_say_them() {
        assert_eq!(Exit::Code(3).to_string(), "exit code 3");
        assert_eq!(Exit::Signal(9).to_string(), "ended by SIGKILL (signal 9)");
        assert_eq!(Exit::Signal(42).to_string(), "ended by signal 42");
        assert_eq!(Exit::Code(0).success(), Ok(()));
        let Err(Failure::Failed(failed)) = Exit::Code(3).success() else { panic!("3 is a failure") };
        assert_eq!(failed.exit_code, Some(3));
    }

    #[test]
    fn params_that_do_not_fit_are_named() {
        #[derive(Debug, Deserialize)]
        struct Params {
            #[serde(rename = "playbook")]
            _playbook: String,
        }
        let error = Job::default().params::<Params>().expect_err("there is no playbook");
        assert_eq!(error, Failure::Invalid("[params]: missing field `playbook` at line 1 column 2".to_owned()));
    }

    #[test]
    fn a_refusal_ends_the_job_in_its_own_words() {
        let failure = Failure::from(HostError::Denied("x is not granted".to_owned()));
        assert_eq!(failure, Failure::failed("denied: x is not granted"));
        assert_eq!(Failure::from(HostError::Canceled), Failure::Canceled);
    }
}

//! `forge run`: start a task, follow its log, exit by its outcome.

use std::io::Read as _;
use std::process::ExitCode;

use forge_api::{CreateTask, Task, TaskState};
use serde_json::{Map, Value};

use super::{CLIENT_THREADS, follow::follow, task::took};
use crate::args::{OutputFormat, RunArguments, Variable};
use crate::client::Client;
use crate::error::{CliError, file_error};
use crate::printer::Printer;

/// The most bytes of an answer that is read from a file or stdin.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

pub(crate) fn run(arguments: RunArguments, printer: &Printer) -> Result<ExitCode, CliError> {
    let (project, template) = split_template(&arguments.template)?;
    let variables = read_variables(&arguments.variables)?;
    crate::runtime::run(CLIENT_THREADS, async {
        let client = Client::connect(&arguments.connection)?;
        let request = CreateTask { variables, arguments: arguments.arguments };
        let created = client.create_task(project, template, &request).await?;
        if arguments.detach {
            match arguments.output {
                OutputFormat::Json => printer.json(&created),
                OutputFormat::Text => printer.data(&format!("task {} is {}", created.number, created.state)),
            }
            return Ok(ExitCode::SUCCESS);
        }
        let number = created.number;
        printer.aside(&format!("task {number}: {project}/{template}, {}", created.state));
        if created.state == TaskState::Queued {
            printer.aside("Ctrl-C stops following; the task goes on waiting");
        }
        let followed = tokio::select! {
            followed = follow(&client, number, printer, |bytes| match arguments.output {
                OutputFormat::Text => printer.data_bytes(bytes),
                OutputFormat::Json => printer.talk_bytes(bytes),
            }) => followed,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.map_err(CliError::failed)?;
                return Err(CliError::failed(format_args!("no longer following task {number}, which goes on"))
                    .hint(format_args!("`forge task log {number} --follow` follows it again, `forge task cancel {number}` ends it")));
            }
        };
        let task = followed?;
        if arguments.output == OutputFormat::Json {
            printer.json(&task);
        }
        Ok(report(&task, printer))
    })
}

/// Says how a task ended and turns that into an exit code: 0 on succeeded, 1 on any other end.
pub(crate) fn report(task: &Task, printer: &Printer) -> ExitCode {
    let line = format!("task {} {} after {}", task.number, task.state, took(task));
    if task.state == TaskState::Succeeded {
        printer.done(&line);
        return ExitCode::SUCCESS;
    }
    printer.error(&match &task.reason {
        Some(reason) => format!("{line}: {reason}"),
        None => line,
    });
    ExitCode::from(1)
}

fn split_template(text: &str) -> Result<(&str, &str), CliError> {
    match text.split_once('/') {
        Some((project, template)) if !project.is_empty() && !template.is_empty() && !template.contains('/') => {
            Ok((project, template))
        }
        Some(_) | None => Err(CliError::usage(format_args!("{text:?} names no template"))
            .hint("write PROJECT/TEMPLATE, as in `forge run shop/deploy`")),
    }
}

/// Reads every answer; `@FILE` and `@-` keep a secret one off the command line.
fn read_variables(given: &[Variable]) -> Result<Map<String, Value>, CliError> {
    let mut variables = Map::new();
    let mut stdin_is_read = false;
    for Variable { name, value } in given {
        let answer = match value.strip_prefix('@') {
            None => value.clone(),
            Some("-") if stdin_is_read => {
                return Err(CliError::usage("stdin was asked for twice").hint("only one --var may end in =@-"));
            }
            Some("-") => {
                stdin_is_read = true;
                read_answer(std::io::stdin().lock(), name, std::path::Path::new("stdin"))?
            }
            Some(path) => {
                let path = std::path::Path::new(path);
                let file = std::fs::File::open(path).map_err(|error| {
                    file_error("read", path, &error).hint(format_args!(
                        "--var {name}=@FILE reads a file; for an answer that begins with @, put it into a file"
                    ))
                })?;
                read_answer(file, name, path)?
            }
        };
        if variables.insert(name.clone(), Value::String(answer)).is_some() {
            return Err(CliError::usage(format_args!("--var {name} was given twice")));
        }
    }
    Ok(variables)
}

fn read_answer(source: impl std::io::Read, name: &str, path: &std::path::Path) -> Result<String, CliError> {
    let mut bytes = Vec::new();
    source.take(ANSWER_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| file_error("read", path, &error))?;
    if bytes.len() as u64 > ANSWER_BYTES_MAX {
        return Err(CliError::failed(format_args!("the answer to {name} is larger than {ANSWER_BYTES_MAX} bytes")));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| CliError::failed(format_args!("the answer to {name} in {} is not UTF-8 text", path.display())))?;
    // One line end is what an editor or echo appends; anything more is meant.
    Ok(text.strip_suffix('\n').map_or(text.clone(), |line| line.strip_suffix('\r').unwrap_or(line).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_named_by_two_parts() {
        assert_eq!(split_template("shop/deploy").ok(), Some(("shop", "deploy")));
        for wrong in ["", "shop", "/deploy", "shop/", "a/b/c"] {
            assert!(split_template(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_answer_loses_one_line_end_only() {
        let read = |text: &str| read_answer(text.as_bytes(), "v", std::path::Path::new("stdin")).expect("text");
        assert_eq!(read("secret\n"), "secret");
        assert_eq!(read("secret\r\n"), "secret");
        assert_eq!(read("a\n\n"), "a\n");
        assert_eq!(read(""), "");
    }
}

//! Templates: what they name exists, what they tell the executor fits its schema, and some runner could take their tasks.

use std::collections::BTreeMap;

use crate::catalog::PluginCatalog;
use crate::diagnostic::Code;
use crate::git;
use crate::meant;
use crate::name::Name;
use crate::place::ProjectKind;
use crate::resolve::parts;
use crate::resolve::plugins::ResolvedPlugin;
use crate::resolve::{
    duration_at_least, each, is_tag, or_default, project_reference, reference, survey, tag, webhooks,
};
use crate::schema;
use crate::suggest::{list_of, nearest};
use crate::tree::{WrittenProject, WrittenTree};
use crate::written::inventory::{Inventory, InventoryType};
use crate::written::reader::{Duration, Whole};
use crate::written::sheet::{At, Sheet, Span};
use crate::written::template::{Concurrency, OnRunnerLost, Template};

/// Defaults, each decided here only.
const TIMEOUT_MS: u64 = 24 * 60 * 60 * 1_000;
const QUEUE_TIMEOUT_MS: u64 = 24 * 60 * 60 * 1_000;
const RUNNER_GRACE_MS: u64 = 2 * 60 * 1_000;
const RETRY_DELAY_MS: u64 = 30_000;

/// The shortest of these durations: less would end a task before its process could start.
const TIMEOUT_MS_MIN: u64 = 1_000;

/// The param that an inventory of the type `terraform-workspace` sets.
const WORKSPACE: &str = "workspace";

/// What templates are resolved against.
pub(crate) struct Context<'a> {
    pub(crate) tree: &'a WrittenTree,
    pub(crate) plugins: &'a BTreeMap<Name, ResolvedPlugin>,
    pub(crate) catalog: &'a dyn PluginCatalog,
}

pub(super) fn templates(
    project: &Name,
    written: &WrittenProject,
    context: &Context<'_>,
) -> BTreeMap<Name, Option<meant::Template>> {
    let mut templates = each(&written.templates, |sheet, template| resolve(sheet, template, project, written, context));
    for (name, template) in &mut templates {
        if let Some(template) = template {
            template.name = name.clone();
        }
    }
    untagged_inventories(project, written, context);
    templates
}

fn resolve(
    sheet: &Sheet,
    written: &Template,
    project_name: &Name,
    project: &WrittenProject,
    context: &Context<'_>,
) -> Option<meant::Template> {
    // Every part notes its own mistakes before the first `?` gives up.
    let executor = written.executor.as_ref().and_then(|executor| self::executor(executor, sheet, context));
    let repository =
        project_reference(ProjectKind::Repository, written.repository.as_ref(), project.repositories.keys(), sheet);
    let inventory =
        project_reference(ProjectKind::Inventory, written.inventory.as_ref(), project.inventories.keys(), sheet);
    let environment =
        project_reference(ProjectKind::Environment, written.environment.as_ref(), project.environments.keys(), sheet);
    let vault_keys = parts::vault_keys(written.vault_keys.as_ref(), project, sheet);
    let branch = git::branch("branch", written.branch.as_ref(), sheet);
    let inventory_fits = inventory_has_its_file(written, project, sheet);
    if let (Some(branch), None) = (&written.branch, &written.repository) {
        sheet.warning(branch.span, Code::Unused, "`branch` has no effect without `repository`", None);
    }
    let required_tag = required_tag(written, project_name, project, context, sheet);
    let least =
        |key, at: &Option<At<Duration>>, default| duration_at_least(key, at.as_ref(), default, TIMEOUT_MS_MIN, sheet);
    let timeout_ms = least("timeout", &written.timeout, TIMEOUT_MS);
    let queue_timeout_ms = least("queue_timeout", &written.queue_timeout, QUEUE_TIMEOUT_MS);
    let approval_timeout_ms = least("approval_timeout", &written.approval_timeout, meant::APPROVAL_TIMEOUT_MS);
    let runner_grace_ms = least("runner_grace", &written.runner_grace, RUNNER_GRACE_MS);
    let retry = written.retry.clone().unwrap_or_default().value;
    let survey = survey::survey(written.survey.as_ref(), sheet);
    let webhooks = webhooks::targets(written.webhooks.as_ref(), &context.tree.webhooks, sheet);
    let params = executor.as_ref().and_then(|executor| {
        let params = params(written, executor, context, sheet)?;
        with_workspace(params, written, executor, project, context, sheet)
    });
    let branch = branch?.or_else(|| {
        let repository = project.repositories.get(written.repository.as_ref()?.value.as_str())?;
        Some(repository.written.as_ref()?.branch.as_ref()?.value.clone())
    });
    Some(meant::Template {
        // Set by the caller, which has the file's name.
        name: project_name.clone(),
        description: or_default(written.description.clone(), String::new()),
        executor: executor?,
        repository: repository?,
        branch,
        inventory: inventory.filter(|_| inventory_fits)?,
        environment: environment?,
        vault_keys: vault_keys?,
        required_tag: required_tag?,
        timeout_ms: timeout_ms?,
        queue_timeout_ms: queue_timeout_ms?,
        approval_timeout_ms: approval_timeout_ms?,
        concurrency: match or_default(written.concurrency.clone(), Concurrency::Queue) {
            Concurrency::Queue => meant::Concurrency::Queue,
            Concurrency::Parallel => meant::Concurrency::Parallel,
            Concurrency::Skip => meant::Concurrency::Skip,
            Concurrency::Replace => meant::Concurrency::Replace,
        },
        on_runner_lost: match or_default(written.on_runner_lost.clone(), OnRunnerLost::Fail) {
            OnRunnerLost::Fail => meant::OnRunnerLost::Fail,
            OnRunnerLost::Retry => meant::OnRunnerLost::Retry,
        },
        runner_grace_ms: runner_grace_ms?,
        retry_attempts: or_default(retry.attempts, Whole(0)).count(),
        retry_delay_ms: or_default(retry.delay, Duration(RETRY_DELAY_MS)).0,
        // The type's own bounds are -100 and 100.
        priority: i32::try_from(or_default(written.priority.clone(), Whole(0)).0).unwrap_or(0),
        allow_arguments: or_default(written.allow_arguments.clone(), false),
        params: params?,
        survey: survey?,
        webhooks: webhooks?,
    })
}

/// The executor's name: a plugin of the tree that is one.
fn executor(written: &At<String>, sheet: &Sheet, context: &Context<'_>) -> Option<Name> {
    let builtins = context.catalog.builtin_names();
    let declared = context.tree.plugins.keys().any(|name| name.as_str() == written.value);
    if !declared {
        // A built-in plugin runs nothing before someone says in git which programs it may start.
        let declared_names = context.tree.plugins.keys().map(Name::as_str);
        let near = nearest(&written.value, declared_names.clone());
        let builtin = nearest(&written.value, builtins.iter().map(String::as_str));
        let hint = match (near, builtin) {
            (_, Some(builtin)) if builtin == written.value => {
                format!(
                    "make plugins/{builtin}.toml with `source = \"builtin:{builtin}\"` and below [allow] the programs that it may run"
                )
            }
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, Some(builtin)) => {
                format!(
                    "did you mean `{builtin}`? It needs plugins/{builtin}.toml with `source = \"builtin:{builtin}\"`"
                )
            }
            (None, None) => format!(
                "there are {}; the built-in ones are {}",
                list_of(declared_names),
                list_of(builtins.iter().map(String::as_str))
            ),
        };
        let message = format!("no plugin is named `{}`", written.value);
        sheet.error(written.span, Code::UnknownReference, message, Some(hint));
        return None;
    }
    let name = reference("plugin", Some(written), context.tree.plugins.keys(), "plugins/NAME.toml", sheet)??;
    let kind = context.plugins.get(&name).and_then(|plugin| plugin.facts.as_ref()).map(|facts| facts.kind);
    match kind {
        Some(meant::PluginKind::WebhookTarget) => {
            let message = format!("the plugin `{name}` is a webhook target and runs no jobs");
            let executors = context
                .plugins
                .iter()
                .filter(|(_, plugin)| {
                    plugin.facts.as_ref().is_some_and(|facts| facts.kind == meant::PluginKind::Executor)
                })
                .map(|(name, _)| name.as_str());
            sheet.error(
                written.span,
                Code::WrongKind,
                message,
                Some(format!("the executors are {}", list_of(executors))),
            );
            None
        }
        // A plugin whose own file is wrong says so itself.
        Some(meant::PluginKind::Executor) | None => Some(name),
    }
}

fn params(
    written: &Template,
    executor: &Name,
    context: &Context<'_>,
    sheet: &Sheet,
) -> Option<serde_json::Map<String, serde_json::Value>> {
    // Without the plugin's facts there is no schema, and the plugin's own file has the mistake.
    let plugin = context.plugins.get(executor)?;
    plugin.facts.as_ref()?;
    let table = written.params.as_ref();
    let span = table.map(|table| table.span).or(written.executor.as_ref().map(|executor| executor.span));
    let subject = schema::Subject {
        name: "params",
        owner: executor.as_str(),
        table,
        span: span.unwrap_or(Span::FILE),
        code: Code::Params,
    };
    schema::check(plugin.params_schema.as_ref(), subject, sheet)
}

/// The params with the workspace that an inventory of the type `terraform-workspace` names.
fn with_workspace(
    mut params: serde_json::Map<String, serde_json::Value>,
    written: &Template,
    executor: &Name,
    project: &WrittenProject,
    context: &Context<'_>,
    sheet: &Sheet,
) -> Option<serde_json::Map<String, serde_json::Value>> {
    let Some(at) = &written.inventory else { return Some(params) };
    let inventory = project.inventories.get(at.value.as_str()).and_then(|document| document.written.as_ref());
    let is_workspace = |inventory: &&Inventory| {
        inventory.kind.as_ref().is_some_and(|kind| kind.value == InventoryType::TerraformWorkspace)
    };
    let Some(content) = inventory.filter(is_workspace).and_then(|inventory| inventory.content.as_ref()) else {
        return Some(params);
    };
    let plugin = context.plugins.get(executor)?;
    if !plugin.params_schema.as_ref().is_some_and(|schema| schema.has_property(WORKSPACE)) {
        let message =
            format!("the inventory `{}` is a terraform workspace, and the executor `{executor}` takes none", at.value);
        let hint = "an inventory of another type goes with it, or the executor `terraform` with this one".to_owned();
        sheet.error(at.span, Code::Conflict, message, Some(hint));
        return None;
    }
    if params.contains_key(WORKSPACE) {
        let message = format!("the inventory `{}` names the workspace, and [params] names one, too", at.value);
        sheet.error(at.span, Code::Conflict, message, Some("take `workspace` out of [params]".to_owned()));
        return None;
    }
    params.insert(WORKSPACE.to_owned(), content.value.clone().into());
    Some(params)
}

/// Whether an inventory that is a file lies in some repository: its own, or the template's.
fn inventory_has_its_file(written: &Template, project: &WrittenProject, sheet: &Sheet) -> bool {
    let Some(at) = &written.inventory else { return true };
    let inventory = project.inventories.get(at.value.as_str()).and_then(|document| document.written.as_ref());
    let kind = inventory.and_then(|inventory| inventory.kind.as_ref()).map(|kind| kind.value);
    let needs = kind == Some(InventoryType::File) && inventory.is_some_and(|inventory| inventory.repository.is_none());
    if needs && written.repository.is_none() {
        let message = format!("the inventory `{}` is a file, and there is no repository that it could be in", at.value);
        let hint = "write `repository = \"...\"` here, or in the inventory when it has one of its own".to_owned();
        sheet.error(at.span, Code::Conflict, message, Some(hint));
        return false;
    }
    true
}

/// The tag that a runner must have: the template's, else the inventory's, else the project's.
fn required_tag(
    written: &Template,
    project_name: &Name,
    project: &WrittenProject,
    context: &Context<'_>,
    sheet: &Sheet,
) -> Option<Option<String>> {
    let own = tag("runner_tag", written.runner_tag.as_ref(), sheet)?;
    if let (Some(tag), Some(at)) = (&own, &written.runner_tag) {
        warn_without_runner(tag, at.span, project_name, project, context, sheet);
        return Some(own);
    }
    let inventory = written.inventory.as_ref().and_then(|at| project.inventories.get(at.value.as_str()));
    let of_inventory = inventory.and_then(|document| document.written.as_ref()?.runner_tag.as_ref());
    let of_project = project.project.as_ref().and_then(|document| document.written.as_ref()?.runner_tag.as_ref());
    Some(of_inventory.or(of_project).map(|tag| tag.value.clone()))
}

/// Warns where the tag of a project or an inventory stands: once, and not in each template that takes it from there.
fn untagged_inventories(project_name: &Name, project: &WrittenProject, context: &Context<'_>) {
    let of_inventories = project
        .inventories
        .values()
        .filter_map(|document| Some((&document.sheet, document.written.as_ref()?.runner_tag.as_ref()?)));
    let of_project = project
        .project
        .iter()
        .filter_map(|document| Some((&document.sheet, document.written.as_ref()?.runner_tag.as_ref()?)));
    for (sheet, tag) in of_inventories.chain(of_project).filter(|(_, tag)| is_tag(&tag.value)) {
        warn_without_runner(&tag.value, tag.span, project_name, project, context, sheet);
    }
}

fn warn_without_runner(
    tag: &str,
    span: Span,
    project_name: &Name,
    project: &WrittenProject,
    context: &Context<'_>,
    sheet: &Sheet,
) {
    let takes_global = project
        .project
        .as_ref()
        .and_then(|document| document.written.as_ref()?.global_runners.as_ref())
        .is_none_or(|global| global.value);
    let belongs = |owner: Option<&At<String>>| match owner {
        None => takes_global,
        Some(owner) => owner.value == project_name.as_str(),
    };
    let runners = context.tree.runners.values().filter_map(|document| document.written.as_ref());
    let of_runners =
        runners.filter(|runner| belongs(runner.project.as_ref())).filter_map(|runner| runner.tags.as_ref());
    let tokens = context.tree.registration_tokens.values().filter_map(|document| document.written.as_ref());
    let of_tokens = tokens.filter(|token| belongs(token.project.as_ref())).filter_map(|token| token.tags.as_ref());
    let tags: Vec<_> = of_runners.chain(of_tokens).flat_map(|tags| &tags.value).map(|tag| tag.value.as_str()).collect();
    // A file that is no TOML might have declared it.
    let unread = context.tree.runners.values().any(|document| document.written.is_none())
        || context.tree.registration_tokens.values().any(|document| document.written.is_none());
    if tags.contains(&tag) || unread {
        return;
    }
    let hint = nearest(tag, tags.iter().copied())
        .map(|near| format!("did you mean `{near}`?"))
        .unwrap_or_else(|| format!("write `tags = [\"{tag}\"]` in a file of runners/; until then such tasks wait"));
    let message = format!("no runner that takes tasks of {project_name} has the tag `{tag}`");
    sheet.warning(span, Code::TagWithoutRunner, message, Some(hint));
}

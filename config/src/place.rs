//! From a file's path to what it declares. A TOML file where Forge reads none is a mistake, never silently nothing.

use crate::diagnostic::Code;
use crate::name::{Name, NameError};
use crate::secret::{PLUGIN_SECRETS, WEBHOOK_SECRETS};
use crate::suggest::{either_of, list_of, nearest};

/// What a file of the tree declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// `secrets.toml` at the root.
    Secrets,
    Project(Name),
    InProject(Name, ProjectKind, Name),
    Root(RootKind, Name),
}

/// What a project's folders hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ProjectKind {
    Template,
    Inventory,
    Environment,
    Repository,
    Key,
    Schedule,
    Integration,
}

/// What the root's folders hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RootKind {
    Runner,
    RegistrationToken,
    Plugin,
    Webhook,
    Access,
}

/// Why a path declares nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Misplaced {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

/// The folders of a project.
pub(crate) const PROJECT_FOLDERS: &[(&str, ProjectKind)] = &[
    ("templates", ProjectKind::Template),
    ("inventories", ProjectKind::Inventory),
    ("environments", ProjectKind::Environment),
    ("repositories", ProjectKind::Repository),
    ("keys", ProjectKind::Key),
    ("schedules", ProjectKind::Schedule),
    ("integrations", ProjectKind::Integration),
];

/// The folders of the root, but for `projects`.
pub(crate) const ROOT_FOLDERS: &[(&str, RootKind)] = &[
    ("runners", RootKind::Runner),
    ("registration-tokens", RootKind::RegistrationToken),
    ("plugins", RootKind::Plugin),
    ("webhooks", RootKind::Webhook),
    ("access", RootKind::Access),
];

/// The one file at the root: who may open the tree's age values.
pub(crate) const SECRETS_FILE: &str = "secrets.toml";

/// The settings of a host, which people put into the tree by mistake.
const HOST_FILES: &[&str] = &["forge.toml", "runner.toml"];

impl ProjectKind {
    /// What messages call it.
    pub(crate) const fn noun(self) -> &'static str {
        match self {
            Self::Template => "template",
            Self::Inventory => "inventory",
            Self::Environment => "environment",
            Self::Repository => "repository",
            Self::Key => "key",
            Self::Schedule => "schedule",
            Self::Integration => "integration",
        }
    }

    /// The folder of its files.
    pub(crate) const fn folder(self) -> &'static str {
        match self {
            Self::Template => "templates",
            Self::Inventory => "inventories",
            Self::Environment => "environments",
            Self::Repository => "repositories",
            Self::Key => "keys",
            Self::Schedule => "schedules",
            Self::Integration => "integrations",
        }
    }
}

/// What the file at `path` declares. `None` for what does not belong to the tree: dotfiles, dot folders, files that are not TOML.
pub(crate) fn place_of(path: &str) -> Option<Result<Place, Misplaced>> {
    let parts: Vec<&str> = path.split('/').collect();
    if !path.ends_with(".toml") || parts.iter().any(|part| part.starts_with('.')) {
        return None;
    }
    Some(match parts.as_slice() {
        [SECRETS_FILE] => Ok(Place::Secrets),
        [file] => Err(in_root(file)),
        ["projects", rest @ ..] => in_projects(path, rest),
        [folder, rest @ ..] => in_root_folder(path, folder, rest),
        [] => return None,
    })
}

fn in_root(file: &str) -> Misplaced {
    let hint = if HOST_FILES.contains(&file) {
        "it belongs to its host and not into the tree: move it out".to_owned()
    } else if nearest(file, [SECRETS_FILE]).is_some() {
        format!("rename it to {SECRETS_FILE}")
    } else {
        format!("the folders here are {}; move the file into one of them or out of the tree", root_folders())
    };
    unknown_place(format!("Forge reads no `{file}` at the root of the tree"), hint)
}

fn in_projects(path: &str, rest: &[&str]) -> Result<Place, Misplaced> {
    match rest {
        [file] => {
            let project = file.trim_end_matches(".toml");
            let hint = format!("rename it to projects/{project}/project.toml");
            Err(unknown_place("a project is a folder with a project.toml".to_owned(), hint))
        }
        [project, "project.toml"] => project_name(project, path).map(Place::Project),
        [project, file] => {
            let kinds = PROJECT_FOLDERS.iter().map(|(folder, _)| *folder);
            let hint = match nearest(file, ["project.toml"]) {
                Some(_) => format!("rename it to projects/{project}/project.toml"),
                None => format!("move it into {}", either_of(kinds)),
            };
            Err(unknown_place(format!("Forge reads no `{file}` in a project's folder"), hint))
        }
        [project, folder, deeper @ ..] => {
            let project_name = project_name(project, path)?;
            let Some((_, kind)) = PROJECT_FOLDERS.iter().find(|(name, _)| name == folder) else {
                let folders = || PROJECT_FOLDERS.iter().map(|(folder, _)| *folder);
                let hint = nearest(folder, folders())
                    .map(|near| format!("did you mean projects/{project}/{near}/?"))
                    .unwrap_or_else(|| format!("the folders here are {}", list_of(folders())));
                return Err(unknown_place(format!("a project has no folder `{folder}`"), hint));
            };
            let file = only_file(deeper, &format!("projects/{project}/{folder}"))?;
            name_of(file, kind.noun(), path).map(|name| Place::InProject(project_name, *kind, name))
        }
        [] => Err(in_root("projects")),
    }
}

fn in_root_folder(path: &str, folder: &str, rest: &[&str]) -> Result<Place, Misplaced> {
    if let Some((_, kind)) = ROOT_FOLDERS.iter().find(|(name, _)| *name == folder) {
        let file = only_file(rest, folder)?;
        let noun = match kind {
            RootKind::Runner => "runner",
            RootKind::RegistrationToken => "registration token",
            RootKind::Plugin => "plugin",
            RootKind::Webhook => "webhook target",
            RootKind::Access => "access token",
        };
        return name_of(file, noun, path).map(|name| Place::Root(*kind, name));
    }
    if PROJECT_FOLDERS.iter().any(|(name, _)| *name == folder) {
        let hint = format!("move it to projects/<project>/{folder}/");
        return Err(unknown_place(format!("`{folder}` belong to a project"), hint));
    }
    let folders = || ROOT_FOLDERS.iter().map(|(folder, _)| *folder).chain(["projects"]);
    let hint = nearest(folder, folders())
        .map(|near| format!("did you mean {near}/?"))
        .unwrap_or_else(|| format!("the folders here are {}", root_folders()));
    Err(unknown_place(format!("the tree has no folder `{folder}`"), hint))
}

/// The one file below a folder of objects: there are no folders in it.
fn only_file<'a>(rest: &[&'a str], folder: &str) -> Result<&'a str, Misplaced> {
    match rest {
        [file] => Ok(file),
        [.., file] => {
            let message = format!("`{folder}` has no folders of its own");
            Err(unknown_place(message, format!("move it to {folder}/{file}")))
        }
        [] => Err(in_root(folder)),
    }
}

/// The name that a file or folder gives its object.
fn name_of(part: &str, noun: &str, path: &str) -> Result<Name, Misplaced> {
    let text = part.strip_suffix(".toml").unwrap_or(part);
    text.parse().map_err(|error: NameError| {
        let hint = Name::nearest_to(text)
            .map(|near| format!("rename it to {}", path.replacen(text, near.as_str(), 1)))
            .unwrap_or_else(|| "rename it".to_owned());
        Misplaced {
            code: Code::BadName,
            message: format!("`{text}` is no name for a {noun}: {error}"),
            hint: Some(hint),
        }
    })
}

/// The name of a project's folder. Two names are taken: under them the secrets of webhook targets and of plugins are allowed and encrypted.
fn project_name(part: &str, path: &str) -> Result<Name, Misplaced> {
    if [WEBHOOK_SECRETS, PLUGIN_SECRETS].contains(&part) {
        let message = format!("no project may be named `{part}`: the secrets of {part}/ go by that name");
        return Err(Misplaced { code: Code::BadName, message, hint: Some("give it another name".to_owned()) });
    }
    name_of(part, "project", path)
}

fn root_folders() -> String {
    list_of(["projects"].into_iter().chain(ROOT_FOLDERS.iter().map(|(folder, _)| *folder)))
}

fn unknown_place(message: String, hint: String) -> Misplaced {
    Misplaced { code: Code::UnknownPlace, message, hint: Some(hint) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    #[test]
    fn files_declare_objects() {
        for (path, place) in [
            ("secrets.toml", Place::Secrets),
            ("projects/shop/project.toml", Place::Project(name("shop"))),
            (
                "projects/shop/templates/deploy.toml",
                Place::InProject(name("shop"), ProjectKind::Template, name("deploy")),
            ),
            (
                "projects/shop/schedules/nightly.toml",
                Place::InProject(name("shop"), ProjectKind::Schedule, name("nightly")),
            ),
            ("webhooks/slack.toml", Place::Root(RootKind::Webhook, name("slack"))),
            ("runners/ny-1.toml", Place::Root(RootKind::Runner, name("ny-1"))),
            ("registration-tokens/east.toml", Place::Root(RootKind::RegistrationToken, name("east"))),
        ] {
            assert_eq!(place_of(path), Some(Ok(place)), "{path}");
        }
        for path in ["README.md", "plugins/a.wasm", ".github/x.toml", "projects/.x/project.toml", "runners/.a.toml"] {
            assert_eq!(place_of(path), None, "{path}");
        }
    }

    #[test]
    fn other_files_say_where_they_belong() {
        for (path, code, hint) in [
            ("forge.toml", Code::UnknownPlace, "belongs to its host"),
            ("secret.toml", Code::UnknownPlace, "rename it to secrets.toml"),
            ("templates/a.toml", Code::UnknownPlace, "projects/<project>/templates/"),
            ("runner/a.toml", Code::UnknownPlace, "did you mean runners/?"),
            ("projects/shop.toml", Code::UnknownPlace, "projects/shop/project.toml"),
            ("projects/shop/projekt.toml", Code::UnknownPlace, "projects/shop/project.toml"),
            ("projects/shop/template/a.toml", Code::UnknownPlace, "did you mean projects/shop/templates/?"),
            ("projects/shop/schedule/a.toml", Code::UnknownPlace, "did you mean projects/shop/schedules/?"),
            ("projects/shop/templates/a/b.toml", Code::UnknownPlace, "projects/shop/templates/b.toml"),
            ("webhook/a.toml", Code::UnknownPlace, "did you mean webhooks/?"),
            ("projects/webhooks/project.toml", Code::BadName, "another name"),
            ("projects/plugins/project.toml", Code::BadName, "another name"),
            ("runners/NY_1.toml", Code::BadName, "rename it to runners/ny-1.toml"),
            ("projects/Shop/project.toml", Code::BadName, "rename it to projects/shop/project.toml"),
        ] {
            let wrong = place_of(path).expect("TOML").expect_err(path);
            assert_eq!(wrong.code, code, "{path}");
            assert!(wrong.hint.as_ref().is_some_and(|text| text.contains(hint)), "{path}: {wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn no_path_panics(path in "(projects|runners|[a-z.]{0,3}|/|\\PC){0,8}(\\.toml)?") {
            let _ = place_of(&path);
        }
    }
}

//! What a tree may name: URLs that cannot be read as an option or a program, branches and commits that are such.

use forge_api::Repository;

use super::GitError;

/// Refuses a URL that is none, or that could be read as an option or a program.
pub(super) fn check_url(repository: &Repository) -> Result<(), GitError> {
    let url = repository.url.as_str();
    let refuse = |reason| Err(GitError::Url { name: repository.name.clone(), url: url.to_owned(), reason });
    if url.is_empty() {
        return refuse("it is empty");
    }
    if url.starts_with('-') {
        return refuse("it begins with `-`, which git would read as an option");
    }
    if url.chars().any(|letter| letter.is_control() || letter.is_whitespace()) {
        return refuse("it holds a space or a control character");
    }
    if url.starts_with('/') {
        return Ok(());
    }
    if let Some((scheme, rest)) = url.split_once("://") {
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        return match scheme {
            "https" | "ssh"
                if rest.starts_with('-') || host.starts_with('-') || host.starts_with('/') || host.is_empty() =>
            {
                refuse("its host is missing or begins with `-`")
            }
            "https"
                if rest
                    .split('/')
                    .next()
                    .and_then(|all| all.rsplit_once('@'))
                    .is_some_and(|(user, _)| user.contains(':')) =>
            {
                refuse("it holds a password; give the repository a key of the type login_password")
            }
            "https" | "ssh" => Ok(()),
            "file" if rest.starts_with('/') => Ok(()),
            "http" => refuse("plain HTTP can be changed on its way"),
            _ => refuse("its protocol is not allowed"),
        };
    }
    if url.contains("::") {
        return refuse("`::` would choose a program");
    }
    match url.split_once(':') {
        Some((host, path)) if host.contains('/') || path.is_empty() => refuse("it is a relative path"),
        Some((host, _))
            if host.starts_with('-')
                || host.rsplit('@').next().is_none_or(|name| name.is_empty() || name.starts_with('-')) =>
        {
            refuse("its host is missing or begins with `-`")
        }
        Some(_) => Ok(()),
        None => refuse("it is a relative path"),
    }
}

/// Refuses a branch that is none (git's own rules) and a commit that is no full object id.
pub(super) fn check_references(repository: &Repository) -> Result<(), GitError> {
    let refuse = |what, text: &str, reason| {
        Err(GitError::Reference { name: repository.name.clone(), what, text: text.to_owned(), reason })
    };
    if let Some(branch) = &repository.branch {
        let bad_letter = |letter: char| letter.is_control() || " ~^:?*[\\".contains(letter);
        if branch.is_empty() || branch.starts_with(['-', '/']) || branch.ends_with(['/', '.']) {
            return refuse("the branch", branch, "it begins or ends with what no branch may");
        }
        if branch.contains("..") || branch.contains("//") || branch.contains("@{") || branch.chars().any(bad_letter) {
            return refuse("the branch", branch, "it holds what no branch may");
        }
        if branch.split('/').any(|part| part.starts_with('.') || part.ends_with(".lock")) {
            return refuse("the branch", branch, "a part of it begins with `.` or ends with `.lock`");
        }
    }
    if let Some(commit) = &repository.commit
        && (!matches!(commit.len(), 40 | 64) || !commit.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        return refuse("the commit", commit, "it is no full commit id");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(url: &str) -> Repository {
        Repository {
            name: "shop".to_owned(),
            url: url.to_owned(),
            branch: None,
            commit: None,
            submodules: false,
            depth: None,
            key: None,
        }
    }

    /// Complaint 20 (a git URL runs a command): the grammar has no place for an option or a program.
    #[test]
    fn urls_that_could_start_a_program_are_refused() {
        for good in [
            "https://git.example.com/shop.git",
            "ssh://git@host:22/shop",
            "git@host:shop.git",
            "file:///srv/shop",
            "/srv/shop",
            "https://user@host:8443/shop",
        ] {
            assert!(check_url(&repository(good)).is_ok(), "{good}");
        }
        for wrong in [
            "",
            "-oProxyCommand=x",
            "--upload-pack=x",
            "ext::sh -c x",
            "ext::sh",
            "fd::7",
            "ssh://-oProxyCommand=x/y",
            "ssh://user@-oProxy/y",
            "-host:path",
            "user@-host:path",
            "http://host/x",
            "git://host/x",
            "./shop",
            "shop",
            "https://user:word@host/x",
            "https:///x",
            "file://host/x",
            "https://host/a\nb",
            "ftp://host/x",
        ] {
            assert!(check_url(&repository(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn branches_and_commits_that_are_none_are_refused() {
        for wrong in ["-b", "a..b", "a b", "a:b", "/a", "a/", ".a", "a.lock", "a@{1}", "+a^"] {
            let mut repository = repository("/srv/shop");
            repository.branch = Some(wrong.to_owned());
            assert!(check_references(&repository).is_err(), "{wrong}");
        }
        for wrong in ["HEAD", "abc123", "--all", &"g".repeat(40)] {
            let mut repository = repository("/srv/shop");
            repository.commit = Some((*wrong).to_owned());
            assert!(check_references(&repository).is_err(), "{wrong}");
        }
    }
}

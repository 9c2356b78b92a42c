//! Who may register a runner under which name, and what a registration answers.
//!
//! The single token of forge.toml registers any name. A scoped token registers the names bound to it and names without a file.
//! A name that is taken stays with its key: the same key gets a new token, sealed to it; another key is refused, but for the name of a
//! one-off runner that had its task and went.

use std::net::IpAddr;
use std::sync::Arc;

use forge_api::{AuditAction, AuditActor, RegisterRequest, RegisterResponse, Secret};
use forge_config::Name;
use forge_config::meant::{RegistrationToken, Tree};

use super::{Actor, Applied, Core, CoreError, refused, versions};
use crate::scheduler::facts::Permission;
use crate::secrets::{self, TokenKind, digest_of, new_token, same_digest};
use crate::store::{About, Ended, NewRegistration, Note, Registered, Registration};

/// The most characters of a name that nobody has checked yet.
const NAME_CHARS_MAX: usize = 64;

/// The most bytes of what a runner says of itself when it registers.
const SAID_BYTES_MAX: usize = 256;

/// Which token asks.
enum Bearer<'a> {
    /// The single one of forge.toml.
    Single,
    /// One of `registration-tokens/`.
    Scoped(&'a Name, &'a RegistrationToken),
}

impl Bearer<'_> {
    /// As the audit log names it.
    fn name(&self) -> String {
        match self {
            Self::Single => "forge.toml".to_owned(),
            Self::Scoped(name, _) => name.as_str().to_owned(),
        }
    }
}

impl Core {
    /// Registers a runner; `token` is a registration token.
    pub async fn register(&self, token: &Secret, request: RegisterRequest) -> Result<RegisterResponse, CoreError> {
        self.register_from(None, token, request).await
    }

    /// The same, by a request that came from an address. It is written down, however it ends.
    pub async fn register_from(
        &self,
        remote: Option<IpAddr>,
        token: &Secret,
        request: RegisterRequest,
    ) -> Result<RegisterResponse, CoreError> {
        let applied = self.inner.scheduler.applied();
        let bearer = self.bearer(&applied.tree, token);
        let by = bearer.as_ref().map_or_else(String::new, Bearer::name);
        let actor = Actor { kind: AuditActor::Registration, name: by, remote };
        let project = applied.tree.runners.get(request.name.as_str()).and_then(|rule| rule.project.as_ref());
        let project = project.or(match &bearer {
            Some(Bearer::Scoped(_, token)) => token.project.as_ref(),
            Some(Bearer::Single) | None => None,
        });
        let note = Note {
            actor,
            action: AuditAction::RunnerRegister,
            about: project.map_or(About::Nothing, |project| About::Project(project.as_str().to_owned())),
            // A stranger's text has no end of its own.
            object: format!("runner {}", request.name.chars().take(NAME_CHARS_MAX).collect::<String>()),
            detail: None,
        };
        let refused_note = note.clone();
        let registered = self.register_as(&applied, bearer, token, request, note).await;
        if let Err(error) = &registered {
            let problem = error.problem();
            let slug = problem.slug().to_owned();
            let ended = if problem.status >= 500 { Ended::Failed(slug) } else { Ended::Refused(slug) };
            self.note_refusal(refused_note, ended).await;
        }
        registered
    }

    async fn register_as(
        &self,
        applied: &Applied,
        bearer: Option<Bearer<'_>>,
        token: &Secret,
        request: RegisterRequest,
        note: Note,
    ) -> Result<RegisterResponse, CoreError> {
        let tree = &applied.tree;
        let bearer = bearer.ok_or(CoreError::Unauthorized)?;
        if self.is_token_revoked(&digest_of(token)).await? {
            tracing::warn!(runner = request.name, "a revoked registration token was refused");
            return Err(CoreError::Unauthorized);
        }
        check_request(&request)?;
        versions::check(&request.name, &request.version)?;
        let granted = self.may_register(tree, &bearer, &request.name)?;
        let (new, digest) = new_token(TokenKind::Runner).map_err(super::internal)?;
        let sealed_token = secrets::seal_text(&request.public_key, &new).map_err(|error| CoreError::Invalid {
            detail: error.to_string(),
            hint: Some("send the recipient (age1...) of the runner's own key".to_owned()),
        })?;
        let pinned = request.signing_key;
        let registration = NewRegistration {
            name: request.name.clone(),
            public_key: request.public_key,
            token_sha256: digest.0,
            registered_by: match bearer {
                Bearer::Single => None,
                Bearer::Scoped(name, _) => Some(name.as_str().to_owned()),
            },
            project: granted.project.clone(),
            tags: granted.tags.clone(),
            token_max: granted.max_parallel_tasks,
            own_max: request.max_parallel_tasks,
            one_off: request.one_off,
            version: request.version,
            uses: match bearer {
                Bearer::Single => None,
                Bearer::Scoped(_, token) => token.uses.map(|uses| (token.hash.0, uses)),
            },
        };
        let scheduler = Arc::clone(&self.inner.scheduler);
        let stored =
            self.inner.store.register(registration, move |name| scheduler.is_away(name), note, self.now()).await;
        match stored.map_err(|error| refused(error, "runner", &request.name, None))? {
            Registered::New | Registered::Again => {}
            // Its predecessor's token and sessions are nobody's any more.
            Registered::Successor => self.inner.scheduler.forget_runner(&request.name),
        }
        let permission = match tree.runners.get(request.name.as_str()) {
            Some(_declared) => Permission::of(tree, &request.name, None::<&Registration>),
            None => granted,
        };
        tracing::info!(runner = request.name, "a runner registered");
        // Only its own file says so.
        let disabled = (!permission.enabled).then(|| format!("enabled = false in runners/{}.toml", request.name));
        Ok(RegisterResponse {
            disabled,
            name: request.name,
            sealed_token,
            signing_key: self.inner.keys.signing_public(),
            project: permission.project,
            tags: permission.tags,
            key_changes: self.inner.keys.changes_since(&pinned).to_vec(),
        })
    }

    /// Which registration token it is. Every one is compared: the time tells nothing of which one was near.
    fn bearer<'a>(&self, tree: &'a Tree, token: &Secret) -> Option<Bearer<'a>> {
        let digest = digest_of(token);
        let mut found = None;
        if self.inner.registration_token.as_ref().is_some_and(|single| same_digest(&digest_of(single), &digest)) {
            found = Some(Bearer::Single);
        }
        for (name, scoped) in &tree.registration_tokens {
            if same_digest(&scoped.hash, &digest) {
                found = Some(Bearer::Scoped(name, scoped));
            }
        }
        found
    }

    /// Whether the token may register the name, and what it gives to a runner without a file.
    fn may_register(&self, tree: &Tree, bearer: &Bearer<'_>, name: &str) -> Result<Permission, CoreError> {
        let rule = tree.runners.get(name);
        let bound = rule.and_then(|rule| rule.registration_token.as_ref());
        let forbidden = |detail: String, hint: String| CoreError::Forbidden { detail, hint: Some(hint) };
        match bearer {
            Bearer::Single => match bound {
                Some(token) => Err(forbidden(
                    format!("runners/{name}.toml lets only the registration token {token} register this name"),
                    format!("use the token of registration-tokens/{token}.toml"),
                )),
                None => Ok(Permission::of(tree, "", None)),
            },
            Bearer::Scoped(token_name, token) => {
                if token.expires_unix_micros.is_some_and(|expires| self.now().unix_micros() >= expires) {
                    return Err(forbidden(
                        format!("the registration token {token_name} has expired"),
                        format!("give registration-tokens/{token_name}.toml a later `expires`, or use another token"),
                    ));
                }
                if let Some(only) = token.runner.as_ref().filter(|only| only.as_str() != name) {
                    return Err(forbidden(
                        format!("the registration token {token_name} registers only the runner {only}"),
                        format!("register as {only}, or use another token"),
                    ));
                }
                let is_bound = bound == Some(*token_name)
                    || (bound.is_none() && token.runner.as_ref().is_some_and(|only| only.as_str() == name));
                if rule.is_some() && !is_bound {
                    return Err(forbidden(
                        format!("the registration token {token_name} is not bound to {name}, which has a file"),
                        format!("write `registration_token = \"{token_name}\"` into runners/{name}.toml"),
                    ));
                }
                Ok(Permission::of_token(token))
            }
        }
    }
}

fn check_request(request: &RegisterRequest) -> Result<(), CoreError> {
    if let Err(error) = request.name.parse::<Name>() {
        return Err(CoreError::Invalid {
            detail: format!("{:?} is no runner's name: {error}", request.name),
            hint: Some("use [a-z0-9][a-z0-9-]{0,62}".to_owned()),
        });
    }
    if request.version.len() > SAID_BYTES_MAX || request.public_key.len() > SAID_BYTES_MAX {
        return Err(CoreError::Invalid {
            detail: format!("version and public_key have {SAID_BYTES_MAX} bytes at most"),
            hint: None,
        });
    }
    secrets::recipient(&request.public_key).map(|_recipient| ()).map_err(|error| CoreError::Invalid {
        detail: error.to_string(),
        hint: Some("send the recipient (age1...) of the runner's own key".to_owned()),
    })
}

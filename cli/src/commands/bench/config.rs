//! `config`: from a write in the watched folder to the moment where the daemon serves it, in trees of several sizes: one template
//! written, and then every one of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use forge_api::ConfigStatus;
use http::Method;

use super::Bench;
use super::report::{Aim, Measured, Unit};
use super::samples::Samples;
use super::wire::{Body, Connection};
use super::world::{self, World};
use crate::error::{CliError, file_error};

/// How many templates the trees have.
const TEMPLATES: [u32; 3] = [10, 1_000, 10_000];

/// How many templates a project has.
const TEMPLATES_PER_PROJECT: u32 = 50;

/// How often one template is written.
const WRITES: u32 = 10;

/// How often all of them are.
const BURSTS: u32 = 3;

/// What one write in a tree of 1,000 templates should take, and the end of a burst of as many.
const WRITE_MS_MAX: f64 = 300.0;
const BURST_MS_MAX: f64 = 500.0;

/// The tree that the aims are about.
const AIMED: u32 = 1_000;

pub(super) async fn measure(bench: &Bench<'_>) -> Result<Measured, CliError> {
    let setting = "a watched folder; one template written, and all of them, until `GET /config` names the new revision";
    let mut measured = Measured::new("config", setting);
    // `--tasks` bounds this measurement like any other.
    let sizes = TEMPLATES.into_iter().filter(|size| bench.tasks.is_none_or(|tasks| *size <= tasks.max(TEMPLATES[0])));
    for templates in sizes {
        bench.progress(&format!("{templates} templates"));
        let size = Size::start(templates).await?;
        one_size(&mut measured, &size).await?;
    }
    Ok(measured)
}

/// A daemon with a tree of one size.
struct Size {
    world: World,
    tree: PathBuf,
    templates: u32,
}

impl Size {
    async fn start(templates: u32) -> Result<Self, CliError> {
        let world = World::start().await?;
        let size = Self { tree: world.tree(), world, templates };
        let mut connection = Connection::new(&size.world.endpoint);
        let before = size.revision(&mut connection).await?;
        for number in 0..templates {
            size.write(number, 0)?;
        }
        size.serves_another(&mut connection, &before, Duration::from_millis(20)).await?;
        size.settle(&mut connection).await?;
        Ok(size)
    }

    fn path(&self, number: u32) -> PathBuf {
        let project = self.tree.join(format!("projects/bench-{}", number / TEMPLATES_PER_PROJECT));
        project.join(format!("templates/t{number}.toml"))
    }

    /// As an editor does it: beside its place, and then over it.
    fn write(&self, number: u32, round: u32) -> Result<(), CliError> {
        let path = self.path(number);
        let folder = path.parent().unwrap_or(&self.tree);
        let put = |path: &Path, text: &str| fs::write(path, text).map_err(|error| file_error("write", path, &error));
        if !folder.exists() {
            fs::create_dir_all(folder).map_err(|error| file_error("make the folder", folder, &error))?;
            put(&folder.with_file_name("project.toml"), "description = \"One of many\"\n")?;
        }
        let text = format!(
            "description = \"Round {round}\"\nexecutor = \"shell\"\ntimeout = \"30m\"\n[params]\nscript = '''\necho one\necho two\n'''\n\
             [survey.version]\ntype = \"string\"\nrequired = true\npattern = '^v[0-9]+$'\n"
        );
        let beside = folder.join(".written");
        put(&beside, &text)?;
        fs::rename(&beside, &path).map_err(|error| file_error("rename", &path, &error))
    }

    async fn revision(&self, connection: &mut Connection) -> Result<String, CliError> {
        let token = self.world.access().reveal();
        let status: ConfigStatus = connection.json(Method::GET, "/config", token, Body::Nothing).await?;
        match status.last_error {
            None => Ok(status.revision),
            Some(failure) => Err(CliError::failed(format_args!("the bench's own tree was refused: {failure:?}"))),
        }
    }

    async fn serves_another(
        &self,
        connection: &mut Connection,
        before: &str,
        pause: Duration,
    ) -> Result<String, CliError> {
        let begin = Instant::now();
        loop {
            let revision = self.revision(connection).await?;
            if revision != before {
                return Ok(revision);
            }
            if begin.elapsed() > world::FACT_DEADLINE {
                return Err(CliError::failed("what was written did not come to serve"));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Waits until nothing more is applied: what is measured next begins in silence.
    async fn settle(&self, connection: &mut Connection) -> Result<String, CliError> {
        let mut before = self.revision(connection).await?;
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let revision = self.revision(connection).await?;
            if revision == before {
                return Ok(revision);
            }
            before = revision;
        }
    }
}

async fn one_size(measured: &mut Measured, size: &Size) -> Result<(), CliError> {
    /// Fine enough for what is measured, and no burden on who is.
    const LOOK: Duration = Duration::from_millis(2);
    let templates = size.templates;
    let mut connection = Connection::new(&size.world.endpoint);
    let (mut writes, mut bursts) = (Samples::default(), Samples::default());
    for round in 1..=WRITES {
        let before = size.settle(&mut connection).await?;
        let begin = Instant::now();
        size.write(round % templates, round)?;
        size.serves_another(&mut connection, &before, LOOK).await?;
        writes.add(begin.elapsed());
    }
    let applied = size.world.metric("forge_config_applied_total").await?;
    for round in 1..=BURSTS {
        let before = size.settle(&mut connection).await?;
        for number in 0..templates {
            size.write(number, WRITES + round)?;
        }
        let begin = Instant::now();
        size.serves_another(&mut connection, &before, LOOK).await?;
        bursts.add(begin.elapsed());
    }
    size.settle(&mut connection).await?;
    let reloads = size.world.metric("forge_config_applied_total").await?.saturating_sub(applied);
    for percent in [50, 95] {
        let what = format!("{templates} templates, one written, until it serves, p{percent}");
        measured.value(format!("write_{templates}_p{percent}"), what, writes.percentile_ms(percent), Unit::Millis);
        if templates == AIMED {
            measured.aim(Aim::AtMost(WRITE_MS_MAX));
        }
    }
    let what = format!("{templates} templates, all written, from the last one until they serve, p50");
    measured.value(format!("burst_{templates}_p50"), what, bursts.percentile_ms(50), Unit::Millis);
    if templates == AIMED {
        measured.aim(Aim::AtMost(BURST_MS_MAX));
    }
    let what = format!("{templates} templates, reloads a burst");
    measured.value(format!("reloads_{templates}"), what, reloads as f64 / f64::from(BURSTS), Unit::Count);
    if templates == AIMED {
        measured.aim(Aim::AtMost(1.0));
    }
    Ok(())
}

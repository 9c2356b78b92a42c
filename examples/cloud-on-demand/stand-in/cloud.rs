//! A cloud on loopback: it speaks as much of Lambda as Forge's `aws-lambda` target does, and its machines are `forge runner` processes.
//!
//! `start-machine` starts one that registers, takes one task and leaves; `stop-machine` ends it and removes what it had. Both may be
//! called as often as one likes.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tiny_http::{Header, Method, Request, Response, Server};

/// What machines are made from.
pub(crate) struct Image {
    /// The program `forge`.
    pub(crate) forge: PathBuf,
    /// The daemon's URL.
    pub(crate) web_host: String,
    /// Its CA.
    pub(crate) ca_file: PathBuf,
    /// What a machine registers with.
    pub(crate) registration_token: String,
    /// Where machines have their disks.
    pub(crate) disks: PathBuf,
}

/// The cloud.
pub(crate) struct Cloud {
    image: Image,
    machines: Mutex<HashMap<String, Machine>>,
    calls: Mutex<Vec<(String, String, String)>>,
    lost_starts: AtomicU32,
    disks_made: AtomicU32,
}

struct Machine {
    process: Child,
    disk: PathBuf,
}

impl Drop for Machine {
    fn drop(&mut self) {
        // One that has ended by itself needs no end; its disk goes either way.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.disk);
    }
}

impl Cloud {
    /// A cloud without machines.
    pub(crate) fn new(image: Image) -> Arc<Self> {
        Arc::new(Self {
            image,
            machines: Mutex::default(),
            calls: Mutex::default(),
            lost_starts: AtomicU32::new(0),
            disks_made: AtomicU32::new(0),
        })
    }

    /// Answers until the process ends.
    pub(crate) fn serve(&self, server: &Server) {
        for request in server.incoming_requests() {
            self.answer(request);
        }
    }

    /// The next so many starts are taken and come to nothing, as happens where a region has no capacity.
    pub(crate) fn lose_starts(&self, starts: u32) {
        self.lost_starts.store(starts, Ordering::SeqCst);
    }

    /// Which functions were called, for which machine and by which event.
    pub(crate) fn calls(&self) -> Vec<(String, String, String)> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many machines there are.
    pub(crate) fn machines_there(&self) -> usize {
        self.machines().len()
    }

    fn machines(&self) -> MutexGuard<'_, HashMap<String, Machine>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, mut request: Request) {
        let (status, body) = match (request.method(), request.url()) {
            (Method::Get, "/") => {
                let seen = serde_json::json!({ "machines": self.machines_there(), "calls": self.calls() });
                (200, seen.to_string())
            }
            (Method::Post, "/lose-a-start") => {
                self.lose_starts(1);
                (202, String::new())
            }
            _ => match self.invoke(&mut request) {
                Ok(()) => (202, String::new()),
                Err((status, message)) => (status, serde_json::json!({ "message": message }).to_string()),
            },
        };
        let json: Option<Header> = "Content-Type: application/json".parse().ok();
        let mut response = Response::from_string(body).with_status_code(status);
        if let Some(json) = json {
            response.add_header(json);
        }
        // A client that hung up calls again.
        let _ = request.respond(response);
    }

    fn invoke(&self, request: &mut Request) -> Result<(), (u16, String)> {
        let refuse = |status, message: &str| Err((status, message.to_owned()));
        let path = request.url().to_owned();
        let function = path.strip_prefix("/2015-03-31/functions/").and_then(|rest| rest.strip_suffix("/invocations"));
        let Some(function) = function.filter(|_| *request.method() == Method::Post) else {
            return refuse(404, "there is nothing but the invocation of functions");
        };
        let header = |name: &'static str| {
            let found = request.headers().iter().find(|header| header.field.equiv(name));
            found.map(|header| header.value.as_str().to_owned()).unwrap_or_default()
        };
        if !header("Authorization").starts_with("AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/")
            || header("X-Amz-Date").is_empty()
        {
            return refuse(403, "the request is not signed");
        }
        let function = function.to_owned();
        let event: Value = match serde_json::from_reader(request.as_reader()) {
            Ok(event) => event,
            Err(error) => return refuse(400, &format!("the payload is no JSON: {error}")),
        };
        let Some(instance) = event["input"]["instance"].as_str().map(str::to_owned) else {
            return refuse(400, "`input.instance` says which machine");
        };
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push((
            function.clone(),
            instance.clone(),
            event["event"].as_str().unwrap_or_default().to_owned(),
        ));
        match function.as_str() {
            "start-machine" => self.start(&instance).map_err(|error| (500, error.to_string())),
            "stop-machine" => {
                self.machines().remove(&instance);
                Ok(())
            }
            _ => refuse(404, "there is no such function"),
        }
    }

    fn start(&self, name: &str) -> std::io::Result<()> {
        let lost = self.lost_starts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |lost| lost.checked_sub(1));
        if lost.is_ok() {
            return Ok(());
        }
        let mut machines = self.machines();
        if let Some(machine) = machines.get_mut(name) {
            if machine.process.try_wait()?.is_none() {
                // It runs: being asked again changes nothing.
                return Ok(());
            }
            machines.remove(name);
        }
        // A machine that starts has a fresh disk.
        let disk = self.image.disks.join(format!("{name}-{}", self.disks_made.fetch_add(1, Ordering::SeqCst)));
        std::fs::create_dir_all(&disk)?;
        let settings = disk.join("runner.toml");
        let text = format!(
            "web_host = {:?}\ntmp_path = {:?}\nca_file = {:?}\n[runner]\nname = {name:?}\ntoken_file = {:?}\nprivate_key_file = {:?}\none_off = true\n",
            self.image.web_host,
            disk.join("tmp"),
            self.image.ca_file,
            disk.join("token"),
            disk.join("private.key"),
        );
        std::fs::write(&settings, text)?;
        let process = Command::new(&self.image.forge)
            .args(["runner", "--config"])
            .arg(&settings)
            .env("FORGE_RUNNER_REGISTRATION_TOKEN", &self.image.registration_token)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(disk.join("log"))?)
            .spawn()?;
        machines.insert(name.to_owned(), Machine { process, disk });
        Ok(())
    }
}

//! Debian's own compiler for WebAssembly, `rustc-web`, without root: its packages are downloaded and unpacked into a
//! cache, and std is built once from `rust-web-src`, which has the compiler's own version.
//!
//! The cache appears whole: everything happens in a folder beside it, which is renamed in the end, and a file lock
//! keeps two builds from doing it at once.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Result;
use super::guests::{FLAG_SEPARATOR, TARGET, clean_cargo, remap, run};
use super::settings::Settings;
use super::toolchain::{self, Toolchain};

/// The packages that are asked for by name; what they need follows from the lists.
const PACKAGES: [&str; 3] = ["rustc-web", "libstd-rust-web-dev", "rust-web-src"];
/// What every Debian has, and what an unpacked copy must not shadow.
const OF_SYSTEM: [&str; 3] = ["libc6", "libgcc-s1", "libstdc++6"];
/// The name in the cache. A change of what stands in it is a new name.
const FOLDER: &str = "rustc-web-1";

/// What is in the cache, else what is made now.
pub(crate) fn toolchain(settings: &Settings) -> Result<Toolchain> {
    let folder = settings.cache.join(FOLDER);
    if !folder.is_dir() {
        make_locked(settings, &folder)?;
    }
    at(settings, &folder)
}

/// The toolchain that stands in a folder.
fn at(settings: &Settings, folder: &Path) -> Result<Toolchain> {
    Ok(Toolchain {
        rustc: folder.join("usr/bin/rustc"),
        libraries: Some(libraries(folder)?),
        linker: Some(toolchain::linker(settings)?),
    })
}

fn make_locked(settings: &Settings, folder: &Path) -> Result<()> {
    let cache = &settings.cache;
    let failed = |error: std::io::Error| format!("{}: {error}", cache.display());
    fs::create_dir_all(cache).map_err(failed)?;
    let lock = File::create(cache.join("lock")).map_err(failed)?;
    lock.lock().map_err(failed)?;
    if folder.is_dir() {
        // Another build made it while this one waited.
        return Ok(());
    }
    // Only the holder of the lock touches this name: what is there was left behind by a build that was ended.
    let unfinished = cache.join(format!("{FOLDER}.unfinished"));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(failed)?;
    }
    let packages = unfinished.join("packages");
    fs::create_dir_all(&packages).map_err(failed)?;
    download(settings, &packages)?;
    let root = unfinished.join("root");
    unpack(&packages, &root)?;
    build_std(settings, &root, &unfinished.join("std"))?;
    // Half of what was unpacked, and the compiler would write its path into the guests.
    fs::remove_dir_all(root.join("usr/src")).map_err(failed)?;
    fs::rename(&root, folder).map_err(failed)?;
    fs::remove_dir_all(&unfinished).map_err(failed)
}

/// Downloads the packages, after a look at newer lists where the present ones know no compiler that is new enough.
fn download(settings: &Settings, into: &Path) -> Result<()> {
    if !is_new_enough(settings)? {
        if !is_root() {
            return Err(format!(
                "apt knows no rustc-web of at least {}: run `apt-get update` as root",
                settings.rust_version
            ));
        }
        run(Command::new("apt-get").args(["update", "-q"]))?;
        if !is_new_enough(settings)? {
            return Err(format!("Debian's rustc-web is older than {}, or not in its lists", settings.rust_version));
        }
    }
    let names = needed()?;
    run(Command::new("apt-get").current_dir(into).args(["download", "-q"]).args(names)).map(drop)
}

/// Whether apt's candidate of `rustc-web` builds this workspace.
fn is_new_enough(settings: &Settings) -> Result<bool> {
    let shown = run(Command::new("apt-cache").args(["policy", "rustc-web"]))
        .map_err(|error| format!("this is not Debian, where the compiler would be taken from: {error}"))?;
    let shown = String::from_utf8_lossy(&shown).into_owned();
    let candidate = shown.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
    Ok(candidate.is_some_and(|candidate| version(candidate) >= version(&settings.rust_version)))
}

/// `1.96.0+dfsg1-1` and `1.95` alike: major and minor.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|character: char| !character.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The packages, and the libraries that they need and that this machine does not have.
fn needed() -> Result<BTreeSet<String>> {
    let options = ["depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks"];
    let more = ["--no-replaces", "--no-enhances", "libstd-rust-web-dev"];
    let shown = run(Command::new("apt-cache").args(options).args(more))?;
    let installed =
        run(Command::new("dpkg-query").args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"]))?;
    let installed = String::from_utf8_lossy(&installed).into_owned();
    let installed: BTreeSet<&str> = installed.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    let mut names: BTreeSet<String> = String::from_utf8_lossy(&shown)
        .lines()
        // A package's own line is not indented, and a virtual one stands in angle brackets.
        .filter(|line| line.starts_with("lib"))
        .filter(|name| !OF_SYSTEM.contains(name) && !installed.contains(name))
        .map(str::to_owned)
        .collect();
    names.extend(PACKAGES.map(str::to_owned));
    Ok(names)
}

fn unpack(packages: &Path, root: &Path) -> Result<()> {
    let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    fs::create_dir_all(root).map_err(|error| failed(root, error))?;
    for entry in fs::read_dir(packages).map_err(|error| failed(packages, error))? {
        let package = entry.map_err(|error| failed(packages, error))?.path();
        run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(root))?;
    }
    Ok(())
}

/// Builds std for WebAssembly with the unpacked compiler, and puts it where that compiler looks.
fn build_std(settings: &Settings, root: &Path, work: &Path) -> Result<()> {
    const MANIFEST: &str = "[package]\nname = \"std-build\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\
         [profile.release]\npanic = \"abort\"\nopt-level = \"s\"\n[workspace]\n";
    let failed = |error: std::io::Error| format!("{}: {error}", work.display());
    fs::create_dir_all(work.join("src")).map_err(failed)?;
    fs::write(work.join("Cargo.toml"), MANIFEST).map_err(failed)?;
    fs::write(work.join("src/lib.rs"), "#![no_std]\n").map_err(failed)?;

    // Bitcode beside machine code serves guests with and without link-time optimisation.
    let mut flags = OsString::from(["-Cembed-bitcode=yes", "-Zforce-unstable-if-unmarked", ""].join(FLAG_SEPARATOR));
    flags.push(remap(&root.join("usr/lib/rustlib/src/rust"), "/rustc"));
    let target = work.join("target");
    let mut cargo = clean_cargo(settings, &at(settings, root)?);
    cargo
        .current_dir(work)
        .args(["build", "--quiet", "--release", "-Zbuild-std=std,panic_abort", "--target", TARGET])
        .arg("--target-dir")
        .arg(&target)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags);
    run(&mut cargo).map_err(|error| format!("std for WebAssembly does not build: {error}"))?;

    let lib = root.join("usr/lib/rustlib").join(TARGET).join("lib");
    fs::create_dir_all(&lib).map_err(failed)?;
    for entry in fs::read_dir(target.join(TARGET).join("release/deps")).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if name.starts_with("lib") && name.ends_with(".rlib") && !name.starts_with("libstd_build-") {
            fs::copy(&path, lib.join(name)).map_err(failed)?;
        }
    }
    Ok(())
}

/// `usr/lib/<multiarch>`, whatever this machine's is called.
fn libraries(root: &Path) -> Result<PathBuf> {
    let lib = root.join("usr/lib");
    let failed = |error: std::io::Error| format!("{}: {error}", lib.display());
    for entry in fs::read_dir(&lib).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().contains("-linux-gnu")) {
            return Ok(path);
        }
    }
    Err(format!("{} holds no libraries: remove it, and build again", lib.display()))
}

/// Whether `apt-get update` may be run.
fn is_root() -> bool {
    run(Command::new("id").arg("-u")).is_ok_and(|user| user == b"0\n")
}

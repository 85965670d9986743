//! The proxy as it ships: built, put under the load of `weft-bench train` with counters in it, and built again laid out by
//! what was counted (profile-guided optimisation of LLVM). Everything else is the release build's.

use std::hash::{DefaultHasher, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::build::{self, Profile};
use crate::cargo::{self, Workspace};
use crate::programs;

/// Where rustup keeps the tool that joins counters, below the toolchain's library of a host.
const MERGE: &str = "bin/llvm-profdata";

/// Builds everything, with the proxy laid out by its load. Gives the folder that holds it, `guided` in the target directory.
pub(crate) fn everything(workspace: &Workspace) -> Result<PathBuf> {
    let installed = programs::install(workspace)?;
    let host = Host::find(workspace)?;
    let released = build::everything(workspace, Profile::Release)?;
    let training = workspace.target.join("guided-training");
    let (counters, trained) = (training.join("counters"), training.join("programs"));
    if counters.exists() {
        std::fs::remove_dir_all(&counters).context("the counters of an earlier training")?;
    }
    assemble(&released, &host.proxy(workspace, &format!("-Cprofile-generate={}", counters.display()))?, &trained)?;
    let mut train = Command::new(trained.join("weft-bench"));
    train.arg("train").arg("--binaries").arg(&trained).arg("--envoy").arg(&installed.envoy);
    train.arg("--configurations").arg(workspace.root.join("bench/peers")).arg("--reports").arg(&training);
    cargo::run(train.env("PATH", &installed.path).current_dir(&workspace.root))?;
    let profile = host.merge(workspace, &counters)?;
    let guided = workspace.target.join("guided");
    assemble(&released, &host.proxy(workspace, &format!("-Cprofile-use={}", profile.display()))?, &guided)?;
    Ok(guided)
}

/// The programs and filters of a release build in a folder of their own, with another proxy.
fn assemble(released: &Path, proxy: &Path, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder.join("filters")).with_context(|| format!("cannot make {}", folder.display()))?;
    for program in ["weft", "weft-control", "weft-bench"] {
        copy(&released.join(program), &folder.join(program))?;
    }
    copy(proxy, &folder.join("weft-proxy"))?;
    for filter in std::fs::read_dir(released.join("filters")).context("the filters of the release build")? {
        let filter = filter?;
        copy(&filter.path(), &folder.join("filters").join(filter.file_name()))?;
    }
    Ok(())
}

/// Replaces a program also while it runs.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let next = to.with_extension("next");
    std::fs::copy(from, &next).with_context(|| format!("cannot copy {}", from.display()))?;
    std::fs::rename(&next, to).with_context(|| format!("cannot write {}", to.display()))
}

/// The compiler's own target and the folder of its tools.
struct Host {
    target: String,
    tools: PathBuf,
}

impl Host {
    /// Asks the compiler; installs the tool where rustup left it out.
    fn find(workspace: &Workspace) -> Result<Self> {
        let rustc =
            |arguments: &[&str]| cargo::output(Command::new("rustc").args(arguments).current_dir(&workspace.root));
        let about = rustc(&["-vV"])?;
        let target = about.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV names its host")?;
        let tools = Path::new(rustc(&["--print", "sysroot"])?.trim()).join("lib/rustlib").join(target);
        if !tools.join(MERGE).exists() {
            let mut rustup = Command::new("rustup");
            cargo::run(rustup.args(["component", "add", "llvm-tools"]).current_dir(&workspace.root))?;
        }
        Ok(Self { target: target.to_owned(), tools })
    }

    /// Builds the proxy alone with one more flag. `--target` keeps the flag from build scripts and macros.
    fn proxy(&self, workspace: &Workspace, flag: &str) -> Result<PathBuf> {
        let mut build = workspace.cargo(["build", "--release", "-p", "weft-proxy", "--target", &self.target]);
        cargo::run(cargo::without_lints(build.env("CARGO_ENCODED_RUSTFLAGS", flag)))?;
        Ok(workspace.target.join(&self.target).join("release/weft-proxy"))
    }

    /// One profile of all counters. Its name says what is in it: cargo looks at a flag's text, not at the file that it names.
    fn merge(&self, workspace: &Workspace, counters: &Path) -> Result<PathBuf> {
        let folder = workspace.target.join("profiles");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let merged = folder.join("new.profdata");
        cargo::run(Command::new(self.tools.join(MERGE)).args(["merge", "-o"]).arg(&merged).arg(counters))?;
        let bytes = std::fs::read(&merged).with_context(|| format!("cannot read {}", merged.display()))?;
        let mut content = DefaultHasher::new();
        content.write(&bytes);
        let named = folder.join(format!("{:016x}.profdata", content.finish()));
        std::fs::rename(&merged, &named).with_context(|| format!("cannot write {}", named.display()))?;
        Ok(named)
    }
}

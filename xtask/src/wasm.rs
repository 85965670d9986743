//! Builds filters to components, with what Rust there is: rustup's wasm target, else a distribution's own Rust that
//! builds std from source. Has a target directory of its own, and does nothing while no input has changed.

use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context as _, Result, bail, ensure};

use crate::cargo;

const TARGET: &str = "wasm32-unknown-unknown";

/// Filters that ship: package, name of the component.
const SHIPPED: [(&str, &str); 8] = [
    ("weft-filter-authz", "authz"),
    ("weft-filter-fault", "fault"),
    ("weft-filter-ratelimit", "ratelimit"),
    ("weft-filter-header-edit", "header-edit"),
    ("weft-filter-body-guard", "body-guard"),
    ("weft-filter-extauth", "extauth"),
    ("weft-filter-jwt", "jwt"),
    ("weft-filter-expr", "expr"),
];

/// Built for tests alone, into `<workspace>/target/filters`; never beside the binaries.
const FOR_TESTS: [(&str, &str); 1] = [("weft-filter-hostile2", "hostile2")];

/// Examples of the SDK, built for the tests that run their cases.
const EXAMPLES: [&str; 6] = ["starter", "apikeys", "rewrite", "quota", "flags", "labels"];
const SDK: &str = "weft-filters-sdk";

/// Of an earlier release, whose SDK is no more: its component is kept, and placed with those for tests.
const RELEASED: [(&str, &str); 1] = [("dataplane/filter-host/tests/released/0.1/hostile.wasm", "hostile")];

/// Folders and files that decide what comes out.
const INPUTS: [&str; 8] = [
    "filters",
    "filters-sdk",
    "policy/src",
    "policy/Cargo.toml",
    "dataplane/filter-host/tests/hostile2",
    "dataplane/filter-host/tests/released",
    "Cargo.toml",
    "Cargo.lock",
];

/// Debian's packages for the second way.
const DEBIAN_PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "lld"];
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_STD: &str = "/usr/lib/rustlib/src/rust/library/std/Cargo.toml";

/// Builds every shipped filter to `out/NAME.wasm`, and all of them, those for tests too, to `target/filters`.
pub(crate) fn build_filters(workspace: &Path, out: &Path) -> Result<Vec<PathBuf>> {
    let built = target_directory(workspace).join("filters");
    fs::create_dir_all(&built).with_context(|| format!("cannot make {}", built.display()))?;
    let stamp = built.join("inputs");
    let inputs = format!("{:016x}", hash_inputs(workspace)?);
    let mut names = SHIPPED.iter().chain(&FOR_TESTS).map(|(_, name)| *name).chain(EXAMPLES);
    let complete = names.all(|name| component(&built, name).is_file());
    if !complete || fs::read_to_string(&stamp).ok().as_deref() != Some(&inputs) {
        build_all(workspace, &built)?;
        fs::write(&stamp, &inputs).with_context(|| format!("cannot write {}", stamp.display()))?;
    }
    for (path, name) in RELEASED {
        place(&workspace.join(path), &component(&built, name))?;
    }
    SHIPPED.iter().map(|(_, name)| place(&component(&built, name), &component(out, name))).collect()
}

fn component(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.wasm"))
}

/// Copies where the content differs, so that an unchanged filter keeps its time and a running mesh its file.
fn place(from: &Path, to: &Path) -> Result<PathBuf> {
    let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).ok().as_ref() != Some(&bytes) {
        let folder = to.parent().context("a file lies in a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        fs::write(to, bytes).with_context(|| format!("cannot write {}", to.display()))?;
    }
    Ok(to.to_owned())
}

fn target_directory(workspace: &Path) -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), |target| workspace.join(target))
}

fn build_all(workspace: &Path, built: &Path) -> Result<()> {
    let toolchain = Toolchain::find(workspace)?;
    let target = target_directory(workspace).join("wasm");
    let build = |package: &str, of_package: &[&str], module: PathBuf, name: &str| {
        // One crate type only: with an rlib beside it, link-time optimisation stays off.
        let mut command = toolchain.cargo(workspace);
        command.args(["--profile", "wasm", "--package", package, "--crate-type", "cdylib"]).args(of_package);
        cargo::run(command.env("CARGO_TARGET_DIR", &target))?;
        let module = target.join(TARGET).join("wasm").join(module);
        let module = fs::read(&module).with_context(|| format!("cannot read {}", module.display()))?;
        let path = component(built, name);
        let bytes = componentise(&module).with_context(|| format!("{name} does not make a component"))?;
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
    };
    for &(package, name) in SHIPPED.iter().chain(&FOR_TESTS) {
        build(package, &["--lib"], format!("{}.wasm", package.replace('-', "_")).into(), name)?;
    }
    for name in EXAMPLES {
        build(SDK, &["--example", name], Path::new("examples").join(format!("{name}.wasm")), name)?;
    }
    Ok(())
}

fn componentise(module: &[u8]) -> Result<Vec<u8>> {
    wit_component::ComponentEncoder::default().validate(true).module(module)?.encode()
}

/// Source of Rust for wasm.
enum Toolchain {
    /// rustup's, with its prebuilt std.
    Rustup,
    /// The distribution's, std built from its sources, with this linker.
    Debian { linker: PathBuf },
}

impl Toolchain {
    fn find(workspace: &Path) -> Result<Self> {
        if rustup_target_installed(workspace) || add_rustup_target(workspace) {
            return Ok(Self::Rustup);
        }
        let complete = || [DEBIAN_CARGO, DEBIAN_RUSTC, DEBIAN_STD].iter().all(|path| Path::new(path).is_file());
        if !complete() || find_linker().is_none() {
            install_debian()?;
        }
        ensure!(complete(), "{DEBIAN_PACKAGES:?} are installed, but {DEBIAN_CARGO} or {DEBIAN_STD} is missing");
        let linker = find_linker().context("neither wasm-ld nor rust-lld is there; install Debian's package lld")?;
        Ok(Self::Debian { linker })
    }

    /// `cargo rustc` for the wasm target.
    fn cargo(&self, workspace: &Path) -> Command {
        let mut command = match self {
            Self::Rustup => Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into())),
            Self::Debian { linker } => {
                let mut command = Command::new(DEBIAN_CARGO);
                // Another Rust than the one that runs this: nothing of its surroundings may leak in.
                for leaked in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC_WRAPPER", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
                    command.env_remove(leaked);
                }
                command.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                command.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
                command
            }
        };
        cargo::without_lints(&mut command);
        command.current_dir(workspace).args(["rustc", "--locked", "--target", TARGET]);
        if matches!(self, Self::Debian { .. }) {
            command.arg("-Zbuild-std=std,panic_abort");
        }
        command
    }
}

fn rustup_target_installed(workspace: &Path) -> bool {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command.current_dir(workspace).args(["--print", "target-libdir", "--target", TARGET]);
    let Ok(folder) = cargo::output(&mut command) else { return false };
    fs::read_dir(folder.trim()).is_ok_and(|mut entries| entries.next().is_some())
}

fn add_rustup_target(workspace: &Path) -> bool {
    let mut command = Command::new("rustup");
    cargo::run(command.current_dir(workspace).args(["target", "add", TARGET])).is_ok()
}

fn install_debian() -> Result<()> {
    let by_hand = format!("apt-get install {}", DEBIAN_PACKAGES.join(" "));
    let how = format!("rustup can't fetch {TARGET}, and Debian's Rust is not complete: as root, {by_hand}");
    let root = cargo::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    if !root {
        bail!(how);
    }
    cargo::run(Command::new("apt-get").args(["update", "-q"])).context(how.clone())?;
    let mut apt = Command::new("apt-get");
    apt.args(["install", "-q", "-y", "--no-install-recommends"]).args(DEBIAN_PACKAGES);
    cargo::run(apt.env("DEBIAN_FRONTEND", "noninteractive")).context(how)
}

/// `wasm-ld` of the distribution, else the `rust-lld` that rustup's toolchain brings.
fn find_linker() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let distribution = env::split_paths(&path).map(|folder| folder.join("wasm-ld"));
    let sysroot = cargo::output(Command::new("rustc").args(["--print", "sysroot"])).unwrap_or_default();
    let host = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let rustup = Path::new(sysroot.trim()).join("lib/rustlib").join(host).join("bin/rust-lld");
    distribution.chain([rustup]).find(|linker| linker.is_file())
}

/// A hash over names and contents of all inputs.
fn hash_inputs(workspace: &Path) -> Result<u64> {
    let mut files = Vec::new();
    for input in INPUTS {
        collect(&workspace.join(input), &mut files)?;
    }
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files {
        let content = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        file.strip_prefix(workspace).unwrap_or(&file).hash(&mut hasher);
        content.hash(&mut hasher);
    }
    Ok(hasher.finish())
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_file() {
        files.push(path.to_owned());
        return Ok(());
    }
    if path.file_name() == Some(OsStr::new("target")) {
        return Ok(());
    }
    let entries = fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
    for entry in entries {
        collect(&entry?.path(), files)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_all_there_and_their_hash_stands_still() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("below the root");
        assert_eq!(hash_inputs(workspace).expect("readable"), hash_inputs(workspace).expect("readable"));
    }

    #[test]
    #[ignore = "builds std for wasm: minutes the first time"]
    fn the_filters_build() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("below the root");
        let out = target_directory(workspace).join("filters/shipped");
        let built = build_filters(workspace, &out).expect("they build");
        assert_eq!(built.len(), SHIPPED.len());
    }

    #[test]
    fn what_is_no_filter_does_not_become_a_component() {
        assert!(componentise(b"\0asm\x01\0\0\0").is_err() || componentise(b"no wasm").is_err());
    }
}

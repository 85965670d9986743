//! Compilers of C, JavaScript and Python to WebAssembly. Those of the latter two are installed below the filter's own
//! folder, in the versions that it names; nothing else of the machine changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use wit_component::StringEncoding;

use crate::output;

/// The world in a folder's `wit`: what the filter has of the contract.
pub(super) const WORLD: &str = "it";
/// Relative to the folder, as all paths that compilers are told.
const WIT: &str = "wit";
const OUT: &str = "target/filter.wasm";

const CLANG: &str = "a filter in C needs clang and wasm-ld, as Debian's packages clang and lld have them";
const CLANG_FLAGS: [&str; 12] = [
    "--target=wasm32",
    "-std=c11",
    "-O2",
    "-Wall",
    "-Wextra",
    "-ffreestanding",
    "-fno-builtin",
    "-nostdlib",
    "-mbulk-memory",
    "-Wl,--no-entry",
    // An overflow of the stack traps, in place of overwriting what lies below it.
    "-Wl,--stack-first",
    "-Wl,-z,stack-size=65536",
];

const NPM: &str = "a filter in JavaScript needs Node.js with npm, as Debian's packages nodejs and npm have them";
const PACKAGES: &str = "package.json";
const NODE_MODULES: &str = "node_modules";

const PYTHON: &str = "a filter in Python needs Python 3.10 or later with venv, as Debian's package python3-venv has it";
const REQUIREMENTS: &str = "requirements.txt";
const ENVIRONMENT: &str = "target/python";

/// The file that says for which list of packages a folder of them was installed.
const INSTALLED: &str = "weft-installed";

/// The module of all `src/*.c`, which knows its types.
pub(super) fn c(folder: &Path) -> anyhow::Result<PathBuf> {
    let folder = whole(folder)?;
    let module = place(&folder)?;
    let mut sources = Vec::new();
    let entries = fs::read_dir(folder.join("src")).with_context(|| format!("cannot read {}/src", folder.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}/src", folder.display()))?.path();
        if path.extension().is_some_and(|it| it == "c") {
            sources.push(path);
        }
    }
    sources.sort();
    let mut clang = Command::new("clang");
    clang.current_dir(&folder).args(CLANG_FLAGS).args(["-o", OUT]).args(sources);
    run(&mut clang, CLANG)?;
    let wasm = typed(super::binary(&module)?, &folder.join(WIT))?;
    fs::write(&module, wasm).with_context(|| format!("cannot write {}", module.display()))?;
    Ok(module)
}

/// The component of `src/filter.js`, with all that it imports, on QuickJS.
pub(super) fn javascript(folder: &Path) -> anyhow::Result<PathBuf> {
    let folder = whole(folder)?;
    let component = place(&folder)?;
    let modules = folder.join(NODE_MODULES);
    once(&folder.join(PACKAGES), &modules, || {
        let mut npm = Command::new("npm");
        // Nothing that a package brings is run at its installation.
        npm.current_dir(&folder).args(["install", "--ignore-scripts", "--no-audit", "--no-fund"]);
        run(&mut npm, NPM)
    })?;
    let compiler = modules.join(".bin/componentize-qjs");
    ensure!(compiler.is_file(), "{PACKAGES} does not bring componentize-qjs, which compiles filters in JavaScript");
    let mut quickjs = Command::new(compiler);
    quickjs.current_dir(&folder).args(["--sync", "--module-root", "src", "--wit", WIT, "--world", WORLD]);
    quickjs.args(["--js", "src/filter.js", "--output", OUT]);
    run(&mut quickjs, NPM)?;
    Ok(component)
}

/// The component of `src/filter.py`, with all that it imports, on CPython.
pub(super) fn python(folder: &Path) -> anyhow::Result<PathBuf> {
    let folder = whole(folder)?;
    let component = place(&folder)?;
    let environment = folder.join(ENVIRONMENT);
    once(&folder.join(REQUIREMENTS), &environment, || {
        run(Command::new("python3").current_dir(&folder).args(["-m", "venv", ENVIRONMENT]), PYTHON)?;
        let mut pip = Command::new(environment.join("bin/python3"));
        pip.current_dir(&folder).args(["-m", "pip", "install", "-q", "--disable-pip-version-check"]);
        run(pip.args(["-r", REQUIREMENTS]), PYTHON)
    })?;
    let compiler = environment.join("bin/componentize-py");
    ensure!(compiler.is_file(), "{REQUIREMENTS} does not bring componentize-py, which compiles filters in Python");
    let mut cpython = Command::new(compiler);
    cpython.current_dir(&folder).args(["-d", WIT, "-w", WORLD, "componentize", "-p", "src", "filter", "-o", OUT]);
    run(&mut cpython, PYTHON)?;
    Ok(component)
}

/// The whole path of a folder: programs in it are started from elsewhere.
pub(super) fn whole(folder: &Path) -> anyhow::Result<PathBuf> {
    folder.canonicalize().with_context(|| format!("cannot find {}", folder.display()))
}

/// Makes the folder of what compilers make; gives the file in it.
fn place(folder: &Path) -> anyhow::Result<PathBuf> {
    let file = folder.join(OUT);
    let target = file.parent().context("a file lies in a folder")?;
    fs::create_dir_all(target).with_context(|| format!("cannot make {}", target.display()))?;
    Ok(file)
}

/// Installs what a list names into a folder, unless that was done for this very list.
fn once(list: &Path, into: &Path, install: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let wanted = fs::read_to_string(list).with_context(|| format!("cannot read {}", list.display()))?;
    let stamp = into.join(INSTALLED);
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    output::complain(&format!("installing the compiler of {} into {}", list.display(), into.display()));
    install()?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
}

/// Runs a compiler. What it complains of is shown; what else it says only where it fails.
fn run(command: &mut Command, needs: &str) -> anyhow::Result<()> {
    let shown = Path::new(command.get_program()).display().to_string();
    let told = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let told = told.with_context(|| format!("cannot run {shown}: {needs}"))?;
    if !told.status.success() {
        output::complain(String::from_utf8_lossy(&told.stdout).trim_end());
        bail!("{shown} did not do it: {}", told.status);
    }
    Ok(())
}

/// A module that says by which types of the contract its functions are called.
fn typed(mut module: Vec<u8>, wit: &Path) -> anyhow::Result<Vec<u8>> {
    let (resolve, world) = world(wit)?;
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    Ok(module)
}

/// What the folder `wit` says that the filter has of the contract.
pub(super) fn world(wit: &Path) -> anyhow::Result<(wit_parser::Resolve, wit_parser::WorldId)> {
    let mut resolve = wit_parser::Resolve::default();
    let (package, _) = resolve.push_dir(wit).with_context(|| wit.display().to_string())?;
    let world = resolve.select_world(&[package], Some(WORLD)).with_context(|| wit.display().to_string())?;
    Ok((resolve, world))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_installed_once_and_again_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (list, into) = (folder.path().join("list"), folder.path().join("into"));
        fs::create_dir(&into).unwrap();
        fs::write(&list, "one").unwrap();
        let mut installed = 0;
        let mut count = |fails: bool| {
            once(&list, &into, || {
                installed += 1;
                ensure!(!fails, "no network");
                Ok(())
            })
        };
        assert!(count(true).unwrap_err().to_string().contains("no network"));
        count(false).unwrap();
        count(true).expect("it is there");
        fs::write(&list, "two").unwrap();
        count(false).unwrap();
        assert_eq!(installed, 3);
    }

    #[test]
    fn a_compiler_that_is_missing_or_fails_is_named() {
        let error = format!("{:#}", run(&mut Command::new("no-such-compiler"), CLANG).unwrap_err());
        assert!(error.contains("cannot run no-such-compiler") && error.contains("clang and lld"), "{error}");
        let error = format!("{:#}", run(&mut Command::new("false"), NPM).unwrap_err());
        assert!(error.contains("false did not do it"), "{error}");
    }
}

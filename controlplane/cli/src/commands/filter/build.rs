//! `weft filter build`: what the language's compiler makes becomes a component, with the cases and the schema that lie
//! beside the source.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use weft_policy::component::{self, SCHEMA_SECTION, with_section};
use weft_policy::schema;

use super::language::Language;
use super::{cases, compilers, inspect, keys};
use crate::answer::{Answer, Outcome};
use crate::output;

pub(super) const EXAMPLE: &str = "Examples:
  weft filter build mine
  weft filter build . --out mine.wasm
  weft filter build . --from made-by-python.wasm --out mine.wasm";

const TARGETS: [&str; 2] = ["wasm32-unknown-unknown", "wasm32-wasip2"];
const SCHEMA_FILE: &str = "schema.json";

#[derive(Debug, clap::Args)]
pub(super) struct BuildArgs {
    /// The filter's folder, as `weft filter new` makes it: Rust, C, JavaScript or Python.
    #[arg(default_value = ".", value_name = "DIR")]
    folder: PathBuf,
    /// What Rust builds for [default: wasm32-unknown-unknown].
    #[arg(long, value_parser = TARGETS)]
    target: Option<String>,
    /// Take this module or component in place of what cargo builds: of any language.
    #[arg(long, value_name = "FILE", requires = "out", conflicts_with = "target")]
    from: Option<PathBuf>,
    /// The component [default: NAME.wasm in the folder].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &BuildArgs) -> Outcome {
    let file = match (&args.from, &args.out) {
        (Some(from), Some(out)) => finish(&args.folder, from, out.clone())?,
        (_, out) => build(&args.folder, args.target.as_deref(), out.as_deref())?,
    };
    let wasm = super::binary(&file)?;
    let digest = keys::digest_text(&keys::digest(&wasm));
    output::say(&format!("{}: {} bytes, {digest}", file.display(), wasm.len()));
    Ok(Answer::Yes)
}

/// The same for the target that every filter can be built for.
pub(super) fn of_folder(folder: &Path) -> anyhow::Result<PathBuf> {
    build(folder, None, None)
}

fn build(folder: &Path, target: Option<&str>, out: Option<&Path>) -> anyhow::Result<PathBuf> {
    let language = Language::of(folder)?;
    ensure!(language == Language::Rust || target.is_none(), "--target is for Rust, and {} is not", folder.display());
    let (name, module) = match language {
        Language::Rust => {
            let target = target.unwrap_or(TARGETS[0]);
            ensure_target(folder, target)?;
            compile(folder, target)?
        }
        Language::C => (name_of(folder)?, compilers::c(folder)?),
        Language::Javascript => (name_of(folder)?, compilers::javascript(folder)?),
        Language::Python => (name_of(folder)?, compilers::python(folder)?),
    };
    let file = out.map_or_else(|| folder.join(format!("{}.wasm", name.replace('_', "-"))), Path::to_owned);
    finish(folder, &module, file)
}

/// The name of the folder is the filter's, where no other file says one.
fn name_of(folder: &Path) -> anyhow::Result<String> {
    let whole = compilers::whole(folder)?;
    let name = whole.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned).with_context(|| format!("{} has no name for a file: say --out", whole.display()))
}

fn finish(folder: &Path, module: &Path, file: PathBuf) -> anyhow::Result<PathBuf> {
    let wasm = assemble(&super::binary(module)?, folder)?;
    std::fs::write(&file, wasm).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

/// Says how to get a target that is not there, in place of a compiler's pages about a missing `core`.
fn ensure_target(folder: &Path, target: &str) -> anyhow::Result<()> {
    let mut rustc = Command::new(program("RUSTC", "rustc"));
    rustc.current_dir(folder).args(["--print", "target-libdir", "--target", target]);
    let told = rustc.output().context("cannot run rustc: a filter in Rust needs Rust, see https://rustup.rs")?;
    let library = PathBuf::from(String::from_utf8_lossy(&told.stdout).trim());
    let is_there = std::fs::read_dir(library).is_ok_and(|mut entries| entries.next().is_some());
    ensure!(
        told.status.success() && is_there,
        "Rust's library for {target} is not installed; this installs it: rustup target add {target}"
    );
    Ok(())
}

fn program(variable: &str, name: &str) -> OsString {
    std::env::var_os(variable).unwrap_or_else(|| name.into())
}

/// The name of the library, and the module that cargo made of it.
fn compile(folder: &Path, target: &str) -> anyhow::Result<(String, PathBuf)> {
    let mut cargo = Command::new(program("CARGO", "cargo"));
    // One crate type only: with an rlib beside it, link-time optimisation stays off.
    cargo.current_dir(folder).args(["rustc", "--release", "--lib", "--crate-type", "cdylib", "--target", target]);
    cargo.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped());
    let child = cargo.spawn().context("cannot run cargo: a filter in Rust needs Rust, see https://rustup.rs")?;
    let told = child.wait_with_output().context("cannot wait for cargo")?;
    if !told.status.success() {
        bail!("cargo did not build {}: {}", folder.display(), told.status);
    }
    let module = module_of(&String::from_utf8_lossy(&told.stdout));
    module.with_context(|| format!("cargo made no module of {}: has it a library?", folder.display()))
}

/// Of cargo's messages the last library's.
fn module_of(messages: &str) -> Option<(String, PathBuf)> {
    let mut found = None;
    for message in messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let library = &message["target"];
        let kinds = library["crate_types"].as_array();
        let is_library = kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind.as_str() == Some("cdylib")));
        if message["reason"].as_str() != Some("compiler-artifact") || !is_library {
            continue;
        }
        let files = message["filenames"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let module = files.map(PathBuf::from).find(|file| file.extension().is_some_and(|it| it == "wasm"));
        found = library["name"].as_str().map(str::to_owned).zip(module).or(found);
    }
    found
}

/// The component of a module, or the component that it is already, with what lies beside its source; checked as it
/// will be by whoever runs it.
fn assemble(module: &[u8], folder: &Path) -> anyhow::Result<Vec<u8>> {
    let facts = component::read(module).context("what was compiled can't be read")?;
    let mut wasm = match facts.is_component {
        true => module.to_vec(),
        false => componentise(module).context("the module does not make a component: does it export a filter?")?,
    };
    if let Some(text) = schema_of(folder)? {
        ensure!(facts.schema.is_none(), "the filter has a schema in its source, and another one in {SCHEMA_FILE}");
        wasm = with_section(wasm, SCHEMA_SECTION, text.as_bytes());
    }
    if let Some(found) = cases::of_folder(folder)? {
        wasm = cases::embed(wasm, &found)?;
    }
    inspect::publishable(&wasm).context("what was built is no filter")?;
    Ok(wasm)
}

fn componentise(module: &[u8]) -> anyhow::Result<Vec<u8>> {
    wit_component::ComponentEncoder::default().validate(true).module(module)?.encode()
}

/// The text of the schema beside a filter's source, if it has one.
pub(super) fn schema_of(folder: &Path) -> anyhow::Result<Option<String>> {
    let path = folder.join(SCHEMA_FILE);
    if !path.is_file() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    schema::parse(&text).with_context(|| path.display().to_string())?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_found_among_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"serde","crate_types":["lib"]},"filenames":["/t/libserde.rlib"]}
not a message
{"reason":"compiler-artifact","target":{"name":"my_filter","crate_types":["cdylib"]},"filenames":["/t/my_filter.d","/t/my_filter.wasm"]}
{"reason":"build-finished","success":true}"#;
        let expected = ("my_filter".to_owned(), PathBuf::from("/t/my_filter.wasm"));
        assert_eq!(module_of(messages), Some(expected));
        assert_eq!(module_of("{}\n[]\n"), None);
    }

    #[test]
    fn what_is_missing_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let error = of_folder(folder.path()).unwrap_err().to_string();
        assert!(error.contains("is no filter's folder"), "{error}");
        let error = ensure_target(folder.path(), "wasm32-nowhere").unwrap_err().to_string();
        assert!(error.contains("rustup target add wasm32-nowhere"), "{error}");
    }

    #[test]
    fn what_is_no_filter_is_not_built() {
        let folder = tempfile::tempdir().unwrap();
        let error = |bytes: &[u8]| format!("{:#}", assemble(bytes, folder.path()).unwrap_err());
        assert!(error(b"ELF").contains("not a WebAssembly binary"));
        assert!(error(b"\0asm\x0d\0\x01\0").contains("no filter"));
        std::fs::write(folder.path().join(SCHEMA_FILE), "[").unwrap();
        assert!(error(b"\0asm\x0d\0\x01\0").contains(SCHEMA_FILE));
    }
}

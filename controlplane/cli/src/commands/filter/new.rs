//! `weft filter new`: a folder with a whole filter, which builds and whose cases hold, to be changed from there.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum;

use crate::answer::{Answer, Outcome};
use crate::{output, values};

pub(super) const EXAMPLE: &str = "Example:
  weft filter new mine --sdk ../weft/filters-sdk && cd mine && weft filter test";

/// The filter is an example of the SDK, so that it is built and tested with each release.
const SOURCE: &str = include_str!("../../../../../filters-sdk/examples/starter.rs");
const CASES: &str = include_str!("../../../../../filters-sdk/examples/starter.yaml");
const SCHEMA: &str = include_str!("../../../../../filters-sdk/examples/starter.schema.json");

const MANIFEST: &str = r#"[package]
name = "NAME"
version = "0.1.0"
edition = "2024"

[lib]
crate-type = ["cdylib", "rlib"]

[dependencies]
serde = { version = "1", features = ["derive"] }
weft-filters-sdk = { path = "SDK" }

[profile.release]
opt-level = "s"
lto = true
panic = "abort"
strip = "debuginfo"                # function names stay: a trap in the log says where

# A workspace of its own, wherever the folder lies.
[workspace]
"#;

const README: &str = "# NAME

A filter for Weft. `src/lib.rs` is the filter, `schema.json` what its configuration may be, `cases.yaml` what it does.

    weft filter test               # builds it and runs its cases in the sandbox
    weft filter bench NAME.wasm    # what a request costs
    weft filter publish NAME.wasm --name NAME --version 0.1.0 --key publisher.key

The component carries the cases; a control plane runs them before it takes it.
";

const IGNORED: &str = "/target\n/*.wasm\n";

#[derive(Debug, clap::Args)]
pub(super) struct NewArgs {
    /// Name of the filter, and of the folder.
    #[arg(value_parser = values::name)]
    name: String,
    /// What it is written in.
    #[arg(long, value_enum, default_value_t)]
    lang: Language,
    /// The folder `filters-sdk` of Weft's source [default: `../weft/filters-sdk`, beside the new folder].
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Language {
    #[default]
    Rust,
}

pub(super) fn run(args: &NewArgs) -> Outcome {
    let Language::Rust = args.lang;
    let folder = Path::new(&args.name);
    let sdk = match &args.sdk {
        Some(sdk) => known(sdk)?,
        None => "../weft/filters-sdk".to_owned(),
    };
    make(folder, &args.name, &sdk)?;
    output::say(&format!("{}: cd {} && weft filter test", args.name, folder.display()));
    if args.sdk.is_none() && !folder.join(&sdk).join("Cargo.toml").is_file() {
        output::complain(&format!("{sdk} is not there: say in Cargo.toml where Weft's folder filters-sdk is"));
    }
    Ok(Answer::Yes)
}

/// The whole path of the SDK's folder, as a manifest may have it.
fn known(sdk: &Path) -> anyhow::Result<String> {
    let whole = sdk.canonicalize().with_context(|| format!("cannot find {}", sdk.display()))?;
    ensure!(whole.join("Cargo.toml").is_file(), "{} has no Cargo.toml: it is no SDK", whole.display());
    let plain = |text: &&str| !text.contains(|it: char| it.is_control() || matches!(it, '"' | '\\'));
    let text = whole.to_str().filter(plain);
    text.map(str::to_owned).with_context(|| format!("{whole:?} can't stand in a manifest"))
}

fn make(folder: &Path, name: &str, sdk: &str) -> anyhow::Result<()> {
    let is_empty = |folder: &Path| std::fs::read_dir(folder).map(|mut entries| entries.next().is_none());
    if folder.exists() && !is_empty(folder).with_context(|| format!("{} is no folder", folder.display()))? {
        bail!("{} is not empty, and nothing in it is overwritten", folder.display());
    }
    let source = folder.join("src");
    std::fs::create_dir_all(&source).with_context(|| format!("cannot make {}", source.display()))?;
    let files = [
        ("Cargo.toml", MANIFEST.replace("NAME", name).replace("SDK", sdk)),
        ("README.md", README.replace("NAME", name)),
        (".gitignore", IGNORED.to_owned()),
        ("cases.yaml", CASES.to_owned()),
        ("schema.json", SCHEMA.to_owned()),
        ("src/lib.rs", SOURCE.to_owned()),
    ];
    for (file, text) in files {
        let path = folder.join(file);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::filter::{build, cases};

    #[test]
    fn a_folder_is_whole_and_nothing_is_overwritten() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("mine");
        make(&folder, "mine", "/src/weft/filters-sdk").unwrap();
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        assert!(manifest.contains("name = \"mine\"") && manifest.contains("path = \"/src/weft/filters-sdk\""));
        assert!(cases::of_folder(&folder).unwrap().is_some_and(|cases| !cases.cases.is_empty()));
        assert!(build::schema_of(&folder).unwrap().is_some());
        let error = make(&folder, "mine", "x").unwrap_err().to_string();
        assert!(error.contains("is not empty"), "{error}");
        let file = place.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(make(&file, "file", "x").unwrap_err().to_string().contains("is no folder"));
    }

    #[test]
    fn the_sdk_is_one_that_is_there() {
        let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../filters-sdk");
        assert!(known(&sdk).unwrap().ends_with("filters-sdk"));
        let empty = tempfile::tempdir().unwrap();
        assert!(known(empty.path()).unwrap_err().to_string().contains("it is no SDK"));
    }
}

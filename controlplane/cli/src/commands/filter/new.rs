//! `weft filter new`: a folder with a whole filter, which builds and whose cases hold, to be changed from there.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};

use super::language::Language;
use crate::answer::{Answer, Outcome};
use crate::{output, values};

pub(super) const EXAMPLE: &str = "Examples:
  weft filter new mine --sdk ../weft/filters-sdk && cd mine && weft filter test
  weft filter new mine --language javascript && cd mine && weft filter test";

/// The filter is one and the same in each language, held to the same cases. In Rust it is an example of the SDK, so that
/// it is built and tested with each release.
const CASES: &str = include_str!("../../../../../filters-sdk/examples/starter.yaml");
const SCHEMA: &str = include_str!("../../../../../filters-sdk/examples/starter.schema.json");
const RUST: &str = include_str!("../../../../../filters-sdk/examples/starter.rs");
const C: [(&str, &str); 3] = [
    ("src/filter.c", include_str!("../../../../../filters-sdk/languages/c/filter.c")),
    ("src/weft.c", include_str!("../../../../../filters-sdk/languages/c/weft.c")),
    ("src/weft.h", include_str!("../../../../../filters-sdk/languages/c/weft.h")),
];
const JAVASCRIPT: [(&str, &str); 3] = [
    ("src/filter.js", include_str!("../../../../../filters-sdk/languages/javascript/filter.js")),
    ("src/weft.js", include_str!("../../../../../filters-sdk/languages/javascript/weft.js")),
    ("package.json", include_str!("../../../../../filters-sdk/languages/javascript/package.json")),
];
const PYTHON: [(&str, &str); 3] = [
    ("src/filter.py", include_str!("../../../../../filters-sdk/languages/python/filter.py")),
    ("src/weft.py", include_str!("../../../../../filters-sdk/languages/python/weft.py")),
    ("requirements.txt", include_str!("../../../../../filters-sdk/languages/python/requirements.txt")),
];

/// What a filter in another language than Rust has of the contract, and the contract.
const WIT: [(&str, &str); 2] = [
    ("wit/world.wit", include_str!("../../../../../filters-sdk/languages/world.wit")),
    ("wit/deps/filter/filter.wit", include_str!("../../../../../filters-sdk/wit/0.2/filter.wit")),
];

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

A filter for Weft. `SOURCE` is the filter, `schema.json` what its configuration may be, `cases.yaml` what it does.

    weft filter test               # builds it and runs its cases in the sandbox
    weft filter run --to 127.0.0.1:8080   # before an app of this machine, built again at each change
    weft filter bench NAME.wasm    # what a request costs
    weft filter publish NAME.wasm --name NAME --version 0.1.0 --key publisher.key

The component carries the cases; a control plane runs them before it takes it.
";

/// Of a filter in another language than Rust.
const README_WIT: &str = "
`wit/world.wit` names what the filter has of the contract, which lies beside it in `wit/deps`.
";

const IGNORED: &str = "/target\n/node_modules\n/*.wasm\n__pycache__/\n";

#[derive(Debug, clap::Args)]
pub(super) struct NewArgs {
    /// Name of the filter, and of the folder.
    #[arg(value_parser = values::name)]
    name: String,
    /// What it is written in.
    #[arg(long, visible_alias = "lang", value_enum, default_value_t)]
    language: Language,
    /// For Rust: the folder `filters-sdk` of Weft's source [default: `../weft/filters-sdk`, beside the new folder].
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
}

pub(super) fn run(args: &NewArgs) -> Outcome {
    let folder = Path::new(&args.name);
    let is_rust = args.language == Language::Rust;
    if !is_rust && args.sdk.is_some() {
        return Err(anyhow::anyhow!("--sdk is for Rust: what another language needs comes with the folder").into());
    }
    let sdk = match &args.sdk {
        Some(sdk) => known(sdk)?,
        None => "../weft/filters-sdk".to_owned(),
    };
    make(folder, args.language, &args.name, &sdk)?;
    output::say(&format!("{}: cd {} && weft filter test", args.name, folder.display()));
    if is_rust && args.sdk.is_none() && !folder.join(&sdk).join("Cargo.toml").is_file() {
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

fn make(folder: &Path, language: Language, name: &str, sdk: &str) -> anyhow::Result<()> {
    let is_empty = |folder: &Path| std::fs::read_dir(folder).map(|mut entries| entries.next().is_none());
    if folder.exists() && !is_empty(folder).with_context(|| format!("{} is no folder", folder.display()))? {
        bail!("{} is not empty, and nothing in it is overwritten", folder.display());
    }
    for (file, text) in files(language, name, sdk) {
        let path = folder.join(file);
        let parent = path.parent().context("a file lies in a folder")?;
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The files of a new folder and their texts.
fn files(language: Language, name: &str, sdk: &str) -> Vec<(&'static str, String)> {
    let readme = README.replace("NAME", name).replace("SOURCE", language.source());
    let common = [(".gitignore", IGNORED), ("cases.yaml", CASES), ("schema.json", SCHEMA)];
    let mut files: Vec<_> = common.map(|(file, text)| (file, text.to_owned())).into();
    let of_language: &[(&str, &str)] = match language {
        Language::Rust => {
            let manifest = MANIFEST.replace("NAME", name).replace("SDK", sdk);
            files.extend([("README.md", readme), ("Cargo.toml", manifest), ("src/lib.rs", RUST.to_owned())]);
            return files;
        }
        Language::C => &C,
        Language::Javascript => &JAVASCRIPT,
        Language::Python => &PYTHON,
    };
    files.push(("README.md", readme + README_WIT));
    files.extend(of_language.iter().chain(&WIT).map(|(file, text)| (*file, (*text).to_owned())));
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::filter::{build, cases, compilers};

    fn examples() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../filters-sdk/examples"))
    }

    #[test]
    fn a_folder_is_whole_and_nothing_is_overwritten() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("mine");
        make(&folder, Language::Rust, "mine", "/src/weft/filters-sdk").unwrap();
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        assert!(manifest.contains("name = \"mine\"") && manifest.contains("path = \"/src/weft/filters-sdk\""));
        let error = make(&folder, Language::Rust, "mine", "x").unwrap_err().to_string();
        assert!(error.contains("is not empty"), "{error}");
        let file = place.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(make(&file, Language::C, "file", "x").unwrap_err().to_string().contains("is no folder"));
    }

    #[test]
    fn the_folder_of_each_language_can_be_built() {
        for language in Language::ALL {
            let place = tempfile::tempdir().unwrap();
            make(place.path(), language, "mine", "x").unwrap();
            assert_eq!(Language::of(place.path()).unwrap(), language);
            assert!(place.path().join(language.source()).is_file());
            let readme = std::fs::read_to_string(place.path().join("README.md")).unwrap();
            assert!(readme.contains(language.source()) && !readme.contains("NAME"), "{readme}");
            let found = cases::of_folder(place.path()).unwrap();
            assert!(found.is_some_and(|cases| !cases.cases.is_empty()));
            assert!(build::schema_of(place.path()).unwrap().is_some());
            if language != Language::Rust {
                let (resolve, world) = compilers::world(&place.path().join("wit")).unwrap();
                assert_eq!(resolve.worlds[world].exports.len(), 2, "configuration and the head of requests");
            }
        }
    }

    /// They are compiled by the long tests alone.
    #[test]
    fn the_examples_of_each_language_have_cases() {
        assert!(cases::of_file(&examples().join("apikeys.yaml")).is_ok());
        for (file, shared) in [("apikeys.c", "weft.h"), ("apikeys.js", "./weft.js"), ("apikeys.py", "from weft import")]
        {
            let text = std::fs::read_to_string(examples().join(file)).unwrap();
            assert!(text.contains(shared), "{file}");
        }
    }

    #[test]
    fn the_sdk_is_one_that_is_there() {
        let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../filters-sdk");
        assert!(known(&sdk).unwrap().ends_with("filters-sdk"));
        let empty = tempfile::tempdir().unwrap();
        assert!(known(empty.path()).unwrap_err().to_string().contains("it is no SDK"));
    }
}

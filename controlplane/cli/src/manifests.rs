//! Manifests as people give them: files, folders, stdin. Everything is parsed here before anything is sent, and every
//! mistake in every file is told at once with file, line and key.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::Value;
use weft_policy::manifest::{self, Document, ManifestError};

use crate::answer::Failure;

#[derive(Debug, clap::Args)]
pub(crate) struct FileArgs {
    /// Manifest file, a folder of them (*.yaml, *.yml, *.json), or - for stdin; may be repeated.
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE|DIR|-")]
    pub(crate) files: Vec<PathBuf>,
    /// Folders with their subfolders.
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
}

/// Parsed documents and how many files they came from.
pub(crate) struct Manifests {
    pub(crate) documents: Vec<Document>,
    pub(crate) files: usize,
}

impl Manifests {
    /// As the API takes them.
    pub(crate) fn to_json(&self) -> anyhow::Result<Vec<Value>> {
        let to_value =
            |document: &Document| serde_json::to_value(&document.resource).context("cannot write a document as JSON");
        self.documents.iter().map(to_value).collect()
    }
}

/// Why manifests can't be used: unreadable (bad usage) or wrong in themselves (each mistake on its own line).
pub(crate) enum Unusable {
    Unreadable(anyhow::Error),
    Wrong(Vec<ManifestError>),
}

impl From<Unusable> for Failure {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Unreadable(error) => Self::Unable(error),
            Unusable::Wrong(errors) => Self::Refused(describe(&errors)),
        }
    }
}

pub(crate) fn describe(errors: &[ManifestError]) -> String {
    let lines = errors.iter().map(|error| format!("\n  {error}")).collect::<String>();
    let count = errors.len();
    format!("{count} {} in the manifests{lines}", if count == 1 { "mistake" } else { "mistakes" })
}

pub(crate) fn read(args: &FileArgs) -> Result<Manifests, Unusable> {
    let texts = texts(args).map_err(Unusable::Unreadable)?;
    let mut documents = Vec::new();
    let mut errors = Vec::new();
    for (name, text) in &texts {
        match manifest::parse(name, text) {
            Ok(parsed) => documents.extend(parsed),
            Err(wrong) => errors.extend(wrong),
        }
    }
    if !errors.is_empty() {
        return Err(Unusable::Wrong(errors));
    }
    if documents.is_empty() {
        let names: Vec<&str> = texts.iter().map(|(name, _)| name.as_str()).collect();
        return Err(Unusable::Unreadable(anyhow::anyhow!("no document in {}", names.join(", "))));
    }
    Ok(Manifests { documents, files: texts.len() })
}

/// Name and text of every file, in the order given, folders in the order of their names.
fn texts(args: &FileArgs) -> anyhow::Result<Vec<(String, String)>> {
    let mut texts = Vec::new();
    for path in &args.files {
        if path.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read stdin")?;
            texts.push(("<stdin>".to_owned(), text));
        } else if path.is_dir() {
            let found = in_folder(path, args.recursive)?;
            if found.is_empty() {
                bail!("{}: no *.yaml, *.yml or *.json in this folder", path.display());
            }
            for file in found {
                texts.push(text_of(&file)?);
            }
        } else {
            texts.push(text_of(path)?);
        }
    }
    Ok(texts)
}

fn text_of(path: &Path) -> anyhow::Result<(String, String)> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok((path.display().to_string(), text))
}

fn in_folder(folder: &Path, recursive: bool) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.with_context(|| format!("cannot read {}", folder.display()))?.path());
    }
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        let is_manifest = path.extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|known| end == *known));
        if path.is_dir() && recursive {
            files.extend(in_folder(&path, true)?);
        } else if path.is_file() && is_manifest {
            files.push(path);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_in_order_and_only_its_manifests() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.yml", "c.json", "notes.txt"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        std::fs::create_dir(folder.path().join("more")).unwrap();
        std::fs::write(folder.path().join("more/d.yaml"), "d").unwrap();
        let names = |recursive| {
            let found = in_folder(folder.path(), recursive).unwrap();
            found.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(false), ["a.yml", "b.yaml", "c.json"]);
        assert_eq!(names(true), ["a.yml", "b.yaml", "c.json", "d.yaml"]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let args = |path: PathBuf| FileArgs { files: vec![path], recursive: false };
        let error = texts(&args(folder.path().to_owned())).unwrap_err().to_string();
        assert!(error.contains("no *.yaml"), "{error}");
        let error = texts(&args(folder.path().join("absent.yaml"))).unwrap_err().to_string();
        assert!(error.contains("absent.yaml"), "{error}");
    }
}

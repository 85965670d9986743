//! Manifests as people give them: files, folders, stdin. Everything is parsed here before anything is sent, and every
//! mistake in every file is told at once with file, line, column, key and the line itself; so is what the control plane
//! finds in them.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::Value;
use weft_api::{Detail, ErrorInner};
use weft_policy::bundle::Revision;
use weft_policy::manifest::{self, Document, ManifestError, Place};
use weft_policy::resource::{Kind, ObjectKey};
use weft_policy::text::nearest;

use crate::answer::Failure;
use crate::api::Refusal;

#[derive(Debug, clap::Args)]
pub(crate) struct FileArgs {
    /// Manifest file, a folder of them (*.yaml, *.yml, *.json), or - for stdin; may be repeated.
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE|DIR|-")]
    pub(crate) files: Vec<PathBuf>,
    /// Folders with their subfolders.
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
}

/// The same, where they may be left out.
#[derive(Debug, clap::Args)]
pub(crate) struct MaybeFileArgs {
    /// Manifest file, a folder of them (*.yaml, *.yml, *.json), or - for stdin; may be repeated.
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-")]
    files: Vec<PathBuf>,
    /// Folders with their subfolders.
    #[arg(short = 'R', long, requires = "files")]
    recursive: bool,
}

impl MaybeFileArgs {
    pub(crate) fn given(self) -> Option<FileArgs> {
        let Self { files, recursive } = self;
        (!files.is_empty()).then_some(FileArgs { files, recursive })
    }
}

/// A text and what people call it.
#[derive(Debug)]
pub(crate) struct Source {
    name: String,
    text: String,
}

/// Parsed documents and the texts that they are in.
pub(crate) struct Manifests {
    pub(crate) documents: Vec<Document>,
    /// The text of each document.
    origins: Vec<usize>,
    sources: Vec<Source>,
}

impl Manifests {
    /// All documents of these texts, or every mistake in them.
    pub(crate) fn parse(sources: Vec<Source>) -> Result<Self, Unusable> {
        let (mut documents, mut origins, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        for (number, Source { name, text }) in sources.iter().enumerate() {
            match manifest::parse(name, text) {
                Ok(parsed) => {
                    origins.resize(origins.len() + parsed.len(), number);
                    documents.extend(parsed);
                }
                Err(wrong) => errors.extend(wrong),
            }
        }
        let manifests = Self { documents, origins, sources };
        errors.extend(manifests.given_twice());
        if !errors.is_empty() {
            return Err(Unusable::Wrong { errors, sources: manifests.sources });
        }
        if manifests.documents.is_empty() {
            let names: Vec<&str> = manifests.sources.iter().map(|source| source.name.as_str()).collect();
            return Err(Unusable::Unreadable(anyhow::anyhow!("no document in {}", names.join(", "))));
        }
        Ok(manifests)
    }

    /// One text.
    pub(crate) fn of_text(name: &str, text: &str) -> Result<Self, Unusable> {
        Self::parse(vec![Source { name: name.to_owned(), text: text.to_owned() }])
    }

    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self { documents: Vec::new(), origins: Vec::new(), sources: Vec::new() }
    }

    /// File and place of a key of an object, if the object is among them.
    pub(crate) fn place(&self, object: &ObjectKey, key: &str) -> Option<(&str, Place)> {
        let at = self.documents.iter().position(|document| document.resource.key() == *object)?;
        Some((&self.source(at).name, self.documents[at].place_of(key)))
    }

    pub(crate) fn files(&self) -> usize {
        self.sources.len()
    }

    /// As the API takes them, each with the revision that it was read at where its text tells.
    pub(crate) fn to_json(&self) -> anyhow::Result<Vec<Value>> {
        let to_value = |document: &Document| {
            // The values of Secrets go nowhere else.
            let mut value = document.resource.revealed().context("cannot write a document as JSON")?;
            if let Some(Revision(revision)) = document.read_at {
                value["metadata"]["revision"] = revision.into();
            }
            Ok(value)
        };
        self.documents.iter().map(to_value).collect()
    }

    /// Objects of several files; within one file the parser tells.
    fn given_twice(&self) -> Vec<ManifestError> {
        let mut first: BTreeMap<_, usize> = BTreeMap::new();
        let mut errors = Vec::new();
        for (number, document) in self.documents.iter().enumerate() {
            let key = document.resource.key();
            let known = *first.entry(key.clone()).or_insert(number);
            if known != number {
                let place = format!("{}:{}", self.source(known).name, self.documents[known].line);
                errors.push(self.error(number, "metadata.name", format!("{key} is given twice; first in {place}")));
            }
        }
        errors
    }

    fn source(&self, document: usize) -> &Source {
        &self.sources[self.origins[document]]
    }

    fn error(&self, document: usize, key: &str, message: String) -> ManifestError {
        let Place { line, column } = self.documents[document].place_of(key);
        ManifestError { file: self.source(document).name.clone(), line, column, key: key.to_owned(), message }
    }

    /// The control plane's refusal, with the places of what it found in these documents.
    pub(crate) fn describe_refusal(&self, refusal: &Refusal) -> String {
        let mut text = refusal.told.message.clone();
        for detail in &refusal.told.details {
            match detail.document.filter(|number| *number < self.documents.len()) {
                Some(number) => {
                    let error = self.error(number, &detail.key, detail.message.clone());
                    text.push_str(&told(&error, &self.sources));
                }
                None => text.push_str(&format!("\n  {detail}")),
            }
        }
        text
    }

    /// The refusal for programs, with the file and line of each detail that is about one of these documents.
    pub(crate) fn placed(&self, mut refusal: ErrorInner) -> ErrorInner {
        for detail in &mut refusal.details {
            if let Some(number) = detail.document.filter(|number| *number < self.documents.len()) {
                let error = self.error(number, &detail.key, detail.message.clone());
                (detail.file, detail.line) = (error.file, error.line as u64);
            }
        }
        refusal
    }
}

/// Why manifests can't be used: unreadable (bad usage) or wrong in themselves (each mistake with its place).
pub(crate) enum Unusable {
    Unreadable(anyhow::Error),
    Wrong { errors: Vec<ManifestError>, sources: Vec<Source> },
}

impl From<Unusable> for Failure {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Unreadable(error) => Self::Unable(error),
            Unusable::Wrong { errors, sources } => {
                let detail = |error: &ManifestError| Detail {
                    file: error.file.clone(),
                    line: error.line as u64,
                    key: error.key.clone(),
                    message: error.message.clone(),
                    ..Detail::default()
                };
                let (code, details) = ("invalid".to_owned(), errors.iter().map(detail).collect());
                let told = ErrorInner { code, message: counted(errors.len()), details };
                Self::Told { text: describe(&errors, &sources), told: Box::new(told) }
            }
        }
    }
}

fn describe(errors: &[ManifestError], sources: &[Source]) -> String {
    let lines = errors.iter().map(|error| told(error, sources)).collect::<String>();
    format!("{}{lines}", counted(errors.len()))
}

fn counted(mistakes: usize) -> String {
    format!("{mistakes} {} in the manifests", if mistakes == 1 { "mistake" } else { "mistakes" })
}

/// The mistake and below it the line that it is in.
fn told(error: &ManifestError, sources: &[Source]) -> String {
    let source = sources.iter().find(|source| source.name == error.file && !holds_secrets(&source.text));
    let excerpt = source.and_then(|source| excerpt(&source.text, error.line, error.column));
    format!("\n  {error}{}", excerpt.unwrap_or_default())
}

/// True for a text of which no line is shown: any may be one of a Secret's values, also where it is no manifest yet, or
/// its kind is misspelt.
fn holds_secrets(text: &str) -> bool {
    let bare = text.to_ascii_lowercase().replace(['"', '\'', ' ', '\t', '\r', '{', '}', '-'], "");
    let kinds = bare.match_indices("kind:").map(|(at, key)| &bare[at + key.len()..]);
    // A value may stand in the line below its key.
    let mut words = kinds.filter_map(|rest| rest.trim_start().split([',', '\n', '#']).next());
    bare.contains("stringdata:") || words.any(is_nearly_secret)
}

/// In lower case. Tags, anchors and the `List` of a list are part of the word.
fn is_nearly_secret(kind: &str) -> bool {
    let known = Kind::ALL.map(|known| known.as_str().to_ascii_lowercase());
    let is_other = known.iter().any(|known| known == kind && known != "secret");
    !is_other && (kind.contains("secret") || nearest(kind, known.iter().map(String::as_str)) == Some("secret"))
}

/// A longer line is shown around its caret.
const SHOWN: usize = 100;

/// A line of a text with carets under the word that begins at this column.
fn excerpt(text: &str, line: usize, column: usize) -> Option<String> {
    let full: Vec<char> = text.lines().nth(line.checked_sub(1)?)?.chars().collect();
    let at = column.checked_sub(1)?.min(full.len());
    let from = if full.len() > SHOWN { at.saturating_sub(SHOWN / 2) } else { 0 };
    let shown: String = full.iter().skip(from).take(SHOWN).map(|one| if *one == '\t' { ' ' } else { *one }).collect();
    let word = word(&full[at..]).min(SHOWN - (at - from)).max(1);
    let (margin, indent, carets) = (line.to_string(), " ".repeat(at - from), "^".repeat(word));
    let blank = " ".repeat(margin.len());
    Some(format!("\n    {margin} | {}\n    {blank} | {indent}{carets}", shown.trim_end()))
}

/// Length of the word at the start of what is left of a line.
fn word(rest: &[char]) -> usize {
    match rest.first() {
        None | Some('[' | ']' | '{' | '}') => 1,
        Some(quote @ ('"' | '\'')) => rest.iter().skip(1).position(|one| one == quote).map_or(1, |end| end + 2),
        Some(_) => {
            let ends = |(at, one): (usize, &char)| match one {
                ',' | ']' | '}' | '#' => true,
                ':' => rest.get(at + 1).is_none_or(|next| next.is_whitespace()),
                other => other.is_whitespace(),
            };
            rest.iter().enumerate().position(ends).unwrap_or(rest.len())
        }
    }
}

pub(crate) fn read(args: &FileArgs) -> Result<Manifests, Unusable> {
    let texts = texts(args).map_err(Unusable::Unreadable)?;
    Manifests::parse(texts.into_iter().map(|(name, text)| Source { name, text }).collect())
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
mod tests;

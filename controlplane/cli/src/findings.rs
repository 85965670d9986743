//! Findings of lint, each with its file and line where it is about a manifest, as people and programs read them.

mod sarif;

use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Value, json};
use weft_policy::bundle::Revision;
use weft_policy::lint::{self, Code, Finding, Scope, Severity};
use weft_policy::manifest::ManifestError;
use weft_policy::plan::{Entry, World};
use weft_policy::resource::{Kind, ObjectKey, Resource};

use crate::answer::{Answer, Failure};
use crate::manifests::Manifests;
use crate::output::{self, Format, Paint};

/// The forms of `-o` where findings are the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum FindingsFormat {
    /// A line for each.
    #[default]
    Text,
    Json,
    Yaml,
    /// SARIF 2.1.0.
    Sarif,
}

#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct FindingsArgs {
    /// How to print the findings.
    #[arg(short = 'o', long = "output", value_enum, default_value_t)]
    pub(crate) format: FindingsFormat,
    /// Answer no (status 1) for warnings, too.
    #[arg(long)]
    pub(crate) strict: bool,
}

/// A finding where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Located {
    pub(crate) code: String,
    pub(crate) severity: Level,
    /// `HTTPRoute shop/reviews`; empty where the document names none.
    pub(crate) object: String,
    pub(crate) key: String,
    /// Empty where the object is not among the files.
    pub(crate) file: String,
    /// Line and column from 1; 0 where there is none.
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Error,
    Warning,
    Note,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// A severity of a later release counts as a warning.
impl From<&weft_api::Severity> for Level {
    fn from(severity: &weft_api::Severity) -> Self {
        match severity {
            weft_api::Severity::Error => Self::Error,
            weft_api::Severity::Note => Self::Note,
            weft_api::Severity::Warning | weft_api::Severity::Other(_) => Self::Warning,
        }
    }
}

impl From<Severity> for Level {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Error => Self::Error,
            Severity::Warning => Self::Warning,
            Severity::Note => Self::Note,
        }
    }
}

impl From<&ManifestError> for Located {
    fn from(error: &ManifestError) -> Self {
        let ManifestError { file, line, column, key, message } = error;
        Self {
            code: Code::Unfit.to_string(),
            severity: Level::Error,
            object: String::new(),
            key: key.clone(),
            file: file.clone(),
            line: *line,
            column: *column,
            message: message.clone(),
        }
    }
}

impl Located {
    fn new(finding: &Finding, manifests: &Manifests) -> Self {
        let Finding { code, severity, object, key, message } = finding;
        let (file, place) = manifests.place(object, key).unwrap_or_default();
        Self {
            code: code.to_string(),
            severity: (*severity).into(),
            object: object.to_string(),
            key: key.clone(),
            file: file.to_owned(),
            line: place.line,
            column: place.column,
            message: message.clone(),
        }
    }

    /// As the control plane tells it.
    pub(crate) fn told(finding: &weft_api::Finding, manifests: Option<&Manifests>) -> Self {
        let weft_api::Finding { code, severity, kind, namespace, name, key, message } = finding;
        let place = kind.parse::<Kind>().ok().and_then(|kind| {
            manifests.and_then(|manifests| manifests.place(&ObjectKey::new(kind, namespace, name), key))
        });
        let (file, place) = place.unwrap_or_default();
        Self {
            code: code.clone(),
            severity: severity.into(),
            object: finding.object().to_string(),
            key: key.clone(),
            file: file.to_owned(),
            line: place.line,
            column: place.column,
            message: message.clone(),
        }
    }

    /// `shop.yaml:7:5: warning WEFT103: HTTPRoute shop/reviews: spec.rules[0]: ...`
    pub(crate) fn line(&self, paint: &Paint) -> String {
        let mut place = String::new();
        if !self.file.is_empty() {
            place = format!("{}:{}:{}: ", self.file, self.line, self.column);
        }
        let severity = match self.severity {
            Level::Error => paint.bad(self.severity.as_str()),
            Level::Warning => paint.warn(self.severity.as_str()),
            Level::Note => self.severity.as_str().to_owned(),
        };
        let code = if self.code.is_empty() { String::new() } else { format!(" {}", self.code) };
        let parts = [&self.object, &self.key, &self.message].map(String::as_str);
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        format!("{place}{severity}{code}: {}", parts.join(": "))
    }
}

impl Located {
    /// The same where the object is known.
    pub(crate) fn about_object(&self) -> String {
        Self { object: String::new(), ..self.clone() }.line(&Paint::plain())
    }
}

/// Findings about files alone, or each mistake in them.
pub(crate) fn of_files(manifests: &Manifests) -> Vec<Located> {
    let mut world = World::default();
    for (index, document) in manifests.documents.iter().enumerate() {
        // A Mesh says whose names these are; where there are several that is a finding of its own.
        if let Resource::Mesh(mesh) = &document.resource {
            world.trust_domain = mesh.spec.trust_domain.clone();
        }
        let revision = u64::try_from(index).unwrap_or(u64::MAX);
        world.insert(Entry::applied(document.resource.clone(), Revision(revision), String::new()));
    }
    lint::check(&world, Scope::Files).iter().map(|finding| Located::new(finding, manifests)).collect()
}

/// Findings as a control plane tells them.
pub(crate) fn told(findings: &[weft_api::Finding], manifests: Option<&Manifests>) -> Vec<Located> {
    findings.iter().map(|finding| Located::told(finding, manifests)).collect()
}

/// Prints findings, the worst first, and gives the answer that they are. `all_well` is said in place of none.
pub(crate) fn conclude(
    args: &FindingsArgs,
    mut findings: Vec<Located>,
    also: Value,
    all_well: &str,
) -> Result<Answer, Failure> {
    findings.sort_by(|a, b| (a.severity, &a.file, a.line).cmp(&(b.severity, &b.file, b.line)));
    let findings = findings.as_slice();
    let least = if args.strict { Level::Warning } else { Level::Error };
    let is_no = findings.iter().any(|finding| finding.severity <= least);
    let structured = |format| {
        let mut value = also.clone();
        value["valid"] = json!(!is_no);
        value["findings"] = json!(findings);
        output::structured(format, &value)
    };
    let text = match args.format {
        FindingsFormat::Json => structured(Format::Json)?.unwrap_or_default(),
        FindingsFormat::Yaml => structured(Format::Yaml)?.unwrap_or_default(),
        FindingsFormat::Sarif => output::structured(Format::Json, &sarif::log(findings))?.unwrap_or_default(),
        FindingsFormat::Text => {
            let paint = Paint::stdout();
            let mut text: String = findings.iter().map(|finding| finding.line(&paint) + "\n").collect();
            text.push_str(&match is_no {
                true => format!("{}\n", count(findings)),
                false if findings.is_empty() => format!("{all_well}\n"),
                false => format!("{all_well}; {}\n", count(findings)),
            });
            text
        }
    };
    output::print(&text);
    Ok(if is_no { Answer::No } else { Answer::Yes })
}

/// `1 error, 2 warnings`
fn count(findings: &[Located]) -> String {
    let of = |level: Level| {
        let count = findings.iter().filter(|finding| finding.severity == level).count();
        (count > 0).then(|| format!("{count} {}{}", level.as_str(), if count == 1 { "" } else { "s" }))
    };
    let counts: Vec<_> = [Level::Error, Level::Warning, Level::Note].into_iter().filter_map(of).collect();
    counts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_place_code_and_object() {
        let value = json!({"code": "WEFT103", "severity": "warning", "kind": "HTTPRoute", "namespace": "a", "name": "b",
            "key": "spec.rules", "message": "no such service"});
        let mut told = Located::told(&serde_json::from_value(value).unwrap(), None);
        assert_eq!(told.line(&Paint::plain()), "warning WEFT103: HTTPRoute a/b: spec.rules: no such service");
        (told.file, told.line, told.column) = ("shop.yaml".to_owned(), 7, 5);
        told.key.clear();
        assert_eq!(told.line(&Paint::plain()), "shop.yaml:7:5: warning WEFT103: HTTPRoute a/b: no such service");
        assert_eq!(
            count(&[told.clone(), told.clone(), Located { severity: Level::Error, ..told }]),
            "1 error, 2 warnings"
        );
    }
}

//! Text to resources: YAML (several documents) or JSON, as people write it and as clusters print it. Every mistake in a
//! text is told at once, each with file, line, column and key; a text with any mistake yields no resource.

mod shape;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::bundle::Revision;
use crate::resource::{DEFAULT_NAMESPACE, Kind, Metadata, ObjectKey, Resource, Spec, SpecReader};
use crate::text::nearest;
use tree::Places;

/// A place in a text, both from 1; 0 where nothing says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

/// A resource and where it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    pub resource: Resource,
    /// First line, from 1.
    pub line: usize,
    /// The revision that the object was read at, where the text is a print of the API.
    pub read_at: Option<Revision>,
    /// The key of an item of a list, such as `items[2]`; else empty.
    at: String,
    places: Arc<Places>,
}

impl Document {
    /// The line of a key such as `spec.rules[0].name`, or of the nearest one around it.
    pub fn line_of(&self, key: &str) -> usize {
        self.places.of(&inside(&self.at, key), Part::Key).map_or(self.line, |place| place.line)
    }

    /// The place of the value of a key, or of the nearest key around it.
    pub fn place_of(&self, key: &str) -> Place {
        let place = self.places.of(&inside(&self.at, key), Part::Value);
        place.unwrap_or(Place { line: self.line, column: 1 })
    }
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ManifestError {
    pub file: String,
    /// From 1; 0 where there is none.
    pub line: usize,
    pub column: usize,
    /// `spec.rules[0].matches[0].path.value`; empty for the document as a whole.
    pub key: String,
    pub message: String,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, key, message } = self;
        write!(f, "{file}:{line}:{column}: ")?;
        if key.is_empty() { f.write_str(message) } else { write!(f, "{key}: {message}") }
    }
}

/// A mistake in one resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct ResourceError {
    pub key: String,
    pub message: String,
}

/// The side of a key's colon that a mistake is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Key,
    Value,
}

/// A mistake by its key, from the document's root.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mistake {
    key: String,
    part: Part,
    message: String,
}

impl Mistake {
    fn new(key: impl Into<String>, part: Part, message: impl Into<String>) -> Self {
        Self { key: key.into(), part, message: message.into() }
    }

    fn inside(self, at: &str) -> Self {
        Self { key: inside(at, &self.key), ..self }
    }
}

impl From<Mistake> for ResourceError {
    fn from(Mistake { key, part: _, message }: Mistake) -> Self {
        Self { key, message }
    }
}

fn inside(at: &str, key: &str) -> String {
    match (at, key) {
        ("", _) => key.to_owned(),
        (_, "") => at.to_owned(),
        (_, _) => format!("{at}.{key}"),
    }
}

/// All documents of a text, or every mistake in it.
pub fn parse(file_name: &str, text: &str) -> Result<Vec<Document>, Vec<ManifestError>> {
    let error = |Place { line, column }, key, message| {
        let file = file_name.to_owned();
        ManifestError { file, line, column, key, message }
    };
    let trees = tree::parse(text).map_err(|(place, message)| vec![error(place, String::new(), message)])?;
    let (mut documents, mut errors) = (Vec::new(), Vec::new());
    let mut known: BTreeMap<ObjectKey, usize> = BTreeMap::new();
    for tree::Tree { value, start, places } in trees {
        let places = Arc::new(places);
        let wrong = |mistake: Mistake| {
            let place = places.of(&mistake.key, mistake.part).unwrap_or(start);
            error(place, mistake.key, mistake.message)
        };
        let mut own = Vec::new();
        let revisions = read_at(&value);
        for (number, (at, read)) in read_all(value, Checks::All).into_iter().enumerate() {
            let line = places.of(&at, Part::Key).unwrap_or(start).line;
            match read {
                Ok(resource) => {
                    let key = resource.key();
                    if let Some(first) = known.get(&key) {
                        let message = format!("{key} is given twice; first in line {first}");
                        own.push(wrong(Mistake::new("metadata.name", Part::Value, message).inside(&at)));
                        continue;
                    }
                    known.insert(key, line);
                    let read_at = revisions.get(number).copied().flatten();
                    documents.push(Document { resource, line, read_at, at, places: places.clone() });
                }
                Err(mistakes) => own.extend(mistakes.into_iter().map(|mistake| wrong(mistake.inside(&at)))),
            }
        }
        own.sort_by_key(|error| (error.line, error.column));
        errors.extend(own);
    }
    if errors.is_empty() { Ok(documents) } else { Err(errors) }
}

/// A document as the operator API takes it: one resource, or those of a list. Fields by which a server keeps its books
/// (`status`, `metadata.uid` ...) are read past, so that what `weft get` or a cluster printed can be applied.
///
/// # Errors
/// Every mistake in it.
pub fn from_json(document: Value) -> Result<Vec<Resource>, Vec<ResourceError>> {
    let (mut resources, mut errors) = (Vec::new(), Vec::new());
    for (at, read) in read_all(document, Checks::All) {
        match read {
            Ok(resource) => resources.push(resource),
            Err(mistakes) => errors.extend(mistakes.into_iter().map(|mistake| mistake.inside(&at).into())),
        }
    }
    if errors.is_empty() { Ok(resources) } else { Err(errors) }
}

/// The revisions that the objects of a document were read at, each as the operator API prints it (`metadata.revision`).
pub fn read_at(document: &Value) -> Vec<Option<Revision>> {
    let of = |document: &Value| document["metadata"]["revision"].as_u64().map(Revision);
    match document["items"].as_array() {
        Some(items) => items.iter().map(of).collect(),
        None => vec![of(document)],
    }
}

/// A document of the right shape; whether it is fit is `Resource::check`'s question.
pub(crate) fn unchecked(document: Value) -> Result<Resource, ResourceError> {
    read(document, Checks::Shape).map_err(|mistakes| {
        let first = mistakes.into_iter().next();
        first.expect("what can't be read has a mistake").into()
    })
}

/// A part of a document that was put together elsewhere, where nothing says its lines.
///
/// # Errors
/// Every mistake in its shape, by keys that begin with `root`.
pub(crate) fn part<T: DeserializeOwned>(root: &str, value: &Value) -> Result<T, Vec<ResourceError>> {
    let shape::Shaped { value, mistakes, .. } = shape::read(root, value);
    match value {
        Some(value) if mistakes.is_empty() => Ok(value),
        Some(_) | None => Err(mistakes.into_iter().map(ResourceError::from).collect()),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Checks {
    Shape,
    All,
}

type Read = (String, Result<Resource, Vec<Mistake>>);

/// The document, or each item of it where it is a list, with the item's key.
fn read_all(document: Value, checks: Checks) -> Vec<Read> {
    match list_of(&document) {
        None => vec![(String::new(), read(document, checks))],
        Some(of) => items(document, of, checks),
    }
}

/// Whether a document is a list: of any kinds (`""`) or of one, whose items need not repeat it.
fn list_of(document: &Value) -> Option<String> {
    let of = document.get("kind")?.as_str()?.strip_suffix("List")?;
    (of.is_empty() || Kind::ALL.iter().any(|kind| kind.as_str() == of)).then(|| of.to_owned())
}

fn items(document: Value, of: String, checks: Checks) -> Vec<Read> {
    const FIELDS: [&str; 4] = ["apiVersion", "kind", "metadata", "items"];
    let Value::Object(mut fields) = document else { return Vec::new() };
    let version = fields.get("apiVersion").cloned();
    let items = fields.remove("items");
    let unknown = fields.keys().filter(|key| !FIELDS.contains(&key.as_str()));
    let unknown = unknown.map(|key| Mistake::new(key, Part::Key, shape::unknown_field(key, &FIELDS)));
    let mut wrong: Vec<_> = unknown.collect();
    let items = match items {
        Some(Value::Array(items)) => items,
        Some(_) => {
            wrong.push(Mistake::new("items", Part::Value, "is not a list"));
            Vec::new()
        }
        None => {
            wrong.push(Mistake::new("items", Part::Value, "is missing"));
            Vec::new()
        }
    };
    let mut read_ones = Vec::with_capacity(items.len() + 1);
    if !wrong.is_empty() {
        read_ones.push((String::new(), Err(wrong)));
    }
    for (index, mut item) in items.into_iter().enumerate() {
        if let Some(fields) = item.as_object_mut().filter(|_| !of.is_empty()) {
            fields.entry("kind").or_insert_with(|| of.clone().into());
            if let Some(version) = &version {
                fields.entry("apiVersion").or_insert_with(|| version.clone());
            }
        }
        read_ones.push((format!("items[{index}]"), read(item, checks)));
    }
    read_ones
}

/// A part of a document under the name that it is written by.
struct Written {
    name: String,
    value: Option<Value>,
}

/// What was found while a document is read.
#[derive(Default)]
struct Reading {
    mistakes: Vec<Mistake>,
    /// Keys whose values are not the author's.
    made_up: Vec<String>,
    /// Keys as they are read and as they are written.
    renamed: Vec<(String, String)>,
}

impl Reading {
    fn wrong(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.mistakes.push(Mistake::new(key, Part::Value, message));
    }

    /// Reads what is written under a name that may be misspelt.
    fn part<T: DeserializeOwned>(&mut self, root: &str, value: &Value) -> Option<T> {
        let shaped = shape::read(root, value);
        self.mistakes.extend(shaped.mistakes);
        self.made_up.extend(shaped.made_up);
        self.renamed.extend(shaped.renamed);
        shaped.value
    }

    /// Takes the checks of a resource that was read with stand-ins: what they say of those is nobody's mistake.
    fn checked(&mut self, wrong: Vec<ResourceError>) {
        for ResourceError { key, message } in wrong {
            let key = as_written(key, &self.renamed);
            if !self.made_up.iter().any(|other| meet(&key, other)) {
                self.wrong(key, message);
            }
        }
    }
}

/// One resource, or every mistake in it.
fn read(document: Value, checks: Checks) -> Result<Resource, Vec<Mistake>> {
    let Value::Object(mut fields) = document else {
        let message = "a document is a mapping with apiVersion, kind, metadata and spec";
        return Err(vec![Mistake::new("", Part::Value, message)]);
    };
    let mut reading = Reading::default();
    let kind = kind(&mut fields, &mut reading.mistakes);
    let (metadata, spec) = parts(fields, &mut reading.mistakes);
    let metadata = read_metadata(metadata, kind, &mut reading);
    let Some(kind) = kind else { return Err(reading.mistakes) };
    let value = match spec.value {
        None | Some(Value::Null) if kind.is_spec_optional() => Value::Object(Map::new()),
        None | Some(Value::Null) => {
            reading.wrong("spec", "is missing");
            return Err(reading.mistakes);
        }
        Some(value) => value,
    };
    if checks == Checks::All {
        let entries = entries(kind, &value);
        if entries > MAX_ENTRIES {
            let message = format!("its lists have {entries} entries in all; at most {MAX_ENTRIES} are taken");
            reading.wrong(&spec.name, message);
            return Err(reading.mistakes);
        }
    }
    reading.renamed.push(("spec".to_owned(), spec.name.clone()));
    let mut written = WrittenSpec { root: &spec.name, value: &value, reading: &mut reading };
    let resource = Resource::build(kind, metadata, &mut written);
    if let Some(resource) = resource.as_ref().filter(|_| checks == Checks::All) {
        reading.checked(resource.check());
    }
    match resource {
        Some(resource) if reading.mistakes.is_empty() => Ok(resource),
        Some(_) | None => Err(reading.mistakes),
    }
}

/// Entries of all lists in the spec of one object. What looks at an object may compare them with each other.
pub const MAX_ENTRIES: usize = 4_096;

/// Counts the entries of the lists in a spec. The configuration of a filter is the filter's business.
fn entries(kind: Kind, spec: &Value) -> usize {
    fn of(value: &Value) -> usize {
        match value {
            Value::Array(items) => items.len() + items.iter().map(of).sum::<usize>(),
            Value::Object(fields) => fields.values().map(of).sum(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
        }
    }
    let is_opaque = |key: &str| match kind {
        Kind::FilterPolicy => key == "config",
        Kind::Filter => key == "configSchema",
        Kind::Namespace
        | Kind::Mesh
        | Kind::Service
        | Kind::Workload
        | Kind::ReferenceGrant
        | Kind::HttpRoute
        | Kind::GrpcRoute
        | Kind::TlsRoute
        | Kind::TcpRoute
        | Kind::FilterPublisher
        | Kind::Secret
        | Kind::RateLimitPolicy
        | Kind::FaultPolicy
        | Kind::JwtPolicy
        | Kind::AccessPolicy
        | Kind::PolicyTemplate
        | Kind::ExternalService
        | Kind::TrafficPolicy => false,
    };
    let Value::Object(fields) = spec else { return of(spec) };
    fields.iter().filter(|(key, _)| !is_opaque(key)).map(|(_, value)| of(value)).sum()
}

/// The key with the names by which the document has it.
fn as_written(key: String, renamed: &[(String, String)]) -> String {
    renamed.iter().fold(key, |key, (read, written)| match key.strip_prefix(read.as_str()) {
        Some(rest) if rest.is_empty() || rest.starts_with(['.', '[']) => format!("{written}{rest}"),
        Some(_) | None => key,
    })
}

/// True where one key is the other or around it.
pub(crate) fn meet(one: &str, other: &str) -> bool {
    let (short, long) = if one.len() < other.len() { (one, other) } else { (other, one) };
    long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// `metadata` and `spec`, also where they are misspelt.
fn parts(mut fields: Map<String, Value>, mistakes: &mut Vec<Mistake>) -> (Written, Written) {
    const FIELDS: [&str; 4] = ["apiVersion", "kind", "metadata", "spec"];
    let mut part = |name: &str| Written { name: name.to_owned(), value: fields.remove(name) };
    let (mut metadata, mut spec) = (part("metadata"), part("spec"));
    fields.remove("status");
    for (key, value) in fields {
        mistakes.push(Mistake::new(&key, Part::Key, shape::unknown_field(&key, &FIELDS)));
        let meant = match nearest(&key, FIELDS) {
            Some("metadata") => &mut metadata,
            Some("spec") => &mut spec,
            Some(_) | None => continue,
        };
        if meant.value.is_none() {
            *meant = Written { name: key, value: Some(value) };
        }
    }
    (metadata, spec)
}

/// Fields by which servers keep their books.
const BOOKS: [&str; 12] = [
    "creationRevision",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "revision",
    "selfLink",
    "uid",
];

fn read_metadata(Written { name, value }: Written, kind: Option<Kind>, reading: &mut Reading) -> Metadata {
    let Some(mut value) = value else {
        reading.wrong("metadata", "is missing");
        reading.made_up.push("metadata".to_owned());
        return Metadata::default();
    };
    if let Value::Object(fields) = &mut value {
        fields.retain(|key, _| !BOOKS.contains(&key.as_str()));
        let generates = fields.remove("generateName").is_some();
        if generates && !fields.contains_key("name") {
            let message = "is missing: a name that is made anew at each apply (generateName) names no object to change";
            reading.wrong("metadata.name", message);
            reading.made_up.push("metadata.name".to_owned());
            fields.insert("name".to_owned(), "x".into());
        }
    }
    reading.renamed.push(("metadata".to_owned(), name.clone()));
    let Some(mut metadata) = reading.part::<Metadata>(&name, &value) else {
        reading.made_up.push(name);
        return Metadata::default();
    };
    if kind.is_some_and(Kind::is_namespaced) && metadata.namespace.is_empty() {
        DEFAULT_NAMESPACE.clone_into(&mut metadata.namespace);
    }
    metadata
}

/// Kinds of other meshes, with those that say the same here.
const ELSEWHERE: [(&str, &str); 10] = [
    ("VirtualService", "HTTPRoute, GRPCRoute, TLSRoute and TCPRoute"),
    ("DestinationRule", "TrafficPolicy"),
    ("ServiceEntry", "ExternalService"),
    ("WorkloadEntry", "Workload"),
    ("AuthorizationPolicy", "AccessPolicy"),
    ("RequestAuthentication", "JwtPolicy"),
    ("EnvoyFilter", "FilterPolicy"),
    ("WasmPlugin", "FilterPolicy"),
    ("ServiceProfile", "HTTPRoute and TrafficPolicy"),
    ("ServiceDefaults", "TrafficPolicy"),
];

/// The kind, also where it is misspelt.
fn kind(fields: &mut Map<String, Value>, mistakes: &mut Vec<Mistake>) -> Option<Kind> {
    const LATER: [&str; 7] = ["UDPRoute", "Gateway", "GatewayClass", "Rollout", "Bypass", "Zone", "BackendTLSPolicy"];
    let mut text = |key: &str| {
        let Some(value) = fields.remove(key) else {
            mistakes.push(Mistake::new(key, Part::Value, "is missing"));
            return None;
        };
        let shaped = shape::read::<String>(key, &value);
        let is_written = shaped.mistakes.is_empty();
        mistakes.extend(shaped.mistakes);
        shaped.value.filter(|_| is_written)
    };
    let (name, version) = (text("kind"), text("apiVersion"));
    let name = name?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == name).or_else(|| {
        let known = Kind::ALL.map(Kind::as_str);
        let elsewhere = ELSEWHERE.iter().find(|(other, _)| *other == name);
        let meant = nearest(&name, known).filter(|_| elsewhere.is_none() && !LATER.contains(&name.as_str()));
        let message = match (meant, elsewhere) {
            (Some(meant), _) => format!("kind {name} is not known; did you mean `{meant}`?"),
            (None, Some((_, here))) => format!("kind {name} is of another mesh; here this is said by {here}"),
            (None, None) if LATER.contains(&name.as_str()) => format!("kind {name} is not supported yet"),
            (None, None) => format!("kind {name} is not known; known are {}", known.join(", ")),
        };
        mistakes.push(Mistake::new("kind", Part::Value, message));
        Kind::ALL.into_iter().find(|kind| Some(kind.as_str()) == meant)
    })?;
    if let Some(version) = version.filter(|version| !kind.is_read_as(version)) {
        let expected = kind.api_version();
        let message = format!("{version:?} is not supported for kind {kind}; expected {expected}");
        mistakes.push(Mistake::new("apiVersion", Part::Value, message));
    }
    Some(kind)
}

/// Reads the spec that is written under `root`.
struct WrittenSpec<'r> {
    root: &'r str,
    value: &'r Value,
    reading: &'r mut Reading,
}

impl SpecReader for WrittenSpec<'_> {
    fn read<S: Spec>(&mut self) -> Option<S> {
        self.reading.part(self.root, self.value)
    }
}

/// YAML of a manifest, keys in the order of the alphabet (which puts `apiVersion` first and `spec` after `metadata`).
pub fn to_yaml(resource: &impl Serialize) -> String {
    let value = serde_json::to_value(resource).expect("manifests have string keys and no failing serialiser");
    serde_saphyr::to_string(&value).expect("a JSON value is always YAML")
}

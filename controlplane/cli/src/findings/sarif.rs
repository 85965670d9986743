//! Findings as a SARIF 2.1.0 log, which code hosts and editors show beside the lines.

#[cfg(test)]
mod tests;

use serde_json::{Value, json};
use weft_policy::lint::CODES;

use super::{Level, Located};

const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";
const CODES_PAGE: &str = "lint.md";

/// A log of one run.
pub(super) fn log(findings: &[Located]) -> Value {
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "weft lint",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules(),
            } },
            "columnKind": "unicodeCodePoints",
            "results": findings.iter().map(result).collect::<Vec<_>>(),
        }],
    })
}

fn rules() -> Vec<Value> {
    let rule = |about: &weft_policy::lint::About| {
        json!({
            "id": about.id(),
            "shortDescription": { "text": about.title },
            "fullDescription": { "text": about.means },
            "help": { "text": format!("{} See {CODES_PAGE}.", about.cure) },
            "defaultConfiguration": { "level": Level::from(about.severity).as_str() },
        })
    };
    CODES.iter().map(rule).collect()
}

fn result(finding: &Located) -> Value {
    let object = [&finding.object, &finding.key].map(String::as_str);
    let object: Vec<_> = object.into_iter().filter(|part| !part.is_empty()).collect();
    let mut location = json!({});
    if !object.is_empty() {
        let qualified = object.join(": ");
        location["logicalLocations"] = json!([{ "fullyQualifiedName": qualified, "kind": "resource" }]);
    }
    if !finding.file.is_empty() {
        let mut physical = json!({ "artifactLocation": { "uri": uri(&finding.file) } });
        // Lines are counted from 1; a mistake of the file as a whole has none.
        if finding.line > 0 {
            physical["region"] = json!({ "startLine": finding.line, "startColumn": finding.column.max(1) });
        }
        location["physicalLocation"] = physical;
    }
    let mut result = json!({
        "ruleId": finding.code,
        "level": finding.severity.as_str(),
        "message": { "text": format!("{}: {}", object.join(": "), finding.message).trim_start_matches(": ") },
        "locations": [location],
    });
    if let Some(index) = CODES.iter().position(|about| about.id() == finding.code) {
        result["ruleIndex"] = json!(index);
    }
    result
}

/// A file's name as a relative reference, or a `file:` URI where it is absolute.
//= rfc3986#section-2.1
fn uri(file: &str) -> String {
    let mut uri = String::from(if file.starts_with('/') { "file://" } else { "" });
    for byte in file.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri
}

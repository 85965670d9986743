//! The log against the shape that the standard gives it, and file names as references.

use serde::Deserialize;

use super::*;

/// The parts of the standard's objects that are used, with what it requires of them; nothing else may be there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    #[serde(rename = "$schema")]
    schema: String,
    version: String,
    runs: Vec<Run>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Run {
    tool: Tool,
    column_kind: String,
    results: Vec<ResultObject>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tool {
    driver: ToolComponent,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ToolComponent {
    name: String,
    semantic_version: String,
    rules: Vec<ReportingDescriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ReportingDescriptor {
    id: String,
    short_description: Text,
    full_description: Text,
    help: Text,
    default_configuration: ReportingConfiguration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReportingConfiguration {
    level: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    text: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ResultObject {
    rule_id: String,
    rule_index: Option<usize>,
    level: String,
    message: Text,
    locations: Vec<Location>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Location {
    physical_location: Option<PhysicalLocation>,
    logical_locations: Option<Vec<LogicalLocation>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PhysicalLocation {
    artifact_location: ArtifactLocation,
    region: Option<Region>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ArtifactLocation {
    uri: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Region {
    start_line: usize,
    start_column: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LogicalLocation {
    fully_qualified_name: String,
    kind: String,
}

fn found(file: &str, line: usize) -> Located {
    Located {
        code: "WEFT204".to_owned(),
        severity: Level::Error,
        object: "AccessPolicy shop/p".to_owned(),
        key: "spec.rules[0]".to_owned(),
        file: file.to_owned(),
        line,
        column: 9,
        message: "80 is the port of Service shop/web".to_owned(),
    }
}

#[test]
fn a_log_has_the_shape_of_the_standard() {
    let bare = Located { code: "WEFT001".into(), object: String::new(), key: String::new(), ..found("<stdin>", 0) };
    let findings = [found("a b/shop.yaml", 7), found("", 0), bare];
    let log: Log = serde_json::from_value(log(&findings)).unwrap();
    assert!(log.schema.starts_with("https://") && log.schema.ends_with("sarif-schema-2.1.0.json"));
    assert_eq!((log.version.as_str(), log.runs.len()), ("2.1.0", 1));
    let Run { tool, column_kind, results } = &log.runs[0];
    assert_eq!((tool.driver.name.as_str(), column_kind.as_str()), ("weft lint", "unicodeCodePoints"));
    assert!(!tool.driver.semantic_version.is_empty());
    let rules = &tool.driver.rules;
    assert_eq!(rules.len(), CODES.len());
    for rule in rules {
        let texts = [&rule.short_description, &rule.full_description, &rule.help];
        assert!(texts.iter().all(|text| !text.text.is_empty()), "{}", rule.id);
        assert!(["none", "note", "warning", "error"].contains(&rule.default_configuration.level.as_str()));
    }
    for result in results {
        assert_eq!(rules[result.rule_index.unwrap()].id, result.rule_id);
        assert!(["none", "note", "warning", "error"].contains(&result.level.as_str()));
        assert!(!result.message.text.is_empty() && result.locations.len() == 1);
        for location in &result.locations {
            let of = location.physical_location.as_ref();
            assert!(
                of.and_then(|of| of.region.as_ref())
                    .is_none_or(|region| region.start_line >= 1 && region.start_column >= 1)
            );
            let logical = location.logical_locations.iter().flatten();
            assert!(logical.into_iter().all(|it| !it.fully_qualified_name.is_empty() && it.kind == "resource"));
        }
    }
    let place = results[0].locations[0].physical_location.as_ref().unwrap();
    assert_eq!(
        (place.artifact_location.uri.as_str(), place.region.as_ref().unwrap().start_line),
        ("a%20b/shop.yaml", 7)
    );
    assert!(results[1].locations[0].physical_location.is_none(), "an object of the mesh is in no file");
    assert_eq!(results[2].message.text, "80 is the port of Service shop/web");
}

#[test]
fn names_of_files_are_references() {
    assert_eq!(uri("/tmp/ü.yaml"), "file:///tmp/%C3%BC.yaml");
    assert_eq!(uri("<stdin>"), "%3Cstdin%3E");
}

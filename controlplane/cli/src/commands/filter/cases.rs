//! Cases as authors write them: YAML in a file, JSON in the binary that carries them.

use std::path::Path;

use anyhow::{Context as _, ensure};
use weft_policy::component::cases::Cases;
use weft_policy::component::{self, CASES_SECTION, MAX_CASES, with_section};

/// The file of a filter's folder.
const FILE: &str = "cases.yaml";

pub(super) fn of_file(path: &Path) -> anyhow::Result<Cases> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| path.display().to_string())
}

fn parse(text: &str) -> anyhow::Result<Cases> {
    // What is a boolean in manifests is one here.
    let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
    let cases: Cases =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(cases.checked()?)
}

/// The cases beside a filter's source, if it has any.
pub(super) fn of_folder(folder: &Path) -> anyhow::Result<Option<Cases>> {
    let path = folder.join(FILE);
    if path.is_file() { of_file(&path).map(Some) } else { Ok(None) }
}

/// The cases that a binary carries, if it does.
pub(super) fn of_binary(wasm: &[u8]) -> anyhow::Result<Option<Cases>> {
    let text = component::read(wasm)?.cases;
    text.as_deref().map(Cases::parse).transpose().with_context(|| format!("section {CASES_SECTION}"))
}

pub(super) fn embed(wasm: Vec<u8>, cases: &Cases) -> anyhow::Result<Vec<u8>> {
    let text = serde_json::to_string(cases)?;
    ensure!(text.len() <= MAX_CASES, "the cases have {} bytes, and at most {MAX_CASES} are taken", text.len());
    Ok(with_section(wasm, CASES_SECTION, text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
config: {limits: [{requests: 1}]}
cases:
- name: one
  caller: spiffe://mesh/ns/a/sa/ada
  request: {method: POST, headers: {x-a: [\"1\", two], x-b: three}, body: hello}
  expect:
    verdict: respond
    status: 429
    headers: {retry-after: ~}
    metrics: {refused_total: 1}
- name: two
  capabilities: [token-bucket]
  repeat: 2
  expect: {verdict: pass}
";

    #[test]
    fn cases_go_into_a_binary_and_come_out_of_it() {
        let cases = parse(TEXT).unwrap();
        assert_eq!(cases.cases.len(), 2);
        assert_eq!(cases.cases[0].expect.headers["retry-after"], None);
        let component = b"\0asm\x0d\0\x01\0".to_vec();
        assert_eq!(of_binary(&component).unwrap(), None);
        assert_eq!(of_binary(&embed(component, &cases).unwrap()).unwrap(), Some(cases));
    }

    #[test]
    fn mistakes_are_named() {
        for (from, to, expect) in [
            ("verdict: pass", "verdict: passes", "passes"),
            ("repeat: 2", "repeats: 2", "repeats"),
            ("name: two", "name: one", "another case"),
            ("x-b: three", "x-b: 3", "numbers stand in quotes"),
            ("[token-bucket]", "[sockets]", "sockets"),
        ] {
            let error = format!("{:#}", parse(&TEXT.replace(from, to)).unwrap_err());
            assert!(error.contains(expect), "{to}: {error}");
        }
    }
}

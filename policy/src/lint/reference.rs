//! The page about the codes, docs/lint.md, as it follows from the table.

use std::fmt::Write as _;

use super::CODES;

/// Stands in front of the codes.
const INTRODUCTION: &str = "# What lint finds

A finding has a code that stays the same, a severity, the object, the place in it and, of a manifest, file and line.

| where | what is looked at |
|---|---|
| `weft validate -f FILES` | the files alone, without a server. What depends on objects elsewhere is a note that says so |
| `weft apply`, `weft diff` | the mesh with the change made: errors refuse the apply; told are warnings of what was applied, and policies that lose their filter by it (WEFT412, WEFT423) |
| `weft lint` | the whole mesh as it is (with a token of some namespaces: what it may read); `weft lint -f FILES` as it would be with these files |
| `weft describe KIND NAME` | the findings of one object |

`-o json`, `-o yaml` and, of validate and lint, `-o sarif` (SARIF 2.1.0) are for programs; `weft lint WEFT204` explains a code. The
status is 1 with an error, with `--strict` also with a warning. An error is only what is certainly wrong and leaves something open or does
nothing: the same mistake where it closes too much is a warning. An error that was there before refuses nothing.

The examples stand beside these objects:

```yaml
";

/// Objects that the examples stand beside.
pub(super) const BASE: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop},
 spec: {selector: {app: web}, clusterIP: 10.96.0.1, ports: [{port: 80, targetPort: 8080, appProtocol: http}]}}
---
{apiVersion: weft.dev/v1alpha1, kind: Workload, metadata: {name: web-1, namespace: shop, labels: {app: web}},
 spec: {address: 10.0.0.1, serviceAccount: web, ports: [{port: 8080, protocol: http}]}}
";

/// The page as Markdown.
#[must_use]
pub fn reference() -> String {
    let mut page = format!("{INTRODUCTION}{BASE}```\n\n| code | severity | |\n|---|---|---|\n");
    let infallible = "a String takes everything";
    for about in CODES {
        let (id, severity) = (about.id(), about.severity.as_str());
        writeln!(page, "| [{id}](#{}) | {severity} | {} |", id.to_lowercase(), about.title).expect(infallible);
    }
    for about in CODES {
        let (id, severity) = (about.id(), about.severity.as_str());
        writeln!(page, "\n## {id}\n\n**{}** ({severity}). {}\n", about.title, about.means).expect(infallible);
        writeln!(page, "Cure: {}", about.cure).expect(infallible);
        if !about.example.is_empty() {
            writeln!(page, "\n```yaml\n{}\n```", about.example).expect(infallible);
        }
    }
    page
}

//! Agreement of docs and code: every metric that proxy or control plane spells stands in docs/metrics.md.

use anyhow::{Context, Result};

use super::Fault;
use crate::cargo::Workspace;

const NAMES: [&str; 2] = ["dataplane/proxy/src/telemetry/names.rs", "controlplane/control/src/metrics.rs"];
const PAGE: &str = "docs/metrics.md";

/// The files that spell metrics, one behind the other, and the page that explains them.
pub(super) fn read(workspace: &Workspace) -> Result<(String, String)> {
    let text =
        |path: &str| std::fs::read_to_string(workspace.root.join(path)).with_context(|| format!("cannot read {path}"));
    Ok((text(NAMES[0])? + &text(NAMES[1])?, text(PAGE)?))
}

pub(super) fn judge(names: &str, page: &str) -> Vec<Fault> {
    let spelled: Vec<&str> = names.split('"').filter(|text| is_metric(text)).collect();
    let missing = spelled.iter().filter(|name| !page.contains(&format!("`{name}`")));
    let mut faults: Vec<_> = missing.map(|name| Fault::new(PAGE, format!("does not explain {name}"))).collect();
    if spelled.is_empty() {
        faults.push(Fault::new(NAMES[0], "spells no metric"));
    }
    faults
}

fn is_metric(text: &str) -> bool {
    let known = text.starts_with("istio_") || text.starts_with("weft_");
    // The crate's own name is none.
    known && text != "weft_control" && text.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_explained_passes() {
        assert_eq!(judge("A = \"weft_a_total\", Counter, \"Help.\";", "`weft_a_total`"), []);
    }

    #[test]
    fn a_metric_that_nobody_explains_slips() {
        let faults = judge("A = \"weft_a_total\"; B = \"weft_b\";", "`weft_a_total`");
        assert_eq!(faults, [Fault::new(PAGE, "does not explain weft_b")]);
        assert_eq!(judge("", "").len(), 1);
    }
}

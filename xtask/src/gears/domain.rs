//! What decides knows nothing of how it is asked: the control plane's hub gives its own reasons, and the ports make codes of
//! them.

use super::Fault;
use super::source;

/// Files that decide, with the crates of the wire that they don't know.
const APART: [(&str, &[&str]); 1] = [("controlplane/control/src/hub", &["tonic::", "axum::"])];

pub(super) fn judge(path: &str, text: &str) -> Vec<Fault> {
    let Some((_, forbidden)) = APART.into_iter().find(|(place, _)| is_inside(path, place)) else { return Vec::new() };
    let blanked = source::blank(text);
    let mut faults = Vec::new();
    for (index, line) in blanked.lines().enumerate() {
        for word in forbidden.iter().filter(|word| line.contains(**word)) {
            let what = format!(
                "{} is of the ports: give a reason of its own, which they translate",
                word.trim_end_matches(':')
            );
            faults.push(Fault::new(format!("{path}:{}", index + 1), what));
        }
    }
    faults
}

fn is_inside(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_of_the_wire_in_the_hub_slips() {
        let used = "//! Hub.\nuse tonic::Status;\n// tonic::Status is told of only\n";
        let faults = judge("controlplane/control/src/hub/identity.rs", used);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert_eq!(faults[0].place, "controlplane/control/src/hub/identity.rs:2");
        assert_eq!(judge("controlplane/control/src/hub.rs", used).len(), 1);
        assert_eq!(judge("controlplane/control/src/grpc/status.rs", used), [], "a port");
    }
}

//! `weft diff`: what an apply would change, by the control plane's own plan. Status 1 where there is a difference.

use weft_api::{Action, Applied, Change};

use super::apply;
use crate::access::AccessArgs;
use crate::answer::{Answer, Outcome};
use crate::manifests::{self, FileArgs};
use crate::output::{self, OutputArgs, Paint};

const EXAMPLE: &str = "Example:
  weft diff -f shop.yaml      # status 0: nothing would change; 1: something would";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    access: AccessArgs,
}

pub(crate) async fn run(args: DiffArgs) -> Outcome {
    let manifests = manifests::read(&args.files)?;
    let how = apply::Submit { dry_run: true, ..apply::Submit::default() };
    let answer = apply::submit(&args.access.client()?, &manifests, how).await?;
    let text = output::structured(args.output.format, &answer)?;
    output::print(&text.unwrap_or_else(|| render(&answer, &Paint::stdout())));
    Ok(if changes(&answer).next().is_some() { Answer::No } else { Answer::Yes })
}

fn changes(answer: &Applied) -> impl Iterator<Item = &Change> {
    answer.changes.iter().filter(|change| change.action != Action::Unchanged)
}

fn render(answer: &Applied, paint: &Paint) -> String {
    let mut text = String::new();
    for change in changes(answer) {
        text.push_str(&paint.bold(&format!("{} would be {}", change.object(), change.action)));
        text.push('\n');
        for line in change.diff.lines() {
            let painted = match line.as_bytes().first() {
                Some(b'+') => paint.good(line),
                Some(b'-') => paint.bad(line),
                _ => line.to_owned(),
            };
            text.push_str(&painted);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_changes_is_shown() {
        let answer = json!({"revision": 1, "problems": [], "changes": [
            {"action": "unchanged", "kind": "Service", "namespace": "a", "name": "x", "diff": ""},
            {"action": "changed", "kind": "Service", "namespace": "a", "name": "y", "diff": "-  port: 80\n+  port: 81\n"},
        ]});
        let plain = Paint::plain();
        let answer = serde_json::from_value(answer).unwrap();
        assert_eq!(render(&answer, &plain), "Service a/y would be changed\n-  port: 80\n+  port: 81\n");
    }
}

//! `weft check`: what a machine needs before a mesh runs on it, and how a running sidecar does. Each finding says what was
//! looked at, what was seen, and what to do. Status 1 where one fails; warnings alone don't.

mod machine;
mod mesh;
mod sidecar;
mod tenancy;

use std::net::IpAddr;

use serde::Serialize;

use crate::access::AccessArgs;
use crate::answer::{Answer, Outcome};
use crate::output::{self, OutputArgs, Paint, Table};

const EXAMPLE: &str = "Examples:
  weft check                        # this machine and the control plane
  weft check tenancy                # whether an object of one namespace acts in another
  weft check --proxy --ip 127.0.0.11   # one sidecar; under `weft run` its own";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct CheckArgs {
    /// The question; without it this machine and the control plane are looked at.
    #[arg(value_enum, conflicts_with_all = ["proxy", "ip"])]
    question: Option<Question>,
    /// Check a running sidecar instead of the machine.
    #[arg(long)]
    proxy: bool,
    /// Address of the sidecar [default: WEFT_IP, else every one of this machine].
    #[arg(long, env = "WEFT_IP")]
    ip: Option<IpAddr>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    access: AccessArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Question {
    /// Whether the namespaces of the mesh are apart.
    Tenancy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warn,
    Fail,
}

/// One thing looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    check: String,
    state: State,
    seen: String,
    /// Advice on the finding; empty where all is well.
    advice: String,
}

impl Finding {
    fn ok(check: &str, seen: impl Into<String>) -> Self {
        Self { check: check.to_owned(), state: State::Ok, seen: seen.into(), advice: String::new() }
    }

    fn warn(check: &str, seen: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check: check.to_owned(), state: State::Warn, seen: seen.into(), advice: advice.into() }
    }

    fn fail(check: &str, seen: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check: check.to_owned(), state: State::Fail, seen: seen.into(), advice: advice.into() }
    }
}

pub(crate) async fn run(args: CheckArgs) -> Outcome {
    let findings = if args.question == Some(Question::Tenancy) {
        tenancy::findings(&args.access).await?
    } else if args.proxy {
        sidecar::findings(args.ip).await?
    } else {
        let mut findings = machine::findings();
        findings.extend(mesh::findings(&args.access).await);
        findings
    };
    let text = output::structured(args.output.format, &findings)?;
    output::print(&text.unwrap_or_else(|| table(&findings, &Paint::stdout())));
    Ok(if findings.iter().any(|finding| finding.state == State::Fail) { Answer::No } else { Answer::Yes })
}

fn table(findings: &[Finding], paint: &Paint) -> String {
    let mut table = Table::new(["CHECK", "STATE", "SEEN"]);
    for finding in findings {
        let state = match finding.state {
            State::Ok => paint.good("ok"),
            State::Warn => paint.warn("warn"),
            State::Fail => paint.bad("FAIL"),
        };
        table.row([finding.check.clone(), state, finding.seen.clone()]);
    }
    let mut text = table.render();
    for finding in findings.iter().filter(|finding| !finding.advice.is_empty()) {
        text.push_str(&format!("\n{}: {}", finding.check, finding.advice));
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_follows_the_table() {
        let findings = [Finding::ok("kernel", "6.1"), Finding::fail("ports", "15080 taken", "stop what listens there")];
        let text = table(&findings, &Paint::plain());
        assert_eq!(
            text,
            "CHECK   STATE  SEEN\nkernel  ok     6.1\nports   FAIL   15080 taken\n\nports: stop what listens there\n"
        );
    }
}

//! The story of `weft demo --once`: its steps in order, each with a claim, its evidence and its time. A step that fails
//! doesn't hide the others.

use std::time::{Duration, Instant};

use super::stage::Stage;
use super::steps;
use crate::answer::{Answer, Outcome};
use crate::output::{self, Paint, Table};

/// The whole story must fit.
const LIMIT: Duration = Duration::from_secs(60);

struct Told {
    claim: &'static str,
    took: Duration,
    evidence: Result<String, String>,
}

pub(super) async fn tell(stage: &mut Stage) -> Outcome {
    let mut told = Vec::new();
    let started = Instant::now();
    let before = started.elapsed();
    macro_rules! step {
        ($claim:literal, $check:expr) => {{
            let begun = Instant::now();
            let evidence = match tokio::time::timeout(LIMIT, $check).await {
                Ok(result) => result.map_err(|error| format!("{error:#}")),
                Err(_) => Err("it took over a minute".to_owned()),
            };
            told.push(tell_one($claim, begun.elapsed(), evidence));
        }};
    }
    step!("each sidecar has joined under its own identity", steps::basics::identities(stage));
    step!("HTTP runs through two sidecars over QUIC, mutually authenticated", steps::basics::http(stage));
    step!("gRPC: unary, three streaming kinds, errors as status", steps::basics::grpc(stage));
    step!("TCP in which the server speaks first", steps::basics::tcp(stage));
    step!("a denied path is refused, and explained", steps::policies::denied(stage));
    step!("what a policy protects is not deleted by mistake", steps::protection::kept(stage));
    step!("an injected delay hits those it is for, and nobody else", steps::policies::delayed(stage));
    step!("a caller is limited, the others aren't", steps::policies::limited(stage));
    step!("a banned proxy is cut off within 2 s, and let in again", steps::protection::banned(stage));
    step!("the root is replaced and nobody notices", steps::protection::rotated(stage));
    step!("a canary's weight moves while load runs", steps::change::canary(stage));
    step!("a release that fails is left out", steps::traffic::ejected(stage));
    step!("requests are copied to a release that nobody waits for", steps::traffic::mirrored(stage));
    step!("a storm of retries ends at its budget", steps::traffic::stormed(stage));
    step!("a broken body is refused before the app sees it", steps::filters::judged(stage));
    step!("a service is asked about each request", steps::filters::asked(stage));
    step!("a filter's new version is taken back under load", steps::filters::rolled_back(stage));
    step!("a rule changes under load, and none fails", steps::filters::changed(stage));
    step!("the control plane is killed with -9 and comes back", steps::change::outage(stage));
    step!("requests sent = answered = counted; none failed", steps::change::counted(stage));
    let took = started.elapsed().saturating_sub(before);
    Ok(conclude(&told, took))
}

fn tell_one(claim: &'static str, took: Duration, evidence: Result<String, String>) -> Told {
    let paint = Paint::stdout();
    let (mark, text) = match &evidence {
        Ok(text) => (paint.good("ok  "), text),
        Err(text) => (paint.bad("FAIL"), text),
    };
    output::say(&format!("{mark} {}\n       {}", paint.bold(claim), text.replace('\n', "\n       ")));
    Told { claim, took, evidence }
}

fn conclude(told: &[Told], took: Duration) -> Answer {
    let paint = Paint::stdout();
    let mut table = Table::new(["STEP", "RESULT", "TIME"]);
    for step in told {
        let result = if step.evidence.is_ok() { paint.good("ok") } else { paint.bad("FAIL") };
        table.row([step.claim.to_owned(), result, output::duration(step.took)]);
    }
    output::print(&format!("\n{}", table.render()));
    let good = told.iter().filter(|step| step.evidence.is_ok()).count();
    let in_time = took < LIMIT;
    output::say(&format!(
        "\n{good} of {} steps hold, told in {}{}",
        told.len(),
        output::duration(took),
        if in_time { "" } else { ": over a minute" }
    ));
    if good == told.len() && in_time { Answer::Yes } else { Answer::No }
}

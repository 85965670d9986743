//! `weft demo`: a mesh on this machine. A control plane and a small shop of real services with a sidecar each, under load;
//! `--once` tells its story step by step, checks each by evidence from outside and ends with a summary and a status.

mod guide;
mod members;
mod stage;
mod steps;
mod story;

use std::path::PathBuf;
use std::time::Duration;

use crate::answer::{Answer, Failure, Outcome};
use crate::output;
use crate::run::Signals;
use stage::Stage;

const EXAMPLE: &str = "Examples:
  weft demo           # until Ctrl-C; says where to look and what to try
  weft demo --once    # the story unattended: each step checked, status 0 when all hold";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct DemoArgs {
    /// Tell the story once, check each step, end.
    #[arg(long)]
    once: bool,
    /// Requests a second of the load.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u32).range(12..=2000))]
    rate: u32,
    /// Keep state and logs in this new folder [default: a folder that goes at a clean end].
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// How often the running demo says how the load does.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// How long a control plane that somebody killed stays away.
const CONTROL_STAYS_AWAY: Duration = Duration::from_secs(10);

pub(crate) async fn run(args: DemoArgs) -> Outcome {
    let mut signals = Signals::listen()?;
    let mut stage = Stage::build(args.state_dir)?;
    let outcome = tokio::select! {
        outcome = tell(&mut stage, args.once, args.rate) => outcome,
        _ = signals.next() => {
            output::complain("weft demo: ending");
            Ok(if args.once { Answer::No } else { Answer::Yes })
        }
    };
    let clean = matches!(outcome, Ok(Answer::Yes));
    stage.end(clean).await;
    outcome
}

async fn tell(stage: &mut Stage, once: bool, rate: u32) -> Outcome {
    stage.open(rate).await?;
    if once {
        return story::tell(stage).await;
    }
    stage.apply(members::POLICIES).await?;
    stage.apply(&members::canary(90, 10)).await?;
    output::print(&guide::text(stage));
    let mut ticks = tokio::time::interval(REPORT_EVERY);
    loop {
        tokio::select! {
            _ = ticks.tick() => report(stage).await?,
            () = stage.control_gone() => {
                let pause = output::duration(CONTROL_STAYS_AWAY);
                output::complain(&format!("the control plane is gone: the mesh goes on; it comes back in {pause}"));
                tokio::time::sleep(CONTROL_STAYS_AWAY).await;
                stage.start_control().await?;
                output::complain("the control plane is back");
            }
        }
    }
}

async fn report(stage: &Stage) -> Result<(), Failure> {
    let load = stage.load().await?;
    let (sent, answered, failed) = (load.sent, load.answered, load.failed);
    output::complain(&format!(
        "load: {sent} sent, {answered} answered, {failed} failed; releases {}",
        load.releases_text()
    ));
    Ok(())
}

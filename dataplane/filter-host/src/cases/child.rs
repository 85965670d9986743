//! A process that tries filters for their author: told on stdin what to do, it says on stdout what it found.

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use weft_policy::component::cases::{Done, Job};

pub use weft_policy::component::cases::TRY;

use super::{bench, run_cases};
use crate::host::{Host, HostConfig};

/// Bytes of a job.
const MAX_JOB: u64 = 4 << 20;
/// For all cases of a filter together.
const MOST: Duration = Duration::from_secs(120);

/// Does one job. The status is 0 where it was done, whatever was found, and else 2, with the reason on stderr.
pub fn try_child() -> ExitCode {
    let said = work().and_then(|done| {
        let text = serde_json::to_string(&done).map_err(|error| error.to_string())?;
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| error.to_string())
    });
    match said {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            // Nobody else can be told.
            let _ = writeln!(io::stderr(), "{reason}");
            ExitCode::from(2)
        }
    }
}

fn work() -> Result<Done, String> {
    let mut text = String::new();
    let read = io::stdin().lock().take(MAX_JOB).read_to_string(&mut text);
    read.map_err(|error| format!("nothing to do: {error}"))?;
    let job: Job = serde_json::from_str(&text).map_err(|error| format!("weft and this program differ: {error}"))?;
    let config = HostConfig { max_instances: 8, ..HostConfig::default() };
    let host = Host::new(config).map_err(|error| error.to_string())?;
    match job {
        Job::Test { file, cases } => {
            let cases = cases.checked().map_err(|error| error.to_string())?;
            let wasm = read_file(&file)?;
            let reports = run_cases(&host, &wasm, &cases, MOST);
            Ok(Done::Tested(reports.map_err(|why| format!("{}: {why}", file.display()))?))
        }
        Job::Bench { files, cases, requests } => {
            let cases = cases.checked().map_err(|error| error.to_string())?;
            let measure = |file: &Path| {
                let wasm = read_file(file)?;
                bench::measure(&host, file, &wasm, &cases, requests).map_err(|why| format!("{}: {why}", file.display()))
            };
            let reports: Result<_, String> = files.iter().map(|file| measure(file)).collect();
            Ok(Done::Measured(reports?))
        }
    }
}

fn read_file(file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))
}

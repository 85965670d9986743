//! Outcome of a command, and the exit status that reports it: 0 yes, 1 the answer is no, 2 it could not be asked.

use std::process::ExitCode;

/// The outcome of a command that ran to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Yes,
    /// A failed check, a difference found, a denied request: already printed by the command.
    No,
    /// The exit status of the command that `weft run` ran.
    Status(u8),
}

/// Why a command did not run to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The server or a check answered no: status 1.
    #[error("{0}")]
    Refused(String),
    /// Bad usage, an unreadable file, an unreachable server: status 2.
    #[error("{0:#}")]
    Unable(#[from] anyhow::Error),
}

pub(crate) type Outcome = Result<Answer, Failure>;

impl Failure {
    fn status(&self) -> u8 {
        match self {
            Self::Refused(_) => 1,
            Self::Unable(_) => 2,
        }
    }
}

/// Tells the person (errors on stderr) and the shell (exit status).
pub(crate) fn conclude(outcome: &Outcome) -> ExitCode {
    match outcome {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Ok(Answer::Status(status)) => ExitCode::from(*status),
        Err(failure) => {
            crate::output::complain(&format!("error: {failure}"));
            ExitCode::from(failure.status())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_exit_status() {
        assert_eq!(Failure::Refused("no".into()).status(), 1);
        assert_eq!(Failure::Unable(anyhow::anyhow!("where?")).status(), 2);
    }

    #[test]
    fn a_failure_shows_the_whole_chain_of_causes() {
        let error = anyhow::anyhow!("connection refused").context("cannot reach https://127.0.0.1:15013");
        assert_eq!(Failure::Unable(error).to_string(), "cannot reach https://127.0.0.1:15013: connection refused");
    }
}

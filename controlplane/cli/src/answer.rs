//! Outcome of a command, and the exit status that reports it: 0 yes, 1 the answer is no, 2 it could not be asked.

use std::process::ExitCode;

use weft_api::{ErrorBody, ErrorInner};

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
    /// A check answered no: status 1.
    #[error("{0}")]
    Refused(String),
    /// The server or a check answered no, with a body for programs: status 1.
    #[error("{text}")]
    Told { text: String, told: Box<ErrorInner> },
    /// Bad usage, an unreadable file, an unreachable server: status 2.
    #[error("{0:#}")]
    Unable(#[from] anyhow::Error),
}

pub(crate) type Outcome = Result<Answer, Failure>;

impl Failure {
    fn status(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::Told { .. } => 1,
            Self::Unable(_) => 2,
        }
    }

    /// The same for programs, in the shape of the API's own errors.
    fn body(&self) -> ErrorBody {
        let told = match self {
            Self::Told { told, .. } => ErrorInner::clone(told),
            Self::Refused(_) | Self::Unable(_) => ErrorInner::default(),
        };
        let code = match (self, told.code.as_str()) {
            (Self::Unable(_), _) => "unable".to_owned(),
            (_, "") => "refused".to_owned(),
            (_, code) => code.to_owned(),
        };
        let message = if told.message.is_empty() { self.to_string() } else { told.message };
        ErrorBody { error: ErrorInner { code, message, details: told.details } }
    }
}

/// Tells the person or, where the answer was to be JSON or YAML, the program (errors on stderr), and the shell (exit status).
pub(crate) fn conclude(outcome: &Outcome, is_structured: bool) -> ExitCode {
    match outcome {
        // What was asked for did not reach whoever asked.
        Ok(Answer::Yes) if crate::output::is_lost() => ExitCode::from(2),
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Ok(Answer::Status(status)) => ExitCode::from(*status),
        Err(failure) => {
            complain(failure, is_structured);
            ExitCode::from(failure.status())
        }
    }
}

/// A command line that can't be used: status 2.
pub(crate) fn usage(error: &clap::Error, is_structured: bool) -> ExitCode {
    if is_structured && error.use_stderr() {
        let (code, message) = ("usage".to_owned(), error.render().to_string().trim_end().to_owned());
        complain_as(&ErrorBody { error: ErrorInner { code, message, details: Vec::new() } });
    } else if error.print().is_err() {
        // Nobody reads: nothing to do about it.
    }
    ExitCode::from(if error.use_stderr() { 2 } else { 0 })
}

fn complain(failure: &Failure, is_structured: bool) {
    match is_structured {
        true => complain_as(&failure.body()),
        false => crate::output::complain(&format!("error: {failure}")),
    }
}

/// JSON is YAML as well.
fn complain_as(body: &ErrorBody) {
    let text = serde_json::to_string_pretty(body).expect("an error has string keys and no failing serialiser");
    crate::output::complain(&text);
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
    fn programs_are_told_in_the_shape_of_the_api() {
        let told = ErrorInner { code: "not_found".to_owned(), message: "m".to_owned(), details: Vec::new() };
        let as_told = Failure::Told { text: "m\n  more".to_owned(), told: Box::new(told.clone()) };
        assert_eq!(as_told.body().error, told);
        for (failure, code) in
            [(Failure::Refused("no".into()), "refused"), (Failure::Unable(anyhow::anyhow!("no")), "unable")]
        {
            let expected = ErrorInner { code: code.to_owned(), message: "no".to_owned(), details: Vec::new() };
            assert_eq!(failure.body().error, expected);
        }
    }

    #[test]
    fn a_failure_shows_the_whole_chain_of_causes() {
        let error = anyhow::anyhow!("connection refused").context("cannot reach https://127.0.0.1:15013");
        assert_eq!(Failure::Unable(error).to_string(), "cannot reach https://127.0.0.1:15013: connection refused");
    }
}

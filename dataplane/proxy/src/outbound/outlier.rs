//! What the end of an attempt says of its endpoint, for services that eject those that fail. Pure.

use std::time::Duration;

use http::StatusCode;
use weft_flow::{Sign, Vitals};
use weft_transport::http::StreamError;

use crate::reply::Failure;

pub(super) fn of_status(status: StatusCode) -> Sign {
    match status {
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => Sign::GatewayError,
        status if status.is_server_error() => Sign::ServerError,
        _ => Sign::Good,
    }
}

/// `broken`: the answer broke off behind its head.
pub(super) fn of_answer(status: StatusCode, broken: bool) -> Sign {
    let sign = of_status(status);
    if broken && sign == Sign::Good { Sign::LocalFailure } else { sign }
}

/// The same as [`of_failure`] of an attempt. Who did not have the whole request, or had less than half of the time that is
/// over, was not late. `had`: the time that it had.
pub(super) fn of_attempt(failure: &Failure, was_given: bool, had: Duration) -> Sign {
    let is_excused = |limit_ms: &u64| !was_given || had < Duration::from_millis(limit_ms / 2);
    if let Failure::Timeout(limit_ms) = failure
        && is_excused(limit_ms)
    {
        return Sign::Nothing;
    }
    of_failure(failure)
}

/// An endpoint to which no connection can be made is out by that alone: it is no sign here. Nor is what its caller did, what
/// a limit of this proxy's stopped, or a connection that was about to end.
pub(super) fn of_failure(failure: &Failure) -> Sign {
    if let Failure::TunnelRefused { status, .. } = failure {
        return if status.is_server_error() { of_status(*status) } else { Sign::Nothing };
    }
    if failure.is_unserved() {
        // Its proxy answered for an app that can't be had.
        return Sign::GatewayError;
    }
    if let Failure::AnswerDiscarded(status) = failure {
        return of_status(*status);
    }
    if let Failure::Unprocessed { error, .. } = failure {
        return of_error(error, false);
    }
    if let Failure::NoAnswer { error, .. } = failure {
        return of_error(error, true);
    }
    if let Failure::CallerDeadline(_) = failure {
        return Sign::Late;
    }
    if let Failure::Timeout(_) = failure { Sign::LocalFailure } else { Sign::Nothing }
}

/// The same of a time that its caller chose. Who waits for less than an endpoint takes says nothing of it; one that has
/// had the whole request for much longer than its answers take hangs, and is no better for callers that give up. `had`:
/// the time since there was a connection.
pub(super) fn of_deadline(vitals: &Vitals, was_given: bool, had: Duration) -> Sign {
    if was_given && vitals.hangs_after(had) { Sign::LocalFailure } else { Sign::Late }
}

/// `taken`: the endpoint had the request.
fn of_error(error: &StreamError, taken: bool) -> Sign {
    let is_its_own = match error {
        StreamError::Reset(_) => true,
        StreamError::ConnectionLost(_) | StreamError::Truncated | StreamError::Protocol(_) => taken,
        StreamError::Limit(_) | StreamError::Busy(_) => false,
    };
    if is_its_own { Sign::LocalFailure } else { Sign::Nothing }
}

/// The same of a connection whose bytes nobody looks into: it is opened or not, and says nothing of answers.
pub(super) fn of_connection(sign: Sign) -> Sign {
    match sign {
        Sign::Good | Sign::Opened => Sign::Opened,
        Sign::ServerError | Sign::GatewayError | Sign::LocalFailure => Sign::LocalFailure,
        Sign::Late | Sign::Nothing => Sign::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use weft_flow::Outcome;

    use super::*;
    use crate::reply::Party;

    #[test]
    fn who_was_late_had_the_request_and_the_time() {
        let late = |was_given, had| of_attempt(&Failure::Timeout(1_000), was_given, Duration::from_millis(had));
        assert_eq!(late(true, 1_000), Sign::LocalFailure);
        assert_eq!(late(true, 500), Sign::LocalFailure);
        assert_eq!(late(true, 499), Sign::Nothing, "the rest went by before it was asked");
        assert_eq!(late(false, 1_000), Sign::Nothing, "its client had not sent all");
        assert_eq!(
            of_attempt(&Failure::PeerUnserved { told: String::new() }, false, Duration::ZERO),
            Sign::GatewayError
        );
    }

    #[test]
    fn who_hangs_is_found_out_by_callers_that_give_up() {
        let ms = Duration::from_millis;
        let vitals = Vitals::default();
        let sign = |had, given| of_deadline(&vitals, given, ms(had));
        assert_eq!([sign(999, true), sign(1_000, true)], [Sign::Late, Sign::LocalFailure], "it never answered");
        for at in 1..100 {
            vitals.started();
            vitals.finished(ms(at), ms(40), Outcome::Success);
        }
        assert_eq!([sign(199, true), sign(201, true)], [Sign::Late, Sign::LocalFailure]);
        assert_eq!(sign(60_000, false), Sign::Late, "its client had not sent all");
        // Those that were given up don't say how long its answers take.
        for at in 100..200 {
            vitals.started();
            vitals.finished(ms(at * 100), ms(300), Outcome::Cancelled);
        }
        assert_eq!(sign(300, true), Sign::LocalFailure);
        for at in 200..300 {
            vitals.started();
            vitals.finished(ms(at * 100), ms(1), Outcome::Success);
        }
        assert_eq!([sign(99, true), sign(100, true)], [Sign::Late, Sign::LocalFailure], "no caller is that impatient");
    }

    #[test]
    fn an_answer_that_breaks_off_is_none() {
        assert_eq!(of_answer(StatusCode::OK, true), Sign::LocalFailure);
        assert_eq!(of_answer(StatusCode::OK, false), Sign::Good);
        assert_eq!(of_answer(StatusCode::BAD_GATEWAY, true), Sign::GatewayError);
    }

    #[test]
    fn statuses_and_failures_are_signs() {
        fn status(number: u16, expect: Sign) {
            assert_eq!(of_status(StatusCode::from_u16(number).unwrap()), expect, "{number}");
        }
        status(200, Sign::Good);
        status(404, Sign::Good);
        status(429, Sign::Good);
        status(500, Sign::ServerError);
        status(501, Sign::ServerError);
        status(502, Sign::GatewayError);
        status(503, Sign::GatewayError);
        status(504, Sign::GatewayError);
        fn error(error: &StreamError, unprocessed: Sign, unanswered: Sign) {
            let (to, cause) = (Party::Peer, error.clone());
            assert_eq!(of_failure(&Failure::Unprocessed { to, error: cause.clone() }), unprocessed, "{error}");
            assert_eq!(of_failure(&Failure::NoAnswer { to, error: cause }), unanswered, "{error}");
        }
        error(&StreamError::Reset(2), Sign::LocalFailure, Sign::LocalFailure);
        error(&StreamError::ConnectionLost("gone".into()), Sign::Nothing, Sign::LocalFailure);
        error(&StreamError::Truncated, Sign::Nothing, Sign::LocalFailure);
        error(&StreamError::Protocol("odd"), Sign::Nothing, Sign::LocalFailure);
        error(&StreamError::Limit("peer's header bytes"), Sign::Nothing, Sign::Nothing);
        error(&StreamError::Busy(Duration::from_secs(1)), Sign::Nothing, Sign::Nothing);
        assert_eq!(of_failure(&Failure::PeerUnserved { told: String::new() }), Sign::GatewayError);
        assert_eq!(of_failure(&Failure::ClientGone), Sign::Nothing);
        assert_eq!(of_failure(&Failure::Timeout(5)), Sign::LocalFailure);
        // Its caller chose that time, who may choose less than any endpoint takes.
        assert_eq!(of_failure(&Failure::CallerDeadline(5)), Sign::Late);
        assert_eq!(of_failure(&Failure::AnswerDiscarded(StatusCode::BAD_GATEWAY)), Sign::GatewayError);
        let tunnel = |status| of_failure(&Failure::TunnelRefused { status, told: String::new() });
        assert_eq!(tunnel(StatusCode::FORBIDDEN), Sign::Nothing);
        assert_eq!(tunnel(StatusCode::SERVICE_UNAVAILABLE), Sign::GatewayError);
    }

    #[test]
    fn a_connection_is_opened_or_not() {
        let told = |sign| of_connection(sign);
        assert_eq!([told(Sign::Good), told(Sign::Nothing)], [Sign::Opened, Sign::Nothing]);
        let failures = [Sign::ServerError, Sign::GatewayError, Sign::LocalFailure];
        assert!(failures.into_iter().all(|sign| told(sign) == Sign::LocalFailure));
    }
}

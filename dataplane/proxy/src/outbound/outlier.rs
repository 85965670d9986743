//! What the end of an attempt says of its endpoint, for services that eject those that fail. Pure.

use http::StatusCode;
use weft_flow::Sign;
use weft_transport::http::StreamError;

use crate::reply::Failure;

pub(super) fn of_status(status: StatusCode) -> Sign {
    match status {
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => Sign::GatewayError,
        status if status.is_server_error() => Sign::ServerError,
        _ => Sign::Good,
    }
}

/// An endpoint to which no connection can be made is out by that alone: it is no sign here. Nor is what its caller did, or
/// what a limit of this proxy's stopped.
pub(super) fn of_failure(failure: &Failure) -> Sign {
    if let Failure::Unprocessed { error: StreamError::Busy(_), .. } = failure {
        return Sign::Nothing;
    }
    if let Failure::TunnelRefused { status, .. } = failure {
        return if status.is_server_error() { of_status(*status) } else { Sign::Nothing };
    }
    if failure.is_unserved() {
        // Its proxy answered for an app that can't be had.
        return Sign::GatewayError;
    }
    let is_silent = matches!(failure, Failure::Unprocessed { .. } | Failure::NoAnswer { .. });
    if is_silent { Sign::LocalFailure } else { Sign::Nothing }
}

/// The same of a connection whose bytes nobody looks into: it is opened or not, and says nothing of answers.
pub(super) fn of_connection(sign: Sign) -> Sign {
    match sign {
        Sign::Good | Sign::Opened => Sign::Opened,
        Sign::ServerError | Sign::GatewayError | Sign::LocalFailure => Sign::LocalFailure,
        Sign::Nothing => Sign::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::Party;

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
        let to = Party::Peer;
        let lost = || StreamError::ConnectionLost("gone".into());
        assert_eq!(of_failure(&Failure::NoAnswer { to, error: StreamError::Reset(2) }), Sign::LocalFailure);
        assert_eq!(of_failure(&Failure::Unprocessed { to, error: lost() }), Sign::LocalFailure);
        assert_eq!(of_failure(&Failure::PeerUnserved { told: String::new() }), Sign::GatewayError);
        assert_eq!(of_failure(&Failure::ClientGone), Sign::Nothing);
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

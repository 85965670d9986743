//! Why a handshake failed and which side refused: the words of the metric label, the log line and the alert text.
//! Our own verdict is exact; the peer's is what its alert and its closing text say.

use std::fmt;

use quinn_proto::TransportErrorCode;

/// Why two workloads did not connect. `as_str` is the `reason` label of the handshake-failure metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HandshakeFailure {
    /// The caller presented no certificate.
    NoCertificate,
    /// The chain does not lead to a root of the peer's trust domain, or is not usable by a workload.
    Untrusted,
    Expired,
    NotYetValid,
    /// A good certificate, of somebody else.
    WrongIdentity,
    /// The certificate has no URI SAN.
    NoUriSan,
    SeveralUriSans,
    /// The URI SAN is not `spiffe://<trust-domain>/ns/<namespace>/sa/<account>`.
    BadSpiffeId,
    /// The peer does not speak TLS 1.3 or QUIC v1.
    ProtocolVersion,
    /// The peer does not speak `h3`.
    Alpn,
    /// No answer, or an unfinished handshake, within the time allowed.
    Timeout,
    /// Nobody listens on the peer's port.
    PortClosed,
    /// The path to the peer carries no datagrams of the size that QUIC needs.
    PathMtu,
    /// The callee has as many connections or handshakes as it allows.
    Limit,
    /// The endpoint left discovery, or this proxy is closing.
    Evicted,
    /// An operator keeps the identity out of the mesh.
    Banned,
    Other,
}

impl HandshakeFailure {
    /// Every reason, in the order of `index`.
    pub const ALL: [HandshakeFailure; 17] = [
        HandshakeFailure::NoCertificate,
        HandshakeFailure::Untrusted,
        HandshakeFailure::Expired,
        HandshakeFailure::NotYetValid,
        HandshakeFailure::WrongIdentity,
        HandshakeFailure::NoUriSan,
        HandshakeFailure::SeveralUriSans,
        HandshakeFailure::BadSpiffeId,
        HandshakeFailure::ProtocolVersion,
        HandshakeFailure::Alpn,
        HandshakeFailure::Timeout,
        HandshakeFailure::PortClosed,
        HandshakeFailure::PathMtu,
        HandshakeFailure::Limit,
        HandshakeFailure::Evicted,
        HandshakeFailure::Banned,
        HandshakeFailure::Other,
    ];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            HandshakeFailure::NoCertificate => "no_certificate",
            HandshakeFailure::Untrusted => "untrusted",
            HandshakeFailure::Expired => "expired",
            HandshakeFailure::NotYetValid => "not_yet_valid",
            HandshakeFailure::WrongIdentity => "wrong_identity",
            HandshakeFailure::NoUriSan => "no_uri_san",
            HandshakeFailure::SeveralUriSans => "several_uri_sans",
            HandshakeFailure::BadSpiffeId => "bad_spiffe_id",
            HandshakeFailure::ProtocolVersion => "protocol_version",
            HandshakeFailure::Alpn => "alpn",
            HandshakeFailure::Timeout => "timeout",
            HandshakeFailure::PortClosed => "port_closed",
            HandshakeFailure::PathMtu => "path_mtu",
            HandshakeFailure::Limit => "limit",
            HandshakeFailure::Evicted => "evicted",
            HandshakeFailure::Banned => "banned",
            HandshakeFailure::Other => "other",
        }
    }

    /// Position in `ALL`: per-reason counters are arrays.
    pub fn index(self) -> usize {
        self as usize
    }

    /// True when TLS or identity refused, so that no other way to the same peer may be tried.
    pub fn is_refusal(self) -> bool {
        match self {
            HandshakeFailure::NoCertificate
            | HandshakeFailure::Untrusted
            | HandshakeFailure::Expired
            | HandshakeFailure::NotYetValid
            | HandshakeFailure::WrongIdentity
            | HandshakeFailure::NoUriSan
            | HandshakeFailure::SeveralUriSans
            | HandshakeFailure::BadSpiffeId
            | HandshakeFailure::ProtocolVersion
            | HandshakeFailure::Banned
            | HandshakeFailure::Alpn => true,
            HandshakeFailure::Timeout
            | HandshakeFailure::PortClosed
            | HandshakeFailure::PathMtu
            | HandshakeFailure::Limit
            | HandshakeFailure::Evicted
            | HandshakeFailure::Other => false,
        }
    }

    fn from_alert(alert: u8, text: &str) -> HandshakeFailure {
        // RFC 8446 section 6.2
        match alert {
            116 => HandshakeFailure::NoCertificate,
            48 => HandshakeFailure::Untrusted,
            45 if text.contains("not valid yet") => HandshakeFailure::NotYetValid,
            45 => HandshakeFailure::Expired,
            70 => HandshakeFailure::ProtocolVersion,
            120 => HandshakeFailure::Alpn,
            _ => HandshakeFailure::Other,
        }
    }

    fn from_text(text: &str) -> Option<HandshakeFailure> {
        let (_, rest) = text.split_once(TOKEN)?;
        let word = rest.split(|c: char| !(c.is_ascii_lowercase() || c == '_')).next()?;
        HandshakeFailure::ALL.into_iter().find(|failure| failure.as_str() == word)
    }
}

impl fmt::Display for HandshakeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Precedes the reason in the text that closes a connection, so that a Weft at the other end can name it too.
const TOKEN: &str = "weft/";

/// Fault that our verifier found in a certificate; travels inside `rustls::Error`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) failure: HandshakeFailure,
    pub(crate) detail: String,
}

impl Refusal {
    pub(crate) fn new(failure: HandshakeFailure, detail: impl Into<String>) -> Refusal {
        Refusal { failure, detail: detail.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{TOKEN}{}: {}", self.failure, self.detail)
    }
}

// rustls prints what it carries with `{:?}`; the peer reads that text.
impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Refusal {}

/// Which side ended the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusedBy {
    Us,
    Peer,
    /// Neither: the network, or time.
    Nobody,
}

impl RefusedBy {
    pub fn as_str(self) -> &'static str {
        match self {
            RefusedBy::Us => "us",
            RefusedBy::Peer => "peer",
            RefusedBy::Nobody => "nobody",
        }
    }
}

/// A handshake that failed, on either side of it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason} (refused by {}): {detail}", refused_by.as_str())]
pub struct HandshakeError {
    pub reason: HandshakeFailure,
    pub refused_by: RefusedBy,
    pub detail: String,
}

impl HandshakeError {
    pub(crate) fn new(reason: HandshakeFailure, refused_by: RefusedBy, detail: impl Into<String>) -> HandshakeError {
        HandshakeError { reason, refused_by, detail: detail.into() }
    }

    /// Reason that the peer is told in the text that closes the connection.
    pub(crate) fn told(&self) -> String {
        format!("{TOKEN}{}: {}", self.reason, self.detail)
    }

    pub(crate) fn timeout(detail: impl Into<String>) -> HandshakeError {
        HandshakeError::new(HandshakeFailure::Timeout, RefusedBy::Nobody, detail)
    }

    /// Reads why a QUIC handshake failed; `refusal` is what our verifier said of this very handshake.
    pub(crate) fn from_quic(error: &quinn::ConnectionError, refusal: Option<Refusal>) -> HandshakeError {
        if let Some(refusal) = refusal {
            return HandshakeError::new(refusal.failure, RefusedBy::Us, refusal.detail);
        }
        match error {
            quinn::ConnectionError::TransportError(error) => {
                HandshakeError::from_close(u64::from(error.code), &error.reason, RefusedBy::Us)
            }
            quinn::ConnectionError::ConnectionClosed(close)
                if close.error_code == TransportErrorCode::CONNECTION_REFUSED =>
            {
                let detail = "the peer takes no more handshakes for now";
                HandshakeError::new(HandshakeFailure::Limit, RefusedBy::Peer, detail)
            }
            quinn::ConnectionError::ConnectionClosed(close) => {
                let text = String::from_utf8_lossy(&close.reason);
                HandshakeError::from_close(u64::from(close.error_code), &text, RefusedBy::Peer)
            }
            quinn::ConnectionError::ApplicationClosed(close) if close.reason.starts_with(TOKEN.as_bytes()) => {
                let text = String::from_utf8_lossy(&close.reason);
                HandshakeError::from_close(close.error_code.into_inner(), &text, RefusedBy::Peer)
            }
            quinn::ConnectionError::ApplicationClosed(_) | quinn::ConnectionError::Reset => {
                HandshakeError::new(HandshakeFailure::Other, RefusedBy::Peer, error.to_string())
            }
            quinn::ConnectionError::VersionMismatch => {
                HandshakeError::new(HandshakeFailure::ProtocolVersion, RefusedBy::Peer, error.to_string())
            }
            quinn::ConnectionError::TimedOut => HandshakeError::timeout("the peer fell silent"),
            quinn::ConnectionError::LocallyClosed | quinn::ConnectionError::CidsExhausted => {
                HandshakeError::new(HandshakeFailure::Other, RefusedBy::Us, error.to_string())
            }
        }
    }

    //= rfc9001#section-4.8
    //# a QUIC connection error with an error code of 0x0100 + the alert
    fn from_close(code: u64, text: &str, refused_by: RefusedBy) -> HandshakeError {
        let alert = code.checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok());
        let reason = HandshakeFailure::from_text(text)
            .or_else(|| alert.map(|alert| HandshakeFailure::from_alert(alert, text)))
            .unwrap_or(HandshakeFailure::Other);
        let detail = match text {
            "" => format!("closed with code {code:#x}"),
            text => text.chars().filter(|c| !c.is_control()).take(256).collect(),
        };
        HandshakeError::new(reason, refused_by, detail)
    }

    /// Reads why a TLS handshake over TCP failed.
    pub fn from_io(error: &std::io::Error) -> HandshakeError {
        let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
            let timed_out = error.kind() == std::io::ErrorKind::TimedOut;
            let reason = if timed_out { HandshakeFailure::Timeout } else { HandshakeFailure::Other };
            return HandshakeError::new(reason, RefusedBy::Nobody, error.to_string());
        };
        HandshakeError::from_rustls(tls)
    }

    fn from_rustls(error: &rustls::Error) -> HandshakeError {
        if let rustls::Error::AlertReceived(alert) = error {
            let reason = HandshakeFailure::from_alert(u8::from(*alert), "");
            return HandshakeError::new(reason, RefusedBy::Peer, error.to_string());
        }
        if let rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) = error
            && let Some(refusal) = other.0.downcast_ref::<Refusal>()
        {
            return HandshakeError::new(refusal.failure, RefusedBy::Us, refusal.detail.clone());
        }
        let text = error.to_string();
        let reason = if let rustls::Error::InvalidCertificate(error) = error {
            HandshakeFailure::from_alert(u8::from(rustls::AlertDescription::from(error.clone())), &text)
        } else if matches!(error, rustls::Error::NoCertificatesPresented) {
            HandshakeFailure::NoCertificate
        } else if matches!(error, rustls::Error::NoApplicationProtocol) {
            HandshakeFailure::Alpn
        } else if matches!(error, rustls::Error::PeerIncompatible(_)) {
            HandshakeFailure::ProtocolVersion
        } else {
            HandshakeFailure::Other
        };
        HandshakeError::new(reason, RefusedBy::Us, text)
    }
}

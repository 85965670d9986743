//! `weft-proxy --check`: what a start needs of this machine, all that is missing at once. Invariant: nothing is changed, and
//! nothing is taken from a proxy that runs: its sockets are not shared for a moment.

#[cfg(test)]
mod tests;

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Access, access};
use weft_transport::capture::CaptureError;
use weft_transport::tls::Trust;

use crate::capturing;
use crate::config::{Config, Listen};
use crate::outside_certificates::OutsideCertificates;

/// How long a proxy that may run already has to say so.
const ANSWER: Duration = Duration::from_secs(1);

/// Advice where an address can't be bound.
const CURES: [(ErrorKind, &str); 3] = [
    (ErrorKind::AddrInUse, "; a program has it already, which ss -lnptu names"),
    (ErrorKind::AddrNotAvailable, "; it is no address of this machine"),
    (ErrorKind::PermissionDenied, "; a port below 1024 takes CAP_NET_BIND_SERVICE"),
];

/// The findings, one sentence each, that begins with its key.
#[derive(Debug, Default)]
pub struct Findings {
    /// A start would end with them, or not do what the file says.
    pub faults: Vec<String>,
    /// Worth knowing, and no fault.
    pub notes: Vec<String>,
}

/// Looks at the files, the state folder and the listeners that a good configuration names.
pub fn findings(config: &Config) -> Findings {
    let mut found = Findings::default();
    found.faults.extend(authority(&config.control.ca_file));
    found.faults.extend(state(&config.state_dir));
    found.faults.extend(OutsideCertificates::read(&config.outside_certificates).err().unwrap_or_default());
    let is_new = !config.state_dir.join("identity.pem").exists();
    if let Some(path) = config.control.token_file.as_ref().filter(|_| is_new)
        && let Err(error) = crate::private::token(path)
    {
        found.notes.push(format!("control.token_file: {} can't be read yet: {error}", path.display()));
    }
    if config.capture.is_some() {
        found.faults.extend(uncaptured(&config.listen, has_ipv6()));
        found.faults.extend(refused(capturing::check(config)));
    }
    found.try_listeners(&config.listen);
    found
}

fn authority(path: &Path) -> Option<String> {
    match std::fs::read_to_string(path) {
        Err(error) => Some(format!("control.ca_file: cannot read {}: {error}", path.display())),
        Ok(pem) => {
            let error = Trust::from_pem("any", &pem).err()?;
            Some(format!("control.ca_file: {}: {}", path.display(), crate::chain(&error)))
        }
    }
}

/// Why the state folder can't be used or made.
fn state(folder: &Path) -> Option<String> {
    let told = |reason: String| Some(format!("state_dir: {}: {reason}", folder.display()));
    let mut above = folder.ancestors().map(|it| if it.as_os_str().is_empty() { Path::new(".") } else { it });
    let nearest = above.find(|it| it.symlink_metadata().is_ok())?;
    match nearest.metadata() {
        Err(error) => told(error.to_string()),
        Ok(found) if !found.is_dir() => told(format!("{} is no folder", nearest.display())),
        Ok(_) => {
            let error = access(nearest, Access::WRITE_OK | Access::EXEC_OK).err()?;
            told(format!("{} can't be written: {}", nearest.display(), io::Error::from(error)))
        }
    }
}

/// Why the rules of capture would not be installed.
fn refused(tried: Result<(), CaptureError>) -> Option<String> {
    tried.err().map(|error| format!("capture: {}", crate::chain(&error)))
}

fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// Capture redirects both families: what is sent, to loopback; what comes, to the address that it came to.
fn uncaptured(listen: &Listen, has_ipv6: bool) -> Vec<String> {
    let families = [(true, "IPv4"), (false, "IPv6")].into_iter().filter(|(is_v4, _)| *is_v4 || has_ipv6);
    let mut wrong = Vec::new();
    for (is_v4, family) in families {
        let loopback = if is_v4 { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V6(Ipv6Addr::LOCALHOST) };
        let takes_all = |ip: IpAddr| ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED) || (is_v4 && ip.is_unspecified());
        let (outbound, inbound) = (listen.outbound, listen.inbound);
        let outbound = outbound.filter(|at| !takes_all(at.ip()) && at.ip() != loopback);
        let inbound = inbound.filter(|at| !takes_all(at.ip()));
        for (key, at) in [("listen.outbound", outbound), ("listen.inbound", inbound)] {
            if let Some(at) = at {
                wrong.push(format!(
                    "{key}: {at} takes no {family}, which capture redirects there: '[::]:{}'",
                    at.port()
                ));
            }
        }
    }
    wrong
}

impl Findings {
    fn try_listeners(&mut self, listen: &Listen) {
        let tcp = [
            ("listen.explicit", listen.explicit),
            ("listen.outbound", listen.outbound),
            ("listen.inbound", listen.inbound),
            ("listen.admin", Some(listen.admin)),
            ("listen.metrics", Some(listen.metrics)),
            ("listen.health", Some(listen.health)),
        ];
        let mut bound = Vec::new();
        let mut refused = Vec::new();
        let mut tried = 1;
        for (key, at) in tcp.into_iter().filter_map(|(key, at)| Some((key, at?))) {
            tried += 1;
            match TcpListener::bind(at) {
                Ok(listener) => bound.push(listener),
                Err(error) => refused.push((key, "TCP", at, error)),
            }
        }
        // Alone: a socket that shares the port would take some of what a running proxy is sent.
        if let Err(error) = UdpSocket::bind(listen.mesh) {
            refused.push(("listen.mesh", "UDP", listen.mesh, error));
        }
        drop(bound);
        let are_taken =
            refused.len() == tried && refused.iter().all(|(.., error)| error.kind() == ErrorKind::AddrInUse);
        if are_taken && is_proxy(listen.admin) {
            return self.notes.push(format!("running already: a weft-proxy answers at {}", listen.admin));
        }
        self.faults.extend(refused.into_iter().map(|(key, kind, at, error)| {
            let cure = CURES.iter().find(|(kind, _)| *kind == error.kind()).map_or("", |(_, cure)| cure);
            format!("{key}: cannot bind {kind} {at}: {error}{cure}")
        }));
    }
}

/// True where the admin port of a proxy answers.
fn is_proxy(admin: SocketAddr) -> bool {
    let ask = || -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&admin, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        // An answer of more is no proxy's.
        stream.take(64 << 10).read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    ask().is_ok_and(|answer| answer.contains("weft-proxy admin"))
}

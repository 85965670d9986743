//! Destinations outside the mesh that an ExternalService names: dialled where it says, never where the app says, and with TLS
//! where it begins TLS. One that can't be verified is not spoken to.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use http::Version;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use weft_policy::bundle::ExternalProtocol;
use weft_policy::route::{Hello, WayOut};
use weft_transport::http::RequestHead;

use super::{Target, passthrough};
use crate::reply::{Failure, NotOutside};
use crate::snapshot::{Served, Snapshot};
use crate::sockets::PlainSocket;
use crate::telemetry::series::{PairLabels, PairMetrics, Peer};
use crate::worker::Worker;

/// A way out of the mesh, held beyond the snapshot that says it.
pub(super) struct Exit {
    places: Vec<Target>,
    /// The port that was asked for.
    pub(super) port: u16,
    pub(super) metrics: Rc<PairMetrics>,
    /// In which version requests are sent; `None`: in the caller's.
    pub(super) version: Option<Version>,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Exit {
    /// For a request with this head.
    ///
    /// # Errors
    /// The port carries no requests, or TLS would have to be begun and can't be.
    pub(super) fn of_request(
        worker: &Worker,
        snapshot: &Snapshot,
        from: &Served,
        way: &WayOut<'_>,
        head: &RequestHead,
    ) -> Result<Self, Failure> {
        way.takes_requests().map_err(Failure::RequestForbidden)?;
        let is_grpc = way.port.protocol == ExternalProtocol::Grpc;
        let version = match (is_grpc, way.tls()) {
            // An upgrade is asked for in HTTP/1.1.
            (true, _) if head.protocol.is_none() => Some(Version::HTTP_2),
            (true, _) | (false, Some(_)) => Some(Version::HTTP_11),
            (false, None) => None,
        };
        let mut exit = Self::of(worker, from, way);
        exit.version = version;
        if way.tls().is_some() {
            let failed = |reason| Failure::OutsideTls { address: exit.to_string(), reason };
            let name = way.server_name().ok_or_else(|| failed("nobody says who the server has to be".to_owned()))?;
            let config = snapshot.originations.config(&way.external.name, version == Some(Version::HTTP_2));
            let config = config.map_err(failed)?;
            let name = ServerName::try_from(name.to_owned()).map_err(|error| failed(error.to_string()))?;
            exit.tls = Some((config, name));
        }
        Ok(exit)
    }

    /// For a connection whose bytes are not looked into, beyond their beginning.
    ///
    /// # Errors
    /// The port carries requests, or TLS that begins otherwise.
    pub(super) fn of_connection(
        worker: &Worker,
        from: &Served,
        way: &WayOut<'_>,
        hello: Hello<'_>,
    ) -> Result<Self, Failure> {
        way.takes_connection(hello).map_err(Failure::TunnelForbidden)?;
        Ok(Self::of(worker, from, way))
    }

    fn of(worker: &Worker, from: &Served, way: &WayOut<'_>) -> Self {
        let place = |(host, port): (String, u16)| match host.parse() {
            Ok(ip) => Target::Address(SocketAddr::new(ip, port)),
            Err(_) => Target::Name { host, port },
        };
        Self {
            places: way.places().into_iter().map(place).collect(),
            port: way.port.port,
            metrics: worker.ledger.metrics.pair(&labels(from, way)),
            version: None,
            tls: None,
        }
    }

    /// Its sockets that may be dialled for a client at `client`.
    ///
    /// # Errors
    /// There is none, or the guard refuses all that there are.
    pub(super) async fn sockets(
        &self,
        worker: &Worker,
        snapshot: &Snapshot,
        from: &Served,
        client: IpAddr,
    ) -> Result<Vec<PlainSocket>, Failure> {
        let (mut found, mut failure) = (Vec::new(), None);
        for place in &self.places {
            match passthrough::addresses(worker, snapshot, place).await.and_then(|found| not_this_host(place, found)) {
                Ok(addresses) => found.extend(addresses),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        found.truncate(worker.shared.config.limits.outside_addresses);
        if found.is_empty() {
            let none =
                || Failure::Passthrough { address: self.to_string(), reason: "no name has an address".to_owned() };
            return Err(failure.unwrap_or_else(none));
        }
        let outside = passthrough::let_pass(worker, from, found, client).await?;
        let socket = |outside| match &self.tls {
            None => PlainSocket::Outside(outside),
            Some((config, name)) => worker.apps.with_tls(outside, config, name),
        };
        Ok(outside.into_iter().map(socket).collect())
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, place) in self.places.iter().enumerate() {
            write!(f, "{}{place}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// A name outside that leads to loopback leads to something else on each machine: whoever answers for names would choose among
/// what listens there.
fn not_this_host(place: &Target, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Failure> {
    let is_loopback = |address: &SocketAddr| address.ip().to_canonical().is_loopback();
    match (place, found.iter().copied().find(is_loopback)) {
        (Target::Name { .. }, Some(address)) => Err(Failure::NotOutside { address, why: NotOutside::LoopbackByName }),
        (Target::Name { .. } | Target::Address(_), _) => Ok(found),
    }
}

/// The labels of what goes to an ExternalService: named by the resource, whatever name below a pattern was asked for.
fn labels(from: &Served, way: &WayOut<'_>) -> PairLabels {
    let name = &way.external.name;
    PairLabels {
        reporter: "source",
        source: from.peer(),
        destination: Peer::default(),
        destination_service: way.external.hosts.first().cloned().unwrap_or_default(),
        destination_service_name: name.name.clone(),
        destination_service_namespace: name.namespace.clone(),
        mutual_tls: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_does_not_lead_to_loopback() {
        let named = Target::Name { host: "api.test".to_owned(), port: 443 };
        let check = |place: &Target, found: &[&str], expect: Option<&str>| {
            let found: Vec<SocketAddr> = found.iter().map(|text| text.parse().unwrap()).collect();
            let got = not_this_host(place, found.clone());
            match expect {
                None => assert_eq!(got.unwrap(), found),
                Some(reason) => assert!(got.unwrap_err().to_string().contains(reason), "{found:?}"),
            }
        };
        let loopback = Some("this host's loopback, to which a name outside led");
        check(&named, &["192.0.2.1:443"], None);
        check(&named, &["192.0.2.1:443", "127.0.0.5:443"], loopback);
        check(&named, &["[::1]:443"], loopback);
        check(&named, &["[::ffff:127.0.0.1]:443"], loopback);
        check(&Target::Address("127.0.0.5:443".parse().unwrap()), &["127.0.0.5:443"], None);
    }
}

//! Destinations outside the mesh that an ExternalService names: dialled where it says, never where the app says, and with TLS
//! where it begins TLS. One that can't be verified is not spoken to.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::Version;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use weft_filter_host::Permit;
use weft_policy::bundle::ExternalProtocol;
use weft_policy::route::{Hello, WayOut};
use weft_transport::http::RequestHead;

use super::attempts::Attempts;
use super::mirror::Mirrors;
use super::{Target, passthrough};
use crate::call::{Call, Failed};
use crate::destination::outside_labels;
use crate::filtering::Filtered;
use crate::reply::{Failure, NotOutside};
use crate::snapshot::{Below, Served, Snapshot};
use crate::sockets::PlainSocket;
use crate::telemetry::counters::Limited;
use crate::telemetry::series::PairMetrics;
use crate::trial::within;
use crate::worker::Worker;

/// A way out of the mesh, held beyond the snapshot that says it.
pub(super) struct Exit {
    places: Vec<Target>,
    pub(super) metrics: Rc<PairMetrics>,
    /// In which version requests are sent.
    version: Version,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// A route led to it, and who wrote it has no say in what the caller's host is asked.
    is_foreign: bool,
}

impl Exit {
    /// For a request with this head, as it is sent.
    ///
    /// # Errors
    /// The port carries no requests, or TLS would have to be begun and can't be.
    fn of_request(
        worker: &Worker,
        snapshot: &Snapshot,
        from: &Served,
        way: &WayOut<'_>,
        head: &RequestHead,
    ) -> Result<Self, Failure> {
        let to = way.resolved();
        to.protocol().takes_requests(to.port).map_err(Failure::RequestForbidden)?;
        let is_grpc = way.port.protocol == ExternalProtocol::Grpc;
        // As the caller's, where nothing else is said.
        let is_multiplexed = is_grpc || way.tls().is_none() && head.version == Version::HTTP_2;
        // An upgrade is asked for in HTTP/1.1.
        let version = if is_multiplexed && head.protocol.is_none() { Version::HTTP_2 } else { Version::HTTP_11 };
        let mut exit = Self::of(worker, from, way);
        exit.version = version;
        exit.secure(worker, snapshot, way, if version == Version::HTTP_2 { Below::Http2 } else { Below::Http1 })?;
        Ok(exit)
    }

    /// Where TLS is begun there, it is with this below.
    ///
    /// # Errors
    /// It can't be begun.
    fn secure(&mut self, worker: &Worker, snapshot: &Snapshot, way: &WayOut<'_>, below: Below) -> Result<(), Failure> {
        if way.tls().is_none() {
            return Ok(());
        }
        let failed = |reason| Failure::OutsideTls { address: self.to_string(), reason };
        let name = way.server_name().ok_or_else(|| failed("nobody says who the server has to be".to_owned()))?;
        let certificates = &worker.shared.outside_certificates;
        let config = snapshot.originations.config(&way.external.name, below, certificates).map_err(failed)?;
        let name = ServerName::try_from(name.to_owned()).map_err(|error| failed(error.to_string()))?;
        self.tls = Some((config, name));
        Ok(())
    }

    /// For a connection whose bytes are not looked into, beyond their beginning.
    ///
    /// # Errors
    /// The port carries requests, or TLS that begins otherwise, or TLS would have to be begun and can't be.
    pub(super) fn of_connection(
        worker: &Worker,
        snapshot: &Snapshot,
        from: &Served,
        way: &WayOut<'_>,
        hello: Hello<'_>,
    ) -> Result<Self, Failure> {
        way.takes_connection(hello).map_err(Failure::TunnelForbidden)?;
        let mut exit = Self::of(worker, from, way);
        exit.secure(worker, snapshot, way, Below::Bytes)?;
        Ok(exit)
    }

    fn of(worker: &Worker, from: &Served, way: &WayOut<'_>) -> Self {
        let place = |(host, port): (String, u16)| match host.parse() {
            Ok(ip) => Target::Address(SocketAddr::new(ip, port)),
            Err(_) => Target::Name { host, port },
        };
        Self {
            places: way.places().into_iter().map(place).collect(),
            metrics: worker.ledger.metrics.pair(&outside_labels(from, way.external)),
            version: Version::HTTP_11,
            tls: None,
            is_foreign: !way.external.is_seen_in(&from.workload.name.namespace),
        }
    }

    /// In which version requests are sent there.
    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// Its sockets that may be dialled for a client at `client`. `timeout`: of each look-up of a name.
    ///
    /// # Errors
    /// There is none, or the guard refuses all that there are.
    pub(super) async fn sockets(
        &self,
        worker: &Worker,
        timeout: Duration,
        from: &Served,
        client: IpAddr,
    ) -> Result<Vec<PlainSocket>, Failure> {
        let (mut found, mut failure) = (Vec::new(), None);
        for place in &self.places {
            let found_here = passthrough::addresses(worker, timeout, place).await;
            match found_here.and_then(|found| not_this_host(place, self.is_foreign, found)) {
                Ok(addresses) => found.extend(addresses),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        let most = worker.shared.config.limits.outside_addresses;
        if found.len() > most {
            Limited::OutsideAddresses.hit();
            found.truncate(most);
        }
        if found.is_empty() {
            let none =
                || Failure::Passthrough { address: self.to_string(), reason: "no name has an address".to_owned() };
            return Err(failure.unwrap_or_else(none));
        }
        let named = self.places.iter().filter_map(|place| match place {
            Target::Address(address) if !self.is_foreign => Some(address.ip().to_canonical()),
            Target::Address(_) | Target::Name { .. } => None,
        });
        let named: Vec<IpAddr> = named.collect();
        let outside = passthrough::let_pass(worker, from, found, (client, &named)).await?;
        let socket = |outside| match &self.tls {
            None => PlainSocket::Outside(outside),
            Some((config, name)) => worker.apps.with_tls(outside, config, name),
        };
        Ok(outside.into_iter().map(socket).collect())
    }
}

/// The way of a request that leaves the mesh, which is told who sent it on.
///
/// # Errors
/// As [`Exit::of_request`].
pub(super) fn leaving(
    worker: &Worker,
    snapshot: &Snapshot,
    from: &Served,
    way: Option<&WayOut<'_>>,
    head: &mut RequestHead,
) -> Result<Option<Box<Exit>>, Failure> {
    let Some(way) = way else { return Ok(None) };
    let exit = Exit::of_request(worker, snapshot, from, way, head)?;
    worker.shared.via.enter(head);
    Ok(Some(Box::new(exit)))
}

/// Sends a request out of the mesh; again where its rule or the ExternalService's policy asks for that.
pub(super) async fn send(
    worker: &Rc<Worker>,
    (exit, from, client): (&Exit, &Served, IpAddr),
    (attempts, mirrors): (&mut Attempts<'_>, &mut Mirrors),
    mut permit: Permit,
    filtered: &mut Filtered<'_>,
    call: &mut Call<'_, '_>,
) -> Result<(), Failure> {
    worker.ledger.counters.passthrough.increment(1);
    call.record.metrics = Some(Rc::clone(&exit.metrics));
    call.record.log(|log| log.upstream = Some(exit.to_string()));
    super::enter(attempts, call).await?;
    loop {
        attempts.begin()?;
        mirrors.start(worker, from, call);
        let bounds = attempts.bounds(call.trial);
        let carried = exit.carry(worker, (from, client), attempts, permit, filtered, call);
        let ended = within(&worker.alarms, bounds, pin!(carried), Failed::Final).await;
        call.record.log(|log| log.tried(attempts.holds().was_refused()));
        let wait;
        (permit, wait) = match ended {
            Ok(()) => return Ok(()),
            Err(Failed::Unprocessed(failure, again) | Failed::Unfinished(failure, again)) if call.rewind() => {
                (again, attempts.granted(failure)?)
            }
            Err(failed) => return Err(failed.failure()),
        };
        if !wait.is_zero() {
            Box::pin(super::pause(wait, call)).await?;
        }
    }
}

impl Exit {
    /// One attempt at whoever of its sockets answers first.
    async fn carry(
        &self,
        worker: &Rc<Worker>,
        (from, client): (&Served, IpAddr),
        attempts: &Attempts<'_>,
        permit: Permit,
        filtered: &mut Filtered<'_>,
        call: &mut Call<'_, '_>,
    ) -> Result<(), Failed> {
        let timeout = attempts.connect_timeout();
        let sockets = match Box::pin(self.sockets(worker, timeout, from, client)).await {
            Ok(sockets) => sockets,
            Err(failure) => return Err(Failed::Unprocessed(failure, permit)),
        };
        let to = (&sockets[..], self.version);
        Box::pin(super::plainly(worker, (timeout, attempts.until()), to, permit, filtered, call)).await
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
/// what listens there. So would another namespace by an address.
fn not_this_host(place: &Target, is_foreign: bool, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Failure> {
    let is_loopback = |address: &SocketAddr| address.ip().to_canonical().is_loopback();
    let Some(address) = found.iter().copied().find(is_loopback) else { return Ok(found) };
    match place {
        Target::Name { .. } => Err(Failure::NotOutside { address, why: NotOutside::LoopbackByName }),
        Target::Address(_) if is_foreign => Err(Failure::NotOutside { address, why: NotOutside::LoopbackByRoute }),
        Target::Address(_) => Ok(found),
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
            let got = not_this_host(place, false, found.clone());
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

    #[test]
    fn another_namespace_leads_to_no_loopback() {
        let check = |text: &str| {
            let address: SocketAddr = text.parse().unwrap();
            not_this_host(&Target::Address(address), true, vec![address]).map_err(|error| error.to_string())
        };
        assert!(check("127.0.0.5:443").unwrap_err().contains("another namespace's ExternalService led"));
        assert_eq!(check("192.0.2.1:443").unwrap().len(), 1);
    }
}

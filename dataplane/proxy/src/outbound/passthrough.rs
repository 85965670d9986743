//! Destinations outside the mesh: carried on as they are, in the clear or in the app's own TLS, and counted.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use tokio::net::TcpStream;
use tracing::debug;
use weft_transport::http::{RecvBody, SendBody};
use weft_transport::tcp;

use super::{Call, Origin, Target};
use crate::app_leg;
use crate::filtering::{self, Place};
use crate::relay::{self, Progress};
use crate::reply::{Failure, Flag, Side};
use crate::worker::Worker;

/// Sends a request to a host that is no service.
pub async fn request(worker: &Rc<Worker>, origin: &Origin, call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let snapshot = worker.snapshot().ok_or(Failure::NotReady)?;
    let target = match &origin.target {
        Some(target) => target.clone(),
        None => target_of(call)?,
    };
    let address = look_up(worker, &target).await?;
    worker.shared.counters.passthrough.increment(1);
    let from = snapshot.local();
    let place = Place::outbound(origin, address.port(), from);
    let mut filtered = filtering::request(worker, &from.outbound, &place, call.head).await?;
    call.record.log(|log| log.upstream = Some(address.to_string()));
    //= rfc9112#section-3.2.2
    // A proxy that gets an absolute-form target replaces Host by it; the origin is sent the origin-form.
    if let Some(authority) = call.head.target_authority.take() {
        call.head.authority = Some(authority);
    }
    call.head.absolute_form = false;
    let version = if call.head.version == Version::HTTP_2 { Version::HTTP_2 } else { Version::HTTP_11 };
    let carried = app_leg::carry(worker, address, version, &mut filtered, call).await;
    carried.map_err(|(failure, _)| {
        if let Failure::AppConnect { address, reason } = failure {
            return Failure::Passthrough { address, reason };
        }
        failure
    })
}

fn target_of(call: &Call<'_, '_>) -> Result<Target, Failure> {
    let head = &*call.head;
    let authority = head.target_authority.as_ref().or(head.authority.as_ref()).ok_or(Failure::NoAuthority)?;
    let port = authority.port_u16().unwrap_or(80);
    let host = authority.host().trim_matches(['[', ']']);
    Ok(match host.parse() {
        Ok(ip) => Target::Address(SocketAddr::new(ip, port)),
        Err(_) => Target::Name { host: host.to_owned(), port },
    })
}

/// Carries a connection on to an address that is no service's.
pub async fn tcp(worker: &Rc<Worker>, stream: TcpStream, prefix: Bytes, target: &Target) {
    worker.shared.counters.passthrough.increment(1);
    let (mut read, mut write) = tcp::split(stream, &prefix);
    let connected = match look_up(worker, target).await {
        Ok(address) => worker
            .apps
            .connect(address)
            .await
            .map_err(|error| Failure::Passthrough { address: error.address.to_string(), reason: error.reason }),
        Err(failure) => Err(failure),
    };
    let far = match connected {
        Ok(far) => far,
        Err(failure) => {
            worker.local_reply(Side::Outbound, &failure.verdict());
            debug!(destination = %target, error = %failure, "passthrough failed");
            return write.reset();
        }
    };
    let series = worker.unknown_pair(Side::Outbound).tcp(Flag::None);
    series.opened.add(1);
    let (up, down) = (Progress::live(&series.received), Progress::live(&series.sent));
    let (mut far_read, mut far_write) = tcp::split(far, &[]);
    let idle = Duration::from_secs(worker.shared.config.limits.tunnel_idle_timeout_s);
    let near = (&mut RecvBody::Tcp(&mut read), &mut SendBody::Tcp(&mut write));
    let far = (&mut RecvBody::Tcp(&mut far_read), &mut SendBody::Tcp(&mut far_write));
    relay::tunnel(near, far, (&up, &down), idle).await;
    series.closed.add(1);
}

/// The address of a target; refuses this proxy's own listeners, which would be a loop.
async fn look_up(worker: &Worker, target: &Target) -> Result<SocketAddr, Failure> {
    let address = match target {
        Target::Address(address) => *address,
        Target::Name { host, port } => {
            let failed = |reason: String| Failure::Passthrough { address: target.to_string(), reason };
            let mut found =
                tokio::net::lookup_host((host.as_str(), *port)).await.map_err(|error| failed(error.to_string()))?;
            found.next().ok_or_else(|| failed("the name has no address".to_owned()))?
        }
    };
    if worker.shared.is_own_listener(address) {
        return Err(Failure::Loop);
    }
    Ok(address)
}

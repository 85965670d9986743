//! What other control planes of the store ask, on the proxies' port. Answered to who shows a certificate that says "control
//! plane" and nothing else: no workload's does.

use std::pin::Pin;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};
use x509_parser::extensions::GeneralName;

use super::peer_certificate;
use crate::hub::Hub;
use crate::peers::pb::replicas_server;
use crate::peers::{Evicting, parts, pb};
use crate::registry::ProxyKey;

pub struct Replicas {
    hub: Arc<Hub>,
}

impl Replicas {
    pub fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }

    /// Lets in who is a control plane of this mesh and means this one.
    fn let_in<T>(&self, request: &Request<T>, meant: &str) -> Result<(), Status> {
        let leaf =
            peer_certificate(request).ok_or_else(|| Status::unauthenticated("a client certificate is needed"))?;
        is_replica(&leaf, &self.hub.authority().replica_name(), OffsetDateTime::now_utc())?;
        if self.hub.is_session(meant) {
            return Ok(());
        }
        Err(Status::failed_precondition(
            "another control plane answers at the address that it tells (replica_address), or it has just come back",
        ))
    }
}

#[tonic::async_trait]
impl replicas_server::Replicas for Replicas {
    type ProxiesStream = Pin<Box<dyn Stream<Item = Result<pb::ProxiesPart, Status>> + Send>>;

    async fn proxies(&self, request: Request<pb::ProxiesRequest>) -> Result<Response<Self::ProxiesStream>, Status> {
        self.let_in(&request, &request.get_ref().session)?;
        let (number, proxies) = self.hub.tell_proxies(request.get_ref()).await;
        let parts = match proxies {
            Some(proxies) => parts(number, proxies),
            None => vec![pb::ProxiesPart { number, unchanged: true, proxies: Vec::new() }],
        };
        Ok(Response::new(Box::pin(tokio_stream::iter(parts.into_iter().map(Ok)))))
    }

    async fn evict(&self, request: Request<pb::EvictRequest>) -> Result<Response<pb::EvictResponse>, Status> {
        self.let_in(&request, &request.get_ref().session)?;
        let pb::EvictRequest { proxies, serials, number, .. } = request.into_inner();
        let key = |told: pb::ProxyName| Some(ProxyKey { name: told.name, identity: told.identity.parse().ok()? });
        let proxies = proxies.into_iter().filter_map(key).collect();
        self.hub.evicted_elsewhere(Evicting { proxies, serials, number });
        Ok(Response::new(pb::EvictResponse {}))
    }
}

/// Checks that a certificate, whose chain is good, is a control plane's and valid now.
fn is_replica(leaf: &CertificateDer<'_>, name: &str, now: OffsetDateTime) -> Result<(), Status> {
    let unreadable = |error: &dyn std::fmt::Display| Status::unauthenticated(format!("client certificate: {error}"));
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|error| unreadable(&error))?;
    let names = parsed.subject_alternative_name().map_err(|error| unreadable(&error))?;
    let is_it = names
        .is_some_and(|names| matches!(names.value.general_names.as_slice(), [GeneralName::URI(uri)] if *uri == name));
    if !is_it {
        return Err(Status::permission_denied("only a control plane of this mesh may ask"));
    }
    let validity = parsed.validity();
    if now < validity.not_before.to_datetime() || now >= validity.not_after.to_datetime() {
        return Err(Status::unauthenticated("the client certificate is not valid now"));
    }
    Ok(())
}

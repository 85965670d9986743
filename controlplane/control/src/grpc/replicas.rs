//! What other control planes of the store ask, on the proxies' port. Answered to who shows a certificate that says "control
//! plane" and nothing else: no workload's does.

use std::pin::Pin;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};
use x509_parser::extensions::GeneralName;

use super::{peer_address, peer_certificate};
use crate::ca::SignError;
use crate::hub::{Hub, SigningError};
use crate::peers::pb::replicas_server;
use crate::peers::{Evicting, MOST_SILENT, parts, pb, voices_message};
use crate::registry::ProxyKey;

/// Certificates that show that one was a control plane.
const LONGEST_PROOF: usize = 3;

pub struct Replicas {
    hub: Arc<Hub>,
}

impl Replicas {
    pub fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }

    /// The same by what the request shows, for who was away while the root of its certificates was dropped.
    async fn let_prove(&self, request: &pb::SignRequest) -> Result<(), Status> {
        let chain: Vec<_> =
            request.proof.iter().take(LONGEST_PROOF).map(|der| CertificateDer::from(der.clone())).collect();
        let leaf = chain.first().ok_or_else(|| Status::unauthenticated("a proof is needed"))?;
        is_replica(leaf, &self.hub.authority().replica_name(), OffsetDateTime::now_utc())?;
        if request.is_root {
            return Err(Status::permission_denied("a root is offered by who is in step alone"));
        }
        self.means_this(&request.session)?;
        let checked = self.hub.check_proof(request.csr.clone(), chain).await;
        checked.map_err(|reason| Status::permission_denied(format!("the proof is not taken: {reason}")))
    }

    /// Lets in who is a control plane of this mesh and means this one.
    fn let_in<T>(&self, request: &Request<T>, meant: &str) -> Result<(), Status> {
        let leaf =
            peer_certificate(request).ok_or_else(|| Status::unauthenticated("a client certificate is needed"))?;
        is_replica(&leaf, &self.hub.authority().replica_name(), OffsetDateTime::now_utc())?;
        self.means_this(meant)
    }

    fn means_this(&self, meant: &str) -> Result<(), Status> {
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

    async fn sign(&self, request: Request<pb::SignRequest>) -> Result<Response<pb::SignResponse>, Status> {
        let from = peer_address(&request).map_or_else(|| "unknown".to_owned(), |address| address.to_string());
        if request.get_ref().proof.is_empty() {
            self.let_in(&request, &request.get_ref().session)?;
        } else {
            self.let_prove(request.get_ref()).await?;
        }
        let pb::SignRequest { csr, is_root, .. } = request.into_inner();
        let certificate = self.hub.sign_for_replica(from, csr, is_root).await?.to_vec();
        Ok(Response::new(pb::SignResponse { certificate }))
    }

    async fn words(&self, request: Request<pb::WordsRequest>) -> Result<Response<pb::WordsResponse>, Status> {
        self.let_in(&request, &request.get_ref().session)?;
        let pb::WordsRequest { silent, .. } = request.into_inner();
        if silent.len() > MOST_SILENT {
            return Err(Status::invalid_argument(format!("at most {MOST_SILENT} are asked about")));
        }
        let voices = |silent: pb::SilentProxy| {
            let account = silent.account.parse().map_err(|_| Status::invalid_argument("an account is no SPIFFE ID"))?;
            let workloads: Vec<_> = silent.workloads.into_iter().filter_map(|name| name.try_into().ok()).collect();
            Ok(voices_message(self.hub.registry().voices(&workloads).shortened(&account)))
        };
        let voices = silent.into_iter().map(voices).collect::<Result<_, Status>>()?;
        Ok(Response::new(pb::WordsResponse { voices }))
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

impl From<SigningError> for Status {
    fn from(error: SigningError) -> Self {
        match &error {
            SigningError::TooOften(_) => Self::resource_exhausted(error.to_string()),
            SigningError::Sign(SignError::NotHere | SignError::Underway) => {
                Self::failed_precondition(error.to_string())
            }
            SigningError::Sign(SignError::Request(_)) => Self::invalid_argument(error.to_string()),
            SigningError::Store(_) => Self::unavailable(crate::chain(&error)),
        }
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

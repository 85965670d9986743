//! Calls of etcd's members: one at a time is asked, and the next one as soon as it fails or is silent. Invariant: what is
//! sent again may have been done already, so that only transactions that can tell are sent.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use time::OffsetDateTime;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Response, Status};

use super::location::EtcdOptions;
use super::messages::{
    AuthenticateRequest, CompactionRequest, Compare, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest,
    RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse, WatchRequest, WatchResponse,
    auth_client::AuthClient, kv_client::KvClient, lease_client::LeaseClient, watch_client::WatchClient,
};
use crate::{Error, Fault};

/// How long a member may take to accept a connection, and to answer.
const CONNECT: Duration = Duration::from_millis(1_000);
const ANSWER: Duration = Duration::from_millis(1_500);
/// How long a call is tried with one member after the other. While the store is known to fail, each is asked once.
const TRIED: Duration = Duration::from_secs(6);
/// Between two rounds through all members.
const PAUSE: Duration = Duration::from_millis(100);
/// An answer of etcd: pages of rows, each with up to `MAX_VALUE` bytes.
const MAX_ANSWER: usize = 256 << 20;

/// What etcd says of a revision that it has forgotten.
const COMPACTED: &str = "compacted";

pub(super) struct Client {
    members: Vec<Member>,
    /// The one that is asked.
    asked: AtomicUsize,
    user: Option<(String, String)>,
    token: Mutex<Option<MetadataValue<tonic::metadata::Ascii>>>,
    fault: Mutex<Option<Fault>>,
}

struct Member {
    name: String,
    channel: Channel,
}

impl Client {
    pub(super) fn new(options: &EtcdOptions) -> Result<Self, Error> {
        let mut members = Vec::with_capacity(options.members.len());
        for name in &options.members {
            members.push(Member { name: name.clone(), channel: endpoint(name, options)?.connect_lazy() });
        }
        Ok(Self {
            members,
            asked: AtomicUsize::new(0),
            user: options.user.clone(),
            token: Mutex::default(),
            fault: Mutex::default(),
        })
    }

    pub(super) fn fault(&self) -> Option<Fault> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Something was written: there is no fault.
    pub(super) fn was_written(&self) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn note(&self, reason: &str) {
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        let since = fault.as_ref().map_or_else(OffsetDateTime::now_utc, |fault| fault.since);
        if fault.is_none() {
            tracing::error!(reason, "etcd can't be written; it is tried again");
        }
        *fault = Some(Fault { since, reason: reason.to_owned() });
    }

    pub(super) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        let ask = |channel| {
            let request = self.signed(request.clone());
            async move { kv(channel).range(request).await }
        };
        self.call(ask).await
    }

    pub(super) async fn txn(
        &self,
        compare: Vec<Compare>,
        success: Vec<RequestOp>,
        failure: Vec<RequestOp>,
    ) -> Result<TxnResponse, Error> {
        let request = TxnRequest { compare, success, failure };
        let ask = |channel| {
            let request = self.signed(request.clone());
            async move { kv(channel).txn(request).await }
        };
        self.call(ask).await
    }

    pub(super) async fn compact(&self, revision: i64) -> Result<(), Error> {
        let ask = |channel| {
            let request = self.signed(CompactionRequest { revision, physical: false });
            async move {
                match kv(channel).compact(request).await {
                    // Another has done it.
                    Err(status) if status.message().contains(COMPACTED) => Ok(Response::new(())),
                    answer => answer.map(|answer| answer.map(drop)),
                }
            }
        };
        self.call(ask).await
    }

    /// A lease of so many seconds.
    pub(super) async fn grant(&self, seconds: i64) -> Result<i64, Error> {
        let ask = |channel| {
            let request = self.signed(LeaseGrantRequest { ttl: seconds, id: 0 });
            async move { LeaseClient::new(channel).lease_grant(request).await }
        };
        Ok(self.call(ask).await?.id)
    }

    pub(super) async fn revoke(&self, lease: i64) -> Result<(), Error> {
        let ask = |channel| {
            let request = self.signed(LeaseRevokeRequest { id: lease });
            async move { LeaseClient::new(channel).lease_revoke(request).await }
        };
        self.call(ask).await.map(drop)
    }

    /// Keeps a lease; gives the seconds that it lives from now on, 0 where it is gone.
    pub(super) async fn keep_alive(&self, lease: i64) -> Result<i64, Error> {
        let ask = |channel| {
            let once = self.leader_only(tokio_stream::once(LeaseKeepAliveRequest { id: lease }));
            async move {
                let answers = LeaseClient::new(channel).lease_keep_alive(once).await?;
                let answer = answers.into_inner().message().await?;
                Ok(Response::new(answer.map_or(0, |answer| answer.ttl)))
            }
        };
        self.call(ask).await
    }

    /// Opens a watch with the member that is asked; the caller turns to the next where it fails.
    pub(super) async fn watch(
        &self,
        requests: impl tokio_stream::Stream<Item = WatchRequest> + Send + 'static,
    ) -> Result<tonic::Streaming<WatchResponse>, Error> {
        let member = self.asked.load(Ordering::Relaxed);
        self.sign_in(member).await.map_err(|status| error(&status))?;
        let mut client = WatchClient::new(self.members[member].channel.clone()).max_decoding_message_size(MAX_ANSWER);
        let opened = tokio::time::timeout(ANSWER, client.watch(self.leader_only(requests))).await;
        match opened {
            Ok(Ok(answers)) => Ok(answers.into_inner()),
            Ok(Err(status)) => {
                self.forget_token(&status);
                Err(error(&status))
            }
            Err(_) => Err(Error::Unreachable(format!("{} does not answer", self.members[member].name))),
        }
    }

    /// From now on the next member is asked, unless another has found that already.
    pub(super) fn turn_from(&self, member: usize) {
        let next = (member + 1) % self.members.len();
        let _ = self.asked.compare_exchange(member, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    async fn call<T, F>(&self, ask: impl Fn(Channel) -> F + Send + Sync) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>> + Send,
        T: Send,
    {
        let began = Instant::now();
        let mut tried = 0;
        loop {
            let member = self.asked();
            let reason = match tokio::time::timeout(ANSWER, self.try_call(member, &ask)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) if !is_passing(&status) => {
                    let error = error(&status);
                    // Reads go on, and so may this: whoever writes is to know.
                    if status.code() == Code::ResourceExhausted {
                        self.note(status.message());
                    }
                    return Err(error);
                }
                Ok(Err(status)) => told(&status),
                Err(_) => format!("no answer within {ANSWER:?}"),
            };
            let reason = format!("{}: {reason}", self.members[member].name);
            self.turn_from(member);
            tried += 1;
            let is_known = self.fault().is_some();
            let is_over = if is_known { tried >= self.members.len() } else { began.elapsed() >= TRIED };
            if is_over {
                self.note(&reason);
                return Err(Error::Unreachable(reason));
            }
            if tried % self.members.len() == 0 {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn try_call<T, F>(&self, member: usize, ask: &(impl Fn(Channel) -> F + Sync)) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>> + Send,
    {
        let channel = self.members[member].channel.clone();
        self.sign_in(member).await?;
        match ask(channel.clone()).await {
            Err(status) if self.forget_token(&status) => {
                self.sign_in(member).await?;
                ask(channel).await.map(Response::into_inner)
            }
            answer => answer.map(Response::into_inner),
        }
    }

    /// Gets a token where etcd asks for a user and there is none.
    async fn sign_in(&self, member: usize) -> Result<(), Status> {
        let Some((name, password)) = &self.user else { return Ok(()) };
        if self.token.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(());
        }
        let request = AuthenticateRequest { name: name.clone(), password: password.clone() };
        let answer = AuthClient::new(self.members[member].channel.clone()).authenticate(request).await?.into_inner();
        let mut token: MetadataValue<_> =
            answer.token.parse().map_err(|_| Status::internal("etcd's token is no header's value"))?;
        token.set_sensitive(true);
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
        Ok(())
    }

    /// True where the token was the reason, which is forgotten then.
    fn forget_token(&self, status: &Status) -> bool {
        let is_over = self.user.is_some()
            && (status.code() == Code::Unauthenticated || status.message().contains("invalid auth token"));
        is_over && self.token.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
    }

    fn signed<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &*self.token.lock().unwrap_or_else(PoisonError::into_inner) {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }

    /// A member that sees no leader ends the call.
    fn leader_only<T>(&self, message: T) -> Request<T> {
        let mut request = self.signed(message);
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        request
    }
}

/// The revision that was asked for is forgotten.
pub(super) fn is_compacted(error: &Error) -> bool {
    matches!(error, Error::Refused(reason) if reason.contains(COMPACTED))
}

fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(MAX_ANSWER)
}

fn endpoint(member: &str, options: &EtcdOptions) -> Result<Endpoint, Error> {
    let refused = |error: tonic::transport::Error| Error::Refused(format!("{member}: {}", chain(&error)));
    let scheme = if options.tls.is_some() { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(Bytes::from(format!("{scheme}://{member}"))).map_err(refused)?;
    let endpoint = endpoint.connect_timeout(CONNECT).tcp_nodelay(true);
    let Some(tls) = &options.tls else { return Ok(endpoint) };
    let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.ca));
    if let Some((certificate, key)) = &tls.identity {
        config = config.identity(Identity::from_pem(certificate, key));
    }
    endpoint.tls_config(config).map_err(refused)
}

/// True where another member, or the same a moment later, may answer.
fn is_passing(status: &Status) -> bool {
    let is_busy = status.code() == Code::ResourceExhausted && status.message().contains("too many requests");
    let codes =
        [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled, Code::Unknown, Code::Internal, Code::Aborted];
    is_busy || codes.contains(&status.code())
}

fn error(status: &Status) -> Error {
    if is_passing(status) { Error::Unreachable(told(status)) } else { Error::Refused(status.message().to_owned()) }
}

fn told(status: &Status) -> String {
    let cause = std::error::Error::source(status).map(|source| format!(": {}", chain(source)));
    format!("{}{}", status.message(), cause.unwrap_or_default())
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

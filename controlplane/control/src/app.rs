//! The composition root: opens the state folder, binds the three ports, runs until told to stop. Knows every part.

mod operator_token;
#[cfg(test)]
pub(crate) mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use axum::Router;
use axum::extract::connect_info::IntoMakeServiceWithConnectInfo;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use weft_policy::bundle::Revision;
use weft_policy::wire::v1::mesh_control_server::MeshControlServer;

use crate::ca::{Authority, Keys, Line};
use crate::config::{Config, StoreKind};
use crate::hub::{Hub, follow_roots};
use crate::listener::{self, ListenerOptions, PlainListener};
use crate::metrics::{Metrics, Upkeep};
use crate::peers::pb::replicas_server::ReplicasServer;
use crate::seal::SALT;
use crate::store::{ROOTS, Store, read_record};
use crate::tls::ServerCertificate;
use crate::{api, builtin, grpc, host, snapshot, state};

/// How long connections have to end at shutdown.
const DRAIN: Duration = Duration::from_secs(5);
/// How often certificates and the store are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often tokens and gauges are looked after.
const MAINTENANCE: Duration = Duration::from_secs(60);

/// A running control plane. Dropping it without `stop` leaves what a crash leaves.
pub struct App {
    pub hub: Arc<Hub>,
    pub grpc_address: SocketAddr,
    pub api_address: SocketAddr,
    pub metrics_address: SocketAddr,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl App {
    /// Starts everything; returns once all ports are open.
    pub fn start(config: Config) -> impl Future<Output = anyhow::Result<Self>> {
        // It keeps the configuration and much else: whoever waits for it need not have room for that.
        Box::pin(Self::started(config, open_store))
    }

    /// The same on a store that is open.
    #[cfg(test)]
    pub(crate) fn start_over(config: Config, store: Store) -> impl Future<Output = anyhow::Result<Self>> {
        Box::pin(Self::started(config, |_| Ok(store)))
    }

    async fn started(
        config: Config,
        open: impl FnOnce(&Config) -> anyhow::Result<Store> + Send + 'static,
    ) -> anyhow::Result<Self> {
        config.validate()?;
        let now = OffsetDateTime::now_utc();
        let state = config.state.clone();
        state::open(&state)?;
        snapshot::finish(&state)?;
        let opening = config.clone();
        let (store, authority) = crate::hub::apart(move || {
            let store = open(&opening)?;
            let authority = open_authority(&store, &opening, now)?;
            anyhow::Ok((Arc::new(store), Arc::new(authority)))
        })
        .await?;
        let certificate = Arc::new(ServerCertificate::new(authority.clone(), &config, now)?);
        let metrics = Arc::new(Metrics::new());
        let stop = CancellationToken::new();

        let [grpc_listener, api_listener, metrics_listener] = bind(&config).await?;
        let (grpc_address, api_address, metrics_address) =
            (grpc_listener.local_addr()?, api_listener.local_addr()?, metrics_listener.local_addr()?);

        // Others of the store are told the port that it is.
        let mut config = config;
        config.ports.grpc = grpc_address.port();
        let hub = Hub::start(config.clone(), store, authority, metrics.clone(), stop.clone())?;
        if let Err(reason) = hub.be_vouched().await {
            stop.cancel();
            bail!(
                "the root of this control plane was dropped while it was away, and it got no intermediate of the next: {reason}"
            );
        }
        certificate.maintain(OffsetDateTime::now_utc())?;
        // Nothing of this keeps a mesh from its control plane: it is tried again.
        keep_operator_token(&hub).await;
        let are_published = publish_filters(&hub).await?;

        let mut tasks = JoinSet::new();
        let (max_connections, max_of_one) = connection_limits(&config);
        let options = |tls| ListenerOptions {
            tls,
            first_byte_timeout: config.request_timeout(),
            anonymous_life: config.anonymous_connection(),
            max_connections,
            max_of_one,
            idle: config.idle_connection(),
            handshake_timeout: config.handshake_timeout(),
            metrics: metrics.clone(),
        };
        let grpc_connections =
            listener::accept(grpc_listener, options(certificate.grpc_config()?), stop.clone(), &mut tasks)?;
        let api_connections =
            listener::accept(api_listener, options(certificate.api_config()?), stop.clone(), &mut tasks)?;
        tasks.spawn(serve_grpc(hub.clone(), grpc_connections, stop.clone()));
        let api_service = api::router(hub.clone()).into_make_service_with_connect_info::<api::Peer>();
        tasks.spawn(serve_api(api_connections, api_service, stop.clone()));
        let (most, life) = (config.limits.max_metrics_connections, config.request_timeout());
        let metrics_listener = PlainListener::new(metrics_listener, most, life, metrics.clone());
        tasks.spawn(serve_http("metrics", metrics_listener, metrics_router(hub.clone()), stop.clone()));
        tasks.spawn(maintain(hub.clone(), certificate, are_published, stop.clone()));
        tasks.spawn(watch_conditions(hub.clone(), stop.clone()));
        tracing::info!(grpc = %grpc_address, api = %api_address, metrics = %metrics_address,
            revision = hub.published().revision.0, "control plane ready");
        Ok(Self { hub, grpc_address, api_address, metrics_address, stop, tasks })
    }

    /// Ends sessions and connections, giving them `DRAIN`.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(DRAIN, async {
            self.hub.finish().await;
            while self.tasks.join_next().await.is_some() {}
        });
        if ended.await.is_err() {
            tracing::info!("connections were still open at the end of the grace");
        }
        self.tasks.shutdown().await;
        self.hub.remember_store();
    }
}

/// Connections of each listener, of all and of one, by what is configured and by the files that may be open.
fn connection_limits(config: &Config) -> (usize, usize) {
    let limits = &config.limits;
    let files = host::raise_open_files();
    let all = host::connections(limits.max_connections, files);
    if all < limits.max_connections {
        let wanted = limits.max_connections;
        tracing::warn!(wanted, all, ?files, "limits.max_connections: fewer files may be open (LimitNOFILE, ulimit -n)");
    }
    // If few connections are allowed in all, one caller gets at most three quarters of them.
    let of_one = if all < limits.max_connections {
        limits.max_connections_of_one.min((all - all / 4).max(1))
    } else {
        limits.max_connections_of_one
    };
    (all, of_one)
}

/// The store that the configuration names, with the values of Secrets encrypted where `ca_secret_file` is configured. It
/// blocks.
pub(crate) fn open_store(config: &Config) -> anyhow::Result<Store> {
    encrypting(bare_store(config)?, &config.keys()?)
}

fn bare_store(config: &Config) -> anyhow::Result<Store> {
    let most = config.limits.max_audit_entries;
    match config.store_kind().map_err(anyhow::Error::msg)? {
        StoreKind::Redb => Ok(Store::open(&config.state.join("weft.redb"), most)?),
        StoreKind::Etcd(location) => {
            let place = location.to_string();
            let options = config.etcd_options(location)?;
            if options.tls.is_none() {
                tracing::warn!(
                    store = place,
                    "etcd is spoken to in clear text: whoever is on the way reads and changes \
                    the mesh's policies and tokens' hashes (etcd.ca_file)"
                );
            }
            Store::connect(options, most).with_context(|| format!("store {place}"))
        }
    }
}

/// The store, which encrypts the values of Secrets where there is a secret to do it by, also those that an earlier start
/// left in plain text.
fn encrypting(store: Store, keys: &Keys) -> anyhow::Result<Store> {
    if !keys.has_secret() {
        return Ok(store);
    }
    let salt = store.meta_once(SALT, &format!("{:032x}", rand::random::<u128>()));
    let salt =
        salt.context("ca_secret_file: the salt of the key for the values of Secrets can't be kept in the store")?;
    let store = match keys.seal_of(&salt) {
        Some(seal) => store.with_seal(seal),
        None => store,
    };
    match store.seal_all() {
        Ok(0) => {}
        Ok(secrets) => tracing::info!(secrets, "values of Secrets were in plain text in the store and are encrypted"),
        // A start needs no space on disk; the next one tries again.
        Err(error) => tracing::warn!(error = %crate::chain(&error), "values of Secrets could not be encrypted yet"),
    }
    Ok(store)
}

/// The error of a control plane whose authority is another than the one that its store names.
const FURTHER: &str = "a further control plane of a store in etcd needs the authority of the first: copy that one's ca.pem and \
                       folder ca, but for ca/intermediate.pem, before the first start; where the root was replaced, those of the \
                       one that has its key (weft ca show)";

/// The authority that the store belongs to: never a new one where the store's is missing.
fn open_authority(store: &Store, config: &Config, now: OffsetDateTime) -> anyhow::Result<Authority> {
    let (state, keys) = (&config.state, config.keys()?);
    let known = store.root()?;
    let required = |root: &str| {
        let has_it = Authority::require_with(state, &config.keys()?, root).map_err(anyhow::Error::from);
        if store.is_shared() { has_it.context(FURTHER) } else { has_it }
    };
    let line = store.is_shared().then(|| store.meta(ROOTS)).transpose()?.flatten();
    if let Some(record) = line {
        return follow_authority(&record, config, keys, now);
    }
    if let Some(root) = &known {
        required(root)?;
    }
    let authority = Authority::open_with(state, keys, &config.trust_domain, now)?;
    if store.is_shared() && authority.authorities().previous.is_some() {
        bail!(
            "the root of {} is being replaced, and other control planes of a store in etcd would not know of it: finish that with \
            the store redb (weft ca show, weft ca finish)",
            state.display()
        );
    }
    if known.is_none() {
        // Another control plane may have been faster, with an authority of its own.
        required(&store.first_root(&authority.fingerprint())?)?;
    }
    Ok(authority)
}

/// The authority of a store whose root was replaced: that of any of its roots, led to the newest by what each says of the next.
fn follow_authority(record: &str, config: &Config, keys: Keys, now: OffsetDateTime) -> anyhow::Result<Authority> {
    let line: Line = read_record(record).map_err(anyhow::Error::msg).context("the store's record of the roots")?;
    let is_known = |root: &str| Authority::require_with(&config.state, &keys, root).is_ok();
    if !line.fingerprints().any(is_known) {
        // It says what is missing.
        Authority::require_with(&config.state, &keys, line.newest()).context(FURTHER)?;
    }
    let authority = Authority::open_with(&config.state, keys, &config.trust_domain, now)?;
    follow_roots(&authority, record).map_err(anyhow::Error::msg).context(FURTHER)?;
    Ok(authority)
}

/// The three listeners, or why each that can't be opened can't.
async fn bind(config: &Config) -> anyhow::Result<[TcpListener; 3]> {
    let (mut bound, mut faults) = (Vec::new(), Vec::new());
    for (key, address) in config.listeners() {
        match TcpListener::bind(address).await {
            Ok(listener) => bound.push(listener),
            Err(error) => faults.push(format!("{key}: {address} can't be opened: {error}")),
        }
    }
    bound.try_into().map_err(|_| anyhow::anyhow!(faults.join("\n")))
}

async fn serve_grpc(hub: Arc<Hub>, connections: listener::Connections, stop: CancellationToken) {
    let (limits, timeout) = (hub.config().limits, hub.config().request_timeout());
    let limit = limits.max_message_bytes;
    let replicas = ReplicasServer::new(grpc::Replicas::new(hub.clone()));
    let service = MeshControlServer::new(grpc::Service::new(hub, stop.clone())).max_decoding_message_size(limit);
    let server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(5)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .max_concurrent_streams(64)
        .timeout(timeout)
        .layer(tower::layer::layer_fn(grpc::Counted))
        .layer(tower::util::MapRequestLayer::new(grpc::bounded(limits.max_request_bytes)))
        .add_service(service)
        .add_service(replicas)
        .serve_with_incoming_shutdown(connections, stop.cancelled_owned());
    if let Err(error) = Box::pin(server).await {
        tracing::error!(error = %crate::chain(&error), "gRPC server failed");
    }
}

async fn serve_api(
    connections: listener::Connections,
    service: IntoMakeServiceWithConnectInfo<Router, api::Peer>,
    stop: CancellationToken,
) {
    let server = axum::serve(connections, service).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = server.await {
        tracing::error!(%error, "API server failed");
    }
}

async fn serve_http<L>(name: &'static str, listener: L, router: Router, stop: CancellationToken)
where
    L: axum::serve::Listener,
    L::Addr: std::fmt::Debug,
{
    let server = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = server.await {
        tracing::error!(%error, "{name} server failed");
    }
}

fn metrics_router(hub: Arc<Hub>) -> Router {
    let render = async |axum::extract::State(hub): axum::extract::State<Arc<Hub>>| {
        ([("content-type", "text/plain; version=0.0.4")], scrape(&hub))
    };
    Router::new()
        .route("/metrics", axum::routing::get(render))
        .route("/healthz", axum::routing::get(api::healthz))
        .route("/readyz", axum::routing::get(api::readyz))
        .layer(axum::middleware::from_fn(last))
        .with_state(hub)
}

/// One exchange for each connection: a scraper has none open between two scrapes, and the limit is for those that ask.
async fn last(request: axum::extract::Request, next: axum::middleware::Next) -> axum::response::Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
    response
}

/// All metrics; what follows from the registry is read when it is asked for.
fn scrape(hub: &Hub) -> String {
    let proxies = hub.registry().list(hub.published().revision, Revision(0));
    let connected = proxies.iter().filter(|proxy| proxy.connected_since.is_some());
    let (count, stalest) =
        connected.fold((0_u32, Duration::ZERO), |(n, longest), proxy| (n + 1, longest.max(proxy.behind_for)));
    hub.metrics().proxies_connected.set(f64::from(count));
    hub.metrics().stalest_proxy.set(stalest.as_secs_f64());
    let number = |count: usize| u32::try_from(count).map_or(f64::from(u32::MAX), f64::from);
    hub.metrics().left_alone.set(number(proxies.iter().filter(|proxy| proxy.is_left_alone).count()));
    hub.metrics().subscriptions.set(number(hub.registry().subscriptions()));
    hub.metrics().bans.set(number(hub.bans().len()));
    hub.metrics().store_in_doubt.set(f64::from(u8::from(hub.lead().doubt.is_some())));
    hub.metrics().leads.set(f64::from(u8::from(hub.leads())));
    hub.metrics().render()
}

/// Looks after what gets old or may be mended: certificates and the store every second, since clocks jump and disks get
/// space again; tokens and the gauges that move by themselves now and then.
async fn maintain(
    hub: Arc<Hub>,
    certificate: Arc<ServerCertificate>,
    mut are_published: bool,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut tidied, mut renewal_failed): (Option<Instant>, Option<Instant>) = (None, None);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        if renewal_failed.is_none_or(|at| at.elapsed() >= MAINTENANCE) {
            let renewed = renew_certificates(&hub, &certificate, OffsetDateTime::now_utc());
            hub.metrics().put_off(Upkeep::Certificates, !renewed);
            renewal_failed = (!renewed).then(Instant::now);
        }
        hub.shows(certificate.below());
        hub.tend_store().await;
        hub.tend_rotation().await;
        let remembering = hub.clone();
        crate::hub::apart(move || remembering.remember_store()).await;
        if hub.leads()
            && let Err(error) = hub.keep_transitions().await
        {
            tracing::warn!(error = %crate::chain(&error), "the times of conditions could not be kept yet");
        }
        let is_due = tidied.is_none_or(|at| at.elapsed() >= MAINTENANCE);
        if !are_published && is_due {
            are_published = publish_filters(&hub).await.unwrap_or(false);
        }
        if !builtin::is_in_order(&hub) || is_due {
            keep_authz(&hub).await;
        }
        if !is_due {
            continue;
        }
        tidied = Some(Instant::now());
        tidy(&hub).await;
        keep_operator_token(&hub).await;
        hub.metrics().upkeep();
        hub.metrics().expiries(certificate.not_after(), hub.authority().intermediate_not_after());
    }
}

/// Looks at the conditions of objects when the world or a proxy has changed, here or at another control plane.
async fn watch_conditions(hub: Arc<Hub>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watched: Option<(Revision, u64, Vec<_>)> = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        let everywhere = hub.look().await;
        let newest = (hub.published().revision, *hub.registry().watch().borrow(), hub.heard_of_others());
        let is_new = watched.as_ref().is_none_or(|(revision, ..)| *revision != newest.0);
        if watched.as_ref() != Some(&newest) {
            let (hub, proxies) = (hub.clone(), everywhere.proxies().0);
            crate::hub::apart(move || api::watch_conditions(&hub, proxies, is_new)).await;
        }
        watched = Some(newest);
    }
}

/// Forgets what is over.
async fn tidy(hub: &Arc<Hub>) {
    if !hub.leads() {
        if let Err(error) = hub.count_tokens().await {
            tracing::warn!(error = %crate::chain(&error), "tokens could not be counted yet");
        }
        return;
    }
    let swept = [
        ("expired tokens", hub.sweep_tokens().await),
        ("certificates that are over", hub.sweep_issued().await),
        ("claims to names that are over", hub.sweep_names().await),
        ("the binaries of filters", hub.sweep_binaries(crate::now_unix()).await),
        ("the store's age", hub.keep_age().await),
        ("the store's history", hub.tidy_store().await),
    ];
    hub.metrics().put_off(Upkeep::Records, swept.iter().any(|(_, result)| result.is_err()));
    for (what, result) in swept {
        if let Err(error) = result {
            tracing::error!(error = %crate::chain(&error), what, "the store could not be tidied; it is tried again");
        }
    }
}

async fn keep_operator_token(hub: &Arc<Hub>) {
    let kept = Box::pin(operator_token::keep(hub, &hub.config().state)).await;
    hub.metrics().put_off(Upkeep::OperatorToken, kept.is_err());
    if let Err(error) = kept {
        tracing::error!(error = format!("{error:#}"), "the operator token could not be kept; it is tried again");
    }
}

/// Publishes the shipped filters. False where the store could not take them, which is said: they come later.
///
/// # Errors
/// A filter that is configured is not there, or is not good.
async fn publish_filters(hub: &Arc<Hub>) -> anyhow::Result<bool> {
    let published = builtin::publish(hub).await;
    let is_busy = published.as_ref().is_err_and(builtin::is_busy);
    let is_put_off = is_busy || published.is_err() && hub.store_fault().is_some();
    hub.metrics().put_off(Upkeep::Filters, published.is_err());
    match published {
        Err(error) if is_put_off => {
            tracing::error!(error = format!("{error:#}"), "shipped filters could not be published; it is tried again");
            Ok(false)
        }
        other => other.map(|()| true),
    }
}

async fn keep_authz(hub: &Arc<Hub>) {
    if let Err(error) = builtin::keep_authz(hub).await {
        tracing::error!(error = format!("{error:#}"), "the filter authz could not be put right");
    }
}

/// False where something could not be renewed, which is said.
fn renew_certificates(hub: &Hub, certificate: &Arc<ServerCertificate>, now: OffsetDateTime) -> bool {
    let intermediate = hub.authority().maintain(now);
    match &intermediate {
        Ok(true) => tracing::info!("new intermediate certificate"),
        Ok(false) => {}
        Err(error) => tracing::error!(error = %crate::chain(error), "intermediate could not be renewed"),
    }
    let server = certificate.maintain(now);
    match &server {
        Ok(true) => tracing::info!("new server certificate"),
        Ok(false) => {}
        Err(error) => tracing::error!(error = %crate::chain(error), "server certificate could not be renewed"),
    }
    intermediate.is_ok() && server.is_ok()
}

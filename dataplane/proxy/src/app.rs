//! The composition root: binds, makes the identity, starts workers and the control side, waits for the end. Nobody else
//! knows every part.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::runtime::LocalOptions;
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};
use weft_filter_host::{Compiler, Host, HostConfig};
use weft_transport::capture;
use weft_transport::quic::{
    self, Congestion, Dialer, Pool, PoolLimits, Server, SharedKeys, TransportLimits, WindowLimits,
};
use weft_transport::tls::IdentityHandle;

use crate::admin::{Admin, Door};
use crate::apps::AppPool;
use crate::capturing::Capturing;
use crate::config::{Config, CongestionControl};
use crate::control::{Channel, Control, IdentityKeeper, TokenFile, join_or_load};
use crate::descriptors;
use crate::heartbeat::{Heart, Heartbeats};
use crate::listeners::{self, Sockets};
use crate::outbound;
use crate::shared::Shared;
use crate::signals::Signals;
use crate::stalls::SWEEP;
use crate::state::State;
use crate::telemetry::{LogLevel, throttle};
use crate::worker::Worker;

/// A drain is over when nothing has been in flight for this long.
const QUIET: Duration = Duration::from_secs(1);

/// How long workers may take to end after the drain; one that hangs ends with the process.
const ENDING: Duration = Duration::from_secs(2);

/// Runs the proxy until it is told to end and has drained.
pub fn run(config: Config, log_level: LogLevel) -> anyhow::Result<()> {
    let prometheus = metrics_exporter_prometheus::PrometheusBuilder::new()
        .install_recorder()
        .context("cannot start the metrics recorder")?;
    crate::scrape::describe();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the control runtime")?;
    let state = State::open(&config.state_dir).context("state directory")?;
    descriptors::raise();
    let token = state.admin_token().context("state directory")?;
    let sockets = bind(&config)?;
    let roots = std::fs::read_to_string(&config.control.ca_file)
        .with_context(|| format!("control.ca_file {}", config.control.ca_file.display()))?;
    let channel = Channel::new(&config.control.address, roots, mark(&config))?;
    let host_config = HostConfig {
        cache_dir: Some(state.compiled_dir()),
        cache: config.limits.compiled(),
        compiler: Compiler::own_child(),
        compile: config.limits.compiling(),
        workers: config.worker_count(),
        kept_bytes: config.limits.filter_kept_bytes,
        ..HostConfig::default()
    };
    let host = Host::new(host_config).context("cannot start the filter host")?;
    let shared = Arc::new(Shared::new(config, host)?);
    let admin = Arc::new(Admin {
        shared: Arc::clone(&shared),
        identity: OnceLock::new(),
        capture: OnceLock::new(),
        hearts: Heartbeats::new(sockets.len()),
        token,
        sides: Default::default(),
        prometheus,
        log_level,
    });
    let ended = runtime.block_on(live(&shared, &admin, state, channel, sockets));
    // A task that hangs is no reason to stay.
    runtime.shutdown_timeout(ENDING);
    ended
}

async fn live(
    shared: &Arc<Shared>,
    admin: &Arc<Admin>,
    state: State,
    channel: Channel,
    sockets: Vec<Sockets>,
) -> anyhow::Result<()> {
    let signals = Signals::take().context("cannot take over signals")?;
    open_doors(admin).await?;
    // Before anything that may take long: from here on nothing of the app passes by this proxy.
    let capturing =
        Capturing::install(&shared.config).context("cannot install the capture rules (needs CAP_NET_ADMIN and nft)")?;
    tokio::spawn(signals.obey(Arc::clone(shared)));
    tokio::spawn(throttle::report());
    tokio::spawn(Arc::clone(&shared.hosts).follow());
    if let Some(capturing) = &capturing {
        let _ = admin.capture.set(Arc::clone(capturing));
        tokio::spawn(Arc::clone(capturing).keep());
    }
    let refusing = listeners::refuse_for_now(&sockets).context("cannot share the listeners")?;
    let identity = tokio::select! {
        identity = join_or_load(&shared.config, &state, &channel) => Some(identity.context("no identity")?),
        () = shared.drain.draining() => None,
    };
    refusing.abort();
    if let Some((identity, joined_by)) = identity {
        if let Some(path) = shared.config.control.token_file.clone() {
            let file = TokenFile { path, channel: channel.clone(), identity: identity.clone(), tried: joined_by };
            tokio::spawn(file.run());
        }
        serve(shared, admin, identity, (state, channel), sockets).await?;
    }
    // Only a clean end may take the rules away: after any other, captured traffic fails.
    if let Some(capturing) = capturing {
        capturing.end().context("cannot remove the capture rules")?;
    }
    info!("ended");
    Ok(())
}

/// The life with an identity, until drained.
async fn serve(
    shared: &Arc<Shared>,
    admin: &Admin,
    identity: IdentityHandle,
    (state, channel): (State, Channel),
    sockets: Vec<Sockets>,
) -> anyhow::Result<()> {
    let _ = admin.identity.set(identity.clone());
    let secret = state.secret().context("state directory")?;
    let failed = Arc::new(AtomicBool::new(false));
    let keys = SharedKeys::from_secret(&secret);
    let workers = start_workers(shared, &admin.hearts, sockets, &identity, &keys, &failed)?;
    tokio::spawn(admin.hearts.clone().watch());
    let keeper = IdentityKeeper {
        shared: Arc::clone(shared),
        state: state.clone(),
        channel: channel.clone(),
        identity: identity.clone(),
    };
    tokio::spawn(keeper.run());
    let incarnation = incarnation(&state);
    let control = Arc::new(Control { shared: Arc::clone(shared), state, channel, identity, incarnation });
    let stream = tokio::spawn(Arc::clone(&control).run());
    shared.drain.draining().await;
    info!("draining");
    let _ = tokio::time::timeout(Duration::from_secs(2), stream).await;
    drained(shared).await;
    joined(workers).await;
    anyhow::ensure!(!failed.load(Ordering::Relaxed), "a worker failed");
    Ok(())
}

/// Which start of this proxy it is. Where it can't be kept, the time of the start must do.
fn incarnation(state: &State) -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    state.next_incarnation(now_ms).unwrap_or_else(|error| {
        tracing::warn!(error = %crate::chain(&error), "the number of this start could not be kept");
        now_ms
    })
}

/// Waits for the workers' threads, within [`ENDING`]: one that hangs must not keep the process.
async fn joined(mut workers: Vec<JoinHandle<()>>) {
    let end = Instant::now() + ENDING;
    loop {
        workers.retain(|worker| !worker.is_finished());
        if workers.is_empty() {
            return;
        }
        if Instant::now() >= end {
            return warn!(workers = workers.len(), "workers that hang are ended with the process");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The mark that lets our own connections pass the capture rules.
fn mark(config: &Config) -> Option<u32> {
    config.capture.is_some().then_some(capture::MARK)
}

/// Binds everything at once, so that a conflict is an error before anything is promised.
fn bind(config: &Config) -> anyhow::Result<Vec<Sockets>> {
    let count = config.worker_count();
    let mark = mark(config);
    let mesh = quic::bind_workers(config.listen.mesh, count)
        .with_context(|| format!("listen.mesh: cannot bind UDP {}", config.listen.mesh))?;
    let tcp = |key: &'static str, address: Option<SocketAddr>| -> anyhow::Result<Option<std::net::TcpListener>> {
        let Some(address) = address else { return Ok(None) };
        let listener = capture::bind_tcp(address, count > 1, mark);
        Ok(Some(listener.with_context(|| format!("{key}: cannot bind TCP {address}"))?))
    };
    mesh.into_iter()
        .map(|mesh| {
            Ok(Sockets {
                explicit: tcp("listen.explicit", config.listen.explicit)?,
                outbound: tcp("listen.outbound", config.listen.outbound)?,
                inbound: tcp("listen.inbound", config.listen.inbound)?,
                mesh,
                dial: quic::bind_client(config.listen.mesh.ip(), mark)
                    .context("cannot bind a UDP socket to dial from")?,
            })
        })
        .collect()
}

async fn open_doors(admin: &Arc<Admin>) -> anyhow::Result<()> {
    let listen = &admin.shared.config.listen;
    for (door, key, address) in [
        (Door::Admin, "listen.admin", listen.admin),
        (Door::Metrics, "listen.metrics", listen.metrics),
        (Door::Health, "listen.health", listen.health),
    ] {
        let listener = TcpListener::bind(address).await.with_context(|| format!("{key}: cannot bind TCP {address}"))?;
        tokio::spawn(Arc::clone(admin).serve(door, listener));
    }
    Ok(())
}

/// The workers alone, on the snapshot that `shared` holds: no control plane, no doors. They end with `shared.drain.quit()`.
///
/// # Errors
/// An address is taken, or a thread can't be started.
pub fn start_data_plane(
    shared: &Arc<Shared>,
    identity: &IdentityHandle,
    keys: &SharedKeys,
) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let sockets = bind(&shared.config)?;
    let hearts = Heartbeats::new(sockets.len());
    start_workers(shared, &hearts, sockets, identity, keys, &Arc::default())
}

fn start_workers(
    shared: &Arc<Shared>,
    hearts: &Heartbeats,
    sockets: Vec<Sockets>,
    identity: &IdentityHandle,
    keys: &SharedKeys,
    failed: &Arc<AtomicBool>,
) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let count = sockets.len();
    let mut threads = Vec::with_capacity(count);
    for (index, sockets) in sockets.into_iter().enumerate() {
        let (shared, identity, keys) = (Arc::clone(shared), identity.clone(), keys.clone());
        let (heart, failed) = (hearts.of(index), Arc::clone(failed));
        let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            let result = match runtime {
                Ok(runtime) => runtime.block_on(work(shared.clone(), &heart, (index, count), sockets, identity, keys)),
                Err(error) => Err(error.into()),
            };
            if let Err(error) = result {
                tracing::error!(worker = index, error = format!("{error:#}"), "worker failed");
                failed.store(true, Ordering::Relaxed);
                shared.drain.quit();
            }
            heart.rest();
        })?;
        threads.push(thread);
    }
    Ok(threads)
}

/// The life of one worker thread.
async fn work(
    shared: Arc<Shared>,
    heart: &Heart,
    (index, count): (usize, usize),
    sockets: Sockets,
    identity: IdentityHandle,
    keys: SharedKeys,
) -> anyhow::Result<()> {
    let place = quic::Worker::new(index, count).context("too many workers")?;
    let limits = transport_limits(&shared.config);
    let Sockets { explicit, outbound, inbound, mesh, dial } = sockets;
    let server = Server::new(mesh, place, &keys, &identity, &limits).context("cannot start the mesh endpoint")?;
    shared.admissions.lock().expect("no holder panics").push(Arc::clone(server.stats()));
    let dialer = Dialer::new(dial, place, &keys, &limits).context("cannot start the dialling endpoint")?;
    let h3 = weft_transport::h3::Limits {
        stream_wait: Duration::from_millis(shared.config.limits.peer_stream_wait_ms),
        ..shared.config.limits.http().between_proxies().h3()
    };
    let pool = Pool::new(dialer, identity, pool_limits(&shared.config), h3);
    shared.pools.lock().expect("no holder panics").push(Arc::clone(pool.stats()));
    let shares = descriptors::connection_shares(&shared.config);
    let apps = AppPool::new(mark(&shared.config), shared.guard.clone(), &shared.config.limits, shares);
    shared.app_pools.lock().expect("no holder panics").push(apps.stats.clone());
    let worker = Rc::new(Worker::new(index, shared, pool, apps));
    outbound::serve_callouts(&worker);
    let tcp = listeners::TcpSockets { explicit, outbound, inbound };
    let _mesh = listeners::start(&worker, tcp, server)?;
    tokio::select! {
        () = tend(&worker) => {}
        () = heart.run() => {}
        // Endpoints are asked once by each proxy, not by each worker.
        () = outbound::checking::run(&worker), if index == 0 => {}
    }
    Ok(())
}

fn transport_limits(config: &Config) -> TransportLimits {
    let limits = &config.limits;
    TransportLimits {
        concurrent_streams: limits.max_streams_per_connection,
        concurrent_handshakes: limits.max_handshakes,
        unproven_handshakes: limits.max_handshakes / 8,
        peer_connections: limits.max_peer_connections,
        connections_per_source: limits.max_peer_connections_per_source,
        connections_per_identity: limits.max_peer_connections_per_identity,
        windows: WindowLimits {
            stream: limits.quic_stream_window_bytes,
            far_stream: limits.quic_far_stream_window_bytes,
            far_from: Duration::from_millis(limits.quic_far_from_ms),
            connection: limits.quic_connection_window_bytes,
        },
        send_window: limits.quic_send_window_bytes,
        idle_timeout: Duration::from_secs(limits.peer_silence_s),
        handshake_timeout: Duration::from_millis(limits.peer_handshake_timeout_ms),
        congestion: match config.congestion_control {
            CongestionControl::Cubic => Congestion::Cubic,
            CongestionControl::Bbr => Congestion::Bbr,
        },
        ..TransportLimits::default()
    }
}

fn pool_limits(config: &Config) -> PoolLimits {
    let limits = &config.limits;
    PoolLimits {
        streams_per_connection: limits.peer_streams_per_connection,
        connections_per_peer: limits.peer_connections,
        idle_timeout: Duration::from_secs(limits.peer_idle_timeout_s),
        dial_timeout: Duration::from_millis(limits.peer_dial_timeout_ms),
        suspect_after: Duration::from_millis(limits.peer_suspect_after_ms),
        elsewhere_after: Duration::from_millis(limits.peer_elsewhere_after_ms),
        patience: Duration::from_secs(limits.peer_silence_s),
        forgotten_after: Duration::from_millis(limits.peer_forgotten_after_ms),
        ..PoolLimits::default()
    }
}

/// Keeps house until the process ends: evicts peers that left, closes connections idle for too long.
async fn tend(worker: &Rc<Worker>) {
    let mut swapped = worker.shared.swapped.subscribe();
    let mut admits = worker.shared.admits();
    let mut sweep = tokio::time::interval(Duration::from_secs(5));
    let mut stalls = tokio::time::interval(SWEEP);
    stalls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let series_idle = Duration::from_secs(worker.shared.config.limits.metric_series_idle_s);
    let between = (series_idle / 10).clamp(Duration::from_secs(1), Duration::from_secs(60));
    let mut series = tokio::time::interval(between);
    loop {
        tokio::select! {
            _ = sweep.tick() => worker.apps.expire(),
            _ = stalls.tick() => worker.stalls.sweep(Instant::now()),
            _ = series.tick(), if !series_idle.is_zero() => worker.ledger.metrics.expire(worker.now(), series_idle),
            changed = swapped.changed() => {
                if changed.is_err() {
                    return;
                }
                if let Some(snapshot) = worker.snapshot() {
                    worker.pool.retain(|key| snapshot.has_peer(key.destination(), key.address()));
                    worker.filters.retire();
                }
                // Most changes concern nothing that stands: nobody is woken for them.
                if std::mem::replace(&mut admits, worker.shared.admits()) != admits {
                    worker.admits_otherwise.notify_waiters();
                }
            }
            () = worker.shared.drain.quitting() => return,
        }
    }
}

/// Waits for what is in flight: until nothing has been for a quiet while, the grace has passed, or nobody wants to wait.
async fn drained(shared: &Shared) {
    let grace = shared.config.drain_timeout();
    let end = Instant::now() + grace;
    let mut quiet_since = None;
    let wait = async {
        while Instant::now() < end {
            if shared.in_flight.count() > 0 {
                quiet_since = None;
            } else if quiet_since.get_or_insert_with(Instant::now).elapsed() >= QUIET {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        warn!(in_flight = shared.in_flight.count(), "the grace has passed; what is in flight is cut");
    };
    tokio::select! {
        () = wait => {}
        () = shared.drain.quitting() => {}
    }
    shared.drain.quit();
}

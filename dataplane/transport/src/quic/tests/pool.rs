//! The pool: few connections for many requests, none shared between identities, and quick about what is gone.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use http::{HeaderMap, Method, StatusCode, Version};

use super::{Callee, LOOPBACK, dialer, on_a_worker, until};
use crate::h3;
use crate::http::{RequestHead, ResponseHead};
use crate::quic::{PeerKey, Pool, PoolLimits, SharedKeys, TransportLimits};
use crate::tls::testing::{Ca, id};
use crate::tls::{HandshakeFailure, Identities, IdentityHandle};

/// Short enough for a test to see them pass.
pub(super) fn quick() -> PoolLimits {
    PoolLimits {
        dial_timeout: Duration::from_secs(5),
        check_interval: Duration::from_millis(10),
        suspect_after: Duration::from_millis(200),
        ..PoolLimits::default()
    }
}

pub(super) fn pool(identities: impl Into<Identities>, limits: PoolLimits) -> Pool {
    Pool::new(dialer(), identities, limits, h3::Limits::default())
}

pub(super) fn key(source: &str, destination: &str, address: SocketAddr) -> PeerKey {
    PeerKey::new(id(source), id(destination), address)
}

pub(super) fn head(path: &str) -> RequestHead {
    RequestHead {
        method: Method::GET,
        authority: Some("shop".parse().unwrap()),
        path: Some(path.parse().unwrap()),
        protocol: None,
        headers: HeaderMap::new(),
        version: Version::HTTP_3,
    }
}

/// Serves a callee's connections: `/held` waits until `release` is told, all else is answered at once.
pub(super) fn serve(
    mut callee: Callee,
    release: &std::rc::Rc<tokio::sync::Semaphore>,
) -> tokio::sync::mpsc::UnboundedReceiver<h3::Server> {
    let (report, servers) = tokio::sync::mpsc::unbounded_channel();
    let release = release.clone();
    tokio::task::spawn_local(async move {
        while let Some(outcome) = callee.outcomes.recv().await {
            let Ok(accepted) = outcome else { continue };
            let (server, driver) = h3::accept(accepted.connection, h3::Limits::default());
            tokio::task::spawn_local(driver);
            let _ = report.send(server.clone());
            let release = release.clone();
            tokio::task::spawn_local(async move {
                while let Some(incoming) = server.accept().await {
                    let release = release.clone();
                    tokio::task::spawn_local(async move {
                        let mut incoming = incoming;
                        let Ok(head) = incoming.head().await else { return };
                        let (_body, mut send) = incoming.into_streams();
                        if head.path.is_some_and(|path| path == "/held") {
                            release.acquire().await.unwrap().forget();
                        }
                        let answer = ResponseHead { status: StatusCode::NO_CONTENT, headers: HeaderMap::new() };
                        let _ = send.response(&answer, true).await;
                    });
                }
            });
        }
    });
    servers
}

pub(super) fn gate() -> std::rc::Rc<tokio::sync::Semaphore> {
    std::rc::Rc::new(tokio::sync::Semaphore::new(0))
}

pub(super) async fn request(client: &h3::Client, path: &str) -> (h3::SendStream, h3::RecvStream) {
    client.send(&head(path), true).await.unwrap()
}

async fn answered(pool: &Pool, key: &PeerKey) -> bool {
    let Ok(client) = pool.get(key).await else { return false };
    let Ok((_send, mut receive)) = client.send(&head("/"), true).await else { return false };
    receive.response_head().await.is_ok_and(|head| head.status == StatusCode::NO_CONTENT)
}

#[test]
fn a_stampede_makes_one_connection() {
    on_a_worker(async {
        let ca = Ca::new();
        let callee = Callee::new(&ca.handle("shop"));
        let pool = pool(ca.handle("cart"), PoolLimits { streams_per_connection: 1000, ..quick() });
        let key = key("cart", "shop", callee.address);
        let _servers = serve(callee, &gate());
        let answers = join_all((0..500).map(|_| answered(&pool, &key))).await;
        assert!(answers.into_iter().all(|answered| answered));
        let stats = pool.stats().snapshot();
        assert_eq!((stats.dials, stats.established, stats.connections, stats.coalesced), (1, 1, 1, 499));
    });
}

#[test]
fn a_request_that_gives_up_does_not_spoil_the_dial() {
    on_a_worker(async {
        let ca = Ca::new();
        let callee = Callee::new(&ca.handle("shop"));
        let pool = pool(ca.handle("cart"), quick());
        let key = key("cart", "shop", callee.address);
        let _servers = serve(callee, &gate());
        let mut impatient = Box::pin(pool.get(&key));
        assert!(futures_util::poll!(&mut impatient).is_pending());
        drop(impatient);
        assert!(answered(&pool, &key).await);
        assert_eq!(pool.stats().snapshot().dials, 1);
    });
}

#[test]
fn different_identities_and_addresses_never_share() {
    on_a_worker(async {
        let ca = Ca::new();
        let shop = ca.handle("shop");
        let callees = [Callee::new(&shop), Callee::new(&shop), Callee::new(&ca.handle("mail"))];
        let identities = Identities::new([ca.handle("cart"), ca.handle("user")]);
        let pool = pool(identities, quick());
        let mut keys = Vec::new();
        for (callee, destination) in callees.iter().zip(["shop", "shop", "mail"]) {
            for source in ["cart", "user"] {
                keys.push((key(source, destination, callee.address), source));
            }
        }
        let mut servers: Vec<_> = callees.into_iter().map(|callee| serve(callee, &gate())).collect();
        for _ in 0..3 {
            for (key, _) in &keys {
                assert!(answered(&pool, key).await);
            }
        }
        assert_eq!(pool.stats().snapshot().connections, 6);
        for servers in &mut servers {
            let (first, second) = (servers.recv().await.unwrap(), servers.recv().await.unwrap());
            assert!(servers.try_recv().is_err());
            let peers = [first, second].map(|server| crate::tls::peer_identity(server.quic()).unwrap().id);
            assert_eq!(peers, [id("cart"), id("user")]);
        }
        // The right address with the wrong identity is nobody's connection.
        let error = pool.get(&key("cart", "mail", keys[0].0.address())).await.unwrap_err();
        assert_eq!(error.reason(), HandshakeFailure::WrongIdentity);
        assert_eq!(pool.stats().snapshot().failures[HandshakeFailure::WrongIdentity.index()], 1);
        assert!(answered(&pool, &keys[0].0).await);
        // Nor may a caller borrow another's name.
        let error = pool.get(&key("mail", "shop", keys[0].0.address())).await.unwrap_err();
        assert_eq!(error.reason(), HandshakeFailure::NoCertificate);
    });
}

#[test]
fn more_connections_at_the_stream_limit() {
    on_a_worker(async {
        let ca = Ca::new();
        let callee = Callee::new(&ca.handle("shop"));
        let limits = PoolLimits { streams_per_connection: 2, connections_per_peer: 3, ..quick() };
        let pool = pool(ca.handle("cart"), limits);
        let key = key("cart", "shop", callee.address);
        let _servers = serve(callee, &gate());
        let mut held = Vec::new();
        for count in 1..=6_u64 {
            held.push(request(&pool.get(&key).await.unwrap(), "/held").await);
            assert_eq!(pool.stats().snapshot().connections, count.div_ceil(2));
        }
        // The seventh finds every connection full and no more allowed: it shares the least loaded.
        held.push(request(&pool.get(&key).await.unwrap(), "/held").await);
        let stats = pool.stats().snapshot();
        assert_eq!((stats.connections, stats.dials, stats.saturated), (3, 3, 1));
        assert_eq!(pool.open_streams(&key), 7);
    });
}

#[test]
fn a_peer_without_stream_credit_holds_a_request_until_its_deadline() {
    on_a_worker(async {
        let ca = Ca::new();
        let limits = TransportLimits { concurrent_streams: 1, ..TransportLimits::default() };
        let callee = Callee::with_limits(&ca.handle("shop"), &limits);
        let pool = pool(ca.handle("cart"), quick());
        let key = key("cart", "shop", callee.address);
        let release = gate();
        let _servers = serve(callee, &release);
        let client = pool.get(&key).await.unwrap();
        let (_send, mut first) = request(&client, "/held").await;
        let second = head("/");
        let mut waiting = Box::pin(client.send(&second, true));
        assert!(tokio::time::timeout(Duration::from_millis(100), &mut waiting).await.is_err());
        release.add_permits(1);
        assert_eq!(first.response_head().await.unwrap().status, StatusCode::NO_CONTENT);
        drop((_send, first));
        waiting.await.unwrap();
    });
}

#[test]
fn idle_connections_go_and_busy_ones_stay() {
    on_a_worker(async {
        let ca = Ca::new();
        let callee = Callee::new(&ca.handle("shop"));
        let limits = PoolLimits { streams_per_connection: 1, idle_timeout: Duration::from_millis(200), ..quick() };
        let pool = pool(ca.handle("cart"), limits);
        let key = key("cart", "shop", callee.address);
        let release = gate();
        let _servers = serve(callee, &release);
        let (send, mut held) = request(&pool.get(&key).await.unwrap(), "/held").await;
        assert!(answered(&pool, &key).await);
        assert_eq!(pool.stats().snapshot().connections, 2);
        until("the idle one is closed", || pool.stats().snapshot().connections == 1).await;
        assert_eq!(pool.stats().snapshot().idle_closed, 1);
        release.add_permits(1);
        assert_eq!(held.response_head().await.unwrap().status, StatusCode::NO_CONTENT);
        drop((send, held));
        until("the other is closed too", || pool.stats().snapshot().connections == 0).await;
        let stats = pool.stats().snapshot();
        assert_eq!((stats.idle_closed, stats.lost), (2, 0));
        assert!(answered(&pool, &key).await);
    });
}

#[test]
fn eviction_is_at_once_and_spares_what_is_under_way() {
    on_a_worker(async {
        let ca = Ca::new();
        let callee = Callee::new(&ca.handle("shop"));
        let pool = pool(ca.handle("cart"), quick());
        let key = key("cart", "shop", callee.address);
        let release = gate();
        let mut servers = serve(callee, &release);
        assert!(pool.at_once(&key).is_none() && pool.stats().snapshot().dials == 0, "it dials nobody");
        let (_send, mut held) = request(&pool.get(&key).await.unwrap(), "/held").await;
        let first = servers.recv().await.unwrap();
        assert!(pool.at_once(&key).is_some());
        pool.retain(|_| false);
        assert!(pool.at_once(&key).is_none(), "it goes to none that was evicted");
        assert_eq!(pool.stats().snapshot().evicted, 1);
        // A request that comes now gets another connection.
        assert!(answered(&pool, &key).await);
        let second = servers.recv().await.unwrap();
        assert_ne!(first.quic().stable_id(), second.quic().stable_id());
        assert!(first.quic().close_reason().is_none());
        release.add_permits(1);
        assert_eq!(held.response_head().await.unwrap().status, StatusCode::NO_CONTENT);
        drop((_send, held));
        first.quic().closed().await;
        until("the evicted one is forgotten", || pool.stats().snapshot().connections == 1).await;

        let client = pool.get(&key).await.unwrap();
        let (_send, mut held) = request(&client, "/held").await;
        pool.cut(&key);
        assert!(!held.response_head().await.unwrap_err().unprocessed);
    });
}

#[test]
fn eviction_ends_a_dial() {
    on_a_worker(async {
        let ca = Ca::new();
        let deaf = std::net::UdpSocket::bind((LOOPBACK, 0)).unwrap();
        let pool = pool(ca.handle("cart"), quick());
        let key = key("cart", "shop", deaf.local_addr().unwrap());
        let mut waiting = Box::pin(pool.get(&key));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        pool.evict(&key);
        assert_eq!(waiting.await.unwrap_err().reason(), HandshakeFailure::Evicted);
    });
}

#[test]
fn a_closed_connection_is_replaced() {
    on_a_worker(async {
        let ca = Ca::new();
        let callee = Callee::new(&ca.handle("shop"));
        let pool = pool(ca.handle("cart"), quick());
        let key = key("cart", "shop", callee.address);
        let release = gate();
        let mut servers = serve(callee, &release);
        assert!(answered(&pool, &key).await);
        servers.recv().await.unwrap().close();
        until("the loss is noticed", || pool.stats().snapshot().lost == 1).await;
        let (_send, mut held) = request(&pool.get(&key).await.unwrap(), "/held").await;
        // A callee that goes away keeps what it took and gets nothing new.
        let leaving = servers.recv().await.unwrap();
        until("the request arrives", || leaving.open_streams() == 1).await;
        leaving.goaway();
        let seen = pool.get(&key).await.unwrap();
        until("GOAWAY is seen", || seen.is_draining()).await;
        assert!(answered(&pool, &key).await);
        assert_eq!(pool.stats().snapshot().established, 3);
        release.add_permits(1);
        assert_eq!(held.response_head().await.unwrap().status, StatusCode::NO_CONTENT);
    });
}

#[test]
fn a_dead_peer_is_noticed_and_found_again() {
    on_a_worker(async {
        let ca = Ca::new();
        let shop = ca.handle("shop");
        let callee = Callee::new(&shop);
        let address = callee.address;
        let pool = pool(ca.handle("cart"), PoolLimits { dial_timeout: Duration::from_millis(300), ..quick() });
        let key = key("cart", "shop", address);
        let server = callee.server.clone();
        let release = gate();
        let _servers = serve(callee, &release);
        assert!(answered(&pool, &key).await);
        let gone = Callee { server, address, outcomes: tokio::sync::mpsc::unbounded_channel().1 };
        gone.vanish().await;
        let (_send, mut unanswered) = request(&pool.get(&key).await.unwrap(), "/").await;
        let asked = tokio::time::Instant::now();
        assert!(!unanswered.response_head().await.unwrap_err().unprocessed);
        // Well before QUIC's own idle timeout.
        assert!(asked.elapsed() < Duration::from_secs(5));
        let stats = pool.stats().snapshot();
        assert_eq!((stats.suspected, stats.failures[HandshakeFailure::PortClosed.index()]), (1, 1));

        let back = Callee::bound(address, &SharedKeys::generate(), &shop, &TransportLimits::default());
        let _servers = serve(back, &release);
        while !answered(&pool, &key).await {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_dead_endpoint_answers_at_once_between_dials() {
    on_a_worker(async {
        let ca = Ca::new();
        let deaf = std::net::UdpSocket::bind((LOOPBACK, 0)).unwrap();
        let backoff = (Duration::from_millis(100), Duration::from_millis(100));
        let limits = PoolLimits { dial_timeout: Duration::from_millis(100), redial_backoff: backoff, ..quick() };
        let pool = pool(ca.handle("cart"), limits);
        let key = key("cart", "shop", deaf.local_addr().unwrap());
        for _ in 0..5 {
            assert_eq!(pool.get(&key).await.unwrap_err().reason(), HandshakeFailure::Timeout);
        }
        assert_eq!(pool.stats().snapshot().dials, 1);
        // And tries again once the pause is over.
        while pool.stats().snapshot().dials < 2 {
            assert_eq!(pool.get(&key).await.unwrap_err().reason(), HandshakeFailure::Timeout);
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_renewed_certificate_retires_connections_without_dropping_requests() {
    on_a_worker(async {
        let ca = Ca::new();
        let callee = Callee::new(&ca.handle("shop"));
        let cart = ca.handle("cart");
        let pool = pool(cart.clone(), quick());
        let key = key("cart", "shop", callee.address);
        let release = gate();
        let mut servers = serve(callee, &release);
        let (_send, mut held) = request(&pool.get(&key).await.unwrap(), "/held").await;
        let first = servers.recv().await.unwrap();
        cart.replace(ca.identity("cart"), ca.trust()).unwrap();
        let (pool, key) = (&pool, &key);
        let renewed = async {
            while pool.stats().snapshot().established < 2 {
                assert!(answered(pool, key).await);
            }
        };
        renewed.await;
        let second = servers.recv().await.unwrap();
        assert!(first.quic().close_reason().is_none());
        release.add_permits(1);
        assert_eq!(held.response_head().await.unwrap().status, StatusCode::NO_CONTENT);
        drop((_send, held));
        first.quic().closed().await;
        assert!(second.quic().close_reason().is_none());
        assert_eq!(pool.stats().snapshot().lost, 0);
    });
}

#[test]
fn withdrawn_trust_cuts_connections() {
    on_a_worker(async {
        let (ca, other) = (Ca::new(), Ca::new());
        let callee = Callee::new(&ca.handle("shop"));
        let cart = IdentityHandle::new(ca.identity("cart"), ca.trust());
        let pool = pool(cart.clone(), quick());
        let key = key("cart", "shop", callee.address);
        let _servers = serve(callee, &gate());
        let (_send, mut held) = request(&pool.get(&key).await.unwrap(), "/held").await;
        cart.replace_trust(other.trust());
        assert!(held.response_head().await.is_err());
        assert_eq!(pool.stats().snapshot().distrusted, 1);
        assert_eq!(pool.get(&key).await.unwrap_err().reason(), HandshakeFailure::Untrusted);
    });
}

/// Three seconds, since certificates count whole ones.
const SHORT: Duration = Duration::from_secs(3);

/// Whichever side's certificate ends: the connection that began with it is closed by both ends, and the next dial says so.
#[test]
fn a_connection_ends_with_the_first_of_its_certificates() {
    for ending in ["cart", "shop"] {
        on_a_worker(async move {
            let ca = Ca::new();
            let of = |name: &str| if name == ending { ca.ending(name, SHORT) } else { ca.handle(name) };
            let (cart, shop) = (of("cart"), of("shop"));
            let mut callee = Callee::new(&shop);
            let pool = pool(cart, quick());
            let key = key("cart", "shop", callee.address);
            let _client = pool.get(&key).await.unwrap();
            let accepted = callee.outcome().await.unwrap();
            let begun = std::time::Instant::now();
            accepted.connection.closed().await;
            assert!(begun.elapsed() < SHORT + Duration::from_secs(3), "{ending}: {:?}", begun.elapsed());
            until("the pool has let go of it", || pool.stats().snapshot().connections == 0).await;
            let error = pool.get(&key).await.unwrap_err();
            assert_eq!(error.reason(), HandshakeFailure::Expired, "{ending}: {error}");
        });
    }
}

#[test]
fn who_is_banned_is_cut_and_refused_on_both_sides_until_let_in() {
    on_a_worker(async {
        let ca = Ca::new();
        let (cart, shop) = (ca.handle("cart"), ca.handle("shop"));
        let mut callee = Callee::new(&shop);
        let pool = pool(cart.clone(), quick());
        let key = key("cart", "shop", callee.address);
        let _client = pool.get(&key).await.unwrap();
        let accepted = callee.outcome().await.unwrap();
        shop.deny([id("cart")].into());
        accepted.connection.closed().await;
        let error = callee_refuses(&pool, &key).await;
        assert_eq!(error, HandshakeFailure::Banned);
        // A new certificate and new trust change nothing about it.
        shop.replace(ca.identity("shop"), ca.trust()).unwrap();
        shop.replace_trust(ca.trust());
        assert_eq!(callee_refuses(&pool, &key).await, HandshakeFailure::Banned);
        shop.deny([].into());
        pool.evict(&key);
        let _client = pool.get(&key).await.unwrap();
        // The caller's side bans the callee.
        cart.deny([id("shop")].into());
        until("the pool has cut it", || pool.stats().snapshot().connections == 0).await;
        assert_eq!(callee_refuses(&pool, &key).await, HandshakeFailure::Banned);
    });
}

#[test]
fn who_is_evicted_loses_the_connections_that_stand_and_may_come_back() {
    on_a_worker(async {
        let ca = Ca::new();
        let (cart, other, shop) = (ca.handle("cart"), ca.handle("other"), ca.handle("shop"));
        let mut callee = Callee::new(&shop);
        let of_other = pool(other, quick());
        let _stays = of_other.get(&key("other", "shop", callee.address)).await.unwrap();
        let stays = callee.outcome().await.unwrap();
        let pool = pool(cart.clone(), quick());
        let key = key("cart", "shop", callee.address);
        for number in 1..=2 {
            let _client = pool.get(&key).await.unwrap();
            let accepted = callee.outcome().await.unwrap();
            shop.evict([(serial(&cart), number)]);
            accepted.connection.closed().await;
            pool.evict(&key);
        }
        // What began after it stays, whatever else changes.
        let _client = pool.get(&key).await.unwrap();
        let accepted = callee.outcome().await.unwrap();
        shop.replace_trust(ca.trust());
        shop.evict([]);
        // The caller's side loses the callee, and takes it back.
        cart.evict([(serial(&shop), 7)]);
        until("the pool has cut it", || pool.stats().snapshot().connections == 0).await;
        accepted.connection.closed().await;
        let _client = pool.get(&key).await.unwrap();
        assert!(stays.connection.close_reason().is_none(), "nobody else loses anything");
    });
}

fn serial(of: &IdentityHandle) -> String {
    let credentials = of.current();
    let (_, leaf) = x509_parser::parse_x509_certificate(&credentials.identity.chain()[0]).unwrap();
    format!("00{}", leaf.serial.to_str_radix(16).to_uppercase())
}

/// Why a dial fails that is made now, whatever failed before.
async fn callee_refuses(pool: &Pool, key: &PeerKey) -> HandshakeFailure {
    pool.evict(key);
    pool.get(key).await.unwrap_err().reason()
}

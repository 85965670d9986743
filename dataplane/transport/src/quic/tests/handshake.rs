//! Handshakes that succeed, and the table of refusals, each known by its reason at both ends.

use std::net::SocketAddr;
use std::time::Duration;

use rcgen::SanType;

use super::attack::{Offer, attacking_client, attacking_server, tls12_client};
use super::{Callee, PATIENCE, dialer, on_a_worker};
use crate::quic::{Dialer, SharedKeys, TransportLimits, Worker, bind_client};
use crate::tls::testing::{Ca, Leaf, id, uri};
use crate::tls::{
    HandshakeError, HandshakeFailure, IdentityHandle, RefusedBy, Served, ServedIdentity, Trust, peer_identity,
};

#[test]
fn both_sides_know_each_other() {
    on_a_worker(async {
        let ca = Ca::new();
        let mut callee = Callee::new(&ca.handle("shop"));
        let connection = dialer().dial(&ca.handle("cart"), &id("shop"), callee.address, PATIENCE).await.unwrap();
        let accepted = callee.outcome().await.unwrap();
        assert_eq!(accepted.peer.id, id("cart"));
        assert_eq!(peer_identity(&accepted.connection).unwrap(), accepted.peer);
        assert_eq!(peer_identity(&connection).unwrap().id, id("shop"));
        let data = connection.handshake_data().unwrap();
        let data = data.downcast::<quinn::crypto::rustls::HandshakeData>().unwrap();
        assert_eq!(data.protocol.as_deref(), Some(&b"h3"[..]));
    });
}

/// A host's proxies are reached by either family, whichever its own address has.
#[test]
fn a_caller_reaches_callees_of_both_families() {
    on_a_worker(async {
        let ca = Ca::new();
        let of_a_host = [10, 0, 0, 1].into();
        let socket = bind_client(of_a_host, None).unwrap();
        let limits = TransportLimits::default();
        let dialer = Dialer::new(socket, Worker::single(), &SharedKeys::generate(), &limits).unwrap();
        for ip in ["127.0.0.1", "::1"] {
            let address = SocketAddr::new(ip.parse().unwrap(), 0);
            let mut callee = Callee::bound(address, &SharedKeys::generate(), &ca.handle("shop"), &limits);
            let caller = dialer.dial(&ca.handle("cart"), &id("shop"), callee.address, PATIENCE).await.unwrap();
            assert_eq!(callee.outcome().await.unwrap().peer.id, id("cart"), "{ip}");
            assert_eq!(caller.max_datagram_size(), None, "nobody reads datagrams, so none are offered");
        }
    });
}

/// The certificates that neither side may take, and the word for each.
fn bad_certificates(ca: &Ca) -> Vec<(Offer, HandshakeFailure)> {
    let good = uri("cart");
    let mut expired = Leaf::uris(&[&good]);
    expired.until = (2021, 1, 1);
    let mut early = Leaf::uris(&[&good]);
    early.from = (2089, 1, 1);
    let mut dns = Leaf::uris(&[]);
    dns.sans = vec![SanType::DnsName("cart".try_into().unwrap())];
    let mut outsider_without_name = Leaf::uris(&[]);
    outsider_without_name.sans = dns.sans.clone();
    // Vouched for by our root, but of a domain that our root does not speak for.
    let foreign = Leaf::uris(&["spiffe://other.example/ns/default/sa/cart"]);
    let stranger = Ca::new();
    vec![
        (Offer::Chain(stranger.chain(&Leaf::uris(&[&good]))), HandshakeFailure::Untrusted),
        (Offer::Chain(stranger.chain(&outsider_without_name)), HandshakeFailure::Untrusted),
        (Offer::Chain(ca.chain(&foreign)), HandshakeFailure::Untrusted),
        (Offer::Chain(ca.chain(&expired)), HandshakeFailure::Expired),
        (Offer::Chain(ca.chain(&early)), HandshakeFailure::NotYetValid),
        (Offer::Chain(ca.chain(&Leaf::uris(&[]))), HandshakeFailure::NoUriSan),
        (Offer::Chain(ca.chain(&dns)), HandshakeFailure::NoUriSan),
        (Offer::Chain(ca.chain(&Leaf::uris(&[&good, &uri("b")]))), HandshakeFailure::SeveralUriSans),
        (Offer::Chain(ca.chain(&Leaf::uris(&[&good, "https://x.example/"]))), HandshakeFailure::SeveralUriSans),
        (Offer::Chain(ca.chain(&Leaf::uris(&["https://cart.example/"]))), HandshakeFailure::BadSpiffeId),
        (Offer::Chain(ca.chain(&Leaf::uris(&["spiffe://cluster.local/cart"]))), HandshakeFailure::BadSpiffeId),
    ]
}

fn check_refusal(ours: &HandshakeError, theirs: &HandshakeError, expect: HandshakeFailure) {
    assert_eq!((ours.reason, ours.refused_by), (expect, RefusedBy::Us), "{ours}");
    assert_eq!((theirs.reason, theirs.refused_by), (expect, RefusedBy::Peer), "{theirs}");
    assert!(ours.reason.is_refusal());
    assert!(!ours.detail.is_empty());
}

#[test]
fn a_callee_refuses_bad_callers_and_both_know_why() {
    on_a_worker(async {
        let ca = Ca::new();
        let mut cases = bad_certificates(&ca);
        cases.push((Offer::Nothing, HandshakeFailure::NoCertificate));
        let mut callee = Callee::new(&ca.handle("shop"));
        for (offer, expect) in cases {
            let theirs = attacking_client(offer, callee.address, &[b"h3"]).await;
            let ours = callee.outcome().await.unwrap_err();
            check_refusal(&ours, &theirs, expect);
        }
        // And it still serves who may come.
        dialer().dial(&ca.handle("cart"), &id("shop"), callee.address, PATIENCE).await.unwrap();
    });
}

#[test]
fn a_caller_refuses_bad_callees_and_both_know_why() {
    on_a_worker(async {
        let ca = Ca::new();
        let mut cases = bad_certificates(&ca);
        // A good certificate of somebody else.
        cases.push((Offer::Chain(ca.chain(&Leaf::uris(&[&uri("mail")]))), HandshakeFailure::WrongIdentity));
        let caller = ca.handle("client");
        for (offer, expect) in cases {
            let (address, theirs) = attacking_server(offer, &[b"h3"]);
            let ours = dialer().dial(&caller, &id("cart"), address, PATIENCE).await.unwrap_err();
            check_refusal(&ours, &theirs.await.unwrap(), expect);
        }
    });
}

#[test]
fn a_refused_caller_learns_it_from_its_dial() {
    on_a_worker(async {
        let ca = Ca::new();
        let stranger = Ca::new();
        let mut callee = Callee::new(&ca.handle("shop"));
        // The caller trusts the callee, not the other way round: in TLS 1.3 the caller is done first.
        let caller = IdentityHandle::new(stranger.identity("cart"), ca.trust());
        let theirs = dialer().dial(&caller, &id("shop"), callee.address, PATIENCE).await.unwrap_err();
        check_refusal(&callee.outcome().await.unwrap_err(), &theirs, HandshakeFailure::Untrusted);
    });
}

#[test]
fn tls_1_2_is_refused() {
    on_a_worker(async {
        let ca = Ca::new();
        let mut callee = Callee::new(&ca.handle("shop"));
        let theirs = tls12_client(callee.address).await;
        check_refusal(&callee.outcome().await.unwrap_err(), &theirs, HandshakeFailure::ProtocolVersion);
    });
}

#[test]
fn another_application_protocol_is_refused() {
    on_a_worker(async {
        let ca = Ca::new();
        let mut callee = Callee::new(&ca.handle("shop"));
        for protocols in [&[&b"h2"[..], b"http/1.1"][..], &[b"hq-interop"], &[b"h3-29"]] {
            let offer = Offer::Chain(ca.chain(&Leaf::uris(&[&uri("cart")])));
            let theirs = attacking_client(offer, callee.address, protocols).await;
            check_refusal(&callee.outcome().await.unwrap_err(), &theirs, HandshakeFailure::Alpn);
        }
    });
}

#[test]
fn trust_domains_vouch_for_their_own_only() {
    on_a_worker(async {
        let (ca, partner) = (Ca::new(), Ca::new());
        let both = ca.trust().with_domain("partner.example", &partner.root_pem).unwrap();
        let mut callee = Callee::new(&IdentityHandle::new(ca.identity("shop"), both));
        let of_partner = Leaf::uris(&["spiffe://partner.example/ns/default/sa/cart"]);

        let (chain, key) = partner.chain(&of_partner);
        let identity = crate::tls::WorkloadIdentity::new(chain, key).unwrap();
        let caller = IdentityHandle::new(identity, ca.trust());
        dialer().dial(&caller, &id("shop"), callee.address, PATIENCE).await.unwrap();
        assert_eq!(callee.outcome().await.unwrap().peer.id.trust_domain(), "partner.example");

        for offer in [Offer::Chain(ca.chain(&of_partner)), Offer::Chain(partner.chain(&Leaf::uris(&[&uri("cart")])))] {
            let theirs = attacking_client(offer, callee.address, &[b"h3"]).await;
            check_refusal(&callee.outcome().await.unwrap_err(), &theirs, HandshakeFailure::Untrusted);
        }
    });
}

#[test]
fn silence_ends_a_handshake() {
    on_a_worker(async {
        let ca = Ca::new();
        let deaf = std::net::UdpSocket::bind((super::LOOPBACK, 0)).unwrap();
        let wait = Duration::from_millis(150);
        let error = dialer().dial(&ca.handle("cart"), &id("shop"), deaf.local_addr().unwrap(), wait).await.unwrap_err();
        assert_eq!((error.reason, error.refused_by), (HandshakeFailure::Timeout, RefusedBy::Nobody));
        assert!(!error.reason.is_refusal());
    });
}

#[test]
fn identity_rotates_under_live_connections() {
    on_a_worker(async {
        let ca = Ca::new();
        let (shop, cart) = (ca.handle("shop"), ca.handle("cart"));
        let mut callee = Callee::new(&shop);
        let dialer = dialer();
        let before = dialer.dial(&cart, &id("shop"), callee.address, PATIENCE).await.unwrap();
        let before_callee = callee.outcome().await.unwrap();

        shop.replace(ca.identity("shop"), ca.trust()).unwrap();
        cart.replace(ca.identity("cart"), ca.trust()).unwrap();
        let after = dialer.dial(&cart, &id("shop"), callee.address, PATIENCE).await.unwrap();
        let after_callee = callee.outcome().await.unwrap();

        // The old one goes on, the new one was made with the new certificates.
        exchange(&before, &before_callee.connection).await;
        exchange(&after, &after_callee.connection).await;
        assert_ne!(leaf(&before), leaf(&after));
        assert_ne!(leaf(&before_callee.connection), leaf(&after_callee.connection));
    });
}

#[test]
fn trust_rotates_without_a_gap_and_cuts_what_it_leaves() {
    on_a_worker(async {
        let (old, new) = (Ca::new(), Ca::new());
        let both = Trust::from_pem("cluster.local", &format!("{}{}", old.root_pem, new.root_pem)).unwrap();
        let (shop, cart) = (old.handle("shop"), old.handle("cart"));
        let mut callee = Callee::new(&shop);
        let dialer = dialer();
        let first = dialer.dial(&cart, &id("shop"), callee.address, PATIENCE).await.unwrap();
        let first_callee = callee.outcome().await.unwrap();

        // New root beside the old: nothing is cut, certificates of both are good.
        shop.replace_trust(both.clone());
        cart.replace_trust(both.clone());
        cart.replace(new.identity("cart"), both.clone()).unwrap();
        let second = dialer.dial(&cart, &id("shop"), callee.address, PATIENCE).await.unwrap();
        let second_callee = callee.outcome().await.unwrap();
        exchange(&first, &first_callee.connection).await;

        // The old root goes: whoever came by it is cut, whoever came by the new one stays.
        shop.replace_trust(new.trust());
        assert!(matches!(first.closed().await, quinn::ConnectionError::ApplicationClosed(_)));
        exchange(&second, &second_callee.connection).await;
        let old_caller = IdentityHandle::new(old.identity("cart"), both);
        let error = dialer.dial(&old_caller, &id("shop"), callee.address, PATIENCE).await.unwrap_err();
        assert_eq!((error.reason, error.refused_by), (HandshakeFailure::Untrusted, RefusedBy::Peer));
    });
}

#[test]
fn one_port_serves_several_workloads() {
    on_a_worker(async {
        let ca = Ca::new();
        let served = ["shop", "mail"].map(|name| ServedIdentity { handle: ca.handle(name), addresses: Vec::new() });
        let mut callee = Callee::new(Served::new(served));
        for name in ["shop", "mail", "shop"] {
            let connection = dialer().dial(&ca.handle("cart"), &id(name), callee.address, PATIENCE).await.unwrap();
            assert_eq!(crate::tls::peer_identity(&connection).unwrap().id, id(name));
            assert_eq!(callee.outcome().await.unwrap().served, id(name));
        }
        let error = dialer().dial(&ca.handle("cart"), &id("nobody"), callee.address, PATIENCE).await.unwrap_err();
        assert_eq!(error.refused_by, RefusedBy::Peer, "{error}");
        assert_eq!(callee.outcome().await.unwrap_err().refused_by, RefusedBy::Us);
    });
}

#[test]
fn handshakes_over_the_limit_are_refused() {
    on_a_worker(async {
        let ca = Ca::new();
        let limits = super::TransportLimits { concurrent_handshakes: 0, ..super::TransportLimits::default() };
        let callee = Callee::with_limits(&ca.handle("shop"), &limits);
        let error = dialer().dial(&ca.handle("cart"), &id("shop"), callee.address, PATIENCE).await.unwrap_err();
        assert_eq!((error.reason, error.refused_by), (HandshakeFailure::Limit, RefusedBy::Peer));
        assert_eq!(callee.server.endpoint().stats().refused_handshakes, 1);
    });
}

fn leaf(connection: &quinn::Connection) -> Vec<u8> {
    let chain = connection.peer_identity().unwrap().downcast::<Vec<rustls_pki_types::CertificateDer<'_>>>().unwrap();
    chain[0].to_vec()
}

/// Bytes there and back.
pub(super) async fn exchange(caller: &quinn::Connection, callee: &quinn::Connection) {
    let (mut send, mut receive) = caller.open_bi().await.unwrap();
    send.write_all(b"ping").await.unwrap();
    send.finish().unwrap();
    let (mut answer, mut question) = callee.accept_bi().await.unwrap();
    assert_eq!(question.read_to_end(16).await.unwrap(), b"ping");
    answer.write_all(b"pong").await.unwrap();
    answer.finish().unwrap();
    assert_eq!(receive.read_to_end(16).await.unwrap(), b"pong");
}

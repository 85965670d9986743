//! Identities, trust and configurations without a network; the handshakes themselves are tested in `quic::tests`.

use std::sync::Arc;

use rcgen::SanType;
use rustls::{ClientConfig, ClientConnection, NamedGroup, ServerConnection};

use super::testing::{Ca, DOMAIN, Leaf, id, uri};
use super::*;

#[test]
fn an_identity_is_a_chain_with_one_spiffe_uri_and_its_key() {
    let ca = Ca::new();
    let identity = ca.identity("shop");
    assert_eq!(*identity.id(), id("shop"));
    assert_eq!(identity.chain().len(), 2);
    assert!(identity.not_before() < identity.not_after());
    assert!(!format!("{identity:?}").to_lowercase().contains("key"));
}

#[test]
fn what_is_not_an_svid_is_no_identity() {
    let ca = Ca::new();
    let mut dns_only = Leaf::uris(&[]);
    dns_only.sans = vec![SanType::DnsName("shop.default".try_into().unwrap())];
    // The name of a host that looks like an identity is the name of a host.
    let mut dns_like_spiffe = Leaf::uris(&[]);
    dns_like_spiffe.sans = vec![SanType::DnsName("spiffe://cluster.local/ns/default/sa/shop".try_into().unwrap())];
    let cases = [
        (Leaf::uris(&[]), "no URI SAN"),
        (dns_only, "no URI SAN"),
        (dns_like_spiffe, "no URI SAN"),
        (Leaf::uris(&[&uri("a"), &uri("b")]), "2 URI SANs"),
        (Leaf::uris(&[&uri("a"), &uri("a")]), "2 URI SANs"),
        (Leaf::uris(&["https://cluster.local/ns/default/sa/shop"]), "not a SPIFFE ID"),
        (Leaf::uris(&["spiffe://cluster.local/shop"]), "not a SPIFFE ID"),
        (Leaf::uris(&["spiffe://cluster.local/ns/default/sa/shop/"]), "not a SPIFFE ID"),
        (Leaf::uris(&["spiffe://cluster.local/ns/default/sa/shop?x=1"]), "not a SPIFFE ID"),
        (Leaf::uris(&["spiffe://user@cluster.local/ns/default/sa/shop"]), "not a SPIFFE ID"),
    ];
    for (leaf, expect) in cases {
        let (chain, key) = ca.chain(&leaf);
        let error = WorkloadIdentity::new(chain, key).unwrap_err().to_string();
        assert!(error.contains(expect), "{error:?} should say {expect:?}");
    }
}

#[test]
fn a_key_that_is_not_the_certificates_is_refused() {
    let ca = Ca::new();
    let (chain, _) = ca.chain(&Leaf::uris(&[&uri("a")]));
    let (_, key) = ca.chain(&Leaf::uris(&[&uri("a")]));
    assert!(matches!(WorkloadIdentity::new(chain, key), Err(IdentityError::Key(_))));
    let (_, key) = ca.chain(&Leaf::uris(&[&uri("a")]));
    assert!(matches!(WorkloadIdentity::new(Vec::new(), key), Err(IdentityError::NoCertificate)));
    assert!(matches!(WorkloadIdentity::from_pem("x", "y"), Err(IdentityError::Pem(_) | IdentityError::NoCertificate)));
}

#[test]
fn a_bundle_without_a_usable_root_is_refused() {
    let ca = Ca::new();
    assert!(matches!(Trust::from_pem(DOMAIN, ""), Err(TrustError::Empty)));
    assert!(matches!(Trust::from_pem(DOMAIN, "no PEM"), Err(TrustError::Empty)));
    let broken = ca.root_pem.replace("\nM", "\nN");
    assert!(Trust::from_pem(DOMAIN, &broken).is_err());
    let both = format!("{}{}", ca.root_pem, Ca::new().root_pem);
    assert_eq!(Trust::from_pem(DOMAIN, &both).unwrap().anchors(DOMAIN).len(), 2);
    assert!(ca.trust().anchors("other.domain").is_empty());
}

#[test]
fn a_handle_keeps_its_workload_for_life() {
    let ca = Ca::new();
    let handle = ca.handle("shop");
    assert_eq!(handle.current().generation, 0);
    handle.replace(ca.identity("shop"), ca.trust()).unwrap();
    assert_eq!(handle.current().generation, 1);
    let error = handle.replace(ca.identity("cart"), ca.trust()).unwrap_err();
    assert_eq!((error.held, error.offered), (uri("shop"), uri("cart")));
    assert_eq!((handle.id(), handle.current().generation), (id("shop"), 1));
    let identities = Identities::new([handle, ca.handle("cart")]);
    assert!(identities.of(&id("cart")).is_some());
    assert!(identities.of(&id("mail")).is_none());
}

#[test]
fn every_reason_has_a_word_and_a_place() {
    let mut words = std::collections::HashSet::new();
    for (place, reason) in HandshakeFailure::ALL.into_iter().enumerate() {
        assert_eq!(reason.index(), place);
        assert!(words.insert(reason.as_str()));
    }
}

#[test]
fn nothing_is_resumed_and_post_quantum_comes_first() {
    let ca = Ca::new();
    let server = server_config(&ca.handle("shop"));
    assert_eq!(server.send_tls13_tickets, 0);
    assert!(!server.session_storage.can_cache());
    assert_eq!(server.max_early_data_size, 0);
    let client = client_config(&ca.handle("cart"), &id("shop"));
    assert!(!client.enable_early_data && client.enable_sni);
    for provider in [server.crypto_provider(), client.crypto_provider()] {
        let groups: Vec<_> = provider.kx_groups.iter().map(|group| group.name()).collect();
        assert_eq!(groups, [rustls::NamedGroup::X25519MLKEM768, rustls::NamedGroup::X25519]);
        assert!(provider.cipher_suites.iter().all(|suite| suite.version() == &rustls::version::TLS13));
    }
}

/// Runs a TLS handshake between two configurations without a network; the errors of both ends, where there are any.
fn handshake(
    client: ClientConfig,
    server: &Arc<rustls::ServerConfig>,
) -> Result<(ClientConnection, ServerConnection), (HandshakeError, HandshakeError)> {
    let mut client = ClientConnection::new(Arc::new(client), "mesh.example".try_into().unwrap()).unwrap();
    let mut server = ServerConnection::new(server.clone()).unwrap();
    let told = |error: rustls::Error| HandshakeError::from_io(&std::io::Error::other(error));
    for _ in 0..4 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        server.read_tls(&mut bytes.as_slice()).unwrap();
        let ours = server.process_new_packets().err();
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        client.read_tls(&mut bytes.as_slice()).unwrap();
        let theirs = client.process_new_packets().err();
        if let (Some(ours), Some(theirs)) = (ours, theirs) {
            return Err((told(ours), told(theirs)));
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

#[test]
fn the_key_exchange_is_post_quantum_between_us() {
    let ca = Ca::new();
    let server = server_config(&ca.handle("shop"));
    let (client, server) = handshake(client_config(&ca.handle("cart"), &id("shop")), &server).unwrap();
    for group in [client.negotiated_key_exchange_group(), server.negotiated_key_exchange_group()] {
        assert_eq!(group.unwrap().name(), NamedGroup::X25519MLKEM768);
    }
    assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(client.tls13_tickets_received(), 0);
    assert_eq!(client.peer_certificates().unwrap().len(), 2);
}

#[test]
fn a_tls_stream_that_fails_says_why_too() {
    let (ca, stranger) = (Ca::new(), Ca::new());
    let server = server_config(&ca.handle("shop"));
    let outsider = IdentityHandle::new(stranger.identity("cart"), ca.trust());
    let (ours, theirs) = handshake(client_config(&outsider, &id("shop")), &server).unwrap_err();
    assert_eq!((ours.reason, ours.refused_by), (HandshakeFailure::Untrusted, RefusedBy::Us));
    assert_eq!((theirs.reason, theirs.refused_by), (HandshakeFailure::Untrusted, RefusedBy::Peer));

    let other_protocol = control_client_config(&ca.root_pem, Some(&ca.handle("cart"))).unwrap();
    let (ours, theirs) = handshake(other_protocol, &server).unwrap_err();
    assert_eq!((ours.reason, ours.refused_by), (HandshakeFailure::Alpn, RefusedBy::Us));
    assert_eq!((theirs.reason, theirs.refused_by), (HandshakeFailure::Alpn, RefusedBy::Peer));

    let error = HandshakeError::from_io(&std::io::ErrorKind::TimedOut.into());
    assert_eq!((error.reason, error.refused_by), (HandshakeFailure::Timeout, RefusedBy::Nobody));
}

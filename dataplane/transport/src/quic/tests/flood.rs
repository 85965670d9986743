//! Forged beginnings of handshakes, never continued, from as many addresses as the attacker likes: they take a bounded
//! number of slots, and whoever can be answered gets through.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::crypto::rustls::QuicClientConfig;
use quinn_proto::EndpointConfig;

use super::attack::{Offer, client_tls};
use super::{Callee, PATIENCE, dialer, on_a_worker};
use crate::tls::testing::{Ca, id};

const FORGED: usize = 2_500;
const SOURCES: u8 = 50;

/// The first datagram of a handshake, as any client sends it.
fn beginning(callee: SocketAddr) -> Vec<u8> {
    let mut endpoint = quinn_proto::Endpoint::new(Arc::new(EndpointConfig::default()), None, true, None);
    let tls = Arc::new(QuicClientConfig::try_from(client_tls(Offer::Nothing, &[b"h3"])).unwrap());
    let config = quinn::ClientConfig::new(tls);
    let (_, mut connection) = endpoint.connect(Instant::now(), config, callee, "shop.example").unwrap();
    let mut datagram = Vec::new();
    let transmit = connection.poll_transmit(Instant::now(), 1, &mut datagram).unwrap();
    datagram.truncate(transmit.size);
    datagram
}

#[test]
fn forged_handshakes_keep_nobody_out() {
    on_a_worker(async {
        let ca = Ca::new();
        let callee = Callee::new(&ca.handle("shop"));
        let address = callee.address;
        let beginnings: Vec<_> = (0..FORGED).map(|_| beginning(address)).collect();
        let flood = async {
            let sources: Vec<_> = (1..=SOURCES)
                .map(|last| std::net::UdpSocket::bind((Ipv4Addr::new(127, 1, 0, last), 0)).unwrap())
                .collect();
            for (at, datagram) in beginnings.iter().enumerate() {
                sources[at % sources.len()].send_to(datagram, address).unwrap();
                // A second for all of them.
                if at % 25 == 0 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        };
        let honest = async {
            let cart = ca.handle("cart");
            for _ in 0..20 {
                let connection = dialer().dial(&cart, &id("shop"), address, PATIENCE / 4).await.unwrap();
                assert_eq!(crate::tls::peer_identity(&connection).unwrap().id, id("shop"));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::join!(flood, honest);
        let stats = callee.server.stats();
        assert!(stats.retries() > 1_000, "{}", stats.retries());
        assert_eq!(stats.refused(), 0);
        // Half-open ones hold an unproven slot each, and connections that were made are dropped by their caller.
        assert!(callee.server.endpoint().open_connections() <= 128 + 20);
    });
}

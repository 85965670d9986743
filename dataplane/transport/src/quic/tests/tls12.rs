//! A caller that begins as a TLS 1.2 client would, were there one for QUIC: its ClientHello offers TLS 1.2 only. rustls writes
//! none, so what it writes is changed on its way into the Initial packet. The mesh's suite includes this file too.

use std::any::Any;
use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use quinn_proto::crypto::{ClientConfig, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, Session};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectError, ConnectionId, Side, TransportError};

pub(super) struct OldClient(pub(super) Arc<QuicClientConfig>);

impl ClientConfig for OldClient {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        Ok(Box::new(OldSession(self.0.clone().start_session(version, server_name, params)?)))
    }
}

struct OldSession(Box<dyn Session>);

/// The supported_versions extension of a ClientHello with TLS 1.3 alone, and the same with TLS 1.2.
const ONLY_TLS13: [u8; 7] = [0x00, 0x2b, 0x00, 0x03, 0x02, 0x03, 0x04];
const ONLY_TLS12: [u8; 7] = [0x00, 0x2b, 0x00, 0x03, 0x02, 0x03, 0x03];

impl Session for OldSession {
    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        let keys = self.0.write_handshake(buf);
        if let Some(at) = buf.windows(ONLY_TLS13.len()).position(|bytes| bytes == ONLY_TLS13) {
            buf[at..at + ONLY_TLS12.len()].copy_from_slice(&ONLY_TLS12);
        }
        keys
    }

    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.0.initial_keys(dst_cid, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.0.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.0.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.0.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.0.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.0.read_handshake(buf)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.0.transport_parameters()
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.0.next_1rtt_keys()
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.0.is_valid_retry(orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.0.export_keying_material(output, label, context)
    }
}

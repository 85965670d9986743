//! Every number of the QUIC layer, with its default and why. Windows bound memory: a reader that stalls holds one stream
//! window here and one at the sender, whatever the size of the body.

use std::sync::Arc;
use std::time::Duration;

use quinn::{TransportConfig, VarInt};

/// Bounds of one QUIC connection, both directions.
#[derive(Debug, Clone)]
pub struct TransportLimits {
    /// Bytes a peer may send on one stream before we read them. Default 1 MiB: 1 GB/s at 1 ms, 20 MB/s at 50 ms.
    pub stream_receive_window: u32,
    /// Bytes a peer may have unread over all streams. Default 32 MiB: 32 stalled readers before others feel them.
    pub connection_receive_window: u32,
    /// Bytes we keep for a peer that has not acknowledged them. Default 8 MiB.
    pub send_window: u32,
    /// Request streams a peer may have open at once. Default 1,000.
    pub concurrent_streams: u32,
    /// Unidirectional streams a peer may have open at once; HTTP/3 needs 3. Default 16.
    pub concurrent_unidirectional_streams: u32,
    /// Silence after which a callee gives a connection up. Default 30 s.
    pub callee_idle_timeout: Duration,
    /// Silence after which a caller gives a connection up; shorter than the callee's. Default 10 s.
    pub caller_idle_timeout: Duration,
    /// A caller's PING when nothing else is sent. Default 3 s: three may be lost.
    pub keep_alive_interval: Duration,
    /// An unfinished handshake is given up. Default 5 s.
    pub handshake_timeout: Duration,
    /// Handshakes a worker works on at once; more are refused. Default 1,024.
    pub concurrent_handshakes: usize,
    /// Before the first sample. Default 100 ms: a lost first packet is sent again after 300 ms.
    pub initial_rtt: Duration,
    /// Bytes of QUIC datagrams held for the application, each way. Default 256 KiB.
    pub datagram_buffer: usize,
}

impl Default for TransportLimits {
    fn default() -> Self {
        TransportLimits {
            stream_receive_window: 1024 * 1024,
            connection_receive_window: 32 * 1024 * 1024,
            send_window: 8 * 1024 * 1024,
            concurrent_streams: 1000,
            concurrent_unidirectional_streams: 16,
            callee_idle_timeout: Duration::from_secs(30),
            caller_idle_timeout: Duration::from_secs(10),
            keep_alive_interval: Duration::from_secs(3),
            handshake_timeout: Duration::from_secs(5),
            concurrent_handshakes: 1024,
            initial_rtt: Duration::from_millis(100),
            datagram_buffer: 256 * 1024,
        }
    }
}

impl TransportLimits {
    pub(super) fn callee(&self) -> Arc<TransportConfig> {
        let mut config = self.both_sides(self.callee_idle_timeout);
        config.max_concurrent_bidi_streams(VarInt::from_u32(self.concurrent_streams));
        Arc::new(config)
    }

    pub(super) fn caller(&self) -> Arc<TransportConfig> {
        let mut config = self.both_sides(self.caller_idle_timeout);
        config.keep_alive_interval(Some(self.keep_alive_interval));
        //= rfc9114#section-6.1
        //# Clients MUST treat receipt of a server-initiated bidirectional stream as a connection error
        config.max_concurrent_bidi_streams(VarInt::from_u32(0));
        Arc::new(config)
    }

    fn both_sides(&self, idle: Duration) -> TransportConfig {
        let idle = u32::try_from(idle.as_millis()).unwrap_or(u32::MAX);
        let mut config = TransportConfig::default();
        config
            .stream_receive_window(VarInt::from_u32(self.stream_receive_window))
            .receive_window(VarInt::from_u32(self.connection_receive_window))
            .send_window(u64::from(self.send_window))
            .max_concurrent_uni_streams(VarInt::from_u32(self.concurrent_unidirectional_streams))
            .max_idle_timeout(Some(VarInt::from_u32(idle).into()))
            .initial_rtt(self.initial_rtt)
            .datagram_receive_buffer_size(Some(self.datagram_buffer))
            .datagram_send_buffer_size(self.datagram_buffer)
            .enable_segmentation_offload(true)
            .allow_spin(false);
        config
    }
}

/// Bounds of one worker's pool.
#[derive(Debug, Clone)]
pub struct PoolLimits {
    /// Requests on one connection before another is dialled. Default 256; the callee admits 1,000.
    pub streams_per_connection: usize,
    /// Connections for one pair of workloads. Default 4; beyond it, requests wait for stream credit.
    pub connections_per_peer: usize,
    /// From the first packet to the callee's acceptance. Default 2 s.
    pub connect_timeout: Duration,
    /// An unused connection is closed. Default 60 s.
    pub idle_timeout: Duration,
    /// Requests outstanding, packets sent, nothing heard: new requests go to a new connection, whose dial tells whether
    /// the peer lives. Default 750 ms.
    pub suspect_after: Duration,
    /// How long that dial may take before the silent connection and its requests are given up. Default 600 ms.
    pub probe_timeout: Duration,
    /// After a failed dial the same error is answered at once; doubles from the first value to the second.
    /// Defaults 50 ms and 1 s.
    pub redial_backoff: (Duration, Duration),
    /// How often each connection is looked at: idleness, silence, trust. Default 250 ms.
    pub check_interval: Duration,
}

impl Default for PoolLimits {
    fn default() -> Self {
        PoolLimits {
            streams_per_connection: 256,
            connections_per_peer: 4,
            connect_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(60),
            suspect_after: Duration::from_millis(750),
            probe_timeout: Duration::from_millis(600),
            redial_backoff: (Duration::from_millis(50), Duration::from_secs(1)),
            check_interval: Duration::from_millis(250),
        }
    }
}

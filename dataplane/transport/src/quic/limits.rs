//! Every number of the QUIC layer, with its default and why. Windows bound memory: a reader that stalls holds one stream
//! window, whatever the size of the body, and never what the other streams of its connection live on.

use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::BbrConfig;
use quinn::{TransportConfig, VarInt};

/// Limits on the bytes that a peer may send before we read them. QUIC gives each stream of a connection the same
/// window, so peers that are far away get connections of their own with larger ones.
#[derive(Debug, Clone, Copy)]
pub struct WindowLimits {
    /// Bytes of one stream. Default 256 KiB: 256 MB/s at 1 ms.
    pub stream: u32,
    /// Bytes of one stream of a peer that is far away. Default 4 MiB: 40 MB/s at 100 ms.
    pub far_stream: u32,
    /// The round trip from which on a peer is far away. Default 8 ms: 256 KiB are 32 MB/s there.
    pub far_from: Duration,
    /// Bytes of a connection over all its streams. Default 256 MiB: as many near streams as a connection may have can stall
    /// without one of the others feeling it.
    pub connection: u32,
}

impl Default for WindowLimits {
    fn default() -> Self {
        WindowLimits {
            stream: 256 * 1024,
            far_stream: 4 * 1024 * 1024,
            far_from: Duration::from_millis(8),
            connection: 256 * 1024 * 1024,
        }
    }
}

/// How far away a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Distance {
    #[default]
    Near,
    Far,
}

impl WindowLimits {
    pub(super) fn distance(&self, connection: &quinn::Connection) -> Distance {
        if connection.min_rtt() >= self.far_from { Distance::Far } else { Distance::Near }
    }

    /// Streams that may all stall on one connection without one of the others feeling it, with an eighth to spare.
    pub(super) fn streams(&self, distance: Distance) -> usize {
        let whole = self.connection / self.of_stream(distance).max(1);
        usize::try_from(whole - whole / 8).unwrap_or(usize::MAX).max(1)
    }

    /// The window of a connection that carries so many streams: where there is nowhere else to put them it grows, so that none
    /// of them stalls the others.
    pub(super) fn of_connection(&self, distance: Distance, streams: usize) -> u32 {
        let streams = u32::try_from(streams).unwrap_or(u32::MAX).saturating_add(1);
        self.connection.max(self.of_stream(distance).saturating_mul(streams))
    }

    pub(super) fn of_stream(&self, distance: Distance) -> u32 {
        match distance {
            Distance::Near => self.stream,
            Distance::Far => self.far_stream,
        }
    }
}

/// One transport configuration for each distance.
#[derive(Debug, Clone)]
pub(super) struct ByDistance {
    near: Arc<TransportConfig>,
    far: Arc<TransportConfig>,
}

impl ByDistance {
    pub(super) fn of(&self, distance: Distance) -> &Arc<TransportConfig> {
        match distance {
            Distance::Near => &self.near,
            Distance::Far => &self.far,
        }
    }
}

/// How fast a sender goes on a path that loses packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Congestion {
    /// Takes each loss for a full queue (RFC 9438): fair to everything else on the path.
    #[default]
    Cubic,
    /// Measures the path's rate and takes single losses for noise: much faster where links lose packets by themselves. The
    /// QUIC library calls its version experimental.
    Bbr,
}

/// Bounds of one QUIC connection, both directions.
#[derive(Debug, Clone)]
pub struct TransportLimits {
    /// Limits on the bytes that a peer may send before we read them.
    pub windows: WindowLimits,
    /// Bytes we keep for a peer that has not acknowledged them. Default 8 MiB.
    pub send_window: u32,
    /// Request streams a peer may have open at once. Default 1,000.
    pub concurrent_streams: u32,
    /// Unidirectional streams a peer may have open at once; HTTP/3 needs 3. Default 16.
    pub concurrent_unidirectional_streams: u32,
    /// Silence after which either end gives a connection up. Default 60 s: links, hosts and processes that pause for less
    /// cost latency only.
    pub idle_timeout: Duration,
    /// A caller's PING when nothing else is sent. Default 3 s.
    pub keep_alive_interval: Duration,
    /// An unfinished handshake is given up. Default 5 s.
    pub handshake_timeout: Duration,
    /// Handshakes a worker works on at once; more are refused. Default 1,024.
    pub concurrent_handshakes: usize,
    /// Handshakes under way above which a caller must first prove its address (Retry), so that forged ones take no more
    /// slots. Default 128.
    pub unproven_handshakes: usize,
    /// Connections a worker holds for all peers; handshakes for more are refused. Default 8,192.
    pub peer_connections: usize,
    /// Connections and handshakes of one source address, per worker. Default 512.
    pub connections_per_source: usize,
    /// Connections of one identity, per worker. Default 2,048.
    pub connections_per_identity: usize,
    /// Of what this side sends. Default CUBIC.
    pub congestion: Congestion,
    /// Before the first sample. Default 100 ms: a lost first packet is sent again after 300 ms.
    pub initial_rtt: Duration,
}

impl Default for TransportLimits {
    fn default() -> Self {
        TransportLimits {
            windows: WindowLimits::default(),
            send_window: 8 * 1024 * 1024,
            concurrent_streams: 1000,
            concurrent_unidirectional_streams: 16,
            idle_timeout: Duration::from_secs(60),
            keep_alive_interval: Duration::from_secs(3),
            handshake_timeout: Duration::from_secs(5),
            concurrent_handshakes: 1024,
            unproven_handshakes: 128,
            peer_connections: 8192,
            connections_per_source: 512,
            connections_per_identity: 2048,
            congestion: Congestion::default(),
            initial_rtt: Duration::from_millis(100),
        }
    }
}

impl TransportLimits {
    pub(super) fn callee(&self) -> ByDistance {
        ByDistance { near: self.callee_at(Distance::Near), far: self.callee_at(Distance::Far) }
    }

    pub(super) fn caller(&self) -> ByDistance {
        ByDistance { near: self.caller_at(Distance::Near), far: self.caller_at(Distance::Far) }
    }

    fn callee_at(&self, distance: Distance) -> Arc<TransportConfig> {
        let mut config = self.both_sides(distance);
        config.max_concurrent_bidi_streams(VarInt::from_u32(self.concurrent_streams));
        Arc::new(config)
    }

    fn caller_at(&self, distance: Distance) -> Arc<TransportConfig> {
        let mut config = self.both_sides(distance);
        config.keep_alive_interval(Some(self.keep_alive_interval));
        //= rfc9114#section-6.1
        //# Clients MUST treat receipt of a server-initiated bidirectional stream as a connection error
        config.max_concurrent_bidi_streams(VarInt::from_u32(0));
        Arc::new(config)
    }

    fn both_sides(&self, distance: Distance) -> TransportConfig {
        let idle = u32::try_from(self.idle_timeout.as_millis()).unwrap_or(u32::MAX);
        let mut config = TransportConfig::default();
        config
            .stream_receive_window(VarInt::from_u32(self.windows.of_stream(distance)))
            .receive_window(VarInt::from_u32(self.windows.connection))
            .send_window(u64::from(self.send_window))
            .max_concurrent_uni_streams(VarInt::from_u32(self.concurrent_unidirectional_streams))
            .max_idle_timeout(Some(VarInt::from_u32(idle).into()))
            .initial_rtt(self.initial_rtt)
            // Nobody reads datagrams: a peer is told so, and one that comes all the same ends its connection (RFC 9221
            // section 3).
            .datagram_receive_buffer_size(None)
            .enable_segmentation_offload(true)
            .allow_spin(false);
        if self.congestion == Congestion::Bbr {
            config.congestion_controller_factory(Arc::new(BbrConfig::default()));
        }
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
    pub dial_timeout: Duration,
    /// An unused connection is closed. Default 60 s.
    pub idle_timeout: Duration,
    /// A connection that was sent something and is silent for this long is suspect: new requests go to another one, which
    /// is dialled beside it. Four round trips where that is longer. Default 750 ms.
    pub suspect_after: Duration,
    /// How long a request waits for a dial beside connections that stand: where they are silent before it goes to another
    /// endpoint, where they don't fit before it uses one of them. Four round trips where that is longer. Default 600 ms.
    pub elsewhere_after: Duration,
    /// How long a request that may go nowhere else waits for a peer that has fallen silent. Default 60 s, as long as its
    /// connections live.
    pub patience: Duration,
    /// A suspect connection is closed when a younger one to the same peer has lived for this long while what was sent on it
    /// stayed without an answer: the peer was started anew. Default 5 s.
    pub forgotten_after: Duration,
    /// After a failed dial the same error is answered at once; doubles from the first value to the second.
    /// Defaults 50 ms and 1 s.
    pub redial_backoff: (Duration, Duration),
    /// How long after a failed dial of the connection that fits a far peer it is dialled again, while others are in use.
    /// Default 10 s.
    pub refit_after: Duration,
    /// How often each connection is looked at: idleness, silence, trust. Default 250 ms.
    pub check_interval: Duration,
}

impl Default for PoolLimits {
    fn default() -> Self {
        PoolLimits {
            streams_per_connection: 256,
            connections_per_peer: 4,
            dial_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(60),
            suspect_after: Duration::from_millis(750),
            elsewhere_after: Duration::from_millis(600),
            patience: Duration::from_secs(60),
            forgotten_after: Duration::from_secs(5),
            redial_backoff: (Duration::from_millis(50), Duration::from_secs(1)),
            refit_after: Duration::from_secs(10),
            check_interval: Duration::from_millis(250),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowded_connection_has_room_for_all_to_stall() {
        let windows = WindowLimits::default();
        assert_eq!(windows.of_connection(Distance::Far, 56), windows.connection);
        assert_eq!(windows.of_connection(Distance::Far, 200), 201 * windows.far_stream);
        assert_eq!(windows.of_connection(Distance::Far, 5_000), u32::MAX);
    }

    #[test]
    fn stalled_streams_leave_room_for_others() {
        let windows = WindowLimits::default();
        for (distance, streams) in [(Distance::Near, 896), (Distance::Far, 56)] {
            assert_eq!(windows.streams(distance), streams);
            assert!(u64::from(windows.of_stream(distance)) * streams as u64 <= u64::from(windows.connection) * 7 / 8);
        }
    }
}

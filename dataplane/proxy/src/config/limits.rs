//! Limits of one proxy, each with its unit, default, bounds and meaning in one place: `docs/configuration.md` lists them all.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use weft_filter_host::{CacheLimits, CompileLimits};
use weft_policy::numbers::Bounds;
use weft_transport::http::{HttpLimits, MAX_FIELDS};

/// The longest wait for somebody else, in milliseconds.
const HOUR_MS: u64 = 3_600 * 1_000;

/// The longest idleness, in seconds: more than a year. A longer time is a mistake, and may be more than a clock holds.
const LONG_S: u64 = 400 * 24 * 3_600;

/// QUIC tells its idle timeout in milliseconds, of which the transport takes 32 bits.
const MAX_SILENCE_S: u64 = u32::MAX as u64 / 1_000;

/// A window below one frame of HTTP/2 or a few datagrams of QUIC only costs round trips.
const LEAST_WINDOW: u64 = 16 * 1_024;

/// The most that HTTP/2 can say.
//= rfc9113#section-6.9.1
const MAX_H2_WINDOW: u64 = (1 << 31) - 1;

/// A limit as it is set, with its bounds.
struct Bounded {
    key: &'static str,
    value: u64,
    least: u64,
    most: u64,
}

/// Numbers of the configuration; none is wider than 64 bits.
trait Number: Copy {
    fn wide(self) -> u64;
}

impl Number for u64 {
    fn wide(self) -> u64 {
        self
    }
}

impl Number for u32 {
    fn wide(self) -> u64 {
        self.into()
    }
}

impl Number for usize {
    fn wide(self) -> u64 {
        self as u64
    }
}

/// Each line is a key with its type, default, least and most.
macro_rules! limits {
    ($($(#[$meaning:meta])* $key:ident: $kind:ty = $default:expr, $least:expr, $most:expr;)*) => {
        /// Limits of one proxy; each has a metric that says when it is hit.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Limits { $($(#[$meaning])* pub $key: $kind,)* }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        }

        impl Limits {
            fn bounded(&self) -> impl Iterator<Item = Bounded> {
                [$(Bounded {
                    key: concat!("limits.", stringify!($key)),
                    value: self.$key.wide(),
                    least: $least,
                    most: $most,
                },)*].into_iter()
            }
        }
    };
}

limits! {
    /// Application connections per worker. Above: refused and counted.
    max_connections: usize = 16_384, 1, 1 << 20;
    /// Idle connections kept to the app, per worker and socket.
    app_idle_connections: usize = 256, 0, 1 << 16;
    /// How long an idle connection to the app is kept.
    app_idle_timeout_s: u64 = 55, 1, LONG_S;
    /// TCP connections to one app or one address outside the mesh, per worker, for all callers together, kept ones included,
    /// which give way where there is no other; at most half of a worker's part of the file descriptors. Above: 503 with
    /// flag `UO`.
    app_connections: usize = 8_192, 1, 1 << 20;
    /// Those in use by one caller: a peer's workload, or an application by its address; at most a quarter of a worker's part
    /// of the file descriptors.
    app_connections_per_caller: usize = 2_048, 1, 1 << 20;
    /// HTTP/2 connections to the app, per worker and socket. A further one is opened where the app's streams are used up.
    app_h2_connections: usize = 16, 1, 1_024;
    /// Per cent of an app's HTTP/2 streams that one caller may hold, of those that it holds and those that are free, on each
    /// worker: the rest is for others.
    app_streams_per_caller_percent: usize = 75, 1, 100;
    /// How long a request waits for a stream to the app once all connections are open and full, or its caller has its part.
    app_stream_wait_ms: u64 = 5_000, 1, HOUR_MS;
    /// How long the first bytes of an undeclared protocol may take before it is taken as server-first TCP.
    detect_timeout_ms: u64 = 200, 1, HOUR_MS;
    /// How long a connection may take until its first bytes tell the version of HTTP.
    first_bytes_timeout_s: u64 = 60, 1, HOUR_MS / 1_000;
    /// Bytes of a message head on each leg, the request line included; more is answered 431.
    http_head_bytes: usize = 64 * 1_024, 256, 16 << 20;
    /// Fields of a head and of a trailer section, at most 128; more is answered 431.
    http_fields: usize = MAX_FIELDS, 1, MAX_FIELDS as u64;
    /// Bytes of a request target; more is answered 414.
    http_target_bytes: usize = 16 * 1_024, 1, 16 << 20;
    /// Bytes of a trailer section.
    http_trailer_bytes: usize = 64 * 1_024, 0, 16 << 20;
    /// Bytes of chunk extensions in one message of HTTP/1; more is answered 413.
    http_chunk_extension_bytes: usize = 16 * 1_024, 0, 16 << 20;
    /// Interim answers before a final one; more is a broken answer.
    http_interim_answers: u32 = 32, 1, 1_024;
    /// From a head's first byte to its last; later is answered 408.
    http_head_timeout_ms: u64 = 10_000, 1, HOUR_MS;
    /// How long an application's connection may stay without a request.
    http_idle_timeout_s: u64 = 3_600, 1, LONG_S;
    /// An idle TCP tunnel is closed after this.
    tunnel_idle_timeout_s: u64 = 3_600, 1, LONG_S;
    /// A request body goes on after its answer is complete for as long as it moves at least this often.
    late_upload_idle_timeout_s: u64 = 60, 1, LONG_S;
    /// How long a client may take for an answer of the proxy's own. Later: it is reset and counted.
    own_answer_timeout_s: u64 = 30, 1, LONG_S;
    /// Bytes of a request body that are kept until its answer comes, so that what nobody processed, and what a rule asks for, can be sent again.
    replay_buffer_bytes: usize = 64 * 1_024, 0, 16 << 20;
    /// Copies of requests under way, per worker, which routes mirror. Above: they are not sent, and counted.
    mirrors: usize = 128, 0, 1 << 20;
    /// Bytes of a request body that wait to be sent with its copy. Above: the copy is cut and counted, the request goes on.
    mirror_buffer_bytes: usize = 1 << 20, 0, 1 << 30;
    /// Health checks of endpoints under way. Above: those that are due wait, and that is counted.
    health_checks: usize = 64, 1, 1 << 16;
    /// From a copy's start to the end of its answer. Later: it is given up and counted.
    mirror_timeout_ms: u64 = 15_000, 1, HOUR_MS;
    /// Bytes of bodies that the process may gather for filters which judge them whole, and of answers to callouts. Above: 503.
    filter_bodies: u64 = 64 << 20, 64 * 1_024, 1 << 40;
    /// Bytes that the process keeps for filters between calls: values of `kv`, token buckets, parts of messages. Above: values make
    /// room for each other, new keys share a bucket, a stream whose message is held fails; counted.
    filter_kept_bytes: u64 = 256 << 20, 1 << 20, 1 << 40;
    /// How long a body may take until it is gathered. Later: 408, or 504 where it is that of an answer.
    filter_body_timeout_ms: u64 = 30_000, 1, HOUR_MS;
    /// Requests under way that filters have sent to services (callouts), of the whole process; three quarters at most to one
    /// service. Above: the filter is told that there is no answer, and that is counted.
    filter_callouts: u64 = 1_000, 1, 1 << 20;
    /// Bytes that the process may hold for streams whose receivers take nothing, both directions and all protocols. Above:
    /// those that have stalled longest are reset and counted.
    stalled_bytes: u64 = 256 << 20, 1 << 20, 1 << 40;
    /// A stream that waits for its receiver for less has not stalled; one that takes less than all that is held in 8
    /// times as long falls behind and counts, too.
    stalled_after_ms: u64 = 1_000, 1, HOUR_MS;
    /// HTTP/2 with apps: bytes of one stream that may come before any are read.
    h2_stream_window_bytes: u32 = 128 * 1_024, LEAST_WINDOW, MAX_H2_WINDOW;
    /// The same for a whole connection with few streams; it grows with their number.
    h2_connection_window_bytes: u32 = 1 << 20, 65_535, MAX_H2_WINDOW;
    /// HTTP/2 with apps: small frames of one connection that may wait to be read, or as many as a stream's window has bytes,
    /// if that is more. Above: the connection is ended and counted.
    h2_unread_frames: u32 = 256 * 1_024, 1_024, MAX_H2_WINDOW;
    /// HTTP/2 with apps: bytes of one stream that may wait to be written.
    h2_send_buffer_bytes: usize = 64 * 1_024, LEAST_WINDOW, MAX_H2_WINDOW;
    /// HTTP/2 with apps: requests of one connection at once, those that an app sends and those that it is sent. A client waits,
    /// as it is told to.
    h2_concurrent_streams: u32 = 256, 1, 1 << 20;
    /// Mesh: bytes of one stream that a peer may send before any are read.
    quic_stream_window_bytes: u32 = 256 * 1_024, LEAST_WINDOW, 1 << 30;
    /// The same for peers that are far away, on connections of their own.
    quic_far_stream_window_bytes: u32 = 4 << 20, LEAST_WINDOW, 1 << 30;
    /// The round trip from which on a peer is far away.
    quic_far_from_ms: u64 = 8, 0, HOUR_MS;
    /// Mesh: bytes of one connection over all its streams. A connection gets no more requests than may all stall in it.
    quic_connection_window_bytes: u32 = 256 << 20, LEAST_WINDOW, MAX_H2_WINDOW;
    /// Mesh: bytes of one connection that are kept until its peer has acknowledged them.
    quic_send_window_bytes: u32 = 8 << 20, LEAST_WINDOW, MAX_H2_WINDOW;
    /// Times that a request is sent again to an app that refused it unprocessed.
    app_resends: u32 = 16, 0, 1_024;
    /// Endpoints that one request tries.
    endpoints_tried: usize = 16, 1, 1_024;
    /// Requests that may be sent again, per hundred that are sent to a service, by all workers together.
    retry_budget_percent: u64 = 20, 0, 1_000;
    /// Requests to a service that may be sent again each second where that is more, and so many at once.
    retry_budget_per_second: u64 = 3, 0, 1 << 20;
    /// Addresses of one name outside the mesh that are tried.
    outside_addresses: usize = 8, 1, 1_024;
    /// How long a stream that stands goes on while the authorization of a new configuration fails instead of deciding about
    /// it. Later: it ends and is counted.
    standing_undecided_ms: u64 = 15_000, 1, HOUR_MS;
    /// Names outside the mesh that are looked up at once, per worker; those under one domain (two labels) take half of what is
    /// free. A look-up goes on when nobody waits for it any more.
    name_lookups: usize = 16, 1, 512;
    /// How long a name waits until its look-up may begin.
    name_lookup_wait_ms: u64 = 5_000, 1, HOUR_MS;
    /// Names that wait to be looked up, per worker, and names of which it is remembered that they could not be. Above: refused.
    names_waiting: usize = 1_024, 1, 1 << 20;
    /// How long a name that could not be looked up is not asked for again.
    name_failure_ms: u64 = 1_000, 1, HOUR_MS;
    /// How long a first call waits until the control plane has told of its destination. Later: 503 with flag `NC`.
    first_call_wait_ms: u64 = 250, 1, HOUR_MS;
    /// Names and addresses that this proxy asks for and has no answer to yet, and those of which it knows that they are not
    /// there. Of the latter the oldest are forgotten.
    names_asked: usize = 4_096, 1, 1 << 16;
    /// A service that no app has used for so long is not held any longer.
    unused_after_s: u64 = 86_400, 1, LONG_S;
    /// Concurrent requests of one peer connection.
    max_streams_per_connection: u32 = 1_024, 1, 1 << 20;
    /// Connections of peers, per worker. Above: refused and counted.
    max_peer_connections: usize = 8_192, 1, 1 << 20;
    /// Connections of peers from one address, per worker.
    max_peer_connections_per_source: usize = 512, 1, 1 << 20;
    /// Connections of peers with one identity, per worker.
    max_peer_connections_per_identity: usize = 2_048, 1, 1 << 20;
    /// Mesh handshakes under way, per worker; an eighth of them for callers that have not proved their address.
    max_handshakes: usize = 1_024, 8, 1 << 20;
    /// Requests on one connection to a peer before another is dialled.
    peer_streams_per_connection: usize = 256, 1, 1 << 20;
    /// Connections to one peer, per worker; beyond them requests wait for a stream.
    peer_connections: usize = 4, 1, 1_024;
    /// How long they wait. Later: another endpoint, or 503 with flag `UO`.
    peer_stream_wait_ms: u64 = 5_000, 1, HOUR_MS;
    /// An unused connection to a peer is closed after this.
    peer_idle_timeout_s: u64 = 60, 1, LONG_S;
    /// How long a dial to a peer may take.
    peer_dial_timeout_ms: u64 = 2_000, 1, HOUR_MS;
    /// How long a peer's handshake may take.
    peer_handshake_timeout_ms: u64 = 5_000, 1, HOUR_MS;
    /// A connection to a peer that owes an answer for this long is suspect: new requests go to another one.
    peer_suspect_after_ms: u64 = 750, 10, HOUR_MS;
    /// How long a request that may go to another endpoint waits for a new connection to a peer that fell silent, and any
    /// request for one that fits a peer that is far away before it uses what there is.
    peer_elsewhere_after_ms: u64 = 600, 1, HOUR_MS;
    /// How long a silent connection, and what waits on it, is kept.
    peer_silence_s: u64 = 60, 4, MAX_SILENCE_S;
    /// A suspect connection is closed when a younger one to the same peer has lived for this long.
    peer_forgotten_after_ms: u64 = 5_000, 1, HOUR_MS;
    /// Metric series of a pair of workloads that nothing refers to any more are kept this long; 0 = for ever.
    metric_series_idle_s: u64 = 3_600, 0, LONG_S;
    /// Metric series of one worker; what comes after is counted under `overflow`.
    metric_series_per_worker: usize = 10_000, 1, 1 << 24;
    /// Source workloads told apart for one calling identity on one worker; further ones are `unknown`.
    metric_sources_per_identity: usize = 64, 0, 1 << 16;
    /// Pairs of source workload and served socket whose series one connection of a peer keeps at hand; for a further one the
    /// longest unused is looked up again when it comes back.
    metric_pairs_per_connection: usize = 64, 1, 1_024;
    /// Lines of the access log that may wait to be written; more are dropped and counted.
    access_log_queue_lines: usize = 8_192, 1, 1 << 24;
    /// Bytes of them.
    access_log_queue_bytes: usize = 16 << 20, 4_096, 1 << 32;
    /// Memory that compiling one filter may take: the address space of the child that does it.
    filter_compile_memory_bytes: u64 = 1 << 30, 128 << 20, 1 << 36;
    /// How long that may take, and how much time on processors.
    filter_compile_timeout_s: u64 = 180, 1, 3_600;
    /// Compiled filters on disk; what was used least lately goes for more.
    filter_cache_bytes: u64 = 512 << 20, 1 << 20, 1 << 40;
    /// Their number.
    filter_cache_entries: usize = 256, 1, 1 << 16;
    /// Open connections to the admin, metrics and health ports, each; the oldest is closed for a further one.
    side_connections: usize = 64, 1, 1 << 16;
    /// How long the head of a request to one of these ports may take.
    side_head_timeout_ms: u64 = 5_000, 1, HOUR_MS;
}

impl Limits {
    /// Limits that each HTTP codec keeps to.
    pub fn http(&self) -> HttpLimits {
        HttpLimits {
            head_bytes: self.http_head_bytes,
            fields: self.http_fields,
            target_bytes: self.http_target_bytes,
            trailer_bytes: self.http_trailer_bytes,
            chunk_extension_bytes: self.http_chunk_extension_bytes,
            interim_responses: self.http_interim_answers,
            head_timeout: Duration::from_millis(self.http_head_timeout_ms),
            idle_timeout: Duration::from_secs(self.http_idle_timeout_s),
            h2_stream_window: self.h2_stream_window_bytes,
            h2_connection_window: self.h2_connection_window_bytes,
            h2_unread_frames: self.h2_unread_frames,
            h2_send_buffer: self.h2_send_buffer_bytes,
            h2_concurrent_streams: self.h2_concurrent_streams,
        }
    }

    /// How filters are compiled: in a child, whose memory and time are not this process'.
    pub fn compiling(&self) -> CompileLimits {
        let time = Duration::from_secs(self.filter_compile_timeout_s);
        let memory_bytes = self.filter_compile_memory_bytes;
        CompileLimits { memory_bytes, processor: time, wall: time, ..CompileLimits::default() }
    }

    /// How many compiled filters are kept.
    pub fn compiled(&self) -> CacheLimits {
        CacheLimits { bytes: self.filter_cache_bytes, entries: self.filter_cache_entries }
    }

    /// Keys with their bounds.
    pub(super) fn bounds() -> impl Iterator<Item = Bounds<'static>> {
        Self::default().bounded().map(|it| (it.key, it.least..=it.most)).collect::<Vec<_>>().into_iter()
    }

    /// Every number that is out of its bounds, or fits another one badly: its key, and what is wrong.
    pub(super) fn faults(&self) -> Vec<String> {
        let out = |it: Bounded| fault(it.key, it.value, it.least, it.most);
        let mut faults: Vec<_> = self.bounded().filter_map(out).collect();
        let (near, far) = (self.quic_stream_window_bytes, self.quic_far_stream_window_bytes);
        for (key, larger, smaller_key, smaller) in [
            ("limits.quic_far_stream_window_bytes", far, "limits.quic_stream_window_bytes", near),
            (
                "limits.quic_connection_window_bytes",
                self.quic_connection_window_bytes,
                "limits.quic_far_stream_window_bytes",
                far,
            ),
        ] {
            if larger < smaller {
                faults.push(format!("{key}: must be at least {smaller_key}, which is {smaller}"));
            }
        }
        faults
    }
}

/// Says what is wrong with a number that is out of its bounds.
pub(super) fn fault(key: &str, value: u64, least: u64, most: u64) -> Option<String> {
    if value < least {
        return Some(format!("{key}: {value} must be at least {least}"));
    }
    (value > most).then(|| format!("{key}: {value} must be at most {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_within_their_bounds() {
        assert_eq!(Limits::default().faults(), Vec::<String>::new());
    }

    /// A time of 0 ends things before they begin, and one that no clock holds would end the process.
    #[test]
    fn no_time_is_0_or_longer_than_a_clock_holds() {
        for it in Limits::default().bounded() {
            let per_second = if it.key.ends_with("_ms") { 1_000 } else { 1 };
            let is_time = it.key.ends_with("_ms") || it.key.ends_with("_s");
            let means_something = ["limits.metric_series_idle_s", "limits.quic_far_from_ms"].contains(&it.key);
            assert!(!is_time || it.most / per_second <= LONG_S, "{}", it.key);
            assert!(!is_time || it.least > 0 || means_something, "{}", it.key);
            assert!(it.least <= it.value && it.value <= it.most && it.most <= 1 << 40, "{}", it.key);
        }
    }

    #[test]
    fn the_documentation_lists_each_with_its_default_and_bounds() {
        let page = include_str!("../../../../docs/configuration.md");
        for it in Limits::default().bounded() {
            let key = it.key.trim_start_matches("limits.");
            let row = format!("| `{key}` | {} | {} to {} |", it.value, it.least, it.most);
            assert!(page.contains(&row), "docs/configuration.md lacks {row}");
        }
    }
}

//! The account of one TCP connection: opened when it came, filled in as its destination is found, closed once, into
//! metrics and the access log. A connection that was refused has its line too.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::ledger::Ledger;
use crate::relay::{Progress, TunnelEnd};
use crate::reply::{Failure, Flag, Side};
use crate::snapshot::Current;
use crate::telemetry::access_log::{self, Connection};
use crate::telemetry::counters;
use crate::telemetry::series::{PairMetrics, TcpSeries};

/// Facts about a TCP connection, gathered while it is served.
pub struct ConnectionRecord {
    side: Side,
    /// Address that the connection came from.
    client: SocketAddr,
    start: Instant,
    /// Destination that the client meant to reach.
    authority: String,
    pub upstream: Option<String>,
    pub source: Option<String>,
    pub destination: Option<String>,
    /// Metrics of the pair of caller and destination; `None` until a destination was found.
    pub metrics: Option<Rc<PairMetrics>>,
    /// Metrics while bytes flow, and what has flowed.
    flow: Option<Flow>,
    flag: Flag,
    rule: Option<String>,
    reason: Option<String>,
}

/// The bytes of a connection that is open.
struct Flow {
    series: Arc<TcpSeries>,
    up: Progress,
    down: Progress,
}

impl ConnectionRecord {
    pub fn open(side: Side, client: SocketAddr, authority: String) -> Self {
        Self {
            side,
            client,
            start: Instant::now(),
            authority,
            upstream: None,
            source: None,
            destination: None,
            metrics: None,
            flow: None,
            flag: Flag::None,
            rule: None,
            reason: None,
        }
    }

    /// Counts the connection as open; gives what its two directions count into.
    pub fn flows(&mut self, ledger: &Ledger, snapshot: Option<&Current>) -> (&Progress, &Progress) {
        let pair = self.metrics.get_or_insert_with(|| ledger.unknown_pair(self.side, snapshot));
        let series = pair.tcp(Flag::None);
        series.opened.add(1);
        let (up, down) = (Progress::live(&series.received), Progress::live(&series.sent));
        let flow = self.flow.insert(Flow { series, up, down });
        (&flow.up, &flow.down)
    }

    /// Bytes that have flowed up and down so far.
    pub fn moved(&self) -> (u64, u64) {
        self.flow.as_ref().map_or((0, 0), |flow| (flow.up.bytes.get(), flow.down.bytes.get()))
    }

    /// Notes how its tunnel ended.
    pub fn ended(&mut self, end: TunnelEnd) {
        if let TunnelEnd::Stalled(stalled) = end {
            return self.failed(&Failure::Stalled(stalled));
        }
        self.reason = Some(end.as_str().to_owned());
    }

    /// Counts a connection that was refused.
    pub fn refused(mut self, ledger: &Ledger, snapshot: Option<&Current>, failure: &Failure) {
        self.failed(failure);
        self.close(ledger, snapshot);
    }

    /// Notes why it was refused, or cut.
    pub fn failed(&mut self, failure: &Failure) {
        let verdict = failure.verdict();
        counters::local_reply(self.side, &verdict);
        self.flag = if verdict.flag == Flag::Unauthorized { Flag::Deny } else { verdict.flag };
        self.rule = failure.rule().map(Cow::into_owned);
        self.reason = Some(failure.to_string());
        tracing::debug!(side = self.side.as_str(), destination = self.authority, error = %failure, "connection refused");
    }

    /// Counts the connection and writes its line.
    pub fn close(self, ledger: &Ledger, snapshot: Option<&Current>) {
        let moved = self.moved();
        match &self.flow {
            Some(flow) => flow.series.closed.add(1),
            None => {
                let pair = self.metrics.unwrap_or_else(|| ledger.unknown_pair(self.side, snapshot));
                let series = pair.tcp(self.flag);
                series.opened.add(1);
                series.closed.add(1);
            }
        }
        if !snapshot.is_some_and(|snapshot| snapshot.mesh.access_log) {
            return;
        }
        ledger.access_log.write(access_log::connection_line(&Connection {
            side: self.side,
            client: self.client,
            duration: self.start.elapsed(),
            authority: &self.authority,
            upstream: self.upstream.as_deref(),
            flags: self.flag.letters(),
            bytes_received: moved.0,
            bytes_sent: moved.1,
            source: self.source.as_deref(),
            destination: self.destination.as_deref(),
            rule: self.rule.as_deref(),
            reason: self.reason.as_deref(),
        }));
    }
}

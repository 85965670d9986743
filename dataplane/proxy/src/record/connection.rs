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
    /// How far it came, where it was refused or did not end by itself.
    stage: Option<&'static str>,
    rule: Option<String>,
    reason: Option<&'static str>,
    message: Option<String>,
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
            stage: None,
            rule: None,
            reason: None,
            message: None,
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
        self.reason = Some(end.as_str());
        self.stage = (end != TunnelEnd::Finished).then_some("relay");
        self.flag = match end {
            TunnelEnd::Finished => Flag::None,
            TunnelEnd::ClientLost => Flag::Downstream,
            TunnelEnd::ServerLost => Flag::UpstreamTermination,
            TunnelEnd::Idle => Flag::StreamIdle,
            TunnelEnd::Stalled(stalled) => return self.failed(&Failure::Stalled(stalled)),
            TunnelEnd::Cut(cut) => {
                counters::filter_reset(self.side, &cut.filter);
                return self.failed(&Failure::FilterCut(cut));
            }
        };
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
        self.stage = Some(verdict.stage);
        self.rule = failure.rule().map(Cow::into_owned);
        self.reason = Some(verdict.reason);
        self.message = Some(failure.to_string());
        tracing::debug!(side = self.side.as_str(), destination = self.authority, error = %failure, "connection refused");
    }

    /// Counts the connection and writes its line.
    pub fn close(mut self, ledger: &Ledger, snapshot: Option<&Current>) {
        match &self.flow {
            Some(flow) => flow.series.closed.add(1),
            None => {
                let pair = self.metrics.take().unwrap_or_else(|| ledger.unknown_pair(self.side, snapshot));
                let series = pair.tcp(self.flag);
                series.opened.add(1);
                series.closed.add(1);
            }
        }
        if snapshot.is_some_and(|snapshot| snapshot.mesh.access_log) {
            ledger.access_log.write(self.line());
        }
    }

    fn line(&self) -> String {
        let (bytes_received, bytes_sent) = self.moved();
        access_log::connection_line(&Connection {
            side: self.side,
            client: self.client,
            duration: self.start.elapsed(),
            authority: &self.authority,
            upstream: self.upstream.as_deref(),
            flags: self.flag.letters(),
            bytes_received,
            bytes_sent,
            source: self.source.as_deref(),
            destination: self.destination.as_deref(),
            stage: self.stage,
            rule: self.rule.as_deref(),
            reason: self.reason,
            message: self.message.as_deref(),
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};
    use weft_filter_host::ReplyCause;
    use weft_policy::bundle::TunnelRefusal;

    use super::*;
    use crate::reply::FilterReply;

    fn check(note: impl FnOnce(&mut ConnectionRecord), expect: [&str; 5]) {
        let mut record = ConnectionRecord::open(Side::Inbound, ([10, 0, 0, 1], 4_000).into(), "10.0.0.2:90".to_owned());
        note(&mut record);
        let line: serde_json::Value = serde_json::from_str(&record.line()).unwrap();
        let told =
            ["response_flags", "stage", "rule", "reason", "message"].map(|key| line[key].as_str().unwrap_or("-"));
        assert_eq!(told, expect);
    }

    /// The line of a connection says why it was refused or cut, or how it ended.
    #[test]
    fn a_line_tells_flags_stage_rule_and_reason() {
        let denied = Failure::Filter(Box::new(FilterReply {
            status: StatusCode::FORBIDDEN,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            filter: "authz".into(),
            cause: ReplyCause::Denied,
            rule: Some("shop/db#0".to_owned()),
            reason: "denied by rule".to_owned(),
            more: None,
        }));
        check(|record| record.failed(&denied), ["DENY", "filter", "shop/db#0", "authorization", "denied by rule"]);
        let changed = Failure::NoLongerAllowed("denied by rule".to_owned());
        let told = format!("{changed}");
        check(|record| record.failed(&changed), ["DENY", "filter", "-", "no_longer_allowed", &told]);
        let declared = Failure::TunnelForbidden(TunnelRefusal::Request { port: 90 });
        let told = format!("{declared}");
        check(|record| record.failed(&declared), ["DPE", "route", "-", "request_in_tunnel", &told]);
        check(|record| record.ended(TunnelEnd::Finished), ["-", "-", "-", "finished", "-"]);
        check(|record| record.ended(TunnelEnd::ClientLost), ["DC", "relay", "-", "client_lost", "-"]);
        check(|record| record.ended(TunnelEnd::ServerLost), ["UC", "relay", "-", "server_lost", "-"]);
        check(|record| record.ended(TunnelEnd::Idle), ["SI", "relay", "-", "idle_timeout", "-"]);
    }
}

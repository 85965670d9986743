//! A TCP tunnel between its two sides: raw bytes both ways.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;

use futures_util::future::{Either, select};
use weft_filter_host::Cut;
use weft_transport::http::SendBody;
use weft_transport::mesh::Code;

use super::upload::until_still;
use super::{Idle, Progress, PumpError, Source, pump};
use crate::stalls::Stalled;

/// How a tunnel ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelEnd {
    /// Both directions finished.
    Finished,
    /// The side that opened the tunnel broke it.
    ClientLost,
    /// The side it was opened to broke it.
    ServerLost,
    /// Nothing moved for the idle timeout.
    Idle,
    /// One of its directions stalled for too long.
    Stalled(Stalled),
    /// A filter that looks at its bytes ended it.
    Cut(Box<Cut>),
}

impl TunnelEnd {
    pub fn as_str(&self) -> &'static str {
        match self {
            TunnelEnd::Finished => "finished",
            TunnelEnd::ClientLost => "client_lost",
            TunnelEnd::ServerLost => "server_lost",
            TunnelEnd::Idle => "idle_timeout",
            TunnelEnd::Stalled(_) => "stalled",
            TunnelEnd::Cut(_) => "filter_reset",
        }
    }
}

/// Carries raw bytes both ways until both sides have finished (half-close is passed on), one breaks, or it idles out.
/// Bytes that a side sent before it left or broke arrive first. A cancelled tunnel has told nobody: see [`cut`].
pub async fn tunnel(
    client: (&mut Source<'_>, &mut SendBody<'_>),
    server: (&mut Source<'_>, &mut SendBody<'_>),
    (up, down): (&Progress, &Progress),
    idle: Idle<'_>,
) -> TunnelEnd {
    let (up_whole, down_whole) = (Cell::new(false), Cell::new(false));
    let end = {
        let both = async {
            let upload = pin!(whole(pump(client.0, server.1, up, idle.stalls), &up_whole));
            let download = pin!(whole(pump(server.0, client.1, down, idle.stalls), &down_whole));
            match select(upload, download).await {
                Either::Left((Ok(()), download)) => download.await.map_or_else(download_end, |()| TunnelEnd::Finished),
                Either::Right((Ok(()), upload)) => upload.await.map_or_else(upload_end, |()| TunnelEnd::Finished),
                // Whoever takes no more may have sent something before: that arrives first.
                Either::Left((Err(PumpError::Sink), rest)) => {
                    select(rest, pin!(until_still(|| down.bytes.get(), idle.late_upload))).await;
                    TunnelEnd::ServerLost
                }
                Either::Right((Err(PumpError::Sink), rest)) => {
                    select(rest, pin!(until_still(|| up.bytes.get(), idle.late_upload))).await;
                    TunnelEnd::ClientLost
                }
                Either::Left((Err(error), _)) => upload_end(error),
                Either::Right((Err(error), _)) => download_end(error),
            }
        };
        let still = until_still(|| up.bytes.get() + down.bytes.get(), idle.tunnel);
        match select(pin!(both), pin!(still)).await {
            Either::Left((end, _)) => end,
            Either::Right(((), _)) => TunnelEnd::Idle,
        }
    };
    if end != TunnelEnd::Finished {
        leave(client, down_whole.get());
        leave(server, up_whole.get());
    }
    end
}

/// Notes that all bytes of one direction and their end were written.
async fn whole(pumping: impl Future<Output = Result<(), PumpError>>, is_whole: &Cell<bool>) -> Result<(), PumpError> {
    let end = pumping.await;
    is_whole.set(end.is_ok());
    end
}

/// Leaves one side of a tunnel that the other has left. What was written whole still arrives, as it would from a program that
/// writes, closes and exits; a reset would overtake it.
fn leave(side: (&mut Source<'_>, &mut SendBody<'_>), is_whole: bool) {
    if is_whole { side.0.stop(Code::CONNECT_ERROR) } else { cut(side) }
}

/// Breaks one side of a tunnel.
pub fn cut((source, sink): (&mut Source<'_>, &mut SendBody<'_>)) {
    sink.reset(Code::CONNECT_ERROR);
    source.stop(Code::CONNECT_ERROR);
}

fn upload_end(error: PumpError) -> TunnelEnd {
    match error {
        PumpError::Source(_) => TunnelEnd::ClientLost,
        PumpError::Sink => TunnelEnd::ServerLost,
        PumpError::Stalled(stalled) => TunnelEnd::Stalled(stalled),
        PumpError::Cut(cut) => TunnelEnd::Cut(cut),
    }
}

fn download_end(error: PumpError) -> TunnelEnd {
    match error {
        PumpError::Source(_) => TunnelEnd::ServerLost,
        PumpError::Sink => TunnelEnd::ClientLost,
        PumpError::Stalled(stalled) => TunnelEnd::Stalled(stalled),
        PumpError::Cut(cut) => TunnelEnd::Cut(cut),
    }
}

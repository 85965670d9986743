//! Trailers that follow the head of a gRPC answer at once: they may have the answer discarded, as the head may.

use std::pin::pin;
use std::time::Duration;

use weft_transport::http::ResponseHead;

use super::{ExchangeError, Kept, Source, Upload};
use crate::trial::Again;

/// How long a head whose rule looks at trailers waits for what follows it. Not in the configuration: the trailers of an
/// error follow at once, and whoever streams is hardly held up.
const FOLLOWS: Duration = Duration::from_millis(20);

/// Whether the trailers that follow the head of a gRPC answer at once have it discarded.
pub(super) async fn trailers_discard(
    again: &dyn Again,
    kept: Option<&Kept>,
    (upload, head): (&mut Upload<'_>, &ResponseHead),
    answer: &mut Source<'_>,
) -> Result<bool, ExchangeError> {
    if !again.reads_trailers() || head.headers.contains_key("grpc-status") || answer.is_end() {
        return Ok(false);
    }
    let trailers = {
        let first = pin!(answer.only_trailers());
        upload.race(pin!(tokio::time::timeout(FOLLOWS, first))).await?.ok().flatten()
    };
    let Some(trailers) = trailers else { return Ok(false) };
    // The upload went on meanwhile.
    let is_whole = kept.is_none_or(Kept::is_whole);
    let discards = is_whole && again.discards(&ResponseHead { status: head.status, headers: trailers.clone() });
    if !discards {
        answer.give_back(trailers);
    }
    Ok(discards)
}

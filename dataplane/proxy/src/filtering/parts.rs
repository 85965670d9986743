//! The body of an answer that a filter gives part by part: a source like that of an app's answer. The filter is asked for a
//! part when the last one was taken.

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::unfold;
use weft_filter_host::{Chain, Cut, Event, Part, ReplyCause};

use super::Filtered;
use super::callouts::Waiting;
use crate::relay::Source;
use crate::reply::{Failure, FilterReply};

impl<'a> Filtered<'a> {
    /// The body of an answer that one of its filters has more of.
    pub fn answer_in_parts(&self, reply: &FilterReply) -> Option<Source<'a>> {
        let (by, filter) = (reply.more?, reply.filter.clone());
        // Whoever answers is of the chain that came last.
        let link = self.links.last()?;
        let (chain, stream) = (Chain::clone(&link.chain), link.stream);
        let (filters, asks_as) = (self.filters, self.asks_as);
        let parts = unfold(Some(Waiting::new(filters, asks_as)), move |waiting| {
            let (chain, filter) = (chain.clone(), filter.clone());
            async move {
                let mut waiting = waiting?;
                match next_part(&mut waiting, |event| {
                    filters.instances.borrow_mut().reply_part(&chain, stream, by, event)
                })
                .await
                {
                    Ok(part) => part.map(|part| (Ok(part), Some(waiting))),
                    Err(Unmade::Cut(cut)) => Some((Err(cut), None)),
                    Err(Unmade::Failed(failure)) => {
                        let reason = failure.to_string();
                        let cut = Cut { filter, reason, close: false, cause: ReplyCause::Failed };
                        Some((Err(Box::new(cut)), None))
                    }
                }
            }
        });
        let begun = futures_util::stream::iter((!reply.body.is_empty()).then(|| Ok(reply.body.clone())));
        Some(Source::made(begun.chain(parts).boxed_local()))
    }
}

/// Why there is no further part.
enum Unmade {
    /// The filter ended it, or failed.
    Cut(Box<Cut>),
    /// What it asked of services can't be asked.
    Failed(Failure),
}

/// Asks for the next part, and waits for what it is made of. `None`: the answer is complete.
async fn next_part(
    waiting: &mut Waiting<'_>,
    mut ask: impl FnMut(&Event) -> Result<Part, Box<Cut>>,
) -> Result<Option<Bytes>, Unmade> {
    let (mut event, mut goes_on) = (Event::Go, false);
    loop {
        // A part may be there at once, and whoever takes it want no more than the next: others have their turn in between.
        tokio::task::coop::consume_budget().await;
        match ask(&event).map_err(Unmade::Cut)? {
            Part::Bytes(chunk) => {
                waiting.end();
                if !chunk.after.is_zero() {
                    tokio::time::sleep(chunk.after).await;
                }
                return Ok(Some(chunk.bytes));
            }
            Part::End => return Ok(None),
            Part::Wait { calls, within } => {
                event = waiting.next(calls, within, goes_on).await.map_err(Unmade::Failed)?;
                goes_on = true;
            }
        }
    }
}

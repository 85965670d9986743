//! The filters of a request over its answer, whoever gave it: those of the rule that it took first, then the workload's, each
//! chain in reverse and only as far as the request came in it. They run once over an answer that is sent.

use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_LENGTH;
use weft_filter_host::{Event, Outcome, Position, ResponseView};
use weft_transport::http::{ResponseHead, StreamError};

use super::callouts::Waiting;
use super::judging::{announced, whole_within};
use super::{Filtered, Link};
use crate::relay::{Gathering, Source, Ungathered};
use crate::reply::Failure;
use crate::telemetry::counters::Limited;

/// Why an answer could not be judged. Nothing of it was sent.
#[derive(Debug)]
pub enum Unjudged {
    /// A filter ended the exchange, or can't be given what it judges by.
    Ended(Failure),
    /// The answer broke off.
    Broken(StreamError),
}

impl From<Failure> for Unjudged {
    fn from(failure: Failure) -> Self {
        Unjudged::Ended(failure)
    }
}

/// The body of an answer while its head is judged.
enum Content<'c, 'b> {
    Streamed(&'c mut Source<'b>),
    /// It was made here.
    Own(Bytes),
}

impl Filtered<'_> {
    /// True where a filter looks at the head of the answer. False once it has.
    pub fn judges_answers(&self) -> bool {
        !self.is_answered && self.links.iter().any(|link| link.chain.hooks().response_head)
    }

    /// Runs the response hooks over an answer that came. A filter that answers here replaces the head; its body, given back,
    /// comes instead of what `source` has.
    ///
    /// # Errors
    /// A filter ended the exchange, or the answer could not be gathered for one.
    pub async fn response(
        &mut self,
        head: &mut ResponseHead,
        source: &mut Source<'_>,
    ) -> Result<Option<Bytes>, Unjudged> {
        match self.over(head, Content::Streamed(source)).await? {
            Content::Streamed(_) => Ok(None),
            Content::Own(body) => Ok(Some(body)),
        }
    }

    /// Runs them over an answer that this proxy made itself.
    ///
    /// # Errors
    /// A filter ended the exchange.
    pub async fn own_answer(&mut self, head: &mut ResponseHead, body: &mut Bytes) -> Result<(), Failure> {
        let content = Content::Own(std::mem::take(body));
        match self.over(head, content).await {
            Ok(Content::Own(left)) => *body = left,
            Ok(Content::Streamed(_)) | Err(Unjudged::Broken(_)) => {}
            Err(Unjudged::Ended(failure)) => return Err(failure),
        }
        Ok(())
    }

    async fn over<'c, 'b>(
        &mut self,
        head: &mut ResponseHead,
        mut content: Content<'c, 'b>,
    ) -> Result<Content<'c, 'b>, Unjudged> {
        for link in self.links.iter().rev().filter(|link| link.chain.hooks().response_head) {
            content = self.through(link, head, content).await?;
        }
        // An answer that was not judged to its end is not sent. What comes instead is judged anew.
        self.is_answered = true;
        self.status = head.status.as_u16();
        Ok(content)
    }

    async fn through<'c, 'b>(
        &self,
        link: &Link<'_>,
        head: &mut ResponseHead,
        mut content: Content<'c, 'b>,
    ) -> Result<Content<'c, 'b>, Unjudged> {
        let mut waiting = Waiting::new(self.filters, self.asks_as);
        let mut body = match &content {
            Content::Streamed(_) => None,
            Content::Own(own) => Some(own.clone()),
        };
        let (mut from, mut event) = (Position::START, Event::Go);
        loop {
            let outcome = {
                let mut view = ResponseView { status: &mut head.status, headers: &mut head.headers, body: &mut body };
                self.filters.instances.borrow_mut().response_head(&link.chain, from, event, link.stream, &mut view)
            };
            (event, from) = match outcome {
                Outcome::Permitted(()) => {
                    if let Some(body) = body {
                        content = content.send_as(body, head);
                    }
                    return Ok(content);
                }
                Outcome::Delay { after, resume } => {
                    waiting.end();
                    tokio::time::sleep(after).await;
                    (Event::Go, resume)
                }
                Outcome::Body { most, resume } => {
                    waiting.end();
                    (self.gather(most, &mut body, head, &mut content).await?, resume)
                }
                Outcome::Wait { calls, within, resume } => (waiting.next(calls, within, resume == from).await?, resume),
                Outcome::Respond(reply) => {
                    waiting.end();
                    head.status = reply.status;
                    head.headers = reply.headers;
                    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(reply.body.len()));
                    (body, content) = (Some(reply.body.clone()), Content::Own(reply.body));
                    // It passes the filters before this one, as any answer does.
                    (Event::Go, Position::START)
                }
                Outcome::Reset(cut) => return Err(Failure::FilterCut(cut).into()),
            };
        }
    }

    async fn gather(
        &self,
        most: usize,
        body: &mut Option<Bytes>,
        head: &ResponseHead,
        content: &mut Content<'_, '_>,
    ) -> Result<Event, Unjudged> {
        if let Some(known) = body {
            return Ok(whole_within(known.len(), most));
        }
        let Content::Streamed(source) = content else { return Ok(Event::TooLong) };
        // The length in an answer to HEAD is of a body that does not come.
        if !source.is_end() && announced(&head.headers).is_some_and(|length| length > most as u64) {
            return Ok(Event::TooLong);
        }
        let bodies = &self.filters.bodies;
        let room = || bodies.budget.part(self.caller.as_deref().unwrap_or_default());
        match tokio::time::timeout(bodies.wait, source.gather(most, room)).await {
            Ok(Ok(Gathering::Whole(whole))) => {
                *body = Some(whole);
                Ok(Event::Body)
            }
            Ok(Ok(Gathering::TooLong)) => Ok(Event::TooLong),
            Ok(Err(Ungathered::Broken(error))) => Err(Unjudged::Broken(error)),
            Ok(Err(Ungathered::NoRoom)) => {
                Limited::FilterBodies.hit();
                Err(Failure::FilterBodies.into())
            }
            Err(_) => {
                Limited::FilterBodyTimeout.hit();
                Err(Failure::Timeout(u64::try_from(bodies.wait.as_millis()).unwrap_or(u64::MAX)).into())
            }
        }
    }
}

impl Content<'_, '_> {
    /// The same with `body` in its place.
    fn send_as(self, body: Bytes, head: &mut ResponseHead) -> Self {
        match self {
            Content::Streamed(source) => {
                source.send_as(body, &mut head.headers);
                Content::Streamed(source)
            }
            Content::Own(own) => {
                if own != body && head.headers.contains_key(CONTENT_LENGTH) {
                    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
                }
                Content::Own(body)
            }
        }
    }
}

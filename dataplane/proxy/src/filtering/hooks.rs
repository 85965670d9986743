//! The chunk hooks of a stream's filters, as the stage that its bodies pass. Only streams whose filters asked for chunks have
//! one: the others pay nothing.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use smallvec::SmallVec;
use weft_filter_host::{Chain, Chunk, Cut, Hooks};
use weft_policy::bundle::FilterMode;
use weft_transport::http::RequestHead;

use super::{Filtered, Instances};
use crate::relay::{Source, Stage};

/// Which bytes of a stream they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Request,
    Response,
    /// Bytes of a connection, from its client or to it.
    Stream {
        up: bool,
    },
}

/// The chains that look at one body, in the order in which they do.
struct Looking {
    instances: Instances,
    links: SmallVec<[(Chain, u64); 1]>,
    way: Way,
}

impl Way {
    fn looks_at_data(self, hooks: Hooks) -> bool {
        match self {
            Way::Request => hooks.request_body,
            Way::Response => hooks.response_body,
            Way::Stream { .. } => hooks.stream_data,
        }
    }

    fn looks_at_trailers(self, hooks: Hooks) -> bool {
        match self {
            Way::Request => hooks.request_trailers,
            Way::Response => hooks.response_trailers,
            Way::Stream { .. } => false,
        }
    }
}

impl Filtered<'_> {
    /// Has the filters that asked for chunks look at the body of the request. Before its first attempt: what they make of it is
    /// what each attempt sends. Where they may change it, nobody is told its length. What follows an upgrade is no body.
    pub fn look_at_request(&self, body: &mut Source<'_>, head: &mut RequestHead) {
        if head.protocol.is_none() && !body.is_end() && self.look(Way::Request, body) {
            head.headers.remove(CONTENT_LENGTH);
        }
    }

    /// The same with the body of its answer. True where they may change it.
    pub fn look_at_answer(&self, body: &mut Source<'_>) -> bool {
        self.look(Way::Response, body)
    }

    /// The same with both directions of a connection.
    pub fn look_at_stream(&self, up: &mut Source<'_>, down: &mut Source<'_>) {
        self.look(Way::Stream { up: true }, up);
        self.look(Way::Stream { up: false }, down);
    }

    /// True where what is looked at may be changed.
    fn look(&self, way: Way, body: &mut Source<'_>) -> bool {
        let looks = |hooks: Hooks| way.looks_at_data(hooks) || way.looks_at_trailers(hooks);
        if !self.links.iter().any(|link| looks(link.chain.hooks())) {
            return false;
        }
        let link = |link: &super::Link<'_>| (Chain::clone(&link.chain), link.stream);
        let looking = self.links.iter().filter(|link| looks(link.chain.hooks()));
        let mut links: SmallVec<[(Chain, u64); 1]> = looking.map(link).collect();
        if way != Way::Request && way != (Way::Stream { up: true }) {
            links.reverse();
        }
        let changes = |(chain, _): &(Chain, u64)| {
            way.looks_at_data(chain.hooks())
                && chain.filters().iter().any(|filter| filter.spec().mode == FilterMode::Enforce)
        };
        let may_change = links.iter().any(changes);
        let instances = Instances::clone(&self.filters.instances);
        body.through(Box::new(Looking { instances, links, way }));
        may_change
    }
}

impl Stage for Looking {
    fn data(&mut self, data: Bytes, end: bool) -> Result<Chunk, Box<Cut>> {
        let mut passed = Chunk { bytes: data, after: Duration::ZERO };
        for (chain, stream) in self.links.iter().filter(|(chain, _)| self.way.looks_at_data(chain.hooks())) {
            let mut worker = self.instances.borrow_mut();
            let Chunk { bytes, after } = match self.way {
                Way::Request => worker.request_chunk(chain, *stream, passed.bytes, end)?,
                Way::Response => worker.response_chunk(chain, *stream, passed.bytes, end)?,
                Way::Stream { up } => worker.stream_chunk(chain, *stream, up, passed.bytes, end)?,
            };
            passed = Chunk { bytes, after: passed.after.saturating_add(after) };
        }
        Ok(passed)
    }

    fn trailers(&mut self, trailers: &mut HeaderMap) -> Result<(), Box<Cut>> {
        for (chain, stream) in self.links.iter().filter(|(chain, _)| self.way.looks_at_trailers(chain.hooks())) {
            let mut worker = self.instances.borrow_mut();
            match self.way {
                Way::Request => worker.request_trailers(chain, *stream, trailers)?,
                Way::Response => worker.response_trailers(chain, *stream, trailers)?,
                Way::Stream { .. } => {}
            }
        }
        Ok(())
    }
}

//! Short ways to say what a filter wants.

use std::time::Duration;

use crate::bindings::weft::filter::types::{Edit, Field, Outcome, Reply, Verdict};

impl Outcome {
    fn of(verdict: Verdict) -> Self {
        Self { verdict, edits: Vec::new(), cookie: None }
    }

    /// The stream goes on, with the edits that follow.
    pub fn pass() -> Self {
        Self::of(Verdict::Continue)
    }

    /// The stream goes on after a while.
    pub fn pass_after(delay: Duration) -> Self {
        Self::of(Verdict::ContinueAfter(millis(delay)))
    }

    /// The stream is held: for the answers to the callouts that were sent, and for `tick` once so much time has passed.
    pub fn wait(most: Duration) -> Self {
        Self::of(Verdict::Wait(millis(most)))
    }

    /// The stream is answered.
    pub fn respond(reply: Reply) -> Self {
        Self::of(Verdict::Respond(reply))
    }

    /// The stream is reset. The reason is a short word for metrics and logs.
    pub fn reset(reason: impl Into<String>) -> Self {
        Self::of(Verdict::Reset(reason.into()))
    }

    /// The stream is reset and the caller's connection not used again.
    pub fn close(reason: impl Into<String>) -> Self {
        Self::of(Verdict::Close(reason.into()))
    }

    /// Replaces all fields of a name.
    pub fn set_header(self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.edit(Edit::Set(Field { name: name.into(), value: value.into() }))
    }

    pub fn add_header(self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.edit(Edit::Add(Field { name: name.into(), value: value.into() }))
    }

    pub fn remove_header(self, name: impl Into<String>) -> Self {
        self.edit(Edit::Remove(name.into()))
    }

    /// Sends the request to another path, with or without a query.
    pub fn set_path(self, path: impl Into<String>) -> Self {
        self.edit(Edit::Path(path.into()))
    }

    pub fn set_authority(self, authority: impl Into<String>) -> Self {
        self.edit(Edit::Authority(authority.into()))
    }

    /// Replaces the status of an answer.
    pub fn set_status(self, status: u16) -> Self {
        self.edit(Edit::Status(status))
    }

    /// Replaces the chunk or the whole body at hand. One that is to stay as it is needs no edit.
    pub fn set_body(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.edit(Edit::Body(bytes.into()))
    }

    /// The next part of an answer that the filter streams.
    pub fn part(bytes: impl Into<Vec<u8>>) -> Self {
        Self::pass().set_body(bytes)
    }

    /// The same, held back for a while.
    pub fn part_after(delay: Duration, bytes: impl Into<Vec<u8>>) -> Self {
        Self::pass_after(delay).set_body(bytes)
    }

    /// Cuts the chunk or the whole body at hand.
    pub fn cut_body(self) -> Self {
        self.set_body(Vec::new())
    }

    /// Tells the filters behind this one and the access log; the name starts with `filter.`.
    pub fn set_attribute(self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.edit(Edit::Attribute(Field { name: name.into(), value: value.into() }))
    }

    /// Any edit, behind those that are there.
    pub fn edit(mut self, edit: Edit) -> Self {
        self.edits.push(edit);
        self
    }
}

impl Reply {
    /// A plain-text answer. `reason` is the short word that metrics and logs carry.
    pub fn text(status: u16, reason: &str, body: &str) -> Self {
        Self::new(status, reason, body).header("content-type", "text/plain")
    }

    /// An answer without headers.
    pub fn new(status: u16, reason: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), rule: None, reason: reason.to_owned(), after_ms: 0 }
    }

    /// Names the rule that decided.
    pub fn rule(mut self, rule: impl Into<String>) -> Self {
        self.rule = Some(rule.into());
        self
    }

    /// Adds a header; an answer has one `content-type`, which is replaced.
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        if name.eq_ignore_ascii_case("content-type") {
            self.headers.retain(|field| !field.name.eq_ignore_ascii_case(name));
        }
        self.headers.push(Field { name: name.to_owned(), value: value.into() });
        self
    }

    /// Holds the answer back for a while.
    pub fn after(mut self, delay: Duration) -> Self {
        self.after_ms = millis(delay);
        self
    }
}

pub(crate) fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

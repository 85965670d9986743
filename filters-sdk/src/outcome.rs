//! Short ways to say what a filter wants.

use std::time::Duration;

use crate::bindings::weft::filter::types::{Edit, Field, Hooks, Interest, Outcome, Reply, Verdict, Wants};

impl Default for Interest {
    /// No hook, nothing to see.
    fn default() -> Self {
        Self { hooks: Hooks::empty(), wants: Wants::empty(), request_headers: Vec::new(), response_headers: Vec::new() }
    }
}

impl Interest {
    /// Asks to see a request header; the name in lower case.
    pub fn request_header(mut self, name: impl Into<String>) -> Self {
        self.request_headers.push(name.into());
        self
    }

    /// Asks to see a response header; the name in lower case.
    pub fn response_header(mut self, name: impl Into<String>) -> Self {
        self.response_headers.push(name.into());
        self
    }
}

impl Outcome {
    /// The stream goes on unchanged.
    pub fn pass() -> Self {
        Self { verdict: Verdict::Continue, edits: Vec::new() }
    }

    /// The stream goes on after a while.
    pub fn pass_after(delay: Duration) -> Self {
        Self { verdict: Verdict::ContinueAfter(millis(delay)), edits: Vec::new() }
    }

    /// The stream is answered.
    pub fn respond(reply: Reply) -> Self {
        Self { verdict: Verdict::Respond(reply), edits: Vec::new() }
    }

    /// Replaces all fields of a name.
    pub fn set_header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.edits.push(Edit::Set(Field { name: name.into(), value: value.into() }));
        self
    }

    pub fn add_header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.edits.push(Edit::Add(Field { name: name.into(), value: value.into() }));
        self
    }

    pub fn remove_header(mut self, name: impl Into<String>) -> Self {
        self.edits.push(Edit::Remove(name.into()));
        self
    }

    /// Sends the request to another path, with or without a query.
    pub fn set_path(mut self, path: impl Into<String>) -> Self {
        self.edits.push(Edit::Path(path.into()));
        self
    }
}

impl Reply {
    /// A plain-text answer. `reason` is the short word that metrics and logs carry.
    pub fn text(status: u16, reason: &str, body: &str) -> Self {
        let plain = Field { name: "content-type".to_owned(), value: b"text/plain".to_vec() };
        Self {
            status,
            headers: vec![plain],
            body: body.as_bytes().to_vec(),
            rule: None,
            reason: reason.to_owned(),
            after_ms: 0,
        }
    }

    /// Names the rule that decided.
    pub fn rule(mut self, rule: impl Into<String>) -> Self {
        self.rule = Some(rule.into());
        self
    }

    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push(Field { name: name.to_owned(), value: value.into() });
        self
    }

    /// Holds the answer back for a while.
    pub fn after(mut self, delay: Duration) -> Self {
        self.after_ms = millis(delay);
        self
    }
}

fn millis(delay: Duration) -> u32 {
    u32::try_from(delay.as_millis()).unwrap_or(u32::MAX)
}

//! What the host refuses of an outcome, so that a test fails where a request would.

use crate::bindings::weft::filter::types::{Edit, Outcome, Reply, Verdict};
use crate::rules;

/// What may be changed where the filter was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AtHand {
    pub(super) headers: bool,
    /// Path and authority.
    pub(super) target: bool,
    pub(super) status: bool,
    pub(super) body: bool,
    /// The stream may be held.
    pub(super) waits: bool,
    /// It may be answered.
    pub(super) answers: bool,
}

impl AtHand {
    /// `whole`: the hook is given a whole body, and the head is still at hand.
    pub(super) fn of(hook: &str, whole: bool) -> Self {
        let (is_body, is_request) =
            (matches!(hook, "request-body" | "response-body"), matches!(hook, "request-head" | "request-body"));
        let is_response = matches!(hook, "response-head" | "response-body");
        let is_part = hook == "reply-body";
        let head = (!is_body || whole) && !is_part;
        Self {
            headers: head && !matches!(hook, "connection" | "stream-data"),
            target: head && is_request,
            status: head && is_response,
            body: is_body || is_part || hook == "stream-data",
            answers: !is_part,
            waits: (head && (is_request || is_response)) || is_part || hook == "connection",
        }
    }
}

pub(super) fn outcome(outcome: &Outcome, at_hand: AtHand) -> Result<(), String> {
    if !at_hand.answers {
        part(outcome)?;
    }
    if outcome.cookie.as_ref().is_some_and(|cookie| cookie.len() > rules::COOKIE) {
        return Err(format!("the state of a stream has at most {} bytes", rules::COOKIE));
    }
    match &outcome.verdict {
        Verdict::Continue | Verdict::ContinueAfter(_) | Verdict::Reset(_) | Verdict::Close(_) => {}
        Verdict::Wait(_) if !at_hand.waits => return Err("nothing can wait at this hook".to_owned()),
        Verdict::Wait(most) if *most > rules::WAIT_MS => {
            return Err(format!("a wait of {most} ms, at most {}", rules::WAIT_MS));
        }
        Verdict::Wait(_) => {}
        Verdict::Respond(_) if !at_hand.answers => return Err("an answer in the middle of one".to_owned()),
        Verdict::Respond(reply) => self::reply(reply)?,
        Verdict::Other(field) => return Err(format!("{:?} is no verdict", field.name)),
    }
    if outcome.edits.len() > rules::EDITS {
        return Err(format!("{} edits, at most {}", outcome.edits.len(), rules::EDITS));
    }
    let judged = outcome.edits.iter().enumerate().map(|(at, it)| (at, edit(it, at_hand)));
    for (at, judged) in judged {
        judged.map_err(|what| format!("edit {at}: {what}"))?;
    }
    Ok(())
}

/// A part of an answer, or its end.
fn part(outcome: &Outcome) -> Result<(), String> {
    let bytes =
        outcome.edits.iter().rev().find_map(|edit| if let Edit::Body(it) = edit { Some(it.len()) } else { None });
    match (&outcome.verdict, bytes) {
        (Verdict::Continue | Verdict::ContinueAfter(_), Some(0)) => Err("a part without a byte".to_owned()),
        (Verdict::ContinueAfter(1..), None) => Err("a delay without a part".to_owned()),
        _ => Ok(()),
    }
}

fn edit(edit: &Edit, at_hand: AtHand) -> Result<(), String> {
    let is_at_hand = match edit {
        Edit::Set(_) | Edit::Add(_) | Edit::Remove(_) => at_hand.headers,
        Edit::Path(_) | Edit::Authority(_) => at_hand.target,
        Edit::Status(_) => at_hand.status,
        Edit::Body(_) => at_hand.body,
        Edit::Attribute(_) => true,
        Edit::Other(field) => return Err(format!("{:?} is no edit", field.name)),
    };
    if !is_at_hand {
        return Err(format!("{edit:?} changes what is not at hand"));
    }
    match edit {
        Edit::Set(field) | Edit::Add(field) => {
            rules::header_name(&field.name)?;
            rules::header_value(&field.value)
        }
        Edit::Remove(name) => rules::header_name(name),
        Edit::Path(path) => rules::path(path),
        Edit::Authority(authority) => {
            let is_sound = !authority.is_empty() && authority.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
            if is_sound { Ok(()) } else { Err(format!("{authority:?} is no authority")) }
        }
        Edit::Status(status) => rules::status(*status),
        Edit::Attribute(field) if field.value.len() > rules::VALUE => {
            Err(format!("an attribute's value has at most {} bytes", rules::VALUE))
        }
        Edit::Attribute(field) => rules::attribute_name(&field.name),
        Edit::Body(_) | Edit::Other(_) => Ok(()),
    }
}

fn reply(reply: &Reply) -> Result<(), String> {
    rules::status(reply.status)?;
    if reply.body.len() > rules::REPLY_BODY {
        return Err(format!("the body of a reply has at most {} bytes", rules::REPLY_BODY));
    }
    if reply.headers.len() > rules::EDITS {
        return Err(format!("{} headers of a reply, at most {}", reply.headers.len(), rules::EDITS));
    }
    for field in &reply.headers {
        rules::header_name(&field.name)?;
        rules::header_value(&field.value)?;
    }
    Ok(())
}

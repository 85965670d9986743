//! As the interface `callouts`: what is sent is kept for the test, which answers.

use super::HOST;
use crate::bindings::weft::filter::callouts::Request;
use crate::bindings::weft::filter::types::Error;
use crate::rules;

/// Callouts of one wait.
const CALLOUTS: usize = 4;
const ANSWER: u32 = 1 << 20;

#[derive(Default)]
pub(super) struct Callouts {
    sent: Vec<(u32, Request)>,
    last: u32,
}

pub(crate) fn send(request: &Request) -> Result<u32, Error> {
    HOST.with_borrow_mut(|host| {
        if !host.grants.callouts.contains(&request.service) {
            return Err(Error::Denied);
        }
        judge(request).map_err(Error::Invalid)?;
        if host.callouts.sent.len() == CALLOUTS {
            return Err(Error::Full(format!("at most {CALLOUTS} callouts for one wait")));
        }
        host.callouts.last += 1;
        let id = host.callouts.last;
        host.callouts.sent.push((id, request.clone()));
        Ok(id)
    })
}

fn judge(request: &Request) -> Result<(), String> {
    let is_method = !request.method.is_empty() && request.method.bytes().all(rules::is_token);
    if !is_method || request.method == "CONNECT" {
        return Err(format!("{:?} is no method", request.method));
    }
    rules::path(&request.path)?;
    if request.headers.len() > rules::EDITS {
        return Err(format!("at most {} headers", rules::EDITS));
    }
    for field in &request.headers {
        rules::header_name(&field.name)?;
        rules::header_value(&field.value)?;
    }
    if request.body.len() > rules::REPLY_BODY {
        return Err(format!("a callout's body has at most {} bytes", rules::REPLY_BODY));
    }
    if request.answer_bytes == 0 || request.answer_bytes > ANSWER {
        return Err(format!("an answer has 1 to {ANSWER} bytes"));
    }
    if request.timeout_ms == 0 || request.timeout_ms > rules::WAIT_MS {
        return Err(format!("a callout takes 1 to {} ms", rules::WAIT_MS));
    }
    Ok(())
}

/// What was sent since this was asked.
pub(crate) fn take() -> Vec<(u32, Request)> {
    HOST.with_borrow_mut(|host| std::mem::take(&mut host.callouts.sent))
}

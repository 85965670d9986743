//! The table of exchanges: products of small tables, each family for one side of HTTP. A case is bytes and acts, no judgement.

mod ends;
mod framing;
mod grpc;
mod h1;
mod h2;
mod upgrade;

use std::time::Duration;

use weft_tests::exchange::h1::{Act, Script};
use weft_tests::exchange::h2::{Call, Script as H2Script};

use super::ground::Declared;

#[derive(Debug, Clone)]
pub(super) enum Talk {
    H1 { methods: Vec<&'static str>, steps: Vec<Act>, scripts: Vec<Script> },
    H2 { calls: Vec<Call>, scripts: Vec<H2Script> },
}

#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) family: &'static str,
    pub(super) name: String,
    pub(super) declared: Declared,
    pub(super) talk: Talk,
}

pub(super) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    h1::add(&mut cases);
    framing::add(&mut cases);
    ends::add(&mut cases);
    upgrade::add(&mut cases);
    h2::add(&mut cases);
    grpc::add(&mut cases);
    // Every fourth exchange goes to a port that is declared to speak nothing, where it has to be detected.
    for case in cases.iter_mut().step_by(4).filter(|case| case.declared == Declared::Http) {
        case.declared = Declared::Nothing;
    }
    cases
}

/// An HTTP/1 case of one request and one answer.
fn once(family: &'static str, name: String, method: &'static str, steps: Vec<Act>, script: Script) -> Case {
    Case {
        family,
        name,
        declared: Declared::Http,
        talk: Talk::H1 { methods: vec![method], steps, scripts: vec![script] },
    }
}

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Bytes that are no text and repeat late.
fn noise(count: usize) -> Vec<u8> {
    (0..count).map(|index| (index * 7 + index / 251).to_le_bytes()[0]).collect()
}

/// A request with its fields and body as given; `{T}` and `{H}` are filled in later.
fn request(method: &str, target: &[u8], fields: &[u8], body: &[u8]) -> Vec<u8> {
    [method.as_bytes(), b" {T}", target, b" HTTP/1.1\r\nhost: {H}\r\n", fields, b"\r\n", body].concat()
}

fn get(target: &str) -> Vec<u8> {
    request("GET", target.as_bytes(), b"", b"")
}

/// An answer with a length.
fn answer(status: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

/// A body in chunks of this size, with their end.
fn chunked(body: &[u8], size: usize, extension: &str, trailers: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in body.chunks(size) {
        out.extend(format!("{:x}{extension}\r\n", chunk.len()).into_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend(format!("0{extension}\r\n{trailers}\r\n").into_bytes());
    out
}

//! The source of `hostile.wasm`, built with the SDK of contract 0.1: a filter that does what no filter should, as the header
//! `x-do` or the configuration says. Kept to be read; nothing compiles it.

use std::collections::BTreeSet;
use std::hint::black_box;

use weft_filters_sdk::{
    Connection, Counter, Filter, Hooks, Interest, Outcome, Reply, Request, Response, Summary, Wants, log,
};

/// Remembers the streams it has seen.
#[derive(Debug)]
pub struct Hostile {
    seen: BTreeSet<u64>,
    calls: u32,
    counter: Counter,
    /// Streams that have ended, and the bytes that they are said to have had each way.
    done: [Counter; 3],
}

impl Filter for Hostile {
    fn configure(config: &str) -> Result<(Self, Interest), String> {
        let mut hooks = Hooks::all();
        let mut header = "x-do";
        match config {
            "refuse" => return Err("this configuration is refused".to_owned()),
            "trap" => panic!("trapped while configured"),
            "loop" => forever(),
            "header" => header = "Not A Header",
            "blind" => hooks = Hooks::DONE,
            _ => {}
        }
        let interest = Interest { hooks, wants: Wants::all(), ..Interest::default() };
        let interest = interest.request_header(header).response_header("x-do");
        let counter = Counter::define("seen_total")?;
        let [streams, up, down] = ["done_total", "done_request_bytes_total", "done_response_bytes_total"];
        let done = [Counter::define(streams)?, Counter::define(up)?, Counter::define(down)?];
        Ok((Self { seen: BTreeSet::new(), calls: 0, counter, done }, interest))
    }

    fn connection(&mut self, stream: u64, _connection: &Connection<'_>) -> Outcome {
        self.seen.insert(stream);
        Outcome::pass()
    }

    fn request_head(&mut self, stream: u64, request: &Request<'_>) -> Outcome {
        self.calls += 1;
        self.counter.add(1);
        self.seen.insert(stream);
        act(request.header("x-do").unwrap_or_default(), self.calls, request)
    }

    fn response_head(&mut self, stream: u64, response: &Response<'_>) -> Outcome {
        let known = if self.seen.contains(&stream) { "known" } else { "unknown" };
        match response.header("x-do") {
            Some(b"trap") => panic!("as told"),
            Some(b"replace") => Outcome::respond(Reply::text(599, "replaced", known)),
            Some(b"path") => Outcome::pass().set_path("/"),
            _ => Outcome::pass().set_header("x-stream", known),
        }
    }

    fn done(&mut self, stream: u64, summary: &Summary) {
        self.seen.remove(&stream);
        let told = [1, summary.request_bytes, summary.response_bytes];
        self.done.iter().zip(told).for_each(|(counter, value)| counter.add(value));
    }
}

fn act(what: &[u8], calls: u32, request: &Request<'_>) -> Outcome {
    match what {
        b"trap" => panic!("as told"),
        b"loop" => forever(),
        b"memory" => eat(),
        b"stack" => Outcome::pass().set_header("x-depth", deeper(0).to_string()),
        b"log" => {
            (0..1_000).for_each(|line| log::warn(&format!("line {line}\n")));
            Outcome::pass()
        }
        b"calls" => Outcome::pass().set_header("x-calls", calls.to_string()),
        b"shown" => Outcome::pass().set_header("x-shown", shown(request)),
        b"pseudo" => Outcome::pass().set_header(":path", "/other"),
        b"framing" => Outcome::pass().set_header("content-length", "1"),
        b"identity" => Outcome::pass().add_header("x-forwarded-client-cert", "spiffe://forged"),
        b"path" => Outcome::pass().set_path("/a/../other?q=1"),
        b"bad-path" => Outcome::pass().set_path("/%"),
        b"split" => Outcome::pass().set_header("x-a", "1\r\nx-b: 2"),
        b"teapot" => Outcome::respond(Reply::text(418, "teapot", "short and stout").rule("pot")),
        b"late" => Outcome::respond(Reply::text(418, "late", "").after(std::time::Duration::from_millis(20))),
        b"delay" => Outcome::pass_after(std::time::Duration::from_millis(30)).set_header("x-delayed", "yes"),
        b"status" => Outcome::respond(Reply::text(101, "switch", "")),
        b"flood" => Outcome::respond(Reply::text(500, "flood", &"x".repeat(1 << 20))),
        _ => Outcome::pass(),
    }
}

fn shown(request: &Request<'_>) -> String {
    let (head, attributes) = (request.head, request.attributes);
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        head.method,
        head.path,
        head.query,
        head.authority,
        attributes.principal,
        attributes.source_address,
        attributes.destination_port,
        attributes.direction,
    )
}

fn forever() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

fn eat() -> Outcome {
    let mut eaten = Vec::new();
    loop {
        eaten.push(black_box(vec![1_u8; 1 << 20]));
    }
}

#[expect(unconditional_recursion, reason = "that is the point")]
fn deeper(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    deeper(depth + 1) + frame[0]
}

weft_filters_sdk::export!(Hostile);

//! Random messages, valid and broken: the origin sees behind the mesh what it sees directly, or less of it, never anything else. A
//! seed makes them; a failure names it.

use std::time::{Duration, Instant};

use weft_tests::exchange::h1::{self, Act};
use weft_tests::exchange::seen::Seen;

use super::allowed::{Context, RULES};
use super::cases::{Case, Talk};
use super::ground::{Declared, Ground, Lane, MOST_LANES, Way};
use super::run::{Saw, replaced};

/// A pseudo-random sequence (splitmix64): the same for the same seed, everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.roll() % bound.max(1) as u64).expect("smaller than a usize")
    }

    fn one<'t, T: ?Sized>(&mut self, of: &[&'t T]) -> &'t T {
        of[self.below(of.len())]
    }
}

/// How long to go on: what is asked for in minutes, else these seconds.
pub(super) fn time(seconds: u64) -> Duration {
    let minutes = std::env::var("WEFT_DIFFERENTIAL_MINUTES").ok().and_then(|minutes| minutes.parse::<u64>().ok());
    Duration::from_secs(minutes.map_or(seconds, |minutes| minutes * 60))
}

/// Seed to start with, and true if it was given: then the one message of that failure is looked at again.
fn seed() -> (u64, bool) {
    let given = std::env::var("WEFT_DIFFERENTIAL_SEED").ok().and_then(|seed| seed.parse().ok());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    (given.unwrap_or(now.as_secs()), given.is_some())
}

pub(super) async fn run(ground: &Ground, time: Duration) {
    let (seed, repeated) = seed();
    let (deadline, mut number, mut arrived) = (Instant::now() + time, 0_u64, 0_u64);
    while Instant::now() < deadline {
        let own = if repeated { seed } else { seed.wrapping_mul(1 << 24).wrapping_add(number) };
        let mut dice = Dice(own);
        let bytes = message(&mut dice);
        // A mark that was copied to where no target starts, or whose path is gone, would be filled in differently by each way.
        if bytes.windows(5).any(|window| &window[1..4] == b"{T}" && (window[0] != b' ' || window[4] != b'/')) {
            number += 1;
            continue;
        }
        let way = if dice.below(2) == 0 { Way::Tunnel } else { Way::Explicit };
        let lane = if dice.below(2) == 0 { Declared::Http } else { Declared::Nothing };
        // Bytes of a broken-off exchange may come after its client has gone: a port rests until all others had a turn.
        let lane = ground.lane(lane, u16::try_from(number % u64::from(MOST_LANES)).expect("below the number of lanes"));
        let direct = send(ground, lane, Way::Direct, &bytes).await;
        let meshed = send(ground, lane, way, &bytes).await;
        arrived += u64::from(!meshed.0.is_empty());
        let shown = bytes.escape_ascii().to_string();
        if let Some(why) = judge(&direct, &meshed, way) {
            panic!(
                "WEFT_DIFFERENTIAL_SEED={}, {}: {why}\n  sent {shown}\n  direct\n{direct}  meshed\n{meshed}",
                own,
                way.name()
            );
        }
        number += 1;
        if repeated {
            return;
        }
    }
    eprintln!("{number} messages, {arrived} of them reached the origin");
    assert!(arrived * 10 > number, "a generator that is always refused shows little: {arrived} of {number}");
}

/// Sends these bytes, closes the client's end behind them, and returns what the origin saw.
async fn send(ground: &Ground, lane: &Lane, way: Way, bytes: &[u8]) -> Seen {
    let origin = lane.origin(way);
    origin.prepare(&[], &[]);
    let authority = lane.authority();
    let before = if way == Way::Explicit { format!("http://{authority}") } else { String::new() };
    let bytes = replaced(&replaced(bytes, b"{T}", before.as_bytes()), b"{H}", authority.as_bytes());
    let Ok(stream) = ground.dial(way, lane).await else { return Seen::default() };
    // Half-closed, so that everybody knows that there is no more, and read until all is said.
    h1::client(stream, &[], &[Act::Send(bytes), Act::Finish, Act::Drain], origin).await;
    origin.seen().await
}

/// Each message behind the mesh has to be one of those that were sent, in their order. One that was refused may be missing.
fn judge(direct: &Seen, meshed: &Seen, way: Way) -> Option<String> {
    let mut sent = 1;
    for number in 1.. {
        let after = message_of(meshed, number);
        if after.0.is_empty() {
            return None;
        }
        loop {
            let before = message_of(direct, sent);
            if before.0.is_empty() {
                return Some(format!("message {number} is one that nobody sent"));
            }
            sent += 1;
            if is_same(before, &after, way) {
                break;
            }
        }
    }
    None
}

/// The lines of one message, as if it were the first.
fn message_of(seen: &Seen, number: u32) -> Seen {
    let prefix = format!("{number}.");
    let own =
        seen.0.iter().filter_map(|(key, value)| Some((format!("1.{}", key.strip_prefix(&prefix)?), value.clone())));
    Seen(own.collect())
}

fn is_same(before: Seen, after: &Seen, way: Way) -> bool {
    let talk = Talk::H1 { methods: vec![], steps: vec![], scripts: vec![] };
    let case = Case { family: "random", name: String::new(), declared: Declared::Http, talk };
    let mut one = Saw { client: Seen::default(), origin: before };
    let mut other = Saw { client: Seen::default(), origin: after.clone() };
    for rule in RULES {
        (rule.make_equal)(&Context { case: &case, way }, &mut one, &mut other);
    }
    let complete = |seen: &Seen| seen.get("1.end") == Some("complete");
    // A message that broke off may be cut earlier; it may only not look complete.
    if complete(&one.origin) { one.origin == other.origin } else { !complete(&other.origin) }
}

/// A message, in half of all cases broken somewhere; sometimes two.
fn message(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = valid(dice);
    if dice.below(4) == 0 {
        bytes.extend(valid(dice));
    }
    for _ in 0..[0, 0, 1, 1, 2, 5][dice.below(6)] {
        mutate(dice, &mut bytes);
    }
    bytes
}

fn valid(dice: &mut Dice) -> Vec<u8> {
    let method = dice.one(&["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "X-Own", "PATCH"]);
    let target =
        dice.one(&["/", "/a?b=c", "/a%2Fb", "/a//b/", "/%C3%A9", "/a;b=1", "/?q=\"<>`", "/x/y/z?", "/~a/-._!$&'()*+,"]);
    let version = dice.one(&["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0"]);
    let mut out = format!("{method} {{T}}{target} {version}\r\nhost: {{H}}\r\n").into_bytes();
    for _ in 0..dice.below(6) {
        let field = dice.one(&[
            "x-a: b",
            "X-A:c",
            "accept: */*",
            "cookie: a=1; b=2",
            "x-empty:",
            "x-tab: a\tb",
            "x-long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "connection: x-hop",
            "x-hop: 1",
            "te: trailers",
            "content-type: text/plain",
            "if-match: \"x\"",
            "x-obs: \u{e9}",
            "range: bytes=0-1",
        ]);
        out.extend(field.bytes());
        out.extend(b"\r\n");
    }
    let body: Vec<u8> = (0..dice.below(300)).map(|_| dice.roll().to_le_bytes()[0]).collect();
    match dice.below(4) {
        0 if version == "HTTP/1.1" => {
            out.extend(b"transfer-encoding: chunked\r\n\r\n");
            for chunk in body.chunks(1 + dice.below(50)) {
                let extension = dice.one(&["", "", ";a", ";a=\"b;c\""]);
                out.extend(format!("{:x}{extension}\r\n", chunk.len()).into_bytes());
                out.extend(chunk);
                out.extend(b"\r\n");
            }
            out.extend(dice.one(&["0\r\n\r\n", "0\r\nx-t: 1\r\n\r\n", "000\r\n\r\n"]).bytes());
        }
        1 | 2 => {
            out.extend(format!("content-length: {}\r\n\r\n", body.len()).into_bytes());
            out.extend(body);
        }
        _ => out.extend(b"\r\n"),
    }
    out
}

fn mutate(dice: &mut Dice, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    let at = dice.below(bytes.len());
    match dice.below(9) {
        0 => bytes[at] = dice.roll().to_le_bytes()[0],
        1 => bytes.insert(at, dice.one(&[" ", "\r", "\n", "\0", "\t", ":", ";", ",", "0"]).as_bytes()[0]),
        2 => _ = bytes.remove(at),
        3 => bytes.truncate(at),
        4 => {
            let end = (at + 1 + dice.below(20)).min(bytes.len());
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        _ => {
            // A line of trouble behind one of the heads' lines.
            let lines: Vec<_> =
                bytes.windows(2).enumerate().filter(|(_, pair)| *pair == b"\r\n").map(|(at, _)| at).collect();
            let Some(behind) = lines.get(dice.below(lines.len())) else { return };
            let line = dice.one(&[
                "\r\ntransfer-encoding: chunked",
                "\r\ncontent-length: 3",
                "\r\ncontent-length: 0",
                "\r\ntransfer-encoding: gzip, chunked",
                "\r\n folded",
                "\r\nx-a : b",
                "\r\nhost: other",
                "\r\nconnection: close",
                "\r\nconnection: content-length",
                "\n",
                "\r\r\n",
                "\r\ntransfer-encoding:\tchunked",
                "\r\nTransfer-Encoding: Chunked",
                "\r\nexpect: 100-continue",
                "\r\nupgrade: websocket\r\nconnection: upgrade",
            ]);
            bytes.splice(*behind..*behind, line.bytes());
        }
    }
}

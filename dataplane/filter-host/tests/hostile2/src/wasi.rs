//! What compilers' libraries call of WASI 0.2: all of it that does something, some that fails, and what never ends well.

use std::fmt::Debug;
use std::hint::black_box;

use wasip2::cli::{environment, exit, stderr, stdin, stdout, terminal_stdout};
use wasip2::clocks::{monotonic_clock, wall_clock};
use wasip2::filesystem::preopens;
use wasip2::io::poll;
use wasip2::io::streams::StreamError;
use wasip2::random::{insecure_seed, random};
use wasip2::sockets::network::IpAddressFamily;
use wasip2::sockets::{instance_network, ip_name_lookup, tcp_create_socket};

const HOUR: u64 = 3_600_000_000_000;

/// Calls what traps, as `mode` says; `wasi-quiet` needs no grant and does not trap.
pub(crate) fn end(mode: &str) {
    match mode {
        "wasi-clock" => {
            let _ = black_box(wall_clock::now().seconds);
        }
        "wasi-random" => {
            let _ = black_box(random::get_random_u64());
        }
        "wasi-random-much" => {
            let _ = black_box(random::get_random_bytes(1 << 20));
        }
        "wasi-exit" => exit::exit(Err(())),
        "wasi-block" => monotonic_clock::subscribe_duration(HOUR).block(),
        "wasi-poll" => {
            let _ = black_box(poll::poll(&[&monotonic_clock::subscribe_duration(HOUR)]));
        }
        "wasi-hoard" => {
            let held: Vec<_> = (0..2_000).map(|_| stdout::get_stdout()).collect();
            let _ = black_box(held.len());
        }
        "wasi-quiet" => {
            let _ = stderr::get_stderr().blocking_write_and_flush(b"started");
            let _ = black_box(environment::get_environment());
        }
        _ => {}
    }
}

/// A line for each thing that it tried, with what it found.
pub(crate) fn report() -> String {
    fn line(name: &str, found: impl Debug) -> String {
        format!("{name}: {found:?}\n")
    }
    let (began, wall) = (monotonic_clock::now(), wall_clock::now());
    let (now, later) = (monotonic_clock::subscribe_duration(0), monotonic_clock::subscribe_duration(HOUR));
    let network = instance_network::instance_network();
    let lookup = ip_name_lookup::resolve_addresses(&network, "example.test").err();
    let socket = tcp_create_socket::create_tcp_socket(IpAddressFamily::Ipv4).err();
    let output = stdout::get_stdout();
    let (first, second) = (random::get_random_u64(), random::get_random_u64());
    [
        line("variables", environment::get_environment().len()),
        line("arguments", environment::get_arguments().len()),
        line("folder", environment::initial_cwd()),
        line("folders", preopens::get_directories().len()),
        line("terminal", terminal_stdout::get_terminal_stdout().is_some()),
        line("input", matches!(stdin::get_stdin().blocking_read(10), Err(StreamError::Closed))),
        line("room", output.check_write().ok()),
        line("output", output.blocking_write_and_flush(b"one line\nhalf of").is_ok()),
        line("flushed", output.flush().is_ok()),
        line("clock", monotonic_clock::now() >= began),
        line("year", 1970 + wall.seconds / 31_557_600 >= 2020),
        line("polled", poll::poll(&[&later, &now])),
        line("ready", (now.ready(), later.ready())),
        line("random", (first != second, random::get_random_bytes(32).len())),
        line("seed", insecure_seed::insecure_seed() != (0, 0)),
        line("lookup", lookup.map(|error| error.name())),
        line("socket", socket.map(|error| error.name())),
    ]
    .concat()
}

pub(crate) fn lines() {
    let output = stderr::get_stderr();
    for _ in 0..1_000 {
        let _ = output.blocking_write_and_flush(b"line\n");
    }
}

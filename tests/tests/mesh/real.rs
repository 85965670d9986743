//! Programs that nobody here wrote, through a pair of sidecars over QUIC. Ignored by default: `cargo xtask test --real` installs
//! what they need, then runs them by name, one at a time. A missing program fails.

mod bulk;
mod capture;
mod described;
mod faults;
mod http;
mod programs;
mod stage;
mod wiretap;

use std::net::SocketAddr;
use std::process::{Command, Output};

use tokio::net::TcpListener;
use weft_tests::client::try_tunnel;
use weft_tests::{Client, Sidecar, eventually};

/// Runs a program to its end; its output, or a panic with what it said.
fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{out}\n{err}");
    out.into_owned()
}

/// Waits until an HTTP service answers.
async fn reachable(client: &Sidecar, service: &str) {
    eventually(&format!("{service} is reachable"), || async {
        let answer = Client::through(client.proxy(), service).await.get("/who").await;
        (answer.status == 200).then_some(())
    })
    .await;
}

/// A local port that leads through CONNECT of a sidecar: for programs that know no proxy.
async fn forwarded(proxy: SocketAddr, authority: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    tokio::spawn(async move {
        while let Ok((mut program, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut stream, head) = try_tunnel(proxy, authority).await;
                if head.starts_with("HTTP/1.1 200") {
                    _ = tokio::io::copy_bidirectional(&mut program, &mut stream).await;
                }
            });
        }
    });
    address
}

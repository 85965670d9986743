//! A gibibyte both ways past a reader that takes 1 MB/s for its first minute: whole, unaltered, and neither proxy holds more of
//! it than 8 MiB above idle.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use weft_tests::{Mesh, Sidecar, Workload};

const SIZE: u64 = 1 << 30;
const THROTTLED: Duration = Duration::from_secs(60);
const RATE: f64 = 1_000_000.0;
const ALLOWED_KIB: u64 = 8 * 1024;

/// The body: reproducible, and no two pieces alike.
fn piece(index: u64) -> Bytes {
    let mut piece = vec![0_u8; 64 * 1024];
    let mut state = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for word in piece.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    piece.into()
}

fn expected() -> [u8; 32] {
    let mut hash = Sha256::new();
    for index in 0..SIZE / (64 * 1024) {
        hash.update(piece(index));
    }
    hash.finalize().into()
}

async fn send_body(stream: &mut (impl tokio::io::AsyncWrite + Unpin)) {
    for index in 0..SIZE / (64 * 1024) {
        stream.write_all(&piece(index)).await.expect("the body is taken");
    }
}

/// Reads the body, slowly for the first minute, and gives its hash.
async fn read_body(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> [u8; 32] {
    let (mut hash, began, mut read) = (Sha256::new(), Instant::now(), 0_u64);
    let mut buffer = vec![0; 64 * 1024];
    while read < SIZE {
        let count = stream.read(&mut buffer).await.expect("the body goes on");
        assert!(count > 0, "the body ends after {read} bytes");
        hash.update(&buffer[..count]);
        read += count as u64;
        let due = Duration::from_secs_f64(read as f64 / RATE);
        if began.elapsed() < THROTTLED && due > began.elapsed() {
            tokio::time::sleep(due - began.elapsed()).await;
        }
    }
    hash.finalize().into()
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head"));
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// An app of two paths: `/down` sends the body, `/up` reads it slowly and answers with its hash. Small socket buffers, so that
/// what waits, waits in the proxies.
async fn app(address: SocketAddr) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(64 * 1024).expect("a small buffer");
    socket.set_reuseaddr(true).expect("reuse");
    socket.bind(address).expect("a free address");
    let listener: TcpListener = socket.listen(16).expect("a listener");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let head = read_head(&mut stream).await;
                if head.starts_with("GET /down") {
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\nconnection: close\r\n\r\n");
                    stream.write_all(answer.as_bytes()).await.expect("the head is taken");
                    send_body(&mut stream).await;
                } else if head.starts_with("POST /up") {
                    let hash = hex(&read_body(&mut stream).await);
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 64\r\nconnection: close\r\n\r\n{hash}");
                    stream.write_all(answer.as_bytes()).await.expect("the answer is taken");
                } else {
                    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
                    stream.write_all(answer.as_bytes()).await.expect("the answer is taken");
                }
            });
        }
    });
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn request(proxy: SocketAddr, host: &str, line: &str, headers: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(64 * 1024).expect("a small buffer");
    let mut stream = socket.connect(proxy).await.expect("the proxy listens");
    let method = line.split(' ').next().unwrap_or_default();
    let path = line.split(' ').nth(1).unwrap_or_default();
    let head = format!("{method} http://{host}{path} HTTP/1.1\r\nhost: {host}\r\n{headers}connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("the head is taken");
    stream
}

/// A pair of sidecars and what they may grow to.
struct Pair {
    proxies: Vec<Sidecar>,
    idle: Vec<u64>,
    service: &'static str,
}

async fn pair(mesh: &Mesh, service: &'static str) -> Pair {
    let workload = Workload::server(service, 8080, "http");
    app(SocketAddr::new(workload.ip, 8080)).await;
    let server = mesh.sidecar(workload).await;
    let client = mesh.sidecar(Workload::client(&format!("{service}-client"))).await;
    let proxies = vec![client, server];
    weft_tests::eventually("the service answers", || async {
        let mut stream = request(proxies[0].proxy(), service, "GET /", "").await;
        let head = read_head(&mut stream).await;
        head.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
    proxies.iter().for_each(|proxy| proxy.process.forget_peak());
    let idle = proxies.iter().map(|proxy| proxy.process.resident_kib()).collect();
    Pair { proxies, idle, service }
}

impl Pair {
    fn check(&self) {
        for (proxy, idle) in self.proxies.iter().zip(&self.idle) {
            let peak = proxy.process.peak_kib();
            eprintln!("{}: idle {idle} KiB, peak {peak} KiB, grown by {} KiB", proxy.workload.name, peak - idle);
            assert!(peak <= idle + ALLOWED_KIB, "{} grew by {} KiB", proxy.workload.name, peak - idle);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes over a minute: cargo xtask test --real"]
async fn a_gibibyte_both_ways_in_little_memory() {
    let mesh = Mesh::start().await;
    let (down, up) = (Arc::new(pair(&mesh, "down").await), Arc::new(pair(&mesh, "up").await));
    let expected = tokio::task::spawn_blocking(expected).await.unwrap();
    let downloading = tokio::spawn({
        let down = Arc::clone(&down);
        async move {
            let mut stream = request(down.proxies[0].proxy(), down.service, "GET /down", "").await;
            let head = read_head(&mut stream).await;
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            read_body(&mut stream).await
        }
    });
    let uploading = tokio::spawn({
        let up = Arc::clone(&up);
        async move {
            let length = format!("content-length: {SIZE}\r\n");
            let mut stream = request(up.proxies[0].proxy(), up.service, "POST /up", &length).await;
            send_body(&mut stream).await;
            let head = read_head(&mut stream).await;
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            let mut hash = String::new();
            stream.read_to_string(&mut hash).await.expect("the hash");
            hash
        }
    });
    assert_eq!(hex(&downloading.await.unwrap()), hex(&expected), "downloaded unaltered");
    assert_eq!(uploading.await.unwrap(), hex(&expected), "uploaded unaltered");
    down.check();
    up.check();
}

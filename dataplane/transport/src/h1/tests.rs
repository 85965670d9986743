//! The codec on loopback: raw sockets for bad and split input, hyper as the independent peer of both roles.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::http::{Frame, RecvBody, RequestHead, ResponseHead, ResponseRecv, StreamError, Target};
use crate::tcp;

mod client;
mod given_up;
mod server;

const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test on one thread with local tasks, as a worker of the proxy does, and not for ever.
fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async { timeout(PATIENCE, test).await.expect("the test takes too long") })
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let near = near.unwrap();
    near.set_nodelay(true).unwrap();
    (near, far.unwrap().0)
}

fn request(method: &str, path: &'static str, headers: &[(&'static str, &'static str)]) -> RequestHead {
    RequestHead {
        method: Method::from_bytes(method.as_bytes()).unwrap(),
        authority: Some(Authority::from_static("host")),
        path: Some(Target::from_static(path)),
        protocol: None,
        headers: header_map(headers),
        version: Version::HTTP_11,
    }
}

fn header_map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
    headers.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
}

fn response(status: u16, headers: &[(&'static str, &'static str)]) -> ResponseHead {
    ResponseHead { status: StatusCode::from_u16(status).unwrap(), headers: header_map(headers) }
}

async fn collect(body: &mut RecvBody<'_>) -> Result<(Vec<u8>, Option<HeaderMap>), StreamError> {
    let (mut bytes, mut trailers) = (Vec::new(), None);
    while let Some(frame) = body.frame().await? {
        match frame {
            Frame::Data(data) => bytes.extend_from_slice(&data),
            Frame::Trailers(map) => trailers = Some(map),
        }
    }
    Ok((bytes, trailers))
}

/// Serves every request with its own method, target and body; the number served and how the connection ended.
async fn echo(io: TcpStream, limits: Limits) -> (usize, Result<(), ServerError>) {
    let mut connection = ServerConn::new(io, b"", limits);
    let mut served = 0;
    loop {
        let mut exchange = match connection.next().await {
            Ok(Some(exchange)) => exchange,
            Ok(None) => return (served, Ok(())),
            Err(error) => return (served, Err(error)),
        };
        served += 1;
        let path = exchange.head.path.as_ref().map_or(String::new(), ToString::to_string);
        let Ok((bytes, trailers)) = collect(&mut exchange.body).await else { continue };
        let text = format!("{} {path} {}", exchange.head.method, String::from_utf8_lossy(&bytes));
        let mut sink = exchange.responder.head(&response(200, &[]), false).await.unwrap();
        if exchange.head.method != Method::HEAD {
            sink.data(Bytes::from(text)).await.unwrap();
        }
        sink.finish(trailers).await.unwrap();
    }
}

async fn read_all(io: &mut TcpStream) -> String {
    let mut text = String::new();
    io.read_to_string(&mut text).await.unwrap();
    text
}

async fn read_until(io: &mut TcpStream, end: &str) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end.as_bytes()) {
        bytes.push(io.read_u8().await.unwrap_or_else(|_| panic!("ended at {:?}", String::from_utf8_lossy(&bytes))));
    }
    String::from_utf8(bytes).unwrap()
}

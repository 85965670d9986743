//! Whoever has shown nothing yet: little room, little time, and no more of either by asking again.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

#[tokio::test]
async fn whoever_has_no_certificate_gets_little_room_and_time() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start_with(dir.path(), |config| {
        config.limits.request_timeout_ms = 300;
        config.limits.anonymous_connection_ms = 600;
    })
    .await;
    // A join that is too large: the same token in a small one is good.
    let key = KeyPair::generate().unwrap();
    let token = control.join_token("shop/web").await;
    let request = v1::JoinRequest { token, csr_der: csr(&key), ..Default::default() };
    let large = v1::JoinRequest { version: "x".repeat(100_000), ..request.clone() };
    control.grpc(None).await.join(large).await.unwrap_err();
    control.grpc(None).await.join(request).await.unwrap();
    // A connection that says nothing.
    let mut stream = tls(&control, control.app.grpc_address).await;
    let mut said = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await;
    // However it is closed.
    let _ = ended.expect("it is closed");
    // One that goes on for ever.
    let mut client = control.grpc(None).await;
    let ended = tokio::time::timeout(PATIENCE, async {
        while client
            .join(v1::JoinRequest::default())
            .await
            .is_err_and(|status| status.code() == tonic::Code::Unauthenticated)
        {
            tokio::task::yield_now().await;
        }
    });
    ended.await.expect("it is closed");
}

#[tokio::test]
async fn a_body_that_never_ends_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start_with(dir.path(), |config| config.limits.body_timeout_ms = 200).await;
    let mut stream = tls(&control, control.app.api_address).await;
    let token = control.admin_token();
    let head = format!(
        "POST /api/v1/apply HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: 99\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut said = vec![0; 4096];
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut said)).await.expect("it is answered").unwrap();
    let said = String::from_utf8_lossy(&said[..read]).into_owned();
    assert!(said.starts_with("HTTP/1.1 408 ") && said.contains("took longer than 200ms"), "{said}");
}

//= rfc9113#section-4.1
/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The head of a Join, without a word of its message.
fn head_of_join(stream: u32) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    // POST and https by their indices, the rest as literals that nobody keeps.
    let fields = [
        vec![0x83, 0x87, 0x04],
        text("/weft.control.v1.MeshControl/Join"),
        vec![0x01],
        text("weft-control"),
        vec![0x0f, 0x10],
        text("application/grpc"),
        vec![0x00],
        text("te"),
        text("trailers"),
    ];
    frame(0x1, 0x4, stream, &fields.concat())
}

/// The kind and the stream of the next frame.
async fn next_frame(connection: &mut tokio_rustls::client::TlsStream<tokio::net::TcpStream>) -> (u8, u32) {
    let mut head = [0; 9];
    connection.read_exact(&mut head).await.unwrap();
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    connection.read_exact(&mut payload).await.unwrap();
    (head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]))
}

/// Many streams of Join on one connection, of which no message ever comes.
#[tokio::test]
async fn a_join_that_never_comes_is_given_up_in_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start_with(dir.path(), |config| config.limits.request_timeout_ms = 200).await;
    let mut connection = tls(&control, control.app.grpc_address).await;
    let streams: std::collections::BTreeSet<u32> = (0..32).map(|number| 2 * number + 1).collect();
    let mut said = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(0x4, 0, 0, &[])].concat();
    said.extend(streams.iter().flat_map(|stream| head_of_join(*stream)));
    connection.write_all(&said).await.unwrap();
    let mut answered = std::collections::BTreeSet::new();
    let all = tokio::time::timeout(PATIENCE, async {
        while answered != streams {
            if let (0x1, stream) = next_frame(&mut connection).await {
                answered.insert(stream);
            }
        }
    });
    all.await.expect("each is answered, long before the connection ends");
}

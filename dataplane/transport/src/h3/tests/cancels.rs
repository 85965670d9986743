//! Peers that open requests and give them up: within the budget, and beyond it.

use super::super::{Code, Limits, Server, Violation};
use super::{Method, Pair, frame, headers_frame, read, request, response, soon, until};

/// Answers what it is given until the connection ends.
fn serve(server: &Server) {
    let server = server.clone();
    tokio::spawn(async move {
        while let Some(incoming) = server.accept().await {
            tokio::spawn(async move {
                let Ok((_, mut recv, mut send)) = read(incoming).await else { return };
                // A request without a body is answered, one with a body when it is complete.
                while let Ok(Some(_)) = recv.frame().await {}
                if recv.is_end() {
                    let _ = send.response(&response(200, &[]), true).await;
                }
            });
        }
    });
}

fn head() -> Vec<u8> {
    headers_frame(&[(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/")])
}

/// How a peer may give a request up.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// Resets before anything was sent.
    Empty,
    /// Resets a request whose head has been sent and whose body has not.
    Reset,
    /// Sends a whole request and stops the answer.
    Stop,
    /// Sends what the server itself has to reset.
    Broken,
}

async fn give_up(client: &quinn::Connection, way: Way) -> Result<(), quinn::ConnectionError> {
    let (mut send, mut recv) = client.open_bi().await?;
    let cancelled = quinn::VarInt::from_u64(Code::REQUEST_CANCELLED).unwrap();
    match way {
        Way::Empty => _ = send.reset(cancelled),
        Way::Reset => {
            _ = send.write_all(&head()).await;
            _ = send.reset(cancelled);
        }
        Way::Stop => {
            _ = recv.stop(cancelled);
            _ = send.write_all(&head()).await;
            _ = send.finish();
        }
        Way::Broken => {
            _ = send.write_all(&headers_frame(&[(":method", "GET")])).await;
            _ = send.finish();
        }
    }
    Ok(())
}

/// A server that admits 50 at once and hardly more, its peer with control stream and SETTINGS.
async fn strict() -> (Pair, Server, quinn::SendStream) {
    let pair = Pair::new().await;
    let server = pair.start_server(Limits { cancels: 50, cancels_per_second: 1, ..Limits::default() });
    serve(&server);
    let mut control = pair.client.open_uni().await.unwrap();
    control.write_all(&[[0].as_slice(), &frame(4, &[])].concat()).await.unwrap();
    (pair, server, control)
}

#[tokio::test]
async fn a_flood_of_cancelled_requests_ends_the_connection() {
    for way in [Way::Empty, Way::Reset, Way::Stop, Way::Broken] {
        let (pair, server, _control) = strict().await;
        let flood = async { while give_up(&pair.client, way).await.is_ok() {} };
        soon(flood).await;
        let quinn::ConnectionError::ApplicationClosed(close) = soon(pair.client.closed()).await else {
            panic!("{way:?}: {:?}", pair.client.close_reason());
        };
        assert_eq!(close.error_code.into_inner(), Code::EXCESSIVE_LOAD, "{way:?}");
        let reason = "too many requests given up before their answer";
        assert_eq!(server.violation(), Some(Violation { code: Code::EXCESSIVE_LOAD, reason }), "{way:?}");
    }
}

#[tokio::test]
async fn cancels_within_the_budget_are_nobodys_business() {
    let (pair, server, _control) = strict().await;
    for way in [Way::Empty, Way::Reset, Way::Stop, Way::Broken] {
        for _ in 0..12 {
            give_up(&pair.client, way).await.unwrap();
        }
    }
    until(|| server.open_streams() == 0).await;
    assert_eq!((server.violation(), pair.client.close_reason()), (None, None));
}

#[tokio::test]
async fn a_client_that_is_answered_may_cancel_as_often() {
    let pair = Pair::new().await;
    let server = pair.start_server(Limits { cancels: 50, cancels_per_second: 1, ..Limits::default() });
    serve(&server);
    let client = pair.start_client(Limits::default());
    for _ in 0..200 {
        let (_, mut recv) = soon(client.send(&request(Method::GET, "/", &[]), true)).await.unwrap();
        soon(recv.response_head()).await.unwrap();
        let (send, mut hanging) = soon(client.send(&request(Method::POST, "/", &[]), false)).await.unwrap();
        hanging.stop(Code::REQUEST_CANCELLED);
        drop(send);
        drop(recv);
    }
    until(|| server.open_streams() == 0).await;
    assert_eq!(server.violation(), None);
    assert!(!client.is_closed());
}

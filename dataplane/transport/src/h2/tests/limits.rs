//! A request that one leg takes is also taken by the next: HTTP/2 keeps the limits that every version keeps, for
//! targets, fields, interim answers, idle connections and tunnels.

use super::*;

/// The status that the crate's client is answered with, or the reset.
async fn asked(limits: Limits, request: Request<()>) -> String {
    let (near, far) = duplex(256 * 1024);
    serve(far, limits, |_, _, mut answer| async move { answer.response(&response(200), true).await.unwrap() });
    let (client, connection) = h2::client::handshake(near).await.unwrap();
    let driver = tokio::task::spawn_local(connection);
    let mut client = client.ready().await.unwrap();
    let seen = match client.send_request(request, true).unwrap().0.await {
        Ok(answer) => answer.status().as_u16().to_string(),
        Err(error) => format!("{:?}", error.reason().unwrap()),
    };
    driver.abort();
    seen
}

#[test]
fn targets_and_fields_have_their_limits() {
    run(async {
        let limits = || Limits { target_bytes: 100, fields: 8, ..Limits::default() };
        let get = |path: &str| Request::get(format!("http://a{path}")).body(()).unwrap();
        assert_eq!(asked(limits(), get(&format!("/{}", "x".repeat(99)))).await, "200");
        assert_eq!(asked(limits(), get(&format!("/{}", "x".repeat(100)))).await, "414");
        let many = |name: &str, count| {
            (0..count).fold(Request::get("http://a/"), |request, index| request.header(name, format!("a{index}=1")))
        };
        assert_eq!(asked(limits(), many("x", 9).body(()).unwrap()).await, "431");
        // All crumbs of a cookie are one field, as in the other versions.
        assert_eq!(asked(limits(), many("cookie", 60).body(()).unwrap()).await, "200");
    });
}

#[test]
fn interim_answers_are_counted() {
    run(async {
        let limits = Limits { interim_responses: 3, ..Limits::default() };
        let (client, far) = connect(&limits).await;
        serve(far, limits, |_, _, mut answer| async move {
            for _ in 0..5 {
                let _ = answer.interim(&response(103)).await;
            }
            let _ = answer.response(&response(200), true).await;
        });
        let (_send, mut receive) = client.send(&request(Method::GET, "/"), true).await.unwrap();
        for _ in 0..3 {
            assert_eq!(receive.response_head().await.unwrap().status, 103);
        }
        let error = receive.response_head().await.unwrap_err();
        assert!(matches!(error.error, StreamError::Limit("interim responses")) && !error.unprocessed);
    });
}

#[test]
fn a_connection_without_a_request_ends_and_one_with_a_request_stays() {
    run(async {
        tokio::time::pause();
        let limits = Limits { idle: Duration::from_secs(2), ..Limits::default() };
        let (client, far) = connect(&limits).await;
        let server = serve(far, limits, |_, mut body, mut answer| async move {
            answer.response(&response(200), false).await.unwrap();
            while let Ok(Some(_)) = body.frame().await {}
            answer.finish(None).await.unwrap();
        });
        let (mut send, mut receive) = client.send(&request(Method::POST, "/"), false).await.unwrap();
        assert_eq!(receive.response_head().await.unwrap().status, 200);
        tokio::time::advance(Duration::from_secs(5)).await;
        send.data(Bytes::from_static(b"late")).await.unwrap();
        send.finish(None).await.unwrap();
        assert_eq!(collect(&mut receive).await.unwrap(), (Vec::new(), None));
        // Nothing is asked any more: the server says goodbye, which is no breach.
        assert_eq!(server.await.unwrap(), 1);
    });
}

#[test]
fn trailers_in_a_tunnel_end_that_stream_alone() {
    run(async {
        let (near, far) = duplex(64 * 1024);
        let (told, mut telling) = tokio::sync::mpsc::unbounded_channel();
        serve(far, Limits::default(), move |head, mut body, mut answer| {
            let told = told.clone();
            async move {
                if head.protocol.is_none() {
                    return answer.response(&response(200), true).await.unwrap();
                }
                answer.response(&response(101), false).await.unwrap();
                let seen = body.frame().await;
                told.send(matches!(seen, Err(StreamError::Protocol(_)))).unwrap();
            }
        });
        let (client, connection) = h2::client::handshake(near).await.unwrap();
        tokio::task::spawn_local(connection);
        let mut client = client.ready().await.unwrap();
        let mut connect = Request::new(());
        *connect.method_mut() = Method::CONNECT;
        *connect.uri_mut() = "http://a/".parse().unwrap();
        connect.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        // The server's settings have come with the first answer.
        assert_eq!(
            client.send_request(Request::get("http://a/").body(()).unwrap(), true).unwrap().0.await.unwrap().status(),
            200
        );
        let mut client = client.ready().await.unwrap();
        let (answer, mut up) = client.send_request(connect, false).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
        up.send_trailers(trailers("x", "y")).unwrap();
        assert!(telling.recv().await.unwrap());
        let mut client = client.ready().await.unwrap();
        let after = client.send_request(Request::get("http://a/").body(()).unwrap(), true).unwrap().0.await;
        assert_eq!(after.unwrap().status(), 200);
    });
}

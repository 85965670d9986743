//! Which of a request's times end it, in which of its phases. On a clock of its own: nothing waits in fact.

use tokio::time::sleep;

use super::*;

const LIMIT: Duration = Duration::from_secs(1);
/// A pause that none of the times would stand.
const PAUSE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Time {
    /// Of the whole exchange: `timeouts.request`, and what the caller says.
    Request,
    /// Until the head of the answer: `timeouts.backendRequest` as long as an answer may still be discarded.
    Head,
    /// The same of a gRPC call, which it ends as long as it lasts.
    Call,
    /// Every time in which nothing moves.
    Idle,
}

/// Where the pause is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    BeforeHead,
    RequestBody,
    ResponseBody,
}

async fn app(phase: Phase) -> h2::ClientConn {
    h2_pair(h2::Limits::default(), move |mut call: h2::Exchange| async move {
        while let Ok(Some(_)) = call.body.frame().await {}
        if phase == Phase::BeforeHead {
            sleep(PAUSE).await;
        }
        let streams = phase == Phase::ResponseBody;
        if call.answer.response(&head(200), !streams).await.is_err() || !streams {
            return;
        }
        let _ = call.answer.data(Bytes::from_static(b"the first part")).await;
        sleep(PAUSE).await;
        let _ = call.answer.finish(None).await;
    })
    .await
}

/// Carries one request to `app`; gives how it ended.
async fn carried(app: &h2::ClientConn, mut call: h2::Exchange, time: Time) -> &'static str {
    let end = End::after(LIMIT, tokio::time::Instant::now());
    let (mut up, mut answer) = app.send(&call.head, call.body.is_end()).await.unwrap();
    let filters = Filters::new(&Host::new(HostConfig::default()).unwrap(), Bodies::of_tests());
    let (chain, place) = (Chain::default(), Place::of_nobody());
    let (mut filtered, _permit) = filtering::request(&filters, &chain, &place, &mut call.head, None).await.unwrap();
    let (status, alarms, stalls) = (Cell::default(), Alarms::default(), stalls(u64::MAX));
    let idle = Idle::of(if time == Time::Idle { LIMIT } else { PATIENCE }, (&alarms, &stalls));
    let attempt = end.filter(|_| matches!(time, Time::Head | Time::Call));
    let ends = Ends { whole: attempt, stream: None };
    let terms = Terms { ends, grpc: time == Time::Call, ..terms(&mut filtered, &status, idle) };
    let (sent, received) = (Progress::default(), Progress::default());
    let (mut body, mut responder) = (Source::once(RecvBody::H2(&mut call.body)), Some(Responder::H2(&mut call.answer)));
    let ways = (SendBody::H2(&mut up), ResponseRecv::H2(&mut answer));
    let carried = pin!(exchange((&mut body, &mut responder), ways, terms, (&sent, &received)));
    match in_time(end.filter(|_| time == Time::Request), &alarms, carried).await {
        Ok(Ok(())) => "stands",
        Ok(Err(ExchangeError::Late(_))) | Err(_) if status.get().is_none() => "504",
        Ok(Err(ExchangeError::Late(_))) | Err(_) => "cut",
        Ok(Err(other)) => panic!("{other:?}"),
    }
}

/// How it ended, and the status of gRPC that its client was told behind the head.
async fn ended(phase: Phase, time: Time) -> (&'static str, Option<u16>) {
    let (app, seen) = (app(phase).await, Rc::new(Cell::new("")));
    let told = Rc::clone(&seen);
    let proxy = h2_pair(h2::Limits::default(), move |call: h2::Exchange| {
        let (app, told) = (app.clone(), Rc::clone(&told));
        async move { told.set(carried(&app, call, time).await) }
    });
    let proxy = proxy.await;
    let uploads = phase == Phase::RequestBody;
    let (mut up, mut answer) = proxy.send(&get("/"), !uploads).await.unwrap();
    if uploads {
        up.data(Bytes::from_static(b"the first part")).await.unwrap();
        sleep(PAUSE).await;
        // It may have been reset meanwhile.
        let _ = up.finish(None).await;
    }
    let mut status = None;
    if answer.response_head().await.is_ok() {
        while let Ok(Some(frame)) = answer.frame().await {
            if let Frame::Trailers(trailers) = frame {
                status = grpc_status(&trailers);
            }
        }
    }
    while seen.get().is_empty() {
        sleep(Duration::from_millis(1)).await;
    }
    (seen.get(), status)
}

#[tokio::test(start_paused = true)]
async fn each_time_ends_a_request_in_some_of_its_phases() {
    for (time, expect) in [
        (Time::Request, ["504", "504", "cut"]),
        (Time::Head, ["504", "504", "stands"]),
        (Time::Call, ["504", "504", "cut"]),
        (Time::Idle, ["stands"; 3]),
    ] {
        for (phase, expect) in [Phase::BeforeHead, Phase::RequestBody, Phase::ResponseBody].into_iter().zip(expect) {
            // DEADLINE_EXCEEDED.
            let status = (time == Time::Call && expect == "cut").then_some(4);
            assert_eq!(run(ended(phase, time)).await, (expect, status), "{time:?} with a pause in {phase:?}");
        }
    }
}

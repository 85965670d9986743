//! Which of its times ends an exchange, by what its answer is, and what answers are. The clock stands still.

use std::pin::pin;

use http::HeaderValue;
use tokio::task::coop;

use super::*;

const ONE: Duration = Duration::from_secs(1);

/// When an exchange ends, in seconds, and by which failure. Its answer begins after `head` and goes on after `body`; it is
/// complete after twenty seconds.
async fn ended(alarms: &Alarms, ends: Ends, kind: Kind, (head, body): (u32, u32)) -> (u64, Option<Failure>) {
    let (begun, flow) = (Instant::now(), Flow::default());
    let answered = pin!(async {
        tokio::time::sleep_until(begun + ONE * head).await;
        flow.begins(kind);
        tokio::time::sleep_until(begun + ONE * body).await;
        flow.moved();
        tokio::time::sleep_until(begun + ONE * 20).await;
    });
    let end = ends.bound(alarms, Some(&flow), answered).await;
    (begun.elapsed().as_secs(), end.err())
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_ended_by_its_own_times() {
    // They take turns in one timer.
    let alarms = &Alarms::default();
    async fn check(alarms: &Alarms, times: (Option<u32>, Option<u32>), kind: Kind, phases: (u32, u32), expect: u64) {
        let after = |seconds: Option<u32>| seconds.and_then(|seconds| End::after(ONE * seconds, Instant::now()));
        let ends = Ends { whole: after(times.0), stream: after(times.1) };
        let (at, failure) = ended(alarms, ends, kind, phases).await;
        assert_eq!(at, expect, "{times:?} {kind:?} {phases:?}: {failure:?}");
        assert_eq!(failure.is_none(), expect == 20, "{times:?} {kind:?} {phases:?}");
    }
    let whole = (Some(5), None);
    check(alarms, (None, None), Kind::Message, (1, 2), 20).await;
    check(alarms, whole, Kind::Message, (1, 2), 5).await;
    check(alarms, whole, Kind::Stream, (1, 2), 20).await;
    check(alarms, whole, Kind::Stream, (1, 9), 20).await;
    check(alarms, whole, Kind::Stream, (6, 7), 5).await;
    check(alarms, whole, Kind::Call, (1, 2), 20).await;
    // It hangs before its message.
    check(alarms, whole, Kind::Call, (1, 9), 5).await;
    let both: [(Option<u32>, Option<u32>); 3] = [(Some(5), Some(8)), (Some(8), Some(5)), (None, Some(8))];
    for (whole, stream) in both {
        let own = u64::from(stream.unwrap_or_default());
        check(alarms, (whole, stream), Kind::Stream, (1, 2), own).await;
        check(alarms, (whole, stream), Kind::Call, (1, 2), own).await;
        check(alarms, (whole, stream), Kind::Message, (1, 2), whole.map_or(20, u64::from)).await;
    }
    // It became one when its time was over.
    check(alarms, (None, Some(3)), Kind::Stream, (6, 7), 6).await;
    check(alarms, (Some(9), Some(3)), Kind::Call, (6, 7), 7).await;
}

#[tokio::test(start_paused = true)]
async fn whose_time_is_over_is_told() {
    let alarms = Alarms::default();
    let own = Ends { whole: End::after(ONE, Instant::now()), stream: None };
    let callers = Ends { whole: None, stream: Some(End::told(ONE, Instant::now())) };
    assert!(matches!(ended(&alarms, own, Kind::Message, (9, 9)).await.1, Some(Failure::Timeout(1_000))));
    assert!(matches!(ended(&alarms, callers, Kind::Stream, (0, 0)).await.1, Some(Failure::CallerDeadline(1_000))));
}

/// What never has to wait does not outlive its time.
#[tokio::test]
async fn what_is_always_busy_is_ended() {
    let ends = Ends { whole: End::after(Duration::from_millis(5), Instant::now()), stream: None };
    let busy = pin!(async {
        loop {
            coop::consume_budget().await;
        }
    });
    let end: Result<(), Failure> = ends.bound(&Alarms::default(), Some(&Flow::default()), busy).await;
    assert!(matches!(end, Err(Failure::Timeout(5))));
}

#[test]
fn answers_are_streams_by_their_content_type() {
    fn check(kind: Option<&'static str>, expect: Kind) {
        let fields = kind.map(|kind| (CONTENT_TYPE, HeaderValue::from_static(kind)));
        assert_eq!(Kind::of(&fields.into_iter().collect()), expect, "{kind:?}");
    }
    check(None, Kind::Message);
    check(Some("application/json"), Kind::Message);
    check(Some("text/event-stream"), Kind::Stream);
    check(Some("Text/Event-Stream ; charset=utf-8"), Kind::Stream);
    check(Some("text/event-streams"), Kind::Message);
    check(Some("application/grpc"), Kind::Call);
    check(Some("Application/gRPC+proto"), Kind::Call);
    check(Some("application/grpc-web-text; x=1"), Kind::Call);
    check(Some("application/gr"), Kind::Message);
}

//! What a copy reads of a body, whole and cut, and how many copies there are.

use bytes::Bytes;
use futures_util::FutureExt as _;

use super::*;

fn data(text: &'static str) -> Frame {
    Frame::Data(Bytes::from_static(text.as_bytes()))
}

/// The next frame as text; `-` where there is none yet.
fn next(copied: &Copied) -> String {
    match copied.frame().now_or_never() {
        None => "-".to_owned(),
        Some(Ok(Some(Frame::Data(data)))) => String::from_utf8(data.to_vec()).unwrap(),
        Some(Ok(Some(Frame::Trailers(trailers)))) => format!("{trailers:?}"),
        Some(Ok(None)) => "end".to_owned(),
        Some(Err(cut)) => format!("{cut:?}"),
    }
}

#[test]
fn a_copy_reads_all_that_the_request_reads() {
    let (tap, copied) = tapped(10);
    assert_eq!(next(&copied), "-");
    tap.take(&data("abc"));
    tap.take(&data("de"));
    assert_eq!([next(&copied), next(&copied)], ["abcde", "-"]);
    tap.take(&data("0123456789"));
    tap.finish();
    drop(tap);
    assert_eq!([next(&copied), next(&copied), next(&copied)], ["0123456789", "end", "end"]);
}

#[test]
fn trailers_end_a_body() {
    let (tap, copied) = tapped(10);
    tap.take(&data("a"));
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "42".parse().unwrap());
    tap.take(&Frame::Trailers(trailers));
    drop(tap);
    assert_eq!([next(&copied), next(&copied), next(&copied)], ["a", "{\"x-sum\": \"42\"}", "end"]);
}

#[test]
fn one_that_falls_behind_is_cut_and_holds_nothing() {
    let (tap, copied) = tapped(10);
    tap.take(&data("01234"));
    tap.take(&data("012345"));
    assert_eq!(copied.0.borrow().data.capacity(), 0);
    tap.take(&data("0"));
    tap.finish();
    assert_eq!([next(&copied), next(&copied)], ["Behind", "Behind"]);
}

#[test]
fn a_request_that_ends_early_leaves_no_copy_that_looks_whole() {
    let (tap, copied) = tapped(10);
    tap.take(&data("a"));
    assert_eq!(next(&copied), "a");
    tap.take(&data("b"));
    drop(tap);
    assert_eq!(next(&copied), "Abandoned");
}

#[test]
fn what_nobody_reads_is_not_kept() {
    let (tap, copied) = tapped(10);
    tap.take(&data("a"));
    let state = Rc::clone(&copied.0);
    drop(copied);
    tap.take(&data("b"));
    assert!(state.borrow().data.is_empty());
}

#[tokio::test]
async fn who_waits_is_woken() {
    let (tap, copied) = tapped(10);
    let (read, ()) = tokio::join!(copied.frame(), async { tap.take(&data("a")) });
    assert!(matches!(read, Ok(Some(Frame::Data(data))) if data == "a"));
    let (read, ()) = tokio::join!(copied.frame(), async { drop(tap) });
    assert_eq!(read.unwrap_err(), Cut::Abandoned);
}

#[test]
fn only_so_many_are_under_way() {
    let all = OpenCount::default();
    let (copies, others) = (Copies::new(2, all.clone()), Copies::new(2, all.clone()));
    let (first, second) = (copies.enter(), copies.enter());
    assert!(first.is_some() && second.is_some() && copies.enter().is_none());
    let other = others.enter();
    assert!(other.is_some());
    assert_eq!(all.value(), 3);
    drop(first);
    assert!(copies.enter().is_some());
    drop((second, other));
    assert_eq!(all.value(), 0);
    assert!(Copies::new(0, all).enter().is_none());
}

//! The pool against servers in memory with limits of their own.

use bytes::Bytes;
use http::{HeaderMap, Method, Version};
use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
use weft_transport::http::{RequestHead, ResponseHead};

use super::*;

fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(20), test).await.expect("the test takes too long")
    })
}

fn get() -> RequestHead {
    RequestHead {
        method: Method::GET,
        authority: Some("app".parse().unwrap()),
        path: Some("/".parse().unwrap()),
        protocol: None,
        headers: HeaderMap::new(),
        version: Version::HTTP_2,
    }
}

/// An app that allows so many streams on each connection and answers when it is told to.
struct App {
    streams: Cell<u32>,
    connections: Cell<usize>,
    open: Cell<usize>,
    refused: Cell<usize>,
    answering: Cell<bool>,
    /// Each connection ends after so many requests.
    age: Cell<Option<usize>>,
}

impl App {
    fn new(streams: u32) -> Rc<Self> {
        let (connections, open, refused) = (Cell::default(), Cell::default(), Cell::default());
        let streams = Cell::new(streams);
        Rc::new(Self { streams, connections, open, refused, answering: Cell::new(true), age: Cell::new(None) })
    }

    fn dial(self: &Rc<Self>) -> DuplexStream {
        let (near, far) = duplex(64 * 1024);
        self.connections.set(self.connections.get() + 1);
        tokio::task::spawn_local(Rc::clone(self).serve(far));
        near
    }

    async fn serve(self: Rc<Self>, io: DuplexStream) {
        let limits = h2::Limits { concurrent_streams: self.streams.get(), ..h2::Limits::default() };
        let mut server = h2::ServerConn::new(io, Bytes::new(), &limits).await.unwrap();
        let mut served = 0;
        while let Ok(Some(mut exchange)) = server.accept().await {
            served += 1;
            if self.age.get() == Some(served) {
                server.graceful_shutdown();
            }
            let app = Rc::clone(&self);
            app.open.set(app.open.get() + 1);
            tokio::task::spawn_local(async move {
                while !app.answering.get() {
                    tokio::task::yield_now().await;
                }
                app.open.set(app.open.get() - 1);
                let head = ResponseHead { status: http::StatusCode::OK, headers: HeaderMap::new() };
                let _ = exchange.answer.response(&head, true).await;
            });
        }
    }
}

fn pool(most: usize, patience_ms: u64) -> Rc<Multiplexed<u8, u8>> {
    pool_of((most, 100), patience_ms)
}

/// One caller may hold so many per cent of what there is.
fn pool_of(most: (usize, usize), patience_ms: u64) -> Rc<Multiplexed<u8, u8>> {
    Rc::new(Multiplexed::new(
        most,
        Duration::from_millis(patience_ms),
        &HttpLimits::default(),
        MultiplexedStats::default(),
    ))
}

async fn call(pool: &Multiplexed<u8, u8>, app: &Rc<App>) -> Result<(), String> {
    call_of(1, pool, app).await
}

async fn call_of(caller: u8, pool: &Multiplexed<u8, u8>, app: &Rc<App>) -> Result<(), String> {
    let mut stream = match pool.standing(0, &caller) {
        Some(stream) => stream,
        None => pool.stream(0, &caller, async || Ok::<_, &str>(app.dial())).await.map_err(|error| error.to_string())?,
    };
    let (_send, mut receive) = stream.slot.send(&get(), true).await.map_err(|error| error.to_string())?;
    match receive.response_head().await {
        Ok(_) => Ok(()),
        Err(error) => {
            app.refused.set(app.refused.get() + 1);
            Err(error.to_string())
        }
    }
}

async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_burst_opens_further_connections_and_nothing_is_refused() {
    run(async {
        let (app, pool) = (App::new(5), pool(16, 5000));
        let calls: Vec<_> = (0..200)
            .map(|_| {
                let (app, pool) = (Rc::clone(&app), Rc::clone(&pool));
                tokio::task::spawn_local(async move { call(&pool, &app).await })
            })
            .collect();
        for call in calls {
            call.await.unwrap().unwrap();
        }
        assert!((2..=16).contains(&app.connections.get()), "{}", app.connections.get());
    });
}

#[test]
fn beyond_the_connections_requests_queue_and_then_fail() {
    run(async {
        let (app, pool) = (App::new(2), pool(3, 100));
        app.answering.set(false);
        let held: Vec<_> = (0..6)
            .map(|_| {
                let (app, pool) = (Rc::clone(&app), Rc::clone(&pool));
                tokio::task::spawn_local(async move { call(&pool, &app).await })
            })
            .collect();
        until(|| app.open.get() == 6).await;
        assert_eq!(app.connections.get(), 3);
        let error = call(&pool, &app).await.unwrap_err();
        assert_eq!(error, "no free stream within 100 ms on 3 connections");
        assert_eq!((pool.stats.queued.value(), pool.stats.timed_out.value()), (1, 1));
        let queued = {
            let (app, pool) = (Rc::clone(&app), Rc::clone(&pool));
            tokio::task::spawn_local(async move { call(&pool, &app).await })
        };
        until(|| pool.stats.queued.value() == 2).await;
        app.answering.set(true);
        queued.await.unwrap().unwrap();
        for held in held {
            held.await.unwrap().unwrap();
        }
        assert_eq!((app.connections.get(), pool.stats.timed_out.value()), (3, 1));
        pool.expire(Duration::from_secs(55));
        assert_eq!(pool.sockets.borrow()[&0].connections.borrow().len(), 1, "one is kept");
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(56)).await;
        pool.expire(Duration::from_secs(55));
        assert!(pool.sockets.borrow().is_empty(), "and that one for a while");
    });
}

#[test]
fn a_connection_that_goes_away_gets_no_more_requests() {
    run(async {
        let (app, pool) = (App::new(100), pool(16, 5000));
        app.age.set(Some(20));
        for nth in 0..200 {
            assert_eq!(call(&pool, &app).await, Ok(()), "{nth}");
        }
        assert!(app.connections.get() >= 10 - 1, "{}", app.connections.get());
    });
}

#[test]
fn a_failed_dial_is_told_to_each_who_needed_it() {
    run(async {
        let pool = pool(16, 5000);
        let refused = async || Err::<DuplexStream, _>("refused");
        let (first, second) = tokio::join!(pool.stream(0, &1, refused), pool.stream(0, &1, refused));
        assert!(matches!(first, Err(NoStream::Dial("refused"))) && matches!(second, Err(NoStream::Dial("refused"))));
        assert!(!pool.sockets.borrow()[&0].dialling.get());
        pool.expire(Duration::from_secs(55));
        assert!(pool.sockets.borrow().is_empty());
    });
}

#[test]
fn a_request_that_is_given_up_leaves_the_queue_whole() {
    run(async {
        let (app, pool) = (App::new(1), pool(1, 5000));
        app.answering.set(false);
        let spawn = || {
            let (app, pool) = (Rc::clone(&app), Rc::clone(&pool));
            tokio::task::spawn_local(async move { call(&pool, &app).await })
        };
        let first = spawn();
        until(|| app.open.get() == 1).await;
        let (given_up, second) = (spawn(), spawn());
        until(|| pool.stats.queued.value() == 2).await;
        given_up.abort();
        app.answering.set(true);
        first.await.unwrap().unwrap();
        second.await.unwrap().unwrap();
        assert_eq!(pool.sockets.borrow()[&0].waiting.get(), 0);
    });
}

#[test]
fn nobody_overtakes_who_waited_before() {
    run(async {
        let (app, pool) = (App::new(1), pool(1, 5000));
        let dial = async || Ok::<_, &str>(app.dial());
        let slot = pool.stream(0, &1, dial).await.unwrap();
        let served = Rc::new(RefCell::new(Vec::new()));
        let waiting: Vec<_> = (0..5)
            .map(|nth| {
                let (app, pool, served) = (Rc::clone(&app), Rc::clone(&pool), Rc::clone(&served));
                tokio::task::spawn_local(async move {
                    let slot = pool.stream(0, &1, async || Ok::<_, &str>(app.dial())).await.unwrap();
                    served.borrow_mut().push(nth);
                    drop(slot);
                })
            })
            .collect();
        until(|| pool.sockets.borrow()[&0].waiting.get() == 5).await;
        drop(slot);
        assert!(pool.standing(0, &1).is_none());
        let mut newcomer = pin!(pool.stream(0, &1, dial));
        assert!(futures_util::poll!(newcomer.as_mut()).is_pending(), "the stream is for who was woken");
        drop(newcomer.await.unwrap());
        assert_eq!(*served.borrow(), [0, 1, 2, 3, 4]);
        for waiting in waiting {
            waiting.await.unwrap();
        }
    });
}

#[test]
fn a_stream_that_comes_free_during_a_dial_is_not_left_unused() {
    run(async {
        let (app, pool) = (App::new(1), pool(2, 5000));
        let slot = pool.stream(0, &1, async || Ok::<_, &str>(app.dial())).await.unwrap();
        let dials_for_ever = async || std::future::pending::<Result<DuplexStream, &str>>().await;
        let mut dialling = pin!(pool.stream(0, &1, dials_for_ever));
        assert!(futures_util::poll!(dialling.as_mut()).is_pending());
        let mut behind = pin!(pool.stream(0, &1, dials_for_ever));
        assert!(futures_util::poll!(behind.as_mut()).is_pending());
        drop(slot);
        behind.await.unwrap();
        assert!(futures_util::poll!(dialling.as_mut()).is_pending());
    });
}

/// Calls of one caller that stand use up its part and no more: another's are served meanwhile.
#[test]
fn one_caller_leaves_streams_to_others() {
    run(async {
        let (app, pool) = (App::new(5), pool_of((4, 75), 200));
        app.answering.set(false);
        let spawn = |caller| {
            let (app, pool) = (Rc::clone(&app), Rc::clone(&pool));
            tokio::task::spawn_local(async move { call_of(caller, &pool, &app).await })
        };
        let held: Vec<_> = (0..40).map(|_| spawn(1)).collect();
        until(|| app.open.get() == 15).await;
        until(|| pool.stats.timed_out.value() == 25).await;
        assert_eq!(app.open.get(), 15, "three quarters of 4 times 5");
        let other = spawn(2);
        until(|| app.open.get() == 16).await;
        app.answering.set(true);
        other.await.unwrap().unwrap();
        let mut served = 0;
        for held in held {
            served += usize::from(held.await.unwrap().is_ok());
        }
        assert_eq!(served, 15);
        assert_eq!(pool.sockets.borrow()[&0].waiting.get(), 0);
    });
}

/// An app may allow another number of streams on each of its connections.
#[test]
fn the_streams_of_an_app_are_those_of_all_its_connections() {
    run(async {
        let (app, pool) = (App::new(10), pool_of((2, 75), 200));
        let hold = |count: usize| {
            app.answering.set(false);
            let calls = (0..count).map(|_| {
                let (app, pool) = (Rc::clone(&app), Rc::clone(&pool));
                tokio::task::spawn_local(async move { call_of(1, &pool, &app).await })
            });
            calls.collect::<Vec<_>>()
        };
        let held = hold(10);
        until(|| app.open.get() == 10).await;
        app.streams.set(2);
        let more = hold(1);
        until(|| app.open.get() == 11).await;
        assert_eq!(app.connections.get(), 2);
        app.answering.set(true);
        for call in held.into_iter().chain(more) {
            call.await.unwrap().unwrap();
        }
        let waiting = pool.stats.timed_out.value();
        let _held = hold(40);
        until(|| pool.stats.timed_out.value() == waiting + 31).await;
        assert_eq!(app.open.get(), 9, "three quarters of 10 and 2");
    });
}

#[test]
fn an_app_that_allows_more_streams_later_is_sent_more() {
    run(async {
        let (near, mut far) = duplex(64 * 1024);
        let settings = |streams| [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, streams];
        far.write_all(&settings(1)).await.unwrap();
        let (pool, near) = (pool(1, 10_000), Cell::new(Some(near)));
        let dial = async || near.take().ok_or("a second dial");
        let _held = pool.stream(0, &1, dial).await.unwrap();
        let mut second = pin!(pool.stream(0, &1, dial));
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        assert_eq!(pool.stats.queued.value(), 1);
        far.write_all(&settings(2)).await.unwrap();
        second.await.unwrap();
    });
}

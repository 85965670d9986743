//! Twenty streams that say something all the time and hear it again, and twenty requests a second, each with an account.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::Method;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use weft_tests::client::{empty, full, tunnel_over};
use weft_tests::namespace::Namespace;
use weft_tests::{Client, eventually};

use super::ground::{Ground, dial};

const STREAMS: usize = 20;
/// Between two messages of one stream.
const BEAT: Duration = Duration::from_millis(100);
/// Between two requests.
const PAUSE: Duration = Duration::from_millis(50);

/// A way to say bytes and to hear them again.
struct Pipe {
    say: mpsc::Sender<Bytes>,
    hear: Pin<Box<dyn Stream<Item = Result<Bytes, String>> + Send>>,
}

/// A raw TCP connection through CONNECT.
async fn tcp(near: &Namespace) -> Pipe {
    let (stream, head) = tunnel_over(dial(near).await, "origin:6000").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let (read, mut write) = stream.into_split();
    let (say, mut said) = mpsc::channel::<Bytes>(64);
    tokio::spawn(async move {
        while let Some(bytes) = said.recv().await {
            if write.write_all(&bytes).await.is_err() {
                return;
            }
        }
        _ = write.shutdown().await;
    });
    let hear = futures_util::stream::unfold(read, |mut read| async move {
        let mut buffer = vec![0; 4096];
        match read.read(&mut buffer).await {
            Ok(0) => None,
            Ok(count) => Some((Ok(Bytes::copy_from_slice(&buffer[..count])), read)),
            Err(error) => Some((Err(error.to_string()), read)),
        }
    });
    Pipe { say, hear: Box::pin(hear) }
}

/// A request whose body goes on, and its answer.
async fn http(near: &Namespace, version_2: bool) -> Pipe {
    let (say, said) = mpsc::channel::<Bytes>(64);
    let body = futures_util::stream::unfold(said, |mut said| async move {
        said.recv().await.map(|bytes| (Ok(Frame::data(bytes)), said))
    });
    let stream = dial(near).await;
    let mut client = if version_2 {
        let (stream, head) = tunnel_over(stream, "origin:80").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        Client::h2_over(stream, "origin:80").await
    } else {
        Client::over(stream, "origin").await
    };
    let body = StreamBody::new(body).boxed_unsync();
    let answer = client.start(Method::POST, "/echo", &[], body).await.expect("an answer that goes on");
    assert_eq!(answer.status(), 200);
    let hear = answer.into_body().into_data_stream().map(|data| data.map_err(|error| format!("{error:?}")));
    // The client goes with the stream: dropping it could close its connection.
    let hear = hear.chain(futures_util::stream::poll_fn(move |_| {
        _ = &client;
        std::task::Poll::Ready(None)
    }));
    Pipe { say, hear: Box::pin(hear) }
}

struct Open {
    what: String,
    heard: Arc<AtomicU64>,
    task: JoinHandle<Result<(), String>>,
}

impl Open {
    async fn goes_on(&self, when: &str) {
        let before = self.heard.load(Ordering::SeqCst);
        eventually(&format!("{when}: {} goes on", self.what), || async {
            assert!(!self.task.is_finished(), "{when}: {} has died", self.what);
            (self.heard.load(Ordering::SeqCst) > before + 2).then_some(())
        })
        .await;
    }
}

pub(super) struct Streams {
    stop: Arc<AtomicBool>,
    open: Vec<Open>,
}

/// Opens the streams, and waits until each has heard something.
pub(super) async fn open(ground: &Ground) -> Streams {
    let stop = Arc::new(AtomicBool::new(false));
    let mut open = Vec::new();
    for index in 0..STREAMS {
        let (kind, pipe) = match index % 3 {
            0 => ("TCP", tcp(&ground.near()).await),
            1 => ("HTTP/1.1", http(&ground.near(), false).await),
            _ => ("HTTP/2", http(&ground.near(), true).await),
        };
        let heard = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(talk(pipe, Arc::clone(&stop), Arc::clone(&heard)));
        open.push(Open { what: format!("stream {index} ({kind})"), heard, task });
    }
    let streams = Streams { stop, open };
    streams.all_go_on("at first").await;
    streams
}

/// Says a number at each beat until told to stop; hears each of them in order, and then the end.
async fn talk(pipe: Pipe, stop: Arc<AtomicBool>, heard: Arc<AtomicU64>) -> Result<(), String> {
    let Pipe { say, mut hear } = pipe;
    let saying = tokio::spawn(async move {
        let mut beat = tokio::time::interval(BEAT);
        let mut said = 0_u64;
        while !stop.load(Ordering::SeqCst) {
            beat.tick().await;
            if say.send(Bytes::copy_from_slice(&said.to_be_bytes())).await.is_err() {
                break;
            }
            said += 1;
        }
        said
    });
    let mut waiting = Vec::new();
    while let Some(bytes) = hear.next().await {
        waiting.extend_from_slice(&bytes?);
        while let Some(number) = waiting.first_chunk::<8>() {
            let (number, expected) = (u64::from_be_bytes(*number), heard.load(Ordering::SeqCst));
            if number != expected {
                return Err(format!("heard {number} and not {expected}"));
            }
            heard.store(expected + 1, Ordering::SeqCst);
            waiting.drain(..8);
        }
    }
    let said = saying.await.map_err(|error| error.to_string())?;
    let heard = heard.load(Ordering::SeqCst);
    // The TCP app says goodbye.
    let whole = said == heard && (waiting.is_empty() || waiting == b"bye");
    if whole { Ok(()) } else { Err(format!("said {said}, heard {heard}, then the end")) }
}

impl Streams {
    /// Waits until each has heard more; one that has ended has died.
    pub(super) async fn all_go_on(&self, when: &str) {
        futures_util::future::join_all(self.open.iter().map(|one| one.goes_on(when))).await;
    }

    /// Ends all in order: what was said was heard.
    pub(super) async fn end(self, when: &str) {
        self.stop.store(true, Ordering::SeqCst);
        for one in self.open {
            let ended = one.task.await.expect("a stream's task does not panic");
            assert_eq!(ended, Ok(()), "{when}: {}", one.what);
        }
    }
}

/// Requests, each on a connection of its own, at a fixed rate.
pub(super) struct Requests {
    stop: Arc<AtomicBool>,
    done: Arc<Mutex<Vec<Done>>>,
    task: JoinHandle<()>,
}

struct Done {
    what: &'static str,
    sent: Duration,
    took: Duration,
    failed: Option<String>,
}

pub(super) fn requests(ground: &Ground) -> Requests {
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let task = tokio::spawn(ask(ground.near(), Arc::clone(&stop), Arc::clone(&done)));
    Requests { stop, done, task }
}

async fn ask(near: Namespace, stop: Arc<AtomicBool>, done: Arc<Mutex<Vec<Done>>>) {
    let (mut pause, mut asked, began) = (tokio::time::interval(PAUSE), JoinSet::new(), Instant::now());
    let mut index = 0_u32;
    while !stop.load(Ordering::SeqCst) {
        pause.tick().await;
        index += 1;
        let (near, done) = (near.clone(), Arc::clone(&done));
        asked.spawn(async move {
            let sent = Instant::now();
            let mut client = Client::over(dial(&near).await, "origin").await;
            let (what, answer) = match index % 4 {
                0 => ("slow", client.call(Method::GET, "/slow/1500", &[], empty()).await),
                1 => ("upload", client.call(Method::POST, "/digest", &[], full(vec![b'x'; 20_000])).await),
                _ => ("short", client.call(Method::GET, "/who", &[], empty()).await),
            };
            let failed = match answer {
                Ok(answer) if answer.status == 200 => None,
                Ok(answer) => Some(format!("{} {}", answer.status, answer.text())),
                Err(error) => Some(error.0),
            };
            let (sent, took) = (sent - began, sent.elapsed());
            done.lock().expect("no holder panics").push(Done { what, sent, took, failed });
        });
    }
    asked.join_all().await;
}

impl Requests {
    /// Waits for so many more answers.
    pub(super) async fn more(&self, count: usize) {
        let enough = self.done.lock().expect("no holder panics").len() + count;
        let answered = || async { (self.done.lock().expect("no holder panics").len() >= enough).then_some(()) };
        eventually("requests are answered", answered).await;
    }

    /// Waits for those that are under way.
    pub(super) async fn end(self) -> Told {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.expect("the asking does not panic");
        Told { done: std::mem::take(&mut *self.done.lock().expect("no holder panics")) }
    }
}

/// Results of the requests.
pub(super) struct Told {
    done: Vec<Done>,
}

impl Told {
    pub(super) fn count(&self) -> usize {
        self.done.len()
    }

    pub(super) fn longest(&self) -> Duration {
        self.done.iter().map(|done| done.took).max().unwrap_or_default()
    }

    /// The slowest few, for the record.
    pub(super) fn slowest(&self) -> String {
        let mut slowest: Vec<_> = self.done.iter().collect();
        slowest.sort_by_key(|done| std::cmp::Reverse(done.took));
        let show = |done: &&Done| format!("{} sent at {:.1?} took {:.1?}", done.what, done.sent, done.took);
        slowest.iter().take(3).map(show).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn failures(&self) -> Vec<String> {
        let failed = self.done.iter().filter_map(|done| Some((done, done.failed.as_ref()?)));
        failed
            .map(|(done, why)| format!("{} sent at {:?}: {why} after {:?}", done.what, done.sent, done.took))
            .collect()
    }
}

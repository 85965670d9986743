//! The rows' store as whoever may block uses it. An embedded one works where it is called; one behind a network has a
//! runtime of its own, so that no caller's runtime has to turn for it.

use std::sync::Arc;
use std::sync::mpsc;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::runtime::Runtime;
use weft_store::{Error, Event, Range, Reading, Version};

/// Events that are read ahead of who follows.
const AHEAD: usize = 64;

pub(super) struct Waiting {
    store: Arc<dyn weft_store::Store>,
    runtime: Option<Runtime>,
}

impl Waiting {
    /// A store of whose calls none waits.
    pub(super) fn embedded(store: impl weft_store::Store) -> Self {
        Self { store: Arc::new(store), runtime: None }
    }

    /// A store that is reached by this future, with a runtime for it.
    pub(super) fn connect<S: weft_store::Store>(
        connecting: impl Future<Output = Result<S, Error>> + Send + 'static,
    ) -> Result<Self, Error> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let built = builder.worker_threads(1).thread_name("store").enable_all().build();
        let runtime = built.map_err(|error| Error::NotOpen(error.to_string()))?;
        let (done, result) = mpsc::channel();
        runtime.spawn(async move { drop(done.send(connecting.await)) });
        match result.recv() {
            Ok(Ok(store)) => Ok(Self { store: Arc::new(store), runtime: Some(runtime) }),
            failed => {
                runtime.shutdown_background();
                Err(failed.ok().and_then(Result::err).unwrap_or_else(|| Error::NotOpen("it was closed".to_owned())))
            }
        }
    }

    /// The commits behind `from`, as they come.
    pub(super) fn follow(&self, from: Version) -> tokio::sync::mpsc::Receiver<Event> {
        let (told, events) = tokio::sync::mpsc::channel(AHEAD);
        let store = self.store.clone();
        let following = async move {
            let mut watch = store.watch(from);
            while let Some(event) = watch.next().await {
                if told.send(event).await.is_err() {
                    return;
                }
            }
        };
        match &self.runtime {
            Some(runtime) => drop(runtime.spawn(following)),
            None => drop(tokio::spawn(following)),
        }
        events
    }

    pub(super) fn store(&self) -> &dyn weft_store::Store {
        &*self.store
    }

    /// Does something with the store and waits for its end.
    pub(super) fn wait<T: Send + 'static>(
        &self,
        work: impl FnOnce(Arc<dyn weft_store::Store>) -> BoxFuture<'static, Result<T, Error>>,
    ) -> Result<T, Error> {
        let work = work(self.store.clone());
        let Some(runtime) = &self.runtime else {
            return work.now_or_never().unwrap_or_else(|| Err(Error::NotOpen("it is busy".to_owned())));
        };
        let (done, result) = mpsc::channel();
        runtime.spawn(async move { drop(done.send(work.await)) });
        result.recv().unwrap_or_else(|_| Err(Error::NotOpen("it is being closed".to_owned())))
    }

    /// Everything of these ranges, as of one moment.
    pub(super) fn read(&self, ranges: Vec<Range>) -> Result<Reading, Error> {
        self.wait(move |store| Box::pin(async move { store.read(ranges, usize::MAX).await }))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Dropping it where it is would wait for it.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

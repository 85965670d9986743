//! A body as its pump reads it. A request's body keeps what was taken of it, up to a limit, so that a request which
//! provably nobody processed can be sent again from its first byte.

use weft_transport::http::{Frame, RecvBody, StreamError};

/// Where a pump takes its frames from.
pub struct Source<'a> {
    body: RecvBody<'a>,
    /// Frames taken so far that may have to be given again.
    kept: Vec<Frame>,
    /// The next of `kept` to give; beyond its end the body goes on.
    at: usize,
    /// Bytes that may still be kept. `None`: nothing is kept any more.
    room: Option<usize>,
    taken: bool,
}

impl<'a> Source<'a> {
    /// A body that is read once.
    pub fn once(body: RecvBody<'a>) -> Self {
        Self { body, kept: Vec::new(), at: 0, room: None, taken: false }
    }

    /// A body that can be read again from its start while no more than `limit` bytes were taken and nobody has called
    /// [`Source::settle`].
    pub fn replayable(body: RecvBody<'a>, limit: usize) -> Self {
        Self { body, kept: Vec::new(), at: 0, room: Some(limit), taken: false }
    }

    /// The next frame; `None` at the clean end. Cancel safe.
    pub async fn frame(&mut self) -> Result<Option<Frame>, StreamError> {
        if let Some(frame) = self.kept.get(self.at) {
            self.at += 1;
            return Ok(Some(frame.clone()));
        }
        let Some(frame) = self.body.frame().await? else { return Ok(None) };
        self.taken = true;
        self.keep(&frame);
        Ok(Some(frame))
    }

    fn keep(&mut self, frame: &Frame) {
        let Some(room) = self.room else { return };
        let size = match frame {
            Frame::Data(data) => data.len(),
            Frame::Trailers(_) => 0,
        };
        match room.checked_sub(size) {
            Some(left) => {
                self.room = Some(left);
                self.kept.push(frame.clone());
                self.at = self.kept.len();
            }
            None => self.settle(),
        }
    }

    /// Bytes that are kept, and those that the body holds or may be made to hold while nobody reads.
    pub fn held(&self) -> usize {
        let kept = self.kept.iter().map(|frame| match frame {
            Frame::Data(data) => data.len(),
            Frame::Trailers(_) => 0,
        });
        kept.sum::<usize>() + self.body.held()
    }

    /// Goes back to the start. False: more was taken than was kept, so that it can't be sent again.
    pub fn rewind(&mut self) -> bool {
        self.at = 0;
        self.room.is_some() || !self.taken
    }

    /// Keeps nothing more: there is an answer.
    pub fn settle(&mut self) {
        self.room = None;
        if self.at >= self.kept.len() {
            self.kept = Vec::new();
            self.at = 0;
        }
    }

    /// True when no frame will come and that is known without waiting.
    pub fn is_end(&self) -> bool {
        self.at >= self.kept.len() && self.body.is_end()
    }

    /// Tells the sender to stop.
    pub fn stop(&mut self, code: u64) {
        self.body.stop(code);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpStream};
    use weft_transport::tcp;

    use super::*;

    async fn read(source: &mut Source<'_>) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(Frame::Data(data)) = source.frame().await.unwrap() {
            all.extend_from_slice(&data);
        }
        all
    }

    async fn sent(bytes: &[u8]) -> (tcp::Reader, tcp::Writer) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        tcp::split(server, &Bytes::new())
    }

    #[tokio::test]
    async fn a_small_body_is_given_again() {
        let (mut reader, _writer) = sent(b"hello, world").await;
        let mut source = Source::replayable(RecvBody::Tcp(&mut reader), 64);
        assert_eq!(read(&mut source).await, b"hello, world");
        assert!(source.rewind());
        assert_eq!(read(&mut source).await, b"hello, world");
    }

    #[tokio::test]
    async fn a_large_body_is_not() {
        let (mut reader, _writer) = sent(&[7; 4_096]).await;
        let mut source = Source::replayable(RecvBody::Tcp(&mut reader), 64);
        assert_eq!(read(&mut source).await.len(), 4_096);
        assert!(!source.rewind());
    }

    #[tokio::test]
    async fn an_answer_lets_go_of_what_was_kept() {
        let (mut reader, _writer) = sent(b"hello").await;
        let mut source = Source::replayable(RecvBody::Tcp(&mut reader), 64);
        assert_eq!(read(&mut source).await, b"hello");
        source.settle();
        assert!(!source.rewind());
    }

    #[test]
    fn what_was_never_read_can_be_sent_again() {
        let mut source = Source::once(RecvBody::Empty);
        assert!(source.rewind() && source.is_end());
    }
}

//! A TCP connection with a buffer: reads lines and pieces within a deadline, and knows how the other side ended.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long either side waits for the other before it notes silence.
pub const PATIENCE: Duration = Duration::from_secs(4);

/// How the other side's bytes ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// FIN.
    Finished,
    /// RST.
    Reset,
    /// Nothing came for [`PATIENCE`].
    Silent,
}

#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    at: usize,
    ended: Option<End>,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        _ = stream.set_nodelay(true);
        Self { stream, buffer: Vec::new(), at: 0, ended: None }
    }

    /// Bytes that have been read from the socket and not been taken.
    pub fn buffered(&self) -> &[u8] {
        &self.buffer[self.at..]
    }

    pub fn ended(&self) -> Option<End> {
        self.ended
    }

    /// Reads more into the buffer; an error says that there is no more, or not in time.
    ///
    /// # Errors
    /// The other side has ended or is silent.
    pub async fn more(&mut self) -> Result<(), End> {
        self.more_within(PATIENCE).await
    }

    /// # Errors
    /// The other side has ended or is silent.
    pub async fn more_within(&mut self, patience: Duration) -> Result<(), End> {
        if let Some(end) = self.ended {
            return Err(end);
        }
        if self.at == self.buffer.len() {
            self.buffer.clear();
            self.at = 0;
        }
        let before = self.buffer.len();
        self.buffer.resize(before + 64 * 1024, 0);
        let read = tokio::time::timeout(patience, self.stream.read(&mut self.buffer[before..])).await;
        let (count, end) = match read {
            Ok(Ok(0)) => (0, Some(End::Finished)),
            Ok(Ok(count)) => (count, None),
            Ok(Err(_)) => (0, Some(End::Reset)),
            Err(_) => (0, Some(End::Silent)),
        };
        self.buffer.truncate(before + count);
        match end {
            None => Ok(()),
            Some(end) => {
                // Silence may pass; an end doesn't.
                self.ended = Some(end).filter(|end| *end != End::Silent);
                Err(end)
            }
        }
    }

    /// A line with its end, whatever that is made of.
    ///
    /// # Errors
    /// The other side has ended before the line has.
    pub async fn line(&mut self, most: usize) -> Result<Vec<u8>, End> {
        let mut looked = 0;
        loop {
            if let Some(end) = self.buffered()[looked..].iter().position(|byte| *byte == b'\n') {
                return Ok(self.take(looked + end + 1));
            }
            looked = self.buffered().len();
            if looked > most {
                return Err(End::Silent);
            }
            self.more().await?;
        }
    }

    /// Takes this many of the buffered bytes.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        let taken = self.buffered()[..count].to_vec();
        self.at += count;
        taken
    }

    /// Takes up to `most` bytes, at least one.
    ///
    /// # Errors
    /// There is none, and there will be none.
    pub async fn some(&mut self, most: u64) -> Result<Vec<u8>, End> {
        if self.buffered().is_empty() {
            self.more().await?;
        }
        let count = self.buffered().len().min(usize::try_from(most).unwrap_or(usize::MAX));
        Ok(self.take(count))
    }

    /// Exactly `count` bytes, or as many as came before the end.
    pub async fn exactly(&mut self, count: usize) -> (Vec<u8>, Option<End>) {
        let mut all = Vec::new();
        while all.len() < count {
            match self.some((count - all.len()) as u64).await {
                Ok(bytes) => all.extend(bytes),
                Err(end) => return (all, Some(end)),
            }
        }
        (all, None)
    }

    /// Everything up to the end.
    pub async fn rest(&mut self) -> (Vec<u8>, End) {
        let mut all = Vec::new();
        loop {
            match self.some(u64::MAX).await {
                Ok(bytes) => all.extend(bytes),
                Err(end) => return (all, end),
            }
        }
    }

    /// Waits until the other side has gone, whatever it still sends.
    pub async fn gone(&mut self, patience: Duration) -> bool {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            match self.more_within(left).await {
                Ok(()) => self.at = self.buffer.len(),
                Err(End::Silent) => return false,
                Err(End::Finished | End::Reset) => return true,
            }
        }
    }

    /// Writes all; false when the other side takes no more, or doesn't in time.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        let sent = tokio::time::timeout(2 * PATIENCE, self.stream.write_all(bytes)).await;
        matches!(sent, Ok(Ok(())))
    }

    /// Writes while it reads what the other side says meanwhile: a client that would otherwise block behind an early answer.
    pub async fn send_reading(&mut self, bytes: &[u8]) -> bool {
        let mut sent = 0;
        let mut scratch = vec![0; 16 * 1024];
        while sent < bytes.len() {
            let (mut read, mut write) = self.stream.split();
            let reading = self.ended.is_none();
            let step = tokio::time::timeout(2 * PATIENCE, async {
                tokio::select! {
                    written = write.write(&bytes[sent..]) => written.map(|count| (count, None)),
                    got = read.read(&mut scratch), if reading => got.map(|count| (0, Some(count))),
                }
            });
            match step.await {
                Ok(Ok((count, None))) => sent += count,
                Ok(Ok((_, Some(0)))) => self.ended = Some(End::Finished),
                Ok(Ok((_, Some(count)))) => self.buffer.extend_from_slice(&scratch[..count]),
                Ok(Err(_)) | Err(_) => return false,
            }
        }
        true
    }

    /// FIN.
    pub async fn finish(&mut self) {
        _ = self.stream.shutdown().await;
    }

    /// RST.
    pub fn reset(self) {
        // A close with the linger time at zero is what sends RST, and is what the caller asks for.
        _ = self.stream.set_zero_linger();
    }
}

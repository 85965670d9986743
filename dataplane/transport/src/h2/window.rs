//! The receive window of a whole HTTP/2 connection: as large as its open streams may need. A stream that stalls holds its
//! own window and never what the others live on, and a connection with few streams is owed little.

use super::Limits;

/// The most that RFC 9113 allows.
//= rfc9113#section-6.9.1
const MOST: u32 = (1 << 31) - 1;

#[derive(Debug)]
pub(super) struct ConnectionWindow {
    least: u32,
    most: u32,
    stream: u32,
    now: u32,
}

impl ConnectionWindow {
    /// The window as the connection begins with it.
    pub(super) fn new(limits: &Limits) -> Self {
        let (least, stream) = (limits.connection_window, limits.stream_window);
        let most = stream.saturating_mul(limits.concurrent_streams.saturating_add(1)).clamp(least, MOST.max(least));
        Self { least, most, stream, now: least }
    }

    /// The new window, where `open` streams need another than there is. It grows by doubling and shrinks when nothing is
    /// open, so that it changes seldom.
    pub(super) fn fit(&mut self, open: usize) -> Option<u32> {
        if open == 0 {
            return (std::mem::replace(&mut self.now, self.least) != self.least).then_some(self.least);
        }
        // One more than there are: the next one finds room while it is being told.
        let streams = u32::try_from(open).unwrap_or(u32::MAX).saturating_add(1);
        let needed = self.stream.saturating_mul(streams).min(self.most);
        if needed <= self.now {
            return None;
        }
        self.now = needed.checked_next_power_of_two().unwrap_or(self.most).min(self.most);
        Some(self.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_room_for_a_full_window_of_each_stream_and_one_more() {
        let limits =
            Limits { stream_window: 100, connection_window: 500, concurrent_streams: 256, ..Limits::default() };
        let mut window = ConnectionWindow::new(&limits);
        let mut now = window.now;
        let mut changes = 0;
        for open in 1..=256 {
            if let Some(grown) = window.fit(open) {
                assert!(grown > now);
                now = grown;
                changes += 1;
            }
            assert!(u64::from(now) >= 100 * (open as u64 + 1), "{now} for {open} streams");
        }
        assert_eq!((now, changes), (25_700, 6));
        assert_eq!(window.fit(1), None, "what is lent is not asked back while streams are open");
        assert_eq!(window.fit(0), Some(500));
        assert_eq!((window.fit(0), window.fit(1)), (None, None));
    }

    #[test]
    fn it_never_leaves_what_the_protocol_allows() {
        let limits = Limits { stream_window: MOST, connection_window: 65_535, ..Limits::default() };
        assert_eq!(ConnectionWindow::new(&limits).fit(7), Some(MOST));
    }
}

//! A link between two hosts that are network namespaces: two TUN devices, and a thread each way that keeps every packet until
//! it is due. Delay, rate and queue are ours, so that TCP and QUIC meet the same link on any kernel.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};

/// A namespace at one end of the link.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub(crate) namespace: &'static str,
    pub(crate) address: &'static str,
    device: &'static str,
}

pub(crate) const NEAR: End = End { namespace: "weft-bench-near", address: "10.91.0.1", device: "weft-near" };
pub(crate) const FAR: End = End { namespace: "weft-bench-far", address: "10.91.0.2", device: "weft-far" };

/// What a packet meets on its way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    pub(crate) one_way: Duration,
    pub(crate) megabits: u32,
    /// Bytes that wait at the most; what comes then is dropped.
    pub(crate) queue: u32,
}

/// Packets are read in rounds of so many, so that those that are due are not kept waiting by those that come.
const ROUND: usize = 64;
const LARGEST: usize = 64 * 1024;

/// Two namespaces and the line between them; both go with it.
#[derive(Debug)]
pub(crate) struct Link {
    stop: Arc<AtomicBool>,
    carriers: Vec<JoinHandle<()>>,
}

impl Link {
    pub(crate) fn new(line: Line) -> Result<Self> {
        remove();
        let (near, far) = (Arc::new(open(NEAR)?), Arc::new(open(FAR)?));
        let mut link = Self { stop: Arc::default(), carriers: Vec::new() };
        for (from, to) in [(near.clone(), far.clone()), (far, near)] {
            let stop = link.stop.clone();
            link.carriers.push(std::thread::spawn(move || carry(&from, &to, line, &stop)));
        }
        Ok(link)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.carriers.drain(..).for_each(|carrier| drop(carrier.join()));
        remove();
    }
}

fn remove() {
    for end in [NEAR, FAR] {
        // It may not be there.
        drop(Command::new("ip").args(["netns", "del", end.namespace]).output());
    }
}

/// A device of that end. It is opened here and then moved: packets go on coming to the one who opened it.
fn open(end: End) -> Result<File> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open("/dev/net/tun", flags, Mode::empty()).context("cannot open /dev/net/tun")?);
    attach(&file, end.device).with_context(|| format!("cannot make the device {}", end.device))?;
    ip(&["netns", "add", end.namespace])?;
    ip(&["link", "set", end.device, "netns", end.namespace])?;
    ip(&["-n", end.namespace, "link", "set", "lo", "up"])?;
    ip(&["-n", end.namespace, "addr", "add", &format!("{}/30", end.address), "dev", end.device])?;
    ip(&["-n", end.namespace, "link", "set", end.device, "up", "mtu", "1500", "txqueuelen", "10000"])?;
    Ok(file)
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("cannot start ip")?;
    if !output.status.success() {
        bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// `struct ifreq` of linux/if.h, as TUNSETIFF reads it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

#[expect(unsafe_code, reason = "no safe interface to TUNSETIFF is worth a dependency")]
fn attach(file: &File, name: &str) -> rustix::io::Result<()> {
    /// `_IOW('T', 202, int)`, IFF_TUN and IFF_NO_PI of linux/if_tun.h.
    const TUNSETIFF: rustix::ioctl::Opcode = 0x4004_54ca;
    const TUN_WITHOUT_INFORMATION: u16 = 0x0001 | 0x1000;
    let mut request = InterfaceRequest { name: [0; 16], flags: TUN_WITHOUT_INFORMATION, rest: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: the kernel reads a `struct ifreq` of 40 bytes behind this number, which is what is given.
    unsafe { rustix::ioctl::ioctl(file, rustix::ioctl::Setter::<TUNSETIFF, _>::new(request)) }
}

/// One way: until it is told to stop, or its device is gone.
fn carry(from: &File, to: &File, line: Line, stop: &AtomicBool) {
    let mut under_way = UnderWay::new(line);
    let mut packet = vec![0; LARGEST];
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        let wait = under_way.next().map_or(Duration::from_millis(50), |due| due.saturating_duration_since(now));
        let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.min(Duration::from_millis(50)).subsec_nanos()) };
        let mut readable = [PollFd::from_borrowed_fd(from.as_fd(), PollFlags::IN)];
        if poll(&mut readable, Some(&wait)).is_ok_and(|ready| ready > 0) {
            for _ in 0..ROUND {
                let mut from = from;
                let Ok(length) = from.read(&mut packet) else { break };
                under_way.enter(&packet[..length], Instant::now());
            }
        }
        while let Some(packet) = under_way.leave(Instant::now()) {
            // A full device drops it, as a line would.
            let mut to = to;
            drop(to.write(&packet));
        }
    }
}

/// The packets of one way, oldest first.
struct UnderWay {
    line: Line,
    /// When what was taken last has left the sender's end.
    sent: Instant,
    packets: VecDeque<(Instant, Box<[u8]>)>,
}

impl UnderWay {
    fn new(line: Line) -> Self {
        Self { line, sent: Instant::now(), packets: VecDeque::new() }
    }

    /// How long so many bytes take at the line's rate.
    fn time(&self, bytes: usize) -> Duration {
        Duration::from_nanos(bytes as u64 * 8_000 / u64::from(self.line.megabits.max(1)))
    }

    fn enter(&mut self, packet: &[u8], now: Instant) {
        let free = self.sent.max(now);
        if free - now > self.time(self.line.queue as usize) {
            return;
        }
        self.sent = free + self.time(packet.len());
        self.packets.push_back((self.sent + self.line.one_way, packet.into()));
    }

    fn next(&self) -> Option<Instant> {
        self.packets.front().map(|(due, _)| *due)
    }

    fn leave(&mut self, now: Instant) -> Option<Box<[u8]>> {
        self.packets.pop_front_if(|(due, _)| *due <= now).map(|(_, packet)| packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: Line = Line { one_way: Duration::from_millis(10), megabits: 8, queue: 2_000 };

    #[test]
    fn packets_leave_after_their_time_on_the_line_in_order_and_what_no_longer_fits_is_dropped() {
        let now = Instant::now();
        let mut under_way = UnderWay::new(LINE);
        under_way.sent = now;
        // 1,000 bytes at 8 Mbit/s take 1 ms: three of them wait 3 ms, longer than 2,000 bytes may.
        for number in 0..5 {
            under_way.enter(&[number; 1_000], now);
        }
        let after = |ms| now + Duration::from_millis(ms);
        assert_eq!(under_way.leave(after(10)), None);
        assert_eq!(under_way.next(), Some(after(11)));
        let left: Vec<_> = std::iter::from_fn(|| under_way.leave(after(50))).map(|packet| packet[0]).collect();
        assert_eq!(left, [0, 1, 2]);
        // The line is free again.
        under_way.enter(&[9; 1_000], after(100));
        assert_eq!(under_way.next(), Some(after(111)));
    }
}

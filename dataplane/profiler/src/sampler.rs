//! Samples by SIGPROF. The handler copies registers and the top of the stack into a slot made beforehand, nothing else: it
//! takes no lock, allocates nothing, unwinds nothing, and lets the kernel read the stack, for which a wrong pointer is an
//! error and no fault.
#![expect(unsafe_code, reason = "signals, timers and registers have no safe interface")]

use std::sync::OnceLock;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use std::time::Duration;

/// Samples that wait for the profiler; those beyond are counted as lost.
const SLOTS: usize = 64;
const WORD: usize = size_of::<u64>();
const PAGE: usize = 4_096;
/// Stack that a sample keeps; outer frames of deeper ones are cut off.
const STACK_BYTES: usize = 64 << 10;

const FREE: u8 = 0;
const TAKEN: u8 = 1;
const FULL: u8 = 2;

static RING: OnceLock<Ring> = OnceLock::new();
static ENABLED: AtomicBool = AtomicBool::new(false);

/// Made for the first profile and kept: a late signal must find it.
struct Ring {
    slots: Vec<Slot>,
    lost: AtomicU64,
}

struct Slot {
    state: AtomicU8,
    thread: AtomicU32,
    /// pc, sp, fp and, where there is one, the link register.
    registers: [AtomicU64; 4],
    /// Bytes of `stack` that were copied.
    bytes: AtomicU64,
    stack: Box<[AtomicU64]>,
}

/// State of a thread when the signal came: its registers and the top of its stack.
#[derive(Debug)]
pub(super) struct Sample<'s> {
    pub(super) thread: u32,
    pub(super) pc: u64,
    sp: u64,
    fp: u64,
    #[cfg_attr(target_arch = "x86_64", expect(dead_code, reason = "no such register"))]
    link: u64,
    stack: &'s [AtomicU64],
}

impl Sample<'_> {
    #[cfg(target_arch = "x86_64")]
    pub(super) fn registers(&self) -> framehop::UnwindRegsNative {
        framehop::UnwindRegsNative::new(self.pc, self.sp, self.fp)
    }

    #[cfg(target_arch = "aarch64")]
    pub(super) fn registers(&self) -> framehop::UnwindRegsNative {
        framehop::UnwindRegsNative::new(self.link, self.sp, self.fp)
    }

    /// A word of the copied stack.
    pub(super) fn read(&self, address: u64) -> Option<u64> {
        let offset = usize::try_from(address.checked_sub(self.sp)?).ok()?;
        let word = self.stack.get(offset / WORD).filter(|_| offset.is_multiple_of(WORD))?;
        Some(word.load(Relaxed))
    }
}

/// Signals come for as long as it lives.
pub(super) struct Sampling {
    ring: &'static Ring,
}

impl Sampling {
    /// Samples whichever thread runs each time the process has used `period` of processor time.
    pub(super) fn start(period: Duration) -> std::io::Result<Self> {
        let ring = RING.get_or_init(Ring::new);
        ring.lost.store(0, Relaxed);
        ring.slots.iter().for_each(|slot| _ = slot.state.compare_exchange(FULL, FREE, AcqRel, Relaxed));
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = handle as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        // SAFETY: the handler keeps to what a signal handler may do. It stays: a signal that is late finds it.
        if unsafe { libc::sigaction(libc::SIGPROF, &raw const action, std::ptr::null_mut()) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
        ENABLED.store(true, Release);
        let sampling = Self { ring };
        set_timer(period)?;
        Ok(sampling)
    }

    /// Hands on what has been sampled.
    pub(super) fn drain(&self, mut take: impl FnMut(&Sample<'_>)) {
        for slot in self.ring.slots.iter().filter(|slot| slot.state.load(Acquire) == FULL) {
            let [pc, sp, fp, link] = slot.registers.each_ref().map(|register| register.load(Relaxed));
            let words = usize::try_from(slot.bytes.load(Relaxed)).unwrap_or(0) / WORD;
            let thread = slot.thread.load(Relaxed);
            take(&Sample { thread, pc, sp, fp, link, stack: slot.stack.get(..words).unwrap_or_default() });
            slot.state.store(FREE, Release);
        }
    }

    /// Samples that found no free slot.
    pub(super) fn lost(&self) -> u64 {
        self.ring.lost.load(Relaxed)
    }
}

impl Drop for Sampling {
    fn drop(&mut self) {
        // It cannot fail where starting it did not, and a signal too many does no harm.
        let _ = set_timer(Duration::ZERO);
        ENABLED.store(false, Release);
    }
}

impl Ring {
    fn new() -> Self {
        let words = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect();
        let slot = |_| Slot {
            state: AtomicU8::new(FREE),
            thread: AtomicU32::new(0),
            registers: Default::default(),
            bytes: AtomicU64::new(0),
            stack: words(STACK_BYTES / WORD),
        };
        Self { slots: (0..SLOTS).map(slot).collect(), lost: AtomicU64::new(0) }
    }

    /// In the handler.
    fn keep(&self, registers: [u64; 4]) {
        let free = |slot: &&Slot| slot.state.compare_exchange(FREE, TAKEN, Acquire, Relaxed).is_ok();
        let Some(slot) = self.slots.iter().find(free) else {
            self.lost.fetch_add(1, Relaxed);
            return;
        };
        for (place, register) in slot.registers.iter().zip(registers) {
            place.store(register, Relaxed);
        }
        slot.thread.store(thread_id(), Relaxed);
        slot.bytes.store(copy_stack(registers[1], &slot.stack), Relaxed);
        slot.state.store(FULL, Release);
    }
}

extern "C" fn handle(_signal: libc::c_int, _info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let Some(ring) = RING.get().filter(|_| ENABLED.load(Acquire) && !context.is_null()) else { return };
    // SAFETY: the thread's own errno, which what it interrupted may be about to read.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: with SA_SIGINFO the kernel passes the interrupted context.
    ring.keep(registers(unsafe { &*context.cast::<libc::ucontext_t>() }));
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

#[cfg(target_arch = "x86_64")]
fn registers(context: &libc::ucontext_t) -> [u64; 4] {
    let registers = &context.uc_mcontext.gregs;
    let of = |index: libc::c_int| {
        usize::try_from(index).ok().and_then(|index| registers.get(index)).map_or(0, |r| r.cast_unsigned())
    };
    [of(libc::REG_RIP), of(libc::REG_RSP), of(libc::REG_RBP), 0]
}

#[cfg(target_arch = "aarch64")]
fn registers(context: &libc::ucontext_t) -> [u64; 4] {
    let machine = &context.uc_mcontext;
    [machine.pc, machine.sp, machine.regs[29], machine.regs[30]]
}

/// Copies what lies above `sp`, page by page so that the end of the stack ends the copy. Gives the bytes copied.
fn copy_stack(sp: u64, into: &[AtomicU64]) -> u64 {
    let Ok(mut from) = usize::try_from(sp) else { return 0 };
    let mut left = size_of_val(into);
    let mut pages = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; STACK_BYTES / PAGE + 1];
    let mut count: libc::c_ulong = 0;
    for page in &mut pages {
        let length = (PAGE - from % PAGE).min(left);
        if length == 0 {
            break;
        }
        *page = libc::iovec { iov_base: std::ptr::without_provenance_mut(from), iov_len: length };
        left -= length;
        from = from.wrapping_add(length);
        count += 1;
    }
    let local = libc::iovec { iov_base: into.as_ptr().cast_mut().cast(), iov_len: size_of_val(into) };
    // SAFETY: `local` is ours and atomic, so that it may be written behind a shared reference; the kernel checks what it reads.
    let copied = unsafe { libc::process_vm_readv(libc::getpid(), &raw const local, 1, pages.as_ptr(), count, 0) };
    u64::try_from(copied).unwrap_or(0)
}

pub(super) fn thread_id() -> u32 {
    // SAFETY: it takes nothing and cannot fail.
    unsafe { libc::gettid() }.cast_unsigned()
}

/// Zero stops it.
fn set_timer(period: Duration) -> std::io::Result<()> {
    let period = libc::timeval {
        tv_sec: libc::time_t::try_from(period.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_usec: libc::suseconds_t::from(period.subsec_micros()),
    };
    let timer = libc::itimerval { it_interval: period, it_value: period };
    // SAFETY: it reads `timer` and writes nowhere.
    let result = unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const timer, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

fn zeroed() -> libc::sigaction {
    // SAFETY: a C structure of integers, a mask and an optional function, for which zeros are valid.
    unsafe { std::mem::zeroed() }
}

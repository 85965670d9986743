//! Which socket of a SO_REUSEPORT group gets a datagram: the one whose index is the first byte of the destination
//! connection ID modulo their number. A classic BPF program in the kernel; the only unsafe call of this crate's QUIC side.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use super::Worker;

/// `setsockopt(2)` on Linux (asm-generic); libc has the constant for Android only.
const SO_ATTACH_REUSEPORT_CBPF: libc::c_int = 51;

const LONG_HEADER: u32 = 0x80;

/// The program for `count` sockets; the kernel runs it with offset 0 at the UDP payload. A load beyond the datagram's
/// end returns 0, the first worker.
fn program(count: u16) -> [libc::sock_filter; 7] {
    let load_byte = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    [
        instruction(load_byte, 0),
        jump(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, LONG_HEADER, 0, 2),
        //= rfc9000#section-17.2
        //# Header Form (1) [...] Version (32), Destination Connection ID Length (8), Destination Connection ID
        instruction(load_byte, 6),
        jump(libc::BPF_JMP | libc::BPF_JA, 1, 0, 0),
        //= rfc9000#section-17.3
        //# Header Form (1) = 0 [...] Destination Connection ID
        instruction(load_byte, 1),
        instruction(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, u32::from(count)),
        instruction(libc::BPF_RET | libc::BPF_A, 0),
    ]
}

fn instruction(code: u32, k: u32) -> libc::sock_filter {
    jump(code, k, 0, 0)
}

fn jump(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    let code = u16::try_from(code).expect("classic BPF operation codes are 16 bits");
    libc::sock_filter { code, jt, jf, k }
}

/// Steers the whole group that `socket` belongs to. Sockets count in the order in which they were bound.
#[expect(unsafe_code, reason = "no safe wrapper of SO_ATTACH_REUSEPORT_CBPF exists in socket2, nix or rustix")]
pub(crate) fn attach(socket: &UdpSocket, worker: Worker) -> io::Result<()> {
    let mut filter = program(worker.count);
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).expect("the program is a handful of instructions"),
        filter: filter.as_mut_ptr(),
    };
    let length = libc::socklen_t::try_from(size_of_val(&program)).expect("a sock_fprog is 16 bytes");
    // SAFETY: the descriptor is open for the whole call (borrowed from `socket`); `program` and the `filter` it points to
    // live on this stack frame until the call returns; the kernel copies both and only reads them; `length` is the size
    // of what the pointer points to.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

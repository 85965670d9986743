//! Network namespaces: two hosts with a cable between them, and sockets of another namespace, which a thread that has moved there
//! makes, and everybody may use. Needs root.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Socket, Type};

/// The addresses of the two hosts.
pub const HERE: &str = "10.231.7.1";
pub const THERE: &str = "10.231.7.2";

/// Two namespaces joined by a veth pair; gone when dropped.
#[derive(Debug)]
pub struct Hosts {
    pub here: String,
    pub there: String,
}

impl Hosts {
    /// # Panics
    /// When the kernel or `ip` refuses.
    #[expect(clippy::new_without_default, reason = "this makes something in the kernel")]
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let hosts = Self { here: format!("weft-a-{id}"), there: format!("weft-b-{id}") };
        let (a, b) = (format!("wa{id}"), format!("wb{id}"));
        for netns in [&hosts.here, &hosts.there] {
            ip(&["netns", "add", netns]);
        }
        ip(&["link", "add", &a, "netns", &hosts.here, "type", "veth", "peer", "name", &b, "netns", &hosts.there]);
        for (netns, link, v4, v6) in [(&hosts.here, &a, HERE, "fd77:7::1"), (&hosts.there, &b, THERE, "fd77:7::2")] {
            ip(&["-n", netns, "address", "add", &format!("{v4}/24"), "dev", link]);
            ip(&["-n", netns, "address", "add", &format!("{v6}/64"), "dev", link, "nodad"]);
            for up in [link.as_str(), "lo"] {
                ip(&["-n", netns, "link", "set", up, "up"]);
            }
        }
        hosts
    }
}

/// A namespace with a cable to this host, over a switch whose plugs can be pulled; gone when dropped.
#[derive(Debug)]
pub struct Apart {
    pub name: String,
    /// The namespace of the switch, and its plugs: to this host and to the other.
    switch: String,
    plugs: [String; 2],
    link: String,
    subnet: u8,
}

impl Apart {
    /// # Panics
    /// When the kernel or `ip` refuses.
    #[expect(clippy::new_without_default, reason = "this makes something in the kernel")]
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}{number}", std::process::id());
        let (name, switch) = (format!("weft-c-{id}"), format!("weft-s-{id}"));
        let (link, other, plugs) = (format!("wc{id}"), format!("wd{id}"), [format!("we{id}"), format!("wf{id}")]);
        let subnet = u8::try_from(8 + number % 200).unwrap_or(8);
        let apart = Self { name, switch, plugs, link, subnet };
        for netns in [&apart.name, &apart.switch] {
            ip(&["netns", "add", netns]);
        }
        ip(&["link", "add", &apart.link, "type", "veth", "peer", "name", &apart.plugs[0], "netns", &apart.switch]);
        let to = ["peer", "name", &apart.plugs[1], "netns", &apart.switch];
        ip(&[&["-n", &apart.name, "link", "add", &other, "type", "veth"][..], &to].concat());
        ip(&["-n", &apart.switch, "link", "add", "name", "weft-switch", "type", "bridge"]);
        ip(&["-n", &apart.switch, "link", "set", "weft-switch", "up"]);
        for plug in &apart.plugs {
            ip(&["-n", &apart.switch, "link", "set", plug, "master", "weft-switch"]);
        }
        ip(&["address", "add", &format!("{}/24", apart.host(1)), "dev", &apart.link]);
        ip(&["link", "set", &apart.link, "up"]);
        ip(&["-n", &apart.name, "address", "add", &format!("{}/24", apart.there()), "dev", &other]);
        for up in [other.as_str(), "lo"] {
            ip(&["-n", &apart.name, "link", "set", up, "up"]);
        }
        apart.set_open(true);
        apart
    }

    /// The other host's address.
    pub fn there(&self) -> IpAddr {
        Ipv4Addr::new(10, 231, self.subnet, 2).into()
    }

    fn host(&self, number: u8) -> IpAddr {
        Ipv4Addr::new(10, 231, self.subnet, number).into()
    }

    /// This host's address on the cable, from which it speaks to the other.
    pub fn here(&self) -> IpAddr {
        self.host(1)
    }

    /// A further address of this host on the cable; `number` from 3 on.
    ///
    /// # Panics
    /// When `ip` refuses.
    pub fn further(&self, number: u8) -> IpAddr {
        let address = self.host(number);
        ip(&["address", "add", &format!("{address}/24"), "dev", &self.link]);
        address
    }

    /// Plugs both ends in or out. Connections stay open and addresses stay; nothing comes through.
    ///
    /// # Panics
    /// When `ip` refuses.
    pub fn set_open(&self, open: bool) {
        for plug in &self.plugs {
            ip(&["-n", &self.switch, "link", "set", plug, if open { "up" } else { "down" }]);
        }
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        _ = Command::new("ip").args(["link", "delete", &self.link]).output();
        for netns in [&self.name, &self.switch] {
            _ = Command::new("ip").args(["netns", "delete", netns]).output();
        }
    }
}

impl Hosts {
    /// The interface of `here`.
    pub fn link_here(&self) -> String {
        self.here.replacen("weft-a-", "wa", 1)
    }

    /// The interface of `there`.
    pub fn link_there(&self) -> String {
        self.there.replacen("weft-b-", "wb", 1)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for netns in [&self.here, &self.there] {
            _ = Command::new("ip").args(["netns", "delete", netns]).output();
        }
    }
}

/// A call of `ip`.
///
/// # Panics
/// When it is refused.
pub fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("ip runs");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread inside a namespace; it ends with its handle.
#[derive(Debug, Clone)]
pub struct Namespace {
    jobs: mpsc::Sender<Job>,
}

impl Namespace {
    /// Enters the namespace that `ip netns add NAME` made.
    ///
    /// # Errors
    /// There is none of this name, or we may not enter it.
    ///
    /// # Panics
    /// When no thread can be started.
    pub fn enter(name: &str) -> io::Result<Self> {
        let file = File::open(format!("/run/netns/{name}"))?;
        let (jobs, queue) = mpsc::channel::<Job>();
        let (said, entered) = mpsc::channel();
        let work = move || {
            _ = said.send(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)));
            queue.into_iter().for_each(|job| job());
        };
        std::thread::Builder::new().name(format!("in {name}")).spawn(work).expect("a thread");
        entered.recv().map_err(io::Error::other)??;
        Ok(Self { jobs })
    }

    fn run<T: Send + 'static>(&self, make: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
        let (said, made) = mpsc::channel();
        self.jobs
            .send(Box::new(move || _ = said.send(make())))
            .map_err(|_| io::Error::other("the thread has ended"))?;
        made.recv().map_err(io::Error::other)?
    }

    /// # Errors
    /// As from the kernel.
    pub fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        self.run(move || TcpListener::bind(address))
    }

    /// A connection for this runtime.
    ///
    /// # Errors
    /// As from the kernel.
    ///
    /// # Panics
    /// When the thread that waits does.
    pub async fn dial(&self, address: SocketAddr) -> io::Result<tokio::net::TcpStream> {
        let own = self.clone();
        let connected = tokio::task::spawn_blocking(move || own.connect(address)).await;
        let stream = connected.expect("connecting does not panic")?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        tokio::net::TcpStream::from_std(stream)
    }

    /// # Errors
    /// As from the kernel.
    pub fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        self.run(move || TcpStream::connect(address))
    }

    /// From a port of one's own, which may be used towards other addresses too.
    ///
    /// # Errors
    /// As from the kernel.
    pub fn connect_from(&self, port: u16, address: SocketAddr) -> io::Result<TcpStream> {
        self.run(move || {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            let any: IpAddr =
                if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            socket.bind(&SocketAddr::new(any, port).into())?;
            socket.connect(&address.into())?;
            Ok(socket.into())
        })
    }
}

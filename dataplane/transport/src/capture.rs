//! How connections get here and how ours leave: original destinations, nftables rules, marked and reuseport sockets.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

/// Set on every socket the proxy opens, so that its own traffic is never captured ("weft").
pub const MARK: u32 = 0x7765_6674;

pub fn original_dst(_stream: &TcpStream) -> Option<SocketAddr> {
    todo!()
}
pub fn listen_tcp(_addr: SocketAddr, _reuseport: bool, _mark: Option<u32>) -> io::Result<TcpListener> {
    todo!()
}
pub async fn connect_tcp(
    _addr: SocketAddr,
    _source: Option<IpAddr>,
    _mark: Option<u32>,
    _timeout: Duration,
) -> io::Result<TcpStream> {
    todo!()
}
#[derive(Debug, Clone)]
pub struct Rules {}
impl Rules {
    pub fn render(&self) -> String {
        todo!()
    }
    pub async fn install(&self) -> Result<(), CaptureError> {
        todo!()
    }
    pub async fn remove(&self) -> Result<(), CaptureError> {
        todo!()
    }
}
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {}

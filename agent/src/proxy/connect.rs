//! Reaches the real server. Demands a permit: what policy did not admit is not dialled.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{net::TcpStream, time::timeout};

use crate::{
    flow::{Failure, Reason},
    policy::Permit,
};

/// Dials the permit's original destination in the clear, from the workload's network namespace (the host's).
///
/// # Errors
/// Unreachable within [`CONNECT_TIMEOUT`]; the detail names the address and the cause.
pub(super) async fn connect(permit: &Permit) -> Result<TcpStream, Failure> {
    dial(permit.flow().origin.orig_dst.0).await
}

/// As `connect`, for an address that a permit led to before (cancel requests, catalog look-ups).
pub(super) async fn dial(address: SocketAddr) -> Result<TcpStream, Failure> {
    let address = reachable(address);
    let unreachable = |cause: String| Failure::new(Reason::UpstreamUnreachable, format!("connect {address}: {cause}"));
    let stream = match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Err(_) => return Err(unreachable(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()))),
        Ok(Err(error)) => return Err(unreachable(cause(&error))),
        Ok(Ok(stream)) => stream,
    };
    tune(&stream);
    Ok(stream)
}

/// Small messages go out at once, and a peer that vanished is noticed. A socket that refuses an option still works.
pub(super) fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

/// Makes the close of this stream a reset: the workload then sees an error, as it would have from an unreachable server.
pub(super) fn reset_on_close(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Connecting to the unspecified address means loopback (Linux); say so, rather than depend on it.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn cause(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        std::io::ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        _ => error.to_string(),
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

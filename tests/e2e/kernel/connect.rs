//! Ways to connect: all of them end at the proxy, which knows where they wanted to go.

use super::{
    clients::{compile, dial, program, python, say},
    world::World,
};

fn host_and_port(address: std::net::SocketAddr) -> [String; 2] {
    [address.ip().to_string(), address.port().to_string()]
}

#[test]
fn row_1_tcp_is_redirected_and_sees_its_own_peer() {
    let world = World::new();
    let [host, port] = host_and_port(world.real4);
    let script = r#"
s = dial(socket.AF_INET, (sys.argv[1], int(sys.argv[2])))
print(hear(s), s.getpeername()[0], s.getpeername()[1])
"#;
    assert_eq!(say(&world.places.inside, script, &[&host, &port]), format!("PROXY {} {host} {port}", world.real4));
    let origin = world.proxy.last();
    assert_eq!((origin.uid, origin.gid, origin.by_task), (0, 0, true));
    assert_eq!(origin.cgroup_id, weir::intercept::cgroup_id(&world.places.inside).unwrap());
    assert!(world.interceptor().stats().unwrap().redirected >= 1);
}

#[test]
fn row_1_a_connect_that_does_not_block_is_redirected() {
    let world = World::new();
    let [host, port] = host_and_port(world.real4);
    let script = r#"
s = socket.socket(); s.setblocking(False)
r = s.connect_ex((sys.argv[1], int(sys.argv[2])))
assert r in (0, errno.EINPROGRESS), r
import select; select.select([], [s], [], 5)
print(hear(s), s.getpeername()[0])
"#;
    assert_eq!(say(&world.places.inside, script, &[&host, &port]), format!("PROXY {} {host}", world.real4));
}

#[test]
fn row_2_ipv6_is_redirected_and_sees_its_own_peer() {
    let world = World::new();
    let [host, port] = host_and_port(world.real6);
    let script = r#"
s = dial(socket.AF_INET6, (sys.argv[1], int(sys.argv[2])))
print(hear(s), s.getpeername()[0], s.getpeername()[1])
"#;
    assert_eq!(say(&world.places.inside, script, &[&host, &port]), format!("PROXY {} ::1 {port}", world.real6));
}

#[test]
fn row_2_ipv6_is_sent_to_the_ipv4_listener_where_there_is_no_other() {
    let world = World::new();
    world.interceptor().publish(Some(world.proxy.v4.port()), None).unwrap();
    assert_eq!(dial(&world.places.inside, world.real6), format!("PROXY {}", world.real6));
}

#[test]
fn row_2_ipv6_is_refused_where_there_is_no_listener() {
    let world = World::new();
    world.interceptor().publish(None, None).unwrap();
    assert_eq!(dial(&world.places.inside, world.real6), "ECONNREFUSED");
    assert_eq!(dial(&world.places.inside, world.real4), "ECONNREFUSED");
}

#[test]
fn row_3_a_v4_mapped_destination_is_redirected() {
    let world = World::new();
    let port = world.real4.port().to_string();
    let script = r#"
s = dial(socket.AF_INET6, ("::ffff:127.0.0.5", int(sys.argv[1])))
print(hear(s), s.getpeername()[0])
"#;
    assert_eq!(say(&world.places.inside, script, &[&port]), format!("PROXY {} ::ffff:127.0.0.5", world.real4));
}

#[test]
fn row_5_the_unspecified_address_means_this_host() {
    let world = World::new();
    let script = r#"
tell(lambda: hear(dial(socket.AF_INET, ("0.0.0.0", 4321))))
tell(lambda: hear(dial(socket.AF_INET6, ("::", 4321))))
tell(lambda: hear(dial(socket.AF_INET6, ("::ffff:0.0.0.0", 4321))))
"#;
    let heard = python(&world.places.inside, script, &[]);
    assert_eq!(heard, ["PROXY 127.0.0.1:4321", "PROXY [::1]:4321", "PROXY 127.0.0.1:4321"]);
}

#[test]
fn row_6_fast_open_is_redirected() {
    let world = World::new();
    let script = r#"
FAST = 0x20000000
for family, host, port in ((socket.AF_INET, "127.0.0.5", sys.argv[1]), (socket.AF_INET6, "::1", sys.argv[2])):
    s = socket.socket(family); s.sendto(b"hello", FAST, (host, int(port)))
    tell(lambda: hear(s))
    s = socket.socket(family); s.setsockopt(socket.IPPROTO_TCP, 30, 1)  # TCP_FASTOPEN_CONNECT
    s.connect((host, int(port))); s.send(b"hello")
    tell(lambda: hear(s))
"#;
    let heard = python(&world.places.inside, script, &[&world.real4.port().to_string(), &world.real6.port().to_string()]);
    let (v4, v6) = (format!("PROXY {}", world.real4), format!("PROXY {}", world.real6));
    assert_eq!(heard, [v4.clone(), v4, v6.clone(), v6]);
}

#[test]
fn row_7_io_uring_is_redirected() {
    io_uring("0");
}

#[test]
fn row_7_io_uring_with_a_kernel_thread_is_redirected() {
    io_uring("2"); // IORING_SETUP_SQPOLL
}

fn io_uring(setup_flags: &str) {
    let world = World::new();
    let directory = tempfile::tempdir().unwrap();
    let client = compile(directory.path(), include_str!("io_uring.c"));
    let heard = program(&world.places.inside, &client, &["127.0.0.5", &world.real4.port().to_string(), setup_flags]);
    assert_eq!(heard, [format!("PROXY {}", world.real4)]);
    // The kernel thread that polls the ring acts for the process: the record names neither the thread nor nobody.
    let origin = world.proxy.last();
    assert!(origin.pid > 0 && origin.by_task);
}

#[test]
fn row_28_a_socket_that_is_connected_again_has_a_new_origin() {
    let world = World::new();
    let script = r#"
s = dial(socket.AF_INET, ("127.0.0.5", int(sys.argv[1])))
print(hear(s), s.getpeername()[1])
disconnect(s)
s.connect(("127.0.0.6", 4322))
print(hear(s), s.getpeername()[0], s.getpeername()[1])
"#;
    let heard = python(&world.places.inside, script, &[&world.real4.port().to_string()]);
    assert_eq!(heard, [format!("PROXY {} {}", world.real4, world.real4.port()), "PROXY 127.0.0.6:4322 127.0.0.6 4322".into()]);
}

#[test]
fn row_28_a_socket_that_is_connected_again_by_somebody_else_shows_no_old_peer() {
    let world = World::new();
    let [host, port] = host_and_port(world.real4);
    // Made outside, so without a mark; connected inside; then outside again.
    let script = r#"
outside, inside, host, port = sys.argv[1:]
s = socket.socket()
enter(inside); s.connect((host, 4323)); print(hear(s), s.getpeername()[1])
enter(outside); disconnect(s); s.connect((host, int(port))); print(hear(s), s.getpeername()[1])
"#;
    let (outside, inside) = (world.places.outside.to_str().unwrap(), world.places.inside.to_str().unwrap());
    let heard = python(&world.places.outside, script, &[outside, inside, &host, &port]);
    assert_eq!(heard, [format!("PROXY {host}:4323 4323"), format!("REAL {port}")]);
}

#[test]
fn row_30_a_socket_that_is_bound_to_an_interface_is_redirected() {
    let world = World::new();
    let _veth = Veth::new();
    let script = r#"
for family, host, port in ((socket.AF_INET, "127.0.0.5", sys.argv[1]), (socket.AF_INET6, "::1", sys.argv[2])):
    s = socket.socket(family); s.setsockopt(socket.SOL_SOCKET, 25, sys.argv[3].encode())  # SO_BINDTODEVICE
    s.settimeout(8); s.connect((host, int(port)))
    tell(lambda: hear(s))
"#;
    let (port4, port6) = (world.real4.port().to_string(), world.real6.port().to_string());
    let heard = python(&world.places.inside, script, &[&port4, &port6, &Veth::name()]);
    assert_eq!(heard, [format!("PROXY {}", world.real4), format!("PROXY {}", world.real6)]);
    assert!(world.proxy.last().ifindex > 1);
}

#[test]
fn row_30_a_socket_with_a_source_address_is_redirected() {
    let world = World::new();
    let script = r#"
s = socket.socket(); s.bind(("127.0.0.77", 0)); s.connect(("127.0.0.5", int(sys.argv[1])))
tell(lambda: hear(s))
s = socket.socket(socket.AF_INET6); s.bind(("::1", 0)); s.connect(("::1", int(sys.argv[2])))
tell(lambda: hear(s))
s = socket.socket(socket.AF_INET6); s.bind(("::ffff:127.0.0.78", 0)); s.connect(("::", 4324))
tell(lambda: hear(s))
"#;
    let heard = python(&world.places.inside, script, &[&world.real4.port().to_string(), &world.real6.port().to_string()]);
    assert_eq!(heard, [format!("PROXY {}", world.real4), format!("PROXY {}", world.real6), "PROXY 127.0.0.1:4324".into()]);
}

/// A pair of interfaces that lead to each other, and nowhere.
struct Veth;

impl Veth {
    fn name() -> String {
        format!("wt{}", std::process::id())
    }

    fn new() -> Self {
        let (name, peer) = (Self::name(), format!("{}p", Self::name()));
        let add = ["link", "add", &name, "up", "type", "veth", "peer", "name", &peer];
        let status = std::process::Command::new("ip").args(add).status().expect("iproute2");
        assert!(status.success());
        Self
    }
}

impl Drop for Veth {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip").args(["link", "del", &Self::name()]).status();
    }
}

//! Datagrams, other protocols, and sockets that travel.

use super::{
    clients::{dial, python, say},
    world::{World, real_datagrams},
};

#[test]
fn row_4_datagrams_of_an_ipv6_socket_to_ipv4_are_refused() {
    let world = World::new();
    let script = r#"
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
tell(lambda: s.sendto(b"x", ("::ffff:127.0.0.5", 443)))
tell(lambda: s.connect(("::ffff:127.0.0.5", 443)))
def plain():
    "an IPv4 address on an IPv6 socket"
    address = struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", 443, socket.inet_aton("127.0.0.5"))
    if libc.sendto(s.fileno(), b"x", 1, 0, address, 16) < 0: raise OSError(ctypes.get_errno(), "sendto")
    return "sent"
tell(plain)
"#;
    assert_eq!(python(&world.places.inside, script, &[]), ["ECONNREFUSED"; 3]);
}

#[test]
fn row_8_mptcp_is_refused_so_that_clients_fall_back_to_tcp() {
    let world = World::new();
    let script = "tell(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262))";
    assert_eq!(say(&world.places.inside, script, &[]), "EPROTONOSUPPORT");
}

#[test]
fn row_8_an_mptcp_socket_from_elsewhere_is_redirected() {
    let world = World::new();
    let script = r#"
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
enter(sys.argv[1]); s.connect(("127.0.0.5", int(sys.argv[2]))); tell(lambda: hear(s))
"#;
    let arguments = [world.places.inside.to_str().unwrap(), &world.real4.port().to_string()];
    assert_eq!(say(&world.places.outside, script, &arguments), format!("PROXY {}", world.real4));
}

#[test]
fn row_9_datagrams_are_refused_at_once() {
    let world = World::new();
    let script = r#"
for family, host in ((socket.AF_INET, "127.0.0.5"), (socket.AF_INET6, "::1")):
    tell(lambda: socket.socket(family, socket.SOCK_DGRAM).connect((host, 443)))
    tell(lambda: socket.socket(family, socket.SOCK_DGRAM).sendto(b"x", (host, 443)))
    s = socket.socket(family, socket.SOCK_DGRAM); s.connect((host, 53))
    tell(lambda: s.sendto(b"x", (host, 443)))
"#;
    assert_eq!(python(&world.places.inside, script, &[]), ["ECONNREFUSED"; 6]);
    assert_eq!(world.interceptor().stats().unwrap().refused_datagram, 6);
}

#[test]
fn row_9_dns_is_not_refused() {
    let world = World::new();
    let server = real_datagrams("127.53.0.5:53".parse().unwrap());
    let script = r#"
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b"x", (sys.argv[1], 53)); tell(lambda: hear(s))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect((sys.argv[1], 53)); s.send(b"x"); tell(lambda: hear(s))
"#;
    assert_eq!(python(&world.places.inside, script, &[&server.ip().to_string()]), ["REAL", "REAL"]);
}

#[test]
fn row_10_udp_lite_is_refused() {
    let world = World::new();
    let inside = "tell(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136))";
    assert_eq!(say(&world.places.inside, inside, &[]), "EPROTONOSUPPORT");
    let brought = r#"
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136)
enter(sys.argv[1]); tell(lambda: s.sendto(b"x", ("127.0.0.5", 53)))
"#;
    assert_eq!(say(&world.places.outside, brought, &[world.places.inside.to_str().unwrap()]), "ECONNREFUSED");
}

#[test]
fn row_12_raw_sockets_are_refused() {
    let world = World::new();
    let script = r#"
tell(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP))
tell(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW))
tell(lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6))
"#;
    assert_eq!(python(&world.places.inside, script, &[]), ["EPERM"; 3]);
    let outside = "tell(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP).family.name)";
    assert_eq!(say(&world.places.outside, outside, &[]), "AF_INET");
}

#[test]
fn row_17_a_socket_made_outside_and_connected_inside_is_redirected() {
    let world = World::new();
    let script = r#"
s = socket.socket()
enter(sys.argv[1]); s.connect(("127.0.0.5", int(sys.argv[2]))); tell(lambda: hear(s))
"#;
    let arguments = [world.places.inside.to_str().unwrap(), &world.real4.port().to_string()];
    assert_eq!(say(&world.places.outside, script, &arguments), format!("PROXY {}", world.real4));
}

#[test]
fn row_17_a_socket_received_from_outside_is_redirected() {
    let world = World::new();
    let arguments = [world.places.inside.to_str().unwrap(), &world.real4.port().to_string()];
    assert_eq!(say(&world.places.outside, PASSED, &arguments), format!("PROXY {}", world.real4));
    assert!(world.proxy.last().by_task);
}

#[test]
fn row_18_a_socket_made_inside_and_connected_outside_is_redirected() {
    let world = World::new();
    let arguments = [world.places.outside.to_str().unwrap(), &world.real4.port().to_string()];
    assert_eq!(say(&world.places.inside, PASSED, &arguments), format!("PROXY {}", world.real4));
    let origin = world.proxy.last();
    assert!(!origin.by_task);
    assert_eq!(origin.cgroup_id, weir::intercept::cgroup_id(&world.places.inside).unwrap());
    assert_eq!(origin.task_cgroup_id, weir::intercept::cgroup_id(&world.places.outside).unwrap());
    assert_eq!(world.interceptor().stats().unwrap().by_socket, 1);
}

/// Makes a socket here, hands it to a process in another cgroup, which connects it.
const PASSED: &str = r#"
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
if os.fork() == 0:
    enter(sys.argv[1])
    _, fds, _, _ = socket.recv_fds(b, 1, 1)
    s = socket.socket(fileno=fds[0]); s.connect(("127.0.0.5", int(sys.argv[2])))
    tell(lambda: hear(s)); sys.stdout.flush(); os._exit(0)
s = socket.socket(); socket.send_fds(a, [b"x"], [s.fileno()])
os.wait()
"#;

#[test]
fn row_26_who_dials_the_proxy_has_no_origin() {
    let world = World::new();
    assert_eq!(dial(&world.places.outside, world.proxy.v4), "NONE");
    assert_eq!(dial(&world.places.outside, world.proxy.v6), "NONE");
    assert_eq!(world.interceptor().stats().unwrap().direct, 2);
}

#[test]
fn row_26_a_workload_that_dials_the_proxy_is_known_as_doing_that() {
    let world = World::new();
    assert_eq!(dial(&world.places.inside, world.proxy.v4), format!("PROXY {}", world.proxy.v4));
}

#[test]
fn row_27_a_record_that_was_left_is_not_for_the_next_with_the_same_port() {
    let world = World::new();
    let script = r#"
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", int(sys.argv[1]))); s.connect((sys.argv[2], int(sys.argv[3]))); print(hear(s), s.getsockname()[1])
# Leave no connection behind that would keep the port.
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
"#;
    world.proxy.forgetful.store(true, std::sync::atomic::Ordering::Relaxed);
    let heard = say(&world.places.inside, script, &["0", "127.0.0.5", &world.real4.port().to_string()]);
    let port = heard.strip_prefix("FORGOT ").expect(&heard).to_owned();
    world.proxy.forgetful.store(false, std::sync::atomic::Ordering::Relaxed);
    let heard = say(&world.places.outside, script, &[&port, "127.0.0.1", &world.proxy.v4.port().to_string()]);
    assert_eq!(heard, format!("NONE {port}"));
}

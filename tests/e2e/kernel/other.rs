//! Who is not designated, who shall not listen, and what the object is.

use weir::intercept::{Designators, Identities, Selector, cgroup_id, cgroup2_root};

use super::{
    clients::{Background, dial, python, say},
    world::World,
};

#[test]
fn the_object_loads_and_every_program_is_attached() {
    let world = World::new();
    let links = std::fs::read_dir(world.places.pin_dir.join("v1/links")).unwrap().count();
    assert_eq!(links, 13);
    assert!(!world.interceptor().adopted());
}

#[test]
fn a_task_that_is_not_designated_is_untouched() {
    let world = World::new();
    assert_eq!(dial(&world.places.outside, world.real4), "REAL");
    assert_eq!(dial(&world.places.outside, world.real6), "REAL");
    let script = r#"
s = dial(socket.AF_INET, ("127.0.0.5", int(sys.argv[1]))); print(hear(s), s.getpeername()[1])
tell(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262).family.name)
tell(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.5", 443)))
"#;
    let port = world.real4.port().to_string();
    assert_eq!(python(&world.places.outside, script, &[&port]), [format!("REAL {port}"), "AF_INET".into(), "1".into()]);
    let stats = world.interceptor().stats().unwrap();
    assert_eq!(stats, weir::intercept::Stats::default());
}

#[test]
fn a_cgroup_below_a_designated_one_is_covered() {
    let world = World::new();
    let below = world.places.inside.join("below");
    std::fs::create_dir(&below).unwrap();
    assert_eq!(dial(&below, world.real4), format!("PROXY {}", world.real4));
    std::fs::remove_dir(&below).unwrap();
}

#[test]
fn a_cgroup_that_is_not_designated_any_more_is_free() {
    let world = World::new();
    let id = weir::intercept::cgroup_id(&world.places.inside).unwrap();
    world.interceptor().undesignate(id).unwrap();
    assert_eq!(dial(&world.places.inside, world.real4), "REAL");
}

#[test]
fn a_cgroup_that_appears_is_designated_when_a_selector_matches() {
    let world = World::new();
    let designators =
        Designators::start(cgroup2_root().unwrap(), world.places.top.clone(), world.interceptor().cgroups()).unwrap();
    designators.select(vec![Selector::Unit("orders.service".into())]).unwrap();
    assert_eq!(dial(&world.places.inside, world.real4), "REAL", "no selector names it any more");

    let unit = world.places.outside.join("orders.service");
    for _restart in 0..2 {
        std::fs::create_dir(&unit).unwrap();
        let id = cgroup_id(&unit).unwrap();
        wait_until(|| world.interceptor().designated().unwrap() == [(id, weir_abi::Designation::DESIGNATED)]);
        assert_eq!(dial(&unit, world.real4), format!("PROXY {}", world.real4));
        std::fs::remove_dir(&unit).unwrap();
        wait_until(|| world.interceptor().designated().unwrap().is_empty());
    }
}

#[test]
fn a_registered_cgroup_is_designated_before_register_returns() {
    let world = World::new();
    let designators =
        Designators::start(cgroup2_root().unwrap(), world.places.top.clone(), world.interceptor().cgroups()).unwrap();
    let id = cgroup_id(&world.places.outside).unwrap();
    designators.register("demo", id).unwrap();
    assert_eq!(dial(&world.places.outside, world.real4), format!("PROXY {}", world.real4));
    assert_eq!(designators.names()(id).as_deref(), Some("demo"));
    designators.unregister(id).unwrap();
    assert_eq!(dial(&world.places.outside, world.real4), "REAL");
}

#[test]
fn the_identity_of_a_connection_is_that_of_its_process() {
    let world = World::new();
    let script = r#"
s = dial(socket.AF_INET, ("127.0.0.5", int(sys.argv[1]))); hear(s)
print(os.getpid(), os.path.realpath("/proc/self/exe"), "done", sep="\n", flush=True)
time.sleep(60)
"#;
    let client = Background::python(&world.places.inside, script, &[&world.real4.port().to_string()]);
    let identities = Identities::new(cgroup2_root().unwrap(), |_| Some("demo".into()));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let workload = runtime.block_on(identities.identify(&world.proxy.last()));
    assert_eq!(workload.pid.to_string(), client.lines[0]);
    assert_eq!(workload.exe.as_deref().and_then(|exe| exe.to_str()), Some(client.lines[1].as_str()));
    let top = world.places.top.file_name().unwrap().to_str().unwrap();
    assert_eq!(workload.cgroup, format!("/{top}/inside"));
    assert_eq!(workload.argv[1..3], ["-c", workload.argv[2].as_str()]);
    assert_eq!((workload.name.as_deref(), workload.uid, workload.unit.as_deref()), (Some("demo"), 0, None));
    assert_eq!(workload.exe_sha256.as_ref().map(String::len), Some(64));
}

fn wait_until(condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("it did not come to be");
}

#[test]
fn row_29_nobody_binds_the_proxys_port() {
    let world = World::new();
    let port = world.proxy.v4.port().to_string();
    assert_eq!(python(&world.places.inside, BIND, &[&port]), ["EADDRINUSE"; 4]);
    assert_eq!(python(&world.places.outside, BIND, &[&port]), ["EADDRINUSE"; 4]);
    let free = "s = socket.socket(); tell(lambda: s.bind(('127.0.0.1', 0)))";
    assert_eq!(say(&world.places.inside, free, &[]), "None");
}

#[test]
fn row_29_nobody_binds_the_port_that_a_dead_agent_left() {
    let mut world = World::new();
    let port = world.proxy.v4.port().to_string();
    world.stop_agent();
    assert_eq!(python(&world.places.inside, BIND, &[&port]), ["EADDRINUSE"; 4]);
}

const BIND: &str = r#"
for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "127.0.0.2"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
    s = socket.socket(family); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    tell(lambda: s.bind((host, int(sys.argv[1]))))
"#;

//! Agents that die, return, come twice, or leave.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use weir::intercept::{InterceptConfig, InterceptError, Interceptor};

use super::{
    clients::{dial, say},
    world::{Places, World, real},
};

#[test]
fn a_stopped_agent_refuses_at_once_and_only_workloads() {
    let mut world = World::new();
    assert_eq!(dial(&world.places.inside, world.real4), format!("PROXY {}", world.real4));
    let (inside, real4) = (world.places.inside.clone(), world.real4);
    world.stop_agent();
    assert_eq!(dial(&inside, real4), "ECONNREFUSED");
    assert_eq!(dial(&inside, world.real6), "ECONNREFUSED");
    assert_eq!(dial(&world.places.outside, real4), "REAL");
}

#[test]
fn a_killed_agent_leaves_refusals_and_the_next_one_adopts() {
    let places = Places::new();
    let real4 = real("127.0.0.5".parse().unwrap());
    let mut agent = AgentProcess::start(&places);
    assert_eq!(dial(&places.inside, real4), format!("PROXY {real4}"));
    agent.kill();
    assert_eq!(dial(&places.inside, real4), "ECONNREFUSED");
    assert_eq!(dial(&places.outside, real4), "REAL");

    let interceptor = places.attach().unwrap();
    assert!(interceptor.adopted());
    let inside = weir::intercept::cgroup_id(&places.inside).unwrap();
    assert_eq!(interceptor.designated().unwrap(), [(inside, weir_abi::Designation::DESIGNATED)]);
    assert_eq!(dial(&places.inside, real4), "ECONNREFUSED", "adopted, but nothing is published yet");
    let world = World::with(places, interceptor);
    assert_eq!(dial(&world.places.inside, real4), format!("PROXY {real4}"));
}

#[test]
fn no_connection_reaches_the_server_while_agents_come_and_go() {
    let places = Places::new();
    let real4 = real("127.0.0.5".parse().unwrap());
    let mut agent = AgentProcess::start(&places);
    let (inside, port) = (places.inside.clone(), real4.port().to_string());
    let client = std::thread::spawn(move || {
        let script = r#"
heard, end = set(), time.time() + 3
while time.time() < end:
    try: heard.add(hear(dial(socket.AF_INET, ("127.0.0.5", int(sys.argv[1])))).split(" ")[0])
    except OSError as e: heard.add(errno.errorcode[e.errno])
print(*sorted(heard))
"#;
        say(&inside, script, &[&port])
    });
    std::thread::sleep(Duration::from_millis(700));
    agent.kill();
    let mut agent = AgentProcess::start(&places);
    std::thread::sleep(Duration::from_millis(700));
    agent.kill();
    let agent = AgentProcess::start(&places);
    let heard = client.join().unwrap();
    drop(agent);
    // An empty answer or a reset: the agent was killed between accept and answer.
    let harmless = ["PROXY", "ECONNREFUSED", "ECONNRESET", ""];
    assert!(heard.contains("PROXY") && heard.split(' ').all(|word| harmless.contains(&word)), "{heard}");
}

#[test]
fn a_hanging_agent_is_not_believed_for_longer_than_the_ttl() {
    let places = Places::new();
    let real4 = real("127.0.0.5".parse().unwrap());
    let mut agent = AgentProcess::start(&places);
    agent.signal(libc::SIGSTOP);
    std::thread::sleep(weir::intercept::HEARTBEAT_TTL + Duration::from_millis(200));
    assert_eq!(dial(&places.inside, real4), "ECONNREFUSED");
    agent.signal(libc::SIGCONT);
    agent.kill();
}

#[test]
fn a_second_agent_is_refused_and_told_the_first_ones_pid() {
    let places = Places::new();
    let mut agent = AgentProcess::start(&places);
    match places.attach() {
        Err(InterceptError::AlreadyRunning { pid, .. }) => assert_eq!(pid, agent.child.id()),
        other => panic!("{:?}", other.err()),
    }
    agent.kill();
}

#[test]
fn a_second_agent_with_other_pins_is_refused_at_the_same_cgroup_only() {
    let places = Places::new();
    let mut agent = AgentProcess::start(&places);
    let pin_dir = std::path::PathBuf::from(format!("{}-second", places.pin_dir.display()));
    let attach =
        |top: &std::path::Path| Interceptor::attach(InterceptConfig { top_cgroup: top.into(), pin_dir: pin_dir.clone() });
    match attach(&places.top) {
        Err(InterceptError::AlreadyRunning { pid, pin_dir }) => {
            assert_eq!((pid, &pin_dir), (agent.child.id(), &places.pin_dir));
        }
        other => panic!("{:?}", other.err()),
    }
    assert!(!pin_dir.exists(), "the refused agent left something behind");
    attach(&places.outside).unwrap().release().unwrap();
    agent.kill();
    attach(&places.top).unwrap().release().unwrap();
}

#[test]
fn pins_of_another_cgroup_are_not_adopted() {
    let places = Places::new();
    drop(places.attach().unwrap());
    let other = InterceptConfig { top_cgroup: places.outside.clone(), pin_dir: places.pin_dir.clone() };
    assert!(matches!(Interceptor::attach(other), Err(InterceptError::OtherTop { .. })));
}

#[test]
fn pins_of_a_cgroup_that_is_gone_are_replaced() {
    let places = Places::new();
    let gone = places.top.join("gone");
    std::fs::create_dir(&gone).unwrap();
    drop(Interceptor::attach(InterceptConfig { top_cgroup: gone.clone(), pin_dir: places.pin_dir.clone() }).unwrap());
    std::fs::remove_dir(&gone).unwrap();
    // The kernel lets the links of a removed cgroup go a moment later, by a worker of its own.
    let attach = || match places.attach() {
        Err(InterceptError::OtherTop { .. }) => None,
        other => Some(other.unwrap()),
    };
    let interceptor = (0..100).find_map(|_| {
        attach().or_else(|| {
            std::thread::sleep(Duration::from_millis(50));
            None
        })
    });
    let interceptor = interceptor.expect("the links of the removed cgroup stay");
    assert!(!interceptor.adopted());
    let world = World::with(places, interceptor);
    assert_eq!(dial(&world.places.inside, world.real4), format!("PROXY {}", world.real4));
}

#[test]
fn a_released_interceptor_opens_the_network_and_leaves_nothing() {
    let mut world = World::new();
    world.take_interceptor().release().unwrap();
    assert_eq!(dial(&world.places.inside, world.real4), "REAL");
    assert!(!world.places.pin_dir.exists());
}

/// An agent in a process of its own: this very program, running the test below.
struct AgentProcess {
    child: Child,
}

impl AgentProcess {
    fn start(places: &Places) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "kernel::agent::agent_process", "--nocapture"])
            .env("WEIR_TEST_TOP", &places.top)
            .env("WEIR_TEST_INSIDE", &places.inside)
            .env("WEIR_TEST_PINS", &places.pin_dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let ready = BufReader::new(child.stdout.take().unwrap()).lines().any(|line| line.unwrap() == "ready");
        assert!(ready, "the agent did not start");
        Self { child }
    }

    fn signal(&self, signal: i32) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let signal = rustix::process::Signal::from_named_raw(signal).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "needs the tests that start it: it is the process that they kill"]
fn agent_process() {
    let variable = |name| std::env::var_os(name).map(std::path::PathBuf::from);
    let (Some(top), Some(inside), Some(pins)) =
        (variable("WEIR_TEST_TOP"), variable("WEIR_TEST_INSIDE"), variable("WEIR_TEST_PINS"))
    else {
        return;
    };
    let interceptor = Interceptor::attach(InterceptConfig { top_cgroup: top.clone(), pin_dir: pins.clone() }).unwrap();
    let places = Places { outside: top.join("outside"), top, inside, pin_dir: pins };
    let world = World::with(places, interceptor);
    println!("\nready");
    // Until killed; nothing of the other process's may be removed.
    std::mem::forget(world);
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

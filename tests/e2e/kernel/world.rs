//! The fixture: cgroups, attached programs, servers that say who they are.

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use weir::{
    flow::PeerAddr,
    intercept::{InterceptConfig, InterceptError, Interceptor, Origins, TakenOrigin, cgroup_id, cgroup2_root},
};
use weir_abi::Designation;

/// Longest that any answer is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A top cgroup with a designated cgroup `inside` and another one, `outside`; a proxy; real servers on 127.0.0.5 and ::1.
pub(super) struct World {
    interceptor: Option<Arc<Interceptor>>,
    pub(super) places: Places,
    pub(super) proxy: Arc<Proxy>,
    pub(super) real4: SocketAddr,
    pub(super) real6: SocketAddr,
}

impl World {
    pub(super) fn new() -> Self {
        let places = Places::new();
        let interceptor = places.attach().expect("attach: this test needs root and cgroup v2");
        Self::with(places, interceptor)
    }

    pub(super) fn with(places: Places, interceptor: Interceptor) -> Self {
        let proxy = Proxy::start(interceptor.origins());
        interceptor.publish(Some(proxy.v4.port()), Some(proxy.v6.port())).unwrap();
        interceptor.designate(cgroup_id(&places.inside).unwrap(), Designation::DESIGNATED).unwrap();
        let interceptor = Arc::new(interceptor);
        let alive = Arc::downgrade(&interceptor);
        thread::spawn(move || {
            while let Some(interceptor) = alive.upgrade() {
                interceptor.heartbeat().unwrap();
                drop(interceptor);
                thread::sleep(weir::intercept::HEARTBEAT_PERIOD / 5);
            }
        });
        let real4 = real(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 5)));
        let real6 = real(IpAddr::V6(Ipv6Addr::LOCALHOST));
        Self { interceptor: Some(interceptor), places, proxy, real4, real6 }
    }

    pub(super) fn interceptor(&self) -> &Interceptor {
        self.interceptor.as_ref().unwrap()
    }

    /// Ends the agent as a crash of its threads would: no heartbeat, no listener; the pins stay.
    pub(super) fn stop_agent(&mut self) {
        self.proxy.stop();
        let mut interceptor = self.interceptor.take().unwrap();
        for _ in 0..1000 {
            match Arc::try_unwrap(interceptor) {
                Ok(last) => return drop(last),
                Err(shared) => interceptor = shared,
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("somebody holds the interceptor");
    }

    /// Takes the interceptor out, for `release`.
    pub(super) fn take_interceptor(&mut self) -> Interceptor {
        let mut interceptor = self.interceptor.take().unwrap();
        loop {
            match Arc::try_unwrap(interceptor) {
                Ok(last) => return last,
                Err(shared) => interceptor = shared,
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Directories that belong to one test; removed with it, with everything that is pinned and everybody who runs there.
pub(super) struct Places {
    pub(super) top: PathBuf,
    pub(super) inside: PathBuf,
    pub(super) outside: PathBuf,
    pub(super) pin_dir: PathBuf,
}

impl Places {
    pub(super) fn new() -> Self {
        let name = format!("weir-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let top = cgroup2_root().expect("cgroup v2").join(&name);
        let places =
            Self { inside: top.join("inside"), outside: top.join("outside"), pin_dir: Path::new("/sys/fs/bpf").join(&name), top };
        for directory in [&places.top, &places.inside, &places.outside] {
            fs::create_dir(directory).expect("make a cgroup: this test needs root");
        }
        places
    }

    pub(super) fn attach(&self) -> Result<Interceptor, InterceptError> {
        Interceptor::attach(InterceptConfig { top_cgroup: self.top.clone(), pin_dir: self.pin_dir.clone() })
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.pin_dir);
        remove(&self.top);
    }
}

/// Ends who runs in a cgroup or below, and removes them.
fn remove(cgroup: &Path) {
    let _ = fs::write(cgroup.join("cgroup.kill"), "1");
    let below = fs::read_dir(cgroup).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir());
    below.for_each(|entry| remove(&entry.path()));
    for _ in 0..500 {
        if fs::remove_dir(cgroup).is_ok() || !cgroup.exists() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Listens as weir does, and answers `PROXY <original destination>`, or `NONE` if there is no record.
pub(super) struct Proxy {
    pub(super) v4: SocketAddr,
    pub(super) v6: SocketAddr,
    pub(super) taken: Mutex<Vec<TakenOrigin>>,
    /// Accepts, but leaves the record where it is.
    pub(super) forgetful: AtomicBool,
    stopped: AtomicBool,
}

impl Proxy {
    fn start(origins: Arc<dyn Origins>) -> Arc<Self> {
        let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
        let v6 = TcpListener::bind("[::1]:0").unwrap();
        let proxy = Arc::new(Self {
            v4: v4.local_addr().unwrap(),
            v6: v6.local_addr().unwrap(),
            taken: Mutex::default(),
            forgetful: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        });
        for listener in [v4, v6] {
            let (proxy, origins) = (Arc::clone(&proxy), Arc::clone(&origins));
            thread::spawn(move || {
                for stream in listener.incoming() {
                    if proxy.stopped.load(Ordering::Relaxed) {
                        return;
                    }
                    proxy.serve(stream.unwrap(), &*origins);
                }
            });
        }
        proxy
    }

    fn serve(&self, stream: TcpStream, origins: &dyn Origins) {
        if self.forgetful.load(Ordering::Relaxed) {
            return answer(stream, "FORGOT".into());
        }
        let (peer, local) = (stream.peer_addr().unwrap(), stream.local_addr().unwrap());
        let Some(origin) = origins.take(PeerAddr(peer), local) else {
            return answer(stream, "NONE".into());
        };
        assert!(origins.take(PeerAddr(peer), local).is_none(), "an origin is told once");
        let text = format!("PROXY {}", origin.orig_dst.0);
        self.taken.lock().unwrap().push(origin);
        answer(stream, text);
    }

    /// Closes the listeners, as the kernel does when a process dies.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        for address in [self.v4, self.v6] {
            let _ = TcpStream::connect(address);
        }
        for address in [self.v4, self.v6] {
            while TcpStream::connect(address).is_ok() {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    pub(super) fn last(&self) -> TakenOrigin {
        self.taken.lock().unwrap().last().cloned().expect("nothing was taken")
    }
}

/// A real server that says REAL, until the test program ends.
pub(super) fn real(ip: IpAddr) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().flatten().for_each(|stream| answer(stream, "REAL".into())));
    address
}

/// A datagram server that says REAL.
pub(super) fn real_datagrams(address: SocketAddr) -> SocketAddr {
    let socket = UdpSocket::bind(address).unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(b"REAL", from);
        }
    });
    address
}

/// Says it, and waits until the other side has heard: a reset would eat the answer.
fn answer(mut stream: TcpStream, text: String) {
    thread::spawn(move || {
        let _ = stream.set_read_timeout(Some(PATIENCE));
        let _ = stream.write_all(text.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read(&mut [0; 512]);
    });
}

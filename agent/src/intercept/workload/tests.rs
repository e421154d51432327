use super::*;

fn taken_by(pid: u32) -> TakenOrigin {
    TakenOrigin {
        orig_dst: crate::flow::OrigDst("127.0.0.5:80".parse().unwrap()),
        pid,
        uid: 7,
        gid: 8,
        cgroup_id: 1,
        task_cgroup_id: 1,
        by_task: true,
        ifindex: 0,
        ktime_ns: super::super::origins::now_ns(),
    }
}

fn identities() -> Identities {
    Identities::new("/nonexistent".into(), |id| (id == 1).then(|| "demo".to_owned()))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn describes_this_very_process() {
    let workload = block_on(identities().identify(&taken_by(std::process::id())));
    let exe = std::env::current_exe().unwrap();
    assert_eq!(workload.exe.as_deref(), Some(exe.as_path()));
    let content = fs::read(&exe).unwrap();
    let hash: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(workload.exe_sha256, Some(hash));
    assert_eq!(workload.argv, std::env::args().collect::<Vec<_>>());
    assert_eq!(workload.cwd, std::env::current_dir().ok());
    assert_eq!((workload.uid, workload.gid, workload.name.as_deref()), (7, 8, Some("demo")));
    assert_eq!(workload.parents.first().map(|parent| parent.pid), Some(std::os::unix::process::parent_id()));
    assert!(workload.start_time_ticks > 0);
}

#[test]
fn asks_proc_once_for_one_process() {
    let identities = identities();
    let (first, second) = block_on(async {
        let taken = taken_by(std::process::id());
        (identities.identify(&taken).await, identities.identify(&taken).await)
    });
    assert!(Arc::ptr_eq(&first, &second));
}

#[test]
fn an_exec_is_somebody_else() {
    let identities = identities();
    let mut child = std::process::Command::new("sh")
        .args(["-c", "read line; exec sleep 60"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let taken = TakenOrigin { ktime_ns: 0, ..taken_by(child.id()) };
    let before = settled(&identities, &taken, |exe| exe.ends_with("dash") || exe.ends_with("bash") || exe.ends_with("sh"));
    io::Write::write_all(child.stdin.as_mut().unwrap(), b"\n").unwrap();
    let after = settled(&identities, &taken, |exe| exe.ends_with("sleep") || exe.ends_with("coreutils"));
    assert_eq!(before.start_time_ticks, after.start_time_ticks);
    assert_ne!(before.exe_sha256, after.exe_sha256);
    child.kill().unwrap();
    child.wait().unwrap();
}

fn settled(identities: &Identities, taken: &TakenOrigin, is: impl Fn(&Path) -> bool) -> Arc<Workload> {
    for _ in 0..2000 {
        let workload = block_on(identities.identify(taken));
        if workload.exe.as_deref().is_some_and(&is) {
            return workload;
        }
        std::thread::yield_now();
    }
    panic!("the process never ran what was expected");
}

#[test]
fn a_process_that_began_after_the_connection_is_not_the_one() {
    let taken = TakenOrigin { ktime_ns: 1, ..taken_by(std::process::id()) };
    let workload = block_on(identities().identify(&taken));
    assert_eq!((workload.exe.as_ref(), workload.exe_sha256.as_ref(), workload.start_time_ticks), (None, None, 0));
    assert_eq!((workload.pid, workload.uid), (taken.pid, 7));
}

#[test]
fn a_process_that_is_gone_has_no_exe() {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    let workload = block_on(identities().identify(&taken_by(pid)));
    assert_eq!(workload.exe, None);
    assert!(workload.argv.is_empty());
}

#[test]
fn a_name_with_parentheses_does_not_move_the_fields() {
    let tail = "S 42 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 2";
    let plain = Stat { parent: 42, start_time_ticks: 98765 };
    assert_eq!(parse_stat(format!("7 (cat) {tail}").as_bytes()), Some(Stat { ..plain }));
    assert_eq!(parse_stat(format!("7 (a) R 1 (b) {tail}").as_bytes()), Some(plain));
    assert_eq!(parse_stat(b"7 (cat"), None);
    assert_eq!(parse_stat(b"7 (cat) S 42"), None);
}

#[test]
fn reads_the_line_of_the_v2_hierarchy() {
    assert_eq!(cgroup_line(b"9:name=systemd:/a\n0::/weir.slice/x\n"), Some("/weir.slice/x".to_owned()));
    assert_eq!(cgroup_line(b"0::/gone (deleted)\n"), Some("/gone".to_owned()));
    assert_eq!(cgroup_line(b"9:name=systemd:/a\n"), None);
}

#[test]
fn the_unit_is_the_last_service_or_scope() {
    assert_eq!(unit("/system.slice/orders.service").as_deref(), Some("orders.service"));
    assert_eq!(unit("/system.slice/orders.service/worker").as_deref(), Some("orders.service"));
    assert_eq!(unit("/user.slice/user-1000.slice/user@1000.service/app.slice/app.service").as_deref(), Some("app.service"));
    assert_eq!(unit("/user.slice/user-1000.slice/session-3.scope").as_deref(), Some("session-3.scope"));
    assert_eq!(unit("/system.slice/_cpu.service").as_deref(), Some("cpu.service"));
}

#[test]
fn a_slice_is_not_a_unit_of_its_own() {
    assert_eq!(unit("/system.slice"), None);
    assert_eq!(unit("/"), None);
    assert_eq!(unit("/.service"), None);
}

#[test]
fn the_cache_forgets_what_was_not_used() {
    let mut recent = Recent::new(4);
    (0..4).for_each(|key| recent.insert(key, key));
    assert!(recent.get(&0).is_some());
    recent.insert(4, 4);
    assert!(recent.entries.len() <= 4);
    assert!(recent.get(&0).is_some() && recent.get(&4).is_some());
    assert!(recent.get(&1).is_none());
}

//! Clients: Python with a few words of its own, and one C program for io_uring. They run in the cgroup that is named.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

/// What the scripts can say.
const PRELUDE: &str = r#"
import ctypes, errno, os, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)

def enter(cgroup):
    with open(cgroup + "/cgroup.procs", "w") as f: f.write(str(os.getpid()))

def hear(s):
    s.settimeout(8)
    return s.recv(200).decode()

def dial(family, address, kind=socket.SOCK_STREAM, protocol=0):
    s = socket.socket(family, kind, protocol)
    s.connect(address)
    return s

def tell(action):
    "prints what an action gives, or the name of its errno"
    try: print(action())
    except OSError as e: print(errno.errorcode.get(e.errno, e.errno) if e.errno else repr(e))

def disconnect(s):
    "connect to AF_UNSPEC"
    nothing = struct.pack("=H14x", 0)
    if libc.connect(s.fileno(), nothing, 16): raise OSError(ctypes.get_errno(), "unspec")
"#;

/// Runs a script in a cgroup; gives the lines that it printed. Arguments are `sys.argv[1:]`.
pub(super) fn python(cgroup: &Path, script: &str, arguments: &[&str]) -> Vec<String> {
    let mut command = enter(cgroup);
    command.args(["python3", "-"]).args(arguments);
    lines(run(command, format!("{PRELUDE}\n{script}")))
}

/// As `python`, for a script with one line of output.
pub(super) fn say(cgroup: &Path, script: &str, arguments: &[&str]) -> String {
    let lines = python(cgroup, script, arguments);
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.into_iter().next().unwrap()
}

/// A script that goes on after it has said what it had to say; killed when it is dropped.
pub(super) struct Background {
    child: Child,
    pub(super) lines: Vec<String>,
}

impl Background {
    /// Waits until the script has printed `done`.
    pub(super) fn python(cgroup: &Path, script: &str, arguments: &[&str]) -> Self {
        let mut command = enter(cgroup);
        command.args(["python3", "-c", &format!("{PRELUDE}\n{script}")]).args(arguments);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("start a client");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap).take_while(|line| line != "done").collect();
        Self { child, lines }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connects once and gives the answer, or the errno.
pub(super) fn dial(cgroup: &Path, address: std::net::SocketAddr) -> String {
    let family = if address.is_ipv4() { "INET" } else { "INET6" };
    let script = "tell(lambda: hear(dial(getattr(socket, 'AF_' + sys.argv[1]), (sys.argv[2], int(sys.argv[3])))))";
    say(cgroup, script, &[family, &address.ip().to_string(), &address.port().to_string()])
}

/// Runs a program in a cgroup.
pub(super) fn program(cgroup: &Path, path: &Path, arguments: &[&str]) -> Vec<String> {
    let mut command = enter(cgroup);
    command.arg(path).args(arguments);
    lines(run(command, String::new()))
}

/// Compiles a C program into a directory.
pub(super) fn compile(directory: &Path, source: &str) -> PathBuf {
    let (file, binary) = (directory.join("client.c"), directory.join("client"));
    std::fs::write(&file, source).unwrap();
    let status = Command::new("gcc").args(["-O1", "-o"]).arg(&binary).arg(&file).status().expect("gcc");
    assert!(status.success());
    binary
}

/// The shell moves itself, and then becomes the client: not one instruction of it runs elsewhere.
fn enter(cgroup: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.args(["30", "sh", "-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]).arg(cgroup);
    command
}

fn run(mut command: Command, input: String) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start a client");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn lines(output: Output) -> Vec<String> {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

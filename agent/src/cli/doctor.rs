//! `weir doctor`: what this host can do, and what to do about the rest. Changes nothing, needs no running agent.

use std::{fs, path::Path};

use serde::Serialize;

use super::{
    Exit,
    output::{Table, print},
};
use crate::intercept::{
    Feature, Finding, PIN_DIR_DEFAULT, PinState, ProgramSize, cgroup2_root, features, is_bpffs, pin_directories, verify,
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Exit: `Fine` if interception can work here, `Host` if not.
pub fn run(args: Args) -> Exit {
    let report = Report::gather();
    if args.json {
        match serde_json::to_string_pretty(&report) {
            Ok(text) => print(&(text + "\n")),
            Err(_) => return Exit::Failed,
        }
    } else {
        print(&report.text());
    }
    if report.interception { Exit::Fine } else { Exit::Host }
}

/// Everything that was found out.
#[derive(Debug, Serialize)]
struct Report {
    /// Interception can work.
    interception: bool,
    checks: Vec<Check>,
    /// Of weir's own programs; empty if they do not load.
    programs: Vec<ProgramSize>,
    programs_error: Option<String>,
    pins: Vec<PinState>,
}

/// One line of the report.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    state: State,
    needed_for: &'static str,
    /// What was found, or what it means that it was not and what to do.
    note: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// Interception cannot work like this.
    Fail,
    Ok,
    /// Something is less than it could be.
    Warn,
}

impl Report {
    fn gather() -> Self {
        let mut checks = vec![rights(), hierarchy(), bpffs(), legacy_controllers()];
        checks.extend(features().iter().map(Check::from));
        let (programs, programs_error) = match verify() {
            Ok(programs) => (programs, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        checks.push(loading(programs.len(), programs_error.as_deref()));
        let pins = pin_directories();
        checks.extend(pin_checks(&pins));
        Self { interception: checks.iter().all(|check| check.state != State::Fail), checks, programs, programs_error, pins }
    }

    fn text(&self) -> String {
        let mut table = Table::new(&["CHECK", "STATE", "NEEDED FOR", "NOTE"]);
        for check in &self.checks {
            table.row(vec![check.name.into(), check.state.word().into(), check.needed_for.into(), check.note.clone()]);
        }
        let verdict = if self.interception {
            "interception can work here"
        } else {
            "interception cannot work here: see the lines that say FAIL"
        };
        format!("{}\n{verdict}\n", table.render())
    }
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Fail => "FAIL",
            Self::Ok => "ok",
            Self::Warn => "warn",
        }
    }
}

impl From<&Feature> for Check {
    fn from(feature: &Feature) -> Self {
        let missing = if feature.required { State::Fail } else { State::Warn };
        let (state, note) = match feature.found {
            Finding::Found => (State::Ok, "found".to_owned()),
            Finding::Forbidden { errno } => {
                let cause = "a capability, lockdown or a security module is in the way";
                (missing, format!("forbidden ({}): {cause}; {}", errno_name(errno), feature.consequence))
            }
            Finding::Missing { errno } => {
                (missing, format!("not in this kernel ({}); {}", errno_name(errno), feature.consequence))
            }
        };
        Self { name: feature.name, state, needed_for: feature.needed_for, note }
    }
}

/// A line for each running agent, and one for everything that dead ones left, however many there were.
fn pin_checks(pins: &[PinState]) -> Vec<Check> {
    let check = |state, note| Check { name: "pins", state, needed_for: "refusing while no agent runs", note };
    let held = pins.iter().filter_map(|pins| {
        let pid = pins.agent_pid?;
        Some(check(State::Ok, format!("{}: held by the agent with pid {pid}", pins.directory.display())))
    });
    let mut left: Vec<&PinState> = pins.iter().filter(|pins| pins.agent_pid.is_none()).collect();
    left.sort_by_key(|pins| std::cmp::Reverse(pins.changed));
    held.chain((!left.is_empty()).then(|| check(State::Warn, abandoned(&left)))).collect()
}

/// `left`: the newest first.
fn abandoned(left: &[&PinState]) -> String {
    let newest: Vec<String> = left.iter().take(PINS_SHOWN_MAX).map(|pins| pins.directory.display().to_string()).collect();
    if let ([_], [path]) = (left, newest.as_slice()) {
        return format!(
            "{path}: no agent holds it; its workloads are refused until `weir agent` adopts it, or are let go by `rm -r {path}`"
        );
    }
    format!(
        "{} directories that no agent holds, the newest {}; their workloads are refused until `weir agent` adopts them, or are let \
         go by `{REMOVE_ABANDONED}`, which leaves those of running agents alone",
        left.len(),
        newest.join(", "),
    )
}

const PINS_SHOWN_MAX: usize = 3;
/// An agent holds the lock on its directory: `flock` passes over it.
const REMOVE_ABANDONED: &str = "for d in /sys/fs/bpf/weir*; do flock --nonblock $d rm -r $d; done";

const CAPABILITIES: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN"), (39, "CAP_BPF")];

/// Capabilities that an agent needs and this process does not hold.
pub(super) fn missing_rights() -> Vec<&'static str> {
    missing_capabilities(&fs::read_to_string("/proc/self/status").unwrap_or_default())
}

fn rights() -> Check {
    let missing = missing_rights();
    let (state, note) = if missing.is_empty() {
        (State::Ok, "held: CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN".to_owned())
    } else {
        (State::Fail, format!("not held: {}; run weir as root", missing.join(", ")))
    };
    Check { name: "capabilities", state, needed_for: "loading and attaching programs", note }
}

/// From the line `CapEff:` of `/proc/PID/status`. CAP_SYS_ADMIN includes CAP_BPF.
fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let held = line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0);
    CAPABILITIES.iter().filter(|(bit, _)| held & (1 << bit) == 0).map(|(_, name)| *name).collect()
}

fn hierarchy() -> Check {
    let (state, note) = match cgroup2_root() {
        Ok(root) if root == Path::new("/sys/fs/cgroup") => (State::Ok, format!("mounted at {}", root.display())),
        Ok(root) => (State::Ok, format!("mounted at {} (hybrid host: only processes placed there are seen)", root.display())),
        Err(error) => (State::Fail, error.to_string()),
    };
    Check { name: "cgroup v2", state, needed_for: "knowing who connects", note }
}

fn bpffs() -> Check {
    let (state, note) = if is_bpffs(Path::new(PIN_DIR_DEFAULT)) {
        (State::Ok, "mounted at /sys/fs/bpf".to_owned())
    } else if Path::new("/sys/fs/bpf").is_dir() {
        (State::Ok, "not mounted yet: the agent mounts it at /sys/fs/bpf".to_owned())
    } else {
        (State::Fail, "/sys/fs/bpf does not exist: the kernel is built without BPF, or sysfs is not mounted".to_owned())
    };
    Check { name: "BPF file system", state, needed_for: "refusing while no agent runs", note }
}

/// Linux 5.15, and what was backported: before, a socket of a task with a net_cls or net_prio class forgot its v2 cgroup.
const CLASSES_FIXED: (u32, u32) = (5, 15);

fn legacy_controllers() -> Check {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let (state, note) = match (has_network_classes(&mounts), kernel_version(&release)) {
        (false, _) => (State::Ok, "net_cls and net_prio are not mounted".to_owned()),
        (true, Some(version)) if version >= CLASSES_FIXED => {
            (State::Ok, "net_cls or net_prio is mounted, and harmless on this kernel".to_owned())
        }
        (true, _) => (
            State::Fail,
            format!(
                "net_cls or net_prio is mounted: on kernel {release} their tasks' sockets may not be seen; unmount them, or boot with cgroup_no_v1=net_cls,net_prio"
            ),
        ),
    };
    Check { name: "legacy network classes", state, needed_for: "seeing every socket of a workload", note }
}

fn has_network_classes(mountinfo: &str) -> bool {
    let options =
        mountinfo.lines().filter_map(|line| line.split_once(" - cgroup ")).filter_map(|(_, rest)| rest.split(' ').nth(1));
    options.flat_map(|options| options.split(',')).any(|option| option == "net_cls" || option == "net_prio")
}

fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn loading(programs: usize, error: Option<&str>) -> Check {
    let (state, note) = match error {
        None => (State::Ok, format!("all {programs} pass the kernel's verifier")),
        // The verifier's log is in the JSON; its first line says what is wrong with the call.
        Some(error) => (State::Fail, error.lines().next().unwrap_or_default().to_owned()),
    };
    Check { name: "weir's programs", state, needed_for: "interception", note }
}

fn errno_name(errno: i32) -> String {
    match errno {
        0 => "unknown error".to_owned(),
        1 => "EPERM".to_owned(),
        13 => "EACCES".to_owned(),
        22 => "EINVAL".to_owned(),
        92 => "ENOPROTOOPT".to_owned(),
        other => format!("errno {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_capabilities_that_are_missing() {
        assert!(missing_capabilities("CapEff:\t000001ffffffffff\n").is_empty());
        assert_eq!(missing_capabilities("CapEff:\t0000000000001000\n"), ["CAP_SYS_ADMIN", "CAP_BPF"]);
        assert_eq!(missing_capabilities("").len(), 3);
    }

    #[test]
    fn finds_network_classes_among_the_v1_controllers_only() {
        assert!(has_network_classes("40 31 0:37 / /sys/fs/cgroup/net rw - cgroup cgroup rw,net_cls,net_prio\n"));
        assert!(!has_network_classes(
            "40 31 0:37 / /net_cls rw - cgroup cgroup rw,cpu\n41 31 0:38 / /u rw - cgroup2 net_cls rw\n"
        ));
    }

    #[test]
    fn reads_the_version_of_distribution_kernels() {
        assert_eq!(kernel_version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(kernel_version("5.15-rc1"), Some((5, 15)));
        assert_eq!(kernel_version("custom"), None);
    }

    #[test]
    fn a_missing_requirement_fails_and_a_missing_extra_warns() {
        let feature =
            |required| Feature { name: "x", needed_for: "y", found: Finding::Missing { errno: 22 }, consequence: "z", required };
        assert_eq!(Check::from(&feature(true)).state, State::Fail);
        let warning = Check::from(&feature(false));
        assert_eq!((warning.state, warning.note.as_str()), (State::Warn, "not in this kernel (EINVAL); z"));
    }

    #[test]
    fn says_how_to_let_go_what_a_dead_agent_left() {
        let checks = pin_checks(&[left("weir", 1)]);
        let [check] = checks.as_slice() else { panic!("{checks:?}") };
        assert_eq!(check.state, State::Warn);
        assert!(check.note.contains("rm -r /sys/fs/bpf/weir"));
    }

    #[test]
    fn many_abandoned_directories_are_one_line_with_the_newest() {
        let mut pins: Vec<PinState> = (0..150).map(|number| left(&format!("weir-{number}"), number)).collect();
        pins.push(PinState { agent_pid: Some(7), ..left("weir", 0) });
        let checks = pin_checks(&pins);
        let [held, left] = checks.as_slice() else { panic!("{checks:?}") };
        assert!(held.note.contains("pid 7"), "{held:?}");
        assert!(left.note.starts_with("150 directories"), "{left:?}");
        assert!(left.note.contains("weir-149") && !left.note.contains("weir-100,"), "{left:?}");
        assert!(left.note.contains("flock --nonblock"), "{left:?}");
    }

    fn left(name: &str, changed: i64) -> PinState {
        PinState { directory: format!("/sys/fs/bpf/{name}").into(), agent_pid: None, changed }
    }
}

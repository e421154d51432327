//! What an idle connection costs the agent: resident memory before and after some hundred connections were opened and used once.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use e2e::{Client, SERVER_V4, wait_until};

use super::{
    Effort,
    report::{Better, Report, Samples},
    stage::Stage,
};

pub(super) fn run(stage: &Stage, effort: Effort, report: &mut Report) -> Result<()> {
    let Some(agent) = &stage.agent else {
        println!("\nmemory: left out, weir is not measured");
        return Ok(());
    };
    for (what, program, port) in [("PostgreSQL", HOLD_POSTGRES, stage.scene.db()?.port()), ("HTTP", HOLD_HTTP, stage.web.port())]
    {
        // The first connections also pay for what is made once; they are not what is asked about.
        hold(stage, program, port, effort.idle / 10, || Ok(()))?;
        let before = resident_bytes(agent.pid())?;
        let mut held = before;
        hold(stage, program, port, effort.idle, || {
            held = resident_bytes(agent.pid())?;
            Ok(())
        })?;
        let mut samples = Samples::default();
        samples.add("weir (bounded)", held.saturating_sub(before) as f64 / effort.idle as f64 / 1024.0);
        report.row(&format!("memory of an idle {what} connection, {} of them", effort.idle), "KiB", Better::Lower, samples);
    }
    Ok(())
}

/// Opens connections, runs `during` while they are idle, closes them.
fn hold(stage: &Stage, program: &str, port: u16, count: usize, mut during: impl FnMut() -> Result<()>) -> Result<()> {
    let ready = stage.scene.scratch.join("held");
    let _ = fs::remove_file(&ready);
    let (port, count, file) = (port.to_string(), count.to_string(), ready.display().to_string());
    let words = ["/usr/bin/python3", "-c", program, SERVER_V4, &port, &count, &file];
    let client = Client::new(words).within(&stage.bounded);
    let holder = client.start(&stage.scene.scratch.join("holder.log"))?;
    let opened = wait_until("the connections are open", Duration::from_secs(90), || ready.exists());
    opened.with_context(|| holder.log())?;
    during()
}

fn resident_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

const HOLD_POSTGRES: &str = r"
import socket, struct, sys, time
body = struct.pack('!I', 196608) + b'user\0a\0database\0app\0\0'
links = []
for _ in range(int(sys.argv[3])):
    link = socket.create_connection((sys.argv[1], int(sys.argv[2])))
    link.sendall(struct.pack('!I', len(body) + 4) + body)
    data = b''
    while data[-6:-1] != b'Z\0\0\0\x05':
        part = link.recv(65536)
        assert part, data
        data += part
    links.append(link)
time.sleep(1)
open(sys.argv[4], 'w').close()
time.sleep(600)
";

const HOLD_HTTP: &str = r"
import socket, sys, time
links = []
for _ in range(int(sys.argv[3])):
    link = socket.create_connection((sys.argv[1], int(sys.argv[2])))
    link.sendall(b'GET /v1/items HTTP/1.1\r\nHost: bench\r\n\r\n')
    data = link.recv(65536)
    assert b' 200 ' in data, data
    links.append(link)
time.sleep(1)
open(sys.argv[4], 'w').close()
time.sleep(600)
";

//! What a connection costs: `connect()` alone, and up to the first byte of an answer; outside, beside and inside a workload.

use std::{
    env,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use e2e::{Client, SERVER_V4, Scene};
use serde_json::{Value, json};

use super::{
    Effort,
    report::{Better, Report, Samples, median},
    stage::{Stage, TOKEN},
};

pub(super) fn run(stage: &Stage, effort: Effort, report: &mut Report) -> Result<()> {
    let address = format!("{SERVER_V4}:{}", stage.web.port());
    let (mut connects, mut answers) = (Samples::default(), Samples::default());
    // Programs are attached at the scene's top cgroup: a task outside of it never meets them.
    let beside = stage.scene.top.child("beside")?;
    let mut places = vec![("direct", None), ("not designated", Some(&beside))];
    places.extend(stage.agent.is_some().then_some(("weir (bounded)", Some(&stage.bounded))));
    for _ in 0..effort.rounds.max(3) {
        for (subject, place) in &places {
            let measured = measure_in(&stage.scene, *place, &address, effort.connections)?;
            connects.add(subject, field(&measured, "connect_ns")?);
            answers.add(subject, field(&measured, "answer_ns")? / 1000.0);
        }
    }
    report.row("connect()", "ns", Better::Lower, connects);
    report.row("connect() to the first byte of an HTTP answer", "µs", Better::Lower, answers);
    Ok(())
}

fn measure_in(scene: &Scene, place: Option<&e2e::Cgroup>, address: &str, count: usize) -> Result<Value> {
    let this = env::current_exe()?.into_os_string();
    let words = [this, "bench".into(), "--connect-to".into(), address.into(), "--count".into(), count.to_string().into()];
    let client = Client::new(words).deadline(Duration::from_secs(120));
    let client = match place {
        Some(cgroup) => client.within(cgroup),
        None => client,
    };
    let seen = client.run()?.require_success().with_context(|| format!("measure below {}", scene.top.path()))?;
    serde_json::from_str(&seen.stdout).context("the measurement is not JSON")
}

fn field(value: &Value, name: &str) -> Result<f64> {
    value[name].as_f64().with_context(|| format!("no {name}"))
}

/// Connects many times, one after another; prints the medians.
pub(super) fn measure(address: SocketAddr, count: usize) -> Result<()> {
    let request = format!("GET /v1/items HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    let (mut connects, mut answers) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for _ in 0..count {
        let began = Instant::now();
        let mut link = TcpStream::connect(address).context("connect")?;
        let connected = began.elapsed();
        link.write_all(request.as_bytes())?;
        let mut first = [0];
        link.read_exact(&mut first).context("wait for the answer")?;
        connects.push(connected.as_secs_f64() * 1e9);
        answers.push(began.elapsed().as_secs_f64() * 1e9);
        // A reset instead of TIME_WAIT: thousands of connections would use up the ports.
        rustix::net::sockopt::set_socket_linger(&link, Some(Duration::ZERO))?;
    }
    println!("{}", json!({"connect_ns": median(&connects), "answer_ns": median(&answers)}));
    Ok(())
}

//! `weir agent`: the daemon.

use std::{path::PathBuf, sync::Arc};

use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

use super::{Exit, doctor, output::complain};
use crate::{
    app::App,
    config::{Config, Flags, OnStop},
    intercept::cgroup2_root,
    telemetry,
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file (YAML); flags win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
    /// What a clean stop leaves behind: `refuse` keeps designated workloads refused until an agent runs again,
    /// `release` gives them the open network [default: refuse]
    #[arg(long, value_name = "WHAT")]
    on_stop: Option<OnStop>,
    /// Log level, or a directive such as weir=debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: String,
}

pub fn run(args: Args) -> Exit {
    telemetry::start(&args.log);
    // Whoever lacks the rights is told so first: everything else would fail for the same reason, with other words.
    if let Err(error) = able() {
        complain(error);
        return Exit::Host;
    }
    let config = match Config::load(args.config.as_deref(), args.flags, args.on_stop) {
        Ok(config) => config,
        Err(error) => {
            complain(error);
            return Exit::Usage;
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format!("agent: start the runtime: {error}"));
            return Exit::Host;
        }
    };
    runtime.block_on(serve(config))
}

/// What no configuration can make up for.
fn able() -> Result<(), String> {
    let missing = doctor::missing_rights();
    if !missing.is_empty() {
        return Err(format!("the agent needs root: it does not hold {}", missing.join(", ")));
    }
    cgroup2_root().map(drop).map_err(|error| error.to_string())
}

async fn serve(config: Config) -> Exit {
    let on_stop = config.on_stop;
    // Before anything else: a signal that comes during the start must not kill the process half-way.
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = signals else {
        complain("agent: cannot handle signals");
        return Exit::Host;
    };
    let app = match App::start(config).await {
        Ok(app) => app,
        Err(error) => {
            complain(&error);
            return error.exit();
        }
    };
    notify(&[sd_notify::NotifyState::Ready]);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload(&app).await,
        }
    }
    notify(&[sd_notify::NotifyState::Stopping]);
    match on_stop {
        OnStop::Refuse => info!("stopping: designated workloads are refused until an agent runs again"),
        OnStop::Release => info!("stopping: designated workloads get the open network"),
    }
    app.stop(on_stop).await;
    Exit::Fine
}

async fn reload(app: &Arc<App>) {
    match app.reload().await {
        Ok((generation, digest)) => info!(generation, digest, "policies reloaded"),
        Err(error) => error!("reload refused, the last good policies stay in force:\n{error}"),
    }
}

/// Outside systemd there is nobody to tell.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}

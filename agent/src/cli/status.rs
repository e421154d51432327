//! `weir status`: the running agent.

use std::path::PathBuf;

use super::{
    Exit,
    output::{fail, print},
};
use crate::{
    config::default_control,
    control::{Answer, Ask, Client, ClientError, Status},
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    control: Control,
}

/// Which agent to ask.
#[derive(Debug, clap::Args)]
pub struct Control {
    /// Control socket of the agent [default: /run/weir/control.sock]
    #[arg(long, value_name = "SOCKET")]
    control: Option<PathBuf>,
}

impl Control {
    /// Asks the agent one thing.
    ///
    /// # Errors
    /// No agent answers, or it refuses.
    pub fn ask(&self, ask: &Ask) -> Result<Answer, ClientError> {
        let path = self.control.clone().unwrap_or_else(default_control);
        Client::connect(&path)?.ask(ask)
    }
}

pub fn run(args: Args) -> Exit {
    match args.control.ask(&Ask::Status) {
        Ok(Answer::Status(status)) => {
            print(&if args.json { json(&status) } else { text(&status) });
            Exit::Fine
        }
        Ok(_) => {
            fail("the agent answered something else", args.json);
            Exit::Failed
        }
        Err(error) => {
            fail(error, args.json);
            Exit::Failed
        }
    }
}

/// One JSON document with a line feed.
#[must_use]
pub fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).map_or_else(|error| format!("{{\"error\":\"{error}\"}}\n"), |text| text + "\n")
}

fn text(status: &Status) -> String {
    let listeners: Vec<String> = status.listeners.iter().map(ToString::to_string).collect();
    let health = match (&status.journal.error, status.journal.healthy) {
        (Some(error), _) => format!("FAILED: {error}"),
        (None, true) => "healthy".to_owned(),
        (None, false) => "FAILED".to_owned(),
    };
    let mut text = format!(
        "agent       weir {} pid {}, up {}\n\
         attached    {} (pins {})\n\
         listeners   {}\n\
         policy      generation {}, {} policies, {} upstreams, digest {}\n\
         designated  {}\n\
         sessions    {} open, {} since start, {} connections refused\n\
         journal     {}, {} records, {health}\n\
         authority   {}\n",
        status.version,
        status.pid,
        duration(status.uptime_s),
        status.top_cgroup.display(),
        status.pins.display(),
        listeners.join(", "),
        status.policy.generation,
        status.policy.policies.len(),
        status.policy.upstreams.len(),
        status.policy.digest.get(..16).unwrap_or(&status.policy.digest),
        if status.designated.is_empty() { "nothing yet".to_owned() } else { status.designated.join(", ") },
        status.sessions_open,
        status.sessions_total,
        status.refused_total,
        status.journal.directory.display(),
        status.journal.records,
        status.ca.display(),
    );
    if status.observe {
        text += "mode        observe: nothing is refused or masked\n";
    }
    if let Some(error) = &status.policy.last_error {
        text += &format!("\nthe last reload was refused; the policies above stay in force:\n{error}\n");
    }
    text
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d", seconds / 86_400),
    }
}

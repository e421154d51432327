//! `weir sessions`: what is open in the running agent.

use super::{
    Exit,
    output::{Table, fail, print},
    status::{Control, json},
};
use crate::{
    control::{Answer, Ask},
    proxy::sessions::SessionRow,
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    control: Control,
}

pub fn run(args: Args) -> Exit {
    match args.control.ask(&Ask::Sessions) {
        Ok(Answer::Sessions { sessions }) if args.json => print(&json(&sessions)),
        Ok(Answer::Sessions { sessions }) => print(&table(&sessions)),
        Ok(_) => {
            fail("the agent answered something else", args.json);
            return Exit::Failed;
        }
        Err(error) => {
            fail(error, args.json);
            return Exit::Failed;
        }
    }
    Exit::Fine
}

fn table(sessions: &[SessionRow]) -> String {
    let mut table =
        Table::new(&["SESSION", "WORKLOAD", "PID", "UID", "PROTOCOL", "UPSTREAM", "DESTINATION", "REQUESTS", "DENIED"]);
    for row in sessions {
        table.row(vec![
            row.session.to_string(),
            row.workload.clone(),
            row.pid.to_string(),
            row.uid.to_string(),
            row.protocol.to_string(),
            row.upstream.clone().unwrap_or_else(|| "-".to_owned()),
            row.orig_dst.to_string(),
            row.requests.to_string(),
            row.denied.to_string(),
        ]);
    }
    table.render()
}

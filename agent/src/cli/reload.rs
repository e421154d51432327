//! `weir reload`: makes the running agent read its policies again.

use super::{
    Exit,
    output::{fail, print},
    status::{Control, json},
};
use crate::control::{Answer, Ask};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    control: Control,
}

pub fn run(args: Args) -> Exit {
    match args.control.ask(&Ask::Reload) {
        Ok(Answer::Reloaded { generation, digest }) => {
            if args.json {
                print(&json(&serde_json::json!({"generation": generation, "digest": digest})));
            } else {
                print(&format!("policies reloaded: generation {generation}, digest {}\n", digest.get(..16).unwrap_or(&digest)));
            }
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

//! `weir policy`: what policies decide, and why.

use std::{path::PathBuf, sync::Arc};

use serde_json::json;

use super::{
    Exit, check,
    output::{self, Table},
};
use crate::{
    flow::{Effect, Request, Statement},
    policy::{explain, load, schema},
};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run the tests inside policy files and show each result
    Test {
        /// Policy files or directories
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of policy files
    Schema,
    /// Say which rule of which policy fires on a request, and why
    Explain(ExplainArgs),
}

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("request").required(true).args(["sql", "path"])))]
struct ExplainArgs {
    /// Policy files or directories
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// SQL text
    #[arg(long, conflicts_with_all = ["method", "host", "path"])]
    sql: Option<String>,
    /// HTTP method
    #[arg(long, default_value = "GET")]
    method: String,
    /// HTTP host
    #[arg(long, default_value = "")]
    host: String,
    /// HTTP path, with its query
    #[arg(long)]
    path: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Exit {
    match args.command {
        Command::Test { paths, json } => test(&paths, json),
        Command::Schema => {
            check::print_json(&schema::document());
            Exit::Fine
        }
        Command::Explain(args) => explain(&args),
    }
}

fn test(paths: &[PathBuf], as_json: bool) -> Exit {
    let outcomes = match load::test(paths, &check::read_sql) {
        Ok(outcomes) => outcomes,
        Err(errors) => return check::refuse(&errors, as_json),
    };
    let failed = outcomes.iter().filter(|outcome| !outcome.passed()).count();
    if as_json {
        check::print_json(&json!({ "tests": outcomes, "passed": outcomes.len() - failed, "failed": failed }));
    } else {
        let mut table = Table::new(&["RESULT", "POLICY", "WHERE", "REQUEST", "EXPECTED", "GOT", "BY"]);
        for outcome in &outcomes {
            table.row(vec![
                if outcome.passed() { "ok" } else { "FAILED" }.to_owned(),
                outcome.policy.to_string(),
                format!("{}:{}", outcome.file, outcome.line),
                outcome.request.clone(),
                outcome.expect.verb().to_owned(),
                outcome.got.verb().to_owned(),
                outcome.rule.as_deref().unwrap_or("-").to_owned(),
            ]);
        }
        output::print(&table.render());
        output::print(&format!("{} passed, {failed} failed\n", outcomes.len() - failed));
    }
    if failed == 0 { Exit::Fine } else { Exit::Failed }
}

/// Loads without running tests to their end: a policy whose test fails is just the one to be explained.
fn explain(args: &ExplainArgs) -> Exit {
    let set = match load::load_untested(&args.paths) {
        Ok(set) => set,
        Err(errors) => return check::refuse(&errors, args.json),
    };
    let request = match (&args.sql, &args.path) {
        (Some(sql), _) => Request::Statement(check::read_sql(sql.as_bytes())),
        (None, path) => {
            let target = path.as_deref().unwrap_or("/");
            Request::Http(Arc::new(explain::http_request(&args.method, &args.host, target)))
        }
    };
    let explanations = set.explain(&request);
    if args.json {
        check::print_json(&json!({ "request": describe(&request), "policies": explanations }));
        return Exit::Fine;
    }
    let mut text = String::new();
    match &request {
        Request::Statement(statement) => text += &describe_statement(statement),
        Request::Http(request) => text += &format!("path: {} (normalised {})\n", request.path, request.path_normal),
        Request::Login(_) | Request::Stream => {}
    }
    for explanation in explanations {
        let by = explanation.rule.as_deref().map_or("no rule names it".to_owned(), |rule| format!("by {rule}"));
        text += &format!("\n{}: {} {by}\n", explanation.policy, explanation.verdict);
        if let Some(message) = &explanation.message {
            text += &format!("  says: {message}\n");
        }
        for rule in &explanation.rules {
            let mark = if rule.fires { "fires" } else { "silent" };
            text += &format!("  {mark:6} {} {}: {}\n", rule.action, rule.rule, rule.why);
        }
    }
    output::print(&text);
    Exit::Fine
}

fn describe(request: &Request) -> serde_json::Value {
    match request {
        Request::Statement(statement) => json!({
            "effects": statement.effects,
            "objects": statement.objects,
            "hasWhere": statement.has_where,
            "whereTautology": statement.where_tautology,
            "readable": statement.readable,
            "unreadableReason": statement.unreadable_reason,
            "count": statement.count,
        }),
        Request::Http(request) => json!({
            "method": request.method,
            "host": request.host,
            "path": request.path,
            "pathNormal": request.path_normal,
            "query": request.query,
        }),
        Request::Login(_) | Request::Stream => serde_json::Value::Null,
    }
}

fn describe_statement(statement: &Statement) -> String {
    let effects: Vec<&str> = statement.effects.iter().map(Effect::word).collect();
    let mut text = format!("effects: {}\n", if effects.is_empty() { "none".to_owned() } else { effects.join(", ") });
    for object in &statement.objects {
        let schema = object.schema.as_deref().map(|schema| format!("{schema}.")).unwrap_or_default();
        let how = if object.write { "written" } else { "read" };
        let kind = format!("{:?}", object.kind).to_lowercase();
        text += &format!("object: {kind} {schema}{} ({how})\n", object.name.escape_debug());
    }
    if let Some(reason) = &statement.unreadable_reason {
        text += &format!("unreadable: {reason}\n");
    }
    text
}

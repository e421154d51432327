//! `weir check`: are these policies right, and do they do what their tests say?

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Exit, output};
use crate::policy::{
    load::{self, LoadErrors, Loaded},
    object::{CredentialSpec, SecretSource, Value},
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Policy files, or directories whose *.yaml files are read in name order
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Exit {
    match load::load(&args.paths, &read_sql, 0) {
        Ok(loaded) => report(&loaded, args.json),
        Err(errors) => refuse(&errors, args.json),
    }
}

/// The reader that policies' tests use: the same one that judges live statements.
pub(super) fn read_sql(text: &[u8]) -> std::sync::Arc<crate::flow::Statement> {
    crate::protocol::postgres::sql::read(text).statement
}

/// Says everything that is wrong: to people on standard error, to scripts on standard output.
pub(super) fn refuse(errors: &LoadErrors, as_json: bool) -> Exit {
    if as_json {
        print_json(&json!({ "valid": false, "errors": errors }));
    } else {
        eprint(&format!("{errors}\n"));
    }
    Exit::Usage
}

pub(super) fn print_json(value: &serde_json::Value) {
    output::print(&format!("{value:#}\n"));
}

fn report(loaded: &Loaded, as_json: bool) -> Exit {
    let mut warnings: Vec<String> =
        loaded.warnings.iter().map(|warning| format!("{}:{}: {}", warning.file, warning.line, warning.message)).collect();
    warnings.extend(loaded.credentials.iter().flat_map(|credential| exposed(credential)));
    let (upstreams, credentials, policies) = (loaded.set.upstreams.len(), loaded.credentials.len(), loaded.set.policies.len());
    let tests = loaded.tests.len();
    if as_json {
        print_json(&json!({
            "valid": true,
            "digest": loaded.set.digest,
            "upstreams": upstreams,
            "credentials": credentials,
            "policies": policies,
            "testsPassed": tests,
            "warnings": warnings,
        }));
        return Exit::Fine;
    }
    warnings.iter().for_each(|warning| eprint(&format!("warning: {warning}\n")));
    output::print(&format!(
        "{}, {}, {}, {} passed\n",
        count(upstreams, "upstream", "upstreams"),
        count(credentials, "credential", "credentials"),
        count(policies, "policy", "policies"),
        count(tests, "test", "tests"),
    ));
    Exit::Fine
}

fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Warnings about a credential's sources: a secret that everyone on the host can read is not one.
fn exposed(credential: &CredentialSpec) -> Vec<String> {
    let user = match &credential.user {
        Some(Value::From(source)) => Some(source),
        Some(Value::Literal(_)) | None => None,
    };
    let secrets = [credential.password.as_ref(), credential.token.as_ref()];
    let mut warnings: Vec<String> = secrets
        .into_iter()
        .flatten()
        .filter_map(|source| exposed_source(source).map(|why| format!("credential `{}`: {why}", credential.name)))
        .collect();
    if let Some(SecretSource::File(path)) = user
        && !path.exists()
    {
        warnings.push(format!("credential `{}`: {} is not there yet", credential.name, path.display()));
    }
    warnings
}

fn exposed_source(source: &SecretSource) -> Option<String> {
    match source {
        SecretSource::File(path) => match std::fs::metadata(path) {
            Ok(metadata) => readable_by_all(path, &metadata),
            Err(error) => Some(format!("{}: {error}", path.display())),
        },
        SecretSource::Env(name) => Some(format!(
            "the environment variable {name} can be read by whoever may read the agent's /proc: prefer file or systemd"
        )),
        SecretSource::Exec(_) | SecretSource::Systemd(_) => None,
    }
}

fn readable_by_all(path: &Path, metadata: &std::fs::Metadata) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode();
    (mode & 0o004 != 0).then(|| format!("{} can be read by every user (mode {:03o}): chmod 0400", path.display(), mode & 0o777))
}

fn eprint(text: &str) {
    use std::io::Write;
    // Nobody to tell is not an error.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn warns_of_a_secret_that_every_user_can_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let with_mode = |mode| {
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            exposed_source(&SecretSource::File(file.path().to_owned()))
        };
        assert!(with_mode(0o644).unwrap().contains("every user (mode 644)"));
        assert_eq!(with_mode(0o400), None);
        assert!(exposed_source(&SecretSource::File("/nonexistent/secret".into())).unwrap().contains("No such file"));
    }
}

//! `weir check`: are these policies right, and do they do what their tests say?

use std::path::PathBuf;

use serde_json::json;

use super::{Exit, output};
use crate::{
    credential::check_private,
    policy::{
        load::{self, LoadErrors, Loaded},
        object::{CredentialSpec, SecretSource, Upstream, Value},
    },
    tls::check_ca,
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
    warnings.extend(loaded.set.upstreams.iter().filter_map(|upstream| unverifiable(upstream)));
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
        .filter_map(|source| exposed_source(source, AGENT_UID).map(|why| format!("credential `{}`: {why}", credential.name)))
        .collect();
    if let Some(SecretSource::File(path)) = user
        && !path.exists()
    {
        warnings.push(format!("credential `{}`: {} is not there yet", credential.name, path.display()));
    }
    warnings
}

fn exposed_source(source: &SecretSource, agent: u32) -> Option<String> {
    match source {
        SecretSource::File(path) => match std::fs::metadata(path) {
            Ok(metadata) => check_private(&metadata, agent).err().map(|why| format!("{}: {why}", path.display())),
            Err(error) => Some(format!("{}: {error}", path.display())),
        },
        SecretSource::Env(name) => Some(format!(
            "the environment variable {name} can be read by whoever may read the agent's /proc: prefer file or systemd"
        )),
        SecretSource::Exec(_) | SecretSource::Systemd(_) => None,
    }
}

/// A warning about the certificates by which an upstream is verified: without them no session reaches it.
fn unverifiable(upstream: &Upstream) -> Option<String> {
    let path = upstream.tls.ca.as_ref()?;
    let why = check_ca(path).err()?;
    Some(format!("upstream `{}`: {why}", upstream.name))
}

/// The agent runs as root: a secret of somebody else's is not private, whoever runs this check.
const AGENT_UID: u32 = 0;

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
        let agent = rustix::process::geteuid().as_raw();
        let with_mode = |mode| {
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            exposed_source(&SecretSource::File(file.path().to_owned()), agent)
        };
        assert!(with_mode(0o644).unwrap().ends_with("(mode 644): chmod 600"), "the agent's own words");
        assert!(with_mode(0o620).unwrap().ends_with("chmod 600"));
        assert_eq!(with_mode(0o400), None);
        let other = exposed_source(&SecretSource::File(file.path().to_owned()), agent.wrapping_add(1));
        assert_eq!(other.is_some(), agent != 0, "root's file is everybody's agent's");
        let absent = SecretSource::File("/nonexistent/secret".into());
        assert!(exposed_source(&absent, agent).unwrap().contains("No such file"));
    }

    #[test]
    fn warns_of_an_authority_that_is_not_there_or_empty() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let warning = |ca: &std::path::Path| {
            let text = format!(
                "apiVersion: weir/v1\nkind: Upstream\nmetadata: {{name: db}}\nspec: {{hosts: [10.0.0.1], tls: {{mode: verify-full, ca: {}}}}}\n",
                ca.display()
            );
            let source = load::SourceFile { name: "test.yaml".into(), text };
            let loaded = load::load_sources(&[source], &read_sql, 0).unwrap();
            unverifiable(loaded.set.upstreams.first().unwrap()).unwrap_or_default()
        };
        assert!(warning(file.path()).contains("no certificate in it"), "{}", warning(file.path()));
        let absent = warning(std::path::Path::new("/nonexistent/ca.pem"));
        assert!(absent.contains("upstream `db`") && absent.contains("No such file"), "{absent}");
        let key = rcgen::generate_simple_self_signed(["db".to_owned()]).unwrap();
        std::fs::write(file.path(), key.cert.pem()).unwrap();
        assert_eq!(warning(file.path()), "");
    }

    #[test]
    fn nothing_to_load_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let check = |path: PathBuf| run(Args { paths: vec![path], json: false });
        assert_eq!(check(directory.path().to_owned()), Exit::Usage);
        let file = directory.path().join("empty.yaml");
        for text in ["", "# nothing\n", "---\n---\n"] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(check(file.clone()), Exit::Usage, "{text:?}");
        }
        let errors = load::load(&[file], &read_sql, 0).err().unwrap();
        assert!(errors.to_string().contains("no objects"), "{errors}");
    }

    #[test]
    fn the_packs_and_the_examples_can_be_loaded_together() {
        for folder in ["packs", "examples"] {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies").join(folder);
            assert_eq!(run(Args { paths: vec![path], json: false }), Exit::Fine, "{folder}");
        }
    }
}

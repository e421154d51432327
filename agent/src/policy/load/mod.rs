//! From files to objects: every mistake at once, each where it stands; nothing is loaded unless everything is right.
//!
//! Upstreams and credentials are read first, over all files, then the policies that name them, then the policies' own
//! `tests:` run. The SQL reader is passed in: policy does not know protocols.

mod fields;
pub(in crate::policy) mod objects;
pub(in crate::policy) mod policy;
pub(in crate::policy) mod rules;
pub(in crate::policy) mod selftest;
mod source;
#[cfg(test)]
mod tests;
mod tree;

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use sha2::{Digest, Sha256};

use super::{
    PolicySet,
    object::{CredentialSpec, Policy, Upstream},
    rule::Action,
};
use crate::flow::{Protocol, Statement};
use fields::{Map, start_of, text, word};
use source::Reporter;
use tree::{Node, Span};

pub use selftest::{Expectation, TestOutcome};
pub use source::{LoadError, LoadErrors, SourceFile};

/// Reads the text of one SQL message into what rules match on.
pub type SqlReader = dyn Fn(&[u8]) -> Arc<Statement> + Send + Sync;

/// Objects that were loaded together, with everything that `check` tells about them.
#[derive(Debug)]
pub struct Loaded {
    pub set: PolicySet,
    pub credentials: Vec<Arc<CredentialSpec>>,
    /// Every test, all passed.
    pub tests: Vec<TestOutcome>,
    /// What is allowed but probably not meant.
    pub warnings: Vec<LoadError>,
}

/// Loads files and directories (their `*.yaml` and `*.yml`, in name order) and runs the tests inside them.
///
/// # Errors
/// Everything that is wrong, tests that failed included.
pub fn load(paths: &[PathBuf], reader: &SqlReader, generation: u64) -> Result<Loaded, LoadErrors> {
    load_sources(&read_files(paths)?, reader, generation)
}

/// As [`load`], for texts that were read already.
///
/// # Errors
/// As [`load`].
pub fn load_sources(sources: &[SourceFile], reader: &SqlReader, generation: u64) -> Result<Loaded, LoadErrors> {
    let parsed = parse(sources)?;
    let mut failures = Vec::new();
    let tests = parsed.run_tests(reader);
    for (file, source) in sources.iter().enumerate() {
        let reporter = Reporter::new(source);
        for (outcome, _) in tests.iter().filter(|(outcome, in_file)| *in_file == file && !outcome.passed()) {
            reporter.error(outcome.span, outcome.failure());
        }
        failures.extend(reporter.finish());
    }
    if !failures.is_empty() {
        return Err(LoadErrors(failures));
    }
    let tests = tests.into_iter().map(|(outcome, _)| outcome).collect();
    let (credentials, warnings) = (parsed.known.credentials.clone(), parsed.warnings.clone());
    Ok(Loaded { set: parsed.into_set(sources, generation), credentials, tests, warnings })
}

/// Runs the tests inside files that are valid otherwise, and tells how each ended.
///
/// # Errors
/// Everything that is wrong besides tests that fail.
pub fn test(paths: &[PathBuf], reader: &SqlReader) -> Result<Vec<TestOutcome>, LoadErrors> {
    let sources = read_files(paths)?;
    Ok(parse(&sources)?.run_tests(reader).into_iter().map(|(outcome, _)| outcome).collect())
}

/// Loads without running the tests, to explain why one fails. Not for sets that go into force.
///
/// # Errors
/// Everything that is wrong besides tests that fail.
pub fn load_untested(paths: &[PathBuf]) -> Result<PolicySet, LoadErrors> {
    let sources = read_files(paths)?;
    parse(&sources).map(|parsed| parsed.into_set(&sources, 0))
}

/// What policies may name.
#[derive(Default)]
pub(super) struct Known {
    upstreams: Vec<Arc<Upstream>>,
    credentials: Vec<Arc<CredentialSpec>>,
    /// Credentials with mistakes: what uses them is not blamed for it.
    flawed: HashSet<Arc<str>>,
}

struct Parsed {
    known: Known,
    policies: Vec<ParsedPolicy>,
    warnings: Vec<LoadError>,
}

struct ParsedPolicy {
    policy: Arc<Policy>,
    tests: Vec<selftest::Test>,
    file: usize,
}

impl Parsed {
    fn into_set(self, sources: &[SourceFile], generation: u64) -> PolicySet {
        PolicySet {
            generation,
            digest: digest(sources),
            upstreams: self.known.upstreams,
            policies: self.policies.into_iter().map(|parsed| parsed.policy).collect(),
        }
    }

    fn run_tests(&self, reader: &SqlReader) -> Vec<(TestOutcome, usize)> {
        let each = |parsed: &ParsedPolicy| {
            let outcomes: Vec<_> = parsed.tests.iter().map(|test| (test.run(&parsed.policy, reader), parsed.file)).collect();
            outcomes
        };
        self.policies.iter().flat_map(each).collect()
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Credential,
    Policy,
    Upstream,
}

/// One document whose head was read.
struct Document<'n> {
    file: usize,
    kind: Kind,
    name: &'n str,
    name_span: Span,
    labels: Vec<(String, String)>,
    spec: &'n Node,
}

fn parse(sources: &[SourceFile]) -> Result<Parsed, LoadErrors> {
    let reporters: Vec<Reporter<'_>> = sources.iter().map(Reporter::new).collect();
    let trees: Vec<Vec<Node>> = reporters.iter().map(tree::parse).collect();
    let mut documents = Vec::new();
    for (file, (reporter, nodes)) in reporters.iter().zip(&trees).enumerate() {
        for node in nodes.iter().filter(|node| !fields::is_null(node)) {
            if documents.len() >= OBJECTS_MAX {
                reporter.error(start_of(node.span), format!("more than {OBJECTS_MAX} objects"));
                break;
            }
            documents.extend(head(reporter, node, file));
        }
    }
    let reporter = |document: &Document<'_>| reporters.get(document.file);
    refuse_duplicates(&documents, &reporters);
    let mut known = Known::default();
    for document in documents.iter() {
        let Some(reporter) = reporter(document) else { continue };
        match document.kind {
            Kind::Upstream => {
                let upstream = objects::upstream(reporter, document.spec, document.name, document.labels.clone());
                known.upstreams.extend(upstream.map(Arc::new));
            }
            Kind::Credential => {
                let before = reporter.count();
                let credential = objects::credential(reporter, document.spec, document.name);
                if reporter.count() > before {
                    known.flawed.insert(document.name.into());
                }
                known.credentials.extend(credential.map(Arc::new));
            }
            Kind::Policy => {}
        }
    }
    let mut policies = Vec::new();
    for document in documents.iter().filter(|document| document.kind == Kind::Policy) {
        let Some(reporter) = reporter(document) else { continue };
        let Some(spec) = policy::policy(reporter, document.spec, document.name, &known) else { continue };
        let policy = Arc::new(Policy { name: document.name.into(), spec });
        refuse_unfit_credential(reporter, document, &policy, &known);
        let tests = selftest::tests(reporter, document.spec);
        policies.push(ParsedPolicy { policy, tests, file: document.file });
    }
    // A set that says nothing is a mistake: every file was empty, or held comments alone.
    let silent = documents.is_empty() && reporters.iter().all(|reporter| reporter.count() == 0);
    if let (true, Some(reporter)) = (silent, reporters.first()) {
        let start = tree::Mark { line: 1, column: 1 };
        reporter.error(Span { start, end: start }, "no objects: write an Upstream, a Credential or a Policy");
    }
    let clean = reporters.iter().all(|reporter| reporter.count() == 0);
    let errors: Vec<LoadError> = reporters.into_iter().flat_map(Reporter::finish).collect();
    if !clean {
        return Err(LoadErrors(errors));
    }
    let warnings = warnings(&documents, sources, &policies, &known);
    Ok(Parsed { known, policies, warnings })
}

fn head<'n>(reporter: &Reporter<'_>, node: &'n Node, file: usize) -> Option<Document<'n>> {
    let what = "an object";
    let map = Map::read(reporter, node, what, OBJECT_KEYS)?;
    if let Some(version) = map.require(reporter, what, "apiVersion", OBJECT_KEYS) {
        word(reporter, version, "apiVersion", &[("weir/v1", ())]);
    }
    let kind = map.require(reporter, what, "kind", OBJECT_KEYS).and_then(|node| word(reporter, node, "kind", KINDS));
    let metadata = map.require(reporter, what, "metadata", OBJECT_KEYS);
    let spec = map.require(reporter, what, "spec", OBJECT_KEYS);
    let metadata = Map::read(reporter, metadata?, "metadata", METADATA_KEYS)?;
    let labels = metadata.get("labels").and_then(|node| labels(reporter, node)).unwrap_or_default();
    let named = metadata.require(reporter, "metadata", "name", METADATA_KEYS);
    let named_span = named.map_or(metadata.span, |node| node.span);
    // A spec is checked even if its name is wrong: all errors at once.
    let name = named.and_then(|node| fields::name(reporter, node, "the name of an object")).unwrap_or("?");
    Some(Document { file, kind: kind?, name, name_span: named_span, labels, spec: spec? })
}

fn labels(reporter: &Reporter<'_>, node: &Node) -> Option<Vec<(String, String)>> {
    let map = Map::read_open(reporter, node, "labels")?;
    let pair = |(key, _, value): (&str, _, &Node)| Some((key.to_owned(), text(reporter, value, "a label")?.to_owned()));
    Some(map.entries().filter_map(pair).collect())
}

fn refuse_duplicates(documents: &[Document<'_>], reporters: &[Reporter<'_>]) {
    let mut seen: HashMap<(String, &str), &Document<'_>> = HashMap::new();
    for document in documents.iter().filter(|document| document.name != "?") {
        let kind = format!("{:?}", document.kind);
        let Some(first) = seen.get(&(kind.clone(), document.name)) else {
            seen.insert((kind, document.name), document);
            continue;
        };
        let place = reporters.get(first.file).map(|reporter| &reporter.source().name);
        let (file, line) = (place.map_or("", |name| name), first.name_span.start.line);
        if let Some(reporter) = reporters.get(document.file) {
            reporter.error(document.name_span, format!("another {kind} is named `{}`: {file}:{line}", document.name));
        }
    }
}

/// PostgreSQL logs in with a user and a password: a token does not help.
fn refuse_unfit_credential(reporter: &Reporter<'_>, document: &Document<'_>, policy: &Policy, known: &Known) {
    let Some(inject) = &policy.spec.inject else { return };
    let credential = &inject.credential;
    let fits = (credential.user.is_some() && credential.password.is_some()) || known.flawed.contains(&credential.name);
    let postgres = known.upstreams.iter().find(|it| it.protocol == Some(Protocol::Postgres) && policy.selects_upstream(it));
    if let (false, Some(upstream), tree::Value::Map(entries)) = (fits, postgres, &document.spec.value)
        && let Some((key, _)) =
            entries.iter().find(|(key, _)| matches!(&key.value, tree::Value::Scalar { text, .. } if text == "inject"))
    {
        let message = format!("upstream `{}` speaks postgres: its credential needs a user and a password", upstream.name);
        reporter.error(key.span, message);
    }
}

fn warnings(documents: &[Document<'_>], sources: &[SourceFile], policies: &[ParsedPolicy], known: &Known) -> Vec<LoadError> {
    let mut reporters: Vec<Reporter<'_>> = sources.iter().map(Reporter::new).collect();
    let warn = |document: &Document<'_>, message: String| {
        if let Some(reporter) = reporters.get(document.file) {
            reporter.error(document.name_span, message);
        }
    };
    for document in documents {
        match document.kind {
            Kind::Policy => {
                let Some(parsed) = policies.iter().find(|parsed| *parsed.policy.name == *document.name) else { continue };
                let spec = &parsed.policy.spec;
                if !spec.workloads.iter().any(super::object::WorkloadSelector::designates) {
                    warn(
                        document,
                        format!(
                            "policy `{}` selects by exe and uid alone, which designates no workload: add a cgroup, unit or name",
                            document.name
                        ),
                    );
                }
                let opaque =
                    known.upstreams.iter().find(|it| it.protocol == Some(Protocol::Tcp) && parsed.policy.selects_upstream(it));
                if let Some(upstream) = opaque.filter(|_| parsed.policy.inspects()) {
                    warn(
                        document,
                        format!(
                            "upstream `{}` is declared as tcp: what policy `{}` asks for cannot be applied to it, so `onUnreadable` decides",
                            upstream.name, document.name
                        ),
                    );
                }
                if let Some(rule) = spec.rules.iter().find(|rule| rule.action == Action::Hold) {
                    warn(document, format!("rule {} holds: until there is an approval desk, it denies", rule.name));
                }
            }
            Kind::Upstream => {
                let named = |upstream: &&Arc<Upstream>| policies.iter().any(|parsed| parsed.policy.selects_upstream(upstream));
                if !known.upstreams.iter().filter(|upstream| *upstream.name == *document.name).any(|it| named(&it)) {
                    warn(document, format!("no policy names upstream `{}`", document.name));
                }
            }
            Kind::Credential => {
                let injected = |parsed: &ParsedPolicy| {
                    parsed.policy.spec.inject.as_ref().is_some_and(|inject| *inject.credential.name == *document.name)
                };
                if !policies.iter().any(injected) {
                    warn(document, format!("no policy injects credential `{}`", document.name));
                }
            }
        }
    }
    reporters.drain(..).flat_map(Reporter::finish).collect()
}

fn digest(sources: &[SourceFile]) -> String {
    let mut hash = Sha256::new();
    for source in sources {
        hash.update((source.text.len() as u64).to_be_bytes());
        hash.update(source.text.as_bytes());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read_files(paths: &[PathBuf]) -> Result<Vec<SourceFile>, LoadErrors> {
    let mut errors = Vec::new();
    let mut sources = Vec::new();
    let mut fail = |path: &Path, message: String| {
        let file = Arc::from(path.display().to_string());
        errors.push(LoadError { file, line: 0, column: 0, message, help: None, source: None, width: 0 });
    };
    for path in paths {
        let files = if path.is_dir() { directory(path) } else { Ok(vec![path.clone()]) };
        match files {
            Err(message) => fail(path, message),
            Ok(files) if sources.len() + files.len() > FILES_MAX => fail(path, format!("more than {FILES_MAX} files")),
            Ok(files) => {
                for file in files {
                    match read_file(&file) {
                        Ok(text) => sources.push(SourceFile { name: file.display().to_string().into(), text }),
                        Err(message) => fail(&file, message),
                    }
                }
            }
        }
    }
    if paths.is_empty() {
        fail(Path::new("policies"), "no file was given".to_owned());
    }
    if errors.is_empty() { Ok(sources) } else { Err(LoadErrors(errors)) }
}

fn directory(path: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(path).map_err(|error| format!("cannot be read: {error}"))?;
    let mut files = Vec::new();
    for entry in entries.take(DIRECTORY_ENTRIES_MAX) {
        let file = entry.map_err(|error| format!("cannot be read: {error}"))?.path();
        let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let yaml = file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if yaml && !hidden && file.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err("holds no *.yaml or *.yml file".to_owned());
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    // A FIFO or a device would block or never end.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("is larger than {FILE_BYTES_MAX} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned())
}

const KINDS: &[(&str, Kind)] = &[("Upstream", Kind::Upstream), ("Credential", Kind::Credential), ("Policy", Kind::Policy)];
pub(in crate::policy) const OBJECT_KEYS: &[&str] = &["apiVersion", "kind", "metadata", "spec"];
pub(in crate::policy) const METADATA_KEYS: &[&str] = &["name", "labels"];
const FILE_BYTES_MAX: u64 = 1024 * 1024;
const FILES_MAX: usize = 1024;
const DIRECTORY_ENTRIES_MAX: usize = 16 * 1024;
const OBJECTS_MAX: usize = 4096;

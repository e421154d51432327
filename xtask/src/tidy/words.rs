//! Words that must not be committed, and policies without tests.

use super::{Finding, files::File, source};
use crate::project;

/// Written apart, so that this file may be committed.
const UNFINISHED: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
const UNFINISHED_MACROS: [&str; 2] = [concat!("to", "do!("), concat!("unimple", "mented!(")];
/// Where packages come from is the builder's business.
const HOSTS: [&str; 2] = [concat!("crates", ".io"), concat!("pypi", ".org")];

pub(super) fn check(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let root = project::root();
    let root = root.to_string_lossy();
    for (index, line) in file.text.lines().enumerate() {
        let mut found = |what: String| findings.push(Finding::new(file, index + 1, what));
        UNFINISHED
            .iter()
            .filter(|word| has_word(line, word))
            .for_each(|word| found(format!("{word}: finish it, or write an issue")));
        HOSTS.iter().filter(|host| line.contains(*host)).for_each(|host| found(format!("names a package registry: {host}")));
        if root.len() >= ROOT_CHARACTERS_MIN && line.contains(root.as_ref()) {
            found("names a path of the machine that it was written on".to_owned());
        }
    }
    if file.path.ends_with(".rs") {
        findings.extend(unfinished_macros(file));
    }
    if file.path.starts_with("policies/") && file.path.ends_with(".yaml") {
        findings.extend(untested_policies(file));
    }
    findings
}

fn has_word(line: &str, word: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(offset, _)| {
        let (before, after) = (line.get(..offset), line.get(offset + word.len()..));
        !part(before.and_then(|text| text.chars().next_back())) && !part(after.and_then(|text| text.chars().next()))
    })
}

fn unfinished_macros(file: &File) -> Vec<Finding> {
    let code = source::blank(&file.text);
    let found = UNFINISHED_MACROS.iter().flat_map(|word| code.match_indices(word));
    found.map(|(offset, word)| Finding::new(file, source::line_of(&code, offset), format!("{word}...): finish it"))).collect()
}

fn untested_policies(file: &File) -> Vec<Finding> {
    let mut line = 1;
    let mut findings = Vec::new();
    for document in file.text.split("\n---") {
        let says =
            |wanted: &str| document.lines().any(|given| given.trim_end() == wanted || given.trim_end().starts_with(wanted));
        if says("kind: Policy") && !document.lines().any(|given| given.trim_start().starts_with("tests:")) {
            findings.push(Finding::new(file, line, "a policy without `tests:`"));
        }
        line += document.lines().count().max(1);
    }
    findings
}

/// A shorter root (`/src`) would be found in innocent text.
const ROOT_CHARACTERS_MIN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> usize {
        check(&File { path: path.to_owned(), text: text.to_owned() }).len()
    }

    #[test]
    fn finds_unfinished_work() {
        assert_eq!(findings("a.md", &format!("a {} b", UNFINISHED[0])), 1);
        assert_eq!(findings("a.rs", &format!("fn a() {{ {}) }}", UNFINISHED_MACROS[0])), 1);
        assert_eq!(findings("a.rs", "// to do is to be; mkstemp(\"tmpXXXXXX\")"), 0);
    }

    #[test]
    fn finds_policies_without_tests() {
        assert_eq!(findings("policies/a.yaml", "kind: Upstream\n---\nkind: Policy\nspec: {}\n"), 1);
        assert_eq!(findings("policies/a.yaml", "kind: Policy\nspec:\n  tests:\n    - {}\n"), 0);
    }
}

//! Sizes: a file is one idea, a function fits on a screen.

use super::{Finding, files::File, source};

const FILE_CODE_LINES_MAX: usize = 500;
const FUNCTION_CODE_LINES_MAX: usize = 70;

pub(super) fn check(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    // `name/tests.rs` is the end of the file that it tests.
    if !file.path.ends_with("/tests.rs") && !opens_with_a_word(&file.text) {
        findings.push(Finding::new(file, 1, "does not open with `//!`: say what this file is for"));
    }
    if file.is_test() {
        return findings;
    }
    let code = source::without_tests(&source::blank(&file.text));
    let lines = code_lines(&code);
    if lines > FILE_CODE_LINES_MAX {
        findings.push(Finding::new(file, 0, format!("{lines} lines of code, at most {FILE_CODE_LINES_MAX}")));
    }
    for (name, line, lines) in functions(&code) {
        if lines > FUNCTION_CODE_LINES_MAX {
            findings.push(Finding::new(
                file,
                line,
                format!("fn {name} has {lines} lines of code, at most {FUNCTION_CODE_LINES_MAX}"),
            ));
        }
    }
    findings
}

/// Inner attributes such as `#![no_std]` may stand above the words.
fn opens_with_a_word(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.find(|line| !line.starts_with("#![")).is_some_and(|line| line.starts_with("//!"))
}

fn code_lines(code: &str) -> usize {
    code.lines().filter(|line| !line.trim().is_empty()).count()
}

/// Name, line and number of code lines, signature included, of every function with a body.
fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let word = |offset: usize| {
        let before = offset.checked_sub(1).and_then(|at| code.as_bytes().get(at));
        before.is_none_or(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_')
    };
    let starts = code.match_indices("fn ").map(|(offset, _)| offset).filter(|offset| word(*offset));
    let described = starts.filter_map(|start| {
        let name: String = code.get(start + 3..)?.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let body = code.get(start..source::item_end(code, start))?;
        (!name.is_empty()).then(|| (name, source::line_of(code, start), code_lines(body)))
    });
    described.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: String) -> File {
        File { path: path.to_owned(), text }
    }

    fn function_of(lines: usize) -> String {
        format!("//! A file.\nfn long() {{\n{}}}\n", "    call();\n".repeat(lines - 2))
    }

    #[test]
    fn takes_a_function_of_the_limit_and_refuses_one_more() {
        assert!(check(&file("agent/src/a.rs", function_of(FUNCTION_CODE_LINES_MAX))).is_empty());
        assert_eq!(check(&file("agent/src/a.rs", function_of(FUNCTION_CODE_LINES_MAX + 1))).len(), 1);
    }

    #[test]
    fn does_not_count_comments_blank_lines_and_tests() {
        let text =
            function_of(FUNCTION_CODE_LINES_MAX) + "// more\n\n#[cfg(test)]\nmod tests {\n" + &"fn t() {}\n".repeat(600) + "}\n";
        assert!(check(&file("agent/src/a.rs", text)).is_empty());
    }

    #[test]
    fn refuses_a_file_over_the_limit() {
        let text = "//! A file.\n".to_owned() + &"const A: u8 = 1;\n".repeat(FILE_CODE_LINES_MAX + 1);
        assert_eq!(check(&file("agent/src/a.rs", text)).len(), 1);
    }

    #[test]
    fn refuses_a_file_without_opening_words() {
        assert_eq!(check(&file("agent/src/a.rs", "fn a() {}\n".to_owned())).len(), 1);
        assert!(check(&file("agent/src/a.rs", "#![no_std]\n//! Words.\n".to_owned())).is_empty());
    }
}

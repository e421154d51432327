//! `cargo xtask tidy`: what the compiler and clippy do not look at.

mod files;
mod functions;
mod layers;
mod source;
mod words;

use anyhow::{Result, bail};

use files::File;

/// One thing that is not as it should be.
#[derive(Debug)]
struct Finding {
    path: String,
    /// 0: the file as a whole.
    line: usize,
    what: String,
}

impl Finding {
    fn new(file: &File, line: usize, what: impl Into<String>) -> Self {
        Self { path: file.path.clone(), line, what: what.into() }
    }
}

pub(crate) fn run() -> Result<()> {
    let files = files::committed()?;
    let mut findings = Vec::new();
    for file in &files {
        findings.extend(words::check(file));
        if file.path.ends_with(".rs") {
            findings.extend(functions::check(file));
            findings.extend(layers::check(file));
        }
    }
    for finding in &findings {
        eprintln!("{}:{}: {}", finding.path, finding.line, finding.what);
    }
    if !findings.is_empty() {
        bail!("tidy: {} findings", findings.len());
    }
    println!("tidy: {} files are in order", files.len());
    Ok(())
}

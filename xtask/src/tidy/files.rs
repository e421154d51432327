//! The files that belong to the project, as git sees them.

use std::{fs, process::Command};

use anyhow::{Context, Result};

use crate::project;

/// A text file of the project.
#[derive(Debug)]
pub(super) struct File {
    /// Relative to the root.
    pub(super) path: String,
    pub(super) text: String,
}

impl File {
    /// Code that only tests run: limits on size do not apply, and fakes may cross layers.
    pub(super) fn is_test(&self) -> bool {
        let path = self.path.as_str();
        path.ends_with("/tests.rs") || path.contains("/tests/") || path.starts_with("tests/e2e/") || path.contains("/fuzz/")
    }
}

/// Every text file that is committed, or new and not ignored. Binary files are left out.
pub(super) fn committed() -> Result<Vec<File>> {
    let root = project::root();
    let mut git = Command::new("git");
    // A clone may belong to another user than root: reading its index does no harm.
    git.current_dir(&root).args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listed = project::output(&mut git).context("list the project's files")?;
    let paths = listed.split('\0').filter(|path| !path.is_empty() && !path.ends_with("Cargo.lock"));
    let read = |path: &str| {
        let text = String::from_utf8(fs::read(root.join(path)).ok()?).ok()?;
        Some(File { path: path.to_owned(), text })
    };
    Ok(paths.filter_map(read).collect())
}

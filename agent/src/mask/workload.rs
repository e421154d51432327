//! A workload as the journal may know it: command lines carry secrets more often than they should.

use std::{ops::Deref, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Scrubber, argv};
use crate::flow::{Ancestor, Workload};

/// A workload whose free text, its own arguments and its directory, has been scrubbed. Of its parents' arguments only the first is
/// kept, and its beginning: some carry whole environments.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MaskedWorkload(Arc<Workload>);

impl Deref for MaskedWorkload {
    type Target = Workload;

    fn deref(&self) -> &Workload {
        &self.0
    }
}

impl Scrubber {
    /// Scrubs a workload for the journal: known values, and what stands where command lines hold passwords.
    #[must_use]
    pub fn workload(&self, workload: &Arc<Workload>) -> MaskedWorkload {
        // Known values first: what looks like a password may be only a part of one.
        let arguments = |argv: &[String]| {
            let scrubbed: Vec<String> = argv.iter().map(|text| self.text(text.as_bytes()).to_string()).collect();
            argv::hide(&scrubbed)
        };
        let parent = |parent: &Ancestor| {
            let first: Vec<String> = parent.argv.first().map(|first| shortened(first)).into_iter().collect();
            Ancestor { pid: parent.pid, exe: parent.exe.clone(), argv: arguments(&first) }
        };
        let cwd = |cwd: &std::path::PathBuf| self.text(cwd.as_os_str().as_encoded_bytes()).as_str().into();
        MaskedWorkload(Arc::new(Workload {
            argv: arguments(&workload.argv),
            cwd: workload.cwd.as_ref().map(cwd),
            parents: workload.parents.iter().map(parent).collect(),
            ..Workload::clone(workload)
        }))
    }
}

fn shortened(text: &str) -> String {
    if text.len() <= ANCESTOR_BYTES_MAX {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(ANCESTOR_BYTES_MAX);
    format!("{}...", text.get(..end).unwrap_or_default())
}

/// Enough for a path; titles that programs give themselves can be longer.
const ANCESTOR_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::KnownSecrets;

    #[test]
    fn scrubs_arguments_of_the_workload_and_of_its_parents() {
        let known = KnownSecrets::default();
        known.register(b"correct-horse-battery").unwrap();
        let parent = Ancestor { pid: 1, exe: None, argv: vec!["-ccorrect-horse-battery".into()] };
        let argv = vec!["psql".into(), "select 'correct-horse-battery'".into()];
        let workload = Arc::new(Workload { argv, parents: vec![parent], ..Workload::default() });
        let text = serde_json::to_string(&known.scrubber().workload(&workload)).unwrap();
        assert!(!text.contains("correct-horse"), "{text}");
        assert!(text.contains("select '***'"), "{text}");
    }

    #[test]
    fn hides_passwords_that_weir_does_not_know_and_cuts_what_parents_carry() {
        let parent = Ancestor { pid: 1, exe: Some("/bin/sh".into()), argv: vec!["sh".repeat(500), "PGPASSWORD=s3cret".into()] };
        let argv = vec!["psql".into(), "postgres://app:s3cret@db/x".into()];
        let workload = Workload { argv, parents: vec![parent], cwd: Some("/srv/password=x".into()), ..Workload::default() };
        let masked = KnownSecrets::default().scrubber().workload(&Arc::new(workload));
        assert_eq!(masked.argv, ["psql", "postgres://app:***@db/x"]);
        assert_eq!(masked.cwd.as_deref(), Some(std::path::Path::new("/srv/password=x")));
        let [parent] = masked.parents.as_slice() else { panic!("{masked:?}") };
        assert_eq!((parent.argv.len(), parent.exe.as_deref()), (1, Some(std::path::Path::new("/bin/sh"))));
        assert!(parent.argv.iter().all(|word| word.len() < 140), "{parent:?}");
    }
}

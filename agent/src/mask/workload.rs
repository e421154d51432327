//! A workload as the journal may know it: command lines carry secrets more often than they should.

use std::{ops::Deref, sync::Arc};

use serde::{Deserialize, Serialize};

use super::Scrubber;
use crate::flow::{Ancestor, Workload};

/// A workload whose free text, its own and its parents' arguments and its directory, has been scrubbed.
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
    /// Scrubs a workload for the journal; shares it when there was nothing to scrub.
    #[must_use]
    pub fn workload(&self, workload: &Arc<Workload>) -> MaskedWorkload {
        let cwd = workload.cwd.iter().map(|cwd| cwd.as_os_str().as_encoded_bytes());
        let parents = workload.parents.iter().flat_map(|parent| &parent.argv);
        let texts = workload.argv.iter().chain(parents).map(String::as_bytes).chain(cwd);
        if self.is_empty() || !texts.into_iter().any(|text| self.finds(text)) {
            return MaskedWorkload(Arc::clone(workload));
        }
        let arguments = |argv: &[String]| argv.iter().map(|text| self.text(text.as_bytes()).to_string()).collect();
        let parent = |parent: &Ancestor| Ancestor { argv: arguments(&parent.argv), ..parent.clone() };
        let cwd = |cwd: &std::path::PathBuf| self.text(cwd.as_os_str().as_encoded_bytes()).as_str().into();
        MaskedWorkload(Arc::new(Workload {
            argv: arguments(&workload.argv),
            cwd: workload.cwd.as_ref().map(cwd),
            parents: workload.parents.iter().map(parent).collect(),
            ..Workload::clone(workload)
        }))
    }
}

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
}

//! Prepared statements and portals by name, as the server has them.
//!
//! An entry takes effect when the server confirms it: a Parse or Bind that fails leaves the old one in place, and the old text
//! must then be judged, not the new one. Until it is confirmed, messages of the same batch see the pending entry; if it fails,
//! the server skips them.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;

/// Things by name, confirmed or pending.
pub(super) struct Names<T> {
    entries: HashMap<Bytes, Entry<T>>,
}

struct Entry<T> {
    confirmed: Option<Arc<T>>,
    /// The latest last.
    pending: Vec<Arc<T>>,
}

impl<T> Entry<T> {
    /// Takes a pending thing away; false if it is not here any more.
    fn take(&mut self, thing: &Arc<T>) -> bool {
        let position = self.pending.iter().position(|pending| Arc::ptr_eq(pending, thing));
        position.map(|position| self.pending.remove(position)).is_some()
    }
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { entries: HashMap::new() }
    }
}

impl<T> Names<T> {
    pub(super) fn find(&self, name: &[u8]) -> Option<&Arc<T>> {
        let entry = self.entries.get(name)?;
        entry.pending.last().or(entry.confirmed.as_ref())
    }

    /// True when another name does not fit.
    pub(super) fn is_full(&self, name: &[u8]) -> bool {
        self.entries.len() >= NAMES_MAX && !self.entries.contains_key(name)
    }

    /// What the name surely means now: nothing is under way that would change it.
    pub(super) fn settled(&self, name: &[u8]) -> Option<&Arc<T>> {
        self.entries.get(name).filter(|entry| entry.pending.is_empty())?.confirmed.as_ref()
    }

    /// The server has it already. Over the limit, the name stays unknown.
    pub(super) fn insert(&mut self, name: Bytes, thing: Arc<T>) {
        if !self.is_full(&name) {
            self.entries.insert(name, Entry { confirmed: Some(thing), pending: Vec::new() });
        }
    }

    pub(super) fn propose(&mut self, name: &Bytes, thing: Arc<T>) {
        match self.entries.get_mut(name) {
            Some(entry) => entry.pending.push(thing),
            None => {
                self.entries.insert(name.clone(), Entry { confirmed: None, pending: vec![thing] });
            }
        }
    }

    /// The server took it.
    pub(super) fn confirm(&mut self, name: &[u8], thing: Arc<T>) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        // What was forgotten meanwhile stays forgotten.
        if entry.take(&thing) {
            entry.confirmed = Some(thing);
        }
    }

    /// The server refused or skipped it.
    pub(super) fn withdraw(&mut self, name: &[u8], thing: &Arc<T>) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        entry.take(thing);
        if entry.pending.is_empty() && entry.confirmed.is_none() {
            self.entries.remove(name);
        }
    }

    /// The server closed it.
    pub(super) fn close(&mut self, name: &[u8]) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        entry.confirmed = None;
        if entry.pending.is_empty() {
            self.entries.remove(name);
        }
    }

    /// SQL may give the name to something else: nothing is known of it any more.
    pub(super) fn forget(&mut self, name: &[u8]) {
        self.entries.remove(name);
    }

    pub(super) fn forget_all(&mut self) {
        self.entries.clear();
    }

    /// The server closed all that it had.
    pub(super) fn close_all(&mut self) {
        if self.entries.is_empty() {
            return;
        }
        self.entries.retain(|_, entry| {
            entry.confirmed = None;
            !entry.pending.is_empty()
        });
    }
}

/// Names of one kind in one session; pools of connections keep hundreds.
pub(super) const NAMES_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    const S1: Bytes = Bytes::from_static(b"s1");

    #[test]
    fn keeps_the_old_when_the_new_is_refused() {
        let mut names = Names::default();
        let (old, new) = (Arc::new(1), Arc::new(2));
        names.propose(&S1, Arc::clone(&old));
        names.confirm(&S1, old);
        names.propose(&S1, Arc::clone(&new));
        assert_eq!(names.find(b"s1").map(|thing| **thing), Some(2));
        names.withdraw(&S1, &new);
        assert_eq!(names.find(b"s1").map(|thing| **thing), Some(1));
        names.close(&S1);
        assert!(names.find(b"s1").is_none());
    }

    #[test]
    fn keeps_what_is_proposed_after_a_close() {
        let mut names = Names::default();
        names.propose(&S1, Arc::new(1));
        names.close_all();
        assert!(names.find(b"s1").is_some());
    }

    #[test]
    fn does_not_learn_again_what_it_was_told_to_forget() {
        let mut names = Names::default();
        let (old, new) = (Arc::new(1), Arc::new(2));
        names.propose(&S1, Arc::clone(&old));
        names.forget(&S1);
        names.propose(&S1, Arc::clone(&new));
        names.confirm(&S1, old);
        names.withdraw(&S1, &new);
        assert!(names.find(b"s1").is_none());
    }

    #[test]
    fn takes_as_many_names_as_the_limit_and_no_more() {
        let mut names = Names::default();
        for number in 0..NAMES_MAX {
            let name = Bytes::from(number.to_string());
            assert!(!names.is_full(&name));
            names.propose(&name, Arc::new(number));
        }
        assert!(names.is_full(b"one more"));
        assert!(!names.is_full(b"7"));
    }
}

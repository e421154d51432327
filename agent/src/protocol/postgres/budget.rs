//! How much a session may keep of what its client prepared.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;

use super::rows::{Mentions, Reads, Target};
use crate::flow::Statement;

/// Bytes of prepared statements that are kept.
#[derive(Debug, Default)]
pub(super) struct Budget(Arc<AtomicUsize>);

/// A part of the budget, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    used: Arc<AtomicUsize>,
    bytes: usize,
}

impl Budget {
    /// `None` when so much is not left.
    pub(super) fn take(&self, bytes: usize) -> Option<Share> {
        let left = PREPARED_BYTES_MAX.saturating_sub(self.0.load(Ordering::Relaxed));
        (bytes <= left).then(|| {
            self.0.fetch_add(bytes, Ordering::Relaxed);
            Share { used: Arc::clone(&self.0), bytes }
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The statement as it is kept: everything about it, but of a long text only the beginning.
pub(super) fn excerpt(statement: &Arc<Statement>) -> Arc<Statement> {
    let Some(beginning) = statement.text.get(..EXCERPT_BYTES) else {
        return Arc::clone(statement);
    };
    let mut kept = Statement::clone(statement);
    kept.text = Bytes::from([beginning, b" ..."].concat());
    Arc::new(kept)
}

/// About how many bytes it takes to keep these, names counted once.
pub(super) fn weigh(kept: &Statement, mentions: &Mentions) -> usize {
    let targets = mentions.targets.iter().flatten().map(|target| match target {
        Target::Star => ENTRY_BYTES,
        Target::Value(reads) => ENTRY_BYTES + weigh_reads(reads),
    });
    let things = kept.objects.len() + mentions.relations.len() + 8;
    kept.text.len() + things * ENTRY_BYTES + weigh_reads(&mentions.reads) + weigh_reads(&mentions.stored) + targets.sum::<usize>()
}

fn weigh_reads(reads: &Reads) -> usize {
    (reads.columns.len() + reads.functions.len() + reads.operators.len()) * ENTRY_BYTES
}

/// What all prepared statements of one session may take.
pub(super) const PREPARED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Of a longer text, as much is kept for the journal.
const EXCERPT_BYTES: usize = 4 * 1024;

/// A name of up to 63 bytes, and its place in a list or tree.
const ENTRY_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_no_more_than_there_is_and_takes_it_back() {
        let budget = Budget::default();
        let all = budget.take(PREPARED_BYTES_MAX).expect("all of it");
        assert!(budget.take(1).is_none());
        drop(all);
        assert!(budget.take(PREPARED_BYTES_MAX + 1).is_none());
        assert!(budget.take(1).is_some());
    }

    #[test]
    fn keeps_the_beginning_of_a_long_text() {
        let text = |length: usize| super::super::sql::read(format!("select '{}'", "x".repeat(length)).as_bytes()).statement;
        let (short, long) = (text(10), text(100_000));
        assert!(Arc::ptr_eq(&excerpt(&short), &short));
        assert_eq!(excerpt(&long).text.len(), EXCERPT_BYTES + 4);
        assert_eq!(excerpt(&long).effects, long.effects);
    }
}

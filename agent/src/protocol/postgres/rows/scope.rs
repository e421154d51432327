//! The relations of a message that have protected columns: looked up once, asked for every output.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    MaskSet, Mentions, Reads,
    protect::{ColumnMask, Protected, Protection, stronger},
};
use crate::protocol::postgres::catalog::{self, Catalog};

/// Where the protected columns of a message may come from.
pub(super) struct Scope<'a> {
    mentions: &'a Mentions,
    sources: Vec<Source<'a>>,
}

struct Source<'a> {
    /// What the message calls it.
    called: BTreeSet<&'a str>,
    holds: Holds<'a>,
}

enum Holds<'a> {
    Known(&'a catalog::Relation, Arc<Protected>),
    /// The catalog does not have it: made since, or an object that is not a table. Its name is all there is.
    Unknown(Vec<&'a ColumnMask>),
}

impl<'a> Scope<'a> {
    pub(super) fn new(set: &'a MaskSet, mentions: &'a Mentions, catalog: &'a Catalog) -> Self {
        let mut names: BTreeMap<(Option<&str>, &str), BTreeSet<&str>> = BTreeMap::new();
        for relation in &mentions.relations {
            let called = names.entry((relation.schema.as_deref(), &relation.name)).or_default();
            called.insert(relation.alias.as_deref().unwrap_or(&relation.name));
        }
        let mut sources = Vec::new();
        for ((schema, name), called) in names {
            let mut oids = catalog.named(schema, name).peekable();
            if oids.peek().is_none() {
                let masks = set.of_table(schema, name);
                if !masks.is_empty() {
                    sources.push(Source { called, holds: Holds::Unknown(masks) });
                }
                continue;
            }
            for oid in oids {
                let protected = set.protected(oid, catalog);
                let Some(relation) = catalog.relation(oid).filter(|_| !protected.columns.is_empty()) else { continue };
                sources.push(Source { called: called.clone(), holds: Holds::Known(relation, protected) });
            }
        }
        Self { mentions, sources }
    }

    /// How many relations have protected columns.
    pub(super) fn len(&self) -> usize {
        self.sources.len()
    }

    /// The protection of what is read.
    pub(super) fn protection(&self, reads: &Reads) -> Option<Protection> {
        let of = |source: &Source<'_>| self.protection_from(reads, source);
        self.sources.iter().filter_map(of).max_by(|a, b| a.with.cmp(&b.with))
    }

    /// The protection of the column of that name in any of the relations.
    pub(super) fn of_output(&self, name: &str) -> Option<Protection> {
        self.protection(&Reads { columns: [(None, name.to_owned())].into(), ..Reads::default() })
    }

    /// The protection of everything in the relations.
    pub(super) fn whole(&self) -> Option<Protection> {
        self.protection(&Reads { stars: true, ..Reads::default() })
    }

    fn protection_from(&self, reads: &Reads, source: &Source<'_>) -> Option<Protection> {
        match &source.holds {
            Holds::Known(relation, protected) => {
                let mut strongest: Option<Protection> = None;
                for (attribute, protection) in &protected.columns {
                    let column = relation.columns.get(attribute).map_or("", |column| column.name.as_str());
                    if self.reads_column(reads, column, relation, &source.called) {
                        strongest = Some(stronger(strongest, protection));
                    }
                }
                strongest
            }
            Holds::Unknown(masks) => {
                let is_read = |mask: &&&ColumnMask| {
                    let is_named = |name: &String| mask.pattern.column.matcher.is_match(name.to_lowercase());
                    reads.stars || reads.columns.iter().any(|(_, name)| is_named(name))
                };
                masks.iter().filter(is_read).map(|mask| mask.protection()).max_by(|a, b| a.with.cmp(&b.with))
            }
        }
    }

    /// True if `reads` may read the column of `relation`, which the message calls by any of `called`.
    fn reads_column(&self, reads: &Reads, column: &str, relation: &catalog::Relation, called: &BTreeSet<&str>) -> bool {
        reads.stars
            || reads.columns.iter().any(|(qualifier, name)| match qualifier.as_deref() {
                None => name == column,
                Some(qualifier) if called.contains(qualifier) || self.mentions.joins.contains(qualifier) => {
                    // `u.to_json` calls to_json(u) when `u` has no such column: the whole row.
                    name == column || !relation.columns.values().any(|column| column.name == *name)
                }
                // The name of another relation alone; or of a subquery, whose columns may be anything that it reads.
                Some(qualifier) => name == column && !self.mentions.exclusive.contains(qualifier),
            })
    }
}

//! Which columns a set of masks protects, in tables, their children, and views over them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use super::{Mentions, Reads, Relabelled, Target, scope::Scope};
use crate::{
    mask::cell::carries_text,
    policy::{
        Permit,
        object::{ColumnPattern, Mask, MaskWith},
    },
    protocol::postgres::catalog::{self, Catalog},
};

/// Views over views, tables within types: what is deeper counts as protected.
const NESTING_MAX: usize = 32;

/// Every mask on columns that applies to a session.
#[derive(Debug, Default)]
pub struct MaskSet {
    masks: Vec<ColumnMask>,
    /// What was found out about relations, of the catalog snapshot seen last.
    memo: Mutex<Memo>,
}

#[derive(Debug)]
pub(super) struct ColumnMask {
    name: Arc<str>,
    pub(super) pattern: ColumnPattern,
    with: MaskWith,
}

#[derive(Debug, Default)]
struct Memo {
    catalog: u64,
    relations: HashMap<u32, Arc<Protected>>,
    /// Types that hold a protected row, or not.
    types: HashMap<u32, bool>,
}

/// The protected columns of one relation, by attribute number.
#[derive(Debug, Default)]
pub(super) struct Protected {
    pub(super) columns: BTreeMap<i16, Protection>,
}

/// Which mask protects a column, and how.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Protection {
    pub(super) mask: Arc<str>,
    pub(super) with: MaskWith,
}

impl Protection {
    /// For values made from the column: a format made for the column itself may show more of them.
    pub(super) fn derived(self) -> Self {
        Self { with: self.with.max(MaskWith::Redact), ..self }
    }
}

/// The server's own copies of column values and of statements, protected as soon as anything is.
const COPIES: &[(&str, &[&str])] = &[
    ("pg_stats", &["most_common_vals", "histogram_bounds", "most_common_elems"]),
    ("pg_stats_ext", &["most_common_vals"]),
    ("pg_stats_ext_exprs", &["most_common_vals", "histogram_bounds", "most_common_elems"]),
    ("pg_statistic", &["stavalues1", "stavalues2", "stavalues3", "stavalues4", "stavalues5"]),
    ("pg_statistic_ext_data", &["stxdmcv", "stxdexpr"]),
    ("pg_stat_activity", &["query"]),
    ("pg_stat_statements", &["query"]),
];
const COPIES_MASK: &str = "weir/server-copies";

impl MaskSet {
    /// The masks of the policies that enforce.
    #[must_use]
    pub fn from_permit(permit: &Permit) -> Self {
        Self::new(permit.masks())
    }

    /// As `from_permit`, of any masks.
    pub fn new<'a>(masks: impl Iterator<Item = &'a Mask>) -> Self {
        let columns = |mask: &'a Mask| {
            mask.columns.iter().map(|pattern| ColumnMask {
                name: Arc::clone(&mask.name),
                pattern: pattern.clone(),
                with: mask.with.clone(),
            })
        };
        Self { masks: masks.flat_map(columns).collect(), memo: Mutex::default() }
    }

    /// True when no column is masked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.masks.is_empty()
    }

    /// True if the statement could read a masked column, or touch a row that has one: its COPY output and its errors may then hold
    /// values that no column plan covers.
    #[must_use]
    pub fn touches(&self, mentions: &Mentions, catalog: &Catalog) -> bool {
        if self.is_empty() {
            return false;
        }
        let mut written = mentions.written.iter().flat_map(|(schema, name)| catalog.named(schema.as_deref(), name));
        is_opaque(&mentions.reads, catalog)
            || written.any(|oid| catalog.runs_code(oid))
            || Scope::new(self, mentions, catalog).whole().is_some()
    }

    /// True if the statement could write a masked column's value to a place that no mask covers: a new table, a setting, a file; or
    /// take a masked column's name from it.
    #[must_use]
    pub fn launders(&self, mentions: &Mentions, catalog: &Catalog) -> bool {
        if self.is_empty() {
            return false;
        }
        mentions.relabelled.iter().any(|relabelled| self.loses(relabelled, catalog))
            || (mentions.stored.names_columns() && Scope::new(self, mentions, catalog).protection(&mentions.stored).is_some())
    }

    fn loses(&self, relabelled: &Relabelled, catalog: &Catalog) -> bool {
        let Relabelled { schema, relation, column } = relabelled;
        let Some(name) = relation else {
            let schema = schema.as_deref().unwrap_or_default();
            return catalog.in_schema(schema).any(|oid| !self.protected(oid, catalog).columns.is_empty());
        };
        let is_column = |name: &str| column.as_ref().is_none_or(|column| column == name);
        let mut oids = catalog.named(schema.as_deref(), name).peekable();
        if oids.peek().is_none() {
            let masks = self.of_table(schema.as_deref(), name);
            return masks.iter().any(|mask| column.as_ref().is_none_or(|column| mask.pattern.column.matcher.is_match(column)));
        }
        oids.any(|oid| {
            let (protected, relation) = (self.protected(oid, catalog), catalog.relation(oid));
            let mut names = protected.columns.keys().filter_map(|attribute| relation?.columns.get(attribute));
            names.any(|column| is_column(&column.name))
        })
    }

    /// True if the statement could put a masked column's value into its answer.
    #[must_use]
    pub fn outputs(&self, mentions: &Mentions, catalog: &Catalog) -> bool {
        if self.is_empty() {
            return false;
        }
        let scope = Scope::new(self, mentions, catalog);
        let holds = |reads: &Reads| is_opaque(reads, catalog) || scope.protection(reads).is_some();
        let value = |target: &Target| match target {
            Target::Star => scope.whole().is_some(),
            Target::Value(reads) => holds(reads),
        };
        mentions.targets.as_ref().map_or_else(|| holds(&mentions.reads), |targets| targets.iter().any(value))
    }

    /// The strongest mask of all: for values of which nothing is known.
    pub(super) fn strongest(&self) -> Option<Protection> {
        self.masks.iter().map(ColumnMask::protection).max_by(|a, b| a.with.cmp(&b.with)).map(Protection::derived)
    }

    /// The protection of an output by its name alone, for statements that may read any table.
    pub(super) fn by_column_name(&self, column: &str) -> Option<Protection> {
        let column = column.to_lowercase();
        self.matching(|pattern| pattern.column.matcher.is_match(&column))
    }

    /// The masks on a table of this name, of whatever columns.
    pub(super) fn of_table(&self, schema: Option<&str>, table: &str) -> Vec<&ColumnMask> {
        let (schema, table) = (schema.map(str::to_lowercase), table.to_lowercase());
        let is_table = |mask: &&ColumnMask| {
            let pattern = &mask.pattern;
            schema.as_ref().is_none_or(|schema| pattern.schema.matcher.is_match(schema)) && pattern.table.matcher.is_match(&table)
        };
        self.masks.iter().filter(is_table).collect()
    }

    fn matching(&self, matches: impl Fn(&ColumnPattern) -> bool) -> Option<Protection> {
        let masks = self.masks.iter().filter(|mask| matches(&mask.pattern));
        masks.map(ColumnMask::protection).max_by(|a, b| a.with.cmp(&b.with))
    }

    /// The protected columns of a relation, including what it inherits and, for a view, what its query reads.
    pub(super) fn protected(&self, oid: u32, catalog: &Catalog) -> Arc<Protected> {
        self.protected_within(oid, catalog, 0)
    }

    fn protected_within(&self, oid: u32, catalog: &Catalog, nesting: usize) -> Arc<Protected> {
        if let Some(known) = self.recall(catalog, |memo| memo.relations.get(&oid).cloned()) {
            return known;
        }
        let Some(relation) = catalog.relation(oid) else { return Arc::default() };
        if nesting > NESTING_MAX {
            return Arc::new(self.whole(relation, |_| true));
        }
        let mut protected = self.by_own_name(relation);
        for parent in &relation.parents {
            let above = self.protected_within(*parent, catalog, nesting + 1);
            let Some(parent) = catalog.relation(*parent) else { continue };
            for (attribute, protection) in &above.columns {
                let name = parent.columns.get(attribute).map(|column| &column.name);
                let same = relation.columns.iter().filter(|(_, column)| Some(&column.name) == name);
                same.for_each(|(attribute, _)| protected.add(*attribute, protection));
            }
        }
        if let Some(query) = &relation.query {
            self.add_view(&mut protected, relation, query, catalog, nesting);
        }
        let protected = Arc::new(protected);
        self.remember(catalog, |memo| drop(memo.relations.insert(oid, Arc::clone(&protected))));
        protected
    }

    fn by_own_name(&self, relation: &catalog::Relation) -> Protected {
        let (schema, table) = (relation.schema.to_lowercase(), relation.name.to_lowercase());
        let of_table: Vec<&ColumnMask> = self
            .masks
            .iter()
            .filter(|mask| mask.pattern.schema.matcher.is_match(&schema) && mask.pattern.table.matcher.is_match(&table))
            .collect();
        let copies =
            COPIES.iter().find(|(name, _)| *name == table && !self.is_empty()).map_or(NO_COLUMNS, |(_, columns)| *columns);
        let mut protected = Protected::default();
        for (attribute, column) in &relation.columns {
            let name = column.name.to_lowercase();
            for mask in of_table.iter().filter(|mask| mask.pattern.column.matcher.is_match(&name)) {
                protected.add(*attribute, &mask.protection());
            }
            if copies.contains(&name.as_str()) {
                protected.add(*attribute, &Protection { mask: COPIES_MASK.into(), with: MaskWith::Null });
            }
        }
        protected
    }

    /// Where each output of the view is an expression over plain tables, those that read a protected column are protected. Of any
    /// other view that reads one, every column that can hold text is; and every column at all if the one that is read holds no text,
    /// or if anything is computed: a text has a length, and letters have codes.
    fn add_view(&self, protected: &mut Protected, view: &catalog::Relation, query: &Mentions, catalog: &Catalog, nesting: usize) {
        for relation in &query.relations {
            for oid in catalog.named(relation.schema.as_deref(), &relation.name) {
                // Computed from the inside out, so that the lookups below find answers and the nesting stays counted.
                self.protected_within(oid, catalog, nesting + 1);
            }
        }
        let scope = Scope::new(self, query, catalog);
        let targets = query.targets.as_deref().filter(|targets| targets.len() == view.columns.len());
        if let Some(targets) = targets.filter(|targets| !targets.contains(&Target::Star)) {
            for (attribute, target) in view.columns.keys().zip(targets) {
                let Target::Value(reads) = target else { continue };
                let opaque = is_opaque(reads, catalog).then(|| self.strongest()).flatten();
                let read = scope.protection(reads);
                opaque.iter().chain(&read).for_each(|protection| protected.add(*attribute, protection));
            }
            return;
        }
        let opaque = is_opaque(&query.reads, catalog).then(|| self.strongest()).flatten();
        let read = scope.protection(&query.reads);
        let reads = &query.reads;
        let computes = !reads.functions.is_empty() || !reads.operators.is_empty() || reads.casts;
        let any_type = opaque.is_some() || computes || (read.is_some() && self.reads_other_than_text(query, catalog));
        let Some(protection) = read.or(opaque) else { return };
        for (attribute, column) in &view.columns {
            if any_type || carries_text(column.type_oid) {
                protected.add(*attribute, &protection.clone().derived());
            }
        }
    }

    fn reads_other_than_text(&self, query: &Mentions, catalog: &Catalog) -> bool {
        let oids = query.relations.iter().flat_map(|relation| catalog.named(relation.schema.as_deref(), &relation.name));
        oids.filter_map(|oid| Some((catalog.relation(oid)?, self.protected(oid, catalog)))).any(|(relation, protected)| {
            let mut columns = protected.columns.keys().filter_map(|attribute| relation.columns.get(attribute));
            columns.any(|column| !carries_text(column.type_oid))
        })
    }

    fn whole(&self, relation: &catalog::Relation, which: impl Fn(&catalog::Column) -> bool) -> Protected {
        let mut protected = Protected::default();
        for (attribute, _) in relation.columns.iter().filter(|(_, column)| which(column)) {
            self.strongest().iter().for_each(|protection| protected.add(*attribute, protection));
        }
        protected
    }

    fn recall<T>(&self, catalog: &Catalog, what: impl FnOnce(&Memo) -> Option<T>) -> Option<T> {
        let memo = self.memo.lock().unwrap_or_else(PoisonError::into_inner);
        if memo.catalog == catalog.id() { what(&memo) } else { None }
    }

    fn remember(&self, catalog: &Catalog, what: impl FnOnce(&mut Memo)) {
        let mut memo = self.memo.lock().unwrap_or_else(PoisonError::into_inner);
        if memo.catalog != catalog.id() {
            *memo = Memo { catalog: catalog.id(), ..Memo::default() };
        }
        what(&mut memo);
    }

    /// True if values of the type hold a row with a protected column, at any depth.
    pub(super) fn holds_protected_row(&self, type_oid: u32, catalog: &Catalog) -> bool {
        self.holds_within(type_oid, catalog, 0)
    }

    fn holds_within(&self, type_oid: u32, catalog: &Catalog, nesting: usize) -> bool {
        let shape = catalog.type_of(type_oid);
        if shape.inner == 0 && shape.relation == 0 {
            return false;
        }
        if nesting > NESTING_MAX {
            return true;
        }
        if let Some(known) = self.recall(catalog, |memo| memo.types.get(&type_oid).copied()) {
            return known;
        }
        let columns = catalog.relation(shape.relation).into_iter().flat_map(|relation| relation.columns.values());
        let holds = !self.protected(shape.relation, catalog).columns.is_empty()
            || (shape.inner != 0 && self.holds_within(shape.inner, catalog, nesting + 1))
            || columns.into_iter().any(|column| self.holds_within(column.type_oid, catalog, nesting + 1));
        self.remember(catalog, |memo| memo.types.extend([(type_oid, holds)]));
        holds
    }
}

const NO_COLUMNS: &[&str] = &[];

impl ColumnMask {
    pub(super) fn protection(&self) -> Protection {
        Protection { mask: Arc::clone(&self.name), with: self.with.clone() }
    }
}

impl Protected {
    fn add(&mut self, attribute: i16, protection: &Protection) {
        let strongest = stronger(self.columns.remove(&attribute), protection);
        self.columns.insert(attribute, strongest);
    }
}

pub(super) fn stronger(known: Option<Protection>, other: &Protection) -> Protection {
    match known {
        Some(known) if known.with >= other.with => known,
        _ => other.clone(),
    }
}

/// True if code that cannot be seen through takes part: it may read any table.
pub(super) fn is_opaque(reads: &Reads, catalog: &Catalog) -> bool {
    reads.opaque
        || reads.functions.iter().any(|(schema, name)| catalog.is_opaque_function(schema.as_deref(), name))
        || reads.operators.iter().any(|name| catalog.is_opaque_operator(name))
        || (reads.casts && catalog.has_opaque_casts())
}

impl Mentions {
    /// True if code that cannot be seen through takes part.
    #[must_use]
    pub fn is_opaque(&self, catalog: &Catalog) -> bool {
        is_opaque(&self.reads, catalog)
    }
}

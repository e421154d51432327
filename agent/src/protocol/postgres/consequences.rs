//! What a statement does to what weir knows of the session: names that are gone, a catalog that is old, text that is read anew.

use std::sync::Arc;

use bytes::Bytes;
use pg_query::NodeRef as N;
use weir_wire::postgres::TransactionStatus;

use super::{Catalog, CatalogQuery, Steps, names::Names, session::Session, sql::Reading};
use crate::{flow::Effect, protocol::Step};

/// What follows when the server runs a statement.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Consequences {
    /// Later text may be read by other rules.
    lexing: bool,
    /// Relations, functions or types are no longer what the catalog says.
    schema: bool,
    /// Of those, some keep their name or OID and may read something else now.
    redefines: bool,
    statements: Gone,
    portals: Gone,
}

/// Names that SQL may have given to something else.
#[derive(Debug, Default, Eq, PartialEq)]
enum Gone {
    All,
    #[default]
    Nothing,
    Some(Vec<Bytes>),
}

impl Consequences {
    pub(super) fn of(reading: &Reading) -> Self {
        let effects = &reading.statement.effects;
        let (mut statements, mut portals) = (Gone::Nothing, Gone::Nothing);
        if effects.contains(Effect::Unreadable) {
            (statements, portals) = (Gone::All, Gone::All);
        } else if reading.verbs.iter().any(|verb| NAMING.contains(&verb.tag)) {
            (statements, portals) = names(&reading.statement.text);
        }
        Self {
            lexing: effects.contains(Effect::SessionLex),
            schema: [Effect::Alter, Effect::Create, Effect::Drop].iter().any(|effect| effects.contains(*effect)),
            redefines: reading.verbs.iter().any(|verb| REDEFINING.contains(&verb.tag)),
            statements,
            portals,
        }
    }
}

impl Consequences {
    /// Of what PREPARE prepared, when it runs. PREPARE itself took the name; what it prepares can take none.
    pub(super) fn of_prepared(reading: &Reading) -> Self {
        Self { statements: Gone::Nothing, portals: Gone::Nothing, ..Self::of(reading) }
    }
}

/// The names that a text drops or takes; all where that cannot be seen at a glance.
fn names(text: &[u8]) -> (Gone, Gone) {
    let tree = str::from_utf8(text).ok().filter(|sql| sql.len() <= NAMING_BYTES_MAX).and_then(|sql| pg_query::parse(sql).ok());
    let Some(tree) = tree else {
        return (Gone::All, Gone::All);
    };
    let (mut statements, mut portals) = (Gone::Nothing, Gone::Nothing);
    for node in tree.protobuf.stmts.iter().filter_map(|raw| raw.stmt.as_ref()?.node.as_ref()) {
        match node.to_ref() {
            N::PrepareStmt(prepare) => statements.add(&prepare.name),
            N::DeallocateStmt(deallocate) => statements.add(&deallocate.name),
            N::DeclareCursorStmt(declare) => portals.add(&declare.portalname),
            N::ClosePortalStmt(close) => portals.add(&close.portalname),
            N::DiscardStmt(_) => (statements, portals) = (Gone::All, Gone::All),
            _ => {}
        }
    }
    (statements, portals)
}

impl Gone {
    /// `DEALLOCATE ALL` and `CLOSE ALL` have no name. A name as long as this may be the beginning of others.
    fn add(&mut self, name: &str) {
        match self {
            Self::All => {}
            _ if name.is_empty() || name.len() >= NAME_BYTES_MAX => *self = Self::All,
            Self::Nothing => *self = Self::Some(vec![Bytes::copy_from_slice(name.as_bytes())]),
            Self::Some(names) => names.push(Bytes::copy_from_slice(name.as_bytes())),
        }
    }

    fn leave<T>(&self, names: &mut Names<T>) {
        match self {
            Self::All => names.forget_all(),
            Self::Nothing => {}
            Self::Some(gone) => gone.iter().for_each(|name| names.forget(name)),
        }
    }
}

/// Whether the catalog still says what is there.
#[derive(Debug, Default)]
pub(super) struct Freshness {
    changed: bool,
    redefined: bool,
}

impl Session {
    /// Takes note of a statement that is about to be forwarded. Returns true if nothing may be read before it is answered.
    pub(super) fn follow(&mut self, consequences: &Consequences) -> bool {
        consequences.statements.leave(&mut self.statements);
        consequences.portals.leave(&mut self.portals);
        let schema = consequences.schema && !self.settings.masks.is_empty();
        self.freshness.changed |= schema;
        self.freshness.redefined |= schema && consequences.redefines;
        consequences.lexing || schema
    }

    /// Asks for a catalog that holds what this session changed, as soon as it is there for everyone to see. Within the
    /// transaction it cannot be had, and asking could wait for the transaction's own locks.
    pub(super) fn refresh(&mut self, steps: &mut Steps) -> bool {
        let changed = self.freshness.changed || self.catalog.as_ref().is_some_and(|catalog| catalog.is_stale());
        let due = changed && self.queue.is_empty() && self.status == TransactionStatus::Idle;
        if due {
            // A catalog that is only old may have been read again for another session.
            let fresh = self.freshness.changed;
            self.freshness = Freshness::default();
            self.fetching = true;
            steps.push_back(Step::Fetch(CatalogQuery { database: self.database.clone(), missing: Vec::new(), fresh }));
        }
        due
    }

    /// The catalog to plan rows with. While views or functions have another meaning than it says, nothing is known.
    pub(super) fn trusted_catalog(&self) -> Option<Arc<Catalog>> {
        if self.freshness.redefined { Some(Arc::default()) } else { self.catalog.clone() }
    }

    pub(super) fn is_redefined(&self) -> bool {
        self.freshness.redefined
    }
}

/// Verbs that give names to prepared statements and portals, or take them away.
const NAMING: &[&str] = &["CLOSE CURSOR", "DEALLOCATE", "DECLARE CURSOR", "DISCARD", "PREPARE"];

/// Verbs that may replace a view, function, operator, cast or rule.
const REDEFINING: &[&str] = &["ALTER", "CREATE", "CREATE FUNCTION", "CREATE VIEW"];

/// A text up to this length is parsed again for its names. Its own length bounds the depth of its tree.
const NAMING_BYTES_MAX: usize = 400;

/// A server tells longer names apart by this many bytes (`NAMEDATALEN` less one).
const NAME_BYTES_MAX: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::postgres::sql::read;

    fn gone(text: &str) -> (Gone, Gone) {
        let consequences = Consequences::of(&read(text.as_bytes()));
        (consequences.statements, consequences.portals)
    }

    fn some(names: &[&'static str]) -> Gone {
        Gone::Some(names.iter().map(|name| Bytes::from_static(name.as_bytes())).collect())
    }

    #[test]
    fn knows_which_names_a_statement_takes_away() {
        assert_eq!(gone("select 1"), (Gone::Nothing, Gone::Nothing));
        assert_eq!(gone("deallocate ps; prepare \"Ps\" as select 1"), (some(&["ps", "Ps"]), Gone::Nothing));
        assert_eq!(gone("deallocate all"), (Gone::All, Gone::Nothing));
        assert_eq!(gone("close all"), (Gone::Nothing, Gone::All));
        assert_eq!(gone("declare c cursor for select 1; close d"), (Gone::Nothing, some(&["c", "d"])));
        assert_eq!(gone("discard all"), (Gone::All, Gone::All));
        assert_eq!(gone(&format!("deallocate {}", "x".repeat(64))), (Gone::All, Gone::Nothing));
        assert_eq!(gone("not sql"), (Gone::All, Gone::All));
        assert_eq!(gone(&format!("deallocate ps; select '{}'", "x".repeat(400))), (Gone::All, Gone::All));
    }
}

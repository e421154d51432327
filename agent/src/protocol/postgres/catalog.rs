//! What the server's own catalog says about a database: names, columns, inheritance, views, row types, functions.
//!
//! Read over weir's own connection with [`Catalog::queries`], for PostgreSQL 11 to 17. Names are taken from `pg_catalog` only,
//! operators included, so that nothing on the search path can stand in for them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{rows::Mentions, sql};

/// One moment's snapshot. Immutable: a change in the database needs a new one.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Differs between snapshots: the key of what is derived from one.
    id: u64,
    relations: HashMap<u32, Relation>,
    by_name: HashMap<String, Vec<u32>>,
    types: HashMap<u32, Type>,
    functions: HashSet<String>,
    opaque_functions: HashSet<String>,
    operators: HashSet<String>,
    opaque_operators: HashSet<String>,
    has_opaque_casts: bool,
    /// Relations whose triggers, rules, defaults or constraints run code that cannot be seen through.
    active: HashSet<u32>,
    /// When it was read, and of which state of the database.
    moment: Option<Moment>,
}

#[derive(Debug)]
struct Moment {
    read: Instant,
    /// Counts the changes that are known of.
    changes: Arc<AtomicU64>,
    seen: u64,
}

/// A table, view or composite type.
#[derive(Debug, Default)]
pub(super) struct Relation {
    pub(super) schema: String,
    pub(super) name: String,
    /// By attribute number.
    pub(super) columns: BTreeMap<i16, Column>,
    /// Inheritance parents and the partitioned table that this one is a part of.
    pub(super) parents: Vec<u32>,
    /// What the query of a view or materialised view mentions.
    pub(super) query: Option<Arc<Mentions>>,
}

#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) type_oid: u32,
}

/// What a type is made of; zero where it is not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Type {
    /// The relation whose row type it is.
    pub(super) relation: u32,
    /// The type of an array's elements, a domain's base or a range's subtype.
    pub(super) inner: u32,
}

/// Others than weir's sessions change schemas as well.
const TRUSTED: Duration = Duration::from_secs(60);

type Rows = Vec<Vec<Option<Bytes>>>;

static SNAPSHOTS: AtomicU64 = AtomicU64::new(1);

impl Catalog {
    /// The statements to run, in order, each with one result, in text format. `server_version` as in `server_version_num`: the
    /// same statements serve 11 to 17 so far.
    #[must_use]
    pub fn queries(server_version: u32) -> Vec<&'static str> {
        let _ = server_version;
        vec![QUALIFY, RELATIONS, COLUMNS, PARENTS, VIEWS, TYPES, FUNCTIONS, ACTIVE]
    }

    /// Builds the snapshot from the results of `queries`, in the same order.
    ///
    /// # Errors
    /// The results do not have the shape that the statements ask for; says which.
    pub fn from_rows(results: Vec<Rows>) -> Result<Self, String> {
        let [_, relations, columns, parents, views, types, functions, active] =
            <[Rows; 8]>::try_from(results).map_err(|results| format!("read catalog: {} results instead of 8", results.len()))?;
        let mut catalog = Self { id: SNAPSHOTS.fetch_add(1, Ordering::Relaxed), ..Self::default() };
        catalog.add_relations(&relations)?;
        catalog.add_columns(&columns)?;
        for row in &parents {
            let [child, parent] = cells(row, "parents")?;
            let (child, parent) = (oid(child)?, oid(parent)?);
            catalog.relations.entry(child).and_modify(|relation| relation.parents.push(parent));
        }
        for row in &views {
            let [view, query] = cells(row, "views")?;
            let mentions = sql::read_afresh(query.as_bytes()).mentions;
            catalog.relations.entry(oid(view)?).and_modify(|relation| relation.query = Some(mentions));
        }
        for row in &types {
            let [type_oid, relation, element, base, subtype] = cells(row, "types")?;
            let inner = [oid(element)?, oid(base)?, oid(subtype)?].into_iter().find(|inner| *inner != 0).unwrap_or(0);
            catalog.types.insert(oid(type_oid)?, Type { relation: oid(relation)?, inner });
        }
        catalog.add_functions(&functions)?;
        for row in &active {
            let [relation] = cells(row, "active relations")?;
            catalog.active.insert(oid(relation)?);
        }
        Ok(catalog)
    }

    /// True if the snapshot holds this relation: otherwise it is newer than the snapshot.
    #[must_use]
    pub fn knows(&self, table_oid: u32) -> bool {
        self.relations.contains_key(&table_oid)
    }

    /// Says of which moment the snapshot is: `changes` counts what sessions changed, `seen` is its value before the first question.
    #[must_use]
    pub fn dated(self, read: Instant, changes: Arc<AtomicU64>, seen: u64) -> Self {
        Self { moment: Some(Moment { read, changes, seen }), ..self }
    }

    /// True when the snapshot is to be read anew before the next statement relies on it: a session changed the schema, or it is old.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.moment
            .as_ref()
            .is_some_and(|moment| moment.changes.load(Ordering::Acquire) != moment.seen || moment.read.elapsed() > TRUSTED)
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn relation(&self, oid: u32) -> Option<&Relation> {
        self.relations.get(&oid)
    }

    /// Every relation that a name can mean; without a schema it may be in any.
    pub(super) fn named<'a>(&'a self, schema: Option<&'a str>, name: &str) -> impl Iterator<Item = u32> + use<'a> {
        let oids = self.by_name.get(name).into_iter().flatten().copied();
        oids.filter(move |oid| schema.is_none_or(|schema| self.is_in_schema(*oid, schema)))
    }

    fn is_in_schema(&self, oid: u32, schema: &str) -> bool {
        // `pg_temp` is whichever schema holds the session's temporary tables.
        self.relation(oid)
            .is_some_and(|relation| relation.schema == schema || (schema == "pg_temp" && relation.schema.starts_with("pg_temp")))
    }

    pub(super) fn type_of(&self, oid: u32) -> Type {
        self.types.get(&oid).copied().unwrap_or_default()
    }

    /// True if calling the function may run code that can read tables, or if nobody knows.
    pub(super) fn is_opaque_function(&self, schema: Option<&str>, name: &str) -> bool {
        // The grammar writes these itself, whatever the server's version calls them.
        if schema == Some("pg_catalog") && matches!(name, "extract" | "similar_to_escape") {
            return false;
        }
        let is_shadowed = schema != Some("pg_catalog") && self.opaque_functions.contains(name);
        is_shadowed || !self.functions.contains(name)
    }

    pub(super) fn is_opaque_operator(&self, name: &str) -> bool {
        self.opaque_operators.contains(name) || !self.operators.contains(name)
    }

    /// True if writing to the relation runs code that cannot be seen through.
    pub(super) fn runs_code(&self, oid: u32) -> bool {
        self.active.contains(&oid)
    }

    pub(super) fn in_schema(&self, schema: &str) -> impl Iterator<Item = u32> {
        self.relations.iter().filter(move |(_, relation)| relation.schema == schema).map(|(oid, _)| *oid)
    }

    pub(super) fn has_opaque_casts(&self) -> bool {
        self.has_opaque_casts
    }

    fn add_relations(&mut self, rows: &Rows) -> Result<(), String> {
        for row in rows {
            let [relation, schema, name] = cells(row, "relations")?;
            let relation = oid(relation)?;
            self.by_name.entry(name.to_owned()).or_default().push(relation);
            let fresh = Relation { schema: schema.to_owned(), name: name.to_owned(), ..Relation::default() };
            self.relations.insert(relation, fresh);
        }
        Ok(())
    }

    fn add_columns(&mut self, rows: &Rows) -> Result<(), String> {
        for row in rows {
            let [relation, attribute, name, type_oid] = cells(row, "columns")?;
            let attribute: i16 = attribute.parse().map_err(|_| "read catalog: an attribute number is no number".to_owned())?;
            let column = Column { name: name.to_owned(), type_oid: oid(type_oid)? };
            // The relations were read a moment earlier: a table made in between is not known yet.
            self.relations.entry(oid(relation)?).and_modify(|relation| drop(relation.columns.insert(attribute, column)));
        }
        Ok(())
    }

    fn add_functions(&mut self, rows: &Rows) -> Result<(), String> {
        for row in rows {
            let [what, name] = cells(row, "functions")?;
            let name = name.to_owned();
            match what {
                "known" => drop(self.functions.insert(name)),
                "opaque" => drop(self.opaque_functions.insert(name)),
                "operator" => drop(self.operators.insert(name)),
                "opaque operator" => drop(self.opaque_operators.insert(name)),
                "cast" => self.has_opaque_casts = true,
                _ => return Err("read catalog: a function of unknown kind".to_owned()),
            }
        }
        Ok(())
    }
}

fn cells<'a, const N: usize>(row: &'a [Option<Bytes>], what: &str) -> Result<[&'a str; N], String> {
    let text = |cell: &'a Option<Bytes>| cell.as_deref().and_then(|cell| str::from_utf8(cell).ok());
    let cells: Option<Vec<&str>> = row.iter().map(text).collect();
    cells
        .and_then(|cells| <[&str; N]>::try_from(cells).ok())
        .ok_or_else(|| format!("read catalog: a row of {what} is not {N} columns of text"))
}

fn oid(cell: &str) -> Result<u32, String> {
    cell.parse().map_err(|_| "read catalog: an OID is no number".to_owned())
}

/// Lets `pg_get_viewdef` write every name with its schema.
const QUALIFY: &str = "SELECT pg_catalog.set_config('search_path', '', false)";

const RELATIONS: &str = "\
SELECT c.oid, n.nspname, c.relname \
FROM pg_catalog.pg_class c \
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f,c,t,S}'::pg_catalog.\"char\"[])";

const COLUMNS: &str = "\
SELECT a.attrelid, a.attnum, a.attname, a.atttypid \
FROM pg_catalog.pg_attribute a \
JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) a.attrelid \
WHERE a.attnum OPERATOR(pg_catalog.>) 0::pg_catalog.int2 AND NOT a.attisdropped \
AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f,c,t,S}'::pg_catalog.\"char\"[])";

const PARENTS: &str = "SELECT i.inhrelid, i.inhparent FROM pg_catalog.pg_inherits i";

/// The server's own views hold no rows of users' tables, but for those that `rows` names.
const VIEWS: &str = "\
SELECT c.oid, pg_catalog.pg_get_viewdef(c.oid) \
FROM pg_catalog.pg_class c \
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{v,m}'::pg_catalog.\"char\"[]) \
AND pg_catalog.pg_get_viewdef(c.oid) IS NOT NULL \
AND n.nspname OPERATOR(pg_catalog.<>) ALL ('{pg_catalog,information_schema}'::pg_catalog.name[])";

/// Row types, and everything made of another type.
const TYPES: &str = "\
SELECT t.oid, t.typrelid, t.typelem, t.typbasetype, COALESCE(r.rngsubtype, 0::pg_catalog.oid) \
FROM pg_catalog.pg_type t \
LEFT JOIN pg_catalog.pg_range r ON r.rngtypid OPERATOR(pg_catalog.=) t.oid \
WHERE t.typrelid OPERATOR(pg_catalog.<>) 0::pg_catalog.oid OR t.typelem OPERATOR(pg_catalog.<>) 0::pg_catalog.oid \
OR t.typbasetype OPERATOR(pg_catalog.<>) 0::pg_catalog.oid OR r.rngsubtype IS NOT NULL";

/// Functions that are written in a language that can run SQL, by someone else than the server's makers.
macro_rules! functions {
    () => {
        "\
WITH s AS (\
SELECT p.oid, p.proname, l.lanname OPERATOR(pg_catalog.<>) ALL ('{internal,c}'::pg_catalog.name[]) \
AND n.nspname OPERATOR(pg_catalog.<>) ALL ('{pg_catalog,information_schema}'::pg_catalog.name[]) AS opaque \
FROM pg_catalog.pg_proc p \
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace \
JOIN pg_catalog.pg_language l ON l.oid OPERATOR(pg_catalog.=) p.prolang), \
g AS (SELECT a.aggfnoid::pg_catalog.oid AS oid FROM pg_catalog.pg_aggregate a JOIN s ON s.opaque AND s.oid OPERATOR(pg_catalog.=) ANY (\
ARRAY[a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn]\
::pg_catalog.oid[])), \
f AS (SELECT s.oid, s.proname, s.opaque OR EXISTS (SELECT FROM g WHERE g.oid OPERATOR(pg_catalog.=) s.oid) AS opaque FROM s) "
    };
}

/// Functions, operators and casts by name.
const FUNCTIONS: &str = concat!(
    functions!(),
    "\
SELECT DISTINCT CASE WHEN f.opaque THEN 'opaque' ELSE 'known' END, f.proname::pg_catalog.text FROM f \
UNION SELECT 'operator', o.oprname::pg_catalog.text FROM pg_catalog.pg_operator o \
UNION SELECT 'opaque operator', o.oprname::pg_catalog.text FROM pg_catalog.pg_operator o \
JOIN f ON f.oid OPERATOR(pg_catalog.=) ANY (ARRAY[o.oprcode, o.oprrest, o.oprjoin]::pg_catalog.oid[]) WHERE f.opaque \
UNION SELECT 'cast', '' FROM pg_catalog.pg_cast c JOIN f ON f.oid OPERATOR(pg_catalog.=) c.castfunc WHERE f.opaque \
UNION SELECT 'cast', '' FROM pg_catalog.pg_constraint c \
JOIN pg_catalog.pg_depend d ON d.objid OPERATOR(pg_catalog.=) c.oid \
AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_constraint'::pg_catalog.regclass \
AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass \
JOIN f ON f.oid OPERATOR(pg_catalog.=) d.refobjid \
WHERE f.opaque AND c.contypid OPERATOR(pg_catalog.<>) 0::pg_catalog.oid"
);

/// Relations that run more than the server's own code when they are written to.
const ACTIVE: &str = concat!(
    functions!(),
    "\
SELECT t.tgrelid FROM pg_catalog.pg_trigger t WHERE NOT t.tgisinternal \
UNION SELECT r.ev_class FROM pg_catalog.pg_rewrite r WHERE r.ev_type OPERATOR(pg_catalog.<>) '1'::pg_catalog.\"char\" \
UNION SELECT COALESCE(a.adrelid, c.conrelid, i.indrelid, p.polrelid) FROM pg_catalog.pg_depend d \
JOIN f ON f.oid OPERATOR(pg_catalog.=) d.refobjid AND f.opaque \
LEFT JOIN pg_catalog.pg_attrdef a ON a.oid OPERATOR(pg_catalog.=) d.objid \
AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_attrdef'::pg_catalog.regclass \
LEFT JOIN pg_catalog.pg_constraint c ON c.oid OPERATOR(pg_catalog.=) d.objid \
AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_constraint'::pg_catalog.regclass \
LEFT JOIN pg_catalog.pg_index i ON i.indexrelid OPERATOR(pg_catalog.=) d.objid \
AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass \
LEFT JOIN pg_catalog.pg_policy p ON p.oid OPERATOR(pg_catalog.=) d.objid \
AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_policy'::pg_catalog.regclass \
WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass \
AND COALESCE(a.adrelid, c.conrelid, i.indrelid, p.polrelid) IS NOT NULL"
);

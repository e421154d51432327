//! What a message refers to, by name: made by the SQL reader, used to decide which results hold protected values.

use std::collections::BTreeSet;

/// What the statements of one message mention, over all of them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Mentions {
    /// Tables and views, read or written; not the names of common table expressions.
    pub relations: Vec<Relation>,
    /// Everything that any part of the message reads.
    pub reads: Reads,
    /// What each output of the message's only statement reads, where every value comes from plain relations. `None`: an output may
    /// carry anything that the message reads.
    pub targets: Option<Vec<Target>>,
    /// What is written elsewhere: CREATE TABLE AS, INSERT ... SELECT, UPDATE ... SET.
    pub stored: Reads,
    /// Relations that are written to: what their triggers, rules and defaults run, runs.
    pub written: BTreeSet<(Option<String>, String)>,
    /// What goes by another name afterwards, or runs code of the statement's making.
    pub relabelled: Vec<Relabelled>,
    /// Names of joins: each stands for the rows of all that it joins.
    pub joins: BTreeSet<String>,
    /// The message is nothing but a PREPARE or DECLARE CURSOR of this name: its mentions are those of what it names.
    pub defines: Option<Reference>,
    /// The message is nothing but an EXECUTE or FETCH: its results are those of what it names, and hold nothing else.
    pub refers: Option<Reference>,
    /// Names that mean one relation wherever they occur in the message.
    pub exclusive: BTreeSet<String>,
    /// UNION, INTERSECT or EXCEPT: outputs lose their origin.
    pub set_operations: bool,
    /// The result is a plan, not data.
    pub plan_only: bool,
}

/// A relation, as named.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Relation {
    /// `None`: any schema of the search path.
    pub schema: Option<String>,
    pub name: String,
    pub alias: Option<String>,
}

/// Something that SQL gave a name within the session.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reference {
    Cursor(String),
    Prepared(String),
}

/// What a statement changes so that a rule by name may no longer find it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Relabelled {
    pub schema: Option<String>,
    /// `None`: everything in the schema.
    pub relation: Option<String>,
    /// `None`: all of the relation.
    pub column: Option<String>,
}

/// One output of a statement.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// `*` or `t.*`: as many outputs as it takes.
    Star,
    Value(Reads),
}

/// What an expression, or a whole message, reads.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Reads {
    /// Qualifier and name.
    pub columns: BTreeSet<(Option<String>, String)>,
    /// Schema and name.
    pub functions: BTreeSet<(Option<String>, String)>,
    pub operators: BTreeSet<String>,
    /// A cast may call a function.
    pub casts: bool,
    pub sublinks: bool,
    /// Every column of a relation, unnamed: a star or a whole row within an expression or subquery, or a list of column aliases.
    pub stars: bool,
    /// Code that cannot be seen through.
    pub opaque: bool,
}

impl Reads {
    /// True when nothing is read at all.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl Mentions {
    /// Of text that could not be read: it may refer to anything.
    #[must_use]
    pub fn unknown() -> Self {
        Self { reads: Reads { opaque: true, stars: true, ..Reads::default() }, ..Self::default() }
    }
}

impl Reads {
    /// True if it reads any column, by its name or as part of a row.
    #[must_use]
    pub fn names_columns(&self) -> bool {
        self.stars || self.sublinks || !self.columns.is_empty()
    }

    /// Adds everything that `other` reads.
    pub fn extend(&mut self, other: Self) {
        self.columns.extend(other.columns);
        self.functions.extend(other.functions);
        self.operators.extend(other.operators);
        self.casts |= other.casts;
        self.sublinks |= other.sublinks;
        self.stars |= other.stars;
        self.opaque |= other.opaque;
    }
}

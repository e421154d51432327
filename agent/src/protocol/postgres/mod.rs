//! PostgreSQL, protocol 3.0: the session as a [`super::Conversation`].

/// What a session needs to know about a database's catalog.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CatalogQuery {
    pub database: String,
    /// OIDs that the last snapshot did not know: it must be read again, not taken from the cache.
    pub missing: Vec<u32>,
}

/// Names of tables and columns by OID, as of one moment.
#[derive(Debug, Default)]
pub struct Catalog {}

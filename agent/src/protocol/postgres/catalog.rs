//! Names by OID. (Placeholder until the catalog is merged.)

use bytes::Bytes;

/// Names of tables and columns by OID, as of one moment.
#[derive(Debug, Default)]
pub struct Catalog {
    tables: Vec<u32>,
}

impl Catalog {
    #[must_use]
    pub fn queries(_server_version: u32) -> Vec<&'static str> {
        vec!["select oid from pg_class"]
    }

    /// # Errors
    /// The rows are not what was asked for.
    pub fn from_rows(results: Vec<Vec<Vec<Option<Bytes>>>>) -> Result<Self, String> {
        let mut tables = Vec::new();
        for row in results.into_iter().flatten() {
            let oid = row.first().cloned().flatten().ok_or("no oid")?;
            tables.push(String::from_utf8_lossy(&oid).parse().map_err(|_| "not an oid")?);
        }
        Ok(Self { tables })
    }

    #[must_use]
    pub fn knows(&self, table_oid: u32) -> bool {
        self.tables.contains(&table_oid)
    }
}

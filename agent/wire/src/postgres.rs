//! PostgreSQL protocol 3.x.

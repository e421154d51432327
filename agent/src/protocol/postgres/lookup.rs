//! Reads a catalog over a connection of weir's own.

//! Bytes without meaning.

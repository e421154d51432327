//! Starts real servers.

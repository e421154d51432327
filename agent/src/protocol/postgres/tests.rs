//! Transcripts: what each side said, and what the other heard.

mod kit;
mod logins;
mod lookups;
mod masking;
mod relaying;

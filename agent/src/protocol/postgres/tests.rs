//! Transcripts: what each side said, and what the other heard.

mod by_name;
mod kit;
mod logins;
mod lookups;
mod masking;
mod reading;
mod relaying;

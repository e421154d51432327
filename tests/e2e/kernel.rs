//! The real kernel, real sockets, no agent: the interceptor with listeners of the test's own.
//!
//! Every test makes a cgroup, attaches the programs there, and runs clients inside and outside a designated cgroup below it. Answers
//! begin with REAL or PROXY, so that a bypass is one word. Rows are those of the table of ways out (2.1) in the
//! study of interception. Needs root and cgroup v2; fails without.

mod agent;
mod clients;
mod connect;
mod other;
mod sockets;
mod world;

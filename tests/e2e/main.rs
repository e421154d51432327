//! Everything that needs the kernel, root, and real clients and servers: one binary, a module per feature.

mod servers;

//! The sources: file, environment, program, systemd credential.

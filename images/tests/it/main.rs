//! Integration tests: real kernel, real registry, real clients.

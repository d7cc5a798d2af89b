//! What roles share over mail-parser and mail-builder.
//!
//! Owns: the list of rooms about messages as bytes. Called by: roles.
//! Never: does I/O or knows of a role.

pub mod dot;

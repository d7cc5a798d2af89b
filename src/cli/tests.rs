//! The command line, and what is told to people.

//! What roles share over mail-parser and mail-builder.

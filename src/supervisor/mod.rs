//! The supervisor: sockets, role processes, privileges, reload, control.

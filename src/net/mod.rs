//! Sockets, TLS, handover, limits, metrics: what is common to all services.

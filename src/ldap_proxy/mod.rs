//! The ldap-proxy role: the directory door.

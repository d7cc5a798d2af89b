//! Who is this user: the typed LDAP client of the roles.

//! The names of attributes and object classes that fife's directory speaks in.
//!
//! Owns: their spelling. Called by: the client, the embedded server (`ldap_proxy`), the commands.
//! Spec: RFC 4519, RFC 4524 (associatedDomain), RFC 2798 (inetOrgPerson), qmail.schema.

pub const OBJECT_CLASS: &str = "objectClass";
pub const UID: &str = "uid";
pub const CN: &str = "cn";
pub const SN: &str = "sn";
pub const OU: &str = "ou";
pub const MAIL: &str = "mail";
pub const MAIL_ALTERNATE_ADDRESS: &str = "mailAlternateAddress";
pub const MAIL_FORWARDING_ADDRESS: &str = "mailForwardingAddress";
pub const MAIL_QUOTA_SIZE: &str = "mailQuotaSize";
pub const ACCOUNT_STATUS: &str = "accountStatus";
pub const DELIVERY_MODE: &str = "deliveryMode";
/// The `deliveryMode` of an alias, and of an account that keeps no copy: mail is passed on, none is kept.
pub const FORWARD_ONLY: &str = "forwardonly";
/// The `deliveryMode` of an account that does not forward now, though it has addresses to forward to.
pub const NO_FORWARD: &str = "noforward";
pub const ASSOCIATED_DOMAIN: &str = "associatedDomain";
pub const USER_PASSWORD: &str = "userPassword";
pub const ENTRY_UUID: &str = "entryUUID";
/// OpenLDAP's name of a revision of an entry; changes with each change.
pub const ENTRY_CSN: &str = "entryCSN";
pub const MODIFY_TIMESTAMP: &str = "modifyTimestamp";
/// fife's own: what an account may do beyond its mailbox.
pub const FIFE_ROLE: &str = "fifeRole";
/// fife's own: a DKIM key of a domain, private half included. Its form: `directory::dkim`.
pub const FIFE_DKIM_KEY: &str = "fifeDkimKey";
/// The value of `fifeRole` that makes an administrator of the site.
pub const ADMINISTRATOR: &str = "administrator";
/// The value of `fifeRole` that makes a program of the site: it reads everything, and says for whom it asks.
pub const SERVICE: &str = "service";
/// The control that tells a server for whom a service asks (draft-wahl-ldap-session); OpenLDAP logs it.
pub const SESSION_TRACKING: &str = "1.3.6.1.4.1.21008.108.63.1";
/// What the identifier in that control is: a user name.
pub const SESSION_TRACKING_USERNAME: &str = "1.3.6.1.4.1.21008.108.63.1.3";

pub const ORGANIZATION: &str = "organization";
pub const ORGANIZATIONAL_UNIT: &str = "organizationalUnit";
pub const DOMAIN_RELATED_OBJECT: &str = "domainRelatedObject";
pub const INET_ORG_PERSON: &str = "inetOrgPerson";
pub const APPLICATION_PROCESS: &str = "applicationProcess";
pub const QMAIL_USER: &str = "qmailUser";
/// fife's own auxiliary class: allows `fifeRole` on accounts, `accountStatus` and `fifeDkimKey` on domains.
pub const FIFE_OBJECT: &str = "fifeObject";

//! Bifrost's governance tables (`docs/upstream/bifrost.md` §1, after multi-budget §2, with the credentials of §4).

pub mod budget;
pub mod customer;
pub mod encryption_status;
pub mod header_credential;
pub mod header_flow;
pub mod key;
pub mod mcp_client;
pub mod mcp_grant;
pub mod oauth_flow;
pub mod oauth_token;
pub mod provider;
pub mod provider_config;
pub mod provider_config_key;
pub mod rate_limit;
pub mod team;
pub mod virtual_key;

pub use encryption_status::EncryptionStatus;

//! Coder's AI providers (`docs/upstream/coder.md` §A, behind migration 505).

pub mod crypt_key;
pub mod gateway_key;
pub mod model_config;
pub mod provider;
pub mod provider_key;
pub mod user;
pub mod user_key;

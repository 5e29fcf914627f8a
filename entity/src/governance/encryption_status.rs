//! Whether a row's secrets are ciphertext.

use sea_orm::entity::prelude::*;

/// Whether a row's secrets are ciphertext. NULL, in rows older than the column, means plain text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "String(StringLen::N(20))")]
pub enum EncryptionStatus {
    /// As it was entered, or a reference such as `env.NAME`.
    #[sea_orm(string_value = "plain_text")]
    PlainText,
    /// Ciphertext under the gateway's key.
    #[sea_orm(string_value = "encrypted")]
    Encrypted,
    /// Kept in a vault (later versions).
    #[sea_orm(string_value = "vault")]
    Vault,
}

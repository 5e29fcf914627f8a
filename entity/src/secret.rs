//! Values that no debug output shows.

use std::fmt;

use sea_orm::DeriveValueType;

/// A key or token, or its ciphertext.
#[derive(Clone, PartialEq, Eq, DeriveValueType)]
pub struct Secret(pub String);

/// The same as bytes: ciphertext, or a digest.
#[derive(Clone, PartialEq, Eq, DeriveValueType)]
pub struct SecretBytes(pub Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[secret]")
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print_itself() {
        let shown = format!(
            "{:?} {:?}",
            Secret("sk-1".to_owned()),
            SecretBytes(vec![115, 107])
        );
        assert_eq!(shown, "[secret] [secret]");
    }
}

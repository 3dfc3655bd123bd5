//! A credential: a secret and the label it goes by.
//!
//! The label (the variable or file it was read from) names the credential in messages, quota accounts and metrics; the
//! secret is shown to nothing but the request header. Hashes of the secret were rejected as names: they would put
//! something derived from it into stores and logs.

use secrecy::{ExposeSecret, SecretString};

/// One API key of one provider. `Debug` hides the secret.
#[derive(Debug, Clone)]
pub struct Credential {
    /// For example `GEMINI_API_KEY`.
    pub label: String,
    secret: SecretString,
}

impl Credential {
    /// Surrounding white space, which files and shells add, is not part of a key.
    pub fn new(label: impl Into<String>, secret: &str) -> Self {
        Self { label: label.into(), secret: SecretString::from(secret.trim().to_owned()) }
    }

    /// The secret itself, for the request header only.
    pub fn expose(&self) -> &str {
        self.secret.expose_secret()
    }
}

//! TLS for the default client: rustls with the platform's root certificates, one configuration for the
//! whole process.

use std::sync::{Arc, OnceLock};

use hyper_rustls::ConfigBuilderExt;
use rustls::{ClientConfig, crypto::CryptoProvider};

use crate::TokenError;

/// Reading the roots takes milliseconds and 100 kB: a thousand clients do so once.
static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();

/// The configuration that all share. A failure is not kept: the next call tries again.
pub(super) fn config() -> Result<Arc<ClientConfig>, TokenError> {
    if let Some(config) = CONFIG.get() {
        return Ok(Arc::clone(config));
    }
    let provider = provider().ok_or_else(|| {
        TokenError::internal(
            "rustls has no crypto provider: enable the feature `ring` or `aws-lc-rs`, \
             or install a default for the process",
        )
    })?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(ConfigBuilderExt::try_with_platform_verifier)
        .map_err(|error| {
            TokenError::internal(format!(
                "the platform's root certificates did not load: {error}"
            ))
        })?
        .with_no_client_auth();
    Ok(Arc::clone(CONFIG.get_or_init(|| Arc::new(config))))
}

/// The process's default; else the one that a feature names, which then becomes the default.
///
/// To make it the default is what rustls's own `ClientConfig::builder()` does with the provider that its
/// features name. Where they name two (ours one, another crate's the other) it panics instead, unless
/// somebody has decided: so this decides. It cannot for what comes before it; to leave rustls's features
/// alone there is `client` without `ring`. (A ring provider outside of rustls's features comes with 0.24.)
fn provider() -> Option<Arc<CryptoProvider>> {
    if CryptoProvider::get_default().is_none() {
        #[cfg(feature = "aws-lc-rs")]
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
        let _ = rustls::crypto::ring::default_provider().install_default();
        // It fails if another thread was faster, whose choice then is as good.
    }
    CryptoProvider::get_default().cloned()
}

#[cfg(test)]
#[cfg(any(feature = "ring", feature = "aws-lc-rs"))]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_clients_share_one_configuration() {
        let first = config().unwrap();
        for _ in 0..1000 {
            drop(crate::DefaultClient::default());
            assert!(Arc::ptr_eq(&first, &config().unwrap()));
        }
    }
}

#[cfg(test)]
#[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
mod tests_without_a_provider {
    #[test]
    fn what_to_enable_is_told() {
        let error = super::config().unwrap_err().to_string();
        assert!(error.contains("enable the feature `ring`"), "{error}");
    }
}

//! TLS for the default client: rustls with the platform's root certificates, one configuration for the
//! whole process.

use std::sync::{Arc, OnceLock};

use hyper_rustls::ConfigBuilderExt;
use rustls::ClientConfig;

use crate::{
    TokenError,
    crypto::{MISSING, provider},
};

/// Reading the roots takes milliseconds and 100 kB: a thousand clients do so once.
static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();

/// The configuration that all share. A failure is not kept: the next call tries again.
pub(super) fn config() -> Result<Arc<ClientConfig>, TokenError> {
    if let Some(config) = CONFIG.get() {
        return Ok(Arc::clone(config));
    }
    let provider = provider().ok_or_else(|| TokenError::internal(MISSING))?;
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

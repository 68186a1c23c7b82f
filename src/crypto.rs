//! Which of rustls's crypto providers is used.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// What to do where there is none.
pub(crate) const MISSING: &str = "rustls has no crypto provider: enable the feature `ring` or \
     `aws-lc-rs`, or install a default for the process";

/// The process's default; else the one that a feature names, which then becomes the default.
///
/// To make it the default is what rustls's own `ClientConfig::builder()` does with the provider that its
/// features name. Where they name two (ours one, another crate's the other) it panics instead, unless
/// somebody has decided: so this decides. It cannot for what comes before it; to leave rustls's features
/// alone there is `client` without `ring`. (A ring provider outside of rustls's features comes with 0.24.)
pub(crate) fn provider() -> Option<Arc<CryptoProvider>> {
    if CryptoProvider::get_default().is_none() {
        #[cfg(feature = "aws-lc-rs")]
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
        let _ = rustls::crypto::ring::default_provider().install_default();
        // It fails if another thread was faster, whose choice then is as good.
    }
    CryptoProvider::get_default().cloned()
}

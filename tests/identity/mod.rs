//! A certificate for loopback that is its own root, and what rustls makes of it.
#![allow(dead_code, unreachable_pub)]

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{NoClientAuth, WebPkiClientVerifier, danger::ClientCertVerifier},
};

/// A certificate for `localhost` and `127.0.0.1`, and its key.
pub struct Identity {
    pub certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    pub fn new() -> Self {
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let certified = rcgen::generate_simple_self_signed(names).unwrap();
        Self {
            certificate: certified.cert.der().clone(),
            key: certified.signing_key.serialize_der().try_into().unwrap(),
        }
    }

    /// A server with this certificate.
    pub fn server(&self) -> ServerConfig {
        self.server_that_asks(Arc::new(NoClientAuth))
    }

    /// The same, which wants to see the certificate of that client.
    pub fn server_for(&self, client: &Self) -> ServerConfig {
        let clients = WebPkiClientVerifier::builder_with_provider(client.roots(), provider());
        self.server_that_asks(clients.build().unwrap())
    }

    fn server_that_asks(&self, clients: Arc<dyn ClientCertVerifier>) -> ServerConfig {
        ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())
            .unwrap()
    }

    /// A client that trusts this certificate only, and shows the other.
    pub fn client(&self, own: Option<&Self>) -> ClientConfig {
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots());
        match own {
            None => config.with_no_client_auth(),
            Some(own) => config
                .with_client_auth_cert(vec![own.certificate.clone()], own.key.clone_key())
                .unwrap(),
        }
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        Arc::new(roots)
    }
}

fn provider() -> Arc<CryptoProvider> {
    ring::default_provider().into()
}

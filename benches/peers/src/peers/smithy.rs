//! aws-smithy-runtime: its identity cache, stamped as its bearer signer does.

use std::{sync::Arc, time::SystemTime};

use aws_smithy_async::{rt::sleep::TokioSleep, time::SystemTimeSource};
use aws_smithy_runtime::client::identity::IdentityCache;
use aws_smithy_runtime_api::client::{
    identity::{
        Identity, IdentityFuture, ResolveCachedIdentity, ResolveIdentity, SharedIdentityCache,
        SharedIdentityResolver,
    },
    runtime_components::{RuntimeComponents, RuntimeComponentsBuilder},
};
use aws_smithy_types::config_bag::ConfigBag;

use crate::endpoint::{Endpoint, LIFETIME};

#[derive(Debug)]
struct Token(String);

#[derive(Debug)]
struct Resolver(Endpoint);

impl ResolveIdentity for Resolver {
    fn resolve_identity<'a>(
        &'a self,
        _components: &'a RuntimeComponents,
        _config: &'a ConfigBag,
    ) -> IdentityFuture<'a> {
        IdentityFuture::new(async {
            let expiry = SystemTime::now() + LIFETIME;
            let token = Token(self.0.fetch().await?);
            Ok(Identity::new(token, Some(expiry)))
        })
    }
}

pub struct Smithy {
    cache: SharedIdentityCache,
    resolver: SharedIdentityResolver,
    components: RuntimeComponents,
    config: ConfigBag,
}

impl Smithy {
    pub fn new(endpoint: &Endpoint) -> Arc<Self> {
        let components = RuntimeComponentsBuilder::for_tests()
            .with_sleep_impl(Some(TokioSleep::new()))
            .with_time_source(Some(SystemTimeSource::new()));
        Arc::new(Self {
            cache: IdentityCache::lazy().build(),
            resolver: SharedIdentityResolver::new(Resolver(endpoint.clone())),
            components: components.build().expect("all components are there"),
            config: ConfigBag::base(),
        })
    }

    /// `None` if the fetch failed.
    pub async fn header(&self) -> Option<String> {
        let cached = self.cache.resolve_cached_identity(
            self.resolver.clone(),
            &self.components,
            &self.config,
        );
        let identity = cached.await.ok()?;
        let token = identity.data::<Token>().expect("it is a token");
        Some(format!("Bearer {}", token.0))
    }
}

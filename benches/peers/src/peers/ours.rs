//! This crate.

use tower::{BoxError, service_fn};
use tower_symbl_auth::{AccessToken, SymblAuthLayer, TokenRequest};

use crate::endpoint::{Endpoint, LIFETIME};

pub fn layer(endpoint: &Endpoint) -> SymblAuthLayer {
    let endpoint = endpoint.clone();
    let fetch = service_fn(move |_: TokenRequest| {
        let endpoint = endpoint.clone();
        async move {
            let token = endpoint.fetch().await?;
            Ok::<_, BoxError>(AccessToken::new(token, LIFETIME)?)
        }
    });
    SymblAuthLayer::builder(fetch).build()
}

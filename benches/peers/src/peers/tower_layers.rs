//! Layers that stamp a fixed token, and what a user would write around one.

use http::HeaderValue;
use octocrab::service::middleware::auth_header::AuthHeaderLayer;
use tower::retry::RetryLayer;
use tower_http::auth::AddAuthorizationLayer;

use super::on_401::On401;
use crate::common::{ORIGIN, token};

pub fn add_authorization() -> AddAuthorizationLayer {
    AddAuthorizationLayer::bearer(&token(1))
}

pub fn octocrab() -> AuthHeaderLayer {
    let value = HeaderValue::try_from(format!("Bearer {}", token(1))).expect("it is ASCII");
    let origin: http::Uri = ORIGIN.parse().expect("it is a URI");
    AuthHeaderLayer::new(Some(value), origin.clone(), origin)
}

/// A retry on 401, for which each request is cloned.
pub fn retry() -> RetryLayer<On401> {
    RetryLayer::new(On401)
}

//! cf-gears-toolkit-auth. Its own HTTP client fetches the token, without retries here.

use toolkit_auth::{BearerAuthAutoRefreshLayer, OAuthClientConfig, SecretString, TokenProvider};
use toolkit_http::HttpClientConfig;

use crate::endpoint::Endpoint;

pub async fn layer(endpoint: &Endpoint) -> BearerAuthAutoRefreshLayer {
    let url = format!("http://{}/token", endpoint.serve().await);
    let config = OAuthClientConfig {
        token_endpoint: Some(url.parse().expect("it is a URL")),
        client_id: "bench".into(),
        client_secret: SecretString::new("secret"),
        http_config: Some(HttpClientConfig::for_testing()),
        ..Default::default()
    };
    BearerAuthAutoRefreshLayer::new(
        TokenProvider::new(config).expect("it is a valid configuration"),
    )
}

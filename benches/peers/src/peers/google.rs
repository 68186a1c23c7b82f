//! google-cloud-auth: headers from its cache, copied into the request.

use google_cloud_auth::credentials::{CacheableResource, Credentials, user_account};
use http::{Extensions, HeaderMap};

use crate::endpoint::Endpoint;

pub async fn credentials(endpoint: &Endpoint) -> Credentials {
    let user = serde_json::json!({
        "type": "authorized_user",
        "client_id": "bench",
        "client_secret": "secret",
        "refresh_token": "refresh",
    });
    let url = format!("http://{}/token", endpoint.serve().await);
    let built = user_account::Builder::new(user).with_token_uri(url).build();
    built.expect("it is a valid configuration")
}

pub async fn headers(credentials: &Credentials) -> HeaderMap {
    match credentials.headers(Extensions::new()).await {
        Ok(CacheableResource::New { data, .. }) => data,
        other => panic!("no headers: {other:?}"),
    }
}

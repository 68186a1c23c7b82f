//! yup-oauth2: the flow with the least ado, an external account, whose tokens come from any URL.

use std::path::Path;

use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use yup_oauth2::{
    CustomHyperClientBuilder,
    authenticator::{Authenticator, ExternalAccountAuthenticator},
    external_account::{CredentialSource, ExternalAccountSecret},
};

use crate::endpoint::Endpoint;

pub const SCOPES: [&str; 1] = ["scope"];

pub async fn authenticator(endpoint: &Endpoint, file: &Path) -> Authenticator<HttpConnector> {
    let secret = ExternalAccountSecret {
        audience: "bench".into(),
        subject_token_type: "urn:ietf:params:oauth:token-type:jwt".into(),
        service_account_impersonation_url: None,
        token_url: format!("http://{}/token", endpoint.serve().await),
        credential_source: CredentialSource::File {
            file: file.to_string_lossy().into_owned(),
        },
        key_type: "external_account".into(),
    };
    let client = Client::builder(TokioExecutor::new()).build_http::<String>();
    let client = CustomHyperClientBuilder::from(client);
    let built = ExternalAccountAuthenticator::with_client(secret, client);
    built.build().await.expect("nothing is fetched yet")
}

/// `None` if the fetch failed.
pub async fn header(authenticator: &Authenticator<HttpConnector>) -> Option<String> {
    let token = authenticator.token(&SCOPES).await.ok()?;
    Some(format!("Bearer {}", token.token()?))
}

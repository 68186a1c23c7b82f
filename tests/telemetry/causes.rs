//! S3: why no token came, wherever it is told: in the error and its sources, in the 401 that is handed back, and in one
//! warning.

use std::{
    error::Error,
    net::{TcpStream, ToSocketAddrs},
};

use http::StatusCode;
use tower::{ServiceExt, service_fn};
use tower_symbl_auth::{
    AccessToken, Credentials, FetchReason, FetchToken, NotRetried, SymblAuthLayer, TokenError,
    TokenErrorKind, TokenRequest,
};

use crate::{
    FETCH,
    servers::{Endpoint, silent},
    support::*,
    told::{Told, told},
};

#[derive(Debug, Clone, Copy)]
enum Trouble {
    NoSuchName,
    NobodyListens,
    Untrusted,
}

impl Trouble {
    const ALL: [Self; 3] = [Self::NoSuchName, Self::NobodyListens, Self::Untrusted];

    /// What this system, or rustls, calls it.
    fn cause(self) -> String {
        match self {
            Self::NoSuchName => ("endpoint.invalid", 443)
                .to_socket_addrs()
                .unwrap_err()
                .to_string(),
            Self::NobodyListens => TcpStream::connect(silent()).unwrap_err().to_string(),
            Self::Untrusted => "invalid peer certificate".to_owned(),
        }
    }

    async fn endpoint(self) -> String {
        match self {
            Self::NoSuchName => "https://endpoint.invalid/".to_owned(),
            Self::NobodyListens => format!("https://{}/", silent()),
            // By a root that is no platform's.
            Self::Untrusted => Endpoint::tls().await.0.url("https", "localhost"),
        }
    }

    /// A layer that gets tokens there, or all but the first.
    async fn layer(self, first_is_there: bool) -> SymblAuthLayer {
        let fetch = FetchToken::new(Credentials::new("id", "app-s3cr3t"));
        let fetch = fetch.endpoint(self.endpoint().await.parse().unwrap());
        let fetch = fetch.unwrap().attempts(1);
        SymblAuthLayer::builder(service_fn(move |request: TokenRequest| {
            let fetch = fetch.clone();
            async move {
                if first_is_there && request.reason() == FetchReason::First {
                    return Ok(AccessToken::new("token-1", DAY).unwrap());
                }
                fetch.oneshot(request).await
            }
        }))
        .build()
    }

    fn assert_told_by(self, error: &TokenError, told: &Told) {
        assert_eq!(error.kind(), TokenErrorKind::Unavailable, "{self:?}");
        let shown = error.to_string();
        assert!(shown.contains(&self.cause()), "{self:?}: {shown}");
        let sources = std::iter::successors(error.source(), |&error| error.source());
        let deepest = sources.last().unwrap().to_string();
        assert!(deepest.contains(&self.cause()), "{self:?}: {deepest}");
        let warnings = told.all("token fetch failed");
        assert_eq!(warnings.len(), 1);
        assert_eq!(warnings[0].get("level"), "WARN");
        assert_eq!(warnings[0].get("error"), shown);
        told.assert_not_told("app-s3cr3t");
    }
}

#[test]
fn the_cause_is_in_the_error_its_sources_and_one_warning() {
    for trouble in Trouble::ALL {
        let mut error = None;
        let told = told(|_| async {
            tokio::time::resume();
            let layer = trouble.layer(false).await;
            error = Some(layer.token().await.unwrap_err());
        });
        trouble.assert_told_by(&error.unwrap(), &told);
        assert_eq!(told.names(), [FETCH, "token fetch failed"]);
    }
}

#[test]
fn the_cause_is_in_the_rejection_that_is_handed_back_and_one_warning() {
    for trouble in Trouble::ALL {
        let mut why = None;
        let told = told(|_| async {
            tokio::time::resume();
            let layer = trouble.layer(true).await;
            let rejecting = Api::judging(|_| StatusCode::UNAUTHORIZED);
            let response = send(&layer, &rejecting, get(URL)).await.unwrap();
            why = response.extensions().get::<NotRetried>().cloned();
        });
        let Some(NotRetried::Token(error)) = &why else {
            panic!("{trouble:?}: {why:?}");
        };
        let shown = why.as_ref().unwrap().to_string();
        assert!(shown.contains(&trouble.cause()), "{shown}");
        trouble.assert_told_by(error, &told);
        let handed_back = told.all("rejection handed back");
        assert_eq!(handed_back.len(), 1);
        assert_eq!(handed_back[0].get("reason"), shown);
    }
}

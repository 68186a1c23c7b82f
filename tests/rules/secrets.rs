//! Rule S4: no secret is ever shown. And the public types' promises: what is `Send`, `Sync`, `Clone`,
//! `Copy` and `Debug`.

use std::{cell::Cell, convert::Infallible, fmt::Debug, marker::PhantomData, rc::Rc};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{Empty, Full};
use tower::{Layer, Service, service_fn};
use tower_symbl_auth::*;

use crate::support::*;

const SECRETS: [&str; 2] = ["app-s3cr3t", "t0ken"];

fn shows_no_secret(shown: &dyn Debug) {
    for text in [format!("{shown:?}"), format!("{shown:#?}")] {
        for secret in SECRETS {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn debug_shows_neither_secret_nor_token() {
    let credentials = Credentials::new("app-id", "app-s3cr3t");
    let client = service_fn(|_: Request<Full<Bytes>>| async {
        let body = Full::<Bytes>::from(r#"{"accessToken":"t0ken"}"#);
        Ok::<_, Infallible>(Response::new(body))
    });
    let fetch = FetchToken::with_client(credentials.clone(), client);
    let builder = SymblAuthLayer::builder(fetch.clone());
    let layer = builder.clone().build();
    let token = layer.token().await.unwrap();
    assert_eq!(token.expose_secret(), "t0ken");
    let api: Api<Empty<Bytes>> = Api::judging(|_| StatusCode::OK);
    let mut request = get(URL);
    layer.authorize(&mut request).await.unwrap();
    let response = send(&layer, &api, get(URL));

    shows_no_secret(&credentials);
    shows_no_secret(&fetch);
    shows_no_secret(&builder);
    shows_no_secret(&layer);
    shows_no_secret(&layer.layer(()));
    shows_no_secret(&token);
    shows_no_secret(&request);
    response.await.unwrap();
    shows_no_secret(&api.seen());
}

fn value<T: Clone + Debug + Send + Sync + 'static>() {}
fn plain<T: Copy + Eq + Debug + Send + Sync + 'static>() {}
fn error<T: std::error::Error + Clone + Send + Sync + 'static>() {}
fn shared<T: Send + Sync + Unpin>() {}

#[test]
fn values_are_clone_debug_send_and_sync() {
    value::<Credentials>();
    value::<AccessToken>();
    value::<TokenRequest>();
    value::<FetchToken<()>>();
    value::<SymblAuthLayer>();
    value::<Builder>();
    value::<SymblAuth<()>>();
    value::<Origin>();
    value::<NotRetried>();
    plain::<Placement>();
    plain::<FetchReason>();
    plain::<TokenErrorKind>();
    error::<TokenError>();
    error::<CredentialsError>();
    error::<InvalidToken>();
    error::<InvalidOrigin>();
    error::<InvalidEndpoint>();
    #[cfg(feature = "client")]
    value::<DefaultClient>();
    #[cfg(feature = "client")]
    value::<FetchToken>();
    #[cfg(feature = "reqwest")]
    value::<integrations::ReqwestClient>();
}

#[test]
fn a_replay_body_is_sync_whenever_its_body_can_be_sent() {
    struct NotSync(PhantomData<Cell<u8>>);
    shared::<ReplayBody<NotSync>>();
    let _ = NotSync(PhantomData).0;
}

/// A body and a service that cannot be sent to another thread.
#[tokio::test(start_paused = true)]
async fn the_service_asks_no_more_of_inner_services_and_bodies_than_it_needs() {
    struct Local(Rc<Cell<u8>>);
    impl Body for Local {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
            self.0.set(7);
            std::task::Poll::Ready(None)
        }
    }
    let polled = Rc::new(Cell::new(0));
    let layer = Issuer::fresh(DAY, SECOND).layer();
    let local = Rc::new(());
    let mut service = layer.layer(service_fn(|request: ApiRequest<Local>| {
        let _local = Rc::clone(&local);
        async move {
            http_body_util::BodyExt::collect(request.into_body())
                .await
                .unwrap();
            Ok::<_, Infallible>(Response::new(()))
        }
    }));
    let request = Request::get(URL).body(Local(Rc::clone(&polled))).unwrap();
    std::future::poll_fn(|cx| Service::<Request<Local>>::poll_ready(&mut service, cx))
        .await
        .unwrap();
    service.call(request).await.unwrap();
    assert_eq!(polled.get(), 7);
}

#[test]
fn the_wrapped_service_can_be_had_back() {
    let mut service = Issuer::fresh(DAY, SECOND).layer().layer(7);
    *service.get_mut() += 1;
    assert_eq!(*service.get_ref(), 8);
    assert_eq!(service.into_inner(), 8);
}

#[test]
fn a_token_that_cannot_stand_in_a_header_is_refused() {
    for bad in [
        "",
        " ",
        "a b ",
        "a\nb",
        "a\r\nx: y",
        "a\tb",
        "a\u{7f}",
        "é",
        "\0",
    ] {
        let error = AccessToken::new(bad, SECOND).unwrap_err().to_string();
        assert!(error.contains("header"), "{error}");
    }
    AccessToken::new("eyJ.a-b_c~d+e/f==", SECOND).unwrap();
}

#[test]
fn lifetimes_of_any_length_do_not_overflow() {
    let token = AccessToken::new("token", std::time::Duration::MAX).unwrap();
    assert!(token.expires_in() > 3000 * DAY);
    assert!(token.expires_at() > std::time::SystemTime::now());
    let token = AccessToken::new("token", std::time::Duration::ZERO).unwrap();
    assert_eq!(token.expires_in(), std::time::Duration::ZERO);
}

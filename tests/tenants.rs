//! The map of `examples/tenants`: each request has its own tenant's token, also after a revocation, and the map is
//! bounded.
#![allow(clippy::unwrap_used)]

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::future::join_all;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use tower::{BoxError, Service};
use tower_symbl_auth::{AccessToken, ReplayBody, SymblAuthLayer, TokenRequest};

#[path = "../examples/tenants/tenants.rs"]
mod tenants;

use tenants::{TENANT, Tenants};

type Body = ReplayBody<Empty<Bytes>>;

/// How many tokens each tenant has been given: `ada-1`, `ada-2` and so on.
#[derive(Clone, Default)]
struct Issuer(Arc<Mutex<HashMap<String, usize>>>);

impl Issuer {
    fn issue(&self, tenant: &str) -> String {
        let mut issued = self.0.lock().unwrap();
        let number = issued.entry(tenant.to_owned()).or_default();
        *number += 1;
        format!("{tenant}-{number}")
    }

    fn issued(&self, tenant: &str) -> usize {
        self.0.lock().unwrap().get(tenant).copied().unwrap_or(0)
    }

    /// The layer of anyone but `mallory`.
    fn layer(&self, tenant: &str) -> Option<SymblAuthLayer> {
        if tenant == "mallory" {
            return None;
        }
        let (issuer, tenant) = (self.clone(), tenant.to_owned());
        let tokens = tower::service_fn(move |_: TokenRequest| {
            let token = issuer.issue(&tenant);
            async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok::<_, BoxError>(AccessToken::new(token, Duration::from_secs(3600))?)
            }
        });
        let origins = ["https://api.example".parse().unwrap()];
        Some(SymblAuthLayer::builder(tokens).origins(origins).build())
    }
}

/// An API that says whose token it was sent, and how often it was called. It refuses the first tokens once told to.
#[derive(Clone, Default)]
struct Api {
    refuses: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
}

impl Api {
    fn client(
        &self,
    ) -> impl Service<Request<Body>, Response = Response<String>, Error = Infallible, Future: Send> + Clone
    {
        let api = self.clone();
        tower::service_fn(move |request: Request<Body>| {
            api.calls.fetch_add(1, Ordering::Relaxed);
            assert!(!request.headers().contains_key(TENANT));
            let token = request.headers()["authorization"].to_str().unwrap();
            let (owner, number) = token["Bearer ".len()..].rsplit_once('-').unwrap();
            let mut answer = Response::new(owner.to_owned());
            if number == "1" && api.refuses.load(Ordering::Relaxed) {
                *answer.status_mut() = StatusCode::UNAUTHORIZED;
            }
            async move {
                tokio::task::yield_now().await;
                Ok(answer)
            }
        })
    }
}

fn request(tenant: &str) -> Request<Empty<Bytes>> {
    let request = Request::get("https://api.example/").header(TENANT, tenant);
    request.body(Empty::new()).unwrap()
}

fn names() -> Vec<String> {
    (0..100).map(|number| format!("tenant{number}")).collect()
}

#[tokio::test(start_paused = true)]
async fn each_request_has_its_own_tenants_token_and_so_has_its_retry() {
    let (issuer, api) = (Issuer::default(), Api::default());
    let layers = issuer.clone();
    let tenants = Tenants::new(100, api.client(), move |tenant| layers.layer(tenant));
    for fetches in 1..=2 {
        let names = names();
        let all = (0..2000).map(|number| {
            let tenant = &names[number * 7 % 100];
            let tenants = &tenants;
            async move {
                let answer = tenants.send(request(tenant)).await.unwrap();
                assert_eq!(answer.status(), StatusCode::OK);
                assert_eq!(answer.body(), tenant);
            }
        });
        join_all(all).await;
        for name in &names {
            assert_eq!(issuer.issued(name), fetches, "{name}");
        }
        api.refuses.store(true, Ordering::Relaxed);
    }
    assert!(api.calls.load(Ordering::Relaxed) > 4000);
}

#[tokio::test(start_paused = true)]
async fn so_many_tenants_at_most_are_kept_and_the_one_unused_longest_goes() {
    let (issuer, api) = (Issuer::default(), Api::default());
    let layers = issuer.clone();
    let tenants = Tenants::new(2, api.client(), move |tenant| layers.layer(tenant));
    for tenant in ["ada", "bob", "ada", "cy", "ada", "bob"] {
        let answer = tenants.send(request(tenant)).await.unwrap();
        assert_eq!(answer.body(), tenant);
        assert!(tenants.known() <= 2);
    }
    let issued = ["ada", "bob", "cy"].map(|tenant| issuer.issued(tenant));
    assert_eq!(issued, [1, 2, 1]);
    for tenant in names() {
        assert_eq!(
            tenants.send(request(&tenant)).await.unwrap().body(),
            &tenant
        );
        assert!(tenants.known() <= 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_tenant_or_for_an_unknown_one_is_not_sent() {
    let (issuer, api) = (Issuer::default(), Api::default());
    let tenants = Tenants::new(2, api.client(), move |tenant| issuer.layer(tenant));
    let mut nobody = request("ada");
    nobody.headers_mut().remove(TENANT);
    let mut unreadable = request("ada");
    let latin = http::HeaderValue::from_bytes(b"ad\xe1").unwrap();
    unreadable.headers_mut().insert(TENANT, latin);
    for request in [nobody, unreadable, request("mallory")] {
        tenants.send(request).await.unwrap_err();
    }
    assert_eq!((api.calls.load(Ordering::Relaxed), tenants.known()), (0, 0));
}

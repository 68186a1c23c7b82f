//! What a request costs with a token cached, over the same request without the peer.

use std::{
    convert::Infallible, fmt::Debug, hint::black_box, marker::PhantomData, path::Path, sync::Arc,
};

use azure_core::http::policies::Policy;
use bytes::Bytes;
use http::{HeaderValue, Request, header::AUTHORIZATION};
use http_body_util::Full;
use reqwest_middleware::ClientWithMiddleware;
use tokio::runtime::Runtime;
use toolkit_http::HttpError;
use tower::{BoxError, Layer, Service};

use crate::{
    common::{Nothing, SHAPES, Shape, send, token},
    endpoint::Endpoint,
    measure::{Cost, UNIT, over},
    peers::{azure, careful, gears, google, kube, ours, reqwest, smithy, tower_layers, yup},
};

type Row = (&'static str, Cost);

const OURS: &str = "tower-symbl-auth";
const GEARS: &str = "cf-gears-toolkit-auth `BearerAuthAutoRefreshLayer`";

pub fn print(runtime: &Runtime, token_file: &Path) {
    for shape in SHAPES {
        let rows = rows(runtime, shape, token_file);
        println!("\n### Per request, token cached: {}\n", shape.name());
        println!("| peer | baseline, {UNIT} | over it, {UNIT} |");
        println!("|---|---|---|");
        for (peer, Cost { baseline, over }) in &rows {
            println!("| {peer} | {baseline:.0} | {over:.0} |");
        }
        if UNIT == "ns" {
            bar(shape, &rows);
        }
    }
}

fn bar(shape: Shape, rows: &[Row]) {
    const BAR: f64 = 0.3;
    let over = |name| {
        let row = rows.iter().find(|(peer, _)| *peer == name);
        row.expect("it is measured").1.over
    };
    let ratio = over(OURS) / over(GEARS);
    let verdict = if ratio <= BAR { "holds" } else { "short" };
    let shape = shape.name();
    println!("\n{shape}: overhead to cf-gears' {ratio:.3}, at most {BAR}, {verdict}");
}

fn rows(runtime: &Runtime, shape: Shape, token_file: &Path) -> Vec<Row> {
    let mut rows = layers(runtime, shape, token_file);
    rows.push(azure_core(runtime, shape));
    rows.extend(header_sources(runtime, shape, token_file));
    rows.extend(middlewares(runtime, shape));
    rows
}

fn layers(runtime: &Runtime, shape: Shape, token_file: &Path) -> Vec<Row> {
    let _context = runtime.enter();
    let endpoint = Endpoint::new(false);
    let nothing = || Nothing::<Infallible>(PhantomData);
    let boxing = || Nothing::<BoxError>(PhantomData);
    let fallible = || Nothing::<HttpError>(PhantomData);
    let (add, retry) = (tower_layers::add_authorization(), tower_layers::retry());
    let octocrab = tower_layers::octocrab().layer(nothing());
    let hand_written = retry.layer(add.layer(nothing()));
    let careful = retry.layer(careful::CarefulLayer::new(&token(1)).layer(nothing()));
    let ours = ours::layer(&endpoint).layer(nothing());
    let kube = kube::layer(token_file).layer(boxing());
    let gears = runtime.block_on(gears::layer(&endpoint)).layer(fallible());
    vec![
        (OURS, tower(runtime, shape, nothing(), ours)),
        (
            "tower-http `AddAuthorization`",
            tower(runtime, shape, nothing(), add.layer(nothing())),
        ),
        (
            "octocrab `AuthHeaderLayer`",
            tower(runtime, shape, nothing(), octocrab),
        ),
        (
            "hand-written: `tower::retry` on 401 over `AddAuthorization`",
            tower(runtime, shape, nothing(), hand_written),
        ),
        (
            "hand-written with care: shared, checked for expiry and origin",
            tower(runtime, shape, nothing(), careful),
        ),
        (
            "kube-client `AuthLayer`, token file",
            tower(runtime, shape, boxing(), kube),
        ),
        (GEARS, tower(runtime, shape, fallible(), gears)),
    ]
}

fn tower<B, S>(runtime: &Runtime, shape: Shape, mut bare: B, mut service: S) -> Cost
where
    B: Service<Request<Full<Bytes>>, Response = http::Response<()>>,
    B::Error: Debug,
    S: Service<Request<Full<Bytes>>, Response = http::Response<()>>,
    S::Error: Debug,
{
    over(
        runtime,
        async || assert_eq!(send(&mut bare, shape.request()).await, 200),
        async || assert_eq!(send(&mut service, shape.request()).await, 200),
    )
}

fn azure_core(runtime: &Runtime, shape: Shape) -> Row {
    let next: [Arc<dyn Policy>; 1] = [Arc::new(azure::Nothing)];
    let policy = azure::policy(&Endpoint::new(false));
    let cost = over(
        runtime,
        async || _ = azure::send(&azure::Nothing, azure::request(shape), &[]).await,
        async || _ = azure::send(&policy, azure::request(shape), &next).await,
    );
    ("azure_core `BearerTokenAuthorizationPolicy`", cost)
}

/// Peers that hand out a header, which the caller stamps.
fn header_sources(runtime: &Runtime, shape: Shape, token_file: &Path) -> Vec<Row> {
    let endpoint = Endpoint::new(false);
    let smithy = smithy::Smithy::new(&endpoint);
    let yup = runtime.block_on(yup::authenticator(&endpoint, token_file));
    let google = runtime.block_on(async { google::credentials(&endpoint).await });
    let bare = || async || finish(shape.request());
    let stamp = |header: Option<String>| {
        let mut request = shape.request();
        let value = HeaderValue::try_from(header.expect("there is a token"));
        let value = value.expect("it is ASCII");
        request.headers_mut().insert(AUTHORIZATION, value);
        finish(request);
    };
    let google = over(runtime, bare(), async || {
        let mut request = shape.request();
        request.headers_mut().extend(google::headers(&google).await);
        finish(request);
    });
    let smithy = over(runtime, bare(), async || stamp(smithy.header().await));
    let yup = over(runtime, bare(), async || stamp(yup::header(&yup).await));
    vec![
        ("google-cloud-auth, cached headers", google),
        ("aws-smithy-runtime, identity cache", smithy),
        ("yup-oauth2 `Authenticator`", yup),
    ]
}

fn finish(request: Request<Full<Bytes>>) {
    black_box(&request);
    black_box(http::Response::new(()));
}

fn middlewares(runtime: &Runtime, shape: Shape) -> Vec<Row> {
    let bare = reqwest::bare();
    let measure = |client: ClientWithMiddleware| {
        over(
            runtime,
            async || reqwest::send(&bare, shape).await,
            async || reqwest::send(&client, shape).await,
        )
    };
    vec![
        (
            "reqwest-middleware, one that adds a fixed token",
            measure(reqwest::fixed()),
        ),
        #[cfg(feature = "ours-reqwest")]
        (
            "reqwest-middleware, tower-symbl-auth",
            measure(reqwest::ours(ours::layer(&Endpoint::new(false)))),
        ),
    ]
}

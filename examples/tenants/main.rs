//! A tenant for each request: a service that calls the API in many customers' names, each with an application, and so
//! a token, of its own. A header says for whom (`tenants.rs`).
//!
//! Runs against the stand-in server in this crate, whose one application all tenants here share; each has
//! its own token all the same. Prints what a tenant costs.
//!
//! `cargo run --release --example tenants --features full`

mod tenants;

use std::time::Instant;

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::runtime::{Builder, Runtime};
use tower::BoxError;
use tower_symbl_auth::{FetchToken, ReplayBody, SymblAuthLayer, mock::MockSymbl};

use tenants::{TENANT, Tenants};

const TENANTS: usize = 1000;

fn main() -> Result<(), BoxError> {
    // The server has threads of its own: what this one allocates is the tenants'.
    let elsewhere = Runtime::new()?;
    let symbl = elsewhere.block_on(MockSymbl::start())?;
    symbl.cache_tokens(false);

    // One HTTP client for the API, and one for all token requests.
    let api = Client::builder(TokioExecutor::new()).build_http::<ReplayBody<Empty<Bytes>>>();
    let tokens = Client::builder(TokioExecutor::new()).build_http();
    let (credentials, endpoint) = (symbl.credentials(), symbl.token_endpoint());
    let origin = symbl.origin();
    let tenants = Tenants::new(TENANTS + 1, api, move |_tenant| {
        // Here a tenant's credentials would be looked up.
        let tokens = FetchToken::with_client(credentials.clone(), tokens.clone());
        let tokens = tokens.endpoint(endpoint.clone()).ok()?;
        let layer = SymblAuthLayer::builder(tokens).origins([origin.clone()]);
        Some(layer.build())
    });

    let here = Builder::new_current_thread().enable_all().build()?;
    let ask = async |tenant: usize| {
        let request =
            Request::get(symbl.url("/v1/job/1")).header(TENANT, format!("tenant-{tenant}"));
        tenants.send(request.body(Empty::new())?).await
    };
    here.block_on(ask(0))?; // one more, with whom both clients connect

    let begun = Instant::now();
    let made = allocation_counter::measure(|| {
        for tenant in 1..=TENANTS {
            tenants.client(&format!("tenant-{tenant}"));
        }
    });
    let time = begun.elapsed() / TENANTS as u32;
    let bytes = made.bytes_current / TENANTS as i64;
    println!("{TENANTS} tenants, each {bytes} bytes and {time:?} before its first request");

    let begun = Instant::now();
    let mut last = Ok(());
    let used = allocation_counter::measure(|| {
        last = here.block_on(async {
            for tenant in 1..=TENANTS {
                ask(tenant).await?;
            }
            Ok::<_, BoxError>(())
        });
    });
    last?;
    let time = begun.elapsed() / TENANTS as u32;
    let bytes = used.bytes_current / TENANTS as i64;
    println!("{bytes} bytes more with its token, which takes {time:?} with one request");

    println!(
        "{} token fetches, {} requests, {} rejected; {} tenants are known",
        symbl.token_requests(),
        symbl.api_requests(),
        symbl.rejections(),
        tenants.known()
    );
    if symbl.rejections() > 0 || symbl.token_requests() != TENANTS + 1 {
        return Err("a tenant had another's token, or none".into());
    }
    Ok(())
}

//! What the layer costs as a middleware of reqwest-middleware, beside one that adds a fixed token: in chains that end in
//! a middleware which answers by itself.
//!
//! After `--`, `--count SHAPE CLIENT N` sends N requests and no more, to be counted.
#![allow(missing_docs)]

use futures::FutureExt;
use http::HeaderValue;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware};

mod common;
#[path = "common/middlewares.rs"]
mod middlewares;

use common::{
    HEADERS, Shape, URL,
    bars::{at_most, interleaved},
    layer_with_token, token,
};
use middlewares::{Fixed, Nothing};

const SHAPES: [Shape; 2] = [Shape::Get, Shape::PostThreeHeaders];

fn client(middleware: Option<impl Middleware>) -> ClientWithMiddleware {
    let client = ClientBuilder::new(reqwest::Client::new());
    let client = match middleware {
        Some(middleware) => client.with(middleware),
        None => client,
    };
    client.with(Nothing).build()
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().expect("a runtime starts");
    let layer = runtime.block_on(layer_with_token());
    let _context = runtime.enter();
    let value = HeaderValue::try_from(format!("Bearer {}", token())).expect("it is ASCII");
    let clients = || {
        let fixed = Fixed(value.clone());
        [
            client(None::<Fixed>),
            client(Some(fixed)),
            client(Some(layer.clone())),
        ]
    };

    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--count") {
        let number = |offset: usize| arguments[at + offset].parse().expect("a number");
        let (shape, client) = (SHAPES[number(1)], &clients()[number(2)]);
        return (0..number(3)).for_each(|_| send(client, shape));
    }

    println!("| request | bare, ns | fixed token, over bare | ours, over bare |");
    println!("|---|---|---|---|");
    let mut over_fixed = Vec::new();
    for shape in SHAPES {
        let mut senders =
            clients().map(|client| Box::new(move || send(&client, shape)) as Box<dyn FnMut()>);
        let nanos = interleaved(&mut senders, 401, 200);
        let [bare, fixed, ours] = nanos[..] else {
            unreachable!("there are three");
        };
        let name = shape.name();
        println!(
            "| {name} | {bare:.0} | {:.0} | {:.0} |",
            fixed - bare,
            ours - bare
        );
        over_fixed.push((name, ours - fixed));
    }
    println!();
    for (name, nanos) in over_fixed {
        at_most(
            &format!("reqwest-middleware, {name}: ns over a fixed token's"),
            nanos,
            400.0,
        );
    }
}

fn send(client: &ClientWithMiddleware, shape: Shape) {
    let request = match shape {
        Shape::Get => client.get(URL),
        _ => HEADERS[..3]
            .iter()
            .fold(client.post(URL), |request, (name, value)| {
                request.header(*name, HeaderValue::from_static(value))
            })
            .body(&[b'x'; 512][..]),
    };
    let response = request.send().now_or_never();
    let response = response
        .expect("nothing waits")
        .expect("the middleware answers");
    assert_eq!(response.status(), 200);
}

//! How cost grows: with threads, with requests in flight, with the length of bodies, with layers, with
//! callers that wait for a token.
#![allow(missing_docs)]

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use tokio::runtime::Runtime;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_symbl_auth::{AccessToken, SymblAuthLayer, TokenRequest};

mod common;

use common::{
    Frames, Nothing, Reads, Shape,
    bars::{at_most, interleaved, median},
    layer_with_token, request, send, shared, token,
};

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().expect("a runtime starts");
    let layer = runtime.block_on(layer_with_token());
    threads(&layer);
    in_flight(&runtime, &layer);
    bodies(&layer);
    layers(&runtime);
    herd(&runtime);
}

// === threads ===

fn threads(layer: &SymblAuthLayer) {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    println!("### Threads that share one layer: GET, {cores} cores\n");
    println!("| threads | bare, ns of a core | ours, ns of a core | over bare, ns |");
    println!("|---|---|---|---|");
    for threads in 1..=8 {
        let round = |ours: bool| {
            let nanos = match ours {
                true => on_threads(threads, || layer.layer(Nothing)),
                false => on_threads(threads, || Nothing),
            };
            nanos * threads.min(cores) as f64
        };
        let rounds: Vec<_> = (0..11).map(|_| (round(false), round(true))).collect();
        let bare = median(rounds.iter().map(|round| round.0));
        let ours = median(rounds.iter().map(|round| round.1));
        let over = ours - bare;
        println!("| {threads} | {bare:.0} | {ours:.0} | {over:.0} |");
    }
}

/// Nanoseconds from the first request to the last, per request of all threads.
fn on_threads<S>(threads: usize, service: impl Fn() -> S + Sync) -> f64
where
    S: Service<Request<http_body_util::Full<Bytes>>, Response = Response<()>>,
    S::Error: std::fmt::Debug,
{
    const REQUESTS: usize = 100_000;
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut service = service();
                (0..REQUESTS).for_each(|_| send(&mut service, request(Shape::Get)));
            });
        }
    });
    start.elapsed().as_nanos() as f64 / (REQUESTS * threads) as f64
}

// === requests in flight ===

/// Keeps the request, as a client does, and never answers.
#[derive(Clone, Copy)]
struct Keeps;

struct Kept<B>(#[allow(dead_code, reason = "it is there to be kept")] Request<B>);

impl<B> Service<Request<B>> for Keeps {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Kept<B>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Kept<B> {
        Kept(request)
    }
}

impl<B> Future for Kept<B> {
    type Output = Result<Response<()>, Infallible>;

    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Pending
    }
}

fn in_flight(runtime: &Runtime, layer: &SymblAuthLayer) {
    println!("\n### Requests in flight: bytes that each takes\n");
    println!("| request | in flight | bare | ours | over bare |");
    println!("|---|---|---|---|---|");
    for shape in [Shape::Get, Shape::PostThreeHeaders] {
        for callers in [1, 10, 100, 1_000, 10_000] {
            let bare = bytes_of(runtime, callers, || Keeps, shape);
            let ours = bytes_of(runtime, callers, || layer.layer(Keeps), shape);
            let (shape, over) = (shape.name(), ours - bare);
            println!("| {shape} | {callers} | {bare:.0} | {ours:.0} | {over:.0} |");
        }
    }
}

/// Bytes that live while so many calls of the service wait, per call.
fn bytes_of<S>(runtime: &Runtime, callers: usize, service: impl Fn() -> S, shape: Shape) -> f64
where
    S: Service<Request<http_body_util::Full<Bytes>>, Response = Response<()>>,
{
    let _context = runtime.enter();
    let mut service = service();
    let mut calls = None;
    let measured = allocation_counter::measure(|| {
        let mut waiting = Vec::with_capacity(callers);
        waiting.extend((0..callers).map(|_| Box::pin(service.call(request(shape)))));
        let cx = &mut Context::from_waker(Waker::noop());
        for call in &mut waiting {
            assert!(call.as_mut().poll(cx).is_pending(), "it waits");
        }
        calls = Some(waiting);
    });
    drop(calls);
    measured.bytes_current as f64 / callers as f64
}

// === bodies ===

fn bodies(layer: &SymblAuthLayer) {
    const FRAME: usize = 16 * 1024;
    println!("\n### Bodies in frames of 16 KiB, each copied out; limit 1 MiB\n");
    println!("| body, KiB | bare, µs | ours, µs | ours to bare | over bare, ns a frame |");
    println!("|---|---|---|---|---|");
    for kib in [
        1,
        16,
        64,
        256,
        1 << 10,
        4 << 10,
        16 << 10,
        64 << 10,
        256 << 10,
    ] {
        let frames = (kib * 1024_usize).div_ceil(FRAME);
        let content = shared(kib * 1024);
        let make = move || {
            let frames = Frames {
                content: content.clone(),
                frame: FRAME,
                told: false,
            };
            frames.request()
        };
        let reads = Reads::Copying;
        let (mut bare, mut ours, make_too) = (reads, layer.layer(reads), make.clone());
        let mut candidates: [Box<dyn FnMut()>; 2] = [
            Box::new(move || send(&mut bare, make())),
            Box::new(move || send(&mut ours, make_too())),
        ];
        let calls = (20_000 / frames).clamp(1, 1_000);
        let times = interleaved(
            &mut candidates,
            51,
            u32::try_from(calls).expect("it is small"),
        );
        let (ratio, each) = (times[1] / times[0], (times[1] - times[0]) / frames as f64);
        let [bare, ours] = [times[0] / 1e3, times[1] / 1e3];
        println!("| {kib} | {bare:.2} | {ours:.2} | {ratio:.2} | {each:.0} |");
    }
}

// === layers ===

fn layers(runtime: &Runtime) {
    println!("\n### Layers on one client, each with a token of its own, in turn: GET\n");
    println!("| layers | bare, ns | ours, ns | over bare, ns |");
    println!("|---|---|---|---|");
    for count in [1, 10, 100, 1_000] {
        let layers = (0..count).map(|number| {
            let layer = layer_of(number);
            runtime.block_on(layer.token()).expect("the fetch succeeds");
            layer.layer(Nothing)
        });
        let mut ours: Vec<_> = layers.collect();
        let mut bare = vec![Nothing; count];
        let (mut turn, mut other) = (0, 0);
        let mut candidates: [Box<dyn FnMut()>; 2] = [
            Box::new(move || {
                turn = (turn + 1) % count;
                send(&mut bare[turn], request(Shape::Get));
            }),
            Box::new(move || {
                other = (other + 1) % count;
                send(&mut ours[other], request(Shape::Get));
            }),
        ];
        let times = interleaved(&mut candidates, 101, 2_000);
        let (bare, ours, over) = (times[0], times[1], times[1] - times[0]);
        println!("| {count} | {bare:.0} | {ours:.0} | {over:.0} |");
    }
}

/// A layer with a token of its own.
fn layer_of(number: usize) -> SymblAuthLayer {
    let fetch = service_fn(move |_: TokenRequest| async move {
        let token = AccessToken::new(format!("{}{number}", token()), Duration::from_secs(86_400))?;
        Ok::<_, BoxError>(token)
    });
    SymblAuthLayer::builder(fetch).build()
}

// === callers that wait for a token ===

const HERD: usize = 10_000;
const FETCH: Duration = Duration::from_millis(100);

fn herd(runtime: &Runtime) {
    let fetches = Arc::new(AtomicUsize::new(0));
    let layer = || {
        let fetches = Arc::clone(&fetches);
        let fetch = service_fn(move |_: TokenRequest| {
            fetches.fetch_add(1, Relaxed);
            async {
                tokio::time::sleep(FETCH).await;
                Ok::<_, BoxError>(AccessToken::new(token(), Duration::from_secs(86_400))?)
            }
        });
        SymblAuthLayer::builder(fetch).build()
    };

    let last = runtime.block_on(async {
        let service = layer().layer(Nothing);
        let start = Instant::now();
        let callers: Vec<_> = (0..HERD)
            .map(|_| tokio::spawn(service.clone().oneshot(request(Shape::Get))))
            .collect();
        for caller in callers {
            let response = caller.await.expect("no caller panics");
            response.expect("the fetch succeeds");
        }
        start.elapsed()
    });
    let fetched = fetches.load(Relaxed) as f64;

    let shape = Shape::Get;
    let bare = bytes_of(runtime, HERD, || Keeps, shape);
    let waiting = bytes_of(runtime, HERD, || layer().layer(Keeps), shape) - bare;

    println!("\n### {HERD} callers without a token, {FETCH:?} a fetch\n");
    at_most("herd: fetches", fetched, 1.0);
    let ratio = last.as_secs_f64() / FETCH.as_secs_f64();
    at_most("herd: last caller served, to the fetch's time", ratio, 1.3);
    let name = "herd: bytes a waiting caller, beyond its request";
    at_most(name, waiting, 900.0);
}

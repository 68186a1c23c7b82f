//! What a request with a live token costs in time, in several shapes and through several stacks around a
//! service that does nothing.
//!
//! `cargo bench --bench overhead` times them with criterion. After `--`:
//!
//! - `--bars` holds interleaved medians against the bars, without criterion;
//! - `--instructions` counts instructions per request, under valgrind;
//! - `--count SHAPE STACK N` sends N requests and no more, to be counted.
#![allow(missing_docs)]

use std::process::Command;

use criterion::{BenchmarkId, Criterion};
use tower_symbl_auth::SymblAuthLayer;

mod common;

use common::{
    SHAPES, STACKS, Shape, Stack,
    bars::{allocations, at_most, interleaved},
    layer_with_token, sender,
};

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().expect("a runtime starts");
    let layer = runtime.block_on(layer_with_token());

    let arguments: Vec<String> = std::env::args().collect();
    let position = |name| arguments.iter().position(|argument| argument == name);
    if let Some(at) = position("--count") {
        let number = |offset: usize| arguments[at + offset].parse().expect("a number");
        let (shape, stack): (usize, usize) = (number(1), number(2));
        let (mut send, _) = sender(STACKS[stack], SHAPES[shape], &layer);
        (0..number(3)).for_each(|_| send());
    } else if position("--bars").is_some() {
        bars(&layer);
    } else if position("--instructions").is_some() {
        instructions();
    } else {
        timings(&layer);
    }
}

fn timings(layer: &SymblAuthLayer) {
    let mut criterion = Criterion::default().configure_from_args();
    for shape in SHAPES {
        let mut group = criterion.benchmark_group(shape.name());
        for stack in STACKS {
            let (mut send, _) = sender(stack, shape, layer);
            let id = BenchmarkId::from_parameter(stack.name());
            group.bench_function(id, |bencher| bencher.iter(&mut send));
        }
    }
    criterion.final_summary();
}

// === bars ===

fn bars(layer: &SymblAuthLayer) {
    println!("| request | stack | median, ns | over bare, ns | allocations |");
    println!("|---|---|---|---|---|");
    let get = measure(layer, Shape::Get);
    let post = measure(layer, Shape::PostThreeHeaders);
    let streamed = measure(layer, Shape::Streamed);
    println!();

    let overhead =
        |of: &[Measured], stack| of_stack(of, stack).nanos - of_stack(of, Stack::Bare).nanos;
    let to_hand_written =
        |of: &[Measured]| overhead(of, Stack::Ours) / overhead(of, Stack::HandWritten);
    let name = "POST, 3 headers, 512 bytes: overhead to the hand-written one's";
    at_most(name, to_hand_written(&post), 0.9);
    at_most(
        "GET: overhead to the hand-written one's",
        to_hand_written(&get),
        1.0,
    );
    let nanos = |stack| of_stack(&streamed, stack).nanos;
    let name = "POST, 16 frames of 16 KiB: time to bare";
    at_most(name, nanos(Stack::Ours) / nanos(Stack::Bare), 1.3);

    let more = |of: &[Measured], than| {
        of_stack(of, Stack::Ours).allocations - of_stack(of, than).allocations
    };
    let than = Stack::AddAuthorization;
    at_most(
        "GET: allocations over AddAuthorization",
        more(&get, than),
        1.0,
    );
    at_most(
        "POST: allocations over AddAuthorization",
        more(&post, than),
        1.0,
    );
    let a_frame = more(&streamed, Stack::Bare) / 16.0;
    at_most(
        "POST, 16 frames: allocations a frame over bare",
        a_frame,
        1.0,
    );
}

struct Measured {
    nanos: f64,
    allocations: f64,
}

/// In the order of `STACKS`.
fn measure(layer: &SymblAuthLayer, shape: Shape) -> Vec<Measured> {
    let senders = || STACKS.map(|stack| sender(stack, shape, layer).0);
    let nanos = interleaved(&mut senders(), 201, 1_000);
    let bare = nanos[0];
    let measured = nanos.into_iter().zip(senders()).zip(STACKS);
    let measured = measured.map(|((nanos, mut send), stack)| {
        let allocations = allocations(&mut send);
        let (shape, stack, over) = (shape.name(), stack.name(), nanos - bare);
        println!("| {shape} | {stack} | {nanos:.0} | {over:.0} | {allocations:.2} |");
        Measured { nanos, allocations }
    });
    measured.collect()
}

fn of_stack(of: &[Measured], stack: Stack) -> &Measured {
    let at = STACKS.iter().position(|other| *other == stack);
    &of[at.expect("all stacks are measured")]
}

// === instructions ===

fn instructions() {
    println!("| request | stack | instructions | over bare |");
    println!("|---|---|---|---|");
    for (at, shape) in SHAPES.iter().enumerate() {
        let mut bare = None;
        for (stack_at, stack) in STACKS.iter().enumerate() {
            // What the start of the program costs is in both.
            let counts = [100, 1_100].map(|requests| count(at, stack_at, requests));
            let [Some(few), Some(many)] = counts else {
                println!("\nskipped: valgrind cannot be run");
                return;
            };
            let each = (many - few) / 1_000;
            let over = each - *bare.get_or_insert(each);
            let (shape, stack) = (shape.name(), stack.name());
            println!("| {shape} | {stack} | {each} | {over} |");
        }
    }
}

/// The instructions of a run of `--count`.
fn count(shape: usize, stack: usize, requests: usize) -> Option<i64> {
    let this = std::env::current_exe().ok()?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(this)
        .arg("--count")
        .args([shape, stack, requests].map(|number| number.to_string()))
        .output()
        .ok()?;
    let log = String::from_utf8(output.stderr).ok()?;
    let collected = log.lines().find_map(|line| line.split_once("Collected : "));
    collected?.1.trim().parse().ok()
}

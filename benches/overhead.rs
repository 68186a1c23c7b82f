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
    bars::{at_most, interleaved},
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
    println!("| request | stack | median, ns | over bare, ns |");
    println!("|---|---|---|---|");
    let measured = SHAPES.map(|shape| (shape, measure(layer, shape)));
    println!();

    let nanos = |shape, stack: Stack| {
        let of = |(measured, _): &&(Shape, _)| *measured == shape;
        let (_, nanos) = measured.iter().find(of).expect("all shapes are measured");
        let at = STACKS.iter().position(|other| *other == stack);
        nanos[at.expect("all stacks are measured")]
    };
    let to_hand_written = |shape| {
        let overhead = |stack| nanos(shape, stack) - nanos(shape, Stack::Bare);
        overhead(Stack::Ours) / overhead(Stack::HandWritten)
    };
    for (shape, bar) in [(Shape::PostThreeHeaders, 0.9), (Shape::Get, 1.0)] {
        let name = format!("{}: overhead to the hand-written one's", shape.name());
        at_most(&name, to_hand_written(shape), bar);
    }
    for shape in [Shape::Streamed, Shape::Unread] {
        let to_bare = nanos(shape, Stack::Ours) / nanos(shape, Stack::Bare);
        at_most(&format!("{}: time to bare", shape.name()), to_bare, 1.3);
    }
}

/// Nanoseconds, in the order of `STACKS`.
fn measure(layer: &SymblAuthLayer, shape: Shape) -> Vec<f64> {
    let mut senders = STACKS.map(|stack| sender(stack, shape, layer).0);
    // Short turns: what disturbs one is to disturb all.
    let nanos = interleaved(&mut senders, 2_001, 100);
    for (stack, each) in STACKS.iter().zip(&nanos) {
        let (shape, stack, over) = (shape.name(), stack.name(), each - nanos[0]);
        println!("| {shape} | {stack} | {each:.0} | {over:.0} |");
    }
    nanos
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

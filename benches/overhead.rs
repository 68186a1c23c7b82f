//! What a request with a live token costs in time, in several shapes and through several stacks around a
//! service that does nothing.
//!
//! `cargo bench --bench overhead` times them with criterion. After `--`:
//!
//! - `--bars` holds medians against the bars, without criterion;
//! - `--instructions` counts instructions per request, under valgrind;
//! - `--nanos` and `--count SHAPE STACK N` are what these two run: one process's part of the medians, and
//!   N requests and no more, to be counted.
#![allow(missing_docs)]

use std::process::Command;

use criterion::{BenchmarkId, Criterion};
use tower_symbl_auth::SymblAuthLayer;

mod common;

use common::{
    SHAPES, STACKS, Shape, Stack,
    bars::{at_most, interleaved, median},
    instructions::count,
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
    } else if position("--nanos").is_some() {
        nanos(&layer);
    } else if position("--bars").is_some() {
        bars();
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

/// A process has its stack and its heap where it happens to have them, which is worth some fifty nanoseconds
/// either way: so the medians are over processes.
const RUNS: usize = 15;

fn bars() {
    let runs: Vec<Vec<Vec<f64>>> = (0..RUNS).map(|_| run()).collect();
    let over_runs =
        |figure: &dyn Fn(&[Vec<f64>]) -> f64| median(runs.iter().map(|run| figure(run)));
    let index = |shape| SHAPES.iter().position(|other| *other == shape);
    let of = |run: &[Vec<f64>], shape, stack: Stack| {
        let (shape, stack) = (
            index(shape),
            STACKS.iter().position(|other| *other == stack),
        );
        run[shape.expect("all are measured")][stack.expect("all are measured")]
    };

    println!("| request | stack | median, ns | over bare, ns |");
    println!("|---|---|---|---|");
    for shape in SHAPES {
        for stack in STACKS {
            let nanos = over_runs(&|run| of(run, shape, stack));
            let over = over_runs(&|run| of(run, shape, stack) - of(run, shape, Stack::Bare));
            let (shape, stack) = (shape.name(), stack.name());
            println!("| {shape} | {stack} | {nanos:.0} | {over:.0} |");
        }
    }
    println!();

    let to = |shape, other| {
        over_runs(&|run| {
            let over = |stack| of(run, shape, stack) - of(run, shape, Stack::Bare);
            over(Stack::Ours) / over(other)
        })
    };
    for (shape, bar) in [(Shape::Get, 0.9), (Shape::PostThreeHeaders, 0.75)] {
        let name = shape.name();
        let naive = to(shape, Stack::HandWritten);
        println!("{name}: overhead to the naive stack's {naive:.3}");
        let careful = to(shape, Stack::Careful);
        at_most(
            &format!("{name}: overhead to the careful stack's"),
            careful,
            bar,
        );
    }
    for (shape, bar) in [(Shape::Streamed, 1.1), (Shape::Unread, 1.5)] {
        let ratio = over_runs(&|run| of(run, shape, Stack::Ours) / of(run, shape, Stack::Bare));
        at_most(&format!("{}: time to bare", shape.name()), ratio, bar);
    }
}

/// What a process of its own measures: for each shape the nanoseconds of each stack.
fn run() -> Vec<Vec<f64>> {
    let this = std::env::current_exe().expect("this program has a path");
    let output = Command::new(this).arg("--nanos").output();
    let output = output.expect("this program runs once more").stdout;
    let lines = String::from_utf8(output).expect("it prints numbers");
    let number = |word: &str| word.parse().expect("it prints numbers");
    let numbers = |line: &str| line.split(' ').map(number).collect();
    lines.lines().map(numbers).collect()
}

fn nanos(layer: &SymblAuthLayer) {
    for shape in SHAPES {
        let mut senders = STACKS.map(|stack| sender(stack, shape, layer).0);
        // Short turns: what disturbs one is to disturb all.
        let nanos = interleaved(&mut senders, 101, 500);
        println!(
            "{}",
            nanos
                .iter()
                .map(f64::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        );
    }
}

// === instructions ===

fn instructions() {
    println!("| request | stack | instructions | over bare |");
    println!("|---|---|---|---|");
    for (at, shape) in SHAPES.iter().enumerate() {
        let mut bare = None;
        for (stack_at, stack) in STACKS.iter().enumerate() {
            // What the start of the program costs is in both.
            let counts = [100, 1_100].map(|requests| count(&[at, stack_at, requests]));
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

//! What a request with a live token costs in time, in several shapes and through several stacks around a
//! service that does nothing.
//!
//! `cargo bench --bench overhead` times them with criterion. `cargo bench --bench overhead --
//! --count SHAPE STACK N` sends N requests and no more, to count instructions with
//! `valgrind --tool=callgrind`.
#![allow(missing_docs)]

use criterion::{BenchmarkId, Criterion};

mod common;

use common::{SHAPES, STACKS, layer_with_token, sender};

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().expect("a runtime starts");
    let layer = runtime.block_on(layer_with_token());

    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--count") {
        let number = |offset: usize| arguments[at + offset].parse().expect("a number");
        let (shape, stack): (usize, usize) = (number(1), number(2));
        let (mut send, _) = sender(STACKS[stack], SHAPES[shape], &layer);
        (0..number(3)).for_each(|_| send());
        return;
    }

    let mut criterion = Criterion::default().configure_from_args();
    for shape in SHAPES {
        let mut group = criterion.benchmark_group(shape.name());
        for stack in STACKS {
            let (mut send, _) = sender(stack, shape, &layer);
            let id = BenchmarkId::from_parameter(stack.name());
            group.bench_function(id, |bencher| bencher.iter(&mut send));
        }
    }
    criterion.final_summary();
}

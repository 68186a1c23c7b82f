//! What a request with a live token costs in allocations, and how large the future is that it is sent
//! with. These are exact, and apart from the timings, since counting takes time.
#![allow(missing_docs)]

mod common;

use common::{SHAPES, STACKS, Shape, Stack, bars::at_most, layer_with_token, sender};

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().expect("a runtime starts");
    let layer = runtime.block_on(layer_with_token());

    println!("| request | stack | allocations | bytes | future, bytes |");
    println!("|---|---|---|---|---|");
    let mut counts = Vec::new();
    for shape in SHAPES {
        for stack in STACKS {
            let (mut send, size) = sender(stack, shape, &layer);
            send();
            let allocations = allocation_counter::measure(&mut send);
            let (count, bytes) = (allocations.count_total, allocations.bytes_total);
            counts.push(((shape, stack), count));
            let (shape, stack) = (shape.name(), stack.name());
            println!("| {shape} | {stack} | {count} | {bytes} | {size} |");
        }
    }
    println!();

    let more = |shape, than| {
        let of = |stack| {
            let found = counts.iter().find(|(of, _)| *of == (shape, stack));
            found.expect("all are counted").1 as f64
        };
        of(Stack::Ours) - of(than)
    };
    for (shape, bar) in [(Shape::Get, 0.0), (Shape::PostThreeHeaders, 1.0)] {
        let name = format!("{}: allocations over AddAuthorization", shape.name());
        at_most(&name, more(shape, Stack::AddAuthorization), bar);
    }
    let name = format!("{}: allocations a frame over bare", Shape::Streamed.name());
    at_most(&name, more(Shape::Streamed, Stack::Bare) / 16.0, 1.0);
}

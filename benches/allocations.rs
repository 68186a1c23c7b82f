//! What a request with a live token costs in allocations, and how large the future is that it is sent
//! with. These are exact, and apart from the timings, since counting takes time.
#![allow(missing_docs)]

mod common;

use common::{SHAPES, STACKS, layer_with_token, sender};

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().expect("a runtime starts");
    let layer = runtime.block_on(layer_with_token());

    println!("| request | stack | allocations | bytes | future, bytes |");
    println!("|---|---|---|---|---|");
    for shape in SHAPES {
        for stack in STACKS {
            let (mut send, size) = sender(stack, shape, &layer);
            send();
            let allocations = allocation_counter::measure(&mut send);
            let (count, bytes) = (allocations.count_total, allocations.bytes_total);
            let (shape, stack) = (shape.name(), stack.name());
            println!("| {shape} | {stack} | {count} | {bytes} | {size} |");
        }
    }
}

//! One token for a fleet: sharing, sealing, limits, and what happens when the store is of no help. The
//! processes of a fleet are `Shared` services or layers in one process here; `tests/fleet` has real ones.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod contract;
mod file;
mod limits;
mod memory;
mod sealing;
mod sharing;
#[path = "../rules/support.rs"]
mod support;
mod telemetry;
#[path = "../telemetry/told.rs"]
#[allow(dead_code)]
mod told;
mod trouble;

//! The layer in other libraries' clothes.
//!
#![cfg_attr(
    feature = "reqwest-middleware",
    doc = "# reqwest-middleware\n\nSee [`mod@reqwest`]."
)]

#[cfg(feature = "reqwest-middleware")]
pub mod reqwest;

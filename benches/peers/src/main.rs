//! This crate beside its peers: what a request costs, what a herd of callers does, and what a revocation
//! does, in Markdown tables. With the feature `allocations`: what a request costs in allocations.

use tokio::runtime::Builder;

mod common;
mod endpoint;
mod herds;
mod measure;
mod peers;
mod per_request;
mod revocations;

fn main() {
    // What kube-client reads its token from, and yup-oauth2 its credential.
    let file = std::env::temp_dir().join(format!("peers-{}", std::process::id()));
    std::fs::write(&file, common::token(1))
        .expect("the folder for temporary files can be written to");

    // reqwest, as google-cloud-auth has it, brings none.
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.install_default().expect("it is the first");

    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime starts");
    per_request::print(&runtime, &file);
    if measure::UNIT == "ns" {
        runtime.block_on(herds::print(&file));
        runtime.block_on(revocations::print());
    }

    let _ = std::fs::remove_file(file);
}

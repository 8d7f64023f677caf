//! What a request spends its time in, each apart: `cargo bench -p berth-tests --features hot --bench hot`.
//!
//! Both servers run in this process; what is measured is called without a connection, so that a
//! figure is of Berth's own work and not of the kernel's.

mod disk;
mod request;

use criterion::{criterion_group, criterion_main};

criterion_group!(hot, request::endpoint, request::answers, disk::digest, disk::pieces);
criterion_main!(hot);

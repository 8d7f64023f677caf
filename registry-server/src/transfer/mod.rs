//! Content that comes and goes other than by the API.

pub mod import;

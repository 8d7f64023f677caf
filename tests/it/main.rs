//! One binary for all black-box tests, so that everything is linked once.

mod pull;

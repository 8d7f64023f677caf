//! Attacks: what strangers can make of signing in.

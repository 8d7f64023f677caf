//! Attacks: what holds the one writer of the database.

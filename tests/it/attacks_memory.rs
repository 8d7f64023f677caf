//! Attacks: what clients make the servers hold in memory.

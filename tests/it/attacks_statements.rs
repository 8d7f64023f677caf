//! Attacks: what grows with use and is asked for by everybody.

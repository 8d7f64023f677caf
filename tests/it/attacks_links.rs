//! Attacks: what the service's own user can plant for root to follow.

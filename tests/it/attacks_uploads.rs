//! Attacks: what one pusher can hold that all pushers need.

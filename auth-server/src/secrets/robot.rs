//! What a robot signs in with: a [secret](super) that begins with `berth_`.

use super::{Kind, Secret};

/// Marks the secrets of robots.
pub struct OfRobot;

impl Kind for OfRobot {
    const PREFIX: &'static str = "berth_";
}

/// The secret of a robot.
pub type RobotSecret = Secret<OfRobot>;

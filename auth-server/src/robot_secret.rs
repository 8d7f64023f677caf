//! What a robot signs in with: an [opaque](crate::opaque) secret that begins with `berth_`.

use crate::opaque::{Kind, Secret};

/// Marks the secrets of robots.
pub struct OfRobot;

impl Kind for OfRobot {
    const PREFIX: &'static str = "berth_";
}

/// The secret of a robot.
pub type RobotSecret = Secret<OfRobot>;

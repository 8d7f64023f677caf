//! What a client may keep in place of a password: a [secret](super) that begins with `berth_rt_`.

use super::{Kind, Secret};

/// The user name beside which docker's credential helpers keep a refresh token, and which programs
/// that know no better send along with it. No user can have it.
pub const USER_NAME: &str = "<token>";

/// Marks refresh tokens.
pub struct OfRefresh;

impl Kind for OfRefresh {
    const PREFIX: &'static str = "berth_rt_";
}

/// A refresh token.
pub type RefreshToken = Secret<OfRefresh>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::robot::RobotSecret;

    #[test]
    fn a_refresh_token_is_no_secret_of_a_robot_and_the_other_way_round() {
        let (refresh, robot) =
            (RefreshToken::generate().unwrap(), RobotSecret::generate().unwrap());
        assert!(refresh.expose().parse::<RefreshToken>().is_ok());
        assert!(refresh.expose().parse::<RobotSecret>().is_err());
        assert!(robot.expose().parse::<RefreshToken>().is_err());
        assert!(USER_NAME.parse::<berth_shared::subject::UserName>().is_err());
    }
}

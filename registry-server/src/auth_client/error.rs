//! Why `auth-server` gave no answer.

use berth_shared::client::ClientError;

/// There is no usable answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It could not be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It answers nobody who does not show its secret.
    #[error(
        "auth-server refuses the link's secret: the file that link.secret_file names has to hold what \
         auth-server's holds"
    )]
    Refused,
    /// Nobody knows where it is.
    #[error("finding the addresses of {host}: {reason}")]
    Addresses {
        /// The name in `link.url`.
        host: String,
        /// Why not.
        reason: String,
    },
    /// It did not answer in the time that there is for a poll.
    #[error("{0} does not answer in time")]
    Slow(String),
    /// What came is not what was asked for.
    #[error("{0}")]
    Answer(String),
}

//! Why `auth-server` gave no answer.

use berth_shared::client::ClientError;

/// There is no usable answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It could not be asked.
    #[error(transparent)]
    Client(ClientError),
    /// Somebody else is where it should be, or it shows another certificate than it should.
    #[error(
        "{0}; it has to be of the CA in link.ca, which authctl link init makes anew with --force alone, and \
         for the host in link.url"
    )]
    Untrusted(ClientError),
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
    /// What came is not what was asked for.
    #[error("{0}")]
    Answer(String),
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Untrusted { .. } => Self::Untrusted(error),
            error => Self::Client(error),
        }
    }
}

impl Error {
    /// Whether it does not pass by itself: somebody has to bring a file.
    pub(super) fn stays(&self) -> bool {
        matches!(self, Self::Refused | Self::Untrusted(_))
    }

    /// Whether a server that is well may have been asked, over a connection that had died.
    pub(super) fn may_be_of_a_kept_connection(&self) -> bool {
        matches!(self, Self::Client(_)) && !self.is_unheard()
    }

    /// Whether nothing of a request was looked at.
    pub(super) fn is_unheard(&self) -> bool {
        self.stays() || matches!(self, Self::Client(ClientError::Connect { .. }))
    }
}

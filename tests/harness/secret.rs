//! Something to hide: a stack with content that the subjects of a test may not know of.

use crate::{
    image::{Image, digest_of, start_upload},
    stack::Stack,
};

/// A stack in which the repository `secret` holds an image under `v1` and an upload session.
pub struct Secret {
    /// Both servers.
    pub stack: Stack,
    /// What is to stay hidden.
    pub image: Image,
    /// Where the upload session lies.
    pub location: String,
}

/// Somebody who has rights elsewhere, and tokens without any: what does not open `secret`.
#[derive(Debug, Clone)]
pub struct Stranger {
    /// For messages.
    pub name: &'static str,
    /// The bearer token, if any is sent.
    pub token: Option<String>,
}

impl Secret {
    /// Starts both servers, and pushes as `owner`.
    pub async fn start() -> Self {
        let stack = Stack::start().await;
        let owner = stack.forged_token("owner", &["repository:secret:*"]);
        let image = Image::new("secret");
        image.push(&stack.client, &owner, "secret", "v1").await;
        let location = start_upload(&stack.client, &owner, "secret").await;
        Self { stack, image, location }
    }

    /// Paths below a repository: one of something that is there, and one alike of nothing.
    ///
    /// # Panics
    /// When the session's location has no id.
    #[must_use]
    pub fn pairs(&self) -> Vec<(String, String)> {
        let (blob, manifest) = (digest_of(&self.image.layer), self.image.digest());
        let nothing = digest_of(b"nothing");
        let id = self.location.rsplit_once('/').expect("an id").1;
        let no_id = "0".repeat(id.len());
        vec![
            ("tags/list".to_owned(), "tags/list".to_owned()),
            (format!("blobs/{blob}"), format!("blobs/{nothing}")),
            ("manifests/v1".to_owned(), "manifests/v2".to_owned()),
            (format!("manifests/{manifest}"), format!("manifests/{nothing}")),
            (format!("referrers/{manifest}"), format!("referrers/{nothing}")),
            (format!("blobs/uploads/{id}"), format!("blobs/uploads/{no_id}")),
            ("blobs/uploads/".to_owned(), "blobs/uploads/".to_owned()),
            (format!("blobs/uploads/?mount={blob}"), format!("blobs/uploads/?mount={nothing}")),
        ]
    }

    /// Everybody who may do nothing to `secret`.
    #[must_use]
    pub fn strangers(&self) -> Vec<Stranger> {
        let forged = |user: &str, scopes: &[&str]| Some(self.stack.forged_token(user, scopes));
        let elsewhere = ["repository:public:*", "registry:catalog:*"];
        let mut expired = self.stack.good_claims("andrew", &["repository:secret:*"]);
        expired.exp = self.stack.clock.now() - 60;
        [
            ("no token", None),
            ("anonymous", forged("", &["repository:public:pull"])),
            ("no rights", forged("andrew", &[])),
            ("rights elsewhere", forged("andrew", &elsewhere)),
            ("expired", Some(self.stack.sign(&expired))),
            ("nonsense", Some("nonsense".to_owned())),
        ]
        .map(|(name, token)| Stranger { name, token })
        .into()
    }
}

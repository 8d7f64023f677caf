//! Who there is and what each may do, as both are now.

use std::sync::Arc;

use crate::{acl::policy::Policy, users::store::UserSet};

/// Users and rules that belong together; see [`AuthServer::current`](crate::server::AuthServer).
pub(crate) struct Current {
    pub(crate) policy: Arc<Policy>,
    pub(crate) users: Arc<UserSet>,
}

//! One request: whether there is room for it, its body at the client's pace, and its answer followed
//! to the socket.

use std::{convert::Infallible, sync::Arc};

use axum::{Router, body::Body};
use http::{HeaderValue, StatusCode, header};
use hyper::{Request, Response, body::Incoming};
use tower::ServiceExt;

use super::{
    PeerAddress,
    arriving::ArrivingBody,
    budget::{Reservation, Share},
    pace::LeastRate,
    progress::{AnswerBody, Progress},
    refusal, refusals,
};
use crate::error::Code;

/// What a request takes besides its head, its body and its answer, in bytes.
const REQUEST_BYTES: usize = 8 * 1024;

/// Requests of a connection, with heads of that many bytes, that need no room in the share of their
/// network.
const FREE_REQUESTS: usize = 4;
const FREE_HEAD_BYTES: usize = 8 * 1024;

/// What the requests of a connection are served with.
pub(super) struct Admission {
    pub(super) peer: PeerAddress,
    pub(super) router: Router,
    /// What the requests of its network may take.
    pub(super) requests: Share,
    pub(super) progress: Arc<Progress>,
    pub(super) body_rate: LeastRate,
}

impl Admission {
    /// Answers a request, or turns it away.
    pub(super) fn serve(
        &self,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<AnswerBody>, Infallible>> + use<> {
        request.extensions_mut().insert(self.peer);
        let (under_way, count) = self.progress.begin_request();
        let room = self.room_for(&request, count);
        let (router, rate) = (self.router.clone(), self.body_rate);
        async move {
            let Some(room) = room else {
                return Ok(turned_away().map(|body| under_way.answer(body, None)));
            };
            let arriving = Arc::clone(&under_way);
            let request = request.map(|body| Body::new(ArrivingBody::new(body, arriving, rate)));
            let response = router.oneshot(request).await?;
            Ok(response.map(|body| under_way.answer(body, room)))
        }
    }

    /// Room for one of `count` requests of the connection; `None` when there is none. Whoever asks
    /// for little needs none, so that it is served whatever others of its network ask for.
    fn room_for<B>(&self, request: &Request<B>, count: usize) -> Option<Option<Reservation>> {
        let head = size_of_head(request);
        if head <= FREE_HEAD_BYTES && count <= FREE_REQUESTS {
            return Some(None);
        }
        self.requests.try_reserve(head + REQUEST_BYTES).map(Some)
    }
}

fn size_of_head<B>(request: &Request<B>) -> usize {
    let headers = request.headers().iter();
    let headers: usize = headers.map(|(name, value)| name.as_str().len() + value.len()).sum();
    headers + request.uri().path().len() + request.uri().query().map_or(0, str::len)
}

/// The answer where the network has as many requests under way as it may.
fn turned_away() -> Response<Body> {
    refusals::note("REQUESTS_BYTES_MAX");
    let message = "too many requests are under way: try again in a few seconds";
    let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, message);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    response
}

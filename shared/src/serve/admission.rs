//! One request: whether there is room for it, its body at the client's pace, and its answer followed
//! to the socket.

use std::{convert::Infallible, sync::Arc};

use axum::{Router, body::Body};
use http::{HeaderValue, Method, StatusCode, Version, header};
use http_body::Body as HttpBody;
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

/// What a header takes besides its name and value, in bytes: tiny ones are a hundred times as large
/// in memory as on their way.
const HEADER_BYTES: usize = 128;

/// The most headers of a request; more get 431. HTTP/1 has no more here anyway.
const HEADERS_MAX: usize = 100;

/// What the trailers of a request may take until its body is read, in bytes.
const TRAILERS_BYTES: usize = 24 * 1024;

/// What they may take where nobody reads the body, in bytes, as long as the request is under way.
const STRAY_TRAILERS_BYTES: usize = 64 * 1024;

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
        // What is turned away is not kept until the client has taken its answer.
        let admitted = self.admit(&request, count).map(|room| (room, request));
        let (router, rate) = (self.router.clone(), self.body_rate);
        async move {
            let (room, request) = match admitted {
                Ok(admitted) => admitted,
                Err(reason) => {
                    let refusal = reason.into_response();
                    return Ok(refusal.map(|body| under_way.answer(body, None)));
                }
            };
            let arriving = Arc::clone(&under_way);
            let request = request.map(|body| Body::new(ArrivingBody::new(body, arriving, rate)));
            let response = router.oneshot(request).await?;
            Ok(response.map(|body| under_way.answer(body, room)))
        }
    }

    /// Room for one of `count` requests of the connection. Whoever asks for little needs none, so that
    /// it is served whatever others of its network ask for.
    fn admit<B: HttpBody>(
        &self,
        request: &Request<B>,
        count: usize,
    ) -> Result<Option<Reservation>, TurnedAway> {
        if request.headers().len() > HEADERS_MAX {
            return Err(TurnedAway::ByHeaders);
        }
        let head = size_of_head(request);
        let is_stray = has_stray_body(request);
        if head <= FREE_HEAD_BYTES && !is_stray && count <= FREE_REQUESTS {
            return Ok(None);
        }
        let trailers = match request.version() {
            Version::HTTP_2 if is_stray => STRAY_TRAILERS_BYTES,
            Version::HTTP_2 if !request.body().is_end_stream() => TRAILERS_BYTES,
            _ => 0,
        };
        let room = self.requests.try_reserve(head + trailers + REQUEST_BYTES);
        room.map(Some).ok_or(TurnedAway::ByRequests)
    }
}

fn size_of_head<B>(request: &Request<B>) -> usize {
    let headers = request.headers().iter();
    let headers = headers.map(|(name, value)| name.as_str().len() + value.len() + HEADER_BYTES);
    let target = request.uri().path().len() + request.uri().query().map_or(0, str::len);
    headers.sum::<usize>() + target
}

/// Whether there is a body, or trailers, that no handler reads.
fn has_stray_body<B: HttpBody>(request: &Request<B>) -> bool {
    let takes_one = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    !takes_one && !request.body().is_end_stream()
}

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TurnedAway {
    /// It has too many headers.
    ByHeaders,
    /// Its network has as many requests under way as it may.
    ByRequests,
}

impl TurnedAway {
    fn into_response(self) -> Response<Body> {
        match self {
            Self::ByHeaders => {
                refusals::note("HEADERS_MAX");
                let message = "a request may have 100 headers";
                refusal(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, Code::Unsupported, message)
            }
            Self::ByRequests => {
                refusals::note("REQUESTS_BYTES_MAX");
                let message = "too many requests are under way: try again in a few seconds";
                let status = StatusCode::SERVICE_UNAVAILABLE;
                let mut response = refusal(status, Code::Unavailable, message);
                let soon = HeaderValue::from_static("2");
                response.headers_mut().insert(header::RETRY_AFTER, soon);
                response
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http_body_util::{Empty, Full};

    use super::{super::budget::Budget, *};
    use crate::claimant::Claimant;

    fn admission() -> Admission {
        let rate = LeastRate { bytes_per_sec: 1, idle: Duration::from_secs(1), ahead_bytes: 0 };
        Admission {
            peer: PeerAddress(None),
            router: Router::new(),
            requests: Budget::new("a limit", 1 << 20).share(Claimant::stranger(None)),
            progress: Progress::new(rate),
            body_rate: rate,
        }
    }

    fn request<B>(method: Method, version: Version, headers: usize, body: B) -> Request<B> {
        let mut request = Request::new(body);
        (*request.method_mut(), *request.version_mut()) = (method, version);
        for n in 0..headers {
            let name = http::HeaderName::try_from(format!("x-{n}")).unwrap();
            request.headers_mut().insert(name, HeaderValue::from_static(""));
        }
        request
    }

    #[test]
    fn a_request_counts_by_what_it_may_take() {
        let (admission, empty) = (admission(), Empty::<Bytes>::new());
        let body = || Full::new(Bytes::from_static(b"x"));
        let amount = |room: Option<Reservation>| room.map(|room| room.amount());
        let get = |headers| request(Method::GET, Version::HTTP_2, headers, empty);
        assert_eq!(amount(admission.admit(&get(10), 4).unwrap()), None, "little is free");
        let fifth = 8 * 1024 + 10 * (128 + 3) + 1;
        assert_eq!(amount(admission.admit(&get(10), 5).unwrap()), Some(fifth));
        assert!(amount(admission.admit(&get(90), 1).unwrap()).is_some_and(|it| it > 90 * 128));
        assert_eq!(admission.admit(&get(101), 1).unwrap_err(), TurnedAway::ByHeaders);
        for (method, version, expected) in [
            (Method::GET, Version::HTTP_2, Some(72 * 1024 + 1)),
            (Method::GET, Version::HTTP_11, Some(8 * 1024 + 1)),
            (Method::PUT, Version::HTTP_2, None),
        ] {
            let request = request(method, version, 0, body());
            assert_eq!(amount(admission.admit(&request, 1).unwrap()), expected, "{request:?}");
        }
    }

    #[test]
    fn who_asks_for_more_than_there_is_is_turned_away() {
        let admission = admission();
        let mut held = Vec::new();
        let refused = loop {
            let request = request(Method::PUT, Version::HTTP_2, 0, Full::new(Bytes::from("x")));
            match admission.admit(&request, 5) {
                Ok(room) => held.push(room),
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused, TurnedAway::ByRequests);
        assert!(!held.is_empty() && held.len() <= 16, "{}", held.len());
    }
}

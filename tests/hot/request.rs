//! What every request costs: its path, its token, and the answer.

use axum::{Router, body::Body};
use criterion::{BatchSize, Criterion};
use harness::{Stack, client::HOST, image::Image};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use registry_server::{config::Config, fuzzing::Endpoint, server::Server};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

const REPOSITORY: &str = "team/app";
const MANIFEST: &str = "/v2/team/app/manifests/latest";

/// From method and raw path to an endpoint.
pub(crate) fn endpoint(criterion: &mut Criterion) {
    let digest = format!("sha256:{:064x}", 7);
    for (name, path) in
        [("a tag", MANIFEST.to_owned()), ("a blob", format!("/v2/team/app/blobs/{digest}"))]
    {
        assert!(Endpoint::parse(&Method::GET, &path).is_ok());
        criterion.bench_function(&format!("endpoint of {name}"), |bencher| {
            bencher.iter(|| Endpoint::parse(&Method::GET, &path));
        });
    }
}

/// The routes of a registry that has one image, and who may read it.
struct Served {
    runtime: Runtime,
    stack: Stack,
    routes: Router,
    token: String,
}

impl Served {
    fn new() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let (stack, routes, token) = runtime.block_on(async {
            let mut stack = Stack::start().await;
            stack.grant("andrew", &format!("{REPOSITORY}:pull,push")).await;
            let token = stack.full_token(REPOSITORY).await;
            Image::new("hot").push(&stack.client, &token, REPOSITORY, "latest").await;
            stack.stop_registry().await;
            let config = Config::read(&stack.root().join("registry.toml")).expect("registry.toml");
            let server = Server::start(config, stack.clock.clone()).await.expect("a server");
            let routes = server.routes();
            tokio::spawn(server.serve(CancellationToken::new()));
            (stack, routes, token)
        });
        let served = Self { runtime, stack, routes, token };
        // Until then nobody has told it what is revoked.
        while served.answer(MANIFEST, &served.token) == StatusCode::SERVICE_UNAVAILABLE {
            std::thread::yield_now();
        }
        served
    }

    /// What comes of a request, whose answer is read to its end.
    fn answer(&self, path: &str, token: &str) -> StatusCode {
        let request = Request::get(path)
            .header("host", HOST)
            .header("authorization", format!("Bearer {token}"))
            .body(Body::empty())
            .expect("a request");
        self.runtime.block_on(async {
            let answer = self.routes.clone().oneshot(request).await.expect("an answer");
            let status = answer.status();
            answer.into_body().collect().await.expect("a body");
            status
        })
    }
}

/// Whole requests, from the routes to the last byte of the answer.
pub(crate) fn answers(criterion: &mut Criterion) {
    let served = Served::new();
    let (known, ok) = (&served.token, StatusCode::OK);
    criterion.bench_function("a token that is known", |bencher| {
        bencher.iter(|| assert_eq!(served.answer("/v2/", known), ok));
    });
    let (keys, mut claims) = (served.stack.signing_keys(), served.stack.good_claims("andrew", &[]));
    let mut number = 0;
    criterion.bench_function("a token that is new", |bencher| {
        bencher.iter_batched(
            || {
                number += 1;
                claims.jti = format!("hot-{number}");
                keys.sign(&claims).expect("a signature")
            },
            |token| assert_eq!(served.answer("/v2/", &token), ok),
            BatchSize::SmallInput,
        );
    });
    criterion.bench_function("a manifest by tag, in memory", |bencher| {
        bencher.iter(|| assert_eq!(served.answer(MANIFEST, known), ok));
    });
}
